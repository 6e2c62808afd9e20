"""Floors: a least number of weights in each layer, where layers compete."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.select import counts as counts_lib
from jaxsparse.select import layers as layers_lib
from jaxsparse.select import structures, unstructured
from jaxsparse.select.bisection import Ties
from jaxsparse.select.structures import Structure
from jaxsparse.types import Counts, Masks, Scores


@arguments.check(masks=arguments.masks, ignored=arguments.patterns)
def floors(
    masks: Masks,
    density: float,
    *,
    ignored: tuple[str, ...] = (),
    structure: Structure | None = None,
) -> Counts | None:
    """Counts the weights that each layer keeps at least, on the host.

    Args:
      masks: which leaves are prunable; only names and shapes are used.
      density: part of each layer's weights, in [0, 1]; rounded up, to whole units of a
        structure. 0 for no floors.
      ignored: shell patterns of leaves that are not selected from.
      structure: which weights stand or fall together.

    Returns:
      Python integers, 0 for ignored leaves; None for a density of 0.

    Raises:
      ValueError: if the density is out of range.

    Examples:
      >>> floors({"a": jnp.ones((64, 20), bool), "b": jnp.ones((20, 1), bool)}, 0.01)
      {'a': 13, 'b': 1}
    """
    arguments.number(0, 1)("min_layer_density", density)
    if not density:
        return None
    structure, part = structures.bound(structure, masks), Fraction(str(density))
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)

    def count(name: str, shape: tuple[int, ...]) -> int:
        if masks_lib.matches(name, ignored):
            return 0
        unit = counts_lib.step(structures.grid(structure, name, shape))
        return math.ceil(math.prod(shape) * part / unit) * unit

    counts = [count(n, leaf.shape) for n, leaf in zip(names, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(masks), counts)


@arguments.check(count=arguments.integer(), ignored=arguments.patterns)
def globally_at_least(
    scores: Scores,
    count: Int[Array, ""] | int,
    least: Counts | None,
    *,
    within: Masks | None = None,
    ignored: tuple[str, ...] = (),
    ties: Ties = "spread",
    structure: Structure | None = None,
) -> Masks:
    """Keeps the best weights of all layers together, and at least so many of each.

    Each layer keeps its best weights up to its floor; the rest of the count goes to the
    best of all others. The total is exactly that of `globally`.

    Args:
      scores: as in `globally`, and so are the others not named here.
      count: as above, floors included; must be at least their sum.
      least: the floors, from `floors`; None for none.
      within: as above. A layer that has fewer weights there than its floor keeps those.
      ignored: as above.
      ties: as above, for the weights above the floors.
      structure: as above.

    Returns:
      Masks; None where the score is None.

    Raises:
      ValueError: as `globally`.
    """
    if least is None:
        return unstructured.globally(
            scores,
            count,
            within=within,
            ignored=ignored,
            ties=ties,
            structure=structure,
        )
    leaves = dict(zip(masks_lib.names(scores), jax.tree.leaves(scores), strict=True))
    total = sum(
        np.size(leaf)
        for name, leaf in leaves.items()
        if not masks_lib.matches(name, ignored)
    )
    floor = tree.map_with_names(
        lambda name, least: counts_lib.look_up(
            [least], jnp.int32(0), np.size(leaves.get(name))
        ),
        least,
    )
    safe = unstructured.per_layer(
        scores, floor, within=within, ignored=ignored, structure=structure
    )
    allowed = jax.tree.map(jnp.ones_like, safe) if within is None else within
    names = masks_lib.names(safe)
    is_long = total >= layers_lib.LIMIT
    integer = jnp.int64 if is_long else jnp.int32
    with layers_lib.wide(is_long):
        held = sum(
            jnp.sum(leaf, dtype=integer)
            for name, leaf in zip(names, jax.tree.leaves(safe), strict=True)
            if not masks_lib.matches(name, ignored)
        )
        left = jnp.asarray(count, integer) - held
    rest = unstructured.globally(
        scores,
        left,
        within=jax.tree.map(lambda mask, kept: mask & ~kept, allowed, safe),
        ignored=ignored,
        ties=ties,
        structure=structure,
    )
    return jax.tree.map(jnp.logical_or, safe, rest)
