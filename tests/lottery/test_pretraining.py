"""Pre-training on part of the data, with its own batches, rate and labels."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from jaxsparse import config as config_lib
from jaxsparse import factory, metrics_log
from jaxsparse.data.data_pruning import noise as noise_lib
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.data_pruning import subsets as subsets_lib
from jaxsparse.factory import components
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.runner import run as run_lib
from jaxsparse.training import checkpoints, preemption

FIELDS = {
    "lottery.levels": 1,
    "lottery.rewind": "6step",
    "model.features": (8,),
    "pretraining.subset": "random",
    "pretraining.size": 30,
}


def make(folder: Path, fields: dict[str, Any]) -> Any:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, factory.load_data(c), folder)


def orders(made: Any, epoch: int) -> np.ndarray:
    keys = jax.tree.map(jax.random.clone, made.seeds.data)
    return np.asarray(made.pretrainer.feed.make_order(keys, epoch))


def hashes(folders: tuple[Path, Path], name: str) -> set[str | None]:
    return {
        checkpoints.recorded_hash(folder / "checkpoints", name) for folder in folders
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run with everything that a pretraining can have of its own."""
    folder = tmp_path_factory.mktemp("pretrained")
    own = {
        "pretraining.batch_size": 20,
        "pretraining.learning_rate": 0.02,
        "pretraining.warmup": "2step",
        "pretraining.label_noise": 0.25,
        "run.checkpoint_every": "2step",
        "run.steps_per_call": 1,
        "data.batch_size": 40,
        "data.validation": 0,
        "training.duration": "4ep",
    }
    made = make(folder, FIELDS | own)
    run_lib.run(made, tiny.desk(folder))
    return folder, made


def test_only_the_subset_is_seen_each_example_once_an_epoch(
    trained: tuple[Path, Any],
) -> None:
    _, made = trained
    assert made.pretrainer.epoch == (2, 20, 10)
    first, second = orders(made, 0), orders(made, 1)
    assert first.shape == (2, 30)
    for r in range(2):
        wanted = subsets_lib.choose(np.zeros(120), 30, how="random", seed=r)
        for seen in (first[r], second[r]):
            np.testing.assert_array_equal(np.sort(seen), wanted)
        assert np.any(first[r] != second[r])
    assert set(first[0].tolist()) != set(first[1].tolist())  # each its own
    assert made.trainer.epoch == (3, 40, 40)


