"""Layers: the arguments of a selection, leaf by leaf.

Joins the trees that a selection is given, refuses those that do not fit together, and
builds masks of what was selected. What is selected is up to `bisection` and `units`.
"""

import contextlib
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Real

from jaxsparse import masks
from jaxsparse.types import Count, Masks, Scores

AxisName = str | tuple[str, ...] | None
# From here on weights that compete are numbered and counted in int64.
LIMIT = 2**31


class Layer(NamedTuple):
    """One prunable leaf: its arguments to the public functions.

    Attributes:
      name: of the leaf.
      score: what each weight is worth.
      candidates: which weights may be kept; None allows every one.
      frozen: whether the leaf stays as `candidates` has it.
    """

    name: str
    score: Real[Array, "..."] | Real[np.ndarray, "..."]
    candidates: Bool[Array, "..."] | None
    frozen: bool


def read(
    scores: Scores,
    candidates: Masks | None,
    frozen: tuple[str, ...],
    axis_name: AxisName,
) -> list[Layer]:
    """Joins the trees leaf by leaf, and refuses those that do not fit."""
    names, leaves = masks.names(scores), jax.tree.leaves(scores)
    masks.check_globs(frozen, names, field="frozen")
    if candidates is not None and masks.names(candidates) != names:
        raise ValueError(
            f"candidates: got the leaves {masks.names(candidates)}; wanted {names}, "
            "as scores"
        )
    allowed = (
        [None] * len(leaves) if candidates is None else jax.tree.leaves(candidates)
    )
    layers = []
    for name, leaf, mask in zip(names, leaves, allowed, strict=True):
        check_score(name, leaf)
        if mask is not None:
            check_candidates(name, mask, leaf.shape)
        if axis_name is not None and leaf.ndim == 0:
            raise ValueError(
                f"scores: {name} is a scalar, which {axis_name!r} cannot split; wanted "
                "one axis or more; leave it out or select outside `shard_map`"
            )
        stays = masks.matches(name, frozen)
        if stays and mask is None:
            mask = jnp.ones(leaf.shape, bool)
        layers.append(Layer(name, leaf, mask, stays))
    if all(layer.frozen for layer in layers):
        raise ValueError(
            f"scores: no leaf to select from; got the leaves {names}, of which "
            f"{frozen} are frozen; expected at least one left"
        )
    return layers


def check_score(name: str, leaf: Any) -> None:
    """Refuses a score that is no array of numbers."""
    dtype = getattr(leaf, "dtype", None)
    is_real = dtype is not None and (
        jnp.issubdtype(dtype, jnp.floating)
        or jnp.issubdtype(dtype, jnp.integer)
        or jnp.issubdtype(dtype, jnp.bool_)
    )
    if not is_real:
        raise TypeError(
            f"scores: {name}: expected an array of real numbers, got "
            f"{type(leaf).__name__ if dtype is None else dtype}; give one score a "
            "weight, None for leaves that are not prunable"
        )


def check_candidates(name: str, mask: Any, shape: tuple[int, ...]) -> None:
    """Refuses a mask that does not fit its score."""
    if not jnp.issubdtype(getattr(mask, "dtype", object), jnp.bool_):
        raise TypeError(
            f"candidates: {name}: expected a boolean array, got "
            f"{getattr(mask, 'dtype', type(mask).__name__)}; compare with `!= 0`"
        )
    if mask.shape != shape:
        raise ValueError(
            f"candidates: {name} has shape {mask.shape}; wanted {shape}, as scores"
        )


def write(scores: Scores, layers: list[Layer], kept: list[Bool[Array, "..."]]) -> Masks:
    """Builds masks from the selected layers and from those that stay."""
    selected = iter(kept)
    leaves = [layer.candidates if layer.frozen else next(selected) for layer in layers]
    return jax.tree.unflatten(jax.tree.structure(scores), leaves)


def size(layers: list[Layer], axis_name: AxisName) -> int:
    """Counts the weights of all layers, over all devices of the axis."""
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return devices * sum(layer.score.size for layer in layers)


def wide(needed: bool) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which JAX computes with 64 bits, if they are needed."""
    return jax.enable_x64(True) if needed else contextlib.nullcontext()


def is_double(layers: list[Layer]) -> bool:
    """Returns whether float32 is too short to tell the scores apart."""
    return any(is_long_type(layer.score.dtype) for layer in layers)


def is_long_type(dtype: Any) -> bool:
    """Returns whether numbers of a type need float64: itself, and long integers."""
    return dtype != jnp.float32 and dtype.itemsize >= 4


def is_long(layers: list[Layer], *, pooled: bool, axis_name: AxisName) -> bool:
    """Returns whether weights that compete are too many for int32.

    Args:
      layers: what is selected from.
      pooled: whether all layers compete.
      axis_name: as in `select.globally`.
    """
    sizes = [size([layer], axis_name) for layer in layers]
    return (sum(sizes) if pooled else max(sizes)) >= LIMIT


def read_count(
    count: Any,
    layers: list[Layer],
    where: str,
    axis_name: AxisName,
) -> Count:
    """Reads the count of weights to keep of layers that compete.

    Args:
      count: what was asked for.
      layers: those that compete.
      where: what to call them in a message.
      axis_name: as in `select.globally`.

    Returns:
      A Python integer that can be met, or the traced count.

    Raises:
      TypeError: if the count is not an integer.
      ValueError: if it cannot be met, or is traced and too short for the layers.
    """
    if isinstance(count, jax.core.Tracer):
        _check_traced(count, layers, where, axis_name)
        return count
    known = as_integer(count, f"count of {where}")
    available = size(layers, axis_name)
    allowed = [layer.candidates for layer in layers]
    if axis_name is None and all(_is_here(mask) for mask in allowed):
        available = sum(int(np.count_nonzero(np.asarray(mask))) for mask in allowed)
    if not 0 <= known <= available:
        raise ValueError(
            f"count of {where}: got {known}; wanted 0 to {available}, the weights that "
            "may be kept"
        )
    return known


def as_integer(count: Any, what: str) -> int:
    """Reads an integer that is known now: Python's, NumPy's or of an array.

    Args:
      count: the integer.
      what: its name in a message.

    Returns:
      The same as a Python integer.

    Raises:
      TypeError: if it is not one integer: a float, even if whole, or a boolean.
    """
    kind = getattr(count, "dtype", np.dtype(type(count)))
    if np.ndim(count) or not jnp.issubdtype(kind, jnp.integer):
        raise TypeError(
            f"{what}: expected one integer, got {count!r}; round it, such as with int()"
        )
    return operator.index(count)


def _check_traced(
    count: Array, layers: list[Layer], where: str, axis_name: AxisName
) -> None:
    """Refuses a traced count that is no integer, or too short for the layers."""
    if count.ndim or not jnp.issubdtype(count.dtype, jnp.integer):
        raise TypeError(
            f"count of {where}: expected one integer, got {count.dtype} of shape "
            f"{count.shape}; round it and convert it with `astype`"
        )
    if size(layers, axis_name) >= LIMIT and count.dtype.itemsize < 8:
        raise ValueError(
            f"count of {where}: expected a Python integer or a traced int64 to select "
            f"from {size(layers, axis_name)} weights, got a traced {count.dtype}; make "
            "it under `jax.enable_x64(True)`"
        )


def _is_here(mask: Bool[Array, "..."] | None) -> bool:
    """Says whether a mask is neither absent nor traced nor on other hosts."""
    if mask is None or isinstance(mask, jax.core.Tracer):
        return False
    return getattr(mask, "is_fully_addressable", True)  # numpy arrays are here
