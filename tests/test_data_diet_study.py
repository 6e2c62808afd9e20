"""The study of data diets: its claims, and what it measures, against plain code."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import tiny_studies

from experiments.studies import data_diet, driver
from experiments.studies.data_diet import claims, measure, variants
from experiments.studies.runs import Run, Scoring
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.data.data_pruning import score_files
from jaxsparse.reports import plot_style
from jaxsparse.training import checkpoints

SCORES = "scores/mnist_el2n.npz"
SIZES = variants.Sizes(4, (30,), 30)
PLAIN = {
    "lottery.levels": 1,
    "instability.points": 3,
    "instability.examples": 50,
    "evaluation.every": "12step",
}


def shrink(patch: pytest.MonkeyPatch) -> list[Run]:
    """Makes the sizes of subsets those of digits, and lists three runs."""
    patch.setitem(variants.SIZES["quick"], "mnist", SIZES)
    patch.setitem(variants.CHANGED["quick"], "mnist", {})
    recipe = tiny_studies.RECIPE
    every = variants.of_tickets("mnist", "quick", SCORES)
    assert list(every) == ["k0", "k1", "k2", "easy_30", "random_30", "hard_30"]
    made = {name: every[name] for name in ("k1", "easy_30")}
    scoring = (Scoring("el2n", SCORES, {"batch_size": 50}),)
    scored = Run("mnist_scored", recipe, {"lottery.levels": 0}, scoring)
    return [scored, *(Run(f"mnist_{k}", recipe, v | PLAIN) for k, v in made.items())]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs of a study on digits."""
    return shrink(monkeypatch)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a study that has run through, and what is measured of its runs."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        # Figures are drawn, but nobody looks at them.
        patch.setattr(plot_style, "render", lambda figure, file_format: b"")
        made = tiny_studies.as_tiny(data_diet.STUDY, shrink(patch))
        return folder, tiny_studies.train(made, folder)


@pytest.fixture(scope="module")
def whole(study: tuple[Path, dict[str, Any]]) -> Path:
    return study[0]


