"""Layers: the arguments of a selection, leaf by leaf.

Joins the trees that a selection is given, refuses those that do not fit together, and
builds masks of what was selected. What is selected is up to `bisection` and `units`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxsparse import masks
from jaxsparse.types import Masks, Scores

AxisName = str | tuple[str, ...] | None


class Layer(NamedTuple):
    """One prunable leaf: its arguments to the public functions.

    Attributes:
      name: of the leaf.
      score: what each weight is worth.
      within: which weights may be kept; None allows every one.
      ignored: whether the leaf stays as `within` has it.
    """

    name: str
    score: Float[Array, "..."]
    within: Bool[Array, "..."] | None
    ignored: bool


def read(
    scores: Scores,
    within: Masks | None,
    ignored: tuple[str, ...],
    axis_name: AxisName,
) -> list[Layer]:
    """Joins the trees leaf by leaf, and refuses those that do not fit."""
    names, leaves = masks.names(scores), jax.tree.leaves(scores)
    masks.check_globs(ignored, names, field="ignored")
    if within is not None and masks.names(within) != names:
        raise ValueError(
            f"within: got the leaves {masks.names(within)}; wanted {names}, as scores"
        )
    allowed = [None] * len(leaves) if within is None else jax.tree.leaves(within)
    layers = []
    for name, leaf, mask in zip(names, leaves, allowed, strict=True):
        if mask is not None and mask.shape != leaf.shape:
            raise ValueError(
                f"within: {name} has shape {mask.shape}; wanted {leaf.shape}, as scores"
            )
        if axis_name is not None and leaf.ndim == 0:
            raise ValueError(
                f"scores: {name} is a scalar, which {axis_name!r} cannot split; wanted "
                "one axis or more; leave it out or select outside `shard_map`"
            )
        stays = masks.matches(name, ignored)
        if stays and mask is None:
            mask = jnp.ones(leaf.shape, bool)
        layers.append(Layer(name, leaf, mask, stays))
    if all(layer.ignored for layer in layers):
        raise ValueError(
            f"scores: no leaf to select from; prunable are {names}, of which {ignored} "
            "are ignored; wanted at least one left"
        )
    return layers


def write(scores: Scores, layers: list[Layer], kept: list[Bool[Array, "..."]]) -> Masks:
    """Builds masks from the selected layers and from those that stay."""
    selected = iter(kept)
    leaves = [layer.within if layer.ignored else next(selected) for layer in layers]
    return jax.tree.unflatten(jax.tree.structure(scores), leaves)


def size(layers: list[Layer], axis_name: AxisName) -> int:
    """Counts the weights of all layers, over all devices of the axis."""
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return devices * sum(layer.score.size for layer in layers)


def check_size(layers: list[Layer], axis_name: AxisName) -> None:
    """Refuses more weights than int32 counts."""
    total = size(layers, axis_name)
    if total >= 2**31:
        raise ValueError(
            f"scores: got {total} weights, where counts are int32; wanted fewer than "
            "2**31; select from fewer layers at a time"
        )


def check_count(
    count: Int[Array, ""] | int, layers: list[Layer], where: str, axis_name: AxisName
) -> None:
    """Refuses a count that is known now and cannot be met."""
    if not isinstance(count, int):
        return
    available = size(layers, axis_name)
    allowed = [layer.within for layer in layers]
    if axis_name is None and all(_is_here(mask) for mask in allowed):
        available = sum(int(np.count_nonzero(np.asarray(mask))) for mask in allowed)
    if not 0 <= count <= available:
        raise ValueError(
            f"count of {where}: got {count}; wanted 0 to {available}, the weights that "
            "may be kept"
        )


def _is_here(mask: Bool[Array, "..."] | None) -> bool:
    """Says whether a mask is neither absent nor traced nor on other hosts."""
    if mask is None or isinstance(mask, jax.core.Tracer):
        return False
    return getattr(mask, "is_fully_addressable", True)  # numpy arrays are here
