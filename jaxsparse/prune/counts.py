"""How many weights to keep: over all layers together, or in each layer."""

import jax
from jaxtyping import Array, Int

from jaxsparse import distributions, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.config import nearest
from jaxsparse.layer_options import LayerOptions
from jaxsparse.types import Counts, Masks


def is_pooled(counts: Counts) -> bool:
    """Returns whether `counts` is a single count for all layers together.

    Args:
      counts: an integer, or a tree with an integer for each prunable leaf.
    """
    return jax.tree.structure(counts) == jax.tree.structure(0)


def floors(masks: Masks, layers: LayerOptions) -> Counts | None:
    """Computes the minimum number of weights of the layers; None without minimum.

    Args:
      masks: dense masks.
      layers: options with a bound structure. The distribution must be "global" if
        `min_layer_density` is above 0.

    Raises:
      ValueError: if a density above 0 is combined with another distribution.
    """
    density, distribution = layers.min_layer_density, layers.distribution
    if density and distribution != "global":
        raise ValueError(
            f"min_layer_density: expected 0 with distribution {distribution!r}, which "
            f"keeps a weight of every layer, got {density}; use distribution='global'"
        )
    return select.floors(
        masks, density, frozen=layers.dense, structure=layers.structure
    )


def make(
    masks: Masks, sparsity: float, layers: LayerOptions, minimums: Counts | None
) -> Counts:
    """Computes the number of weights to keep, of each layer or over all layers.

    Args:
      masks: dense masks.
      sparsity: fraction to remove, in [0, 1).
      layers: options with the layouts of the leaves.
      minimums: minimum number of weights of each layer; None for no minimum.

    Returns:
      With "global", one integer for all layers that are not dense together. Otherwise a
      count for each prunable leaf.

    Raises:
      ValueError: if the distribution is unknown, a pattern matches no leaf, or the
        dense layers and minimum counts need more weights than the sparsity keeps.
    """
    distribution, dense = layers.distribution, layers.dense
    if distribution != "global":
        if isinstance(distribution, str) and distribution not in distributions.NAMES:
            known = ["global", *distributions.NAMES]
            raise ValueError(
                f"distribution: expected one of {known}, got {distribution!r}; did you "
                f"mean {nearest(distribution, known)}?"
            )
        return distributions.divide(
            distribution, masks, sparsity, dense=dense, axes=layers.axes
        )
    names, leaves = masks_lib.names(masks), jax.tree.leaves(masks)
    masks_lib.check_globs(dense, names, field="dense")
    num_dense = sum(
        leaf.size
        for name, leaf in zip(names, leaves, strict=True)
        if masks_lib.matches(name, dense)
    )
    num_active = distributions.count_kept(masks_lib.size(masks), sparsity)
    if num_dense > num_active:
        raise ValueError(
            f"dense: expected layers of at most {num_active} weights, which sparsity "
            f"{sparsity} keeps, got {num_dense} in the layers matching {dense}; use a "
            "lower sparsity or other dense layers"
        )
    # Without minimums, `minimums` is None, a tree without leaves, and the sum is 0.
    needed = sum(jax.tree.leaves(minimums))
    if needed > num_active - num_dense:
        raise ValueError(
            f"min_layer_density: expected minimums of at most {num_active - num_dense} "
            f"weights, which sparsity {sparsity} leaves to these layers, got {needed}; "
            "use a lower minimum density or a lower sparsity"
        )
    return num_active - num_dense


def at_iteration(
    masks: Masks, plan: list[Counts], index: Int[Array, ""], dense: tuple[str, ...]
) -> Counts:
    """Reads the counts of one iteration by a traced index.

    Args:
      masks: masks of the network; only names and shapes are used.
      plan: counts of every iteration, integers or trees of integers.
      index: number of the iteration, from 0; int32, traced.
      dense: shell patterns of leaf names to keep dense.
    """
    sizes = {name: leaf.size for name, leaf in tree.named_leaves(masks).items()}
    if is_pooled(plan[0]):
        # The number of competing weights determines whether counts need int64.
        competing = [
            size for name, size in sizes.items() if not tree.matches(name, dense)
        ]
        return select.count_at(plan, index, sum(competing))
    return tree.map_with_names(
        lambda name, *of_leaf: select.count_at(of_leaf, index, sizes[name]), *plan
    )
