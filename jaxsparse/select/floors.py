"""Minimum numbers of weights per layer for selection over all layers."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.select import inputs, rounding, structures, units, unstructured
from jaxsparse.select.structures import Structure
from jaxsparse.select.thresholds import Ties
from jaxsparse.types import Counts, Masks, Scores


@arguments.check(masks=arguments.masks, frozen=arguments.patterns)
def floors(
    masks: Masks,
    density: float,
    *,
    frozen: tuple[str, ...] = (),
    structure: Structure | None = None,
) -> Counts | None:
    """Computes the minimum number of weights that each layer keeps, on the host.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      density: minimum density of each layer, in [0, 1]. The count of a layer is rounded
        up to whole weights or, with a structure, to equally many whole units in every
        row. 0 means no minimum.
      frozen: shell patterns of leaf names; matching leaves are not selected from.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels`, `select.fan_in` or `select.diagonals`; None for single
        weights.

    Returns:
      Python integers with the nesting of `masks`, 0 for frozen leaves; None if the
      density is 0.

    Raises:
      ValueError: if the density is out of range, or a leaf does not fit the structure.
      TypeError: if the density is not a number.

    Examples:
      >>> floors({"a": jnp.ones((64, 20), bool), "b": jnp.ones((20, 1), bool)}, 0.01)
      {'a': 13, 'b': 1}
    """
    arguments.number(0, 1)("min_layer_density", density)
    if not density:
        return None
    # `Fraction(str(x))` is the decimal number as written. The float itself may be
    # slightly larger, and rounding up would then add a weight.
    structure, exact = structures.bound(structure, masks), Fraction(str(density))
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)

    def count(name: str, shape: tuple[int, ...]) -> int:
        if masks_lib.matches(name, frozen):
            return 0
        unit = rounding.unit_step(units.unit_view(structure, name, shape))
        return math.ceil(math.prod(shape) * exact / unit) * unit

    counts = [count(n, leaf.shape) for n, leaf in zip(names, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(masks), counts)


@arguments.check(count=arguments.integer(), frozen=arguments.patterns)
def top_k_global_at_least(
    scores: Scores,
    count: Int[Array, ""] | int,
    minimums: Counts | None,
    *,
    candidates: Masks | None = None,
    frozen: tuple[str, ...] = (),
    ties: Ties = "spread",
    structure: Structure | None = None,
) -> Masks:
    """Keeps the highest scores over all layers, with a minimum number per layer.

    Each layer first keeps its highest scores up to its minimum. The rest of the count
    goes to the highest remaining scores over all layers. The total is the same as that
    of `top_k_global`.

    Args:
      scores: real score of each weight, higher is better; None where a leaf is not
        prunable.
      count: number of weights to keep over all leaves that are not frozen, minimums
        included; a concrete or traced integer, at least the sum of the minimums. With
        2**31 weights or more in these leaves, a traced one must be int64.
      minimums: minimum number of weights of each layer, from `floors`; None for no
        minimums.
      candidates: masks of the weights that may be kept; None allows every weight. A
        layer with fewer candidates than its minimum keeps all of them.
      frozen: shell patterns of leaf names. Matching leaves keep their mask in
        `candidates`, or every weight if that is None, and are not counted in `count`.
      ties: what to do with equal scores at the threshold over all layers: "spread"
        keeps exactly `count` weights and chooses among equal scores by a fixed
        pseudo-random order of positions; "drop" removes all of them if not all can be
        kept. Ties at the minimum of a layer are always resolved by "spread".
      structure: structured sparsity with one row per leaf and units of equal size, such
        as `blocks((4, 4))`; None selects weights one by one. `count` then counts
        weights too.

    Returns:
      Boolean masks with the nesting of `scores`; None where the score is None.

    Raises:
      ValueError: if a count, a pattern, a tree or a leaf does not fit, or a concrete
        score of a candidate is not finite.
      TypeError: if a count is not an integer, a score is not a real number or a mask is
        not boolean.
    """
    if minimums is None:
        return unstructured.top_k_global(
            scores,
            count,
            candidates=candidates,
            frozen=frozen,
            ties=ties,
            structure=structure,
        )
    sizes = {name: np.size(leaf) for name, leaf in tree.named_leaves(scores).items()}
    is_frozen = {name: masks_lib.matches(name, frozen) for name in sizes}
    floor = tree.map_with_names(
        lambda name, minimum: rounding.to_array(minimum, sizes.get(name, 0)), minimums
    )
    within_minimums = unstructured.top_k_per_layer(
        scores, floor, candidates=candidates, frozen=frozen, structure=structure
    )
    allowed = (
        jax.tree.map(jnp.ones_like, within_minimums)
        if candidates is None
        else candidates
    )
    total = sum(size for name, size in sizes.items() if not is_frozen[name])
    named = tree.named_leaves(within_minimums).items()
    num_kept = rounding.count_active([m for n, m in named if not is_frozen[n]], total)
    with inputs.wide(total >= inputs.LIMIT):
        remaining = jnp.asarray(count, num_kept.dtype) - num_kept
    others = unstructured.top_k_global(
        scores,
        remaining,
        candidates=jax.tree.map(
            lambda mask, kept: mask & ~kept, allowed, within_minimums
        ),
        frozen=frozen,
        ties=ties,
        structure=structure,
    )
    return jax.tree.map(jnp.logical_or, within_minimums, others)
