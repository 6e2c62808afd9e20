import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse import masks
from jaxsparse.analysis.hessian import eigenvalues, exact, hvp, param_subspace

SIZES = (4, 5, 3)


def draw(seed: int, *shape: int, dtype: Any = np.float32) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def mlp(dtype: Any = np.float32) -> Any:
    return {
        f"layer{i}": {
            "kernel": draw(i, SIZES[i], SIZES[i + 1], dtype=dtype),
            "bias": draw(10 + i, SIZES[i + 1], dtype=dtype),
        }
        for i in range(len(SIZES) - 1)
    }


def some(params: Any, seed: int = 3) -> Any:
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(draws.random(leaf.shape) < 0.5), masks.ones(params)
    )


def loss(params: Any, batch: Any) -> Any:
    x = batch["x"]
    for i in range(len(SIZES) - 1):
        layer = params[f"layer{i}"]
        x = jnp.tanh(x) if i else x
        x = x @ layer["kernel"] + jnp.expand_dims(layer["bias"], 0)
    return jnp.mean((x - batch["y"]) ** 2)


def examples(count: int, dtype: Any = np.float32) -> Any:
    return {
        "x": draw(20, count, SIZES[0], dtype=dtype),
        "y": draw(21, count, SIZES[-1], dtype=dtype),
    }


@functools.cache
def reference() -> np.ndarray:
    """The Hessian in all coordinates of a network that applies its masks, in float64.

    One program for all tests: that of the network `mlp` on 7 examples.
    """
    with jax.enable_x64(True):
        params, data = mlp(np.float64), examples(7, np.float64)
        mask = some(params)
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        of = jax.jit(jax.hessian(lambda x: loss(masks.apply(mask, unravel(x)), data)))
        return np.asarray(of(flat))


def active(params: Any, mask: Any) -> np.ndarray:
    """Where the coordinates lie among all, by a loop over weights."""
    flags = []
    for name in sorted(params):
        flags += [True] * params[name]["bias"].size
        flags += list(np.asarray(mask[name]["kernel"]).reshape(-1))
    return np.asarray(flags)


@pytest.mark.parametrize(
    ("batch_size", "at_once", "both"),
    [
        (None, None, False),
        (100, None, False),  # one program with the case before
        (1, 3, False),
        (3, 1, True),
        (4, 4, False),
    ],
)
def test_the_matrix_is_that_of_jax_in_the_active_rows(
    batch_size: int | None, at_once: int | None, both: bool
) -> None:
    with jax.enable_x64(True):
        params, data = mlp(np.float64), examples(7, np.float64)
        mask = some(params)
        found = exact.matrix(
            loss,
            param_subspace.make(params, mask),
            data,
            batch_size=batch_size,
            columns_at_once=at_once,
            both_halves=both,
        )
        kept = active(params, mask)
        wanted = reference()
    assert found.matrix.shape == (kept.sum(), kept.sum())
    assert found.examples == 7 and found.dtype == np.float64
    assert np.array_equal(found.matrix, found.matrix.T)
    np.testing.assert_allclose(found.matrix, wanted[kept][:, kept], atol=1e-13)
    assert found.asymmetry < 1e-14
    assert not np.any(wanted[~kept])


@pytest.mark.parametrize("both", [False, True])
def test_float32_is_near_and_its_asymmetry_says_how_near(both: bool) -> None:
    params, data = mlp(), examples(7)
    mask = some(params)
    space = param_subspace.make(params, mask)
    found = exact.matrix(loss, space, data, batch_size=3, both_halves=both)
    kept = active(params, mask)
    wanted = reference()[kept][:, kept]
    np.testing.assert_allclose(found.matrix, wanted, atol=2e-6)
    assert 0 < found.asymmetry < 1e-5


def test_the_dense_spectrum_has_a_zero_for_each_masked_weight() -> None:
    with jax.enable_x64(True):
        params, data = mlp(np.float64), examples(7, np.float64)
        mask = some(params)
        found = exact.spectrum(
            loss, param_subspace.make(params, mask), data, vectors=True
        )
        wanted = np.linalg.eigvalsh(reference())
    full = eigenvalues.dense(found, mask)
    gone = masks.size(mask) - masks.num_active(mask)
    assert (full.n, full.zeros_added) == (wanted.size, gone)
    assert np.sum(full.eigenvalues == 0.0) == gone
    np.testing.assert_allclose(full.eigenvalues, wanted, atol=1e-13)
    with pytest.raises(
        ValueError,
        match="expected the spectrum of the active coordinates, got .* zeros",
    ):
        eigenvalues.dense(full, mask)
    assert np.array_equal(np.sort(found.eigenvalues), found.eigenvalues)
    with jax.enable_x64(True):
        hessian = exact.matrix(loss, param_subspace.make(params, mask), data).matrix
    assert found.vectors is not None
    np.testing.assert_allclose(
        hessian @ found.vectors, found.vectors * found.eigenvalues, atol=1e-12
    )


WHOLE = np.asarray(np.random.default_rng(1).normal(size=(6, 6)), np.float32)
WHOLE = WHOLE + WHOLE.T


def quadratic(params: Any, batch: Any) -> Any:
    w = params["w"].reshape(-1)
    return jnp.mean(batch) * (w @ jnp.asarray(WHOLE) @ w) / 2


