"""Runs of ToST's techniques, so small that tests can train them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import tiny

from jaxsparse import config as config_lib
from jaxsparse import factory, tree
from jaxsparse.data import digits
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.saved_states import SavedStates

SPARSE = {
    "lottery.levels": 0,
    "replicates": 1,
    "model.name": "lenet_5",
    "model.conv_channels": (2, 3),
    "model.features": (8,),
    "sparse.method": "static",
    "sparse.sparsity": 0.5,
}
RESIDUAL = SPARSE | {
    "model.name": "resnet_20",
    "model.conv_channels": None,
    "model.features": None,
    "model.width": 2,
}
MLP = SPARSE | {"model.name": "lenet_300_100", "model.conv_channels": None}
GHOSTS = {"tost.activation": "mish", "tost.skips": "convolution"}
SHARPEN = {"tost.activation": "p_swish", "tost.mode": "sharpen"}
SMOOTH = {"training.label_smoothing": 0.3, "training.smoothing_schedule": "linear"}
RESCALED = {"gradinit.steps": 3, "gradinit.batch_size": 20}


@contextlib.contextmanager
def enlarged() -> Iterator[None]:
    """Digits of 16 by 16 pixels, which a LeNet-5 takes."""

    def read(**options: Any) -> Any:
        train, test, classes = digits.read(**options)
        both = [
            part._replace(images=part.images.repeat(2, axis=1).repeat(2, axis=2))
            for part in (train, test)
        ]
        return *both, classes

    spec = config_lib.DatasetSpec(name="digits", function=read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config_lib.DATASETS.specs, "digits", spec)
        yield


class Trained(NamedTuple):
    """A run that has ended."""

    folder: Path
    made: Any
    state: Any


def make(folder: Path, fields: dict[str, Any]) -> Any:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    folder.mkdir()
    (folder / "config.json").write_text(c.to_json())
    return factory.make_experiment(c, factory.load_data(c), folder)


def train(folder: Path, fields: dict[str, Any], end: str = "train/last") -> Trained:
    made = make(folder, fields)
    run_lib.run(made, tiny.desk(folder))
    return Trained(folder, made, tiny.load(folder, end, made))


def begun(folder: Path, made: Any) -> Any:
    """The state that a run's training begins with, whether it has trained or not."""
    session = SavedStates(made, tiny.desk(folder))
    return tiny.start(session, tiny.stages(made)[0])


def named(state: Any, part: str = "params") -> dict[str, Any]:
    return tree.named_leaves(getattr(state, part))
