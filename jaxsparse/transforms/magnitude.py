"""Magnitude pruning by a schedule of sparsities."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
from jaxtyping import Array, Int

from jaxsparse import distributions, scores, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import init_masks
from jaxsparse.types import Counts, Masks, Params

# (masks, params, table of sparsities, index of the row to use) -> masks
MaskFn = Callable[[Masks, Params, list[Fraction], Int[Array, ""]], Masks]
CountFn = Callable[[Masks, Params, list[Fraction], Int[Array, ""]], Counts]


def make_mask_fn(layers: LayerOptions) -> MaskFn:
    """Makes the function that keeps the largest weights, for a table of sparsities.

    Args:
      layers: how a sparsity is divided among layers; with a distribution. `prunable` is
        not used.

    Returns:
      A function `(masks, params, table, index)` to masks. `masks` limits which weights
      may be kept, `params` are the weights, `table` is a list of sparsities (exact
      fractions), and `index` is the row of the table to use, an int32 scalar that may
      be traced.

    Raises:
      ValueError: if `min_layer_density` is nonzero for a distribution other than
        "global".
    """
    is_global = layers.distribution == "global"
    if layers.min_layer_density and not is_global:
        raise ValueError(
            "min_layer_density: expected a density in [0, 1], and 0 unless the "
            f"distribution is 'global', got {layers.min_layer_density} with "
            f"distribution {layers.distribution!r}"
        )
    return _make_global(layers) if is_global else _make_layerwise(layers)


def make_count_fn(layers: LayerOptions) -> CountFn:
    """Makes the function that looks up the counts of layers, for a table of sparsities.

    Args:
      layers: how a sparsity is divided among layers; with a distribution other than
        "global".

    Returns:
      A function `(masks, params, table, index)`, as in `make_mask_fn`, to the number of
      active weights of each layer; traced int32.
    """
    # Cached, because a table may have 10**6 rows, and each of them is divided among the
    # layers in exact arithmetic.
    cache: dict[Any, list[Counts]] = {}

    def tabulate(
        masks: Masks, table: list[Fraction], bound: LayerOptions
    ) -> list[Counts]:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(masks))
        names = tuple(masks_lib.names(masks))
        cache_key = (names, shapes, tuple(table), bound.axes)
        if cache_key not in cache:
            cache[cache_key] = init_masks.tabulate(masks, table, bound)
        return cache[cache_key]

    def counts_at(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Counts:
        bound = init_masks.bind(layers, params)
        sizes = {name: leaf.size for name, leaf in tree.named_leaves(masks).items()}
        return tree.map_with_names(
            lambda name, *of_leaf: select.count_at(of_leaf, index, sizes[name]),
            *tabulate(masks, table, bound),
        )

    return counts_at


def _make_layerwise(layers: LayerOptions) -> MaskFn:
    """Makes the function for a distribution that sets the count of each layer."""
    counts_at = make_count_fn(layers)

    def layerwise(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        return select.top_k_per_layer(
            scores.magnitude(params, masks),
            counts_at(masks, params, table, index),
            candidates=masks,
            structure=init_masks.bind(layers, params).structure,
        )

    return layerwise


def _make_global(layers: LayerOptions) -> MaskFn:
    """Makes the function for one threshold over all layers."""
    dense = layers.dense

    def globally(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        structure = select.bind(layers.structure, params, axes=layers.axes, dense=dense)
        leaves = dict(zip(masks_lib.names(masks), jax.tree.leaves(masks), strict=True))
        masks_lib.check_globs(dense, list(leaves), field="dense")
        # Dense layers are not selected from, but count toward the sparsity.
        num_dense = sum(
            leaf.size for name, leaf in leaves.items() if masks_lib.matches(name, dense)
        )
        minimums = select.floors(
            masks, layers.min_layer_density, frozen=dense, structure=structure
        )
        needed, total = sum(jax.tree.leaves(minimums)), masks_lib.size(masks)
        counts = [
            distributions.count_kept(total, sparsity) - num_dense for sparsity in table
        ]
        # All rows are checked now, because the row that is used is known only at run
        # time.
        if min(counts) < needed:
            raise ValueError(
                f"sparsity: expected to keep at least {num_dense + needed} of {total} "
                f"weights, which dense={dense} and "
                f"min_layer_density={layers.min_layer_density} require, got "
                f"{min(counts) + num_dense}; use a lower sparsity, fewer dense layers, "
                "or a lower minimum density"
            )
        counts = select.round_totals(structure, masks, counts, frozen=dense)
        return select.top_k_global_at_least(
            scores.magnitude(params, masks),
            select.count_at(counts, index, total - num_dense),
            minimums,
            candidates=masks,
            frozen=dense,
            structure=structure,
        )

    return globally
