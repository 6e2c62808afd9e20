"""Scores from the gradient of a loss on some data: SNIP and GraSP."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params, Scores

Loss = Callable[[Params, Any], Float[Array, ""]]


@arguments.check(
    loss=arguments.function, params=arguments.weights, masks=arguments.masks
)
def snip(loss: Loss, params: Params, masks: Masks, batches: PyTree) -> Scores:
    r"""Scores each weight by how much the loss depends on its connection.

    With weights :math:`w`, masks :math:`m` and the loss :math:`L` averaged over the
    batches, the score is :math:`|w \, \partial L(m w) / \partial (m w)|`, which inside
    the mask is :math:`|\partial L / \partial m|`.

    Args:
      loss: called as `loss(params, batch)` with masked parameters; a scalar, such as
        the mean over the batch.
      params: the weights.
      masks: which weights exist, same nesting as `params`.
      batches: a tree whose leaves all begin with the axis of batches, [n, ...]. Each
        batch is loaded on its own, so memory is that of one.

    Returns:
      Scores in float32, or float64 for such weights; None where the mask is None.

    Raises:
      ValueError: if the leaves of `batches` do not begin with one axis of 1 or more.

    Examples:
      >>> params = {"w": jnp.array([[2.0], [3.0]])}
      >>> mask = {"w": jnp.array([[True], [True]])}
      >>> loss = lambda params, x: jnp.mean(x @ params["w"])
      >>> snip(loss, params, mask, jnp.array([[[1.0, 0.0]], [[1.0, -1.0]]]))
      {'w': Array([[2. ],
             [1.5]], dtype=float32)}

    Deviations:
      Scores are not divided by their sum, which changes no ranking; no argument does
      it. The paper takes one batch; more are averaged here before the absolute value.

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
    r"""Scores each weight by how much the norm of the gradient depends on it.

    With the gradient :math:`g` and the Hessian :math:`H` of the loss averaged over all
    batches, at the masked weights, the score is :math:`w \, (H g)`. A weight scores
    low if the gradient gains norm by its removal. Two passes over the batches are
    made: one for :math:`g`, one for the product with each batch's Hessian.

    Only prunable leaves take part: :math:`g` is zero elsewhere, for biases say.

    Args:
      loss: as in `snip`; twice differentiable. The paper divides the logits by 200
        before the cross-entropy: that is up to the loss.
      params: as in `snip`.
      masks: as in `snip`.
      batches: as in `snip`.
      absolute: take the absolute value of the score, so that what matters little
        either way goes first.

    Returns:
      As `snip`; of either sign unless absolute.

    Raises:
      ValueError: as `snip`.

    Examples:
      >>> params = {"w": jnp.array([[2.0], [3.0]])}
      >>> mask = {"w": jnp.array([[True], [True]])}
      >>> loss = lambda params, x: jnp.sum((x @ params["w"]) ** 2) / 2
      >>> grasp(loss, params, mask, jnp.array([[[1.0, 0.0]]]))
      {'w': Array([[4.],
             [0.]], dtype=float32)}

    Deviations:
      The paper's S(-w) is the negative of this and the highest of it are removed: the
      same weights. `absolute=True` is no part of the paper. No temperature is applied;
      see `loss`.

    References:
      Wang, Zhang, Grosse. Picking Winning Tickets Before Training by Preserving
      Gradient Flow. 2020. arXiv:2002.07376, equation 8, algorithms 1 and 2.
    """
    gradient = jax.grad(restricted(loss, params))
    direction = _mean(gradient, params, masks, batches)

    def curve(weights: Params, batch: Any) -> Params:
        along = jax.tree.map(lambda g, w: g.astype(w.dtype), direction, weights)
        return jax.jvp(lambda w: gradient(w, batch), (weights,), (along,))[1]

    product = _mean(curve, params, masks, batches)
    scores = masks_lib.tree_map(lambda _, w, hg: w * hg, masks, params, product)
    return jax.tree.map(jnp.abs, scores) if absolute else scores


def restricted(loss: Loss, params: Params) -> Loss:
    """Makes a loss a function of the prunable leaves; the others are constants.

    Args:
      loss: called as `loss(params, batch)`.
      params: all parameters.

    Returns:
      The same, to be called with None at the leaves that `params` gives.
    """

    def inner(weights: Params, batch: Any) -> Float[Array, ""]:
        whole = jax.tree.map(
            lambda weight, leaf: leaf if weight is None else weight,
            weights,
            params,
            is_leaf=lambda leaf: leaf is None,
        )
        return loss(whole, batch)

    return inner


def _mean(
    fn: Callable[[Params, Any], Params], params: Params, masks: Masks, batches: PyTree
) -> Params:
    """Averages `fn` of the masked prunable leaves over batches, in float32 or wider."""
    count = _count(batches)
    masked = masks_lib.apply(masks, params)
    weights = masks_lib.tree_map(lambda _, leaf: leaf, masks, masked)
    start = jax.tree.map(
        lambda w: jnp.zeros(w.shape, jnp.promote_types(w.dtype, jnp.float32)), weights
    )

    def add(total: Params, batch: Any) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, fn(weights, batch)), None

    total, _ = lax.scan(add, start, batches)
    return jax.tree.map(functools.partial(jnp.multiply, 1.0 / count), total)


def _count(batches: PyTree) -> int:
    """Returns how many batches there are, and refuses what is not batches."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batches)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            f"batches: got leaves of shapes {shapes}; wanted all to begin with the "
            "same axis of batches, 1 or more; a single batch needs an axis of 1 too"
        )
    return lengths.pop()[0]
