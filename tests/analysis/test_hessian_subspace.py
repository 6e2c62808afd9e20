from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxsparse import masks
from jaxsparse.analysis.hessian import param_subspace


def tree(seed: int = 0) -> Any:
    draws = np.random.default_rng(seed)
    return {
        "bias": jnp.asarray(draws.normal(size=3), jnp.float32),
        "layers": [
            {"kernel": jnp.asarray(draws.normal(size=shape), jnp.float32)}
            for shape in ((2, 3), (3, 2, 2))
        ],
    }


def masked(flags: list[bool]) -> Any:
    first, second = np.split(np.asarray(flags), [6])
    kernels = [first.reshape(2, 3), second.reshape(3, 2, 2)]
    return {
        "bias": None,
        "layers": [{"kernel": jnp.asarray(kernel)} for kernel in kernels],
    }


@example(parts=([False] * 6, [True] * 12))
@given(
    parts=st.tuples(
        st.permutations([True] * 3 + [False] * 3),
        st.permutations([True] * 6 + [False] * 6),
    )
)
@settings(max_examples=12, deadline=None)
def test_flatten_and_unflatten_are_those_of_a_loop(
    parts: tuple[list[bool], list[bool]],
) -> None:
    """Drawn masks share their counts, and so their programs."""
    flags = [*parts[0], *parts[1]]
    params, mask = tree(), masked(flags)
    space = param_subspace.make(params, mask)
    weights = np.concatenate(
        [np.asarray(leaf["kernel"]).reshape(-1) for leaf in params["layers"]]
    )
    wanted = [*np.asarray(params["bias"])]
    wanted += [w for w, kept in zip(weights, flags, strict=True) if kept]
    assert param_subspace.size(space) == 3 + sum(flags)
    vector = param_subspace.flatten(space, params)
    assert np.array_equal(vector, np.asarray(wanted, np.float32))
    back = param_subspace.unflatten(space, vector)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for found, leaf in zip(
        jax.tree.leaves(back), jax.tree.leaves(masks.apply(mask, params)), strict=True
    ):
        assert np.array_equal(found, leaf) and found.dtype == leaf.dtype
    moved = param_subspace.unflatten(space, jnp.full_like(vector, 5.0))
    for leaf, kept in zip(moved["layers"], mask["layers"], strict=True):
        inside = np.asarray(kept["kernel"])
        assert np.array_equal(leaf["kernel"], np.where(inside, 5.0, 0.0))


@pytest.mark.parametrize(
    ("include", "n"), [(("*",), 8), ((), 5), (("bias",), 8), (("b*",), 8)]
)
def test_what_is_left_out_stays(include: tuple[str, ...], n: int) -> None:
    params = tree()
    space = param_subspace.make(
        params, masked([True] * 5 + [False] * 13), include=include
    )
    assert param_subspace.size(space) == n == sum(param_subspace.sizes(space))
    back = param_subspace.unflatten(space, jnp.zeros(n))
    kept = np.zeros(3) if n == 8 else params["bias"]
    assert np.array_equal(back["bias"], kept)


def test_a_subspace_is_an_argument_under_jit_and_vmap() -> None:
    params = tree()
    space = param_subspace.make(params, masked([True, False] * 9))
    n = param_subspace.size(space)
    vectors = jnp.arange(2.0 * n).reshape(2, n)
    together = jax.jit(jax.vmap(param_subspace.unflatten, (None, 0)))(space, vectors)
    again = jax.vmap(param_subspace.flatten, (None, 0))(space, together)
    assert np.array_equal(again, vectors)
    assert np.array_equal(
        jnp.concatenate(param_subspace.split(space, vectors[1])), vectors[1]
    )


def test_modules_of_equinox_and_states_of_nnx_are_trees_too() -> None:
    linear = eqx.nn.Linear(3, 2, use_bias=False, key=jax.random.key(0))
    state = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    for params, free in ((linear, 0), (state, 2)):
        mask = jax.tree.map(lambda m: m.at[0].set(False), masks.ones(params))
        space = param_subspace.make(params, mask)
        vector = param_subspace.flatten(space, params)
        assert (
            param_subspace.size(space) == masks.num_active(mask) + free == vector.size
        )
        back = param_subspace.unflatten(space, vector)
        wanted = masks.apply(mask, params)
        assert jax.tree.all(jax.tree.map(jnp.array_equal, back, wanted))


def test_mixed_types_are_widened_and_come_back() -> None:
    params = {"b": jnp.ones(2, jnp.float32), "w": jnp.ones(2, jnp.bfloat16)}
    space = param_subspace.make(params, {"b": None, "w": jnp.array([True, False])})
    vector = param_subspace.flatten(space, params)
    assert vector.dtype == param_subspace.dtype(space) == jnp.float32
    assert param_subspace.unflatten(space, vector)["w"].dtype == jnp.bfloat16


def test_faults_are_named() -> None:
    params = tree()
    with pytest.raises(ValueError, match="include: expected patterns .*got 'bais'"):
        param_subspace.make(params, masked([True] * 18), include=("bais",))
    with pytest.raises(ValueError, match="expected one or more active weights"):
        param_subspace.make(params, masked([False] * 18), include=())
    wrong = masked([True] * 18)
    wrong["layers"][0]["kernel"] = jnp.ones((3, 2), bool)
    with pytest.raises(ValueError, match="layers/0/kernel: expected shape"):
        param_subspace.make(params, wrong)
