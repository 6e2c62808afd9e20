"""Lottery runs so small that a test can make one of its own.

`config` is the recipe, `experiment` builds from it, `run` trains. The file is also a
config file: experiments/train.py --config=tests/helpers/tiny.py.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import factory, rng
from jaxsparse.factory.experiment import make_plan
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.masks import stage_masks
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.start import start_state
from jaxsparse.stages import Stage
from jaxsparse.training import checkpoints, progress, workdir
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.state import TrainState


def config(fields: dict[str, Any] | None = None) -> ConfigDict:
    """120 digits in batches of 20, 12 steps a level, 2 levels, 2 replicates."""
    c = config_lib.default()
    c.name = "tiny"
    c.replicates = 2
    c.data.batch_size = 20
    c.data.validation = 40
    c.data.train_examples = 120
    c.data.test_examples = 50
    c.optimizer.momentum = 0.9
    c.schedule.name = "step"
    c.schedule.learning_rate = 0.1
    c.schedule.milestones = ("8step",)
    c.training.duration = "2ep"
    c.evaluation.every = "1ep"
    c.lottery.levels = 2
    c.run.devices = 1
    c.run.steps_per_call = 4
    c.run.checkpoint_every = None
    c.run.tensorboard = False
    c.update_from_flattened_dict(fields or {})
    return c


def get_config(preset: str = "") -> ConfigDict:
    """For whole processes: many short stages, and a checkpoint every 4 steps."""
    del preset
    return config(
        {
            "lottery.levels": 5,
            "lottery.rewind": "4step",
            "lottery.controls": ("reinitialized", "dense_continued"),
            "run.checkpoint_every": "4step",
        }
    )


@functools.cache
def _trainable(fields: tuple[tuple[str, Any], ...]) -> tuple[Experiment, ConfigDict]:
    c = config(dict(fields) | {"lottery.levels": 0})
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, factory.load_data(c), Path()), c


def experiment(folder: Path, fields: dict[str, Any] | None = None) -> Experiment:
    """Builds; what is only looked at between stages shares one compiled trainer."""
    every = dict(fields or {})
    c = config(every)
    shared = {k: v for k, v in every.items() if not k.startswith("lottery.")}
    made, _ = _trainable(tuple(sorted(shared.items())))
    epoch_steps = made.trainer.epoch.steps
    length = factory.make_durations(c, steps_per_epoch=epoch_steps)
    return made._replace(plan=make_plan(c, length))


def with_loop(made: Experiment, **settings: Any) -> Experiment:
    """Changes settings of the training loop."""
    loop = made.trainer.loop._replace(**settings)
    return made._replace(trainer=made.trainer._replace(loop=loop))


def desk(folder: Path, should_stop: Callable[[], bool] = lambda: False) -> RunDir:
    return RunDir(folder, progress.Progress(1, 0), should_stop)


def stages(made: Experiment) -> list[Stage]:
    return plan_lib.stages(made.plan)


def start(saved: SavedStates, stage: Stage) -> TrainState:
    """Makes the state that a stage starts from."""
    return start_state(saved, stage, stage_masks(saved, stage))


def run(
    folder: Path, fields: dict[str, Any] | None = None, **changes: Any
) -> Experiment:
    made = experiment(folder, fields)._replace(**changes)
    run_lib.run(made, desk(folder))
    return made


def train(folder: Path, fields: dict[str, Any]) -> Experiment:
    """Runs in a folder that other runs can start from, as a launch does."""
    c = config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    dataset = factory.load_data(c)
    made = factory.make_experiment(c, dataset, folder)
    plan = made.trainer.execution_plan
    with workdir.opened(folder, c, command="", execution_plan=plan, dataset=dataset):
        run_lib.run(made, desk(folder))
    return made


def load(folder: Path, name: str, made: Experiment) -> TrainState:
    """Reads a checkpoint into a state like those of the experiment."""
    like = SavedStates(made, desk(folder)).init
    saved = checkpoints.load(folder / "checkpoints", name, like)
    assert saved is not None, name
    return saved.state


def check_equal(got: Any, wanted: Any) -> None:
    """Fails unless two trees are equal, bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(wanted), strict=True
    ):
        if rng.is_key(a):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype, path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
