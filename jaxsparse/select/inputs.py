"""Reads and checks the arguments of a selection, leaf by leaf.

Combines the argument trees into one `Layer` per leaf, raises an error if they do not
fit together, and builds the tree of masks from the result. The selection itself is in
`thresholds` and `structured`.
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
# With this many competing weights or more, positions and counts overflow int32 and are
# computed in int64.
LIMIT = 2**31


class Layer(NamedTuple):
    """Arguments of a selection for one prunable leaf.

    Attributes:
      name: slash-joined path of the leaf.
      score: score of each weight, real; higher is better.
      candidates: boolean mask of the weights that may be kept, of the shape of `score`;
        None allows every weight.
      frozen: whether the leaf is not selected from, so that its mask stays
        `candidates`.
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
    """Combines the argument trees into one `Layer` per leaf and checks that they fit.

    Args:
      scores: score of each weight; None where a leaf is not prunable.
      candidates: masks of the weights that may be kept, with the leaves of `scores`;
        None allows every weight.
      frozen: shell patterns of leaf names; matching leaves are not selected from.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension; None outside `shard_map`.

    Returns:
      One layer per leaf, in the order of the tree's leaves. A frozen leaf without
      candidates gets a mask of ones.

    Raises:
      ValueError: if the trees have different leaves, a pattern matches no leaf, a mask
        has another shape than its scores, a scalar leaf would have to be split, or
        every leaf is frozen.
      TypeError: if a score is not an array of real numbers, a mask is not boolean, or
        `frozen` is not a sequence of strings.
    """
    names, leaves = masks.names(scores), jax.tree.leaves(scores)
    masks.check_globs(frozen, names, field="frozen")
    if candidates is not None and masks.names(candidates) != names:
        raise ValueError(
            f"candidates: expected the leaves of scores, {names}, got "
            f"{masks.names(candidates)}"
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
                f"scores: {name}: expected one axis or more, to split by "
                f"{axis_name!r}, got a scalar; leave it out or select outside "
                "`shard_map`"
            )
        is_frozen = masks.matches(name, frozen)
        if is_frozen and mask is None:
            mask = jnp.ones(leaf.shape, bool)
        layers.append(Layer(name, leaf, mask, is_frozen))
    if all(layer.frozen for layer in layers):
        raise ValueError(
            f"scores: expected at least one leaf that is not frozen, got {names} with "
            f"frozen={frozen}"
        )
    return layers


def check_score(name: str, leaf: Any) -> None:
    """Raises a TypeError if the scores of a leaf are not an array of real numbers.

    Args:
      name: name of the leaf, for the message.
      leaf: its scores.
    """
    dtype = getattr(leaf, "dtype", None)
    is_real = dtype is not None and (
        jnp.issubdtype(dtype, jnp.floating)
        or jnp.issubdtype(dtype, jnp.integer)
        or jnp.issubdtype(dtype, jnp.bool_)
    )
    if not is_real:
        raise TypeError(
            f"scores: {name}: expected an array of real numbers, got "
            f"{type(leaf).__name__ if dtype is None else dtype}; pass one score per "
            "weight, and None for leaves that are not prunable"
        )


def check_candidates(name: str, mask: Any, shape: tuple[int, ...]) -> None:
    """Raises an error if the mask of a leaf is not boolean or differs in shape.

    Args:
      name: name of the leaf, for the message.
      mask: its mask of candidates.
      shape: shape of its scores.
    """
    if not jnp.issubdtype(getattr(mask, "dtype", object), jnp.bool_):
        raise TypeError(
            f"candidates: {name}: expected a boolean array, got "
            f"{getattr(mask, 'dtype', type(mask).__name__)}; compare with `!= 0`"
        )
    if mask.shape != shape:
        raise ValueError(
            f"candidates: {name}: expected shape {shape}, as in scores, got "
            f"{mask.shape}"
        )


def write(scores: Scores, layers: list[Layer], kept: list[Bool[Array, "..."]]) -> Masks:
    """Builds the tree of masks from the selected layers and the frozen ones.

    Args:
      scores: tree whose nesting the masks get.
      layers: all layers, from `read`.
      kept: masks of the layers that are not frozen, in the same order.

    Returns:
      Masks with the nesting of `scores`.
    """
    selected = iter(kept)
    leaves = [layer.candidates if layer.frozen else next(selected) for layer in layers]
    return jax.tree.unflatten(jax.tree.structure(scores), leaves)


