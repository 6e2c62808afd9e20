"""MetaInit: norms of initial weights that are learned on noise, before training.

The gradient quotient measures, weight by weight, how much a step of gradient descent
changes the gradient. Where it is small, the loss changes in a step as its gradient
predicts. MetaInit lowers the quotient by scaling whole tensors. It changes neither
masks nor the directions of tensors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class MetaInitOptions(NamedTuple):
    """Options of MetaInit. The defaults are those of Evci et al., but for `min_ndim`.

    Attributes:
      steps: number of steps, each with a batch of its own; 0 or more.
      learning_rate: amount by which one step changes a norm, without momentum.
      momentum: momentum of these changes, in [0, 1].
      epsilon: 0 or more; avoids division by gradients close to 0.
      min_ndim: only tensors with at least this number of axes are scaled. The gradient
        quotient is always that of all parameters.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    momentum: float = 0.9
    epsilon: float = 1e-5
    min_ndim: int = 2


# The same checks as those of arguments, by field.
_CHECKS = {
    "steps": arguments.integer(0),
    "learning_rate": arguments.number(),
    "momentum": arguments.number(0, 1),
    "epsilon": arguments.number(0),
    "min_ndim": arguments.integer(0),
}


@arguments.check(
    loss=arguments.function, params=arguments.weights, epsilon=arguments.number(0)
)
def gradient_quotient(
    loss: Loss, params: Params, masks: Masks, batch: Any, *, epsilon: float = 1e-5
) -> Float[Array, ""]:
    r"""Computes by what fraction a step of gradient descent changes the gradient.

    Let :math:`g` be the gradient and :math:`H` the Hessian of the loss at the masked
    parameters, both restricted to the active weights. The result is the mean of

    .. math:: |1 - (g - H g) / (g + \varepsilon \, \mathrm{sign}(g))|

    over the weights inside the masks and all elements of leaves without a mask, where
    the sign of 0 is 1. It is 0 for a linear loss.

    Args:
      loss: called as `loss(params, batch)`; returns a scalar and is three times
        differentiable almost everywhere, because `metainit` differentiates the
        quotient.
      params: parameters of the network.
      masks: boolean masks with the nesting of `params`; None where all elements are
        active.
      batch: second argument of the loss.
      epsilon: 0 or more; avoids division by gradients close to 0.

    Returns:
      A scalar, 0 or more, in float32 or wider. Can be used under `jit`, `grad` and
      `vmap`.

    Raises:
      ValueError: if a mask and its parameter do not fit, or an argument is out of
        range.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> params, mask = {"w": jnp.array([[2.0, 5.0]])}, jnp.array([[True, False]])
      >>> loss = lambda params, batch: 0.25 * jnp.sum(params["w"] ** 2)
      >>> gradient_quotient(loss, params, {"w": mask}, None, epsilon=0.0)
      Array(0.5, dtype=float32)

    Deviations:
      None known from the paper. The code of Evci et al. sums the same terms, but
      divides by the number of weights inside the masks without biases.

    References:
      Dauphin and Schoenholz. MetaInit: Initializing learning by learning to initialize.
      2019. NeurIPS, equation 1.
    """
    slope = jax.grad(lambda params: loss(masks_lib.apply(masks, params), batch))
    # The loss is masked inside `slope`, so its Hessian is zero in the rows and columns
    # of weights outside the masks, and the product is restricted to active weights.
    gradient = slope(params)
    _, product = jax.jvp(slope, (params,), (gradient,))

    def total(mask: Any, g: Any, hg: Any) -> Any:
        if g is None:
            return None
        wide = jnp.promote_types(g.dtype, jnp.float32)
        g, hg = g.astype(wide), hg.astype(wide)
        # Not `jnp.sign`, which is 0 at 0 and would not prevent a division by 0.
        change = jnp.abs(1 - (g - hg) / (g + jnp.where(g >= 0, epsilon, -epsilon)))
        if mask is None:
            return jnp.sum(change), jnp.asarray(g.size, wide)
        # An integer sum, because float32 cannot represent every sum above 2**24.
        num_active = jnp.sum(mask, dtype=jnp.int32).astype(wide)
        return jnp.sum(jnp.where(mask, change, 0)), num_active

    pairs = jax.tree.map(
        total, masks, gradient, product, is_leaf=lambda leaf: leaf is None
    )
    leaves = jax.tree.leaves(pairs)
    return sum(leaves[::2]) / jnp.maximum(1, sum(leaves[1::2]))


@arguments.check(classes=arguments.integer(1))
def gaussian_batches(shape: tuple[int, ...], classes: int) -> MakeBatch:
    """Makes a function that draws batches of Gaussian noise for `metainit`.

    Args:
      shape: shape of the inputs with the axis of examples first, such as (128, 28, 28,
        1).
      classes: number of classes, 1 or more.

    Returns:
      A function of a key to inputs [b, ...], standard normal in float32, and labels
      [b], uniform integers in [0, classes).

    Examples:
      >>> images, labels = gaussian_batches((8, 28, 28, 1), 10)(jax.random.key(0))
      >>> images.shape, labels.shape
      ((8, 28, 28, 1), (8,))
    """

    def make(
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "b ..."], Int[Array, "b"]]:
        inputs_key, labels_key = jax.random.split(key)
        inputs = jax.random.normal(inputs_key, shape, jnp.float32)
        return inputs, jax.random.randint(labels_key, shape[:1], 0, classes)

    return make


