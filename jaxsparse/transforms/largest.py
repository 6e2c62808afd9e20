"""Keeping the largest weights, as many as a table says."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
from jaxtyping import Array, Int

from jaxsparse import distributions, fan_axes, scores, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import starting
from jaxsparse.transforms.starting import Distribution
from jaxsparse.types import Counts, Masks, Params

Choice = Callable[[Masks, Params, list[Fraction], Int[Array, ""]], Masks]


def make_choice(
    *,
    distribution: Distribution,
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    min_layer_density: float = 0.0,
    axes: fan_axes.Axes = None,
) -> Choice:
    """Makes the function that keeps the largest weights, of a table of sparsities.

    Args:
      distribution: "global", a name of `distributions.NAMES`, or a function.
      dense: shell patterns of layers to keep whole.
      structure: which weights stand or fall together.
      min_layer_density: for "global", see `gradual_magnitude`.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`.

    Returns:
      A function of masks outside which nothing is kept, weights, the table, and which
      of its rows to use (traced) to masks.

    Raises:
      ValueError: if the density is out of range, or given without "global".
    """
    if not 0 <= min_layer_density <= 1 or (
        min_layer_density and distribution != "global"
    ):
        raise ValueError(
            f"min_layer_density: got {min_layer_density} with distribution "
            f"{distribution!r}; wanted a part in [0, 1], with 'global'"
        )
    known: dict[Any, list[Counts]] = {}  # long tables take long

    def tabulate(
        masks: Masks, table: list[Fraction], tied: Any, layouts: fan_axes.TreeAxes
    ) -> list[Counts]:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(masks))
        name = (tuple(masks_lib.names(masks)), shapes, tuple(table), layouts)
        if name not in known:
            known[name] = [
                starting.layer_counts(
                    masks,
                    part,
                    distribution=distribution,
                    dense=dense,
                    structure=tied,
                    axes=layouts,
                )
                for part in table
            ]
        return known[name]

    def layerwise(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        layouts = fan_axes.of_tree(params, axes)
        tied = select.bind(structure, params, axes=layouts, dense=dense)
        sizes = {name: leaf.size for name, leaf in tree.named_leaves(masks).items()}
        counts = tree.map_with_names(
            lambda name, *of_leaf: select.look_up(of_leaf, index, sizes[name]),
            *tabulate(masks, table, tied, layouts),
        )
        worth = scores.magnitude(params, masks)
        return select.per_layer(worth, counts, within=masks, structure=tied)

    def globally(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        tied = select.bind(structure, params, axes=axes, dense=dense)
        layers = dict(zip(masks_lib.names(masks), jax.tree.leaves(masks), strict=True))
        masks_lib.check_globs(dense, list(layers), field="dense")
        whole = sum(
            leaf.size for name, leaf in layers.items() if masks_lib.matches(name, dense)
        )
        least = select.floors(masks, min_layer_density, ignored=dense, structure=tied)
        needed, total = sum(jax.tree.leaves(least)), masks_lib.total(masks)
        counts = [distributions.count_kept(total, part) - whole for part in table]
        if min(counts) < needed:
            raise ValueError(
                f"sparsity: keeps {min(counts) + whole} of {total} weights, where the "
                f"layers in dense={dense} and min_layer_density={min_layer_density} "
                f"need {whole + needed}; wanted a lower sparsity, or less of these"
            )
        return select.globally_at_least(
            scores.magnitude(params, masks),
            select.look_up(counts, index, total - whole),
            least,
            within=masks,
            ignored=dense,
            structure=tied,
        )

    return globally if distribution == "global" else layerwise