def test_nothing_outside_the_subset_has_any_influence(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, made = trained
    feed = made.pretrainer.feed
    images, labels = np.array(feed.images), np.array(feed.labels)
    rest = np.setdiff1d(np.arange(120), np.unique(orders(made, 0)))
    images[rest], labels[rest] = 255 - images[rest], 9 - labels[rest]
    feed = feed._replace(images=jnp.asarray(images), labels=jnp.asarray(labels))
    pretrainer, plan = made.pretrainer._replace(feed=feed), made.plan._replace(levels=0)
    run_lib.run(made._replace(pretrainer=pretrainer, plan=plan), tiny.desk(tmp_path))
    (found,) = hashes((folder, tmp_path), "rewind")
    assert found is not None


def scored(folder: Path) -> Path:
    dataset = factory.load_data(tiny.config(FIELDS))
    path = folder / "scores.npz"
    scores = np.arange(120.0)[::-1]
    labels = dataset.train.labels
    provenance = score_files.describe(
        labels,
        score="el2n",
        dataset="digits",
        split="train",
        replicates=1,
        step=0,
        config="",
    )
    score_files.save(path, scores, provenance=provenance)
    return path


def rows(folder: Path, fields: dict[str, Any]) -> np.ndarray:
    """Rows of the examples of each replicate's subset."""
    c = tiny.config(FIELDS | fields)
    config_lib.validate(c)
    return np.asarray(pretraining_lib.rows(c, factory.load_data(c), folder))


@pytest.mark.parametrize(
    ("how", "wanted"),
    [("easiest", range(110, 120)), ("hardest", range(10)), ("window", range(105, 115))],
)
def test_scores_choose(how: str, wanted: range, tmp_path: Path) -> None:
    fields = {
        "pretraining.subset": how,
        "pretraining.size": 10,
        "pretraining.scores": str(scored(tmp_path)),
    }
    if how == "window":
        fields["pretraining.window_start"] = 5
    assert np.sort(rows(tmp_path, fields)).tolist() == [list(wanted)] * 2


def test_batches_rate_and_labels_are_its_own(trained: tuple[Path, Any]) -> None:
    folder, made = trained
    clean, noisy = (np.asarray(t.feed.labels) for t in (made.trainer, made.pretrainer))
    assert np.sum(clean != noisy) == 30
    rates = {
        (row["stage"], row["step"]): row["learning_rate"]
        for row in metrics_log.read(folder / "metrics.jsonl")
        if row["kind"] == "train"
    }
    assert rates["pretraining", 6] == pytest.approx(0.02)
    assert rates["level_00/ticket", 12] == pytest.approx(0.01)  # as without


def test_a_warm_up_is_its_own() -> None:
    fields = {"pretraining.learning_rate": 0.02, "pretraining.warmup": "4step"}
    c = tiny.config(FIELDS | fields)
    own = pretraining_lib.as_training(c)
    rate = components.make_rate(own, factory.make_durations(own, steps_per_epoch=6))
    rates = [float(rate(jnp.int32(step))) for step in range(6)]
    assert rates[0] < rates[1] < rates[3] < rates[4] == rates[5]
    assert rates[5] == pytest.approx(0.02)


def test_random_subsets_of_two_seeds_are_other_ones(tmp_path: Path) -> None:
    seen = set()
    for seed in (0, 1, 2):
        for r, found in enumerate(np.sort(rows(tmp_path, {"pretraining.seed": seed}))):
            wanted = subsets_lib.choose(
                np.zeros(120), 30, how="random", seed=1000 * seed + r
            )
            np.testing.assert_array_equal(found, wanted)
            seen.add(tuple(found.tolist()))
    assert len(seen) == 6


def test_balanced_subsets_have_as_many_of_each_class(tmp_path: Path) -> None:
    labels = factory.load_data(tiny.config(FIELDS)).train.labels
    for found in rows(tmp_path, {"pretraining.balanced": True}):
        assert np.bincount(labels[found], minlength=10).tolist() == [3] * 10


def test_labels_of_pretraining_are_wrong_as_said() -> None:
    fields = {"pretraining.label_noise": 0.25, "data.label_noise_by": "permute"}
    found = []
    for seed in (3, 4):
        c = tiny.config(FIELDS | fields | {"data.label_noise_seed": seed})
        dataset = factory.load_data(c)
        noisy = np.asarray(pretraining_lib.labels(c, dataset).labels)
        drawn = noise_lib.corrupt(
            dataset.train.labels, fraction=0.25, classes=10, seed=seed, how="permute"
        )
        np.testing.assert_array_equal(noisy, drawn.labels)
        found.append(noisy.tolist())
    assert found[0] != found[1]


def test_what_was_stopped_comes_out_the_same(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, made = trained
    stopped = 0
    while True:
        calls = iter(range(1000))
        try:
            run_lib.run(made, tiny.desk(tmp_path, lambda c=calls: next(c) >= 4))
            break
        except preemption.Preempted:
            stopped += 1
    assert stopped >= 3
    for name in ("rewind", "level_00/ticket/last", "level_01/ticket/last"):
        (found,) = hashes((folder, tmp_path), name)
        assert found is not None


def test_equal_pretraining_is_the_one_there_was(tmp_path: Path) -> None:
    """Said in other words, it comes to the same bits."""
    plain = {k: v for k, v in FIELDS.items() if "pretraining" not in k}
    plain |= {"lottery.levels": 0, "run.steps_per_call": 1, "data.validation": 0}
    for name, own in (("a", {}), ("b", {"pretraining.batch_size": 20})):
        made = make(tmp_path / name, plain | own)
        run_lib.run(made, tiny.desk(tmp_path / name))
    for name in ("rewind", "level_00/ticket/last"):
        (found,) = hashes((tmp_path / "a", tmp_path / "b"), name)
        assert found is not None


def test_noise_throughout_is_in_the_data() -> None:
    fields = {
        "data.label_noise": 0.25,
        "data.label_noise_by": "permute",
        "data.label_noise_seed": 3,
    }
    clean = factory.load_data(tiny.config())
    noisy = factory.load_data(tiny.config(fields))
    np.testing.assert_array_equal(
        np.sort(noisy.train.labels), np.sort(clean.train.labels)
    )
    changed = np.sum(noisy.train.labels != clean.train.labels)
    assert 15 < changed <= 30
    np.testing.assert_array_equal(noisy.test.labels, clean.test.labels)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"lottery.rewind": "0step"},
            r"lottery\.rewind: expected a rewinding step above 0",
        ),
        (
            {"pretraining.size": 0},
            r"pretraining\.size: expected at least 1 with .*'random'",
        ),
        ({"pretraining.size": 121}, r"pretraining\.size: expected 1 to 120.*got 121"),
        (
            {"pretraining.subset": "easiest"},
            r"pretraining\.scores: expected a file .*'easiest', got None",
        ),
        (
            {"pretraining.scores": "x.npz"},
            r"pretraining\.scores: expected None with .*'random'.*got 'x\.npz'",
        ),
        (
            {"pretraining.window_start": 3},
            r"pretraining\.window_start: expected 0 with .*'random'.*got 3",
        ),
        (
            {"pretraining.warmup": "2step"},
            r"pretraining\.warmup: expected '0step' .*learning_rate None, got '2step'",
        ),
        (
            {"pretraining.warmup": "7step", "pretraining.learning_rate": 0.1},
            r"pretraining\.warmup: expected at most .*got '7step', which is 7",
        ),
        (
            {"data.label_noise": 0.1, "pretraining.label_noise": 0.1},
            r"pretraining\.label_noise: expected 0\.0 with data\.label_noise 0\.1, got",
        ),
        ({"data.label_noise_seed": 1}, r"data\.label_noise_seed: expected .*got 1"),
    ],
)
def test_bad_fields_are_named(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, FIELDS | fields)


def test_scores_of_other_examples_are_refused(tmp_path: Path) -> None:
    path = scored(tmp_path)
    fields = FIELDS | {
        "pretraining.subset": "easiest",
        "pretraining.scores": str(path),
        "data.train_examples": 100,
    }
    with pytest.raises(ValueError, match=r"config\.pretraining\.scores: .*scores\.npz"):
        make(tmp_path, fields)
