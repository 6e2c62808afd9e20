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
from jaxsparse import factory
from jaxsparse.lottery import experiment as experiment_lib
from jaxsparse.lottery import imp, rewinding
from jaxsparse.lottery import session as session_lib
from jaxsparse.lottery.stages import Experiment
from jaxsparse.training import checkpoints, progress, workdir
from jaxsparse.training.state import TrainState
from jaxsparse.training.train import RunDir


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


def get_config(variant: str = "") -> ConfigDict:
    """For whole processes: many short stages, and a checkpoint every 4 steps."""
    del variant
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
    fields = {name: c.lottery.get(name) for name in imp.PruningRule._fields}
    rule = imp.PruningRule(**fields | {"counting": c.lottery.count_rule})
    return made._replace(
        plan=rewinding.RewindPlan(
            length.rewind, length.total, c.lottery.retrain, length.finetune
        ),
        rule=rule,
        levels=c.lottery.levels,
        controls=c.lottery.controls,
        control_levels=c.lottery.control_levels or (),
        one_shot=c.lottery.one_shot,
        tickets=folder / "tickets",
    )


def desk(folder: Path, should_stop: Callable[[], bool] = lambda: False) -> RunDir:
    shown = progress.Progress(1, 0)
    metrics = folder / "metrics.jsonl"
    return RunDir(metrics, folder / "checkpoints", shown, should_stop)


def run(
    folder: Path, fields: dict[str, Any] | None = None, **changes: Any
) -> Experiment:
    made = experiment(folder, fields)._replace(**changes)
    experiment_lib.run(made, desk(folder))
    return made


def train(folder: Path, fields: dict[str, Any]) -> Experiment:
    """Runs in a folder that other runs can start from, as a launch does."""
    c = config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    dataset = factory.load_data(c)
    made = factory.make_experiment(c, dataset, folder)
    arrangement = made.trainer.arrangement
    with workdir.opened(
        folder, c, command="", arrangement=arrangement, dataset=dataset
    ):
        experiment_lib.run(made, desk(folder))
    return made


def load(folder: Path, name: str, made: Experiment) -> TrainState:
    """Reads a checkpoint into a state like those of the experiment."""
    like = session_lib.Session(made, desk(folder)).init
    saved = checkpoints.load(folder / "checkpoints", name, like)
    assert saved is not None, name
    return saved.state


def check_equal(got: Any, wanted: Any) -> None:
    """Fails unless two trees are equal, bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(wanted), strict=True
    ):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype, path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
