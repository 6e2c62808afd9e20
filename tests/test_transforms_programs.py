"""Sparse optimizers inside every kind of program, on every kind of tree."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.method_runs import PLAINLY
from helpers.states import plain
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsparse import masks, transforms

ADAMW = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01))


class Linear(NamedTuple):
    """Parameters as equinox keeps them: attributes, some of them None."""

    weight: Any
    bias: Any
    extra: None = None


def make_params(seed: int = 0, dtype: Any = jnp.float32) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "bias": jnp.asarray(rng.normal(size=3), dtype),
        "kernel": jnp.asarray(rng.normal(size=(8, 3)), dtype),
    }


def make_masks(seed: int) -> dict:
    kept = np.random.default_rng(seed).random((8, 3)) < 0.5
    return {"bias": None, "kernel": jnp.asarray(kept)}


def loss_of(params: Any, batch: Any) -> Any:
    out = jnp.tanh(batch @ params["kernel"] + params["bias"][None])
    return jnp.mean(jnp.square(out - 0.5))


def shuffle(
    held: Any, params: Any, grads: Any, *, step: Any, key: Any, **_: Any
) -> Any:
    key = jax.random.fold_in(key, step)
    kernel = jax.random.permutation(key, held["kernel"].reshape(-1)).reshape(8, 3)
    return transforms.MaskUpdate(held | {"kernel": kernel})


TX = transforms.sparsify(
    ADAMW,
    masks.ones,
    update_masks=shuffle,
    update_at=lambda step: step % 3 == 2,
    key=jax.random.key(0),
)


def train_step(params: Any, state: Any, batch: Any, axis: str | None = None) -> Any:
    grads = jax.grad(loss_of)(params, batch)
    if axis is not None:
        grads = jax.lax.pmean(grads, axis)
    return update(params, state, grads)


def update(params: Any, state: Any, grads: Any) -> Any:
    updates, state = TX.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def make_batches(dtype: Any = jnp.float32) -> Any:
    return np.random.default_rng(9).normal(size=(7, 12, 8)).astype(dtype)


def start(seed: int = 0, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    params = make_params(seed, dtype)
    state = transforms.replace_masks(TX.init(params), make_masks(seed))
    state = transforms.replace_key(state, jax.random.key(seed))
    return masks.apply(make_masks(seed), params), state


plain_step = jax.jit(train_step, compiler_options=PLAINLY)


@functools.cache
def follow(seed: int = 0, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    """The plain loop that all programs must equal."""
    params, state = start(seed, dtype)
    for batch in make_batches(dtype):
        params, state = plain_step(params, state, batch)
    return params, state


def check_alike(got: Any, wanted: Any, rtol: float = 1e-5) -> None:
    """All but floats equal; those to a tolerance, as the programs round differently."""

    def check(leaf: Any, other: Any) -> None:
        slack = rtol if np.issubdtype(leaf.dtype, np.floating) else 0
        np.testing.assert_allclose(leaf, other, rtol=slack, atol=slack)

    jax.tree.map(check, plain(got), plain(wanted))


def check_zeros(params: Any, state: Any) -> None:
    held = transforms.get_masks(state)["kernel"]
    np.testing.assert_array_equal(params["kernel"] != 0, held)


def stack(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def test_replicates_equal_a_loop() -> None:
    with jax.enable_x64(True):
        batches = make_batches(jnp.float64)
        single = [follow(seed, jnp.float64) for seed in range(3)]
        params = stack(*(make_params(seed, jnp.float64) for seed in range(3)))
        axes = transforms.replicate_axes(jax.eval_shape(TX.init, make_params()))
        states = jax.vmap(TX.init, out_axes=axes)(params)
        held = stack(*(make_masks(seed) for seed in range(3)))
        states = transforms.replace_masks(states, held)
        keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
        states = transforms.replace_key(states, keys)
        params = masks.apply(held, params)
        step = jax.jit(
            jax.vmap(train_step, in_axes=(0, axes, None), out_axes=(0, axes))
        )
        for batch in batches:
            params, states = step(params, states, batch)
        check_zeros(params, states)
        params, states = plain((params, states))
        for i, one in enumerate(single):
            mine = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            # The step counter, and the flag beside it, are common to all.
            state = jax.tree.map(
                lambda leaf, i=i: leaf[i] if leaf.ndim else leaf, states
            )
            check_alike((mine, state), one, rtol=1e-12)


def test_replicates_still_change_masks_conditionally() -> None:
    """Traced only; compiled conditionals are counted in test_methods_programs."""
    axes = transforms.replicate_axes(jax.eval_shape(TX.init, make_params()))
    params, found = stack(make_params(0), make_params(1)), []
    for state_axes in (axes, 0):  # 0: what a batched counter would cost
        states = jax.eval_shape(jax.vmap(TX.init, out_axes=state_axes), params)
        step = jax.vmap(train_step, (0, state_axes, None), (0, state_axes))
        with jax.debug_key_reuse(
            False
        ):  # takes a select of two equal keys for two uses
            jaxpr = jax.make_jaxpr(step)(params, states, make_batches()[0])
        found.append(str(jaxpr).count("= cond["))
    assert found == [1, 0]


@pytest.mark.campaign  # the tests of training scan
def test_inside_scan() -> None:
    batches = make_batches()
    many, _ = jax.jit(
        lambda carry, xs: jax.lax.scan(
            lambda carry, batch: (train_step(*carry, batch), None), carry, xs
        )
    )(start(), batches)
    check_zeros(*many)
    check_alike(many, follow())


@pytest.mark.campaign  # a pmap of top_kast is in test_methods_programs
def test_inside_pmap() -> None:
    batches = make_batches()
    step = jax.pmap(
        lambda params, state, batch: train_step(params, state, batch, "data"), "data"
    )
    params, state = stack(*(start() for _ in range(4)))
    for batch in batches:
        params, state = jax.block_until_ready(
            step(params, state, batch.reshape(4, 3, 8))
        )
    wanted = follow()
    check_zeros(params, state)
    for i in range(4):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], plain((params, state)))
        check_alike(mine, wanted)


def make_mesh(name: str) -> jax.sharding.Mesh:
    return jax.make_mesh((4,), (name,), axis_types=(AxisType.Auto,))


@pytest.mark.campaign  # that of snfs is in test_methods_programs
def test_inside_shard_map() -> None:
    batches = make_batches()

    def sharded(params: Any, state: Any, batch: Any) -> Any:
        # With replication checked, the gradient of what all devices share is their sum.
        grads = jax.grad(loss_of)(params, batch)
        return update(params, state, jax.tree.map(lambda leaf: leaf / 4, grads))

    step = jax.jit(
        jax.shard_map(
            sharded,
            mesh=make_mesh("data"),
            in_specs=(P(), P(), P("data")),
            out_specs=P(),
        )
    )
    params, state = start()
    for batch in batches:
        params, state = jax.block_until_ready(step(params, state, batch))
    check_zeros(params, state)
    check_alike((params, state), follow())


def test_state_shape_dtype_shard_stability() -> None:
    mesh = make_mesh("model")

    def place(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.device_put(
                leaf, NamedSharding(mesh, P("model") if leaf.shape == (8, 3) else P())
            ),
            tree,
        )

    batches = make_batches()
    step = plain_step
    params, state = place(start())
    where = jax.tree.map(lambda leaf: leaf.sharding, (params, state))
    types = jax.tree.map(jax.typeof, (params, state))
    for batch in batches:
        params, state = jax.block_until_ready(step(params, state, batch))
        same = jax.tree.map(
            lambda leaf, old: leaf.sharding.is_equivalent_to(old, leaf.ndim),
            (params, state),
            where,
        )
        assert all(jax.tree.leaves(same))
        assert jax.tree.map(jax.typeof, (params, state)) == types
    check_zeros(params, state)
    check_alike((params, state), follow())


def make_trees() -> dict[str, Any]:
    kernel, bias = jnp.ones((4, 3)), jnp.ones(3)
    model = nnx.Sequential(
        nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(1))
    )
    return {
        "haiku": {"mlp/~/linear_0": {"w": kernel, "b": bias}},
        "nnx": nnx.split(model)[1],
        "list": [kernel, [bias, kernel]],
        "named tuple": {"layers": [Linear(kernel, bias), Linear(kernel, None)]},
    }


@pytest.mark.parametrize("name", make_trees())
def test_any_tree_of_parameters(name: str) -> None:
    params = make_trees()[name]

    def init_masks(tree: Any) -> Any:
        return masks.ones(tree, prunable=lambda _, leaf: leaf.ndim > 1)

    tx = transforms.sparsify(optax.adam(0.1), init_masks)
    step = jax.jit(tx.update)
    state = tx.init(params)
    ones = jax.tree.map(np.ones_like, params)
    updates, state = step(ones, state, params)
    params = optax.apply_updates(params, updates)
    rng = np.random.default_rng(0)
    held = jax.tree.map(
        lambda mask: jnp.asarray(rng.random(mask.shape) < 0.5), init_masks(params)
    )
    state = transforms.replace_masks(state, held)
    nothing = jax.tree.map(np.zeros_like, params)
    updates, state = step(nothing, state, params)
    params = optax.apply_updates(params, updates)
    mu = state.inner_state[0].mu
    assert jax.tree.structure(mu) == jax.tree.structure(params)

    def check(mask: Any, *leaves: Any) -> None:
        for leaf in leaves:
            np.testing.assert_array_equal(np.asarray(leaf) != 0, mask)

    masks.tree_map(check, held, params, mu)
    assert all(leaf.all() for leaf in jax.tree.leaves(mu) if leaf.ndim == 1)
