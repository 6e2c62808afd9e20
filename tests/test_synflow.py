"""SynFlow against closed forms and exact fractions, in deep networks too."""

import functools
from fractions import Fraction
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_mlp import SIZES, apply, every, mlp, some_masks

from jaxsparse import masks, prune, scores
from jaxsparse.types import Masks, Params


def kernels(tree: Any) -> list[np.ndarray]:
    return [np.asarray(tree[name]["kernel"]) for name in sorted(tree)]


def chain(widths: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> Params:
    """A chain of layers without biases, drawn and named so that names sort."""
    rng = np.random.default_rng(seed)
    return {
        f"layer{i:03}": {"kernel": jnp.asarray(scale * rng.normal(size=s), jnp.float32)}
        for i, s in enumerate(zip(widths[:-1], widths[1:], strict=True))
    }


def follow(params: Params, x: Any) -> Any:
    for i, name in enumerate(sorted(params)):
        x = (jnp.maximum(x, 0.0) if i else x) @ params[name]["kernel"]
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
    flow = jax.jit(flow_of(widths))  # one program for both masks
    result = flow(params, mask)
    for got, wanted in zip(kernels(result), closed_form(params, mask), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
    dense = kernels(flow(params, every(params)))
    totals = [leaf.sum() for leaf in dense]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-12)
    for into, out in zip(dense[:-1], dense[1:], strict=True):
        np.testing.assert_allclose(into.sum(axis=0), out.sum(axis=1), rtol=1e-12)


def test_synflow_takes_biases_by_absolute_value() -> None:
    params = mlp()
    act = functools.partial(apply, act=jax.nn.relu)
    flow = jax.jit(lambda p, m: scores.synflow(act, p, m, (1, SIZES[0])))
    result = flow(params, every(params))
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


def test_synflow_of_a_flow_beyond_float32_is_exact() -> None:
    widths = (4,) * 9
    params = chain(widths, scale=1e10)
    flow = np.ones((1, 4), np.float32)
    with np.errstate(over="ignore"):
        for kernel in kernels(params):
            flow = flow @ abs(kernel)
    assert not np.isfinite(flow).any()
    result = flow_of(widths)(params, every(params))
    wanted = closed_form(params, every(params))
    for got, expected in zip(kernels(result), wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11)
    ticket = prune.prune(params, 0.7, score=lambda params, mask: result)
    flat = np.concatenate([leaf.reshape(-1) for leaf in wanted])
    kept = np.concatenate([leaf.reshape(-1) for leaf in kernels(ticket)])
    assert kept.sum() == 38  # 38.4
    assert flat[kept].min() >= flat[~kept].max() * (1 - 1e-11)


LONG = (4,) * 13


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_synflow_beyond_float64_is_exact_up_to_a_factor(scale: float) -> None:
    """Against a slow reference in exact fractions."""
    params = chain(LONG, scale=scale)
    mask = every(params)
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
    flow = flow_of(LONG)
    # Once eagerly, where it looks whether scores underflow.
    result = (flow if scale < 1 else jax.jit(flow))(params, mask)
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
    params = chain(LONG, scale=1e-30)
    for layer in params.values():
        layer["bias"] = jnp.asarray(np.ones(4, np.float32))

    def apply(params: Params, x: Any) -> Any:
        for name in sorted(params):
            x = jax.nn.relu(x @ params[name]["kernel"] + params[name]["bias"][None])
        return x

    everything = every(params)
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
    size = masks.size(every(params))
    for left in (30, 5):  # five layers, so that five weights make one path
        ticket = prune.prune_iteratively(params, 1 - left / size, score=flow_of(WIDTHS))
        assert masks.num_active(ticket) == left
        kept = [layer.num_active for layer in masks.layer_counts(ticket).values()]
        assert min(kept) > 0
        flow = np.ones((1, WIDTHS[0]))
        for kernel, mask in zip(kernels(params), kernels(ticket), strict=True):
            flow = flow @ np.where(mask, abs(kernel), 0)
        assert flow.sum() > 0


def test_one_shot_collapses_layers_where_iterative_snip_does_less() -> None:
    params = uneven()
    x = np.random.default_rng(1).normal(size=(1, 64, WIDTHS[0])).astype(np.float32)
    loss = lambda p, x: jnp.mean(follow(p, x) ** 2)  # noqa: E731
    snip = jax.jit(functools.partial(scores.snip, loss, batches=x))

    def least(ticket: Masks) -> int:
        return min(layer.num_active for layer in masks.layer_counts(ticket).values())

    sparsity = 1 - 30 / masks.size(every(params))
    for score in (scores.magnitude, snip):
        with pytest.warns(UserWarning, match="expected active weights .*got none in"):
            assert least(prune.prune(params, sparsity, score=score)) == 0
    iterative = prune.prune_iteratively(params, sparsity, score=snip)
    assert masks.num_active(iterative) == 30 and least(iterative) > 0
