"""Dropping weights and growing others: what all dynamic methods have in common.

A change of masks keeps the best of a layer's weights by one score and adds the best of
those left by another. Counts are traced integers that follow from the masks held, so
that a method goes on with whatever masks it is given.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool

from jaxsparse import masks as masks_lib
from jaxsparse import select, tree
from jaxsparse.transforms import update_schedules
from jaxsparse.transforms.state import find
from jaxsparse.transforms.update_schedules import UpdateSchedule
from jaxsparse.types import Counts, Grads, Masks, Params, Scores, Step

Ratio = tuple[Array, Array]


class EverActive(NamedTuple):
    """What a dynamic method remembers.

    Attributes:
      ever: weights that were in the masks before or after some change.
      own: what the method itself remembers, or None.
    """

    ever: Masks
    own: Any = None


def init_exploration(params: Params, masks: Masks) -> EverActive:
    """Makes the memory before the first change: empty, as masks may be replaced."""
    del params
    return EverActive(jax.tree.map(jnp.zeros_like, masks))


def record_exploration(
    memory: EverActive, *masks: Masks, own: Any = None
) -> EverActive:
    """Adds masks to those that were ever held."""
    ever = memory.ever
    for held in masks:
        ever = jax.tree.map(jnp.logical_or, ever, held)
    return EverActive(ever, own)


def tracks_exploration(opt_state: optax.OptState) -> bool:
    """Says whether `ever_active` is more than the masks held now.

    Raises:
      ValueError: if the state holds no sparse optimiser, or more than one.
    """
    return isinstance(find(opt_state).memory, EverActive)


def ever_active(opt_state: optax.OptState) -> Masks:
    """Returns the weights that a dynamic method has ever held.

    `masks.kept` of it over `masks.total` is the exploration rate, which the paper calls
    R_s.

    Args:
      opt_state: state of an optimiser that a method of this package wraps.

    Returns:
      Masks, those held now included; those alone for a method that does not remember.

    Raises:
      ValueError: if the state holds no sparse optimiser, or more than one.

    References:
      Liu, Yin, Mocanu, Pechenizkiy. Do We Actually Need Dense Over-Parameterization?
      In-Time Over-Parameterization in Sparse Training. 2021. arXiv:2102.02887,
      section 3.
    """
    state = find(opt_state)
    if not tracks_exploration(opt_state):
        return state.masks
    return jax.tree.map(jnp.logical_or, state.memory.ever, state.masks)


def fraction_at(
    table: list[tuple[int, int]], schedule: UpdateSchedule, step: Step
) -> Ratio:
    """Reads the ratio for the change at a step from `calendars.drop_fractions`."""
    rows = jnp.asarray(np.array(table, np.int32))
    row = rows[
        jnp.minimum(update_schedules.update_index(schedule, step), len(table) - 1)
    ]
    return row[0], row[1]


def count(masks: Masks) -> Counts:
    """Counts each layer's weights; traced, exact."""
    return jax.tree.map(lambda mask: jnp.sum(mask, dtype=jnp.int32), masks)


def part(
    masks: Masks, ratio: Ratio, *, structure: select.Structure | None = None
) -> Counts:
    """Counts a part of each layer's weights, rounded down to whole units.

    Args:
      masks: weights to take the part of.
      ratio: the part, as numerator and denominator.
      structure: which weights stand or fall together.

    Returns:
      Traced counts.
    """

    def take(name: str, mask: Array) -> Array:
        taken = update_schedules.floor_mul_div(jnp.sum(mask, dtype=jnp.int32), *ratio)
        if structure is None:
            return taken
        grid = select.unit_view(structure, name, mask.shape)
        unit = grid.rows * grid.members
        return taken // unit * unit

    return tree.map_with_names(take, masks)


def num_inactive(masks: Masks) -> Counts:
    """Counts the weights that each layer has outside the masks; traced, exact."""
    return jax.tree.map(lambda mask: mask.size - jnp.sum(mask, dtype=jnp.int32), masks)


def at_most_inactive(counts: Counts, masks: Masks) -> Counts:
    """Limits counts to the weights that each layer has outside the masks."""
    return jax.tree.map(jnp.minimum, counts, num_inactive(masks))


def zero_counts(counts: Counts, dense: tuple[str, ...]) -> Counts:
    """Sets the counts of the layers that match one of the patterns to nothing."""
    return tree.map_with_names(
        lambda name, wanted: (
            jnp.zeros_like(wanted) if tree.matches(name, dense) else wanted
        ),
        counts,
    )


def subtract(counts: Counts, less: Counts) -> Counts:
    """Subtracts counts leaf by leaf."""
    return jax.tree.map(jnp.subtract, counts, less)


def grow(
    masks: Masks,
    kept: Masks,
    counts: Counts,
    grow_score: Scores,
    *,
    structure: select.Structure | None = None,
    regrow_dropped: bool = True,
) -> Masks:
    """Adds the weights of most promise; ties are broken as in `select.globally`.

    Args:
      masks: weights there were before some were dropped.
      kept: those that stayed.
      counts: how many to add, by layer.
      grow_score: score of the weights that may be added; the highest are.
      structure: which weights stand or fall together.
      regrow_dropped: whether a weight dropped now may be grown now.

    Returns:
      Masks with `kept` and as many more.
    """
    free = jax.tree.map(jnp.logical_not, kept if regrow_dropped else masks)
    grown = select.top_k_per_layer(
        grow_score, counts, candidates=free, structure=structure
    )
    return jax.tree.map(jnp.logical_or, kept, grown)


def finite_where_grown(
    grow_score: Scores, taken: Masks, counts: Counts
) -> Bool[Array, ""]:
    """Says whether the scores that `grow` chose by were finite.

    Args:
      grow_score: as given to `grow`.
      taken: weights that could not be added.
      counts: as given to `grow`; a layer that grows nothing reads no score.
    """
    free = jax.tree.map(lambda mask, wanted: ~mask & (wanted > 0), taken, counts)
    return select.all_finite(grow_score, free)


def dropped_and_regrown(masks: Masks, kept: Masks, new: Masks) -> Masks:
    """Tells the weights that were dropped and grown in one change."""
    return jax.tree.map(lambda old, stay, now: old & ~stay & now, masks, kept, new)


def gradient_magnitude(masks: Masks, grads: Grads) -> Scores:
    """Scores every weight, held or not, by its gradient's absolute value."""
    return masks_lib.tree_map(lambda _, grad: jnp.abs(grad), masks, grads)
