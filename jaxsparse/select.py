"""Selection: scores and counts in, masks out, exactly.

`globally` sets one threshold over all layers, `per_layer` one for each. Both keep
exactly as many weights as they are asked for, ties included. What a weight is worth
comes from `scores`, how many to keep from `distributions` and `schedules`.

The k-th largest score is found by bisection, not by sorting. Floats are viewed as
integers of the same order, and a threshold that at least k of them reach is narrowed
bit by bit. Each pass counts, which costs one read of the scores and, where leaves are
sharded, one all-reduce of one number a threshold: no leaf is concatenated, gathered
or moved. A second bisection, over the position in the network, breaks ties; it takes
no pass where there are none.

Masks are the same under `jit` and `vmap`, on any sharding and inside `shard_map`.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxsparse import masks
from jaxsparse.types import Counts, Masks, Scores

Ties = Literal["index", "drop"]
AxisName = str | tuple[str, ...] | None


class _Layer(NamedTuple):
    """One prunable leaf: its arguments to the public functions."""

    name: str
    score: Float[Array, "..."]
    within: Bool[Array, "..."] | None
    ignored: bool


def globally(
    scores: Scores,
    count: Int[Array, ""] | int,
    *,
    within: Masks | None = None,
    ignored: tuple[str, ...] = (),
    ties: Ties = "index",
    axis_name: AxisName = None,
) -> Masks:
    """Keeps the `count` best weights of all layers together.

    NaN ranks below every number, -0.0 equals 0.0, and float16 and bfloat16 compare as
    float32, so layers of different precision can compete.

    Args:
      scores: what each weight is worth; None where a leaf is not prunable.
      count: weights to keep over all layers that are not ignored. A Python integer is
        checked, against the sizes alone if `within` is traced; a traced one is clipped
        to what there is.
      within: masks outside which nothing is kept; None allows every weight.
      ignored: shell patterns of leaf names whose masks stay as `within` has them and
        whose weights are not counted.
      ties: "index" keeps exactly `count` and, of equal scores, those that come first
        (leaves in the order of the tree, weights in row-major order). "drop" keeps
        only scores strictly above the best one that must go, so equal scores at the
        threshold all go and fewer than `count` may be kept; open_lth does this.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension. `count` is still that of the whole network.

    Returns:
      Masks; None where the score is None.

    Raises:
      ValueError: if a count, a pattern or a tree does not fit; see the message.

    Examples:
      >>> scores = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}
      >>> globally(scores, 3)
      {'a': Array([ True,  True], dtype=bool), 'b': Array([False,  True], dtype=bool)}
    """
    layers = _read(scores, within, ignored, axis_name)
    chosen = [layer for layer in layers if not layer.ignored]
    _check_count(count, chosen, "all layers", axis_name)
    wanted = jnp.full(len(chosen), count, jnp.int32)
    kept = _keep(chosen, wanted, pooled=True, ties=ties, axis_name=axis_name)
    return _write(scores, layers, kept)


def per_layer(
    scores: Scores,
    counts: Counts,
    *,
    within: Masks | None = None,
    ignored: tuple[str, ...] = (),
    ties: Ties = "index",
    axis_name: AxisName = None,
) -> Masks:
    """Keeps the best weights of each layer, as many as its count says.

    Args:
      scores: what each weight is worth; None where a leaf is not prunable.
      counts: weights to keep, with the nesting of `scores`, checked or clipped as in
        `globally`. That of an ignored leaf is not read and may be None.
      within: as in `globally`, and so are the others.
      ignored: as above.
      ties: as above, layer by layer.
      axis_name: as above.

    Returns:
      Masks; None where the score is None.

    Raises:
      ValueError: if a count, a pattern or a tree does not fit; the message names the
        leaf.

    Examples:
      >>> scores = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([1.0, 2.0])}
      >>> per_layer(scores, {"a": 1, "b": 0})
      {'a': Array([ True, False], dtype=bool), 'b': Array([False, False], dtype=bool)}
    """
    layers = _read(scores, within, ignored, axis_name)
    chosen = [layer for layer in layers if not layer.ignored]
    by_name = dict(zip(masks.names(counts), jax.tree.leaves(counts), strict=True))
    names = {layer.name for layer in layers}
    if not {layer.name for layer in chosen} <= set(by_name) <= names:
        raise ValueError(
            f"counts: got the leaves {list(by_name)}; wanted {sorted(names)}, as scores"
        )
    for layer in chosen:
        _check_count(by_name[layer.name], [layer], layer.name, axis_name)
    wanted = jnp.array([by_name[layer.name] for layer in chosen], jnp.int32)
    kept = _keep(chosen, wanted, pooled=False, ties=ties, axis_name=axis_name)
    return _write(scores, layers, kept)


def _keep(
    layers: list[_Layer],
    wanted: Int[Array, "l"],
    *,
    pooled: bool,
    ties: Ties,
    axis_name: AxisName,
) -> list[Bool[Array, "..."]]:
    """Selects with a threshold for each layer, the same for all if they are pooled."""
    if ties not in ("index", "drop"):
        raise ValueError(f"ties: got {ties!r}; wanted 'index' or 'drop'")
    total = _size(layers, axis_name)
    if total >= 2**31:
        raise ValueError(
            f"scores: got {total} weights, where counts are int32; wanted fewer than "
            "2**31; select from fewer layers at a time"
        )
    count = functools.partial(_count, pooled=pooled, axis_name=axis_name)
    values = _ordered(layers)
    limits = jnp.iinfo(values[0].dtype)
    cuts = _bisect(values, wanted, count, low=limits.min + 1, high=limits.max)
    # A surplus means that scores tie at the cut; the last of them have to go.
    surplus = count(values, cuts) - wanted
    tied = [
        jnp.where(value == cut, position, -1)
        for value, cut, position in zip(
            values, cuts, _positions(layers, axis_name), strict=True
        )
    ]
    if ties == "index":
        ends = _bisect(tied, surplus, count, low=0, high=total)
    else:
        ends = jnp.where(surplus > 0, 0, total)
    return [
        (value >= cut) & (position < end)
        for value, cut, position, end in zip(values, cuts, tied, ends, strict=True)
    ]


def _bisect(
    values: list[Int[Array, "..."]],
    wanted: Int[Array, "l"],
    count: Callable[..., Int[Array, "l"]],
    *,
    low: int,
    high: int,
) -> Int[Array, "l"]:
    """Finds the largest cut in [low, high] that at least `wanted` values reach.

    Stops early at any cut that exactly `wanted` values reach. The answer is `high`,
    without a pass, if none is wanted, and `low` if there are not enough.
    """

    def narrow(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low | high) - ((low ^ high) >> 1)  # rounds up, cannot overflow
        reached = count(values, middle)
        below = jnp.where(reached == wanted, middle, middle - 1)
        return (
            jnp.where(reached >= wanted, middle, low),
            jnp.where(reached > wanted, high, below),
        )

    highs = jnp.full(wanted.shape, high, values[0].dtype)
    lows = jnp.where(wanted <= 0, highs, jnp.full_like(highs, low))
    return lax.while_loop(lambda b: jnp.any(b[0] < b[1]), narrow, (lows, highs))[0]


def _count(
    values: list[Int[Array, "..."]],
    cuts: Int[Array, "l"],
    *,
    pooled: bool,
    axis_name: AxisName,
) -> Int[Array, "l"]:
    """Counts the values at or above each layer's cut, over all devices."""
    counts = []
    for value, cut in zip(values, cuts, strict=True):
        reached = jnp.atleast_1d(value >= cut)
        # float32 counts exactly to 2**24, on CPUs in half the time of int32.
        dtype = jnp.float32 if reached.shape[-1] <= 2**24 else jnp.int32
        rows = jnp.sum(reached, axis=-1, dtype=dtype)
        counts.append(jnp.sum(rows, dtype=jnp.int32))
    counted = jnp.stack(counts)
    if axis_name is not None:
        counted = lax.psum(counted, axis_name)
    return jnp.full_like(counted, jnp.sum(counted)) if pooled else counted


