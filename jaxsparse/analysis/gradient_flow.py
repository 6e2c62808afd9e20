r"""Gradient flow: the norm of the gradient over the active weights.

A small step of gradient descent with learning rate :math:`\eta` lowers the loss by
:math:`\eta \lVert g \rVert^2` to first order, where :math:`g` is the gradient with
respect to the active weights and the parameters without a mask. The norm of :math:`g`
is the gradient flow.

All functions are pure functions of parameters and masks, for any loss, and work under
`jit` and `vmap`. The probes of `factory` record them during training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Grads, Masks, Params

Loss = Callable[[Params, Any], Float[Array, ""]]


class Flow(NamedTuple):
    """Norms of a gradient over active weights.

    Attributes:
      norm: L2 norm over all parameters, or over the parameters with a mask only.
      layers: L2 norm of each such leaf, by its slash-joined name.
    """

    norm: Float[Array, ""]
    layers: dict[str, Float[Array, ""]]


@arguments.check(
    loss=arguments.function, params=arguments.weights, masks=arguments.masks
)
def gradient(loss: Loss, params: Params, masks: Masks, batch: Any) -> Grads:
    """Computes the gradient of a loss with respect to the active parameters.

    Args:
      loss: called as `loss(params, batch)`; returns a scalar. For the gradient flow of
        Evci et al. (2020), pass the mean cross-entropy without any penalty.
      params: parameters, zero outside the masks.
      masks: boolean masks of the active weights; None where a leaf is not prunable.
      batch: passed on to `loss`.

    Returns:
      The gradient, exactly zero outside the masks.
    """
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))
    return masks_lib.apply(fitted, jax.grad(loss)(params, batch))


@arguments.check(grads=arguments.weights, masks=arguments.masks)
def measure(grads: Grads, masks: Masks, *, masked_only: bool = False) -> Flow:
    r"""Computes the norm of a gradient, overall and for each leaf.

    Args:
      grads: a gradient. It may be dense: elements outside the masks are ignored.
      masks: boolean masks of the active weights; None where a leaf is not prunable.
      masked_only: whether to leave out parameters without a mask, such as biases.

    Returns:
      The norms :math:`\lVert m \odot g \rVert_2`, in float32 or wider.

    Examples:
      >>> grads = {"kernel": jnp.array([[3.0, 1.0]]), "bias": jnp.array([4.0])}
      >>> masks = {"kernel": jnp.array([[True, False]]), "bias": None}
      >>> measure(grads, masks).norm
      Array(5., dtype=float32)

    References:
      Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win, 2020, arXiv:2010.03533. As here, their code includes biases,
      takes the norm of all gradients concatenated, and does not divide by a count.
    """
    squares = {
        name: jnp.sum(jnp.square(leaf))
        for name, leaf in _existing(grads, masks, masked_only=masked_only).items()
    }
    # The start keeps the norm a float32 array if no leaf is left.
    norm = jnp.sqrt(sum(squares.values(), start=jnp.float32(0)))
    return Flow(norm, {name: jnp.sqrt(value) for name, value in squares.items()})


def first_order_decrease(flow: Flow, *, learning_rate: Any) -> Float[Array, ""]:
    r"""Predicts how much a step lowers the loss, :math:`\eta \lVert g \rVert^2`.

    Args:
      flow: norms of the gradient of the loss, from `measure`.
      learning_rate: learning rate of the step, above 0.

    Returns:
      The decrease of the loss to first order, for a step of plain gradient descent.
    """
    return learning_rate * jnp.square(flow.norm)


@arguments.check(
    grads=arguments.weights, masks=arguments.masks, order=arguments.integer(1)
)
def effective_gradient_flow(
    grads: Grads, masks: Masks, *, order: int = 2, masked_only: bool = True
) -> Float[Array, ""]:
    r"""Averages the gradient norms of layers, another definition of gradient flow.

    .. math:: \frac{1}{L} \sum_{l=1}^{L} \lVert m_l \odot g_l \rVert_p

    Each layer has the same weight here, while large layers dominate the norm over all
    parameters.

    Args:
      grads: a gradient. It may be dense: elements outside the masks are ignored.
      masks: boolean masks of the active weights; None where a leaf is not prunable.
      order: order :math:`p` of the norm, 1 or 2.
      masked_only: whether to leave out parameters without a mask, such as biases. If
        not, the kernel and the bias of a layer count as two layers.

    Returns:
      The mean over layers, in float32 or wider.

    Raises:
      ValueError: if `order` is not 1 or 2.

    References:
      Tessera, Hooker, Rosman, Keep the Gradients Flowing: Using Gradient Flow to Study
      Sparse Network Optimization, 2021, arXiv:2102.01670, section 3.
    """
    if order not in (1, 2):
        raise ValueError(f"order: expected 1 or 2, got {order}")
    leaves = _existing(grads, masks, masked_only=masked_only).values()
    norms = [
        jnp.sum(jnp.abs(leaf)) if order == 1 else jnp.sqrt(jnp.sum(jnp.square(leaf)))
        for leaf in leaves
    ]
    return jnp.mean(jnp.stack(norms))


@arguments.check(
    loss=arguments.function,
    params=arguments.weights,
    before=arguments.masks,
    after=arguments.masks,
)
def change(
    loss: Loss, params: Params, before: Masks, after: Masks, batch: Any
) -> Float[Array, ""]:
    """Computes how much a mask update alone changes the gradient flow.

    Weights active in both masks keep their values, newly activated weights are zero,
    and nothing is trained in between. The result is the norm of the gradient after the
    update minus the norm before it, on the same batch.

    Args:
      loss: called as `loss(params, batch)`; returns a scalar.
      params: parameters before the update, zero outside `before`.
      before: masks before the update; None where a leaf is not prunable.
      after: masks after the update, with the same structure.
      batch: passed on to `loss`.

    Returns:
      The difference of the two L2 norms over all parameters; positive if the update
      increases the gradient flow.
    """

    def norm(masks: Masks) -> Float[Array, ""]:
        # Drops the weights that the update deactivates; those that it activates are
        # already zero.
        weights = masks_lib.apply(masks, params)
        return measure(gradient(loss, weights, masks, batch), masks).norm

    return norm(after) - norm(before)


class Signal(NamedTuple):
    """Standard deviations of the activations of a network for random inputs.

    Attributes:
      output: standard deviation over all outputs of all examples.
      neurons: for each activation, the standard deviation of each neuron over examples
        and, in feature maps, over positions.
      layers: for each activation, the standard deviation over all its elements.
    """

    output: Float[Array, ""]
    neurons: Any
    layers: Any


def propagate(
    activations: Callable[[Params, Array], tuple[Array, Any]],
    params: Params,
    shape: tuple[int, ...],
    *,
    examples: int = 1000,
    key: Key[Array, ""],
) -> Signal:
    """Measures how standard normal inputs propagate through a network.

    Args:
      activations: maps parameters and inputs [n, ...] to the outputs [n, k] and a tree
        of activations, each [n, ..., o]. `captured` makes such a function for a linen
        module.
      params: parameters, zero outside their masks.
      shape: shape of one input, without the axis of examples.
      examples: number of inputs.
      key: random key for the inputs.

    Returns:
      Standard deviations; a network that preserves the signal has values of 1
      everywhere.

    References:
      Evci et al., 2020, arXiv:2010.03533 (signal propagation at initialization).
    """
    inputs = jax.random.normal(key, (examples, *shape))
    outputs, layer_outputs = activations(params, inputs)
    return Signal(
        jnp.std(outputs),
        jax.tree.map(
            lambda leaf: jnp.std(leaf, axis=tuple(range(leaf.ndim - 1))), layer_outputs
        ),
        jax.tree.map(jnp.std, layer_outputs),
    )


def captured(model: Any, batch_stats: Any = None) -> Callable[..., Any]:
    """Makes the argument `activations` of `propagate` for a linen module.

    Args:
      model: called as `model.apply(variables, inputs, train=False)`.
      batch_stats: running statistics of BatchNorm; None if the network has none.

    Returns:
      A function of parameters and inputs. It returns logits and a dictionary with the
      output of each top-level submodule that has parameters, by name, before anything
      that follows the submodule, such as an activation function.
    """

    def activations(params: Params, inputs: Array) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats or {}}
        outputs, state = model.apply(
            variables, inputs, train=False, capture_intermediates=True
        )
        intermediates = state["intermediates"]
        # The intermediates also contain modules without parameters, and the output of
        # the model itself.
        layers = sorted({name for name in intermediates if name in params})
        return outputs, {name: intermediates[name]["__call__"][0] for name in layers}

    return activations


def _existing(
    grads: Grads, masks: Masks, *, masked_only: bool
) -> dict[str, Float[Array, "..."]]:
    """Lists leaves by name, zero outside the masks, in float32 or wider."""
    fitted = tree.match_structure(masks, grads, fields=("masks", "grads"))
    masked_grads = masks_lib.apply(fitted, grads)
    masked = set(masks_lib.names(masks))
    return {
        name: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for name, leaf in tree.named_leaves(masked_grads).items()
        if name in masked or not masked_only
    }
