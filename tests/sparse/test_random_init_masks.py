"""Masks that training starts from: exact counts, drawn without favor."""

import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from scipy import stats

from jaxsparse import distributions, masks, select, transforms

DRAWS = 4000
# Chance of a false alarm of each test below, for a random seed; the seed is fixed.
ALARM = 1e-6


def params(dtype: str) -> dict[str, Any]:
    return {
        "a": {"kernel": np.ones((12, 10), dtype), "bias": np.ones(10, dtype)},
        "b": {"kernel": np.ones((2, 2, 6, 10), dtype)},
    }


def start(tx: Any) -> Any:
    """The masks that an optimizer starts from, drawn by one program."""
    return jax.jit(lambda like: transforms.get_masks(tx.init(like)))(params("float32"))


@functools.cache
def draw(dtype: str, structure: Any = None) -> Any:
    def one(key: Any) -> Any:
        tx = transforms.rigl(
            optax.identity(),
            sparsity=0.8,
            layers=transforms.LayerOptions(distribution="uniform", structure=structure),
            updates=transforms.RigLOptions(drop_schedule="constant"),
            key=key,
        )
        like = jax.tree.map(jax.numpy.asarray, params(dtype))
        return transforms.get_masks(tx.init(like))

    keys = jax.random.split(jax.random.key(11), DRAWS)
    return jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=100))(keys)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_weight_is_as_likely_as_any_other(dtype: str) -> None:
    drawn = draw(dtype)
    for leaf in jax.tree.leaves(drawn):
        flat = np.asarray(leaf).reshape(DRAWS, -1)
        size, kept = flat.shape[1], flat[0].sum()
        assert kept == size // 5
        assert (flat.sum(axis=1) == kept).all()
        p = kept / size
        # Weights of one draw exclude each other, which takes one degree of freedom.
        squares = np.square(flat.sum(axis=0) - DRAWS * p) / (DRAWS * p * (1 - p))
        found = squares.sum() * (size - 1) / size
        low, high = stats.chi2(size - 1).ppf([ALARM / 2, 1 - ALARM / 2])
        assert low < found < high


def test_layers_are_drawn_independently() -> None:
    drawn = draw("bfloat16")
    a = np.asarray(drawn["a"]["kernel"]).reshape(DRAWS, -1)[:, 0]
    b = np.asarray(drawn["b"]["kernel"]).reshape(DRAWS, -1)[:, 0]
    table = [[np.sum((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)]
    assert stats.chi2_contingency(table, correction=False).pvalue > ALARM


def test_structures_are_drawn_whole() -> None:
    drawn = jax.tree.map(lambda leaf: leaf[:50], draw("float32", select.fan_in()))
    fan_in = np.asarray(drawn["a"]["kernel"]).sum(axis=1)
    assert (fan_in == 2).all()
    assert (np.asarray(drawn["b"]["kernel"]).sum(axis=(1, 2, 3)) == 5).all()


@pytest.mark.parametrize("name", distributions.NAMES)
def test_layer_counts_are_those_of_the_distribution(name: str) -> None:
    tx = transforms.sparse_evolution(
        optax.sgd(0.1), sparsity=0.8, layers=transforms.LayerOptions(distribution=name)
    )
    held = start(tx)
    wanted = distributions.NAMES[name](held, 0.8)
    found = [count.num_active for count in masks.layer_counts(held).values()]
    assert found == jax.tree.leaves(wanted)
    assert sum(found) == distributions.count_kept(360, 0.8)


def test_a_function_and_patterns_divide_too() -> None:
    def half(held: Any, sparsity: Any) -> Any:
        return distributions.by_glob(held, {"b/*": 7}, otherwise=sparsity)

    tx = transforms.rigl(
        optax.sgd(0.1),
        sparsity=0.5,
        layers=transforms.LayerOptions(distribution=half),
        updates=transforms.RigLOptions(drop_schedule="constant"),
    )
    held = start(tx)
    assert [count.num_active for count in masks.layer_counts(held).values()] == [60, 7]
    tx = transforms.rigl(
        optax.sgd(0.1),
        sparsity=0.5,
        updates=transforms.RigLOptions(drop_schedule="constant"),
        layers=transforms.LayerOptions(prunable=("*/kernel", "!b/*")),
    )
    held = start(tx)
    assert masks.names(held) == ["a/kernel"]
    assert masks.num_active(held) == 60
