"""One, two and four devices, by jit and by pmap."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case, some

from jaxsparse import select, transforms
from jaxsparse.lottery import imp
from jaxsparse.training import checkpoints, mesh, placement, scan_chunks, state_sharding
from jaxsparse.training import state as state_lib
from jaxsparse.training.steps import MetricSums

# What is trained, how many replicates, in which calls. Convolutions are not scanned.
CASES = [
    pytest.param("mlp", 1, [(3, 64)], id="mlp-data"),
    pytest.param("mlp", 4, [(3, 64), (1, 64)], id="mlp-replicates"),
    pytest.param(
        "resnet", 1, [(1, 64)] * 4, id="resnet-data", marks=pytest.mark.campaign
    ),
    pytest.param(
        *("resnet", 4, [(1, 64)] * 4),
        id="resnet-replicates",
        marks=pytest.mark.campaign,
    ),
]


@pytest.mark.parametrize(("network", "replicates", "calls"), CASES)
def test_pmap_and_jit_are_equal_in_every_bit(
    bench: Callable, network: str, replicates: int, calls: list
) -> None:
    by_jit = bench(network, replicates=replicates, devices=4)
    by_pmap = bench(network, replicates=replicates, devices=4, parallelism="pmap")
    one, tallies = by_jit.train(calls)
    two, others = by_pmap.train(calls)
    moved = jax.tree.map(
        lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))),
        one.params,
        by_jit.fresh.params,
    )
    assert all(jax.tree.leaves(moved))
    tiny.check_equal(two, one)
    for a, b in zip(tallies, others, strict=True):
        for name in MetricSums._fields:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize(
    ("network", "replicates"),
    [
        case("mlp", 1, always=False),
        case("mlp", 2, always=True),
        case("mlp", 4, always=False),
        case("conv_norm", 1, always=True),
        case("resnet", 1, always=False),
    ],
)
def test_one_step_on_one_and_on_four_devices_differs_by_rounding(
    bench: Callable, network: str, replicates: int
) -> None:
    one, tallies = bench(network, replicates=replicates, devices=1).train([(1, 64)])
    four, others = bench(network, replicates=replicates, devices=4).train([(1, 64)])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (one.params, one.batch_stats),
        (four.params, four.batch_stats),
    )
    np.testing.assert_allclose(tallies[0].loss, others[0].loss, rtol=1e-4)
    np.testing.assert_array_equal(tallies[0].predictions, others[0].predictions)


@pytest.mark.parametrize(
    ("replicates", "scope"),
    [
        case(1, "global", always=False),
        case(1, "layer", always=True),
        case(4, "global", always=True),
        case(4, "layer", always=False),
    ],
)
def test_equal_scores_give_equal_masks_on_any_number_of_devices(
    bench: Callable, replicates: int, scope: str
) -> None:
    state, _ = bench(replicates=replicates, devices=4).train([(3, 64)])
    keys = state_lib.make_seeds(init=0, data=0, masks=3, replicates=replicates).masks
    kept = transforms.get_masks(state.opt_state)
    chosen = []
    for devices in (1, 2, 4):
        layout = mesh.make_layout(
            replicates=replicates, batch_sizes=[64], devices=devices
        )
        params, dense, placed = placement.shard_replicates(
            layout, (state.params, jax.tree.map(jnp.ones_like, kept), keys)
        )
        # The weights that the masks removed are zeros, and tie.
        with pytest.warns(select.TiedScoresWarning, match="to tie at the threshold"):
            chosen.append(
                imp.prune(
                    params,
                    dense,
                    level=2,
                    rule=imp.PruningRule(scope=scope),
                    keys=placed,
                )
            )
    tiny.check_equal(chosen[1], chosen[0])
    tiny.check_equal(chosen[2], chosen[0])


@pytest.mark.parametrize("parallelism", ["jit", "pmap"])
@pytest.mark.parametrize(("replicates", "devices"), [(1, 4), (4, 4), (4, 2), (4, 1)])
def test_collect_undoes_place(
    bench: Callable, parallelism: str, replicates: int, devices: int
) -> None:
    # Of a network with running statistics.
    fresh = bench("conv_norm", replicates=replicates).fresh
    layout = mesh.make_layout(
        replicates=replicates,
        batch_sizes=[64],
        parallelism=parallelism,
        devices=devices,
    )
    placed = state_sharding.shard_state(layout, fresh)
    assert len(placed.params["head"]["kernel"].sharding.device_set) == devices
    tiny.check_equal(state_sharding.gather_state(layout, placed), fresh)


@pytest.mark.parametrize("replicates", some([1, 4], always=[4]))
def test_a_state_saved_from_four_devices_continues_on_fewer(
    bench: Callable, tmp_path: Path, replicates: int
) -> None:
    saved, _ = bench(replicates=replicates, devices=4).train([(3, 64)])
    checkpoints.save(tmp_path, "last", saved)
    for devices in (1, 2, 4):
        made = bench(replicates=replicates, devices=devices)
        like = state_sharding.shard_state(made.layout, made.fresh)
        loaded = checkpoints.load(tmp_path, "last", like)
        assert loaded is not None
        tiny.check_equal(loaded.state, saved)
        kernel = loaded.state.params["head"]["kernel"]
        assert len(kernel.sharding.device_set) == devices
        after, _ = made.train([(1, 64)], loaded.state)
        assert int(after.step) == 4


def test_tallies_are_by_step_and_replicate_whatever_the_layout() -> None:
    steps, replicates = 3, 4
    wanted = np.arange(steps * replicates).reshape(steps, replicates)
    for parallelism, count in [("jit", replicates), ("pmap", replicates), ("pmap", 1)]:
        layout = mesh.make_layout(
            replicates=count, batch_sizes=[8], parallelism=parallelism
        )
        part = wanted[:, :count]
        leaf = part.T  # programs give [r length], under pmap by device
        if layout.mapped:
            groups = layout.mesh.shape["replicate"]
            leaf = leaf.reshape(groups, -1, steps)
            shape = (layout.mesh.size, *leaf.shape[1:])
            leaf = np.broadcast_to(leaf, shape) if count == 1 else leaf
        got = scan_chunks.sums_on_host(layout, MetricSums(leaf, leaf, leaf))
        np.testing.assert_array_equal(got.loss, part)
