"""Masks of another run's ticket, aligned to a third run or changed in depth."""

import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import norm_mlp, tiny
from helpers.sparse_runs import load_data

from jaxsparse import config as config_lib
from jaxsparse import coupling, factory, masks, replicates, transforms
from jaxsparse.factory import input_data, mask_alignment
from jaxsparse.factory.trained_run import TrainedRun
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.masks import stage_masks
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.task import TrainTask
from jaxsparse.training import checkpoints, environment, workdir

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


@functools.cache
def opened(folder: Path) -> TrainedRun:
    return factory.open_run(folder)


@functools.cache
def state(folder: Path, moment: str) -> Any:
    return factory.load_state(opened(folder), moment)


def make(folder: Path, fields: dict[str, Any]) -> Experiment:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, load_data(), folder)


def build(folder: Path, fields: dict[str, Any]) -> TrainTask:
    return make(folder, fields).task


@pytest.fixture(scope="module")
def aligned(studies: Path) -> Experiment:
    """A run with aligned masks, built but not trained."""
    return make(studies / "aligned", ALIGNED)


def ticket_of(folder: Path) -> Any:
    return transforms.get_masks(state(folder, TICKET).opt_state)


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
    ticket = ticket_of(studies / "lth")
    tiny.check_equal(task.first_masks(None, None, None), ticket)
    early = state(studies / "dense", EARLY).params
    tiny.check_equal(task.start.first_weights(None)[0], early)


@pytest.mark.parametrize("how", ["activations", "weights"])
def test_masks_are_aligned_replicate_by_replicate(
    studies: Path, aligned: Experiment, how: str
) -> None:
    task = aligned.task
    if how == "weights":
        task = build(studies / how, UNALIGNED | {"warm_start.align": how})
    assert task.first_masks is not None
    found = task.first_masks(None, None, None)
    run = opened(studies / "dense")
    images = jnp.asarray(run.dataset.train.images[:64])
    inputs = input_data.make_task(run.config, run.dataset).inputs(images)
    ours, theirs = (state(studies / name, "train/last") for name in ("dense", "lth"))
    ticket = ticket_of(studies / "lth")
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
    # Not by activations: units that are dead are all alike.
    c = tiny.config(UNALIGNED | {"warm_start.align": "weights"})
    run = opened(studies / "dense")
    theirs = {"params": state(studies / "dense", "train/last").params}
    ticket = ticket_of(studies / "lth")
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


def test_a_resumed_run_keeps_its_aligned_masks(
    studies: Path, aligned: Experiment
) -> None:
    """Even if alignment finds others, on another device; only inputs are compared."""
    folder, c = studies / "aligned", tiny.config(ALIGNED)
    began = aligned.trainer.execution_plan["starts_from"]
    again = make(folder, ALIGNED)
    assert again.trainer.execution_plan["starts_from"] == began
    assert began.keys() == {"weights", "unaligned_masks", "checkpoints"}
    assert began["unaligned_masks"] == checkpoints.digest(ticket_of(studies / "lth"))
    hashes = began["checkpoints"]
    of_ticket = {f"../lth/{TICKET}", "../lth/train/last"}
    assert hashes.keys() == of_ticket | {EARLY, "train/last"}
    assert None not in hashes.values()
    plan = aligned.trainer.execution_plan
    with workdir.opened(folder, c, command="", execution_plan=plan):
        kept = stage_masks(
            SavedStates(aligned, tiny.desk(folder)), tiny.stages(again)[0]
        )
    assert aligned.task.first_masks is not None
    tiny.check_equal(kept, aligned.task.first_masks(None, None, None))
    others = jax.tree.map(jnp.logical_not, kept)
    task = again.task._replace(first_masks=lambda *start: others)
    resumed = SavedStates(again._replace(task=task), tiny.desk(folder))
    tiny.check_equal(stage_masks(resumed, tiny.stages(again)[0]), kept)
    environment.check_start(folder, again.trainer.execution_plan)
    for name in began:
        changed = {"starts_from": began | {name: "0"}}
        with pytest.raises(ValueError, match=f"expected {name} with hash .*got 0"):
            environment.check_start(folder, changed)


