"""Keeping the largest weights, as many as a table says."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxsparse import distributions, scores, select
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
) -> Choice:
    """Makes the function that keeps the largest weights, of a table of sparsities.

    Args:
      distribution: "global", a name of `distributions.NAMES`, or a function.
      dense: shell patterns of layers to keep whole.
      structure: which weights stand or fall together.
      min_layer_density: for "global", see `gradual_magnitude`.

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
    density = Fraction(str(min_layer_density))
    known: dict[Any, list[Counts]] = {}  # long tables take long

    def tabulate(masks: Masks, table: list[Fraction]) -> list[Counts]:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(masks))
        name = (tuple(masks_lib.names(masks)), shapes, tuple(table))
        if name not in known:
            known[name] = [
                starting.layer_counts(
                    masks,
                    part,
                    distribution=distribution,
                    dense=dense,
                    structure=structure,
                )
                for part in table
            ]
        return known[name]

    def layerwise(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        counts = jax.tree.map(
            lambda *of_leaf: jnp.asarray(np.array(of_leaf, np.int32))[index],
            *tabulate(masks, table),
        )
        worth = scores.magnitude(params, masks)
        return select.per_layer(worth, counts, within=masks, structure=structure)

    def globally(
        masks: Masks, params: Params, table: list[Fraction], index: Int[Array, ""]
    ) -> Masks:
        layers = dict(zip(masks_lib.names(masks), jax.tree.leaves(masks), strict=True))
        masks_lib.check_globs(dense, list(layers), field="dense")
        sizes = {
            name: leaf.size
            for name, leaf in layers.items()
            if not masks_lib.matches(name, dense)
        }
        least = {name: math.ceil(size * density) for name, size in sizes.items()}
        total = masks_lib.total(masks)
        whole = total - sum(sizes.values())
        counts = [distributions.count_kept(total, part) - whole for part in table]
        if min(counts) < sum(least.values()):
            raise ValueError(
                f"sparsity: keeps {min(counts) + whole} of {total} weights, where the "
                f"layers in dense={dense} and min_layer_density={min_layer_density} "
                f"need {whole + sum(least.values())}; wanted a lower sparsity, or less "
                "of these"
            )
        worth = scores.magnitude(params, masks)
        count = jnp.asarray(np.array(counts, np.int32))[index]
        if not density:
            return select.globally(
                worth, count, within=masks, ignored=dense, structure=structure
            )
        floor = jax.tree_util.tree_map_with_path(
            lambda path, leaf: least.get(masks_lib.name_of(path), leaf.size), masks
        )
        floor = jax.tree.map(jnp.int32, floor)
        safe = select.per_layer(worth, floor, within=masks, structure=structure)
        others = jax.tree.map(lambda mask, held: mask & ~held, masks, safe)
        more = count - sum(least.values())
        rest = select.globally(
            worth, more, within=others, ignored=dense, structure=structure
        )
        return jax.tree.map(jnp.logical_or, safe, rest)

    return globally if distribution == "global" else layerwise