@arguments.check(
    loss=arguments.function,
    params=arguments.weights,
    make_batch=arguments.function,
)
def metainit(
    loss: Loss,
    params: Params,
    masks: Masks,
    *,
    make_batch: MakeBatch,
    key: Key[Array, ""],
    options: MetaInitOptions = MetaInitOptions(),  # noqa: B008
) -> Params:
    r"""Scales each tensor so that the gradient quotient on noise is low.

    Only the norm :math:`n` of each tensor changes. A step draws a batch, computes the
    derivative :math:`q` of the gradient quotient with respect to :math:`n`, and sets

    .. math:: v' = \mu v - \eta \, \mathrm{sign}(q), \quad n' = n + v'.

    If a norm becomes negative, the tensor changes its sign instead, and optimization
    continues from the absolute value.

    The steps are one `lax.scan`. Can be used under `jit`, and under `vmap` over keys,
    parameters and masks.

    Args:
      loss: called as `loss(params, batch)`; returns a scalar and is three times
        differentiable almost everywhere.
      params: parameters to scale.
      masks: boolean masks with the nesting of `params`; None where all elements are
        active.
      make_batch: function of a key to a batch, the second argument of the loss; for
        example from `gaussian_batches`. It is traced once.
      key: typed key from which the batches are drawn.
      options: number of steps, learning rate and others.

    Returns:
      Parameters with the nesting and dtypes of `params`, exactly 0 outside the masks.
      Each scaled tensor is the given one times a single number, and is rounded only
      once.

    Raises:
      ValueError: if an argument is out of range, or a norm becomes NaN or infinite,
        naming the leaf. The norms cannot be checked under `jit` and `vmap`.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> def loss(params, batch):
      ...     images, labels = batch
      ...     logits = model.apply(params, images)
      ...     return optax.losses.softmax_cross_entropy_with_integer_labels(
      ...         logits, labels
      ...     ).mean()
      >>> ticket = prune.prune(params, 0.5)
      >>> noise = gaussian_batches((32, 6), classes=4)  # the network has 6 inputs
      >>> options = MetaInitOptions(steps=10)
      >>> scaled = metainit(
      ...     loss,
      ...     params,
      ...     ticket,
      ...     make_batch=noise,
      ...     key=jax.random.key(0),
      ...     options=options,
      ... )

    Deviations:
      The code of Evci et al. scales only tensors with at least three axes, and
      therefore nothing in a network without convolutions; `min_ndim` 3 restores this.
      The default is that of the MetaInit code. The defaults of steps and learning rate
      are those of Evci et al.; the MetaInit code uses 500 and 0.1. Both codes multiply
      the tensor at every step, and so round it every time.

    References:
      Dauphin and Schoenholz. MetaInit: Initializing learning by learning to initialize.
      2019. NeurIPS, algorithm 1.

      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, for masked networks.
    """
    for name, check in _CHECKS.items():
        check(name, getattr(options, name))
    steps, learning_rate, momentum, epsilon, min_ndim = options
    params = masks_lib.apply(masks, params)
    leaves = jax.tree.leaves(params)
    names = [
        name
        for name, leaf in zip(masks_lib.names(params), leaves, strict=True)
        if leaf.ndim >= min_ndim
    ]
    if not names or not steps:
        return params
    initial_norms = _norms(params, min_ndim)

    def step(
        state: tuple[Float[Array, "n"], Float[Array, "n"]], number: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, "n"], Float[Array, "n"]], None]:
        norms, velocity = state
        batch = make_batch(jax.random.fold_in(key, number))
        # The initial tensors are scaled at every step, so that rounding errors do not
        # accumulate.
        gradients = jax.grad(
            lambda norms: gradient_quotient(
                loss,
                _scale(params, norms / initial_norms, min_ndim),
                masks,
                batch,
                epsilon=epsilon,
            )
        )(norms)
        # A negative norm stands for the tensor of opposite sign.
        velocity = momentum * velocity - learning_rate * jnp.sign(norms * gradients)
        return (jnp.sign(norms) * (jnp.abs(norms) + velocity), velocity), None

    start = (initial_norms, jnp.zeros_like(initial_norms))
    (norms, _), _ = lax.scan(step, start, jnp.arange(steps))
    _check_numbers(names, norms)
    return _scale(params, norms / initial_norms, min_ndim)


def _norms(params: Params, min_ndim: int) -> Float[Array, "n"]:
    """Computes the norm of each tensor to scale, in float32 or wider; 1 if it is 0."""
    wide = [
        leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for leaf in jax.tree.leaves(params)
        if leaf.ndim >= min_ndim
    ]
    norms = jnp.stack([jnp.sqrt(jnp.sum(jnp.square(leaf))) for leaf in wide])
    return jnp.where(norms > 0, norms, 1)


def _scale(params: Params, ratios: Float[Array, "n"], min_ndim: int) -> Params:
    """Multiplies each tensor to scale by its ratio; ratios are in the order of leaves.

    Args:
      params: parameters of the network.
      ratios: one factor per tensor with at least `min_ndim` axes.
      min_ndim: number of axes from which tensors are scaled.
    """
    leaves, treedef = jax.tree.flatten(params)
    positions = [i for i, leaf in enumerate(leaves) if leaf.ndim >= min_ndim]
    for position, ratio in zip(positions, ratios, strict=True):
        wide = leaves[position].astype(ratio.dtype) * ratio
        leaves[position] = wide.astype(leaves[position].dtype)
    return treedef.unflatten(leaves)


def _check_numbers(names: list[str], norms: Float[Array, "n"]) -> None:
    """Raises an error that names the leaves whose norms are concrete and not finite."""
    if isinstance(norms, jax.core.Tracer):
        return
    bad = [
        name
        for name, norm in zip(names, np.asarray(norms), strict=True)
        if not np.isfinite(norm)
    ]
    if bad:
        raise ValueError(
            "loss: expected three finite derivatives, got norms that are not finite in "
            f"{bad}; look for roots at zero and overflow"
        )
