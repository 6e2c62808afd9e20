"""Weights divided over the devices that share a batch."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case, some

from jaxsparse import factory, masks, transforms, tree
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.training import (
    checkpoints,
    chunk_inputs,
    mesh,
    preemption,
    state_sharding,
)
from jaxsparse.training.state import TrainState

DIVISION = mesh.FSDPSpec(min_size=64)
GATHERS = re.compile(
    r" = (\w+)\[([\d,]*)\]\S* (all-gather|all-to-all|collective-permute)(?:-start)?\("
)


def of_state(layout: mesh.MeshLayout, state: Any) -> dict[str, tuple[int, ...]]:
    """Says over how many devices each axis of each leaf of a state is divided."""

    def parts(leaf: Any) -> tuple[int, ...]:
        shard = leaf.addressable_shards[0].data.shape
        return tuple(a // b for a, b in zip(leaf.shape, shard, strict=True))

    leaves = tree.named_leaves(state_sharding.shard_state(layout, state))
    return {name: parts(leaf) for name, leaf in leaves.items()}


@pytest.mark.parametrize("replicates", [1, 2])
def test_masks_and_momenta_lie_where_their_weights_do(
    bench: Callable, replicates: int
) -> None:
    made = bench(replicates=replicates, devices=4, division=DIVISION)
    over_data = 4 // replicates
    parts = of_state(made.layout, made.fresh)
    for kernel in ("dense1/kernel", "head/kernel"):
        mine = [each for name, each in parts.items() if name.endswith(kernel)]
        # Weights, codes of weights, momentum.
        assert mine == [(replicates, over_data, 1)] * 3, kernel
    assert parts["params/head/bias"] == (replicates, 1)
    assert parts["step"] == ()


@pytest.mark.parametrize(
    ("name", "replicates"),
    [
        case("mlp", 1, always=False),
        case("mlp", 2, always=True),
        case("resnet", 1, always=False),
    ],
)
def test_steps_differ_by_rounding_from_those_with_whole_weights(
    bench: Callable, name: str, replicates: int
) -> None:
    calls = [(1, 64)] * 3
    whole, tallies = bench(name, replicates=replicates, devices=1).train(calls)
    made = bench(name, replicates=replicates, devices=4, division=DIVISION)
    divided, others = made.train(calls)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (divided.params, divided.batch_stats),
        (whole.params, whole.batch_stats),
    )
    tiny.check_equal(
        transforms.get_masks(divided.opt_state), transforms.get_masks(whole.opt_state)
    )
    for mine, wanted in zip(others, tallies, strict=True):
        np.testing.assert_allclose(mine.loss, wanted.loss, rtol=1e-4)
        np.testing.assert_array_equal(mine.predictions, wanted.predictions)
    moved = jax.tree.map(
        lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))),
        divided.params,
        made.fresh.params,
    )
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("replicates", [1, 2])
def test_only_weights_are_brought_together_and_only_to_compute_with(
    bench: Callable, replicates: int
) -> None:
    made = bench(replicates=replicates, devices=4, division=DIVISION)
    data = chunk_inputs.ChunkInputs(*made.data, made.orders, jnp.int32(0))
    program = made.programs(1, 64)
    state = state_sharding.shard_state(made.layout, made.fresh)
    # What `programs` returns is a partial of the compiled function.
    lowered = program.args[0].lower(state, data, made.keys, (jnp.int32(1), None))
    found = GATHERS.findall(lowered.compile().as_text())
    assert {(dtype, kind) for dtype, _, kind in found} == {("f32", "all-gather")}
    sizes = sorted(math.prod(map(int, dims.split(","))) for _, dims, _ in found)
    one, head = (
        made.fresh.params[layer]["kernel"][0].size for layer in ("dense1", "head")
    )
    # Each replicate's own, for the network and again for the gradient, which that of
    # the first layer has no part in.
    assert sizes == sorted([one, head, head])


def test_a_state_of_divided_weights_continues_on_other_layouts(
    bench: Callable, tmp_path: Path
) -> None:
    saved, _ = bench(devices=4, division=DIVISION).train([(1, 64)])
    checkpoints.save(tmp_path, "last", saved)
    for devices, division in ((4, DIVISION), (4, None), (2, DIVISION), (1, DIVISION)):
        made = bench(devices=devices, division=division)
        like = state_sharding.shard_state(made.layout, made.fresh)
        loaded = checkpoints.load(tmp_path, "last", like)
        assert loaded is not None
        tiny.check_equal(loaded.state, saved)
        kernel = loaded.state.params["head"]["kernel"]
        shard = kernel.addressable_shards[0].data.shape
        parts = 1 if division is None else devices
        assert shard == (1, kernel.shape[1] // parts, kernel.shape[2])


def test_pmap_and_rules_that_do_not_fit_are_refused(bench: Callable) -> None:
    with pytest.raises(
        ValueError, match=r"config.run.parallelism: expected 'jit' with run.fsdp"
    ):
        mesh.make_layout(
            replicates=1, batch_sizes=[64], parallelism="pmap", fsdp=DIVISION
        )
    wrong = mesh.FSDPSpec((("head/kernel", 1),))
    layout = mesh.make_layout(replicates=1, batch_sizes=[64], fsdp=wrong)
    with pytest.raises(
        ValueError, match=r"config.run.fsdp_rules: expected an axis of head/k"
    ):
        state_sharding.state_shardings(layout, bench().fresh)


RIGL = {
    "replicates": 1,
    "model.features": (20,),
    "run.devices": 4,
    "run.fsdp_min_size": 64,
    "run.steps_per_call": 2,
    "run.checkpoint_every": "4step",
    "lottery.levels": 0,
    "sparse.method": "rigl",
    "sparse.sparsity": 0.8,
    "sparse.distribution": "erk",
    "sparse.update_every": "3step",
    "sparse.end_step": "11step",
}


def test_a_run_of_rigl_is_stopped_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    fields = RIGL | {"run.fsdp": True}
    made = tiny.run(tmp_path / "whole", fields)
    wanted = tiny.load(tmp_path / "whole", "train/last", made)
    kernel = wanted.params["dense1"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (1, 16, 20)
    held = transforms.get_masks(wanted.opt_state)
    total, kept = masks.size(held), masks.num_active(held)
    assert kept == total - math.floor(total * 0.8)

    asked = iter([False] + [True] * 100)
    stopped = tiny.experiment(tmp_path / "stopped", fields)
    with pytest.raises(preemption.Preempted):
        desk = tiny.desk(tmp_path / "stopped", lambda: next(asked))
        run_lib.run(stopped, desk)
    tiny.run(tmp_path / "stopped", fields)
    again = tiny.load(tmp_path / "stopped", "train/last", made)
    tiny.check_equal(again, wanted)


def test_pre_training_on_fewer_devices_and_controls(tmp_path: Path) -> None:
    # Of its batches of 10, two devices share one; of those of 20, four.
    fields = {
        "replicates": 1,
        "model.features": (20,),
        "run.devices": 0,
        "run.fsdp": True,
        "run.fsdp_min_size": 64,
        "run.steps_per_call": 2,
        "lottery.levels": 1,
        "lottery.rewind": "4step",
        "lottery.controls": ("reinitialized", "dense_continued"),
        "pretraining.batch_size": 10,
    }
    made = tiny.train(tmp_path, fields)
    state = tiny.load(tmp_path, "level_01/ticket/last", made)
    assert made.pretrainer.layout.data_devices == 2
    kernel = state.params["dense1"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (1, 16, 20)
    held = transforms.get_masks(state.opt_state)
    assert masks.num_active(held) == math.ceil(masks.size(held) * 0.8)


DENSE = {
    "replicates": 2,
    "model.features": (20,),
    "run.devices": 4,
    "run.fsdp": True,
    "run.fsdp_min_size": 64,
    "run.steps_per_call": 3,
    "training.duration": "1ep",
    "schedule.milestones": (),
    "lottery.levels": 0,
    "run.data_placement": "device",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    """A run of two replicates on two devices each, and its end."""
    folder = tmp_path_factory.mktemp("trained") / "first"
    made = tiny.train(folder, DENSE)
    return folder, tiny.load(folder, "train/last", made)


def test_two_replicates_start_from_the_weights_of_another_run(
    trained: tuple[Path, TrainState],
) -> None:
    first, end = trained
    again = {"warm_start.run": "../first", "warm_start.weights": "train/last"}
    c, second = tiny.config(DENSE | again), first.with_name("second")
    made = factory.make_experiment(c, factory.load_data(c), second)
    began = SavedStates(made, tiny.desk(second)).init
    tiny.check_equal(began.params, end.params)
    kernel = began.params["dense1"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (1, 32, 20)


@pytest.mark.parametrize("examples", some(["sharded", "host"], always=["sharded"]))
def test_where_examples_lie_changes_nothing(
    trained: tuple[Path, TrainState], tmp_path: Path, examples: str
) -> None:
    made = tiny.run(tmp_path, DENSE | {"run.data_placement": examples})
    end = tiny.load(tmp_path, "train/last", made)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        end.params,
        trained[1].params,
    )


@pytest.mark.campaign
def test_eight_devices_and_a_hundred_million_weights(root: Path) -> None:
    ran = subprocess.run(
        [sys.executable, root / "tests" / "eight_devices.py"],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.endswith("all agree\n")
