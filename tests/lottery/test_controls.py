"""Controls keep exactly the counts they promise, and nothing else of the ticket."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks
from jaxsparse.lottery import controls

pytestmark = pytest.mark.keys_used_once


SHAPES = {"dense1": (12, 20), "dense2": (20, 15), "head": (15, 4)}
COUNTS = {"dense1": 37, "dense2": 150, "head": 60}
REPLICATES = 3
SHUFFLES = {
    "shuffled_layers": controls.shuffle_layers,
    "shuffled_globally": controls.shuffle_globally,
    "random_mask": controls.draw_alike,
}


@functools.cache
def ticket() -> Any:
    """Masks [r ...] with the counts above, at random places of each layer."""
    generator = np.random.default_rng(0)

    def make(name: str) -> jax.Array:
        flat = np.arange(np.prod(SHAPES[name])) < COUNTS[name]
        rows = [generator.permutation(flat) for _ in range(REPLICATES)]
        return jnp.asarray(np.stack(rows).reshape(REPLICATES, *SHAPES[name]))

    return {name: {"kernel": make(name), "bias": None} for name in SHAPES}


def one(tree: Any, replicate: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[replicate], tree)


def keys(seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), REPLICATES)


def layers(found: Any, replicate: int) -> dict[str, int]:
    return {name: int(np.sum(found[name]["kernel"][replicate])) for name in SHAPES}


def on_host(found: Any) -> Any:
    return jax.tree.map(np.asarray, found)


def differs(a: Any, b: Any, name: str = "dense1") -> bool:
    return bool(np.any(np.asarray(a[name]["kernel"]) != np.asarray(b[name]["kernel"])))


@pytest.mark.parametrize("name", controls.NAMES)
@pytest.mark.parametrize("ignored", [(), ("dense1/*",)])
def test_counts_are_exact(name: str, ignored: tuple[str, ...]) -> None:
    before = ticket()
    found = controls.masks_of(name, before, level=2, keys=keys(), exclude=ignored)
    found = on_host(found)
    assert found["head"]["bias"] is None
    total = sum(COUNTS.values())
    for replicate in range(REPLICATES):
        if name == "dense_continued":
            sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
            assert layers(found, replicate) == sizes
        elif name == "shuffled_globally":
            assert sum(layers(found, replicate).values()) == total
        else:
            assert layers(found, replicate) == COUNTS
    for layer in SHAPES:
        same = ("reinitialized", *controls.MIXED)
        untouched = name in same or masks.matches(f"{layer}/kernel", ignored)
        if name != "dense_continued":
            full = layer == "head"  # every one of its weights is kept
            moved = not untouched and not (full and name != "shuffled_globally")
            assert differs(found, before, layer) == moved


def test_a_global_shuffle_spreads_weights_by_size() -> None:
    # Expected counts are proportional to sizes; sd < 8, so 40 is never exceeded.
    found = on_host(
        controls.masks_of("shuffled_globally", ticket(), level=1, keys=keys())
    )
    total = sum(COUNTS.values())
    every = sum(int(np.prod(shape)) for shape in SHAPES.values())
    for replicate in range(REPLICATES):
        for name, count in layers(found, replicate).items():
            assert abs(count - total * np.prod(SHAPES[name]) / every) < 40


@pytest.mark.parametrize("name", SHUFFLES)
def test_draws_differ_by_replicate_level_name_and_seed(name: str) -> None:
    before = ticket()
    # Equal masks for all replicates, so that only the draws can differ.
    before = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * REPLICATES), before)

    def draw(level: int = 1, seed: int = 0) -> Any:
        return on_host(controls.masks_of(name, before, level=level, keys=keys(seed)))

    first = draw()
    assert not differs(first, draw())
    assert differs(first, draw(level=2))
    assert differs(first, draw(seed=1))
    assert differs(one(first, 0), one(first, 1))
    others = [other for other in SHUFFLES if other != name]
    for other in others:
        again = controls.masks_of(other, before, level=1, keys=keys())
        assert differs(first, again)


@pytest.mark.parametrize("name", SHUFFLES)
def test_a_replicate_draws_alone_what_it_draws_among_others(name: str) -> None:
    together = on_host(controls.masks_of(name, ticket(), level=3, keys=keys()))

    @jax.jit
    def draw(mask: Any, key: Any) -> Any:
        return SHUFFLES[name](mask, key=controls.key_of(key, name, 3))

    before = on_host(ticket())
    for replicate in range(REPLICATES):
        alone = draw(one(before, replicate), keys()[replicate])
        for layer in SHAPES:
            assert not differs(alone, one(together, replicate), layer)


@pytest.mark.parametrize(("name", "make"), SHUFFLES.items())
def test_every_place_is_equally_likely(name: str, make: Callable) -> None:
    # 600 draws of 5 of 20 places: each is kept 150 times, sd 10.6; outside 90 to 210
    # by chance in fewer than 1 of 10^6 runs of this test.
    mask = {"kernel": jnp.arange(20).reshape(4, 5) < 5}
    draw = jax.jit(jax.vmap(lambda key: make(mask, key=key)["kernel"]))
    draws = draw(jax.random.split(jax.random.key(0), 600))
    times = np.asarray(draws).sum(axis=0)
    assert times.sum() == 600 * 5
    assert times.min() > 90
    assert times.max() < 210


def test_continued_training_is_dense_and_reinitialization_is_the_tickets_mask() -> None:
    before = ticket()
    dense = controls.masks_of("dense_continued", before, level=1, keys=keys())
    assert all(bool(jnp.all(leaf)) for leaf in jax.tree.leaves(dense))
    again = controls.masks_of("reinitialized", before, level=1, keys=keys())
    assert not any(differs(again, before, name) for name in SHAPES)
    assert set(controls.FRESH) < set(controls.NAMES)


@pytest.mark.parametrize("make", [controls.shuffle_globally, controls.draw_alike])
def test_two_to_the_31_weights_are_drawn_again(make: Callable) -> None:
    key = jax.random.key(0)
    sizes = [(2**15, 2**15)] * 3 if make is controls.shuffle_globally else [(2**31,)]
    leaves = [jax.ShapeDtypeStruct(shape, jnp.bool_) for shape in sizes]
    drawn = jax.eval_shape(lambda masks: make(masks, key=key), leaves)
    assert [leaf.shape for leaf in drawn] == sizes


@pytest.mark.parametrize("make", [controls.shuffle_globally, controls.draw_alike])
def test_long_counts_are_drawn_alike(
    make: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw() -> Any:
        return jax.jit(lambda mask: make(mask, key=jax.random.key(1)))(one(ticket(), 0))

    short = draw()
    monkeypatch.setattr("jaxsparse.select.inputs.LIMIT", 100)
    jax.tree.map(np.testing.assert_array_equal, draw(), short)


def test_signs_and_magnitudes_are_those_of_either() -> None:
    draw = np.random.default_rng(0).normal
    make = {
        name: {"kernel": shape, "bias": shape[1:]} for name, shape in SHAPES.items()
    }
    old, new = (
        {
            name: {leaf: jnp.asarray(draw(size=shape)) for leaf, shape in each.items()}
            for name, each in make.items()
        }
        for _ in range(2)
    )
    for name in controls.MIXED:
        mixed = controls.mix(name, old, new, one(ticket(), 0))
        signs = old if name == "random_magnitudes" else new
        sizes = old if name == "random_signs" else new
        for layer in SHAPES:
            got = np.asarray(mixed[layer]["kernel"])
            np.testing.assert_array_equal(got < 0, signs[layer]["kernel"] < 0)
            np.testing.assert_array_equal(abs(got), abs(sizes[layer]["kernel"]))
            assert mixed[layer]["bias"] is old[layer]["bias"]
    zeros, fresh = {"w": jnp.array([-0.0, 0.0])}, {"w": jnp.array([-2.0, 3.0])}
    found = controls.mix("random_magnitudes", zeros, fresh, {"w": jnp.ones(2, bool)})
    np.testing.assert_array_equal(found["w"], [2, 3])
