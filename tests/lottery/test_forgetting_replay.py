"""Forgetting events, counted while the dense training of a run is done again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case
from ml_collections import ConfigDict

from jaxsparse import factory, losses
from jaxsparse.factory import experiment, input_data
from jaxsparse.factory import forgetting as forgetting_lib
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.start import replay_start
from jaxsparse.stages import saved_state_name
from jaxsparse.training import preemption
from jaxsparse.training.chunk_inputs import ChunkInputs

FIELDS = {
    "lottery.levels": 0,
    "model.features": (8,),
    "data.batch_size": 50,  # 50, 50 and 20 examples an epoch
    "data.crop_pad": 1,
    "data.validation": 0,
    "data.reshuffle_each_level": True,
    "training.duration": "6ep",
    "schedule.learning_rate": 0.5,
    "schedule.milestones": (),
    "evaluation.every": "4step",
    "analysis.save_at": ("7step",),
    "run.steps_per_call": 2,
}


def train(folder: Path, fields: dict[str, Any]) -> factory.TrainedRun:
    c = tiny.config(fields)
    made = factory.make_experiment(c, factory.load_data(c), folder)
    run_lib.run(made, tiny.desk(folder))
    (folder / "config.json").write_text(c.to_json())
    return factory.open_run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> factory.TrainedRun:
    """One that pretrains for 5 updates, as training goes on from there."""
    fields = FIELDS | {"lottery.rewind": "5step"}
    return train(tmp_path_factory.mktemp("dense"), fields)


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """Replays of the same config share the compiled functions of one experiment."""
    make, made = factory.make_experiment, {}

    def remember(config: ConfigDict, *args: Any, **options: Any) -> Any:
        key = (config.to_json(), *options.items())
        if key not in made:
            made[key] = make(config, *args, **options)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "make_experiment", remember)
        yield


@pytest.fixture(scope="module")
def wanted(run: factory.TrainedRun) -> dict[int, np.ndarray]:
    return slowly(run, (5, 7, 18))


def slowly(run: factory.TrainedRun, stops: tuple[int, ...]) -> dict[int, np.ndarray]:
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
    augment, count = input_data.make_augment(c), len(dataset.train.labels)

    @jax.jit
    def look(params: Any, rows: Any, key: Any, step: Any) -> Any:
        """Tells which examples of a replicate's batch are classified correctly."""
        key = jax.random.fold_in(key, step)
        places = jnp.arange(len(rows), dtype=jnp.int32)
        images = jnp.asarray(dataset.train.images)[rows]
        images = augment(images, key=key, places=places)
        labels = jnp.asarray(dataset.train.labels)[rows]
        return losses.is_correct(functions.logits(params, stats, images), labels)

    forgotten, learned = np.zeros((2, count)), np.zeros((2, count), bool)
    before = np.zeros((2, count), bool)
    state, found = jax.tree.map(jnp.copy, fresh), {}
    for step in range(max(stops)):
        if step == stage.stop:  # at the rewinding step the optimizer is fresh again
            begun = jax.tree.map(jnp.copy, fresh.opt_state)
            state = state._replace(opt_state=begun)
        number, within = divmod(step, trainer.epoch.steps)
        first, last = within * c.data.batch_size, trainer.epoch.steps - 1
        size = trainer.epoch.last_batch if within == last else c.data.batch_size
        order = trainer.feed.make_order(jax.random.clone(shuffles), number)
        for r in range(2):
            rows = np.asarray(order)[r, first : first + size]
            params = jax.tree.map(lambda leaf, r=r: leaf[r], state.params)
            key = jax.random.clone(draws)[r]
            right = np.asarray(look(params, jnp.asarray(rows), key, step)) > 0
            forgotten[r, rows] += before[r, rows] & ~right
            before[r, rows] = right
            learned[r, rows] |= right
        feed = trainer.feed
        data = ChunkInputs(feed.images, feed.labels, order, jnp.int32(first))
        state, _ = trainer.compiled_steps(1, size)(state, data, jax.random.clone(draws))
        if step + 1 in stops:
            found[step + 1] = np.where(learned, forgotten, np.inf)
    return found


def test_training_again_comes_out_the_same_and_counts_what_is_forgotten(
    run: factory.TrainedRun, wanted: dict[int, np.ndarray]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    found = factory.count_forgetting(run)
    assert (found.step, found.same) == (18, True)
    tiny.check_equal(found.state, factory.load_state(run, "level_00/ticket/last"))
    np.testing.assert_array_equal(found.counts, wanted[18])
    finite = wanted[18][np.isfinite(wanted[18])]
    assert finite.size and finite.max() >= 2
    # Nothing was written.
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}


def test_a_part_is_counted_from_the_beginning(
    run: factory.TrainedRun, wanted: dict[int, np.ndarray]
) -> None:
    """What lies before the rewinding step counts too."""
    saved = {5: "rewind", 7: saved_state_name("level_00/ticket", 7)}
    for step, name in saved.items():
        found = factory.count_forgetting(run, until=f"{step}step")
        assert (found.step, found.same) == (step, True)
        tiny.check_equal(found.state, factory.load_state(run, name))
        np.testing.assert_array_equal(found.counts, wanted[step])
    learned = [np.isfinite(wanted[step]) for step in (5, 7, 18)]
    assert learned[0].sum() < learned[1].sum() < learned[2].sum()
    assert factory.count_forgetting(run, until="1ep").same is None


@pytest.mark.parametrize("until", ["0step", "19step"])
def test_lengths_outside_of_training_are_refused(
    run: factory.TrainedRun, until: str
) -> None:
    with pytest.raises(
        ValueError, match=f"until: expected 1 to .*got '{until}', which"
    ):
        factory.count_forgetting(run, until=until)


@pytest.mark.parametrize(
    ("devices", "replicates", "parallelism"),
    [case(2, 1, "jit", always=False), case(2, 2, "pmap", always=True)],
)
def test_the_layout_of_devices_changes_no_count(
    run: factory.TrainedRun,
    devices: int,
    replicates: int,
    parallelism: str,
    tmp_path: Path,
) -> None:
    """Whichever device saw an example, its own row is what it is counted in."""
    if replicates != 2:
        run = train(tmp_path, FIELDS | {"replicates": replicates})
    c = run.config.copy_and_resolve_references()
    c.run.devices, c.run.parallelism = devices, parallelism
    one, many = (
        factory.count_forgetting(each, until="2ep")
        for each in (run, run._replace(config=c))
    )
    np.testing.assert_array_equal(one.counts, many.counts)
    assert np.any(one.counts == 1)


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


def test_training_that_diverges_is_one_error(
    run: factory.TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = replay_start

    def overflow(*args: Any) -> Any:
        trainer, fresh, keys = start(*args)
        params = jax.tree.map(lambda leaf: leaf * np.float32(1e30), fresh.params)
        return trainer, fresh._replace(params=params), keys

    monkeypatch.setattr(forgetting_lib, "replay_start", overflow)
    with pytest.raises(
        preemption.NonFiniteLoss, match=r"update \d+: the training loss of"
    ):
        factory.count_forgetting(run)
