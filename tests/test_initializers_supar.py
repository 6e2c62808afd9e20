"""SuPar: what wide and sparse layers compute is as large as in the base network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsparse import initializers, masks, transforms

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


def test_an_optimizer_divides_by_the_density_of_the_masks_of_each_step() -> None:
    weights, grads = params(12), params(12, seed=3)

    def step(last: optax.GradientTransformation, mask: Any) -> Any:
        tx = transforms.fixed(optax.chain(optax.adam(0.1), last), masks=ticket(12, 0.5))
        state = transforms.replace_masks(tx.init(weights), mask)
        return tx.update(grads, state, masks.apply(mask, weights))[0]

    for density in (0.5, 0.25):  # the masks of the start, and others
        mask = ticket(12, density)
        rates = initializers.supar(weights, mask).learning_rate
        wanted = step(initializers.scale_updates(rates), mask)
        got = step(transforms.scale_by_density(), mask)
        jax.tree.map(np.testing.assert_allclose, got, wanted)
    plain = step(optax.identity(), ticket(12, 0.25))
    fourfold = step(transforms.scale_by_density(), ticket(12, 0.25))
    middle = np.asarray(ticket(12, 0.25)["b"]["kernel"])
    ratio = fourfold["b"]["kernel"][middle] / plain["b"]["kernel"][middle]
    np.testing.assert_allclose(ratio, 1 / middle.mean(), rtol=1e-6)
    np.testing.assert_array_equal(fourfold["a"]["kernel"], plain["a"]["kernel"])


def test_only_kernels_with_active_weights_are_divided() -> None:
    grads, scale = params(6), transforms.scale_by_density()
    some = jnp.arange(6) < 2
    masks_of = {"a": None, "b": jnp.zeros((6, 6), bool), "c": jnp.arange(12) < 3}
    given = {
        name: {
            "kernel": None
            if mask is None
            else mask.reshape(grads[name]["kernel"].shape)
        }
        | {"bias": some if name == "b" else None}
        for name, mask in masks_of.items()
    }
    updates, _ = scale.update(grads, scale.init(grads), masks=given)
    np.testing.assert_array_equal(updates["c"]["kernel"], 4 * grads["c"]["kernel"])
    updates["c"]["kernel"] = grads["c"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, updates, grads)


def test_densities_of_a_schedule_are_followed_by_replicates_in_one_program() -> None:
    """Masks get sparser at every step, in steps that leave the weights as they are."""
    inner = optax.chain(optax.scale(-1.0), transforms.scale_by_density())
    tx = transforms.rigl(inner, sparsity=0.75, update_every=2, begin_step=0, end_step=9)
    weights = jax.tree.map(lambda *two: jnp.stack(two), params(8), params(8, seed=1))

    @jax.jit
    @jax.vmap
    def two_steps(weights: Any) -> Any:
        state, moves = tx.init(weights), []
        for _ in range(2):
            updates, state = tx.update(weights, state, weights)
            moves.append(updates["b"]["kernel"])
        return moves, transforms.get_masks(state)["b"]["kernel"], weights["b"]["kernel"]

    (skipped, made), mask, weight = (
        map(np.asarray, two_steps(weights)[0]),
        *(np.asarray(part) for part in two_steps(weights)[1:]),
    )
    assert mask.shape == (2, 8, 8) and not (mask[0] == mask[1]).all()
    for r in range(2):
        kept = mask[r]
        assert not skipped[r][kept].any()
        wanted = -weight[r][kept] / kept.mean()
        np.testing.assert_allclose(made[r][kept], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: inner,
        lambda inner: transforms.straight_through(inner, sparsity=0.5),
        lambda inner: transforms.fixed(
            transforms.reparameterize(inner, transforms.sign_in())
        ),
    ],
    ids=["no method", "dense weights", "factors"],
)
def test_an_optimizer_without_masks_is_refused(wrap: Any) -> None:
    tx, weights = wrap(transforms.scale_by_density()), params(4)
    state = jax.eval_shape(tx.init, weights)
    with pytest.raises(ValueError, match="masks: expected the masks of a sparse"):
        jax.eval_shape(tx.update, weights, state, weights)
