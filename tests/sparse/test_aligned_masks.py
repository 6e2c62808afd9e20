"""Masks of another run's ticket, aligned to a third run or changed in depth."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.sparse_runs import load_data

from jaxsparse import config as config_lib
from jaxsparse import coupling, factory, masks, replicates, transforms
from jaxsparse.factory import input_data, mask_alignment
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.task import TrainTask
from jaxsparse.training import checkpoints, workdir

# Epochs are one call each, and both sets that are evaluated have 50 examples, so that
# a run compiles one program of each kind.
SMALL = {
    "model.features": (9, 7),
    "run.steps_per_call": 6,
    "data.validation": 50,
    "lottery.levels": 0,
}
TICKET = "level_01/ticket/last"
EARLY = "kept/train/step_000000006"
START = SMALL | {"warm_start.run": "../dense", "warm_start.weights": EARLY}
UNALIGNED = START | {
    "sparse.method": "static",
    "warm_start.masks_run": "../lth",
    "warm_start.masks": TICKET,
}
ALIGNED = UNALIGNED | {
    "warm_start.align": "activations",
    "warm_start.align_examples": 64,
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of tickets and a dense run of other initial weights."""
    folder = tmp_path_factory.mktemp("studies")
    tiny.train(folder / "lth", SMALL | {"lottery.levels": 1, "lottery.fraction": 0.6})
    dense = {"seeds.init": 7, "analysis.save_at": ("6step",)}
    tiny.train(folder / "dense", SMALL | dense)
    return folder


def build(folder: Path, fields: dict[str, Any]) -> TrainTask:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, load_data(), folder).task


def first_masks(folder: Path, fields: dict[str, Any]) -> Any:
    task = build(folder, fields)
    assert task.first_masks is not None
    return task.first_masks(None, None, None)


def state(folder: Path, moment: str) -> Any:
    return factory.load_state(factory.open_run(folder), moment)


def apply(variables: Any, x: Any) -> Any:
    """The forward pass of the MLP, in NumPy's order of layers."""
    x = x.reshape(len(x), -1)
    for name in ("dense1", "dense2"):
        layer = variables["params"][name]
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
    head = variables["params"]["head"]
    return x @ head["kernel"] + head["bias"][None]


def test_masks_of_another_run_are_taken_unchanged(studies: Path) -> None:
    task = build(studies / "plain", UNALIGNED)
    assert task.first_masks is not None and task.start.first_weights is not None
    ticket = transforms.get_masks(state(studies / "lth", TICKET).opt_state)
    tiny.check_equal(task.first_masks(None, None, None), ticket)
    early = state(studies / "dense", EARLY).params
    tiny.check_equal(task.start.first_weights(None)[0], early)


@pytest.mark.parametrize("how", ["activations", "weights"])
def test_masks_are_aligned_replicate_by_replicate(studies: Path, how: str) -> None:
    fields = ALIGNED if how == "activations" else UNALIGNED | {"warm_start.align": how}
    found = first_masks(studies / how, fields)
    run = factory.open_run(studies / "dense")
    images = jnp.asarray(run.dataset.train.images[:64])
    inputs = input_data.make_task(run.config, run.dataset).inputs(images)
    ours, theirs = (state(studies / name, "train/last") for name in ("dense", "lth"))
    ticket = transforms.get_masks(state(studies / "lth", TICKET).opt_state)
    changed = 0
    for r in range(2):
        own, there, mask, got = (
            {"params": jax.tree.map(lambda leaf, r=r: leaf[r], each)}
            for each in (ours.params, theirs.params, ticket, found)
        )
        if how == "activations":
            wanted = coupling.align_activations(apply, own, there, inputs, masks=mask)
        else:
            coupled = coupling.coupled_axes(apply, own, inputs[:1])
            wanted = coupling.align(coupled, own, there, mask)
        tiny.check_equal(got, wanted.masks)
        assert masks.layer_counts(got) == masks.layer_counts(mask)
        changed += not np.array_equal(
            got["params"]["dense2"]["kernel"], mask["params"]["dense2"]["kernel"]
        )
    assert changed == 2


