"""The study of data diets: its claims, and what it measures, against plain code."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from helpers import tiny_studies
from scipy import stats

from experiments.studies import claims as claims_lib
from experiments.studies import data_diet, launcher
from experiments.studies.data_diet import analysis, claims, variants
from experiments.studies.data_diet import report as report_lib
from experiments.studies.runs import Run
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.data.data_pruning import score_files
from jaxsparse.training import checkpoints

SCORES = "scores/mnist_el2n.npz"
SIZES = variants.Sizes(4, (30, 60), 30)
PLAIN = {
    "lottery.levels": 2,
    "instability.points": 3,
    "instability.examples": 50,
    "evaluation.every": "12step",
}


def tiny_runs() -> list[Run]:
    made = variants.of_tickets("mnist", "quick", SCORES)
    scored = Run("mnist_scored", "tiny", {"lottery.levels": 0}, {"el2n": SCORES})
    return [scored, *(Run(f"mnist_{k}", "tiny", v | PLAIN) for k, v in made.items())]


def shrink(patch: pytest.MonkeyPatch) -> list[Run]:
    patch.setitem(variants.SIZES["quick"], "mnist", SIZES)
    patch.setitem(variants.CHANGED["quick"], "mnist", {})
    runs = tiny_runs()
    tiny_studies.as_tiny(patch, variants, runs)
    return runs


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs of a study on digits."""
    return shrink(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has run through, with its report."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        assert launcher.run_all(shrink(patch), folder, "") == []
        data_diet.STUDY.finish(folder, "quick", "")
    return folder


def test_all_variants_are_there(whole: Path, small: list[Run]) -> None:
    found = analysis.measure(whole, "mnist", "quick", "")
    kinds = [f"{kind}_{size}" for kind in variants.KINDS for size in (30, 60)]
    assert list(found["variants"]) == ["k0", "k1", "k2", *kinds]
    starts = {name: arm["rewind"] for name, arm in found["variants"].items()}
    assert starts == dict.fromkeys(found["variants"], 4) | {"k0": 0, "k2": 8}


def test_subsets_are_of_the_scores(whole: Path, small: list[Run]) -> None:
    run = factory.open_run(whole / "mnist_easy_30")
    saved = score_files.load(whole / SCORES, labels=run.dataset.train.labels)
    made = factory.make_experiment(run.config, run.dataset, run.folder)
    order = np.asarray(made.pretrainer.feed.make_order(made.seeds.data, 0))
    wanted = np.sort(np.argsort(saved.scores, kind="stable")[:30])
    for seen in order:
        np.testing.assert_array_equal(np.sort(seen), wanted)


def logits(params: Any, images: np.ndarray) -> Any:
    """Applies the network to raw images, in plain code."""
    x = jnp.asarray(images, jnp.float32) / 255
    mean, std = plain_statistics
    x = ((x - mean) / std).reshape(len(images), -1)
    for name in ("dense1", "head"):
        x = x @ params[name]["kernel"] + params[name]["bias"][None]
        x = jnp.maximum(x, 0) if name == "dense1" else x
    return x


plain_statistics = (0.0, 1.0)


def test_barriers_against_plain_code(whole: Path, small: list[Run]) -> None:
    global plain_statistics
    found = analysis.measure(whole, "mnist", "quick", "")["variants"]["k1"]
    run = factory.open_run(whole / "mnist_k1")
    plain_statistics = (run.dataset.mean[0], run.dataset.std[0])
    parent = factory.load_state(run, "level_00/ticket/last").params
    copies = factory.load_state(run, "level_00/children_000000004/last").params
    train = run.dataset.train

    def losses(params: Any) -> np.ndarray:
        scores = logits(params, train.images)
        each = optax.softmax_cross_entropy_with_integer_labels(scores, train.labels)
        return np.asarray(each, np.float64)

    def take(tree: Any, row: int) -> Any:
        return {k: {n: v[row] for n, v in layer.items()} for k, layer in tree.items()}

    vectors = np.load(whole / "analysis" / "mnist_k1_barriers.npy")
    every: list[np.ndarray] = []
    for r in range(2):
        ends = [take(parent, r), take(copies, 2 * r), take(copies, 2 * r + 1)]
        barriers = []
        for a, b in ((0, 1), (0, 2), (1, 2)):
            middle = {
                k: {n: (v + ends[b][k][n]) / 2 for n, v in layer.items()}
                for k, layer in ends[a].items()
            }
            rise = losses(middle) - (losses(ends[a]) + losses(ends[b])) / 2
            barriers.append(rise)
        wanted = np.mean(barriers, axis=0)
        np.testing.assert_allclose(vectors[r], wanted, atol=2e-5)
        assert found["mean_barrier"][r] == pytest.approx(wanted.mean(), abs=1e-5)
        every += barriers
        near = np.mean(np.abs(np.subtract(barriers, 0.5)) < 2e-5)  # may fall either way
        fraction = np.mean(np.asarray(barriers) <= 0.5)
        assert found["connected"][r] == pytest.approx(fraction, abs=near + 1e-9)
        assert found["connected_0"][r] <= found["connected"][r]
    assert sum(found["histogram"]) == np.size(every) == 3 * vectors.size
    for c, share in enumerate(found["by_class"]):
        own = np.asarray(every)[:, train.labels == c]
        assert share == pytest.approx(np.mean(own <= 0.5), abs=1e-3)


def test_sharpness_is_the_largest_eigenvalue(whole: Path, small: list[Run]) -> None:
    found = analysis.measure(whole, "mnist", "quick", "")["variants"]["k0"]
    for name in ("sharpness_start", "sharpness_end"):
        assert len(found[name]) == 2
        assert np.all(np.asarray(found[name]) > 0)
    # Power iteration by differences of gradients, on the same examples.
    import jax

    run = factory.open_run(whole / "mnist_k0")
    state = factory.load_state(run, "level_00/ticket/last")
    functions = factory.make_eval_fns(run.config, run.dataset, {})
    count = analysis.HESSIAN_EXAMPLES["quick"]
    batch = tuple(jnp.asarray(part[:count]) for part in run.dataset.train)
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    assert all(
        bool(jnp.all(mask))
        for mask in jax.tree.leaves(transforms.get_masks(state.opt_state))
    )
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    slope = jax.jit(lambda v: jax.grad(lambda w: functions.loss(unravel(w), batch))(v))
    product = jax.jit(lambda v: jax.jvp(slope, (flat,), (v,))[1])
    vector = jnp.ones_like(flat) / jnp.sqrt(flat.size)
    for _ in range(300):
        vector = product(vector) + 5.0 * vector  # the most positive, not the largest
        vector = vector / jnp.linalg.norm(vector)
    largest = float(vector @ product(vector))
    assert found["sharpness_end"][0] == pytest.approx(largest, rel=0.05)
    assert found["sharpness_end"][0] <= largest * 1.001


def test_early_accuracy_is_where_levels_start(whole: Path, small: list[Run]) -> None:
    found = analysis.measure(whole, "mnist", "quick", "")["variants"]["k2"]
    rows = metrics_log.read(whole / "mnist_k2" / "metrics.jsonl")
    for r in range(2):
        (row,) = [
            row
            for row in rows
            if (row["kind"], row["arm"], row["step"]) == ("eval", "pretraining", 8)
            and row["replicate"] == r
        ]
        assert found["pretrained"][r] == 100 * row["test_accuracy"]


def test_the_page_says_what_was_found(whole: Path, small: list[Run]) -> None:
    report = whole / "report"
    rows = pd.read_csv(report / "mnist_claims.csv").set_index("name")["verdict"]
    assert list(rows.index) == [claim.name for claim in claims.CLAIMS]
    assert rows.pop("wrong labels hurt") == "not measured"
    rows.pop("connection predicts")  # not of fractions that are all alike
    assert set(rows) == {"unclear"}  # of two seeds
    table = pd.read_csv(report / "mnist_variants.csv")
    assert len(table) == 9 * 2
    ranks = pd.read_csv(report / "mnist_ranks.csv").set_index("measure")
    means = table.groupby("variant", sort=False)[["mean_barrier", "late"]].mean()
    wanted = stats.spearmanr(means["mean_barrier"], means["late"]).statistic
    assert ranks.loc["mean_barrier", "spearman"] == pytest.approx(wanted)
    for name in ("levels", "sizes", "barrier", "connected", "pretrained", "barriers"):
        assert (report / f"mnist_{name}.png").stat().st_size > 5000


def test_a_run_whose_scores_changed_has_not_ended(
    whole: Path, small: list[Run], tmp_path: Path
) -> None:
    (easy,) = [run for run in small if run.name == "mnist_easy_30"]
    assert launcher.has_ended(easy, whole / easy.name)
    path = whole / SCORES
    before = path.read_bytes()
    saved = score_files._read(path)
    try:
        path.unlink()
        assert not launcher.has_ended(easy, whole / easy.name)
        score_files.save(path, saved.scores + 1, provenance=saved.provenance)
        assert not launcher.has_ended(easy, whole / easy.name)
    finally:
        path.write_bytes(before)
    assert launcher.has_ended(easy, whole / easy.name)


def test_scores_that_are_lost_are_made_again(
    whole: Path, small: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(launcher, "launch", lambda *args: seen.append(args) or 0)
    assert launcher.run_all(small, whole, "") == []
    assert seen == []
    path = whole / SCORES
    before = score_files._read(path)
    path.unlink()
    assert launcher.run_all(small, whole, "") == []
    assert seen == []
    again = score_files._read(path)
    np.testing.assert_array_equal(again.scores, before.scores)
    assert again.provenance == before.provenance


def test_a_killed_study_resumes_to_identical_results(
    whole: Path, small: list[Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed while it trains, scores and measures: nothing can be tidied up then."""

    class Killed(BaseException):
        pass

    def dies(function: Any, after: int) -> Any:
        calls = iter(range(10_000))

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == after:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    places = [
        (metrics_log, "append", 5),
        (score_files, "save", 0),
        (checkpoints, "save", 3),
        (checkpoints, "save", 9),
        (metrics_log, "append", 40),
        (metrics_log, "write_atomically", 3),
        (analysis, "of_curvature", 2),
    ]
    for module, name, after in places:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, dies(getattr(module, name), after))
            assert launcher.run_all(small, tmp_path, "") == []
            data_diet.STUDY.finish(tmp_path, "quick", "")
    assert launcher.run_all(small, tmp_path, "") == []
    data_diet.STUDY.finish(tmp_path, "quick", "")
    found, wanted = (
        tiny_studies.contents(folder / "report", ".csv", ".md")
        for folder in (tmp_path, whole)
    )
    assert found == wanted
    assert (tmp_path / SCORES).read_bytes() == (whole / SCORES).read_bytes()


def make_arm(late: float, *, barrier: float, early: float) -> dict[str, Any]:
    """Invents findings of an arm with three seeds."""
    rng = np.random.default_rng(round(1000 * late))
    levels = list(range(11))
    ticket = np.full((3, 11), late) + rng.normal(scale=0.05, size=(3, 11))
    ticket[:, 0] = 91.4
    return {
        "levels": levels,
        "remaining": [100 * 0.8**level for level in levels],
        "ticket": ticket.tolist(),
        "mean_barrier": [barrier] * 3,
        "connected": [1 / (1 + barrier)] * 3,
        "connected_0": [0.1 / (1 + barrier)] * 3,
        "pretrained": [early] * 3,
        "instability": [10 * barrier] * 3,
        "sharpness_start": [5.0] * 3,
        "sharpness_end": [5.0] * 3,
        "by_class": [0.5] * 10,
        "histogram": [1] * (len(analysis.BINS) + 1),
        "examples": 50_000,
        "rewind": 200,
        "steps": 62_400,
        "epochs": 160.0,
        "interpolation": [30, 0],
    }


def as_published() -> dict[str, Any]:
    made = {
        "k0": make_arm(88.5, barrier=4.0, early=10.0),
        "k1": make_arm(90.2, barrier=1.5, early=50.0),
        "k2": make_arm(91.1, barrier=0.5, early=45.0),
        "easy_320": make_arm(90.9, barrier=0.7, early=30.0),
        "easy_640": make_arm(90.8, barrier=0.8, early=32.0),
        "random_320": make_arm(90.3, barrier=1.4, early=40.0),
        "hard_320": make_arm(88.8, barrier=3.5, early=42.0),
        "noise_10": make_arm(90.0, barrier=1.6, early=40.0),
        "noise_50": make_arm(89.0, barrier=1.7, early=30.0),
    }
    return {"usual": 320, "variants": made}


def judged(found: dict[str, Any]) -> dict[str, str]:
    rows = claims_lib.judge(claims.CLAIMS, found)
    return {row["name"]: row["verdict"] for row in rows}


def test_what_is_published_is_reproduced() -> None:
    assert set(judged(as_published()).values()) == {"reproduced"}


def test_the_opposite_is_not() -> None:
    found = as_published()
    turned = {"k0": 91.4, "k1": 90.5, "k2": 89.0, "easy_320": 88.0, "easy_640": 88.1}
    turned |= {"random_320": 89.5, "hard_320": 91.3, "noise_10": 90.6}
    turned |= {"noise_50": 91.0}
    for name, late in turned.items():
        arm = found["variants"][name]
        found["variants"][name] = make_arm(
            late, barrier=late / 10, early=arm["pretrained"][0]
        )
    verdict = judged(found)
    # Where updates gain nothing there is nothing to be as good as.
    of_gains = {"a few hundred suffice", "a random part suffices"}
    of_gains.add("easy data save updates")
    assert {verdict.pop(name) for name in of_gains} == {"unclear"}
    assert set(verdict.values()) == {"not reproduced"}


@pytest.mark.parametrize(
    ("arm", "late", "name"),
    [
        ("k2", 90.5, "a few hundred suffice"),
        ("random_320", 89.0, "a random part suffices"),
        ("easy_320", 90.3, "easy data save updates"),
    ],
)
def test_what_loses_more_than_a_part_is_not_as_good(
    arm: str, late: float, name: str
) -> None:
    found = as_published()
    found["variants"][arm] = make_arm(late, barrier=1.0, early=40.0)
    assert judged(found)[name] == "not reproduced"


def test_variants_without_any_effect_reproduce_nothing() -> None:
    found = as_published()
    for i, name in enumerate(found["variants"]):
        found["variants"][name] = make_arm(91.35 + 0.001 * i, barrier=1.0, early=40.0)
    assert "reproduced" not in judged(found).values()


def test_late_levels_are_those_around_the_published_one() -> None:
    arm = make_arm(90.0, barrier=1.0, early=40.0)
    arm["levels"] = list(range(21))
    arm["remaining"] = [100 * 0.8**level for level in arm["levels"]]
    arm["ticket"] = [[float(level) for level in arm["levels"]]] * 3
    # 21.0, 16.8, 13.4 and 10.7 % remain at levels 7 to 10.
    assert claims.late(arm).tolist() == [8.5] * 3
    few = arm | {"remaining": [100.0, 80.0], "ticket": [[1.0, 2.0]] * 3}
    assert claims.late(few).tolist() == [2.0] * 3


def test_correlations_need_all_variants() -> None:
    found = as_published() | {"missing": ["cifar_easy_160"]}
    with pytest.raises(claims_lib.NotMeasured, match="cifar_easy_160"):
        claims.correlation(found, "mean_barrier")
    verdict = judged(found)
    assert verdict["barriers predict"] == "not measured"
    assert verdict["easy data are better"] == "reproduced"


@pytest.mark.parametrize("name", ["k0", "k1", "k2", "easy_320", "hard_320", "noise_50"])
def test_what_has_not_ended_is_not_measured(name: str) -> None:
    found = as_published()
    del found["variants"][name]
    verdict = judged(found)
    assert "not measured" in verdict.values()


def test_noise_takes_no_part_in_correlations() -> None:
    found = as_published()
    _, _, n = claims.correlation(found, "mean_barrier")
    assert n == 7


def test_a_page_of_few_variants() -> None:
    found = as_published()
    found["variants"] = {"k1": found["variants"]["k1"]}
    made = report_lib.section("cifar", "full", found)
    assert any("100.0%" in line for line in made.lines)
    assert made.frames["ranks"].empty


def test_a_page_says_how_finely_segments_were_looked_at() -> None:
    found = as_published()
    assert any(
        line.startswith("Errors between copies are measured at 30 points")
        and line.endswith("those of training on all examples.")
        for line in report_lib.section("cifar", "full", found).lines
    )
    next(iter(found["variants"].values()))["interpolation"] = [11, 1000]
    assert any(
        " 11 points " in line and "on the first 1,000 examples" in line
        for line in report_lib.section("cifar", "full", found).lines
    )
