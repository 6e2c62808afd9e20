"""Norms of gradients over what there is, and signals sent through networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse import masks, models
from jaxsparse.analysis import gradient_flow


def make(seed: int = 0, dtype: str = "float32") -> tuple[dict, dict]:
    draw = np.random.default_rng(seed)
    shapes = {"a": (5, 3), "b": (3, 2, 4, 2)}
    params = {
        name: {
            "kernel": jnp.asarray(draw.standard_normal(shape), dtype),
            "bias": jnp.asarray(draw.standard_normal(shape[-1]), dtype),
        }
        for name, shape in shapes.items()
    }
    held = {
        name: {"kernel": jnp.asarray(draw.random(shape) < 0.4), "bias": None}
        for name, shape in shapes.items()
    }
    return params, held


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), masked_only=st.booleans())
def test_norms_are_those_of_a_loop_over_weights(seed: int, masked_only: bool) -> None:
    grads, held = make(seed)
    total, layers = 0.0, {}
    for layer, leaves in grads.items():
        for name, leaf in leaves.items():
            if masked_only and name == "bias":
                continue
            mask = held[layer][name]
            keep = np.ones(leaf.shape, bool) if mask is None else np.asarray(mask)
            found = sum(float(x) ** 2 for x in np.asarray(leaf)[keep])
            total += found
            layers[f"{layer}/{name}"] = found**0.5
    flow = gradient_flow.measure(grads, held, masked_only=masked_only)
    assert flow.norm == pytest.approx(total**0.5, rel=1e-6)
    assert {k: float(v) for k, v in flow.layers.items()} == pytest.approx(layers)
    decrease = gradient_flow.first_order_decrease(flow, learning_rate=0.1)
    assert decrease == pytest.approx(0.1 * total, rel=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_effective_gradient_flow_averages_the_layers(order: int) -> None:
    grads, held = make()
    norms = []
    for layer, leaves in grads.items():
        kept = np.asarray(leaves["kernel"])[np.asarray(held[layer]["kernel"])]
        norms.append(np.linalg.norm(kept, order))
    found = gradient_flow.effective_gradient_flow(grads, held, order=order)
    assert found == pytest.approx(np.mean(norms), rel=1e-6)
    every = gradient_flow.effective_gradient_flow(
        grads, held, order=order, masked_only=False
    )
    norms += [np.linalg.norm(leaves["bias"], order) for leaves in grads.values()]
    assert every == pytest.approx(np.mean(norms), rel=1e-6)


def test_other_orders_are_refused() -> None:
    with pytest.raises(ValueError, match="order: expected 1 or 2, got 3"):
        gradient_flow.effective_gradient_flow(*make(), order=3)


def test_a_bfloat16_gradient_is_summed_in_float32() -> None:
    count = 4096  # in bfloat16 a sum of ones stops at 256
    grads = {"kernel": jnp.ones((count, 4), jnp.bfloat16)}
    held = {"kernel": jnp.ones((count, 4), bool)}
    assert gradient_flow.measure(grads, held).norm == 128.0


def quadratic(params: dict, batch: jax.Array) -> jax.Array:
    return sum(jnp.sum(batch * (leaf - 1) ** 2) / 2 for leaf in jax.tree.leaves(params))


def test_the_gradient_is_zero_where_there_is_nothing() -> None:
    params, held = make()
    params = masks.apply(held, params)
    grads = gradient_flow.gradient(quadratic, params, held, jnp.float32(2))
    for layer, leaves in grads.items():
        mask = np.asarray(held[layer]["kernel"])
        got, weights = (np.asarray(t["kernel"]) for t in (leaves, params[layer]))
        assert not np.any(got[~mask])
        np.testing.assert_allclose(got[mask], 2 * (weights[mask] - 1), rtol=1e-6)
        np.testing.assert_allclose(leaves["bias"], 2 * (params[layer]["bias"] - 1))


def test_a_change_counts_new_weights_as_zero_and_the_others_as_they_are() -> None:
    before = {"kernel": jnp.asarray([[True, False, True]])}
    after = {"kernel": jnp.asarray([[True, True, False]])}
    params = {"kernel": jnp.asarray([[4.0, 0.0, 13.0]])}
    found = gradient_flow.change(quadratic, params, before, after, jnp.float32(1))
    # Gradients w - 1: (3, 12) before, (3, -1) after.
    assert found == pytest.approx(10**0.5 - 153**0.5)
    same = gradient_flow.change(quadratic, params, before, before, jnp.float32(1))
    assert same == 0.0


def test_everything_works_under_jit_and_vmap() -> None:
    trees = [make(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def one(params: dict, held: dict) -> jax.Array:
        grads = gradient_flow.gradient(quadratic, params, held, jnp.float32(1))
        return gradient_flow.measure(grads, held).norm

    each = [one(*tree) for tree in trees]
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(*stacked), each, rtol=1e-6)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Dense(64, name="first")(inputs)
        return nn.Dense(7, name="second")(x)


def test_signals_have_the_deviation_that_weights_give_them() -> None:
    model = Linear()
    keys = jax.random.split(jax.random.key(0), 3)
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(keys[0], jnp.ones((1, 50)))["params"]
    examples = 20_000
    found = gradient_flow.propagate(
        gradient_flow.captured(model), params, (50,), examples=examples, key=keys[1]
    )
    first = np.asarray(params["first"]["kernel"], np.float64)
    both = first @ np.asarray(params["second"]["kernel"], np.float64)
    # The relative error of a deviation is 1 / sqrt(2 n); six of them for 71 neurons.
    slack = 6 / (2 * examples) ** 0.5
    wanted = {"first": first, "second": both}
    assert found.neurons.keys() == wanted.keys()
    for name, product in wanted.items():
        stds = np.linalg.norm(product, axis=0)
        np.testing.assert_allclose(found.neurons[name], stds, rtol=slack)
        every = np.sqrt(np.mean(stds**2))
        assert found.layers[name] == pytest.approx(every, rel=slack)
    assert found.output == found.layers["second"]


def test_signals_go_through_convolutions_place_by_place() -> None:
    model = models.LeNet5(conv_channels=(2, 3), features=(5, 4))
    key = jax.random.key(0)
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(key, jnp.ones((1, 16, 16, 1)))["params"]
    found = gradient_flow.propagate(
        gradient_flow.captured(model), params, (16, 16, 1), key=jax.random.key(1)
    )
    shapes = {name: leaf.shape for name, leaf in found.neurons.items()}
    sizes = {"conv1": (2,), "conv2": (3,), "dense1": (5,), "dense2": (4,)}
    assert shapes == sizes | {"head": (10,)}
    inside = np.linalg.norm(
        np.asarray(params["conv1"]["kernel"]).reshape(-1, 2), axis=0
    )
    # Padding takes away from the border, so the whole has less than the inside.
    assert np.all(np.asarray(found.neurons["conv1"]) < 1.05 * inside)
    assert np.all(np.asarray(found.neurons["conv1"]) > 0.7 * inside)
