"""Divides a count among layers in proportion to weights, exactly."""

from collections.abc import Callable
from fractions import Fraction

import jax

from jaxsparse import apportionment, fan_axes
from jaxsparse import masks as masks_lib
from jaxsparse.distributions.counts import count_kept
from jaxsparse.types import Counts, Masks

Weigh = Callable[[fan_axes.Fans], int]
# From a sparsity to a count for each prunable leaf.
Divider = Callable[[float | Fraction], Counts]


def equally(masks: Masks, dense: tuple[str, ...]) -> Divider:
    """Makes the function that gives each layer that is not dense the same sparsity.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      dense: shell patterns of leaf names to keep dense, in addition to the weights that
        the sparsity keeps.

    Returns:
      A function of a sparsity in [0, 1) to a count for each prunable leaf, None
      elsewhere. It raises ValueError if the sparsity leaves less than one weight per
      layer.

    Raises:
      ValueError: if a pattern matches no leaf.
    """
    sizes = [leaf.size for leaf in jax.tree.leaves(masks)]
    fixed = is_dense(masks, dense)
    sparse = sum(size for size, full in zip(sizes, fixed, strict=True) if not full)
    weights, structure = [Fraction(s) for s in sizes], jax.tree.structure(masks)

    def divide(sparsity: float | Fraction) -> Counts:
        # The division gives dense layers their size, so the target includes it.
        target = count_kept(sparse, sparsity) + sum(sizes) - sparse
        counts = _divide(target, sizes, weights, fixed, sparsity)
        return jax.tree.unflatten(structure, counts)

    return divide


def in_proportion(
    masks: Masks, dense: tuple[str, ...], axes: fan_axes.Axes, weigh: Weigh
) -> Divider:
    """Makes the function that divides the kept weights in proportion to `weigh`.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      dense: shell patterns of leaf names to keep dense.
      axes: which axes of the leaves are inputs and outputs; None to infer them.
      weigh: function of the fans of a leaf to its proportion.

    Returns:
      A function of the sparsity of all prunable weights together, in [0, 1), to a count
      for each prunable leaf, None elsewhere. It raises ValueError if no division keeps
      the dense layers and one weight in each other layer.

    Raises:
      ValueError: if a pattern matches no leaf, or a leaf has fewer than two axes.
    """
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)
    fixed, layouts = is_dense(masks, dense), fan_axes.of_tree(masks, axes)
    weights = [
        Fraction(weigh(fan_axes.fans(layouts[name], name, leaf.shape)))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    sizes, structure = [leaf.size for leaf in leaves], jax.tree.structure(masks)
    total = sum(sizes)
    num_dense = sum(size for size, full in zip(sizes, fixed, strict=True) if full)

    def divide(sparsity: float | Fraction) -> Counts:
        target = count_kept(total, sparsity)
        # Checked here and not in `_divide`, so that the message names the dense layers.
        if num_dense > target:
            raise ValueError(
                f"dense: expected layers of at most {target} weights, which sparsity "
                f"{sparsity} keeps of {total}, got {num_dense} in the layers matching "
                f"{dense}, whose weights count; use a lower sparsity or other dense "
                "layers, or exclude them from the count by `prunable`, as in "
                "('*/kernel', '!head/*')"
            )
        counts = _divide(target, sizes, weights, fixed, sparsity)
        return jax.tree.unflatten(structure, counts)

    return divide


def _divide(
    target: int,
    sizes: list[int],
    weights: list[Fraction],
    is_dense: list[bool],
    sparsity: float | Fraction,
) -> list[int]:
    """Divides a count by weights; raises if it is too low for one weight in each layer.

    Args:
      target: number of weights to keep.
      sizes: sizes of the prunable leaves.
      weights: proportions of the prunable leaves.
      is_dense: which prunable leaves are kept dense.
      sparsity: fraction to remove, for the error message.

    Returns:
      A count for each prunable leaf.

    Raises:
      ValueError: if the target is too low.
    """
    try:
        return apportionment.divide(target, sizes, weights, is_dense)
    except ValueError as error:
        raise ValueError(
            f"sparsity: expected one weight or more for each of {len(sizes)} layers, "
            f"{sum(is_dense)} of them dense, got {sparsity}, which keeps {target} of "
            f"{sum(sizes)} weights; use a lower sparsity, fewer dense layers, or fewer "
            "prunable ones"
        ) from error


def is_dense(masks: Masks, dense: tuple[str, ...]) -> list[bool]:
    """Returns for each prunable leaf whether it is kept dense.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      dense: shell patterns of leaf names to keep dense.

    Returns:
      A list in the order of the prunable leaves.

    Raises:
      ValueError: if a pattern matches no leaf.
    """
    names = masks_lib.names(masks)
    masks_lib.check_globs(dense, names, field="dense")
    return [masks_lib.matches(name, dense) for name in names]
