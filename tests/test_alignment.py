"""Alignment: outputs stay, and a random permutation is found and undone."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import coupling, masks, models
from jaxsparse.coupling import Coupling, activations

X = jnp.asarray(np.random.default_rng(9).normal(size=(2, 8, 8, 3)), jnp.float32)


@functools.cache
def network(name: str) -> tuple[Any, Any, Coupling]:
    """The jitted forward pass, random parameters, and the coupled axes."""
    module = {
        "mlp": models.LeNet300100(features=(12, 9), classes=4),
        "residual": models.CifarResNet(8, width=4, classes=3),
        "attention": models.ViT(width=8, heads=2, depth=1, patch=4, classes=3),
    }[name]
    apply = functools.partial(module.apply, train=False)
    shapes = jax.eval_shape(
        functools.partial(module.init, train=False), jax.random.key(0), X[:1]
    )
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 + draw.random(leaf.shape), leaf.dtype), shapes
    )
    return jax.jit(apply), params, coupling.coupled_axes(apply, params, X[:1])


def random_orders(coupled: Coupling, seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.permutation(group.num_units) for group in coupled.groups]


@pytest.mark.parametrize("name", ["mlp", "residual", "attention"])
def test_a_permuted_network_is_aligned_exactly(name: str) -> None:
    apply, params, coupled = network(name)
    assert coupled.groups
    ticket = masks.ones(params["params"])
    ticket = masks.tree_map(
        lambda mask, leaf: leaf > jnp.median(leaf), ticket, params["params"]
    )
    orders = random_orders(coupled, 1)
    moved = coupling.permute(coupled, params, orders)
    moved_masks = coupling.permute(coupled, {"params": ticket}, orders)
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(moved), strict=True)
    ]
    assert sum(changed) > 3
    np.testing.assert_allclose(apply(moved, X), apply(params, X), rtol=1e-4)
    found = coupling.align(coupled, params, moved, moved_masks)
    for given, wanted in ((found.params, params), (found.masks["params"], ticket)):
        jax.tree.map(np.testing.assert_array_equal, given, wanted)
    for order, undone in zip(orders, found.permutations, strict=True):
        np.testing.assert_array_equal(order[undone], np.arange(len(order)))
    square = sum(np.vdot(a, a).astype(float) for a in jax.tree.leaves(params))
    assert found.similarity[1] == pytest.approx(square)
    assert found.similarity[0] < found.similarity[1]


@pytest.mark.parametrize("name", ["mlp", "residual", "attention"])
def test_a_permuted_network_is_found_by_its_activations(name: str) -> None:
    apply, params, coupled = network(name)
    # Kernels of both signs, so that units are neither dead nor nearly proportional.
    params = jax.tree.map(lambda leaf: leaf - (leaf.ndim > 1), params)
    weights = params["params"]
    ticket = {
        "params": masks.tree_map(lambda _, x: x > 0, masks.ones(weights), weights)
    }
    orders = random_orders(coupled, 2)
    moved = coupling.permute(coupled, params, orders)
    moved_masks = coupling.permute(coupled, ticket, orders)
    images = jnp.asarray(np.random.default_rng(5).normal(size=(24, 8, 8, 3)), X.dtype)
    found = coupling.align_activations(apply, params, moved, images, masks=moved_masks)
    for given, wanted in ((found.params, params), (found.masks, ticket)):
        jax.tree.map(np.testing.assert_array_equal, given, wanted)
    assert found.similarity[0] < 0.5 < 0.9 < found.similarity[1]


def test_activations_are_matched_as_well_as_by_trying_all() -> None:
    """Also where a unit is constant, whose correlation with all others is 0."""

    def apply(p: Any, x: Any) -> Any:
        return jax.nn.relu(x @ p["a"]) @ p["b"]

    draw = np.random.default_rng(4).normal
    one, other = (
        {"a": jnp.asarray(draw(size=(3, 5))), "b": jnp.asarray(draw(size=(5, 2)))}
        for _ in range(2)
    )
    other["a"] = other["a"].at[:, 2].set(0)
    x = jnp.asarray(draw(size=(40, 3)))
    found = coupling.align_activations(apply, one, other, x)
    first, second = (
        np.maximum(np.asarray(x, float) @ np.asarray(p["a"], float), 0)
        for p in (one, other)
    )

    def correlation(i: int, j: int) -> float:
        return 0.0 if j == 2 else float(np.corrcoef(first[:, i], second[:, j])[0, 1])

    table = np.array([[correlation(i, j) for j in range(5)] for i in range(5)])
    sums = {
        order: table[np.arange(5), list(order)].sum()
        for order in itertools.permutations(range(5))
    }
    assert tuple(found.permutations[0].tolist()) == max(sums, key=sums.__getitem__)
    ends = (np.trace(table) / 5, max(sums.values()) / 5)
    np.testing.assert_allclose(found.similarity, ends, atol=1e-5)


def test_networks_are_traced_once() -> None:
    traced = []

    def apply(p: Any, x: Any) -> Any:
        traced.append(x.shape)
        return jax.nn.relu(x @ p["a"]) @ p["b"]

    draw = np.random.default_rng(6).normal
    one, *others = (
        {"a": jnp.asarray(draw(size=(3, 5))), "b": jnp.asarray(draw(size=(5, 2)))}
        for _ in range(3)
    )
    x = jnp.asarray(draw(size=(40, 3)))
    match = activations.make_align(apply, one, x)
    found = [match(one, other, None).permutations[0].tolist() for other in others]
    assert traced == [x.shape]
    assert found[0] != found[1]
    for other, order in zip(others, found, strict=True):
        wanted = coupling.align_activations(apply, one, other, x)
        assert wanted.permutations[0].tolist() == order


def test_units_of_unlike_networks_are_assigned_as_well_as_by_trying_all() -> None:
    def apply(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["a"]) @ p["b"]

    draw = np.random.default_rng(3).normal
    one, other = (
        {"a": jnp.asarray(draw(size=(3, 5))), "b": jnp.asarray(draw(size=(5, 2)))}
        for _ in range(2)
    )
    coupled = coupling.coupled_axes(apply, one, jnp.ones((1, 3)))
    found = coupling.align(coupled, one, other)
    best = max(
        float(
            np.vdot(one["a"], other["a"][:, np.array(order)])
            + np.vdot(one["b"], other["b"][np.array(order)])
        )
        for order in itertools.permutations(range(5))
    )
    assert found.similarity[1] == pytest.approx(best, rel=1e-5)
    assert found.masks is None


def test_similarity_never_falls() -> None:
    _, params, coupled = network("residual")
    draw = np.random.default_rng(4)
    other = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), params
    )
    values = [
        coupling.align(coupled, params, other, sweeps=n).similarity for n in (1, 2, 9)
    ]
    assert values[0][0] <= values[0][1] <= values[1][1] <= values[2][1]


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ([], "expected one for each of 1 groups, got 0"),
        ([np.array([0, 0])], "group 0: expected each of the units 0 to 1 once"),
        ([np.array([0, 1, 2])], "group 0: expected each of the units 0 to 1 once"),
    ],
)
def test_wrong_permutations_are_refused(orders: Any, message: str) -> None:
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 1))}
    coupled = coupling.coupled_axes(
        lambda p, x: x @ p["a"] @ p["b"], params, jnp.ones((1, 3))
    )
    with pytest.raises(ValueError, match=message):
        coupling.permute(coupled, params, orders)
    with pytest.raises(ValueError, match="expected leaves such as a, which have coup"):
        coupling.permute(coupled, {"params": params}, [np.array([1, 0])])
    wide = params | {"a": jnp.ones((3, 4))}
    with pytest.raises(ValueError, match="a: expected a leaf of the same shape"):
        coupling.align(coupled, params, wide)
    with pytest.raises(ValueError, match="reference: a: expected 2 entries along"):
        coupling.align(coupled, wide, wide)
    with pytest.raises(ValueError, match="b: expected a leaf of the same shape"):
        coupling.align(coupled, params, {"a": params["a"]})
    with pytest.raises(ValueError, match="params: b: expected a leaf for each coupled"):
        coupling.align(coupled, {"a": params["a"]}, {"a": params["a"]})
    for ticket, name in (
        ({"zz": jnp.ones((3, 2), bool)}, "zz"),
        ({"params": {"a": jnp.ones((3, 2), bool)}}, "params/a"),
        ({"a": jnp.ones((2, 3), bool)}, "a"),
    ):
        with pytest.raises(ValueError, match=f"masks: {name}: expected the name and"):
            coupling.align(coupled, params, params, ticket)
