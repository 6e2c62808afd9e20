"""MetaInit: norms of weights learnt before training, on noise.

The gradient quotient says how much a gradient step changes the gradient, weight by
weight; where it is small, steps do what the gradient promises. MetaInit lowers it by
scaling whole tensors. Nothing here chooses masks or directions of weights.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params

Loss = Callable[[Params, Any], Float[Array, ""]]
MakeBatch = Callable[[Key[Array, ""]], Any]


@arguments.check(
    loss=arguments.function, params=arguments.weights, epsilon=arguments.number(0)
)
def gradient_quotient(
    loss: Loss, params: Params, masks: Masks, batch: Any, *, epsilon: float = 1e-5
) -> Float[Array, ""]:
    r"""Says by what fraction a step of gradient descent changes the gradient.

    With the gradient :math:`g` and the Hessian :math:`H` of the loss at the masked
    parameters, both restricted to what exists, it is the mean of

    .. math:: |1 - (g - H g) / (g + \varepsilon \, \mathrm{sign}(g))|

    over the weights inside the masks and all entries of leaves without a mask; the
    sign of 0 is 1. It is 0 for a linear loss.

    Args:
      loss: called as `loss(params, batch)`; a scalar, three times differentiable almost
        everywhere.
      params: the parameters.
      masks: which weights exist, same nesting; None where all do.
      batch: what the loss takes.
      epsilon: keeps vanishing gradients from being divided by.

    Returns:
      A scalar, float32 at least, 0 or more. Works under `jit`, `grad` and `vmap`.

    Examples:
      >>> params, mask = {"w": jnp.array([[2.0, 5.0]])}, jnp.array([[True, False]])
      >>> loss = lambda params, batch: 0.25 * jnp.sum(params["w"] ** 2)
      >>> gradient_quotient(loss, params, {"w": mask}, None, epsilon=0.0)
      Array(0.5, dtype=float32)

    Deviations:
      None known from the paper. The code of Evci et al. adds up the same terms and
      divides by the number of weights inside the masks, biases not counted.

    References:
      Dauphin and Schoenholz. MetaInit: Initializing learning by learning to initialize.
      2019. NeurIPS, equation 1.
    """
    slope = jax.grad(lambda params: loss(masks_lib.apply(masks, params), batch))
    # Of the masked loss, whose Hessian has zeros in rows and columns of what is not.
    gradient = slope(params)
    _, product = jax.jvp(slope, (params,), (gradient,))

    def total(mask: Any, g: Any, hg: Any) -> Any:
        if g is None:
            return None
        wide = jnp.promote_types(g.dtype, jnp.float32)
        g, hg = g.astype(wide), hg.astype(wide)
        change = jnp.abs(1 - (g - hg) / (g + jnp.where(g >= 0, epsilon, -epsilon)))
        if mask is None:
            return jnp.sum(change), jnp.asarray(g.size, wide)
        kept = jnp.sum(mask, dtype=jnp.int32).astype(wide)
        return jnp.sum(jnp.where(mask, change, 0)), kept

    pairs = jax.tree.map(
        total, masks, gradient, product, is_leaf=lambda leaf: leaf is None
    )
    leaves = jax.tree.leaves(pairs)
    return sum(leaves[::2]) / jnp.maximum(1, sum(leaves[1::2]))


@arguments.check(classes=arguments.integer(1))
def gaussian_batches(shape: tuple[int, ...], classes: int) -> MakeBatch:
    """Makes the function that draws batches of noise for `metainit`.

    Args:
      shape: of the inputs, the axis of examples first, such as (128, 28, 28, 1).
      classes: labels are in [0, classes).

    Returns:
      A function of a key to inputs, standard normal in float32, and uniform labels.

    Examples:
      >>> images, labels = gaussian_batches((8, 28, 28, 1), 10)(jax.random.key(0))
      >>> images.shape, labels.shape
      ((8, 28, 28, 1), (8,))
    """

    def make(
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "b ..."], Int[Array, "b"]]:
        for_inputs, for_labels = jax.random.split(key)
        inputs = jax.random.normal(for_inputs, shape, jnp.float32)
        return inputs, jax.random.randint(for_labels, shape[:1], 0, classes)

    return make


@arguments.check(
    loss=arguments.function,
    params=arguments.weights,
    make_batch=arguments.function,
    steps=arguments.integer(0),
    learning_rate=arguments.number(),
    momentum=arguments.number(0, 1),
    epsilon=arguments.number(0),
    min_ndim=arguments.integer(0),
)
def metainit(
    loss: Loss,
    params: Params,
    masks: Masks,
    *,
    make_batch: MakeBatch,
    steps: int = 1000,
    learning_rate: float = 1e-3,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    min_ndim: int = 2,
    key: Key[Array, ""],
) -> Params:
    r"""Scales each tensor so that the gradient quotient is low on noise.

    Of every tensor only the norm :math:`n` changes. A step draws a batch, takes the
    slope :math:`q` of the gradient quotient by :math:`n`, and sets

    .. math:: v' = \mu v - \eta \, \mathrm{sign}(q), \quad n' = n + v'.

    A norm that would become negative changes the sign of its tensor instead, and goes
    on from the absolute value.

    One `lax.scan`; also for `jit`, and for `vmap` over keys, parameters and masks.

    Args:
      loss: as in `gradient_quotient`.
      params: parameters to scale.
      masks: which weights exist, same nesting; None where all do.
      make_batch: called with a key, such as what `gaussian_batches` made; a batch for
        the loss. Traced once.
      steps: batches to learn from; 0 or more.
      learning_rate: by how much one step changes a norm, without momentum.
      momentum: of those changes, in [0, 1).
      epsilon: as in `gradient_quotient`.
      min_ndim: scale tensors of as many axes or more. The quotient is that of all.
      key: what batches are drawn with.

    Returns:
      Parameters with the nesting and dtypes of `params`, exactly 0 outside the masks.
      Those scaled are the given times one number each, rounded once.

    Raises:
      ValueError: if `steps` is negative, or a norm comes out as no number, naming the
        leaf. Under `jit` and `vmap` the latter cannot be seen.

    Examples:
      >>> noise = gaussian_batches((128, 28, 28, 1), 10)
      >>> params = metainit(
      ...     loss, params, ticket, make_batch=noise, key=jax.random.key(0)
      ... )

    Deviations:
      The code of Evci et al. scales only tensors of three axes or more, and so nothing
      in a network without convolutions; `min_ndim=3` does. The default is that of the
      MetaInit code. Steps and learning rate are those of Evci et al.; the MetaInit code
      has 500 and 0.1. Both codes multiply the tensor anew each step, and so
      round it each time.

    References:
      Dauphin and Schoenholz. MetaInit: Initializing learning by learning to initialize.
      2019. NeurIPS, algorithm 1.

      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, for masked networks.
    """
    params = masks_lib.apply(masks, params)
    leaves = jax.tree.leaves(params)
    names = [
        name
        for name, leaf in zip(masks_lib.names(params), leaves, strict=True)
        if leaf.ndim >= min_ndim
    ]
    if not names or not steps:
        return params
    first = _norms(params, min_ndim)

    def step(
        state: tuple[Float[Array, "n"], Float[Array, "n"]], number: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, "n"], Float[Array, "n"]], None]:
        norms, velocity = state
        batch = make_batch(jax.random.fold_in(key, number))
        slopes = jax.grad(
            lambda norms: gradient_quotient(
                loss,
                _scale(params, norms / first, min_ndim),
                masks,
                batch,
                epsilon=epsilon,
            )
        )(norms)
        # A negative norm stands for the tensor of opposite sign.
        velocity = momentum * velocity - learning_rate * jnp.sign(norms * slopes)
        return (jnp.sign(norms) * (jnp.abs(norms) + velocity), velocity), None

    start = (first, jnp.zeros_like(first))
    (norms, _), _ = lax.scan(step, start, jnp.arange(steps))
    _check_numbers(names, norms)
    return _scale(params, norms / first, min_ndim)


def _norms(params: Params, min_ndim: int) -> Float[Array, "n"]:
    """Returns the norm of each tensor that is scaled; 1 for one of zeros."""
    wide = [
        leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for leaf in jax.tree.leaves(params)
        if leaf.ndim >= min_ndim
    ]
    norms = jnp.stack([jnp.sqrt(jnp.sum(jnp.square(leaf))) for leaf in wide])
    return jnp.where(norms > 0, norms, 1)


def _scale(params: Params, ratios: Float[Array, "n"], min_ndim: int) -> Params:
    """Multiplies each tensor that is scaled, in the order of leaves, by its ratio."""
    leaves, treedef = jax.tree.flatten(params)
    places = [i for i, leaf in enumerate(leaves) if leaf.ndim >= min_ndim]
    for place, ratio in zip(places, ratios, strict=True):
        wide = leaves[place].astype(ratio.dtype) * ratio
        leaves[place] = wide.astype(leaves[place].dtype)
    return treedef.unflatten(leaves)


def _check_numbers(names: list[str], norms: Float[Array, "n"]) -> None:
    """Refuses norms that are there to be seen and not numbers."""
    if isinstance(norms, jax.core.Tracer):
        return
    bad = [
        name
        for name, norm in zip(names, np.asarray(norms), strict=True)
        if not np.isfinite(norm)
    ]
    if bad:
        raise ValueError(
            f"loss: the norms of {bad} came out as no numbers; wanted a loss with "
            "three finite derivatives; look for roots at zero and overflow"
        )
