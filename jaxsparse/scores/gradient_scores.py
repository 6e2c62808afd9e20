"""Scores from gradients of a loss on data: SNIP and GraSP."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params, Scores

Loss = Callable[[Params, Any], Float[Array, ""]]


@arguments.check(
    loss=arguments.function, params=arguments.weights, masks=arguments.masks
)
def snip(loss: Loss, params: Params, masks: Masks, batches: PyTree) -> Scores:
    r"""Scores each weight by the sensitivity of the loss to its connection.

    With weights :math:`w`, masks :math:`m` and the loss :math:`L` averaged over the
    batches, the score is :math:`|w \, \partial L(m w) / \partial (m w)|`. Inside the
    mask, this is :math:`|\partial L / \partial m|`.

    Args:
      loss: called as `loss(params, batch)` with masked parameters; returns a scalar,
        such as the mean over the batch.
      params: parameters of the network.
      masks: masks of the active weights; None where a leaf is not prunable.
      batches: tree of arrays [n, ...] with n batches along the first axis, n at least
        1. They are processed one at a time, so only one needs memory for activations.

    Returns:
      Scores of 0 or more, in float32, or in float64 for float64 weights; None where
      the mask is None.

    Raises:
      ValueError: if the leaves of `batches` do not have the same first axis of 1 or
        more.

    Examples:
      >>> params = {"w": jnp.array([[2.0], [3.0]])}
      >>> mask = {"w": jnp.array([[True], [True]])}
      >>> loss = lambda params, x: jnp.mean(x @ params["w"])
      >>> snip(loss, params, mask, jnp.array([[[1.0, 0.0]], [[1.0, -1.0]]]))
      {'w': Array([[2. ],
             [1.5]], dtype=float32)}

    Deviations:
      Scores are not divided by their sum, which does not change their ranking; no
      argument does it. The paper uses one batch. Here the gradient is averaged over all
      batches before the absolute value is taken.

    References:
      Lee, Ajanthan, Torr. SNIP: Single-shot Network Pruning based on Connection
      Sensitivity. 2019. arXiv:1810.02340, equation 6.

      de Jorge, Sanyal, Behl, Torr, Rogez, Dokania. Progressive Skeletonization:
      Trimming more fat from a network at initialization. 2021. arXiv:2006.09081,
      section 4, for weights outside the mask.
    """
    gradient = _mean(jax.grad(restricted(loss, params)), params, masks, batches)
    return masks_lib.tree_map(
        lambda _, leaf, slope: jnp.abs(leaf * slope), masks, params, gradient
    )


@arguments.check(
    loss=arguments.function, params=arguments.weights, masks=arguments.masks
)
def grasp(
    loss: Loss,
    params: Params,
    masks: Masks,
    batches: PyTree,
    *,
    absolute: bool = False,
) -> Scores:
    r"""Scores each weight by the effect of its removal on the gradient norm.

    With the gradient :math:`g` and the Hessian :math:`H` of the loss averaged over all
    batches, at the masked weights, the score is :math:`w \, (H g)`. A weight has a low
    score if its removal increases the norm of the gradient. This takes two passes over
    the batches: one for :math:`g`, and one for the product with the Hessian of each
    batch.

    Only prunable leaves are differentiated: :math:`g` is zero for all others, such as
    biases.

    Args:
      loss: called as `loss(params, batch)` with masked parameters; returns a scalar and
        is twice differentiable. The paper divides the logits by 200 before the
        cross-entropy; do the same in `loss` to reproduce it.
      params: parameters of the network.
      masks: masks of the active weights; None where a leaf is not prunable.
      batches: tree of arrays [n, ...] with n batches along the first axis, n at least
        1. They are processed one at a time, so only one needs memory for activations.
      absolute: whether to return the absolute value of the score. Weights that hardly
        change the gradient norm in either direction then have the lowest scores.

    Returns:
      Scores of either sign, or of 0 or more if `absolute`; in float32, or in float64
      for float64 weights; None where the mask is None.

    Raises:
      ValueError: if the leaves of `batches` do not have the same first axis of 1 or
        more.

    Examples:
      >>> params = {"w": jnp.array([[2.0], [3.0]])}
      >>> mask = {"w": jnp.array([[True], [True]])}
      >>> loss = lambda params, x: jnp.sum((x @ params["w"]) ** 2) / 2
      >>> grasp(loss, params, mask, jnp.array([[[1.0, 0.0]]]))
      {'w': Array([[4.],
             [0.]], dtype=float32)}

    Deviations:
      The paper's S(-w) is the negative of this score, and its highest values are
      removed: the same weights. `absolute=True` is not part of the paper. No
      temperature is applied; apply it in `loss`.

    References:
      Wang, Zhang, Grosse. Picking Winning Tickets Before Training by Preserving
      Gradient Flow. 2020. arXiv:2002.07376, equation 8, algorithms 1 and 2.
    """
    gradient = jax.grad(restricted(loss, params))
    direction = _mean(gradient, params, masks, batches)

    # Forward over reverse mode: the Hessian-vector product of each batch along the
    # gradient of all batches, without ever forming a Hessian.
    def curve(weights: Params, batch: Any) -> Params:
        tangent = jax.tree.map(lambda g, w: g.astype(w.dtype), direction, weights)
        return jax.jvp(lambda w: gradient(w, batch), (weights,), (tangent,))[1]

    product = _mean(curve, params, masks, batches)
    scores = masks_lib.tree_map(lambda _, w, hg: w * hg, masks, params, product)
    return jax.tree.map(jnp.abs, scores) if absolute else scores


def restricted(loss: Loss, params: Params) -> Loss:
    """Makes a loss a function of the prunable leaves only; the others are constants.

    Args:
      loss: called as `loss(params, batch)`.
      params: all parameters; the leaves that are not prunable are taken from here.

    Returns:
      The same loss as a function of parameters that are None where a leaf is not
      prunable.
    """

    def inner(weights: Params, batch: Any) -> Float[Array, ""]:
        return loss(tree.fill(weights, params), batch)

    return inner


def _mean(
    fn: Callable[[Params, Any], Params], params: Params, masks: Masks, batches: PyTree
) -> Params:
    """Averages `fn` over batches, at the masked prunable leaves.

    Args:
      fn: called as `fn(weights, batch)` with masked weights, None where a leaf is not
        prunable; returns a tree of that nesting.
      params: all parameters.
      masks: masks of the active weights; None where a leaf is not prunable.
      batches: tree of arrays [n, ...] with n batches along the first axis.

    Returns:
      The mean of the results, in float32 or wider.
    """
    count = tree.leading_axis(batches, field="batches")
    masked = masks_lib.apply(masks, params)
    weights = masks_lib.tree_map(lambda _, leaf: leaf, masks, masked)
    # A sum in bfloat16 or float16 could lose the contribution of later batches.
    start = jax.tree.map(
        lambda w: jnp.zeros(w.shape, jnp.promote_types(w.dtype, jnp.float32)), weights
    )

    def add(total: Params, batch: Any) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, fn(weights, batch)), None

    total, _ = lax.scan(add, start, batches)
    return jax.tree.map(functools.partial(jnp.multiply, 1.0 / count), total)
