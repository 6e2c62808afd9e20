"""Replicates: independent of how many there are, and of one another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tiny

from jaxsparse import initializers, masks, rng, select, transforms
from jaxsparse.lottery import imp
from jaxsparse.training import state as state_lib
from jaxsparse.training import vmap_seeds


def first(tree: Any, count: int) -> Any:
    return part(tree, slice(count))


def one(tree: Any, replicate: int) -> Any:
    return part(tree, slice(replicate, replicate + 1))


def part(tree: Any, rows: slice) -> Any:
    """Takes rows on the host, so that nothing is compiled for each of them."""

    def pick(leaf: Any) -> Any:
        if rng.is_key(leaf):
            return jax.random.clone(leaf)[rows]  # so that it may be used once more
        return jnp.asarray(np.asarray(leaf)[rows])

    return jax.tree.map(pick, tree)


def seeds(replicates: int, **changed: int) -> state_lib.Seeds:
    numbers = {"init": 5, "data": 6, "masks": 7} | changed
    return state_lib.make_seeds(**numbers, replicates=replicates)


@pytest.fixture(scope="module")
def made() -> Any:
    """A built experiment; its functions take keys of any number of replicates."""
    return tiny.experiment(Path(), {"model.features": (12,)})


def draws(made: Any, of: state_lib.Seeds) -> dict[str, Any]:
    """Everything random in a run: weights, orders of two epochs, random masks."""
    params, stats = made.task.initialize(of.init)
    count = len(of.init)
    dense = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), made.task.masks
    )
    rule = imp.PruningRule(score="random")
    return {
        "weights": (params, stats),
        "orders": [made.trainer.feed.make_order(of.data, epoch) for epoch in (0, 7)],
        "masks": imp.prune(params, dense, level=1, rule=rule, keys=of.masks),
    }


def test_a_replicate_is_the_same_among_three_and_among_five(made: Any) -> None:
    tiny.check_equal(seeds(3), first(seeds(5), 3))
    few, many = draws(made, seeds(3)), draws(made, seeds(5))
    tiny.check_equal(few, first(many, 3))


def test_replicates_differ_in_everything_random(made: Any) -> None:
    some = draws(made, seeds(3))
    for leaf in jax.tree.leaves(
        (some["weights"][0]["head"]["kernel"], some["orders"], some["masks"])
    ):
        different = {np.asarray(row).tobytes() for row in leaf}
        assert len(different) == 3
    assert all(
        masks.num_active(one(some["masks"], r))
        == masks.num_active(one(some["masks"], 0))
        for r in range(3)
    )


@pytest.mark.parametrize(
    ("seed", "what"), [("init", "weights"), ("data", "orders"), ("masks", "masks")]
)
def test_a_seed_changes_only_what_it_should(made: Any, seed: str, what: str) -> None:
    before, after = draws(made, seeds(3)), draws(made, seeds(3, **{seed: 99}))
    for name in before:
        if name != what:
            tiny.check_equal(after[name], before[name])
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(before[what])
        if "bias" not in str(path)
    ]
    others = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(after[what])
        if "bias" not in str(path)
    ]
    for a, b in zip(kernels, others, strict=True):
        assert (np.asarray(a) != np.asarray(b)).mean() > 0.1


def test_initial_weights_do_not_depend_on_the_batch_of_keys(made: Any) -> None:
    like = jax.eval_shape(made.task.initialize, seeds(3).init)[0]
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), like)
    alone = initializers.initialize(
        like,
        key=seeds(3).init[1],
        kernel="kaiming_normal",
        bias="zeros",
        norm_scale="ones",
    )
    together, _ = made.task.initialize(seeds(3).init)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[1], rtol=1e-6), alone, together
    )


def _alone(
    together: Any, alone: Any, r: int, calls: list[tuple[int, int]]
) -> tuple[state_lib.TrainState, list[Any]]:
    """Trains one of several replicates by the program for a single one."""
    state = together.fresh._replace(
        params=one(together.fresh.params, r),
        batch_stats=one(together.fresh.batch_stats, r),
        opt_state=_pick(together.fresh.opt_state, r),
    )
    single = alone._replace(
        orders=together.orders[r : r + 1], keys=together.keys[r : r + 1]
    )
    return single.train(calls, state)


@pytest.mark.parametrize("how", ["map", "unroll"])
def test_a_replicate_among_three_has_the_bits_it_has_alone(
    bench: Callable, how: vmap_seeds.How
) -> None:
    calls = [(3, 64), (1, 64)]
    together = bench(replicates=3, how=how)
    many, tallies = together.train(calls)
    for r in range(3):
        got, tally = _alone(together, bench(replicates=1), r, calls)
        tiny.check_equal(got.params, one(many.params, r))
        for a, b in zip(tally, tallies, strict=True):
            np.testing.assert_array_equal(a.loss[:, 0], b.loss[:, r])


def test_one_vmapped_step_equals_single_steps(bench: Callable) -> None:
    # One step of three replicates under vmap and of each alone differ by rounding.
    together = bench(replicates=3)
    alone = bench(replicates=1)
    many, tallies = together.train([(1, 64)])
    for r in range(3):
        got, tally = _alone(together, alone, r, [(1, 64)])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            got.params,
            one(many.params, r),
        )
        np.testing.assert_allclose(
            tally[0].loss[:, 0], tallies[0].loss[:, r], rtol=1e-5
        )
        assert tally[0].correct[0, 0] == tallies[0].correct[0, r]


def _pick(opt_state: Any, replicate: int) -> Any:
    axes = transforms.replicate_axes(opt_state)
    return jax.tree.map(
        lambda axis, part: part if axis is None else one(part, replicate),
        axes,
        opt_state,
        is_leaf=lambda axis: axis is None,
    )


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_equal_scores_give_equal_masks_alone_and_together(
    bench: Callable, scope: str
) -> None:
    state, _ = bench(replicates=3).train([(1, 64)])
    kept = transforms.get_masks(state.opt_state)
    dense = jax.tree.map(jnp.ones_like, kept)
    rule = imp.PruningRule(scope=scope)
    keys = seeds(3).masks
    # The weights that the masks removed are zeros, and tie.
    with pytest.warns(select.TiedScoresWarning, match="to tie at the threshold"):
        together = imp.prune(state.params, dense, level=1, rule=rule, keys=keys)
    for r in range(3):
        with pytest.warns(select.TiedScoresWarning, match="to tie at the threshold"):
            alone = imp.prune(
                one(state.params, r),
                one(dense, r),
                level=1,
                rule=rule,
                keys=keys[r : r + 1],
            )
        tiny.check_equal(alone, one(together, r))


def test_counters_are_not_batched(bench: Callable) -> None:
    made = bench(replicates=3)
    state, _ = made.train([(1, 64), (2, 64)])
    assert state.step.shape == state.opt_state.step.shape == ()
    assert int(state.step) == int(state.opt_state.step) == 3
    assert state.opt_state.replaced.shape == ()
    assert state.opt_state.key is None  # `fixed` draws nothing
    axes = state_lib.replicate_axes(state)
    assert axes.step is None
    assert axes.opt_state.step is None
    assert set(jax.tree.leaves(axes)) == {0}


def test_each_replicate_has_a_key_of_its_own_where_a_method_draws(
    bench: Callable,
) -> None:
    made = bench(replicates=3)
    state = state_lib.start(
        transforms.sparse_evolution(optax.sgd(0.1), sparsity=0.5, update_every=2),
        made.fresh.params,
        {},
        transforms.get_masks(made.fresh.opt_state),
        step=0,
        keys=seeds(3).masks,
    )
    assert state.opt_state.key.shape == (3, 2)
    assert state.opt_state.key.dtype == jnp.uint32
    assert len(np.unique(state.opt_state.key, axis=0)) == 3
    assert state_lib.replicate_axes(state).opt_state.key == 0


def test_a_start_masks_the_weights_and_shares_no_buffer(bench: Callable) -> None:
    made = bench(replicates=3)
    kept = transforms.get_masks(made.fresh.opt_state)
    keys = seeds(3).masks
    ones = jax.tree.map(jnp.ones_like, made.fresh.params)
    state = state_lib.start(
        transforms.fixed(optax.identity()), ones, {}, kept, step=7, keys=keys
    )
    assert int(state.step) == 7
    tiny.check_equal(state.params, masks.apply(kept, ones))
    assert bool(state.opt_state.replaced)
    pointers = [
        leaf.unsafe_buffer_pointer()
        for leaf in jax.tree.leaves((ones, kept, state))
        if not rng.is_key(leaf)
    ]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("how", ["vmap", "map", "unroll"])
def test_every_arrangement_maps_alike(how: vmap_seeds.How) -> None:
    def fn(state: dict, shared: jax.Array, row: jax.Array) -> tuple[dict, jax.Array]:
        return {"step": state["step"] + 1, "w": state["w"] * shared}, row - state["w"]

    axes = {"step": None, "w": 0}
    mapped = vmap_seeds.over_replicates(
        fn, how=how, replicates=3, in_axes=(axes, None, 0), out_axes=(axes, 0)
    )
    w, row = jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2))
    state, out = jax.jit(mapped)({"step": jnp.int32(4), "w": w}, jnp.float32(2), row)
    assert state["step"].shape == () and int(state["step"]) == 5
    np.testing.assert_array_equal(state["w"], 2 * w)
    np.testing.assert_array_equal(out, 1 - w)


@pytest.mark.parametrize(("how", "loops"), [("map", True), ("unroll", False)])
def test_only_map_loops(how: vmap_seeds.How, loops: bool) -> None:
    mapped = vmap_seeds.over_replicates(
        lambda x: jnp.tanh(x @ x), how=how, replicates=3, in_axes=(0,), out_axes=0
    )
    text = jax.jit(mapped).lower(jnp.ones((3, 4, 4))).compile().as_text()
    assert ("while(" in text) == loops
