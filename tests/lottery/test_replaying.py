"""Forgetting events, counted while the dense training of a run is done again."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case

from jaxsparse import factory, losses
from jaxsparse.factory import components
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.start import replay_start
from jaxsparse.stages import saved_state_name
from jaxsparse.training import forgetting, preemption
from jaxsparse.training.scan_chunks import ChunkInputs

FIELDS = {
    "lottery.levels": 0,
    "model.features": (8,),
    "data.batch_size": 50,  # 50, 50 and 20 examples an epoch
    "data.crop_pad": 1,
    "data.reshuffle_each_level": True,
    "training.duration": "6ep",
    "schedule.learning_rate": 0.5,
    "schedule.milestones": (),
    "evaluation.every": "4step",
    "analysis.save_at": ("7step",),
}
END = "train/last"


def train(folder: Path, fields: dict[str, Any]) -> factory.TrainedRun:
    c = tiny.config(fields)
    made = factory.make_experiment(c, factory.load_data(c), folder)
    run_lib.run(made, tiny.desk(folder))
    (folder / "config.json").write_text(c.to_json())
    return factory.open_run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> factory.TrainedRun:
    return train(tmp_path_factory.mktemp("dense"), FIELDS)


def slowly(run: factory.TrainedRun, stop: int) -> np.ndarray:
    """Counts one update at a time, looking at each batch before its update."""
    c, dataset = run.config, run.dataset
    made = factory.make_experiment(c, dataset, run.folder)
    stage = tiny.stages(made)[0]
    saved = SavedStates(made, tiny.desk(run.folder), writes=False)
    trainer, fresh, keys = replay_start(saved, stage)
    draws = jax.vmap(jax.random.fold_in, in_axes=(0, None))(jax.random.clone(keys), 1)
    shuffles = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 0)
    stats = jax.tree.map(lambda leaf: leaf[0], fresh.batch_stats)
    functions = factory.make_eval_fns(c, dataset, stats)
    augment, count = components.make_augment(c), len(dataset.train.labels)
    forgotten, learned = np.zeros((2, count)), np.zeros((2, count), bool)
    before = np.zeros((2, count), bool)
    state = jax.tree.map(jnp.copy, fresh)
    for step in range(stop):
        number, within = divmod(step, trainer.epoch.steps)
        first, last = within * c.data.batch_size, trainer.epoch.steps - 1
        size = trainer.epoch.last_batch if within == last else c.data.batch_size
        order = trainer.feed.make_order(jax.random.clone(shuffles), number)
        for r in range(2):
            rows = np.asarray(order)[r, first : first + size]
            key = jax.random.fold_in(jax.random.clone(draws)[r], step)
            places = jnp.arange(size, dtype=jnp.int32)
            images = jnp.asarray(dataset.train.images[rows])
            images = augment(images, key=key, places=places)
            params = jax.tree.map(lambda leaf, r=r: leaf[r], state.params)
            logits = functions.logits(params, stats, images)
            labels = jnp.asarray(dataset.train.labels[rows])
            for row, right in zip(
                rows, np.asarray(losses.is_correct(logits, labels)), strict=True
            ):
                forgotten[r, row] += before[r, row] and not right
                before[r, row] = right
                learned[r, row] |= bool(right)
        feed = trainer.feed
        data = ChunkInputs(feed.images, feed.labels, order, jnp.int32(first))
        state, _ = trainer.compiled_steps(1, size)(state, data, jax.random.clone(draws))
    return np.where(learned, forgotten, np.inf)


def test_training_again_comes_out_the_same_and_counts_what_is_forgotten(
    run: factory.TrainedRun,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    found = factory.count_forgetting(run)
    assert (found.step, found.same) == (18, True)
    tiny.check_equal(found.state, factory.load_state(run, END))
    wanted = slowly(run, 18)
    np.testing.assert_array_equal(found.counts, wanted)
    assert np.isfinite(wanted).any() and wanted[np.isfinite(wanted)].max() >= 2
    # Nothing was written.
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}


def test_a_part_is_counted_from_the_beginning(run: factory.TrainedRun) -> None:
    found = factory.count_forgetting(run, until="7step")
    assert (found.step, found.same) == (7, True)
    kept = factory.load_state(run, saved_state_name("train", 7))
    tiny.check_equal(found.state, kept)
    wanted = slowly(run, 7)
    assert np.isinf(wanted).any()
    np.testing.assert_array_equal(found.counts, wanted)
    assert factory.count_forgetting(run, until="1ep").same is None


@pytest.mark.parametrize("until", ["0step", "19step"])
def test_lengths_outside_of_training_are_refused(
    run: factory.TrainedRun, until: str
) -> None:
    with pytest.raises(
        ValueError, match=f"until: expected 1 to .*got '{until}', which"
    ):
        factory.count_forgetting(run, until=until)


def test_what_lies_before_the_rewinding_step_counts_too(tmp_path: Path) -> None:
    fields = FIELDS | {"lottery.rewind": "5step", "training.duration": "3ep"}
    run = train(tmp_path, fields)
    early = factory.count_forgetting(run, until="5step")
    assert early.same is True
    tiny.check_equal(early.state, factory.load_state(run, "rewind"))
    np.testing.assert_array_equal(early.counts, slowly(run, 5))
    whole = factory.count_forgetting(run)
    assert (whole.step, whole.same) == (9, True)
    learned = np.isfinite(early.counts)
    assert np.all(whole.counts[learned] >= early.counts[learned])
    assert learned.sum() < np.isfinite(whole.counts).sum()


@pytest.mark.parametrize(
    ("devices", "replicates", "parallelism"),
    [case(2, 1, "jit", always=False), case(2, 2, "pmap", always=True)],
)
def test_the_layout_of_devices_changes_no_count(
    devices: int, replicates: int, parallelism: str, tmp_path: Path
) -> None:
    """Whichever device saw an example, its own row is what it is counted in."""
    fields = FIELDS | {
        "replicates": replicates,
        "training.duration": "1ep",
        "run.parallelism": parallelism,
        "analysis.save_at": (),
    }
    found = []
    for count in (1, devices):
        c = tiny.config(fields | {"run.devices": count})
        made = factory.make_experiment(
            c, factory.load_data(c), tmp_path / str(count), per_example=True
        )
        stage = tiny.stages(made)[0]
        desk = tiny.desk(tmp_path / str(count))
        saved = SavedStates(made, desk, writes=False)
        trainer, fresh, keys = replay_start(saved, stage)
        events = forgetting.init(replicates, 120)
        found.append(
            forgetting.count_forgetting(trainer, fresh, events, stop=3, keys=keys)
        )
    for name in found[0].events._fields:
        one, many = (np.asarray(getattr(f.events, name)) for f in found)
        np.testing.assert_array_equal(one, many)


def test_what_began_otherwise_or_is_lost_is_refused(
    run: factory.TrainedRun, tmp_path: Path
) -> None:
    c = run.config.copy_and_resolve_references()
    c.pretraining.learning_rate = 0.01
    with pytest.raises(ValueError, match=r"config\.pretraining differs from training"):
        factory.count_forgetting(run._replace(config=c))
    (tmp_path / "config.json").write_text(run.config.to_json())
    with pytest.raises(ValueError, match="got 'init', which is missing or corrupt"):
        factory.count_forgetting(factory.open_run(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_training_that_diverges_is_one_error(run: factory.TrainedRun) -> None:
    c = run.config.copy_and_resolve_references()
    c.schedule.learning_rate = 1e6
    with pytest.raises(
        preemption.NonFiniteLoss, match=r"update \d+: the training loss of"
    ):
        factory.count_forgetting(run._replace(config=c))


def test_scores_of_children_are_read_as_many_as_there_are(tmp_path: Path) -> None:
    fields = {"instability.copies": 3, "lottery.levels": 0, "model.features": (8,)}
    run = train(tmp_path, fields)
    state = factory.load_state(run, "level_00/children_000000000/last")
    assert {len(leaf) for leaf in jax.tree.leaves(state.params)} == {6}
    assert json.loads((tmp_path / "config.json").read_text())["replicates"] == 2
