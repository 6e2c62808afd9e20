"""SuPar: what wide and sparse layers compute is as large as in the base network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsparse import initializers, masks

WIDTHS = {"wide": 4, "sparse": 1, "wide and sparse": 4}
DENSITIES = {"wide": 1.0, "sparse": 0.1, "wide and sparse": 0.05}
BASE = 200  # units; 3 inputs of the network and 2 outputs


def shapes(width: int) -> dict[str, Any]:
    sizes = {"a": (3, width), "b": (width, width), "c": (width, 2)}
    return {name: {"kernel": size, "bias": size[1:]} for name, size in sizes.items()}


def params(width: int, seed: int = 0) -> Any:
    draw = np.random.default_rng(seed).normal
    return jax.tree.map(
        lambda shape: jnp.asarray(draw(size=shape).astype(np.float32)),
        shapes(width),
        is_leaf=lambda node: isinstance(node, tuple),
    )


def ticket(width: int, density: float) -> Any:
    """Masks of the middle layer."""
    some = np.random.default_rng(1).random((width, width)) < density
    held = {name: {"kernel": None, "bias": None} for name in "abc"}
    return held | {"b": {"kernel": jnp.asarray(some), "bias": None}}


@pytest.mark.parametrize("case", WIDTHS)
def test_factors_are_those_of_the_table(case: str) -> None:
    width, density = BASE * WIDTHS[case], DENSITIES[case]
    mask = ticket(width, density)
    found = initializers.supar(params(width), mask, base=params(BASE))
    growth = WIDTHS[case] * float(np.mean(np.asarray(mask["b"]["kernel"])))
    wanted = {
        "a": (1, 1),
        "b": (growth**-0.5, 1 / growth),
        "c": (1 / WIDTHS[case], 1 / WIDTHS[case]),
    }
    for name, pair in wanted.items():
        got = [float(tree[name]["kernel"]) for tree in found]
        np.testing.assert_allclose(got, pair, rtol=1e-6)
        assert [float(tree[name]["bias"]) for tree in found] == [1, 1]


def change(width: int, mask: Any, factors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of activations at initialization, and of their change by a step of Adam."""
    weights = jax.tree.map(jnp.multiply, params(width), factors.init)
    weights = masks.apply(mask, weights)
    inputs = jnp.asarray(np.random.default_rng(2).normal(size=(1, 3)), jnp.float32)

    def layers(weights: Any) -> list[Any]:
        first = jax.nn.relu(inputs @ weights["a"]["kernel"])
        second = jax.nn.relu(first @ weights["b"]["kernel"] / BASE**0.5)
        return [first, second, second @ weights["c"]["kernel"] / BASE**0.5]

    def loss(weights: Any) -> Any:
        return jnp.sum(layers(weights)[-1])

    tx = optax.chain(
        optax.adam(1e-4), initializers.scale_updates(factors.learning_rate)
    )
    grads = masks.apply(mask, jax.grad(loss)(weights))
    updates, _ = tx.update(grads, tx.init(weights), weights)
    after = layers(optax.apply_updates(weights, masks.apply(mask, updates)))
    before = layers(weights)
    pairs = zip(after, before, strict=True)
    moved = [np.sqrt(np.mean(np.square(a - b))) for a, b in pairs]
    return np.array([np.sqrt(np.mean(np.square(x))) for x in before]), np.array(moved)


@pytest.mark.parametrize("case", ["sparse", "wide and sparse"])
def test_activations_and_their_changes_keep_their_size(case: str) -> None:
    """Up to chance; without the factors, a change is at least e times another."""
    width, mask = BASE * WIDTHS[case], ticket(BASE * WIDTHS[case], DENSITIES[case])
    like = params(BASE)
    dense = masks.tree_map(lambda m: jnp.ones((BASE, BASE), bool), mask)
    base = change(BASE, dense, initializers.supar(like, dense))
    found = initializers.supar(params(width), mask, base=like)
    sizes, moved = change(width, mask, found)
    np.testing.assert_allclose(sizes[:2], base[0][:2], rtol=0.3)
    np.testing.assert_allclose(moved, base[1], rtol=0.45)
    plain = jax.tree.map(jnp.ones_like, found)
    assert (abs(np.log(change(width, mask, plain)[1][1:] / base[1][1:])) > 1).any()


def test_layers_without_active_weights_keep_finite_updates() -> None:
    mask, like = ticket(6, 0.0), params(6)
    assert not mask["b"]["kernel"].any()
    found = initializers.supar(like, mask, base=params(3))
    assert [float(tree["b"]["kernel"]) for tree in found] == [1, 1]
    assert float(found.init["c"]["kernel"]) == 0.5  # layers beside it are as before
    scale = initializers.scale_updates(found.learning_rate)
    zeros = jax.tree.map(jnp.zeros_like, like)
    updates, _ = scale.update(zeros, scale.init(like))
    assert all(np.array_equal(leaf, 0 * leaf) for leaf in jax.tree.leaves(updates))


def test_masks_of_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="b/kernel"):
        initializers.supar(params(8), ticket(6, 0.5))
