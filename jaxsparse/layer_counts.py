"""Checks of the numbers of weights that layers keep."""

from typing import Any

import jax
import numpy as np

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.types import Counts, Masks


def checked(masks: Masks, counts: Any) -> Counts:
    """Validates the counts of a user's function and warns of empty layers.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      counts: return value of the function, a tree with one count per prunable leaf.

    Returns:
      Python integers with the nesting of `masks`.

    Raises:
      ValueError: if the leaf names are not those of `masks`, or a count is below 0 or
        above the size of its leaf.
      TypeError: if a count is not a concrete integer.

    Warns:
      UserWarning: if a leaf that has weights gets the count 0; the message names it.
    """
    names, counted = masks_lib.names(masks), masks_lib.names(counts)
    if counted != names:
        raise ValueError(
            f"distribution: expected a function that returns counts for the leaves "
            f"{names}, got counts for {counted}"
        )
    sizes = [leaf.size for leaf in jax.tree.leaves(masks)]
    integers = []
    # Integers are required, not integral floats, because float32 cannot represent every
    # count above 2**24. Tracers would make the counts unknown before compilation.
    for name, size, count in zip(names, sizes, jax.tree.leaves(counts), strict=True):
        is_known = not isinstance(count, jax.core.Tracer | bool) and np.ndim(count) == 0
        if not (is_known and np.issubdtype(np.asarray(count).dtype, np.integer)):
            raise TypeError(
                f"distribution: expected an integer number of weights for {name}, got "
                f"{count!r}; return Python integers"
            )
        if not 0 <= count <= size:
            raise ValueError(
                f"distribution: expected 0 to {size} weights for {name}, its size, "
                f"got {count}"
            )
        integers.append(int(count))
    empty = [n for n, s, c in zip(names, sizes, integers, strict=True) if s and not c]
    if empty:
        arguments.warn(
            "distribution: expected a function that leaves weights in every layer, got "
            f"0 for {empty}, so that these layers pass no signal; return at least 1 "
            "for each"
        )
    return jax.tree.unflatten(jax.tree.structure(masks), integers)


def empty(masks: Masks) -> list[str]:
    """Lists the names of the layers that keep no weight; runs on the host.

    Args:
      masks: concrete masks, with or without leading axes of replicates.

    Returns:
      The names of the prunable leaves that have weights and keep none of them. With
      replicates, only layers that are empty in all replicates are listed.
    """
    layers = masks_lib.layer_counts(masks).items()
    return [name for name, count in layers if count.size and not count.num_active]


def warn_if_empty(masks: Masks, *, remedy: str) -> None:
    """Warns of layers that keep no weight, if the masks are known.

    Args:
      masks: masks. Nothing is done if any of them is traced or has parts on other
        hosts.
      remedy: what the user can do; the end of the message.

    Warns:
      UserWarning: if a layer is empty; the message names it.
    """
    for leaf in jax.tree.leaves(masks):
        if isinstance(leaf, jax.core.Tracer):
            return
        if not getattr(leaf, "is_fully_addressable", True):
            return
    if names := empty(masks):
        arguments.warn(
            f"masks: expected active weights in every layer, got none in {names}, so "
            f"that these layers pass no signal; {remedy}"
        )
