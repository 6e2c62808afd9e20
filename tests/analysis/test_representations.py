import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxsparse.analysis import pairwise, representations

CKA = jax.jit(representations.linear_cka, static_argnames="unbiased")


def layers(n: int, p: int, q: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two layers that share some of what they represent, and are not centered."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 2))
    return tuple(
        (shared @ rng.normal(size=(2, d)) + rng.normal(size=(n, d)) + 3.0).astype(
            np.float32
        )
        for d in (p, q)
    )


def unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """The mean over quadruples of different examples: a U-statistic."""
    k, l = x @ x.T, y @ y.T  # noqa: E741
    n, total = len(k), 0.0
    for i, j, a, b in itertools.permutations(range(n), 4):
        total += k[i, j] * (l[i, j] + l[a, b] - 2 * l[i, a])
    return total / math.perm(n, 4)


def biased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    n = len(x)
    center = np.eye(n) - np.ones((n, n)) / n
    return np.trace(x @ x.T @ center @ y @ y.T @ center)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(("n", "p", "q"), [(7, 3, 2), (7, 30, 20)])
def test_cka_equals_its_definition(n: int, p: int, q: int, unbiased: bool) -> None:
    first, second = layers(n, p, q)
    hsic = unbiased_hsic if unbiased else biased_hsic
    x, y = first.astype(np.float64), second.astype(np.float64)
    wanted = hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))
    got = CKA(jnp.asarray(first), jnp.asarray(second), unbiased=unbiased)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(("n", "p"), [(40, 6), (8, 50)])
def test_cka_does_not_see_rotation_shift_and_scale(
    n: int, p: int, unbiased: bool
) -> None:
    first, second = layers(n, p, p)
    turn = scipy.stats.ortho_group.rvs(p, random_state=0).astype(np.float32)
    moved = -1e3 * (first @ turn) + 5.0

    def cka(a: Any, b: Any) -> float:
        return float(CKA(jnp.asarray(a), jnp.asarray(b), unbiased=unbiased))

    for same in (first, moved, 1e-20 * first, 1e30 * first):
        np.testing.assert_allclose(cka(first, same), 1, rtol=1e-4)
    assert 0.05 < cka(first, second) < 0.99
    np.testing.assert_allclose(cka(moved, second), cka(first, second), rtol=1e-3)
    np.testing.assert_allclose(cka(second, first), cka(first, second), rtol=1e-5)
    stretched = first * np.geomspace(1, 100, p, dtype=np.float32)
    assert cka(first, stretched) < 0.99


def test_only_the_unbiased_cka_of_unrelated_layers_is_small() -> None:
    """200 pairs; the mean of the unbiased is within 0.02 of 0 (over 6 s.e.)."""
    draws = jax.random.normal(jax.random.key(0), (2, 200, 16, 64))
    biased, unbiased = (
        jax.jit(jax.vmap(functools.partial(CKA, unbiased=u)))(*draws)
        for u in (False, True)
    )
    assert np.mean(biased) > 0.5
    assert abs(np.mean(unbiased)) < 0.02 and np.min(unbiased) < 0


def test_cka_of_images_pairs_and_constants() -> None:
    maps = jax.random.normal(jax.random.key(0), (3, 10, 4, 4, 2))
    pairs = jax.jit(functools.partial(pairwise.pairwise, representations.linear_cka))
    matrix, flat = pairs(maps), pairs(maps.reshape(3, 10, 32))
    np.testing.assert_allclose(matrix, flat, rtol=1e-6)
    np.testing.assert_allclose(np.diag(matrix), 1, rtol=1e-5)
    assert math.isnan(CKA(maps[0], jnp.ones((10, 3))))
    with pytest.raises(ValueError, match="second: expected .*10.*got 9"):
        representations.linear_cka(maps[0], maps[1, :9])
