import functools
from fractions import Fraction
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks, prune, scores
from jaxsparse.types import Masks, Params

SIZES = (5, 6, 4, 3)


def mlp(key: int = 0, dtype: Any = jnp.float32) -> Params:
    draws = jax.random.split(jax.random.key(key), 2 * len(SIZES))
    return {
        f"layer{i}": {
            "kernel": jax.random.normal(draws[2 * i], (SIZES[i], SIZES[i + 1]), dtype),
            "bias": jax.random.normal(draws[2 * i + 1], SIZES[i + 1], dtype),
        }
        for i in range(len(SIZES) - 1)
    }


def apply(params: Params, x: Any, act: Any = jnp.tanh) -> Any:
    for i in range(len(params)):
        layer = params[f"layer{i}"]
        x = act(x) if i else x
        x = x @ layer["kernel"] + jnp.expand_dims(layer["bias"], 0)
    return x


def loss(params: Params, batch: Any) -> Any:
    return jnp.mean((apply(params, batch["x"]) - batch["y"]) ** 2)


def batches(count: int, size: int = 8, dtype: Any = jnp.float32) -> Any:
    first, second = jax.random.split(jax.random.key(9))
    return {
        "x": jax.random.normal(first, (count, size, SIZES[0]), dtype),
        "y": jax.random.normal(second, (count, size, SIZES[-1]), dtype),
    }


def some_masks(params: Params, key: int = 5) -> Masks:
    worth = scores.random(masks.ones(params), key=jax.random.key(key))
    return jax.tree.map(lambda leaf: leaf > 0.3, worth)


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
        result = scores.snip(loss, params, mask, data)

        @jax.jit
        def total(gates: Any) -> Any:
            gated = {
                name: {"kernel": gates[name] * layer["kernel"], "bias": layer["bias"]}
                for name, layer in params.items()
            }
            parts = [loss(gated, jax.tree.map(lambda x: x[i], data)) for i in range(3)]  # noqa: B023
            return sum(parts) / 3

        gates = {name: mask[name]["kernel"].astype(jnp.float64) for name in mask}
        for name in gates:
            for place in np.ndindex(gates[name].shape):
                up, down = (
                    total(gates | {name: gates[name].at[place].add(step)})
                    for step in (1e-5, -1e-5)
                )
                slope = abs(float(up - down) / 2e-5)
                got = float(result[name]["kernel"][place])
                assert abs(got - slope) < 1e-8, (name, place)
    assert result["layer0"]["bias"] is None
    assert result["layer0"]["kernel"].dtype == jnp.float64


@pytest.mark.parametrize("absolute", [False, True])
def test_grasp_is_weight_times_hessian_times_gradient(absolute: bool) -> None:
    with jax.enable_x64(True):
        params, data = mlp(dtype=jnp.float64), batches(3, dtype=jnp.float64)
        mask = some_masks(params)
        result = scores.grasp(loss, params, mask, data, absolute=absolute)
        everything = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), data)
        masked = masks.apply(mask, params)
        flat, unravel = jax.flatten_util.ravel_pytree(
            {name: masked[name]["kernel"] for name in masked}
        )

        def of_kernels(flat: Any) -> Any:
            found = unravel(flat)
            whole = {n: masked[n] | {"kernel": found[n]} for n in masked}
            return loss(whole, everything)

        product = jax.hessian(of_kernels)(flat) @ jax.grad(of_kernels)(flat)
        product = unravel(product)
        for name in product:
            wanted = params[name]["kernel"] * product[name]
            wanted = abs(wanted) if absolute else wanted
            got = result[name]["kernel"]
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-14)
    assert result["layer0"]["bias"] is None


