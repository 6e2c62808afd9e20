"""Scores that tie, that are not finite or that do not fit."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import flat_options
from helpers.two_layers import params

from jaxsparse import masks, prune, scores, select
from jaxsparse.types import Masks, Params, Scores


@pytest.mark.parametrize("regrow", [False, True])
def test_scores_that_are_not_finite_are_refused_where_they_count(regrow: bool):
    def late(weights: Params, mask: Masks) -> Scores:
        """Is infinite at what was removed, and NaN in b once less than 100 are left."""
        worth = masks.tree_map(
            lambda m, w: jnp.where(m, abs(w), jnp.inf), mask, weights
        )
        few = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(mask)) < 100
        worth["b"]["kernel"] = jnp.where(few, jnp.nan, worth["b"]["kernel"])
        return worth

    message = (
        r"\['a/kernel', 'b/kernel'\] at iteration 2"
        if regrow
        else (r"\['b/kernel'\] at iteration 4 of 4")
    )
    with pytest.raises(ValueError, match=message):
        prune.prune_iteratively(params(), 0.95, score=late, iterations=4, regrow=regrow)


def constant(weights: Params, mask: Masks) -> Scores:
    return masks.tree_map(lambda _, leaf: jnp.zeros_like(leaf), mask, weights)


def test_scores_that_rank_nothing_warn_and_are_fair_to_layers():
    ones = jnp.asarray(np.ones((40, 40), np.float32))
    same = {name: {"kernel": ones} for name in "abcd"}
    with pytest.warns(select.TiedScoresWarning, match="'all layers': '100.0%'") as said:
        ticket = prune.prune(same, 0.5, score=constant)
    assert len(said) == 1
    assert masks.num_active(ticket) == 3200
    for layer in masks.layer_counts(ticket).values():
        assert abs(layer.num_active - 800) < 4 * 20  # standard deviations
    with pytest.warns(select.TiedScoresWarning) as said:
        prune.prune_iteratively(same, 0.5, score=constant, iterations=3)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("structure", "distribution", "name"),
    [
        (select.blocks((4, 4)), "global", "all layers"),
        (select.n_of_m(4), "uniform", "a/kernel"),
    ],
    ids=str,
)
def test_units_that_score_alike_warn(
    structure: select.Structure, distribution: str, name: str
):
    same = {
        name: {"kernel": jnp.asarray(np.ones(shape, np.float32))}
        for name, shape in {"a": (16, 8), "b": (8, 8)}.items()
    }
    options = {"structure": structure, "distribution": distribution}
    said = f"'{name}': '100.0%'"
    with pytest.warns(select.TiedScoresWarning, match=said) as warned:
        ticket = flat_options.call(prune.prune, same, 0.5, score=constant, **options)
    assert len(warned) == 1 and masks.num_active(ticket) == 96
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # No tie is divided.
        flat_options.call(prune.prune, same, 0.0, score=constant, **options)


def test_ties_in_groups_are_those_of_each_group():
    # Within a group nothing ties, although every value is in every group.
    row = np.tile(np.arange(1.0, 5.0, dtype=np.float32), 10)
    weights = np.stack([row, row[::-1]], axis=-1)
    tied = weights.copy()
    tied[:12, 0] = 2.0  # 12 of 80 weights, in 3 groups
    found, groups = [], select.n_of_m(4)

    @jax.jit
    def ties(each: Scores) -> Any:
        kept = select.top_k_per_layer(each, {"w": 40}, structure=groups)
        return select.count_ties(each, kept, pooled=False, structure=groups)

    for each in (weights, tied):
        tie = ties({"w": each})
        found.append((float(tie["w"].tied), float(tie["w"].candidates)))
    assert found == [(0, 80), (12, 80)]


def test_a_tie_of_blocks_is_that_of_their_weights():
    size = np.array([[3.0, 1.0], [1.0, 2.0]], np.float32)
    weights = {"w": np.kron(size, np.ones((2, 3), np.float32))}
    blocks = select.blocks((2, 3))

    @jax.jit
    def ties(count: Any) -> Any:
        kept = select.top_k_global(weights, count, structure=blocks)
        return select.count_ties(weights, kept, pooled=True, structure=blocks)

    for count, tied in ((6, 0), (12, 0), (18, 12), (24, 0)):
        assert ties(np.int32(count)) == {"all layers": (tied, 24)}


@pytest.mark.parametrize("part", [0.005, 0.02])
def test_ties_of_one_percent_and_less_say_nothing(part: float):
    row = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    tied = np.abs(row - 5000) < 10_000 * part / 2
    weights = {"w": jnp.asarray(np.where(tied, np.float32(5000), row))}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prune.prune(weights, 0.5)
        if part > 0.01:  # no tie is divided
            prune.prune(weights, 0.8)
    assert len(said) == (part > 0.01)


@pytest.mark.parametrize("tied", [10, 11])
def test_ties_of_ten_weights_say_nothing(tied: int):
    row = np.arange(100, dtype=np.float32)
    row[45 : 45 + tied] = 45
    weights = {"w": jnp.asarray(row.reshape(4, 25))}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prune.prune(weights, 0.5)
    assert len(said) == (tied > 10)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_scores_that_are_not_finite_are_refused_by_name(bad: float):
    weights = params()
    weights["b"]["kernel"] = weights["b"]["kernel"].at[3].set(bad)
    with pytest.raises(ValueError, match="infinity in {'b/kernel': '10 of 200'}"):
        prune.prune(weights, 0.5)


def test_scores_of_another_shape_are_refused_by_name():
    def turned(weights: Params, mask: Masks) -> Scores:
        return masks.tree_map(lambda _, leaf: leaf.T, mask, weights)

    with pytest.raises(
        ValueError, match=r"score: a/kernel: expected shape .*got \(20, 30\)"
    ):
        prune.prune(params(), 0.5, score=turned)
    with pytest.raises(
        ValueError, match=r"score: a/kernel: expected shape .*got \(20, 30\)"
    ):
        prune.prune_iteratively(params(), 0.5, score=turned, iterations=2)
    with pytest.raises(ValueError, match="score: expected .*leaf a/bias"):
        prune.prune(params(), 0.5, score=lambda p, m: jax.tree.map(jnp.abs, p))


@pytest.mark.parametrize(
    "options",
    [
        {"min_layer_density": 0.1},
        {"score": scores.magnitude, "iterations": 3, "min_layer_density": 0.1},
        {"score": scores.magnitude, "iterations": 3, "distribution": "uniform"},
    ],
    ids=lambda options: "+".join(options),
)
def test_long_counts_give_the_same_masks(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = prune.prune_iteratively if "iterations" in options else prune.prune
    short = flat_options.call(choose, params(), 0.9, **options)
    monkeypatch.setattr("jaxsparse.select.inputs.LIMIT", 60)
    long = flat_options.call(choose, params(), 0.9, **options)
    jax.tree.map(np.testing.assert_array_equal, long, short)
