"""SNIP and GraSP against the derivatives that they are, and what all have in common."""

from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_mlp import SIZES, apply, every, mlp, some_masks

from jaxsparse import masks, scores
from jaxsparse.types import Params


def loss(params: Params, batch: Any) -> Any:
    return jnp.mean((apply(params, batch["x"]) - batch["y"]) ** 2)


def batches(count: int, size: int = 8, dtype: Any = jnp.float32) -> Any:
    draw = np.random.default_rng(9)
    return {
        "x": jnp.asarray(draw.normal(size=(count, size, SIZES[0])).astype(dtype)),
        "y": jnp.asarray(draw.normal(size=(count, size, SIZES[-1])).astype(dtype)),
    }


def kernels(tree: Any) -> list[np.ndarray]:
    return [np.asarray(tree[name]["kernel"]) for name in sorted(tree)]


SALIENCIES = {
    "snip": lambda p, m: scores.snip(loss, p, m, batches(2)),
    "grasp": lambda p, m: scores.grasp(loss, p, m, batches(2)),
    "synflow": lambda p, m: scores.synflow(apply, p, m, (1, SIZES[0])),
}


def test_snip_is_the_derivative_of_the_loss_by_each_connection() -> None:
    with jax.enable_x64(True):
        params, data = mlp(dtype=jnp.float64), batches(3, dtype=jnp.float64)
        mask = some_masks(params)
        program = jax.jit(lambda p, m, d: scores.snip(loss, p, m, d))
        result = jax.tree.map(np.asarray, program(params, mask, data))

        @jax.jit
        def total(gates: Any) -> Any:
            gated = {
                name: {"kernel": gates[name] * layer["kernel"], "bias": layer["bias"]}
                for name, layer in params.items()
            }
            parts = [loss(gated, jax.tree.map(lambda x: x[i], data)) for i in range(3)]  # noqa: B023
            return sum(parts) / 3

        gates = {name: np.array(mask[name]["kernel"], np.float64) for name in mask}
        for name in gates:
            for place in np.ndindex(gates[name].shape):
                sides = []
                for step in (1e-5, -1e-5):
                    moved = gates[name].copy()
                    moved[place] += step
                    sides.append(total(gates | {name: moved}))
                up, down = sides
                slope = abs(float(up - down) / 2e-5)
                got = float(result[name]["kernel"][place])
                assert abs(got - slope) < 1e-8, (name, place)
    assert result["layer0"]["bias"] is None
    assert result["layer0"]["kernel"].dtype == jnp.float64


def test_grasp_is_weight_times_hessian_times_gradient() -> None:
    with jax.enable_x64(True):
        params, data = mlp(dtype=jnp.float64), batches(3, dtype=jnp.float64)
        mask = some_masks(params)
        both = jax.jit(
            lambda p, m, d: [
                scores.grasp(loss, p, m, d, absolute=absolute)
                for absolute in (False, True)
            ]
        )(params, mask, data)
        everything = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), data)
        masked = masks.apply(mask, params)
        flat, unravel = jax.flatten_util.ravel_pytree(
            {name: masked[name]["kernel"] for name in masked}
        )

        def of_kernels(flat: Any) -> Any:
            found = unravel(flat)
            whole = {n: masked[n] | {"kernel": found[n]} for n in masked}
            return loss(whole, everything)

        hessian, gradient = jax.jit(
            lambda flat: (jax.hessian(of_kernels)(flat), jax.grad(of_kernels)(flat))
        )(flat)
        product = unravel(jnp.asarray(np.asarray(hessian) @ np.asarray(gradient)))
        for name in product:
            wanted = np.asarray(params[name]["kernel"]) * np.asarray(product[name])
            for result, size in zip(both, (wanted, abs(wanted)), strict=True):
                got = result[name]["kernel"]
                np.testing.assert_allclose(got, size, rtol=1e-9, atol=1e-14)
    assert both[0]["layer0"]["bias"] is None


@pytest.mark.parametrize("score", [scores.snip, scores.grasp])
def test_equal_batches_are_one_big_batch(score: Any) -> None:
    """The scores of narrow weights are as wide as these, too."""
    params, data = mlp(), batches(4)
    narrow = [jax.tree.map(lambda x: x.astype("bfloat16"), t) for t in (params, data)]
    shapes = jax.eval_shape(lambda p, d: score(loss, p, every(params), d), *narrow)
    for leaf, kernel in zip(jax.tree.leaves(shapes), kernels(params), strict=True):
        assert (leaf.dtype, leaf.shape) == (np.float32, kernel.shape)
    big = jax.tree.map(lambda x: x.reshape(1, -1, x.shape[-1]), data)
    mask = some_masks(params)
    program = jax.jit(lambda p, m, d: score(loss, p, m, d))
    many, one = (program(params, mask, given) for given in (data, big))
    for a, b in zip(kernels(many), kernels(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SALIENCIES)
def test_vmap_under_jit_equals_a_loop(name: str) -> None:
    """Weights outside the mask score what they would bring: twice that if doubled."""
    replicates = [(mlp(i), some_masks(mlp(i), i)) for i in range(2)]
    (params, mask), _ = replicates
    moved = {
        name: layer
        | {"kernel": layer["kernel"] * jnp.where(mask[name]["kernel"], 1.0, 2.0)}
        for name, layer in params.items()
    }
    replicates.append((moved, mask))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *replicates)
    together = kernels(jax.jit(jax.vmap(SALIENCIES[name]))(*stacked))
    program = jax.jit(SALIENCIES[name])
    for i, (params, mask) in enumerate(replicates):
        for a, b in zip(together, kernels(program(params, mask)), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=1e-6)
    alone = [kernels(program(*replicates[i])) for i in (0, 2)]
    for was, now, kept in zip(*alone, kernels(replicates[0][1]), strict=True):
        assert np.all(np.isfinite(was)) and np.any(was[~kept] != 0)
        np.testing.assert_allclose(now, np.where(kept, was, 2 * was), rtol=1e-5)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"x": jnp.ones((0, 2))},
        {"x": jnp.ones((2, 2)), "y": jnp.ones((3, 2))},
        {"x": jnp.ones((2, 2)), "y": jnp.float32(1.0)},
        jnp.float32(1.0),
    ],
)
@pytest.mark.parametrize("score", [scores.snip, scores.grasp])
def test_what_is_no_batches_is_refused(score: Any, data: Any) -> None:
    with pytest.raises(ValueError, match="batches: expected leaves .*got shapes"):
        score(loss, mlp(), every(mlp()), data)