def _ordered(layers: list[_Layer]) -> list[Int[Array, "..."]]:
    """Views scores as integers of the same order.

    Sign and magnitude become two's complement, in which -0.0 is 0. The lowest integer
    is a weight that may not be kept, the next one NaN.
    """
    wide = any(layer.score.dtype == jnp.float64 for layer in layers)
    floating, integer = (jnp.float64, jnp.int64) if wide else (jnp.float32, jnp.int32)
    lowest, highest = jnp.iinfo(integer).min, jnp.iinfo(integer).max
    infinity = int(np.array(np.inf, floating).view(integer))

    def order(layer: _Layer) -> Int[Array, "..."]:
        bits = lax.bitcast_convert_type(layer.score.astype(floating), integer)
        magnitude = bits & highest
        value = jnp.where(bits < 0, -magnitude, magnitude)
        value = jnp.where(magnitude > infinity, lowest + 1, value)
        return value if layer.within is None else jnp.where(layer.within, value, lowest)

    return [order(layer) for layer in layers]


def _positions(layers: list[_Layer], axis_name: AxisName) -> list[Int[Array, "..."]]:
    """Numbers the weights of all layers, in row-major order, across devices.

    Built from iotas: a cumulative sum would gather sharded leaves.
    """
    device = 0 if axis_name is None else lax.axis_index(axis_name)
    result, start = [], 0
    for layer in layers:
        shape = layer.score.shape
        position = jnp.full(shape, start + device * layer.score.size, jnp.int32)
        for axis in range(len(shape)):
            stride = int(np.prod(shape[axis + 1 :]))
            position += lax.broadcasted_iota(jnp.int32, shape, axis) * stride
        result.append(position)
        start += _size([layer], axis_name)
    return result


def _size(layers: list[_Layer], axis_name: AxisName) -> int:
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return devices * sum(layer.score.size for layer in layers)


def _check_count(
    count: Int[Array, ""] | int, layers: list[_Layer], where: str, axis_name: AxisName
) -> None:
    """Refuses a count that is known now and cannot be met."""
    if not isinstance(count, int):
        return
    available = _size(layers, axis_name)
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


def _read(
    scores: Scores,
    within: Masks | None,
    ignored: tuple[str, ...],
    axis_name: AxisName,
) -> list[_Layer]:
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
        layers.append(_Layer(name, leaf, mask, stays))
    if all(layer.ignored for layer in layers):
        raise ValueError(
            f"scores: no leaf to select from; prunable are {names}, of which {ignored} "
            "are ignored; wanted at least one left"
        )
    return layers


def _write(
    scores: Scores, layers: list[_Layer], kept: list[Bool[Array, "..."]]
) -> Masks:
    """Builds masks from the selected layers and from those that stay."""
    selected = iter(kept)
    leaves = [layer.within if layer.ignored else next(selected) for layer in layers]
    return jax.tree.unflatten(jax.tree.structure(scores), leaves)
