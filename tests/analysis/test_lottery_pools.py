"""Lottery pools: by slow code, and what every pool keeps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks as masks_lib
from jaxsparse.analysis import lottery_pools
from jaxsparse.analysis.lottery_pools import lottery_pool
from jaxsparse.analysis.similarity import Solution

TARGET = np.random.default_rng(0).normal(size=30)


def tickets(count: int = 5) -> list[Solution]:
    """Invents tickets of one basin, each with 60 % of the weights of the one before."""
    random = np.random.default_rng(1)
    kept, found = np.ones(30, bool), []
    for _ in range(count):
        values = np.where(kept, TARGET + 0.5 * random.normal(size=30), 0)
        cut = np.sort(np.abs(values[kept]))[int(0.4 * kept.sum())]
        params = {
            "a": jnp.asarray(values[:12].reshape(3, 4), jnp.float32),
            "b": jnp.asarray(values[12:], jnp.float32),
            "bias": jnp.asarray(random.normal(size=2), jnp.float32),
        }
        flags = {
            "a": jnp.asarray(kept[:12].reshape(3, 4)),
            "b": jnp.asarray(kept[12:]),
            "bias": None,
        }
        found.append(Solution(params, flags))
        kept = kept & (np.abs(values) >= cut)
    return found


def flat(params: Any) -> np.ndarray:
    leaves = [np.asarray(params[name]).ravel() for name in ("a", "b")]
    return np.concatenate(leaves).astype(np.float64)


def near(params: Any, masks: Any) -> float:
    assert masks["bias"] is None
    biases = np.asarray(params["bias"], np.float64)
    return -float(np.sum((flat(params) - TARGET) ** 2) + np.sum(biases**2))


@pytest.mark.parametrize("start", [0, 2, 4])
def test_the_greedy_search_by_slow_code(start: int) -> None:
    given = tickets()
    rows = [
        np.concatenate([flat(one.params), np.asarray(one.params["bias"], np.float64)])
        for one in given
    ]
    count = int(sum(np.sum(leaf) for leaf in jax.tree.leaves(given[start].masks)))

    def score(row: np.ndarray) -> float:
        return -float(np.sum((row[:30] - TARGET) ** 2) + np.sum(row[30:] ** 2))

    current, best, chosen = rows[start], score(rows[start]), []
    order = {0: [1, 2, 3, 4], 2: [1, 3, 0, 4], 4: [3, 2, 1, 0]}[start]
    for index in order:
        each = []
        for ratio in lottery_pools.RATIOS:
            row = (1 - ratio) * current + ratio * rows[index]
            smallest = np.argsort(np.abs(row[:30]))[: 30 - count]
            row[smallest] = 0
            each.append((score(row), ratio, row))
        top = max(each, key=lambda one: one[0])
        if top[0] > best:
            best, ratio, current = top
            chosen.append((index, ratio))
    pool = lottery_pool(given, start, near)
    assert pool.chosen == tuple(chosen)
    assert len(chosen) > 1  # otherwise there is nothing to compare
    np.testing.assert_allclose(flat(pool.solution.params), current[:30], atol=1e-6)
    assert pool.score == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("start", range(5))
def test_pools_are_as_sparse_as_their_ticket_and_score_no_less(start: int) -> None:
    given = tickets()
    pool = lottery_pool(given, start, near)
    first = given[start]
    assert masks_lib.num_active(pool.solution.masks) == masks_lib.num_active(
        first.masks
    )
    assert pool.score >= near(masks_lib.apply(first.masks, first.params), first.masks)
    assert pool.score == near(*pool.solution)
    for name in ("a", "b"):
        outside = ~np.asarray(pool.solution.masks[name])
        assert not np.any(np.asarray(pool.solution.params[name])[outside])


def test_values_outside_masks_do_not_count() -> None:
    given = tickets()
    filled = [
        Solution(
            jax.tree.map(
                lambda leaf, mask: leaf if mask is None else jnp.where(mask, leaf, 9.0),
                one.params,
                one.masks,
                is_leaf=lambda leaf: leaf is None,
            ),
            one.masks,
        )
        for one in given
    ]
    first, second = (lottery_pool(each, 2, near) for each in (given, filled))
    assert first.chosen == second.chosen
    jax.tree.map(np.testing.assert_array_equal, first.solution, second.solution)


def test_nothing_is_accepted_that_does_not_raise_the_score() -> None:
    given = tickets()
    pool = lottery_pool(given, 2, lambda params, masks: 1.0)
    assert pool.chosen == ()
    wanted = masks_lib.apply(given[2].masks, given[2].params)
    jax.tree.map(np.testing.assert_array_equal, pool.solution.params, wanted)


def test_only_so_many_tickets_are_tried() -> None:
    seen: list[Any] = []

    def count(params: Any, masks: Any) -> float:
        seen.append(masks)
        return 0.0

    lottery_pool(tickets(), 2, count, ratios=(0.5,), search=2)
    assert len(seen) == 1 + 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"start": 5}, "start: expected the index of one of 5 solutions, got 5"),
        ({"ratios": ()}, "ratios: expected numbers between 0 and 1"),
        ({"ratios": (0.5, 1.0)}, "ratios: expected numbers between 0 and 1"),
        ({"search": -1}, "search: expected None or 0 or more, got -1"),
        ({"evaluate": lambda *_: float("nan")}, "expected a finite score, got nan"),
    ],
)
def test_what_cannot_be_right_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lottery_pool(**{"solutions": tickets(), "start": 0, "evaluate": near} | given)