def test_permuted_units_are_found_again(studies: Path) -> None:
    """The final network of the ticket is the other one with units in another order."""
    c = tiny.config(UNALIGNED | {"warm_start.align": "weights"})
    run = factory.open_run(studies / "dense")
    theirs = {"params": state(studies / "dense", "train/last").params}
    ticket = transforms.get_masks(state(studies / "lth", TICKET).opt_state)
    draw = np.random.default_rng(0)
    ours, wanted = [], []
    for r in range(2):
        one, mask = (
            jax.tree.map(lambda leaf, r=r: leaf[r], each) for each in (theirs, ticket)
        )
        x = np.ones((1, 8, 8, 1), np.float32)
        coupled = coupling.coupled_axes(apply, one, x)
        orders = [draw.permutation(group.num_units) for group in coupled.groups]
        ours.append(coupling.permute(coupled, one, orders))
        wanted.append(coupling.permute(coupled, {"params": mask}, orders)["params"])
    found = mask_alignment.align(c, ticket, theirs, replicates.stack(ours), run)
    tiny.check_equal(found, replicates.stack(wanted))


def test_a_run_with_aligned_masks_is_trained_and_resumed(studies: Path) -> None:
    folder = studies / "trained"
    tiny.train(folder, ALIGNED)
    text = (folder / "metrics.jsonl").read_text()
    kept = transforms.get_masks(state(folder, "train/last").opt_state)
    tiny.check_equal(kept, first_masks(folder, ALIGNED))
    tiny.train(folder, ALIGNED)
    assert (folder / "metrics.jsonl").read_text() == text
    hashes = factory.recorded_hashes(tiny.config(ALIGNED), folder)
    of_ticket = {f"../lth/{TICKET}", "../lth/train/last"}
    assert hashes.keys() == of_ticket | {EARLY, "train/last"}
    assert None not in hashes.values()


VIT = SMALL | {
    "model.features": None,
    "model.name": "vit_4",
    "model.width": 8,
    "model.heads": 2,
    "model.depth": 2,
    "training.duration": "1step",
    "schedule.milestones": (),
    "evaluation.every": "1step",
    "sparse.method": "static",
}


def save_states(folder: Path, fields: dict[str, Any]) -> tuple[Any, Any]:
    """Writes a run directory with initial weights, and masks before any training."""
    c = tiny.config(fields)
    dataset = load_data()
    made = factory.make_experiment(c, dataset, folder)
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
    task = build(tmp_path / "deep", fields)
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
        build(tmp_path / "deep", fields | {"warm_start.depth": None})


def test_networks_without_blocks_have_no_depth(studies: Path) -> None:
    fields = UNALIGNED | {"warm_start.depth": "append"}
    with pytest.raises(
        ValueError, match=r"warm_start\.depth: like: expected layers in"
    ):
        build(studies / "deep", fields)


WRONG = [
    (
        UNALIGNED | {"warm_start.masks": None},
        r"warm_start\.masks_run: expected None with warm_start\.masks None and",
    ),
    (
        UNALIGNED | {"warm_start.weights": None, "warm_start.run": None},
        r"warm_start\.masks_run: expected None with .*weights None, got '../lth'",
    ),
    (
        UNALIGNED | {"warm_start.masks": "ticket.npz"},
        r"warm_start\.masks_run: expected None with warm_start\.masks 'ticket\.npz'",
    ),
    (
        ALIGNED | {"warm_start.masks_run": None},
        r"warm_start\.align: expected None with warm_start\.masks_run None",
    ),
    (
        ALIGNED | {"warm_start.depth": "append"},
        r"warm_start\.align: expected None with .*warm_start\.depth 'append'",
    ),
    (
        UNALIGNED | {"warm_start.align_examples": 5},
        r"warm_start\.align_examples: expected 1000 with warm_start\.align None, got 5",
    ),
    (SMALL | {"warm_start.depth": "append"}, r"warm_start\.depth: expected None with"),
    (
        UNALIGNED | {"warm_start.replicate": 2},
        r"warm_start\.replicate: expected one of the 2 replicates .*got 2",
    ),
    (
        ALIGNED | {"warm_start.masks": "level_02/ticket/last"},
        "lth: expected one of the checkpoints .*got 'level_02/ticket/last'",
    ),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_bad_starts_are_named(studies: Path, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(studies / "wrong", fields)
