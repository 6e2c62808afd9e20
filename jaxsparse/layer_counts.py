"""Counts of weights by layer: what can be one, and what each layer keeps at least."""

import warnings
from typing import Any

import jax
import numpy as np

from jaxsparse import masks as masks_lib
from jaxsparse.types import Counts, Masks


def checked(masks: Masks, counts: Any) -> Counts:
    """Refuses counts of a user's function that do not fit; warns of those that are 0.

    Args:
      masks: which leaves are prunable; only names and shapes are used.
      counts: what the function returned.

    Returns:
      Python integers with the nesting of `masks`.

    Raises:
      ValueError: if the leaves are not those of `masks`, or a count is below 0 or
        above the size of its leaf.
      TypeError: if a count is no whole number that is known now.
    """
    names, found = masks_lib.names(masks), masks_lib.names(counts)
    if found != names:
        raise ValueError(
            f"distribution: expected a function that returns counts for the leaves "
            f"{names}, got counts for {found}"
        )
    sizes = [leaf.size for leaf in jax.tree.leaves(masks)]
    whole = []
    for name, size, count in zip(names, sizes, jax.tree.leaves(counts), strict=True):
        is_known = not isinstance(count, jax.core.Tracer | bool) and np.ndim(count) == 0
        if not (is_known and np.issubdtype(np.asarray(count).dtype, np.integer)):
            raise TypeError(
                f"distribution: expected a whole number of weights for {name}, got "
                f"{count!r}; return Python integers"
            )
        if not 0 <= count <= size:
            raise ValueError(
                f"distribution: expected 0 to {size} weights for {name}, its size, "
                f"got {count}"
            )
        whole.append(int(count))
    empty = [n for n, s, c in zip(names, sizes, whole, strict=True) if s and not c]
    if empty:
        warnings.warn(
            f"distribution: the function leaves no weight in {empty}, so that nothing "
            "passes these layers; return at least 1 for each",
            stacklevel=4,  # past `divide` and what looks at its arguments
        )
    return jax.tree.unflatten(jax.tree.structure(masks), whole)


def empty(masks: Masks) -> list[str]:
    """Lists the layers that keep no weight, by name; on the host.

    Args:
      masks: concrete masks, with or without leading axes of replicates.

    Returns:
      The names of the leaves that have weights and keep none of them.
    """
    layers = masks_lib.by_layer(masks).items()
    return [name for name, count in layers if count.total and not count.kept]


def warn_if_empty(masks: Masks, *, remedy: str, stacklevel: int = 2) -> None:
    """Warns by name of layers that keep no weight, where masks are known.

    Args:
      masks: masks; nothing is done for those that are traced or on other hosts.
      remedy: what to do, the end of the message.
      stacklevel: as in `warnings.warn`, from the caller.
    """
    for leaf in jax.tree.leaves(masks):
        if isinstance(leaf, jax.core.Tracer):
            return
        if not getattr(leaf, "is_fully_addressable", True):
            return
    if names := empty(masks):
        warnings.warn(
            f"masks: no weight is left in {names}, so that nothing passes these "
            f"layers; {remedy}",
            stacklevel=stacklevel + 1,
        )
