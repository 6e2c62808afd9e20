"""Selection of the k highest scores by counting, without sorting.

Floating-point scores are mapped to integers of the same order. The threshold is the
largest integer that at least k scores reach, and `search` determines it by bisection,
or faster with the help of a sample. Each iteration counts the scores that reach a trial
threshold. This reads the scores once and, for sharded leaves, needs one all-reduce of a
single number per threshold; no leaf is concatenated, gathered or moved. If scores tie
at the threshold, a second search, over a pseudo-random order of positions, decides
which of them are kept.

`keep` uses one threshold per layer, or a single one for all layers; `keep_in_rows` uses
one for each row of each layer. The callers decide which weights compete.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxsparse.select import counting, inputs, positions, sample
from jaxsparse.select.inputs import AxisName, Layer
from jaxsparse.select.search import CountAt, Values, search
from jaxsparse.types import Count

Ties = Literal["spread", "drop"]
Expand = Callable[[Int[Array, "c"]], Values]


def keep(
    layers: list[Layer],
    targets: list[Count],
    *,
    pooled: bool,
    ties: Ties,
    axis_name: AxisName,
) -> list[Bool[Array, "..."]]:
    """Selects the highest scores, with one threshold per layer or one for all layers.

    Args:
      layers: leaves to select from.
      targets: for each layer, the number of weights to keep in it. If `pooled`, every
        entry is the number of weights to keep over all layers together.
      pooled: whether all layers compete, with a single threshold.
      ties: "spread" keeps exactly the requested number of weights and chooses among
        equal scores at the threshold by a fixed pseudo-random order of positions.
        "drop" removes all weights that tie at the threshold if not all of them can be
        kept.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension; None outside `shard_map`.

    Returns:
      For each layer a boolean array of the shape of its scores, True for weights to
      keep.

    Raises:
      ValueError: if `ties` is neither "spread" nor "drop".
    """
    if ties not in ("spread", "drop"):
        raise ValueError(f"ties: expected 'spread' or 'drop', got {ties!r}")
    is_long = inputs.is_long(layers, pooled=pooled, axis_name=axis_name)
    with inputs.wide(is_long):
        integer = jnp.int64 if is_long else jnp.int32
        return keep_layers(
            [layer.score for layer in layers],
            [layer.candidates for layer in layers],
            [jnp.asarray(each).astype(integer) for each in targets],
            pooled=pooled,
            ties=ties,
            axis_name=axis_name,
        )


@functools.partial(jax.jit, static_argnames=("pooled", "ties", "axis_name"))
def keep_layers(
    scores: list[Any],
    candidates: list[Any],
    counts: list[Int[Array, ""]],
    *,
    pooled: bool,
    ties: Ties,
    axis_name: AxisName,
) -> list[Bool[Array, "..."]]:
    """Selects as `keep` does, in one compiled program where it is called eagerly.

    Args:
      scores: scores of each layer.
      candidates: masks of the weights that may be kept in each layer, or None.
      counts: number of weights to keep for each layer; their dtype, int32 or int64, is
        the one in which weights are counted.
      pooled: whether all layers compete, with a single threshold.
      ties: "spread" or "drop".
      axis_name: mesh axis or axes along which leaves are split, or None.
    """
    layers = [
        Layer("", score, mask, frozen=False)
        for score, mask in zip(scores, candidates, strict=True)
    ]
    integer = counts[0].dtype
    values, targets = sortable_bits(layers), jnp.stack(counts)
    return _keep(
        values,
        functools.partial(
            positions.of_layers, layers, integer, pooled=pooled, axis_name=axis_name
        ),
        targets,
        ties=ties,
        expand=list,
        count=functools.partial(
            _count, integer=integer, pooled=pooled, axis_name=axis_name
        ),
        first=()
        if axis_name is not None
        else sample.trials(values, targets, pooled=pooled),
    )


def keep_in_rows(
    values: list[Int[Array, "_ _"]], targets: list[Int[Array, ""]]
) -> list[Bool[Array, "_ _"]]:
    """Selects the highest values of each row, with one threshold per row.

    Equal values at a threshold are chosen among by a fixed pseudo-random order of
    positions, so every row keeps exactly the requested number.

    Args:
      values: for each layer an integer array [rows, units], from `sortable_bits`.
      targets: for each layer the number of units to keep in each row, int32. A row with
        fewer candidates than that keeps all of them.

    Returns:
      For each layer a boolean array [rows, units], True for units to keep.
    """
    ends = list(np.cumsum([value.shape[0] for value in values]))

    def expand(cuts: Int[Array, "c"]) -> Values:
        return [part[:, None] for part in jnp.split(cuts, ends[:-1])]

    def count(values: Values, cuts: Int[Array, "c"]) -> Int[Array, "c"]:
        pairs = zip(values, expand(cuts), strict=True)
        counts = [
            counting.count_in_rows(value, cut).astype(jnp.int32) for value, cut in pairs
        ]
        return jnp.concatenate(counts)

    return _keep(
        values,
        lambda: [positions.of_shape(value.shape, jnp.int32) for value in values],
        jnp.concatenate(
            [
                jnp.full(value.shape[0], each, jnp.int32)
                for value, each in zip(values, targets, strict=True)
            ]
        ),
        ties="spread",
        expand=expand,
        count=count,
    )


def sortable_bits(layers: list[Layer]) -> Values:
    """Maps scores to integers of the same order.

    The sign and magnitude of a float become a two's complement integer, so -0.0 and 0.0
    both become 0. The lowest integer marks weights that are not candidates. NaN becomes
    the next one, which is below negative infinity.

    Args:
      layers: leaves with scores and candidates.

    Returns:
      For each layer an integer array of the shape of its scores: int64 if the scores
      need float64 to be told apart, otherwise int32.
    """
    if inputs.is_double(layers):
        floating, integer = jnp.float64, jnp.int64
    else:
        floating, integer = jnp.float32, jnp.int32
    lowest, highest = jnp.iinfo(integer).min, jnp.iinfo(integer).max
    infinity = int(np.array(np.inf, floating).view(integer))

    def order(layer: Layer) -> Int[Array, "..."]:
        score = jnp.asarray(layer.score).astype(floating)
        bits = lax.bitcast_convert_type(score, integer)
        magnitude = bits & highest
        value = jnp.where(bits < 0, -magnitude, magnitude)
        value = jnp.where(magnitude > infinity, lowest + 1, value)
        return (
            value
            if layer.candidates is None
            else jnp.where(layer.candidates, value, lowest)
        )

    return [order(layer) for layer in layers]


def _keep(
    values: Values,
    orders: Callable[[], Values],
    targets: Int[Array, "c"],
    *,
    ties: Ties,
    expand: Expand,
    count: CountAt,
    first: Sequence[Int[Array, "c"]] = (),
) -> list[Bool[Array, "..."]]:
    """Finds the thresholds and breaks the ties at them.

    Args:
      values: scores as sortable integers, one array per layer.
      orders: computes the position of each weight in the tie-breaking order, one array
        per layer.
      targets: number of weights to keep for each threshold.
      ties: "spread" or "drop"; whether tied weights are kept up to the count, or all
        removed.
      expand: maps the array of thresholds to one array per layer that broadcasts
        against its values.
      count: called as `count(values, thresholds)`; counts the values that reach each
        threshold.
      first: thresholds to try first, see `search`.

    Returns:
      For each layer a boolean array, True for weights to keep.
    """
    # The lowest integer marks weights that are not candidates. With thresholds above
    # it they are never kept, even if a count exceeds the number of candidates.
    limits = jnp.iinfo(values[0].dtype)
    low, high = limits.min + 1, limits.max
    cuts, reached, above = search(
        values, targets, count, low=low, high=high, first=first
    )
    kept = [value >= cut for value, cut in zip(values, expand(cuts), strict=True)]
    # If more scores than the target reach a threshold, several are equal to it; the
    # last of these in the order of positions are removed.
    excess = reached - targets

    def remove(carry: tuple[Any, Any]) -> tuple[Any, Any]:
        kept, excess = carry
        # Untied weights have the order NONE, below every end, so only tied weights are
        # removed.
        tied = [
            jnp.where(value == cut, order, positions.NONE)
            for value, cut, order in zip(values, expand(cuts), orders(), strict=True)
        ]
        beyond = jnp.iinfo(tied[0].dtype).max
        if ties == "spread":
            ends, *_ = search(
                tied,
                excess,
                count,
                low=positions.FIRST,
                high=beyond,
                uniform=True,
                num_values=reached - above,
            )
        else:
            ends = jnp.where(excess > 0, positions.FIRST, beyond).astype(tied[0].dtype)
        fewer = [
            mask & (order < end)
            for mask, order, end in zip(kept, tied, expand(ends), strict=True)
        ]
        return fewer, jnp.zeros_like(excess)

    # A loop of one iteration or none. Under `vmap` a conditional would compute the
    # order of positions always, also where no scores tie.
    is_divided = lambda carry: jnp.any(carry[1] > 0)  # noqa: E731
    return lax.while_loop(is_divided, remove, (kept, excess))[0]


def _count(
    values: Values,
    cuts: Int[Array, "l"],
    *,
    integer: Any,
    pooled: bool,
    axis_name: AxisName,
) -> Int[Array, "l"]:
    """Counts the values that reach each layer's threshold, over all devices.

    If `pooled`, every entry of the result is the sum over all layers.
    """
    counts = [
        counting.count(value, cut, integer)
        for value, cut in zip(values, cuts, strict=True)
    ]
    counted = jnp.stack(counts)
    if axis_name is not None:
        counted = lax.psum(counted, axis_name)
    return jnp.full_like(counted, jnp.sum(counted)) if pooled else counted