def size(layers: list[Layer], axis_name: AxisName) -> int:
    """Counts the weights of all layers, over all devices of the mesh axis.

    Args:
      layers: scores and candidates of each layer, or of this device's part.
      axis_name: name of the mesh axis that shards the leaves; None if they are whole.
    """
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return devices * sum(layer.score.size for layer in layers)


def wide(needed: bool) -> contextlib.AbstractContextManager[Any]:
    """Returns a context manager that enables 64-bit types in JAX if they are needed.

    Args:
      needed: whether 64-bit types are needed.
    """
    return jax.enable_x64(True) if needed else contextlib.nullcontext()


def is_double(layers: list[Layer]) -> bool:
    """Returns whether any score needs float64 to be compared exactly.

    Args:
      layers: scores and candidates of each layer.
    """
    return any(is_long_type(layer.score.dtype) for layer in layers)


def is_long_type(dtype: Any) -> bool:
    """Returns whether float32 cannot represent all values of a dtype exactly.

    True for float64, which is wider, and for integers of 32 bits or more, because
    float32 represents integers exactly only up to 2**24.

    Args:
      dtype: dtype of a leaf of scores.
    """
    return dtype != jnp.float32 and dtype.itemsize >= 4


def is_long(layers: list[Layer], *, pooled: bool, axis_name: AxisName) -> bool:
    """Returns whether 2**31 weights or more compete, too many for int32.

    Args:
      layers: leaves that are selected from.
      pooled: whether all layers compete, or only the weights of each layer.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension; None outside `shard_map`.
    """
    sizes = [size([layer], axis_name) for layer in layers]
    return (sum(sizes) if pooled else max(sizes)) >= LIMIT


def read_count(
    count: Any,
    layers: list[Layer],
    where: str,
    axis_name: AxisName,
) -> Count:
    """Reads and checks the number of weights to keep in layers that compete.

    Args:
      count: the requested number: a Python or NumPy integer, or an integer array
        without axes, which may be traced.
      layers: layers that compete.
      where: name of these layers in error messages.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension; None outside `shard_map`.

    Returns:
      A Python integer between 0 and the number of candidates; or the traced count,
      whose value cannot be checked.

    Raises:
      TypeError: if the count is not an integer.
      ValueError: if the count is negative or larger than the number of candidates, or
        if it is traced and 2**31 weights or more need a 64-bit count.
    """
    if isinstance(count, jax.core.Tracer):
        _check_traced(count, layers, where, axis_name)
        return count
    value = as_integer(count, f"count of {where}")
    # The sizes are an upper bound for masks that cannot be counted here: traced ones,
    # those on other hosts and, inside `shard_map`, parts of masks.
    available = size(layers, axis_name)
    allowed = [layer.candidates for layer in layers]
    if axis_name is None and all(_is_local(mask) for mask in allowed):
        available = sum(int(np.count_nonzero(np.asarray(mask))) for mask in allowed)
    if not 0 <= value <= available:
        raise ValueError(
            f"count of {where}: expected 0 to {available}, the number of weights that "
            f"may be kept, got {value}"
        )
    return value


def as_integer(count: Any, what: str) -> int:
    """Converts a concrete integer of Python, NumPy or JAX to a Python integer.

    Args:
      count: the integer; an array must have no axes.
      what: its name in the error message.

    Returns:
      The same value as a Python integer.

    Raises:
      TypeError: if it is not a single integer. A float is an error even if it is whole,
        and so is a boolean.
    """
    kind = getattr(count, "dtype", np.dtype(type(count)))
    if np.ndim(count) or not jnp.issubdtype(kind, jnp.integer):
        raise TypeError(
            f"{what}: expected one integer, got {count!r}; round it, for example with "
            "int()"
        )
    return operator.index(count)


def _check_traced(
    count: Array, layers: list[Layer], where: str, axis_name: AxisName
) -> None:
    """Raises an error if a traced count is not an integer or is too narrow."""
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


def _is_local(mask: Bool[Array, "..."] | None) -> bool:
    """Returns whether a mask is given, concrete and fully on this host."""
    if mask is None or isinstance(mask, jax.core.Tracer):
        return False
    return getattr(mask, "is_fully_addressable", True)  # NumPy arrays lack it
