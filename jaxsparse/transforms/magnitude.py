"""Magnitude pruning to the sparsities in a table."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
from jaxtyping import Array, Int

from jaxsparse import distributions, fan_axes, scores, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import init_masks
from jaxsparse.transforms.init_masks import Distribution
from jaxsparse.types import Counts, Masks, Params

# (masks, params, table of sparsities, index of the row to use) -> masks
MaskFn = Callable[[Masks, Params, list[Fraction], Int[Array, ""]], Masks]


def make_mask_fn(
    *,
    distribution: Distribution,
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    min_layer_density: float = 0.0,
    axes: fan_axes.Axes = None,
) -> MaskFn:
    """Makes the function that keeps the largest weights, for a table of sparsities.

    Args:
      distribution: "global" for one threshold over all layers; or how the active
        weights are divided among layers: a name in `distributions.NAMES` ("uniform",
        "balanced", "er" or "erk"), or a function of masks and sparsity that returns the
        number of active weights of each layer.
      dense: shell patterns of leaf names; matching layers stay dense and need not fit
        `structure`. Must be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one. With
        distribution "global", it must be `blocks` or `channels`, with units of the same
        size in all layers.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights or structural units; other layers are pruned more to compensate. Only
        for distribution "global".
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      A function `(masks, params, table, index)` to masks. `masks` limits which weights
      may be kept, `params` are the weights, `table` is a list of sparsities (exact
      fractions), and `index` is the row of the table to use, an int32 scalar that may
      be traced.

    Raises:
      ValueError: if `min_layer_density` is out of range, or nonzero for a distribution
        other than "global".
    """
    if not 0 <= min_layer_density <= 1 or (
        min_layer_density and distribution != "global"
    ):
        raise ValueError(
            "min_layer_density: expected a density in [0, 1], and 0 unless the "
            f"distribution is 'global', got {min_layer_density} with distribution "
            f"{distribution!r}"
        )
    # Cached, because a table may have 10**6 rows, and each of them is divided among the
    # layers in exact arithmetic.
    cache: dict[Any, list[Counts]] = {}

    def tabulate(
        masks: Masks,
        table: list[Fraction],
        bound_structure: Any,
        layouts: fan_axes.TreeAxes,
    ) -> list[Counts]:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(masks))
        cache_key = (tuple(masks_lib.names(masks)), shapes, tuple(table), layouts)
        if cache_key not in cache:
            cache[cache_key] = [
                init_masks.layer_counts(
                    masks,
                    sparsity,
                    distribution=distribution,
                    dense=dense,
                    structure=bound_structure,
                    axes=layouts,
                )
                for sparsity in table
            ]
        return cache[cache_key]

    def layerwise(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        # Layouts are inferred from the parameters: masks lack the biases, whose shapes
        # tell which leading axes of a kernel are stacked layers.
        layouts = fan_axes.of_tree(params, axes)
        bound_structure = select.bind(structure, params, axes=layouts, dense=dense)
        sizes = {name: leaf.size for name, leaf in tree.named_leaves(masks).items()}
        counts = tree.map_with_names(
            lambda name, *of_leaf: select.count_at(of_leaf, index, sizes[name]),
            *tabulate(masks, table, bound_structure, layouts),
        )
        weight_scores = scores.magnitude(params, masks)
        return select.top_k_per_layer(
            weight_scores, counts, candidates=masks, structure=bound_structure
        )

    def globally(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        bound_structure = select.bind(structure, params, axes=axes, dense=dense)
        layers = dict(zip(masks_lib.names(masks), jax.tree.leaves(masks), strict=True))
        masks_lib.check_globs(dense, list(layers), field="dense")
        # Dense layers are not selected from, but count toward the sparsity.
        num_dense = sum(
            leaf.size for name, leaf in layers.items() if masks_lib.matches(name, dense)
        )
        minimums = select.floors(
            masks, min_layer_density, frozen=dense, structure=bound_structure
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
                f"min_layer_density={min_layer_density} require, got "
                f"{min(counts) + num_dense}; use a lower sparsity, fewer dense layers, "
                "or a lower minimum density"
            )
        counts = select.round_totals(bound_structure, masks, counts, frozen=dense)
        return select.top_k_global_at_least(
            scores.magnitude(params, masks),
            select.count_at(counts, index, total - num_dense),
            minimums,
            candidates=masks,
            frozen=dense,
            structure=bound_structure,
        )

    return globally if distribution == "global" else layerwise
