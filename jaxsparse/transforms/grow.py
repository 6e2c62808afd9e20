"""Counting, dropping and growing weights: functions shared by all dynamic methods.

A mask update keeps the weights of highest score in each layer, then grows inactive
weights by a second score. Counts are traced integers computed from the current masks,
so a method works with any masks it is given, including those of `replace_masks`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Key

from jaxsparse import masks as masks_lib
from jaxsparse import scores, select, tree
from jaxsparse.transforms import mask_codes, update_schedules
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.state import find
from jaxsparse.transforms.update_schedules import UpdateSchedule
from jaxsparse.types import Counts, Grads, Masks, Scores, Step

Ratio = tuple[Array, Array]
Growth = Callable[[Masks, Grads, Key[Array, ""] | None, Step], Scores]
GROWTH = ("gradient", "inverted", "random")


class EverActive(NamedTuple):
    """Memory of a dynamic method, whose type says that exploration is measured.

    The codes in the state of `sparsify` tell which weights were ever active.

    Attributes:
      own: further state of the method, or None.
    """

    own: Any = None


def tracks_exploration(opt_state: optax.OptState) -> bool:
    """Returns whether the method is one whose exploration is measured.

    If not, `ever_active` returns only the current masks.

    Args:
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.
    """
    return isinstance(find(opt_state).memory, EverActive)


def ever_active(opt_state: optax.OptState) -> Masks:
    """Returns masks of the weights that were active at any time in training.

    `masks.num_active` of the result divided by `masks.size` is the exploration rate,
    called R_s in the paper.

    Args:
      opt_state: state of an optimizer that contains exactly one sparse optimizer, at
        any depth.

    Returns:
      Masks that include the current ones; only the current ones if the method is not
      one whose exploration is measured. Weights that `replace_masks` brought in and
      took out again without an update between do not count.

    Raises:
      ValueError: if `opt_state` contains no sparse optimizer, or more than one.

    References:
      Liu, Yin, Mocanu, Pechenizkiy. Do We Actually Need Dense Over-Parameterization?
      In-Time Over-Parameterization in Sparse Training. 2021. arXiv:2102.02887, section
      3.
    """
    state = find(opt_state)
    if not tracks_exploration(opt_state):
        return state.masks
    return mask_codes.ever_active(state.codes)


def fraction_at(
    table: list[tuple[int, int]], schedule: UpdateSchedule, step: Step
) -> Ratio:
    """Looks up the drop fraction of the mask update at a step.

    Args:
      table: numerator and denominator for each mask update, from
        `update_schedules.drop_fractions`. After the last row, the last row is used.
      schedule: the steps of the mask updates.
      step: int32 scalar; may be traced.

    Returns:
      Numerator and denominator; int32 scalars.
    """
    rows = jnp.asarray(np.array(table, np.int32))
    row = rows[
        # A constant fraction has a single row, which holds for all mask updates.
        jnp.minimum(update_schedules.update_index(schedule, step), len(table) - 1)
    ]
    return row[0], row[1]


def count(masks: Masks) -> Counts:
    """Counts the active weights of each layer; traced int32, exact.

    Args:
      masks: the masks, which may be traced.
    """
    return jax.tree.map(lambda mask: jnp.sum(mask, dtype=jnp.int32), masks)


def part(
    masks: Masks, ratio: Ratio, *, structure: select.Structure | None = None
) -> Counts:
    """Computes a fraction of each layer's active weights, rounded down to whole units.

    Args:
      masks: masks of the weights to take a fraction of.
      ratio: the fraction, as numerator and denominator; traced int32 scalars.
      structure: structured sparsity, whose units and rows the count is rounded to; None
        for single weights.

    Returns:
      Traced int32 counts, one for each layer.
    """

    def take(name: str, mask: Array) -> Array:
        num_weights = update_schedules.floor_mul_div(
            jnp.sum(mask, dtype=jnp.int32), *ratio
        )
        if structure is None:
            return num_weights
        # A structure can only change by the same number of units in every row.
        view = select.unit_view(structure, name, mask.shape)
        unit = view.rows * view.members
        return num_weights // unit * unit

    return tree.map_with_names(take, masks)


def num_inactive(masks: Masks) -> Counts:
    """Counts the weights outside the masks in each layer; traced int32, exact.

    Args:
      masks: the masks, which may be traced.
    """
    return jax.tree.map(lambda mask: mask.size - jnp.sum(mask, dtype=jnp.int32), masks)


def at_most_inactive(counts: Counts, masks: Masks) -> Counts:
    """Limits counts to the number of weights outside the masks in each layer.

    Args:
      counts: number of weights to grow in each layer.
      masks: the present masks.
    """
    return jax.tree.map(jnp.minimum, counts, num_inactive(masks))


def zero_counts(counts: Counts, dense: tuple[str, ...]) -> Counts:
    """Sets the counts of layers that match one of the patterns to 0.

    Args:
      counts: traced int32 counts, one for each layer.
      dense: shell patterns of leaf names.
    """
    return tree.map_with_names(
        lambda name, count: (
            jnp.zeros_like(count) if tree.matches(name, dense) else count
        ),
        counts,
    )


def subtract(counts: Counts, subtracted: Counts) -> Counts:
    """Subtracts counts leaf by leaf.

    Args:
      counts: a count for each layer.
      subtracted: the counts to subtract, with the same structure.
    """
    return jax.tree.map(jnp.subtract, counts, subtracted)


def grow(
    masks: Masks,
    kept: Masks,
    counts: Counts,
    grow_score: Scores,
    *,
    structure: select.Structure | None = None,
    allow_regrow: bool = True,
) -> Masks:
    """Grows the inactive weights of highest score in each layer.

    Ties are broken as in `select.top_k_per_layer`, by a fixed pseudo-random order of
    positions.

    Args:
      masks: masks before the mask update dropped weights.
      kept: masks of the surviving weights.
      counts: number of weights to grow in each layer; traced int32.
      grow_score: score of each weight; only those of weights that may be grown are
        read.
      structure: structured sparsity, or None for single weights.
      allow_regrow: whether a weight dropped in this mask update may be grown in it.

    Returns:
      Masks that contain `kept` and the grown weights.
    """
    # Dropped weights are inactive in `kept` and still active in `masks`.
    candidates = jax.tree.map(jnp.logical_not, kept if allow_regrow else masks)
    grown = select.top_k_per_layer(
        grow_score, counts, candidates=candidates, structure=structure
    )
    return jax.tree.map(jnp.logical_or, kept, grown)


def finite_where_grown(
    grow_score: Scores, excluded: Masks, counts: Counts
) -> Bool[Array, ""]:
    """Returns whether all scores that `grow` chose by are finite.

    Args:
      grow_score: growth score of each weight, as passed to `grow`.
      excluded: masks of weights that could not be grown.
      counts: number of weights to grow in each layer, as passed to `grow`; in a layer
        that grows none, no score is read.

    Returns:
      A boolean scalar.
    """
    candidates = jax.tree.map(lambda mask, count: ~mask & (count > 0), excluded, counts)
    return select.all_finite(grow_score, candidates)


def dropped_and_regrown(masks: Masks, kept: Masks, new: Masks) -> Masks:
    """Returns masks of the weights dropped and grown again in the same mask update.

    Args:
      masks: masks before the mask update.
      kept: masks of the surviving weights.
      new: masks after the mask update.
    """
    return jax.tree.map(
        lambda before, survived, after: before & ~survived & after, masks, kept, new
    )


def mask_update(
    masks: Masks,
    kept: Masks,
    new: Masks,
    *,
    memory: Any,
    zero_regrown: bool,
    finite: Bool[Array, ""] | None = None,
) -> MaskUpdate:
    """Describes a mask update that dropped some weights and grew others.

    Args:
      masks: masks before the mask update.
      kept: masks of the surviving weights.
      new: masks after the mask update.
      memory: the method's own state after the mask update.
      zero_regrown: whether a weight that was dropped and grown again restarts from
        zero, with fresh optimizer state.
      finite: whether every score that the masks were chosen by is finite; None if the
        method reads no scores but the weights.
    """
    regrown = dropped_and_regrown(masks, kept, new) if zero_regrown else None
    return MaskUpdate(new, memory, reset=regrown, zeroed=regrown, finite=finite)


def random_scores(
    masks: Masks, grads: Grads, key: Key[Array, ""], step: Step
) -> Scores:
    """Uniform random growth scores.

    Args:
      masks: the present masks; only names and shapes are used.
      grads: not used; part of the signature of growth scores.
      key: random key of all mask updates.
      step: step of this mask update, which is folded in.
    """
    del grads
    return scores.random(masks, key=jax.random.fold_in(key, step))


def gradient_magnitude(masks: Masks, grads: Grads) -> Scores:
    """Scores every weight, active or not, by the absolute value of its gradient.

    Args:
      masks: defines the prunable leaves.
      grads: the dense gradient, also outside the masks.
    """
    return masks_lib.tree_map(lambda _, grad: jnp.abs(grad), masks, grads)


def score_by(growth: str) -> Growth:
    """Makes the function that scores the weights to grow.

    Args:
      growth: "gradient" grows the weights of largest absolute gradient, "inverted"
        those of smallest, and "random" grows at random.

    Returns:
      A function `(masks, grads, key, step)` to scores; only "random" reads the last
      two.
    """
    if growth == "random":
        return random_scores
    # Growing takes the highest scores, so "inverted" negates the gradient's size.
    sign = 1 if growth == "gradient" else -1

    def by_gradient(masks: Masks, grads: Grads, key: Any, step: Step) -> Scores:
        del key, step
        return jax.tree.map(lambda size: sign * size, gradient_magnitude(masks, grads))

    return by_gradient