@pytest.mark.parametrize("field", ["run", "masks_run"])
def test_masks_are_aligned_by_dense_networks_only(
    studies: Path, tmp_path: Path, field: str
) -> None:
    """Here `train/last` of one of the two runs has the masks of a ticket."""
    shutil.copytree(studies / "lth", pruned := tmp_path / "pruned")
    checkpoints.delete(pruned / "checkpoints", "train/last")
    ticket = state(studies / "lth", TICKET)
    checkpoints.save(pruned / "checkpoints", "train/last", ticket)
    active, size = (
        f(ticket_of(studies / "lth")) for f in (masks.num_active, masks.size)
    )
    fields = ALIGNED | {
        "warm_start.weights": "init",
        f"warm_start.{field}": str(pruned),
    }
    with pytest.raises(
        ValueError,
        match=r"config\.warm_start\.align: expected a dense network in train/last of "
        rf".*pruned, got masks with {active:,} of {size:,} weights active",
    ):
        build(studies / "refused", fields)


@pytest.mark.parametrize("wide", ["theirs", "masks"])
def test_networks_of_other_shapes_are_not_aligned(studies: Path, wide: str) -> None:
    shapes = {"theirs": (2, 3, 4), "ours": (2, 3, 4), "masks": (2, 3, 4)}
    shapes[wide] = (2, 3, 5)
    theirs, ours, held = (
        {"layer": {"kernel": jnp.ones(shape, bool if name == "masks" else None)}}
        for name, shape in shapes.items()
    )
    with pytest.raises(
        ValueError,
        match=r"config\.warm_start\.align: expected params/layer/kernel of shape "
        r"\(2, 3, 4\), as in train/last of warm_start\.run, got \(2, 3, 5\) in ",
    ):
        mask_alignment.align(
            tiny.config(ALIGNED),
            held,
            {"params": theirs},
            {"params": ours},
            opened(studies / "dense"),
        )


def test_statistics_do_not_count_as_weights(studies: Path) -> None:
    """Networks that differ only in running means and variances are aligned alike."""
    c = tiny.config(
        SMALL
        | {
            "model.name": "norm_mlp",
            "model.features": None,
            "warm_start.align": "weights",
        }
    )
    with norm_mlp.registered():
        apply = functools.partial(factory.make_model(c, classes=10).apply, train=False)
        run = opened(studies / "dense")._replace(config=c)
        x, draw = jnp.ones((1, 8, 8, 1)), np.random.default_rng(3)
        init = functools.partial(norm_mlp.NormMLP().init, train=False)
        theirs = jax.tree.map(
            lambda leaf: jnp.asarray(draw.normal(size=(2, *leaf.shape)), leaf.dtype),
            jax.eval_shape(init, jax.random.key(0), x),
        )
        params = theirs["params"]
        ticket = masks.tree_map(lambda _, leaf: leaf > 0, masks.ones(params), params)
        ours, wanted = [], []
        for r in range(2):
            one, mask = (
                jax.tree.map(lambda leaf, r=r: leaf[r], each)
                for each in (theirs, ticket)
            )
            coupled = coupling.coupled_axes(apply, one, x)
            (group,) = coupled.groups
            orders = [np.roll(np.arange(group.num_units), 1 + r)]
            ours.append(coupling.permute(coupled, one, orders))
            wanted.append(coupling.permute(coupled, {"params": mask}, orders)["params"])
        # If they counted, each unit would match the one in its own place.
        large = 1000.0 * jnp.tile(jnp.arange(6.0), (2, 1))
        for row in (large, jnp.zeros((2, 6))):
            statistics = {"batch_stats": {"norm1": {"mean": row, "var": row}}}
            found = mask_alignment.align(
                *(c, ticket, theirs | statistics, replicates.stack(ours) | statistics),
                run,
            )
            tiny.check_equal(found, replicates.stack(wanted))


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