@given(
    flags=st.permutations([True] * 4 + [False] * 2),
    scales=st.lists(st.integers(-3, 3), min_size=5, max_size=5),
)
@settings(max_examples=10, deadline=None)
def test_a_quadratic_has_the_rows_and_columns_of_its_matrix(
    flags: list[bool], scales: list[int]
) -> None:
    """Two programs, of four coordinates and five examples two at a time."""
    data = jnp.asarray(np.array(scales, np.float32))
    kept = np.asarray(flags)
    mask = {"w": jnp.asarray(kept.reshape(2, 3))}
    space = param_subspace.make({"w": draw(3, 2, 3)}, mask)
    wanted = np.mean(scales) * WHOLE[kept][:, kept].astype(np.float64)
    found = exact.matrix(quadratic, space, data, batch_size=2)
    np.testing.assert_allclose(found.matrix, wanted, atol=1e-5)
    vector = draw(4, 4)
    product = hvp.hvp(quadratic, space, data, vector, batch_size=2)
    np.testing.assert_allclose(product, wanted @ np.asarray(vector), atol=2e-5)


def test_the_point_is_masked_and_what_is_left_out_is_a_constant() -> None:
    # The third derivative is not zero, so that the point matters.
    def cubic(params: Any, batch: Any) -> Any:
        total = jnp.sum(params["w"]) + jnp.sum(params["b"])
        return jnp.mean(batch) * total**3 / 6

    params = {"w": jnp.array([1.0, 100.0, 2.0]), "b": jnp.array([4.0])}
    mask = {"w": jnp.array([True, False, True]), "b": None}
    alone = param_subspace.make(params, mask, include=())
    found = exact.matrix(cubic, alone, jnp.ones(2))
    assert np.array_equal(found.matrix, np.full((2, 2), 7.0))
    everything = exact.matrix(cubic, param_subspace.make(params, mask), jnp.ones(2))
    assert np.array_equal(everything.matrix, np.full((3, 3), 7.0))


class Small(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.max_pool(nn.tanh(nn.Conv(2, (3, 3))(x)), (2, 2), strides=(2, 2))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def test_convolutions_agree_with_products_one_by_one() -> None:
    model = Small()
    data = draw(5, 5, 4, 4, 1)
    params = jax.jit(model.init)(jax.random.key(0), data)
    mask = some(params)
    head = np.array(mask["params"]["Dense_0"]["kernel"])
    head[0] = False
    mask["params"]["Dense_0"]["kernel"] = jnp.asarray(head)

    def of_model(params: Any, batch: Any) -> Any:
        return jnp.mean(nn.logsumexp(model.apply(params, batch), axis=1) ** 2)

    space = param_subspace.make(params, mask)
    found = exact.matrix(of_model, space, data, batch_size=2)
    n = param_subspace.size(space)
    product = hvp.operator(of_model, space, data)
    columns = [np.asarray(product(row)) for row in np.eye(n, dtype=np.float32)]
    np.testing.assert_allclose(found.matrix, np.stack(columns), atol=3e-6)
    assert n == masks.num_active(mask) + 2 + 3


@pytest.mark.parametrize("kind", ["list", "nested list"])
def test_any_tree_has_the_same_spectrum(kind: str) -> None:
    with jax.enable_x64(True):
        params, data = mlp(np.float64), examples(7, np.float64)
        mask = some(params)
        kept = active(params, mask)
        wanted = np.linalg.eigvalsh(reference()[kept][:, kept])
        build = {
            "list": lambda t: [
                t[f"layer{i}"][k] for i in (1, 0) for k in sorted(t["layer0"])
            ],
            "nested list": lambda t: [
                (t[f"layer{i}"]["bias"], t[f"layer{i}"]["kernel"]) for i in (0, 1)
            ],
        }[kind]

        def back(tree: Any) -> Any:
            if kind == "list":
                return {
                    f"layer{i}": {
                        "bias": tree[2 * (1 - i)],
                        "kernel": tree[2 * (1 - i) + 1],
                    }
                    for i in (0, 1)
                }
            return {
                f"layer{i}": dict(zip(("bias", "kernel"), tree[i], strict=True))
                for i in (0, 1)
            }

        space = param_subspace.make(build(params), build(mask))
        found = exact.spectrum(lambda p, b: loss(back(p), b), space, data)
    np.testing.assert_allclose(found.eigenvalues, wanted, atol=1e-13)


def test_one_program_serves_all_masks_of_equal_counts() -> None:
    traces = []

    def counted(params: Any, batch: Any) -> Any:
        traces.append(1)
        return loss(params, batch)

    params, data = mlp(), examples(4)
    mask = some(params)
    turned = jax.tree.map(lambda m: jnp.flip(m), mask)
    first = exact.spectrum(counted, param_subspace.make(params, mask), data)
    seen = len(traces)
    second = exact.spectrum(counted, param_subspace.make(params, turned), data)
    assert seen and len(traces) == seen
    assert not np.allclose(first.eigenvalues, second.eigenvalues)


def test_memory_is_bounded_by_the_block() -> None:
    space = param_subspace.make(mlp(), some(mlp()))
    vector = jnp.ones(param_subspace.size(space))

    def temporary(batch_size: int) -> int:
        fn = functools.partial(hvp.hvp, loss, batch_size=batch_size)
        compiled = jax.jit(fn).lower(space, examples(4096), vector).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(64) < temporary(4096) / 2


def test_faults_are_named() -> None:
    params = mlp()
    space = param_subspace.make(params, some(params))
    with pytest.raises(ValueError, match="batches: expected .*got shapes"):
        hvp.microbatches({"x": jnp.ones((2, 1)), "y": jnp.ones(3)})
    with pytest.raises(ValueError, match="batch_size: expected .*got 0"):
        hvp.microbatches(jnp.ones(3), 0)
    with pytest.raises(ValueError, match="columns_at_once: expected .*got 0"):
        exact.matrix(loss, space, examples(2), columns_at_once=0)
    bad = examples(7) | {"x": jnp.full((7, SIZES[0]), jnp.nan)}
    with pytest.raises(ValueError, match="layer0/kernel"):
        exact.matrix(loss, space, bad, batch_size=3)
