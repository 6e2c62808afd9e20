"""Divides a count among layers in proportion to weights, exactly."""

from collections.abc import Callable
from fractions import Fraction

import jax

from jaxsparse import apportionment, fan_axes
from jaxsparse import masks as masks_lib
from jaxsparse.distributions.counts import count_kept
from jaxsparse.types import Counts, Masks

Weigh = Callable[[fan_axes.Fans], int]


def in_proportion(
    masks: Masks,
    sparsity: float | Fraction,
    dense: tuple[str, ...],
    axes: fan_axes.Axes,
    weigh: Weigh,
) -> Counts:
    """Divides the kept weights among layers in proportion to `weigh`.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove from all prunable weights together, in [0, 1).
      dense: shell patterns of leaf names to keep dense.
      axes: which axes of the leaves are inputs and outputs; None to infer them.
      weigh: function of the fans of a leaf to its proportion.

    Returns:
      A count for each prunable leaf, None elsewhere.

    Raises:
      ValueError: if no division keeps the dense layers and one weight in each other
        layer.
    """
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)
    dense_layers, layouts = is_dense(masks, dense), fan_axes.of_tree(masks, axes)
    weights = [
        Fraction(weigh(fan_axes.fans(layouts[name], name, leaf.shape)))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    total = sum(leaf.size for leaf in leaves)
    target = count_kept(total, sparsity)
    # Checked here and not in `divide`, so that the message names the dense layers.
    num_dense = sum(
        leaf.size for leaf, fixed in zip(leaves, dense_layers, strict=True) if fixed
    )
    if num_dense > target:
        raise ValueError(
            f"dense: expected layers of at most {target} weights, which sparsity "
            f"{sparsity} keeps of {total}, got {num_dense} in the layers matching "
            f"{dense}, whose weights count; use a lower sparsity or other dense "
            "layers, or exclude them from the count by `prunable`, as in "
            "('*/kernel', '!head/*')"
        )
    return divide(masks, sparsity, target, weights, dense_layers)


def divide(
    masks: Masks,
    sparsity: float | Fraction,
    target: int,
    weights: list[Fraction],
    is_dense: list[bool],
) -> Counts:
    """Divides a count by weights; raises if it is too low for one weight in each layer.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      sparsity: fraction to remove, for the error message.
      target: number of weights to keep.
      weights: proportion of each prunable leaf, in the order of leaves.
      is_dense: which prunable leaves are kept dense, in the order of leaves.

    Returns:
      A count for each prunable leaf, None elsewhere.

    Raises:
      ValueError: if the target is too low.
    """
    sizes = [leaf.size for leaf in jax.tree.leaves(masks)]
    try:
        counts = apportionment.divide(target, sizes, weights, is_dense)
    except ValueError as error:
        raise ValueError(
            f"sparsity: expected one weight or more for each of {len(sizes)} layers, "
            f"{sum(is_dense)} of them dense, got {sparsity}, which keeps {target} of "
            f"{sum(sizes)} weights; use a lower sparsity, fewer dense layers, or fewer "
            "prunable ones"
        ) from error
    return jax.tree.unflatten(jax.tree.structure(masks), counts)


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