@pytest.mark.parametrize("score", [scores.snip, scores.grasp])
def test_equal_batches_are_one_big_batch(score: Any) -> None:
    params, data = mlp(), batches(4)
    big = jax.tree.map(lambda x: x.reshape(1, -1, x.shape[-1]), data)
    mask = some_masks(params)
    many, one = (score(loss, params, mask, given) for given in (data, big))
    for a, b in zip(kernels(many), kernels(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SALIENCIES)
def test_weights_outside_the_mask_score_what_they_would_bring(name: str) -> None:
    params = mlp()
    mask = some_masks(params)
    result = SALIENCIES[name](params, mask)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    outside = masks.tree_map(lambda m, a, b: jnp.where(m, a, b), mask, params, doubled)
    moved = {n: params[n] | {"kernel": outside[n]["kernel"]} for n in params}
    again = SALIENCIES[name](moved, mask)
    for was, now, kept in zip(
        kernels(result), kernels(again), kernels(mask), strict=True
    ):
        assert np.all(np.isfinite(was)) and np.any(was[~kept] != 0)
        np.testing.assert_allclose(now, np.where(kept, was, 2 * was), rtol=1e-5)


@pytest.mark.parametrize("name", SALIENCIES)
def test_vmap_under_jit_equals_a_loop(name: str) -> None:
    replicates = [(mlp(i), some_masks(mlp(i), i)) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *replicates)
    together = jax.jit(jax.vmap(SALIENCIES[name]))(*stacked)
    for i, (params, mask) in enumerate(replicates):
        alone = SALIENCIES[name](params, mask)
        for a, b in zip(kernels(together), kernels(alone), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("score", [scores.snip, scores.grasp])
def test_narrow_weights_have_float32_scores(score: Any) -> None:
    params = mlp(dtype=jnp.bfloat16)
    result = score(loss, params, masks.ones(params), batches(2, dtype=jnp.bfloat16))
    exact = score(loss, mlp(), masks.ones(mlp()), batches(2))
    for got, near in zip(kernels(result), kernels(exact), strict=True):
        assert got.dtype == np.float32 and np.all(np.isfinite(got))
        assert got.shape == near.shape


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
        score(loss, mlp(), masks.ones(mlp()), data)


def chain(widths: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> Params:
    """A chain of layers without biases, drawn and named so that names sort."""
    rng = np.random.default_rng(seed)
    return {
        f"layer{i:03}": {"kernel": jnp.asarray(scale * rng.normal(size=s), jnp.float32)}
        for i, s in enumerate(zip(widths[:-1], widths[1:], strict=True))
    }


def follow(params: Params, x: Any) -> Any:
    for i, name in enumerate(sorted(params)):
        x = (jax.nn.relu(x) if i else x) @ params[name]["kernel"]
    return x


def flow_of(widths: tuple[int, ...]) -> Any:
    return lambda p, m: scores.synflow(follow, p, m, (1, widths[0]))


def closed_form(params: Params, mask: Masks) -> list[np.ndarray]:
    """What comes to each neuron, times what goes on from it, in numpy."""
    sizes = [abs(k.astype(np.float64)) for k in kernels(params)]
    thin = [np.where(m, s, 0.0) for s, m in zip(sizes, kernels(mask), strict=True)]
    before, after = [np.ones(len(thin[0]))], [np.ones(thin[-1].shape[1])]
    for kernel in thin[:-1]:
        before.append(before[-1] @ kernel)
    for kernel in thin[:0:-1]:
        after.insert(0, kernel @ after[0])
    return [s * np.outer(b, a) for s, b, a in zip(sizes, before, after, strict=True)]


def test_synflow_of_a_chain_in_closed_form_and_conserved() -> None:
    widths = (7, 9, 3, 8, 2)
    params = chain(widths)
    mask = some_masks(params)
    result = flow_of(widths)(params, mask)
    for got, wanted in zip(kernels(result), closed_form(params, mask), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
    dense = kernels(flow_of(widths)(params, masks.ones(params)))
    totals = [leaf.sum() for leaf in dense]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-12)
    for into, out in zip(dense[:-1], dense[1:], strict=True):
        np.testing.assert_allclose(into.sum(axis=0), out.sum(axis=1), rtol=1e-12)


def test_synflow_takes_biases_by_absolute_value() -> None:
    params = mlp()
    act = functools.partial(apply, act=jax.nn.relu)
    result = scores.synflow(act, params, masks.ones(params), (1, SIZES[0]))
    w = [abs(kernel.astype(np.float64)) for kernel in kernels(params)]
    b = [abs(np.asarray(params[n]["bias"], np.float64)) for n in sorted(params)]
    first = np.ones(SIZES[0]) @ w[0] + b[0]
    second = first @ w[1] + b[1]
    ones = np.ones(SIZES[-1])
    wanted = [
        w[0] * np.outer(np.ones(SIZES[0]), w[1] @ w[2] @ ones),
        w[1] * np.outer(first, w[2] @ ones),
        w[2] * np.outer(second, ones),
    ]
    for got, expected in zip(kernels(result), wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_synflow_of_110_layers_is_beyond_float32_and_exact() -> None:
    widths = (4,) * 111
    params = chain(widths, scale=10.0)
    sizes = jax.tree.map(jnp.abs, params)
    assert not np.isfinite(follow(sizes, jnp.ones((1, 4)))).any()
    result = flow_of(widths)(params, masks.ones(params))
    wanted = closed_form(params, masks.ones(params))
    for got, expected in zip(kernels(result), wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11)
    ticket = prune.prune(params, 0.7, score=flow_of(widths))
    flat = np.concatenate([leaf.reshape(-1) for leaf in wanted])
    kept = np.concatenate([leaf.reshape(-1) for leaf in kernels(ticket)])
    assert kept.sum() == 528
    assert flat[kept].min() >= flat[~kept].max() * (1 - 1e-11)


@pytest.mark.parametrize("scale", [1e-8, 1e30])
def test_synflow_beyond_float64_is_exact_up_to_a_factor(scale: float) -> None:
    """Against a slow reference in exact fractions."""
    params = chain((4,) * 61, scale=scale)
    mask = masks.ones(params)
    thin = [
        np.vectorize(Fraction)(np.where(m, abs(k), 0).astype(np.float64))
        for k, m in zip(kernels(params), kernels(mask), strict=True)
    ]
    sizes = [np.vectorize(Fraction)(abs(k).astype(np.float64)) for k in kernels(params)]
    before, after = [np.array([Fraction(1)] * 4)], [np.array([Fraction(1)] * 4)]
    for kernel in thin[:-1]:
        before.append(before[-1] @ kernel)
    for kernel in thin[:0:-1]:
        after.insert(0, kernel @ after[0])
    wanted = [s * np.outer(b, a) for s, b, a in zip(sizes, before, after, strict=True)]
    whole = sum(each.sum() for each in wanted)
    assert whole > 0 and not 1e-300 < whole < Fraction(10) ** 300
    flow = flow_of((4,) * 61)
    for result in (flow(params, mask), jax.jit(flow)(params, mask)):
        total = sum(leaf.sum() for leaf in kernels(result))
        for got, expected in zip(kernels(result), wanted, strict=True):
            shares = (expected / whole).astype(np.float64)
            np.testing.assert_allclose(got / total, shares, rtol=1e-10)


def test_synflow_where_layers_cannot_be_rescaled_is_plain_or_refused() -> None:
    """A second path is not proportional to the weights of the first."""
    params = {"v": jnp.ones((4, 4)), "w": jnp.ones((4, 4))}
    everything = jax.tree.map(lambda leaf: leaf > 0, params)

    def apply(params: Params, x: Any, by: float = 1e-150) -> Any:
        return (x @ params["w"] * by) @ params["w"] * by + x @ params["v"] * by * by

    result = scores.synflow(apply, params, everything, (1, 4))
    np.testing.assert_allclose(np.asarray(result["v"]), 1e-300, rtol=1e-9)
    grow = functools.partial(apply, by=1e200)
    with pytest.raises(
        ValueError, match="float64 overflow; .*skip connections.* normalize in"
    ):
        scores.synflow(grow, params, everything, (1, 4))


def test_synflow_that_biases_make_underflow_warns() -> None:
    params = chain((4,) * 61, scale=1e-8)
    for layer in params.values():
        layer["bias"] = jnp.ones(4)

    def apply(params: Params, x: Any) -> Any:
        for name in sorted(params):
            x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"][None])
        return x

    everything = masks.ones(params)
    with pytest.warns(
        UserWarning, match="for nonzero weights, got 0 in .*layer000"
    ) as said:
        scores.synflow(apply, params, everything, (1, 4))
    assert len(said) == 1


WIDTHS = (30, 20, 20, 20, 20, 5)


def uneven() -> Params:
    """A chain of which one layer is far smaller in magnitude than the others."""
    params = chain(WIDTHS, seed=3)
    params["layer002"] = {"kernel": params["layer002"]["kernel"] / 100}
    return params


def test_iterative_synflow_never_collapses_a_layer() -> None:
    params = uneven()
    size = masks.size(masks.ones(params))
    for left in (200, 30, 5):  # five layers, so that five weights make one path
        ticket = prune.prune_iteratively(params, 1 - left / size, score=flow_of(WIDTHS))
        assert masks.num_active(ticket) == left
        kept = [layer.num_active for layer in masks.layer_counts(ticket).values()]
        assert min(kept) > 0
        sizes = jax.tree.map(jnp.abs, masks.apply(ticket, params))
        assert float(jnp.sum(follow(sizes, jnp.ones((1, WIDTHS[0]))))) > 0


def test_one_shot_collapses_layers_where_iterative_snip_does_less() -> None:
    params = uneven()
    x = jax.random.normal(jax.random.key(1), (1, 64, WIDTHS[0]))
    snip = functools.partial(
        scores.snip, lambda p, x: jnp.mean(follow(p, x) ** 2), batches=x
    )

    def least(ticket: Masks) -> int:
        return min(layer.num_active for layer in masks.layer_counts(ticket).values())

    sparsity = 1 - 30 / masks.size(masks.ones(params))
    for score in (scores.magnitude, snip):
        with pytest.warns(UserWarning, match="expected active weights .*got none in"):
            assert least(prune.prune(params, sparsity, score=score)) == 0
    iterative = prune.prune_iteratively(params, sparsity, score=snip)
    assert masks.num_active(iterative) == 30 and least(iterative) > 0
