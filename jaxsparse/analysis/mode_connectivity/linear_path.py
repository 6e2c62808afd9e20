"""Evaluation of networks on the linear path between two solutions."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jaxsparse import replicates, tree
from jaxsparse.analysis.mode_connectivity import interpolation

MODES = ("scan", "vmap", "loop")
Evaluate = Callable[[Any, Any, Any], tuple[Array, Array]]
Measure = Callable[[Any, Any], Any]


class Interpolated(NamedTuple):
    """BatchNorm statistics that are interpolated like the parameters.

    Attributes:
      start: statistics of the first solution.
      end: statistics of the second solution.
    """

    start: Any
    end: Any


class ReEstimated(NamedTuple):
    """BatchNorm statistics that are recomputed at each position from training data.

    The means and variances of the batches are averaged with equal weights, as in
    stochastic weight averaging. The variance of a batch is taken around the mean of
    this batch, so the average lacks the variance between the batch means: use batches
    as large as in training.

    In linen, one update of running statistics that start at zero gives the batch
    statistics times (1 - momentum), here for a momentum of 0.9:

        zeros = jax.tree.map(jnp.zeros_like, batch_stats)
        def measure(params, images):
            variables = {"params": params, "batch_stats": zeros}
            _, changed = model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            )
            return jax.tree.map(lambda s: s / (1 - 0.9), changed["batch_stats"])

    Attributes:
      measure: called as `measure(params, batch)`; returns the statistics of this batch
        that the network computes in training mode, a tree of floating arrays as
        `evaluate` expects it.
      batches: a tree whose leaves begin with the axis of batches, [s, b, ...].

    References:
      Izmailov, Podoprikhin, Garipov, Vetrov, Wilson. Averaging Weights Leads to Wider
      Optima and Better Generalization. 2018. arXiv:1803.05407, algorithm 1.
    """

    measure: Measure
    batches: Any

    def at(self, params: Any) -> Any:
        """Returns the mean of the statistics of all batches.

        Args:
          params: parameters of the network at one position.
        """
        return _mean(lax.map(lambda batch: self.measure(params, batch), self.batches))


class LinearPath(NamedTuple):
    """Loss and error at positions on a linear path.

    Attributes:
      alphas: positions on the line, [a]; 0 is the start and 1 the end.
      loss: mean loss over all examples, [a].
      error: fraction of examples classified wrongly, [a], in [0, 1].
      example_loss: loss of each example, [a, n].
      example_correct: whether each example is classified correctly, [a, n].
    """

    alphas: Float[np.ndarray, "a"]
    loss: Float[np.ndarray, "a"]
    error: Float[np.ndarray, "a"]
    example_loss: Float[np.ndarray, "a n"]
    example_correct: Bool[np.ndarray, "a n"]


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
) -> LinearPath:
    r"""Evaluates a network on the line :math:`(1 - \alpha) \, s + \alpha \, e`.

    All positions are computed in the same way, including both ends. Compiled programs
    are cached by the function `evaluate`: if the same function object is passed for
    many paths, it is compiled once.

    `by` selects how the positions are computed:

    - "scan": one program that computes one position after another, with the memory of
      one;
    - "vmap": one program for all positions at once, with memory for the parameters and
      activations of all of them;
    - "loop": one call of a program per position and batch. CPUs run convolutions slowly
      under `vmap` and inside of compiled loops.

    Args:
      evaluate: called as `evaluate(params, batch_stats, batch)` with b of the examples;
        returns the loss of each example, [b], and whether it is classified correctly,
        [b]. It must run in inference mode: the result for an example must not depend on
        other examples of the batch.
      start: parameters of the first solution, zero outside its masks.
      end: parameters of the second solution, zero outside its masks, with the same
        structure, shapes and dtypes.
      examples: a tree whose leaves begin with the axis of examples, [n, ...].
      batch_size: number of examples to evaluate at once, 1 or more. If n is not a
        multiple of it, the last batch starts earlier and overlaps the one before; each
        example is counted once.
      alphas: positions on the line. The default is -0.2 to 1.2 in steps of 0.05;
        `UNIT_ALPHAS` has 30 positions in [0, 1]. They are rounded to 12 decimals, so
        that positions from `np.linspace` include exactly 0 and 1.
      batch_stats: `Interpolated` or `ReEstimated` statistics for the argument
        `batch_stats` of `evaluate`; None to pass {}.
      by: "scan", "vmap" or "loop"; None for "loop" on CPUs if a parameter has more than
        2 axes, else "scan".

    Returns:
      The means over all examples, accumulated in float64, and each example's values.

    Raises:
      ValueError: if `start` and `end` do not match in structure, shapes or dtypes, or
        differ in a leaf that is not floating; if the leaves of `examples` do not begin
        with one axis; if `evaluate` does not return two arrays [b]; or if `batch_size`,
        `alphas` or `by` is out of range.

    Examples:
      >>> def evaluate(params, batch_stats, batch):
      ...     images, labels = batch
      ...     logits = model.apply(params, images)
      ...     losses = optax.losses.softmax_cross_entropy_with_integer_labels(
      ...         logits, labels
      ...     )
      ...     return losses, logits.argmax(-1) == labels
      >>> other = model.init(jax.random.key(1), inputs)
      >>> found = along_path(
      ...     evaluate,
      ...     params,
      ...     other,
      ...     examples=(inputs, np.array([0, 3])),
      ...     batch_size=2,
      ...     alphas=(0.0, 0.5, 1.0),
      ... )
      >>> found.loss.shape
      (3,)
      >>> from jaxsparse.analysis import mode_connectivity
      >>> barrier = mode_connectivity.barrier(found.loss, found.alphas)

    Deviations:
      The authors' code applies the masks of the start at every position. Here both ends
      must be masked already, which is equivalent if their masks are equal. Which
      BatchNorm statistics they used is unknown; `batch_stats` therefore has no default
      for networks with BatchNorm.

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, figure on linear interpolation.

      Frankle, Dziugaite, Roy, Carbin. Linear Mode Connectivity and the Lottery Ticket
      Hypothesis. 2020. arXiv:1912.05671, section 2; 30 points.
    """
    count = tree.leading_axis(examples, field="examples")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more examples, got {batch_size}")
    if by is not None and by not in MODES:
        raise ValueError(f"by: expected one of {MODES}, or None, got {by!r}")
    positions = interpolation.check_alphas(alphas)
    # Under `jit` the values of integer leaves cannot be compared, so this validates
    # both ends before any program is traced.
    interpolation.interpolate(start, end, 0.0)
    measure, stats = None, ({}, {})
    if isinstance(batch_stats, ReEstimated):
        tree.leading_axis(batch_stats.batches, field="batch_stats.batches")
        measure, stats = batch_stats
    elif batch_stats is not None:
        interpolation.interpolate(*batch_stats, 0.0)
        stats = tuple(batch_stats)
    size = min(batch_size, count)
    # All batches have one size, hence one compiled shape; the last one overlaps the one
    # before it.
    starts = np.minimum(np.arange(0, count, size), count - size).astype(np.int32)
    inputs = ((start, end, stats), examples, jnp.asarray(positions), starts)
    mode = by or default_mode(start)
    if mode == "loop":
        results = _one_by_one(*inputs, evaluate=evaluate, measure=measure, size=size)
    else:
        results = jax.device_get(
            _program(
                *inputs,
                evaluate=evaluate,
                measure=measure,
                size=size,
                batched=mode == "vmap",
            )
        )
    loss, correct = (_in_order(blocks, count) for blocks in results)
    return LinearPath(
        positions,
        np.mean(loss, axis=1, dtype=np.float64),
        np.count_nonzero(~correct, axis=1) / count,
        loss,
        correct,
    )


def default_mode(params: PyTree) -> str:
    """Returns how positions are computed by default, one of `MODES`.

    Args:
      params: parameters of the network.
    """
    convolves = any(jnp.ndim(leaf) > 2 for leaf in jax.tree.leaves(params))
    return "loop" if jax.default_backend() == "cpu" and convolves else "scan"


def _in_order(
    blocks: Shaped[np.ndarray, "a s b"], count: int
) -> Shaped[np.ndarray, "a n"]:
    """Joins batches to the axis of examples, dropping the overlap of the last one.

    Args:
      blocks: results for a positions, s batches of b examples, [a, s, b].
      count: number of examples n.

    Returns:
      Results for each position and example, [a, n].
    """
    length, size = blocks.shape[0], blocks.shape[2]
    before = blocks[:, :-1].reshape(length, -1)
    last = blocks[:, -1, size - (count - before.shape[1]) :]
    return np.concatenate([before, last], axis=1)


def _block(
    evaluate: Evaluate, params: Any, stats: Any, examples: Any, first: Any, size: int
) -> tuple[Float[Array, "b"], Bool[Array, "b"]]:
    """Evaluates `size` examples from the index `first` on."""
    batch = jax.tree.map(
        lambda leaf: lax.dynamic_slice_in_dim(leaf, first, size), examples
    )
    results = evaluate(params, stats, batch)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(results)]
    if shapes != [(size,), (size,)]:
        raise ValueError(
            f"evaluate: expected losses and correctness, both of shape ({size},), got "
            f"results of shapes {shapes}"
        )
    loss, correct = results
    wide = jnp.promote_types(loss.dtype, jnp.float32)
    return loss.astype(wide), correct.astype(bool)


def _mean(stacked: Any) -> Any:
    """Averages statistics over the leading axis of batches."""
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), stacked)


@functools.partial(jax.jit, static_argnames=("evaluate", "measure", "size", "batched"))
def _program(
    ends: tuple[Any, Any, Any],
    examples: Any,
    alphas: Array,
    starts: Array,
    *,
    evaluate: Evaluate,
    measure: Measure | None,
    size: int,
    batched: bool,
) -> tuple[Float[Array, "a s b"], Bool[Array, "a s b"]]:
    """Evaluates all batches at all positions in one program."""
    start, end, stats = ends

    def at(alpha: Array) -> Any:
        params = interpolation.interpolate(start, end, alpha)
        if measure is None:
            point_stats = interpolation.interpolate(*stats, alpha)
        else:
            point_stats = ReEstimated(measure, stats).at(params)
        return lax.map(
            lambda first: _block(evaluate, params, point_stats, examples, first, size),
            starts,
        )

    return jax.vmap(at)(alphas) if batched else lax.map(at, alphas)


_point = jax.jit(interpolation.interpolate)
_average = jax.jit(_mean)
_one_block = jax.jit(_block, static_argnames=("evaluate", "size"))


@functools.partial(jax.jit, static_argnames="measure")
def _one_measure(measure: Measure, params: Any, batches: Any, number: Any) -> Any:
    return measure(params, jax.tree.map(lambda leaf: leaf[number], batches))


def _one_by_one(
    ends: tuple[Any, Any, Any],
    examples: Any,
    alphas: Array,
    starts: Shaped[np.ndarray, "s"],
    *,
    evaluate: Evaluate,
    measure: Measure | None,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluates batches and positions with one call each, and fetches the results."""
    start, end, stats = ends
    # Numpy arrays would be transferred to the device again by every call.
    examples = jax.tree.map(jnp.asarray, examples)
    results = []
    for alpha in alphas:
        params = _point(start, end, alpha)
        if measure is None:
            point_stats = _point(*stats, alpha)
        else:
            count = len(jax.tree.leaves(stats)[0])
            # An array as index, so that one program serves all batches.
            per_batch = [
                _one_measure(measure, params, stats, jnp.int32(i)) for i in range(count)
            ]
            point_stats = _average(replicates.stack(per_batch))
        results += [
            _one_block(evaluate, params, point_stats, examples, first, size)
            for first in starts
        ]
    loss, correct = (np.stack(parts) for parts in zip(*results, strict=True))
    shape = (len(alphas), len(starts), size)
    return loss.reshape(shape), correct.reshape(shape)
