"""Where pruning rounds cut the weights."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxsparse.analysis import imp_rounds
from jaxsparse.analysis.similarity import Solution
from jaxsparse.lottery import imp


def make(seed: int) -> tuple[Solution, dict]:
    """Prunes random weights of two layers as a level does."""
    rng = np.random.default_rng(seed)
    params = {
        "a": {"kernel": rng.normal(size=(7, 5)), "bias": rng.normal(size=5)},
        "b": {"kernel": rng.normal(size=(5, 3))},
    }
    params = {
        name: {leaf: jnp.asarray(x, jnp.float32) for leaf, x in layer.items()}
        for name, layer in params.items()
    }
    masks = {
        "a": {"kernel": jnp.asarray(rng.random((7, 5)) < 0.8), "bias": None},
        "b": {"kernel": jnp.asarray(rng.random((5, 3)) < 0.8)},
    }
    return Solution(params, masks), params


def prune(solution: Solution, fraction: float, *, level: int) -> dict:
    rule = imp.PruningRule(fraction=fraction)
    stack = jax.tree.map(lambda leaf: leaf[None], solution)
    keys = jax.random.split(jax.random.key(0), 1)
    pruned = imp.prune(*stack, level=level, rule=rule, keys=keys)
    return jax.tree.map(lambda leaf: leaf[0], pruned)


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.6]))
def test_global_pruning_cuts_between_two_sizes(seed: int, fraction: float) -> None:
    drawn, params = make(seed)
    dense = jax.tree.map(jnp.ones_like, drawn.masks)
    first = prune(Solution(params, dense), fraction, level=1)
    # Other weights than those that the round before was pruned by.
    params = jax.tree.map(lambda leaf: jnp.sin(7 * leaf), params)
    solution = Solution(params, first)
    after = prune(solution, fraction, level=2)
    found = imp_rounds.pruning_threshold(solution, after)
    every = np.concatenate(
        [
            np.abs(np.asarray(params[name]["kernel"]))[
                np.asarray(solution.masks[name]["kernel"])
            ]
            for name in ("a", "b")
        ]
    )
    ordered = np.sort(every)
    assert found.pruned + found.kept == len(every)
    assert found.largest_pruned == ordered[found.pruned - 1]
    assert found.smallest_kept == ordered[found.pruned]


def test_nothing_pruned_and_nothing_kept() -> None:
    solution, _ = make(0)
    none = {"a": {"kernel": jnp.zeros((7, 5), bool), "bias": None}}
    none["b"] = {"kernel": jnp.zeros((5, 3), bool)}
    assert np.isnan(
        imp_rounds.pruning_threshold(solution, solution.masks).largest_pruned
    )
    gone = imp_rounds.pruning_threshold(solution, none)
    assert np.isnan(gone.smallest_kept)
    assert (
        gone.kept,
        imp_rounds.pruning_threshold(solution, solution.masks).pruned,
    ) == (0, 0)


def test_masks_that_grew_are_refused() -> None:
    solution, _ = make(0)
    more = {"a": {"kernel": jnp.ones((7, 5), bool), "bias": None}}
    more["b"] = {"kernel": jnp.ones((5, 3), bool)}
    with pytest.raises(
        ValueError, match="next_masks: a/kernel: expected only .*got .* others"
    ):
        imp_rounds.pruning_threshold(solution, more)


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 10.0]))
def test_every_weight_is_counted_once(seed: int, limit: float) -> None:
    solution, params = make(seed)
    found = imp_rounds.histogram(solution, limit=limit, bins=10)
    slow = np.zeros(10, int)
    for name in ("a", "b"):
        kernel = np.asarray(params[name]["kernel"], np.float64)
        for place in np.argwhere(np.asarray(solution.masks[name]["kernel"])):
            value = min(max(kernel[tuple(place)], -limit), limit)
            inside = [i for i in range(10) if value >= found.edges[i]]
            slow[inside[-1]] += 1
    np.testing.assert_array_equal(found.counts, slow)
    assert found.edges[5] == 0


@pytest.mark.parametrize(
    ("limit", "bins", "message"),
    [
        (0.0, 10, "limit: expected .*got 0.0"),
        (float("nan"), 10, "limit: expected .*got nan"),
        (1.0, 3, "bins: expected .*got 3"),
        (1.0, 0, "bins: expected .*got 0"),
    ],
)
def test_bad_bins_are_refused(limit: float, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imp_rounds.histogram(make(0)[0], limit=limit, bins=bins)


def test_weights_that_are_no_numbers_are_refused() -> None:
    solution, params = make(0)
    params["b"]["kernel"] = params["b"]["kernel"] * jnp.nan
    with pytest.raises(ValueError, match="expected finite weights"):
        imp_rounds.histogram(solution, limit=1.0)
