"""Networks evaluated along the segment between two solutions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jaxsparse import tree
from jaxsparse.analysis.connectivity import interpolation

WAYS = ("scan", "vmap", "loop")
Evaluate = Callable[[Any, Any, Any], tuple[Array, Array]]
Measure = Callable[[Any, Any], Any]


class Interpolated(NamedTuple):
    """Statistics of BatchNorm on the same line as the parameters.

    Attributes:
      start: those of the first solution.
      end: those of the second.
    """

    start: Any
    end: Any


class ReEstimated(NamedTuple):
    """Statistics of BatchNorm computed anew at every point, from training data.

    Means and variances of the batches are averaged with equal weights, as in
    stochastic weight averaging. A variance is that within its batch, so the average
    lacks the variance of the batches' means: take batches as large as in training.

    In linen, statistics that begin at zero end as those of the batch times one less
    the momentum:

        zeros = jax.tree.map(jnp.zeros_like, batch_stats)
        def measure(params, images):
            variables = {"params": params, "batch_stats": zeros}
            _, changed = model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            )
            return jax.tree.map(lambda s: s / (1 - 0.9), changed["batch_stats"])

    Attributes:
      measure: called as `measure(params, batch)`; returns what the network in training
        mode finds in this batch, a tree of floating arrays as `evaluate` wants it.
      batches: a tree whose leaves begin with the axis of batches, [s b ...].

    References:
      Izmailov, Podoprikhin, Garipov, Vetrov, Wilson. Averaging Weights Leads to Wider
      Optima and Better Generalization. 2018. arXiv:1803.05407, algorithm 1.
    """

    measure: Measure
    batches: Any


class LinearPath(NamedTuple):
    """What was found along a segment.

    Attributes:
      alphas: where; 0 is the start and 1 the end.
      loss: mean loss over all examples.
      error: fraction of examples that are not correct, in [0, 1].
      example_loss: loss of each example, or None if not asked for.
      example_correct: whether each example is correct, or None.
    """

    alphas: Float[np.ndarray, "a"]
    loss: Float[np.ndarray, "a"]
    error: Float[np.ndarray, "a"]
    example_loss: Float[np.ndarray, "a n"] | None
    example_correct: Bool[np.ndarray, "a n"] | None


def along_path(
    evaluate: Evaluate,
    start: PyTree,
    end: PyTree,
    *,
    examples: PyTree,
    batch_size: int,
    alphas: interpolation.Alphas = interpolation.EVCI_ALPHAS,
    batch_stats: Interpolated | ReEstimated | None = None,
    by: str | None = None,
    per_example: bool = False,
) -> LinearPath:
    r"""Evaluates a network along the line :math:`(1 - \alpha) \, s + \alpha \, e`.

    All points are computed alike, the ends too. Programs are kept by `evaluate`, so a
    function made once serves many segments and is compiled once.

    - "scan" is one program that goes from point to point; memory is that of one.
    - "vmap" is one program for all points at once, which needs memory for the
      parameters and activations of all.
    - "loop" calls one program for each point and block. CPUs run convolutions slowly
      under vmap and inside of loops.

    Args:
      evaluate: called as `evaluate(params, batch_stats, batch)` with some of the
        examples; returns their losses [b] and whether each is correct [b]. In
        inference mode: no example may depend on others of its batch.
      start: parameters of the first solution, zero outside its masks.
      end: parameters of the second.
      examples: a tree whose leaves begin with the axis of examples, [n ...].
      batch_size: examples at once, 1 or more. A smaller last block is filled up with
        examples from before it, which count once.
      alphas: points. The default is -0.2 to 1.2 in steps of 0.05; `UNIT_ALPHAS` has 30
        in [0, 1]. Rounded to 12 decimals, so that those of `linspace` meet the ends.
      batch_stats: what `evaluate` gets as such, see `Interpolated` and `ReEstimated`;
        None for {}.
      by: how points are arranged; None for "loop" on CPUs if a parameter has more than
        2 axes, else "scan".
      per_example: return losses and correctness of every example too.

    Returns:
      Means over all examples, of sums in float64.

    Raises:
      ValueError: if the ends do not fit each other, see `interpolate`, the examples do
        not begin with one axis, `evaluate` does not return two [b], or `batch_size`,
        `alphas` or `by` is out of range.

    Examples:
      >>> def evaluate(params, batch_stats, batch):
      ...     images, labels = batch
      ...     variables = {"params": params, "batch_stats": batch_stats}
      ...     logits = model.apply(variables, images, train=False)
      ...     each = losses.cross_entropy(logits, labels)
      ...     return each, losses.is_correct(logits, labels)
      >>> found = along_segment(
      ...     evaluate, ticket, pruned, examples=(images, labels), batch_size=1000
      ... )
      >>> barrier(found.error, found.alphas)

    Deviations:
      The authors' code applies the masks of the start at every point. Here both ends
      come masked, which is the same if their masks are. Which statistics of BatchNorm
      they used is unknown, so `batch_stats` has no default for networks with it.

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, figure on linear interpolation.

      Frankle, Dziugaite, Roy, Carbin. Linear Mode Connectivity and the Lottery Ticket
      Hypothesis. 2020. arXiv:1912.05671, section 2; 30 points.
    """
    count = tree.leading_axis(examples, field="examples")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; wanted 1 or more examples")
    if by is not None and by not in WAYS:
        raise ValueError(f"by: got {by!r}; wanted one of {WAYS}, or None")
    places = interpolation.check_alphas(alphas)
    interpolation.interpolate(start, end, 0.0)  # for what it refuses
    measure, stats = None, ({}, {})
    if isinstance(batch_stats, ReEstimated):
        tree.leading_axis(batch_stats.batches, field="batch_stats.batches")
        measure, stats = batch_stats
    elif batch_stats is not None:
        interpolation.interpolate(*batch_stats, 0.0)
        stats = tuple(batch_stats)
    size = min(batch_size, count)
    firsts = np.minimum(np.arange(0, count, size), count - size).astype(np.int32)
    given = (start, end, stats, examples, jnp.asarray(places), firsts)
    way = by or _way(start)
    if way == "loop":
        found = _one_by_one(*given, evaluate=evaluate, measure=measure, size=size)
    else:
        found = jax.device_get(
            _program(
                *given,
                evaluate=evaluate,
                measure=measure,
                size=size,
                batched=way == "vmap",
            )
        )
    loss, correct = (_in_order(blocks, firsts, count) for blocks in found)
    return LinearPath(
        places,
        np.mean(loss, axis=1, dtype=np.float64),
        np.count_nonzero(~correct, axis=1) / count,
        loss if per_example else None,
        correct if per_example else None,
    )


def _way(params: PyTree) -> str:
    """Chooses how points are arranged, by machine and network."""
    convolves = any(jnp.ndim(leaf) > 2 for leaf in jax.tree.leaves(params))
    return "loop" if jax.default_backend() == "cpu" and convolves else "scan"


def _in_order(
    blocks: Shaped[np.ndarray, "a s b"], firsts: Shaped[np.ndarray, "s"], count: int
) -> Shaped[np.ndarray, "a n"]:
    """Joins blocks, of which the last may begin before the one before it ended."""
    length, size = blocks.shape[0], blocks.shape[2]
    before = blocks[:, :-1].reshape(length, -1)
    last = blocks[:, -1, size - (count - before.shape[1]) :]
    return np.concatenate([before, last], axis=1)


def _block(
    evaluate: Evaluate, params: Any, stats: Any, examples: Any, first: Any, size: int
) -> tuple[Float[Array, "b"], Bool[Array, "b"]]:
    """Evaluates `size` examples from the place `first` on."""
    batch = jax.tree.map(
        lambda leaf: lax.dynamic_slice_in_dim(leaf, first, size), examples
    )
    found = evaluate(params, stats, batch)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(found)]
    if shapes != [(size,), (size,)]:
        raise ValueError(
            f"evaluate: got results of shapes {shapes} for {size} examples; wanted "
            f"losses and correctness, both of shape ({size},)"
        )
    loss, correct = found
    wide = jnp.promote_types(loss.dtype, jnp.float32)
    return loss.astype(wide), correct.astype(bool)


def _mean(stacked: Any) -> Any:
    """Averages statistics over batches."""
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), stacked)


@functools.partial(jax.jit, static_argnames=("evaluate", "measure", "size", "batched"))
def _program(
    start: Any,
    end: Any,
    stats: Any,
    examples: Any,
    alphas: Array,
    firsts: Array,
    *,
    evaluate: Evaluate,
    measure: Measure | None,
    size: int,
    batched: bool,
) -> tuple[Float[Array, "a s b"], Bool[Array, "a s b"]]:
    """Evaluates all blocks at all points."""

    def at(alpha: Array) -> Any:
        params = interpolation.interpolate(start, end, alpha)
        if measure is None:
            here = interpolation.interpolate(*stats, alpha)
        else:
            here = _mean(lax.map(lambda batch: measure(params, batch), stats))
        return lax.map(
            lambda first: _block(evaluate, params, here, examples, first, size), firsts
        )

    return jax.vmap(at)(alphas) if batched else lax.map(at, alphas)


_point = jax.jit(interpolation.interpolate)
_average = jax.jit(_mean)
_one_block = jax.jit(_block, static_argnames=("evaluate", "size"))


@functools.partial(jax.jit, static_argnames="measure")
def _one_measure(measure: Measure, params: Any, batches: Any, number: Any) -> Any:
    return measure(params, jax.tree.map(lambda leaf: leaf[number], batches))


def _one_by_one(
    start: Any,
    end: Any,
    stats: Any,
    examples: Any,
    alphas: Array,
    firsts: Shaped[np.ndarray, "s"],
    *,
    evaluate: Evaluate,
    measure: Measure | None,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Calls small programs in a loop, and fetches what they found."""
    examples = jax.tree.map(jnp.asarray, examples)
    found = []
    for alpha in alphas:
        params = _point(start, end, alpha)
        if measure is None:
            here = _point(*stats, alpha)
        else:
            numbers = range(len(jax.tree.leaves(stats)[0]))
            each = [_one_measure(measure, params, stats, jnp.int32(i)) for i in numbers]
            here = _average(jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
        found += [
            _one_block(evaluate, params, here, examples, first, size)
            for first in firsts
        ]
    loss, correct = (np.stack(parts) for parts in zip(*found, strict=True))
    shape = (len(alphas), len(firsts), size)
    return loss.reshape(shape), correct.reshape(shape)
