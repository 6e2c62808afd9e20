"""Soups: averages of networks that share a mask.

Networks that were trained from one ticket with different orders of the examples can
often be averaged; the average is as sparse as each of them. The statistics of BatchNorm
do not average, and are estimated anew.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params


@arguments.check(masks=arguments.masks)
def average(params: Params, masks: Masks) -> Params:
    """Averages the weights of networks with one mask.

    Args:
      params: parameters of all networks [n ...]; pruned weights may have any values.
      masks: the masks of all networks [n ...]; None where a leaf is not prunable.

    Returns:
      Parameters without the leading axis, zero outside the mask.

    Raises:
      ValueError: if the networks have different masks, whose average would be less
        sparse; the message names the layer.
      TypeError: if `masks` are not boolean masks.

    Examples:
      >>> weights = {"w": jnp.array([[1.0, 0.0], [3.0, 5.0]])}
      >>> average(weights, {"w": jnp.array([[True, False], [True, False]])})
      {'w': Array([2., 0.], dtype=float32)}

    References:
      Zimmer, Spiegel, Pokutta. Sparse Model Soups: A Recipe for Improved Pruning via
      Model Averaging. 2023. arXiv:2306.16788.
    """
    for name, leaf in tree.named_leaves(masks).items():
        if bool(jnp.any(leaf != leaf[:1])):
            raise ValueError(
                f"masks: {name}: expected one mask for all networks, got different "
                "ones; average networks that were trained from the same ticket"
            )
    one_mask = jax.tree.map(lambda leaf: leaf[0], masks)
    means = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), params)
    return masks_lib.apply(one_mask, means)


@arguments.check(update=arguments.function)
def batch_statistics(
    update: Callable[[Any, Any], Any], stats: PyTree, batches: PyTree
) -> PyTree:
    r"""Estimates the statistics of BatchNorm anew, as the mean over batches.

    A BatchNorm in training mode replaces a running statistic :math:`s` by :math:`m s +
    (1 - m) b`, with its momentum :math:`m` and the statistic :math:`b` of a batch,
    which does not depend on :math:`s`. The update of 0 is :math:`(1 - m) b`, and that
    of this result is :math:`1 + m` times as large, so that :math:`b` is known without
    knowing :math:`m`. The relative error is a few times the precision of the dtype,
    divided by :math:`1 - m`.

    Args:
      update: called as `update(stats, batch)`; returns the statistics after a forward
        pass in training mode.
      stats: statistics of any values; only the structure, shapes and dtypes are used.
      batches: tree of arrays [n, ...] with n batches, n at least 1, which are processed
        one at a time.

    Returns:
      The mean of the statistics of all batches, with the structure of `stats`.

    Raises:
      ValueError: if there are no batches, or leaves of `batches` disagree about n.
      TypeError: if `update` is not a function.

    Examples:
      >>> update = lambda stats, batch: {"mean": 0.9 * stats["mean"] + 0.1 * batch}
      >>> found = batch_statistics(update, {"mean": 7.0}, jnp.array([2.0, 4.0]))
      >>> round(float(found["mean"]), 3)
      3.0

    Deviations:
      Sparse model soups recompute the statistics by a pass over the training set; the
      authors' momentum in this pass is not known to us. The variance is the mean of the
      variances of the batches, as in training, not that of all examples together.

    References:
      Zimmer, Spiegel, Pokutta. Sparse Model Soups: A Recipe for Improved Pruning via
      Model Averaging. 2023. arXiv:2306.16788.
      Izmailov, Podoprikhin, Garipov, Vetrov, Wilson. Averaging Weights Leads to Wider
      Optima and Better Generalization. 2018. arXiv:1803.05407, section 3.2.
    """
    count = tree.leading_axis(batches, field="batches")
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(jnp.asarray(leaf)), stats)

    def of_batch(once: Array, twice: Array) -> Array:
        # once = (1 - m) b and twice = m once + once; both are 0 if b is.
        momentum = (twice - once) / jnp.where(once == 0, 1, once)
        return once / (1 - momentum)

    def add(total: PyTree, batch: Any) -> tuple[PyTree, None]:
        once = update(zeros, batch)
        found = jax.tree.map(of_batch, once, update(once, batch))
        return jax.tree.map(jnp.add, total, found), None

    total, _ = lax.scan(add, zeros, batches)
    return jax.tree.map(lambda leaf: leaf / count, total)
