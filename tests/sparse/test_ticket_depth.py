"""A ticket that is transferred to a network with more blocks."""

from pathlib import Path
from typing import Any

import pytest
from helpers import tiny
from helpers.sparse_runs import load_data

from jaxsparse import config as config_lib
from jaxsparse import factory, transforms
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.training import checkpoints, workdir

VIT = {
    "run.steps_per_call": 6,
    "data.validation": 50,
    "lottery.levels": 0,
    "model.name": "vit_4",
    "model.width": 8,
    "model.heads": 2,
    "model.depth": 2,
    "training.duration": "1step",
    "schedule.milestones": (),
    "evaluation.every": "1step",
    "sparse.method": "static",
}


def make(folder: Path, fields: dict[str, Any]) -> Experiment:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, load_data(), folder)


def save_states(folder: Path, fields: dict[str, Any]) -> tuple[Any, Any]:
    """Writes a run directory with initial weights, and masks before any training."""
    c, dataset, made = tiny.config(fields), load_data(), make(folder, fields)
    plan = made.trainer.execution_plan
    with workdir.opened(folder, c, command="", execution_plan=plan, dataset=dataset):
        saved = SavedStates(made, tiny.desk(folder))
        first = tiny.start(saved, tiny.stages(made)[0])
        checkpoints.save(folder / "checkpoints", "first", first)
        return saved.init.params, transforms.get_masks(first.opt_state)


def test_a_ticket_is_transferred_to_another_depth(tmp_path: Path) -> None:
    params, kept = save_states(tmp_path / "shallow", VIT | {"sparse.sparsity": 0.5})
    fields = VIT | {
        "model.depth": 3,
        "warm_start.run": "../shallow",
        "warm_start.weights": "init",
        "warm_start.masks": "first",
        "warm_start.depth": "append",
    }
    made = make(tmp_path / "deep", fields)
    task, began = made.task, made.trainer.execution_plan["starts_from"]
    assert began["weights"] == checkpoints.digest((params, {}))
    assert task.first_masks is not None and task.start.first_weights is not None
    blocks = {"block1": "block1", "block2": "block2", "block3": "block1"}
    for found, wanted in (
        (task.first_masks(None, None, None), kept),
        (task.start.first_weights(None)[0], params),
    ):
        assert found.keys() == wanted.keys() | {"block3"}
        for name, leaves in found.items():
            tiny.check_equal(leaves, wanted[blocks.get(name, name)])
    with pytest.raises(
        ValueError, match=r"weights: expected block3/attention.*got None"
    ):
        make(tmp_path / "deep", fields | {"warm_start.depth": None})