@pytest.fixture(scope="module")
def found(study: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return {name.removeprefix("mnist_"): entry for name, entry in study[1].items()}


def test_all_variants_are_there(found: dict[str, Any]) -> None:
    """The study of three runs that all tests here share."""
    assert found["scored"] == {"scored": (2, 12)}
    starts = {name: arm["rewind"] for name, arm in found.items() if name != "scored"}
    assert starts == {"k1": 4, "easy_30": 4}


def test_subsets_are_of_the_scores(whole: Path, small: list[Run]) -> None:
    run = factory.open_run(whole / "mnist_easy_30")
    saved = score_files.load(whole / SCORES, labels=run.dataset.train.labels)
    made = factory.make_experiment(run.config, run.dataset, run.folder)
    order = np.asarray(made.pretrainer.feed.make_order(made.seeds.data, 0))
    wanted = np.sort(np.argsort(saved.scores, kind="stable")[:30])
    for seen in order:
        np.testing.assert_array_equal(np.sort(seen), wanted)


def logits(params: Any, dataset: Any) -> np.ndarray:
    """Applies the network to raw training images, in plain code."""
    x = np.asarray(dataset.train.images, np.float64) / 255
    x = ((x - dataset.mean[0]) / dataset.std[0]).reshape(len(x), -1)
    for name in ("dense1", "head"):
        x = x @ np.asarray(params[name]["kernel"], float) + params[name]["bias"]
        x = np.maximum(x, 0) if name == "dense1" else x
    return x


def test_barriers_against_plain_code(whole: Path, found: dict[str, Any]) -> None:
    arm = found["k1"]
    run = factory.open_run(whole / "mnist_k1")
    parent, copies = (
        jax.tree.map(np.asarray, factory.load_state(run, name).params)
        for name in ("level_00/ticket/last", "level_00/children_000000004/last")
    )
    labels = np.asarray(run.dataset.train.labels)

    def losses(params: Any) -> np.ndarray:
        rows = logits(params, run.dataset)
        total = np.log(np.sum(np.exp(rows), axis=1))
        return total - rows[np.arange(len(labels)), labels]

    def take(tree: Any, row: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[row].astype(float), tree)

    every: list[np.ndarray] = []
    for r in range(2):
        ends = [take(parent, r), take(copies, 2 * r), take(copies, 2 * r + 1)]
        barriers = []
        for a, b in ((0, 1), (0, 2), (1, 2)):
            middle = jax.tree.map(lambda x, y: (x + y) / 2, ends[a], ends[b])
            rise = losses(middle) - (losses(ends[a]) + losses(ends[b])) / 2
            barriers.append(rise)
        wanted = np.mean(barriers, axis=0)
        assert arm["mean_barrier"][r] == pytest.approx(wanted.mean(), abs=1e-5)
        every += barriers
        for name, at in (("connected", 0.5), ("connected_0", 0.0)):
            # May fall either way.
            near = np.mean(np.abs(np.subtract(barriers, at)) < 2e-5)
            fraction = np.mean(np.asarray(barriers) <= at)
            assert arm[name][r] == pytest.approx(fraction, abs=near + 1e-9)
    assert sum(arm["histogram"]) == np.size(every) == 3 * 2 * len(labels)
    for c, share in enumerate(arm["by_class"]):
        own = np.asarray(every)[:, labels == c]
        assert share == pytest.approx(np.mean(own <= 0.5), abs=1e-3)


def test_sharpness_is_the_largest_eigenvalue(
    whole: Path, found: dict[str, Any]
) -> None:
    arm = found["k1"]
    for name in ("sharpness_start", "sharpness_end"):
        assert len(arm[name]) == 2
        assert np.all(np.asarray(arm[name]) > 0)
    # The whole Hessian of plain code, on the same examples.
    run = factory.open_run(whole / "mnist_k1")
    state = factory.load_state(run, "level_00/ticket/last")
    assert all(
        np.all(mask) for mask in jax.tree.leaves(transforms.get_masks(state.opt_state))
    )
    count = measure.HESSIAN[1000][0]
    x = np.asarray(run.dataset.train.images[:count], np.float32) / 255
    x = ((x - run.dataset.mean[0]) / run.dataset.std[0]).reshape(count, -1)
    x = x.astype(np.float32)
    labels = np.asarray(run.dataset.train.labels[:count])
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def loss(flat: Any) -> Any:
        p = unravel(flat)
        hidden = x @ p["dense1"]["kernel"] + p["dense1"]["bias"][None]
        rows = jnp.maximum(hidden, 0) @ p["head"]["kernel"] + p["head"]["bias"][None]
        return -jnp.mean(jax.nn.log_softmax(rows)[np.arange(count), labels])

    largest = np.linalg.eigvalsh(np.asarray(jax.jit(jax.hessian(loss))(flat)))[-1]
    assert arm["sharpness_end"][0] == pytest.approx(largest, rel=0.05)
    assert arm["sharpness_end"][0] <= largest * 1.001


def test_early_accuracy_is_where_levels_start(
    whole: Path, found: dict[str, Any]
) -> None:
    arm = found["k1"]
    rows = metrics_log.read(whole / "mnist_k1" / "metrics.jsonl")
    for r in range(2):
        (row,) = [
            row
            for row in rows
            if (row["kind"], row["step"]) == ("eval", 4)
            and row["variant"] == "pretraining"
            and row["replicate"] == r
        ]
        assert arm["pretrained"][r] == 100 * row["test_accuracy"]


def test_the_page_says_what_was_found(whole: Path) -> None:
    report = whole / "report"
    rows = pd.read_csv(report / "mnist_claims.csv").set_index("claim")["verdict"]
    assert list(rows.index) == [claim.name for claim in claims.CLAIMS]
    assert rows.pop("wrong labels hurt") == "not measured"
    # Of two seeds, and without some variants.
    assert {row.removesuffix(" (short)") for row in rows} <= {
        *("unclear", "not measured", "premise absent")
    }
    table = pd.read_csv(report / "mnist_variants.csv")
    assert len(table) == 2 * 2
    # Too few variants for ranks.
    assert not (report / "mnist_ranks.csv").exists()
    for name in ("levels", "barrier", "barriers"):
        assert (report / f"mnist_{name}.png").exists()


def test_scores_that_are_lost_are_made_again(
    whole: Path, small: list[Run], tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "study")
    made = tiny_studies.as_tiny(data_diet.STUDY, small)
    scored, _, easy = tiny_studies.tasks(made, tmp_path / "study")
    path = tmp_path / "study" / SCORES
    before = score_files.read(path)
    path.unlink()
    driver.train(scored.run, scored.others, scored.places)
    again = score_files.read(path)
    np.testing.assert_array_equal(again.scores, before.scores)
    assert again.provenance == before.provenance
    assert driver.is_done(easy)


def test_scores_by_other_options_are_refused(
    whole: Path, small: list[Run], tmp_path: Path
) -> None:
    (task, *_) = tiny_studies.tasks(tiny_studies.as_tiny(data_diet.STUDY, small), whole)
    before = (whole / SCORES).read_bytes()
    options = {"batch_size": 50, "checkpoint": "init"}
    other = task.run._replace(scoring=(Scoring("el2n", SCORES, options),))
    with pytest.raises(ValueError, match="other score .*move the file"):
        driver.train(other, task.others, task.places)
    assert (whole / SCORES).read_bytes() == before
    driver.train(task.run, task.others, task.places)


def dies(function: Any, after: int) -> Any:
    """Lets some calls through, and raises at the next."""
    calls = iter(range(10_000))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == after:
            raise Killed
        return function(*args, **kwargs)

    return wrapped


class Killed(BaseException):
    """Nothing can be tidied up."""


@pytest.mark.campaign
def test_a_killed_study_resumes_to_identical_results(
    whole: Path, small: list[Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed while it trains, scores, measures and writes records."""
    places = [
        (metrics_log, "append", 5),
        (score_files, "save", 0),
        (checkpoints, "save", 3),
        (checkpoints, "save", 9),
        (metrics_log, "append", 20),
        (metrics_log, "write_atomically", 3),
        (measure, "of_curvature", 1),
    ]
    made = tiny_studies.as_tiny(data_diet.STUDY, small)
    for module, name, after in places:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, dies(getattr(module, name), after))
            driver.run_all(tiny_studies.tasks(made, tmp_path))
    assert driver.run_all(tiny_studies.tasks(made, tmp_path)) == []
    for run in small:
        paths = (each / "records" / f"{run.name}.json" for each in (tmp_path, whole))
        again, once = (json.loads(path.read_text()) for path in paths)
        assert again["measured"] == once["measured"]
    assert (tmp_path / SCORES).read_bytes() == (whole / SCORES).read_bytes()
