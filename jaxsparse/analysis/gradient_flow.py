r"""Gradient flow: how much a step can do, and what a change of masks does to that.

A small step of gradient descent with rate :math:`\eta` lowers the loss by
:math:`\eta \lVert g \rVert^2` to first order, where :math:`g` is the gradient over the
parameters that there are: weights inside the masks, and whatever has no mask. The norm
of that gradient is the gradient flow.

Everything here is a pure function of parameters and masks, for any loss, usable under
`jit` and `vmap`; `build` has it recorded during training.
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
    """The norm of a gradient over what there is.

    Attributes:
      norm: L2 norm over all parameters, or over those with a mask.
      layers: L2 norm of each of them by name, slash-joined.
    """

    norm: Float[Array, ""]
    layers: dict[str, Float[Array, ""]]


@arguments.check(
    loss=arguments.function, params=arguments.weights, masks=arguments.masks
)
def gradient(loss: Loss, params: Params, masks: Masks, batch: Any) -> Grads:
    """Differentiates a loss with respect to the parameters that there are.

    Args:
      loss: called as `loss(params, batch)`, to a scalar; for the gradient flow of
        the paper, the mean cross-entropy without any penalty.
      params: parameters, zero outside the masks.
      masks: which weights exist.
      batch: what the loss is taken on.

    Returns:
      The gradient, exactly zero outside the masks.
    """
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))
    return masks_lib.apply(fitted, jax.grad(loss)(params, batch))


@arguments.check(grads=arguments.weights, masks=arguments.masks)
def measure(grads: Grads, masks: Masks, *, masked_only: bool = False) -> Flow:
    r"""Takes the norm of a gradient, in all and by layer.

    Args:
      grads: a gradient, dense ones too: what lies outside the masks does not count.
      masks: which weights exist.
      masked_only: whether to leave out parameters without a mask, such as biases.

    Returns:
      Norms, in float32 at least; :math:`\lVert m \odot g \rVert_2`.

    Examples:
      >>> grads = {"kernel": jnp.array([[3.0, 1.0]]), "bias": jnp.array([4.0])}
      >>> held = {"kernel": jnp.array([[True, False]]), "bias": None}
      >>> measure(grads, held).norm
      Array(5., dtype=float32)

    References:
      Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win, 2020, arXiv:2010.03533; their code counts biases and norms
      the concatenation of all, as here, without a division by any count.
    """
    squares = {
        name: jnp.sum(jnp.square(leaf))
        for name, leaf in _existing(grads, masks, masked_only=masked_only).items()
    }
    norm = jnp.sqrt(sum(squares.values(), start=jnp.float32(0)))
    return Flow(norm, {name: jnp.sqrt(value) for name, value in squares.items()})


def first_order_decrease(flow: Flow, *, learning_rate: Any) -> Float[Array, ""]:
    r"""Predicts how much a plain step lowers the loss, :math:`\eta \lVert g \rVert^2`.

    Args:
      flow: what `measure` made of the loss's gradient.
      learning_rate: of the step, above 0.
    """
    return learning_rate * jnp.square(flow.norm)


@arguments.check(
    grads=arguments.weights, masks=arguments.masks, order=arguments.integer(1)
)
def effective_gradient_flow(
    grads: Grads, masks: Masks, *, order: int = 2, masked_only: bool = True
) -> Float[Array, ""]:
    r"""Averages the norms of layers: another definition of gradient flow.

    .. math:: \frac{1}{L} \sum_{l=1}^{L} \lVert m_l \odot g_l \rVert_p

    Large layers do not drown small ones, as they do in a norm over all.

    Args:
      grads: a gradient, dense ones too.
      masks: which weights exist.
      order: 1 or 2, the :math:`p` of the norm.
      masked_only: whether to leave out parameters without a mask.

    Returns:
      The mean over layers, of which a weight and its bias count as two where the
      latter counts.

    Raises:
      ValueError: for another order.

    References:
      Tessera, Hooker, Rosman, Keep the Gradients Flowing: Using Gradient Flow to Study
      Sparse Network Optimization, 2021, arXiv:2102.01670, section 3.
    """
    if order not in (1, 2):
        raise ValueError(f"order: got {order}; wanted 1 or 2")
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
    """Says how much a change of masks alone adds to the gradient flow.

    Weights in both masks keep their values, new ones are zero, and nothing is trained
    in between: the norm after the change, less the norm before, on the same batch.

    Args:
      loss: see `gradient`.
      params: parameters before the change, zero outside `before`.
      before: masks they were trained with.
      after: masks they will be trained with.
      batch: what the loss is taken on.
    """

    def norm(held: Masks) -> Float[Array, ""]:
        weights = masks_lib.apply(held, params)
        return measure(gradient(loss, weights, held, batch), held).norm

    return norm(after) - norm(before)


class Signal(NamedTuple):
    """How a signal goes through a network at random inputs.

    Attributes:
      output: standard deviation of all outputs together.
      neurons: for each activation, the standard deviation of each of its neurons over
        examples and, for maps, places.
      layers: for each activation, that of all its values together.
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
    """Sends standard normal inputs through a network.

    Args:
      activations: from parameters and inputs [n ...] to the outputs [n k] and a tree
        of what is looked at besides, each [n ... o]; see `captured` for linen.
      params: parameters, zero outside their masks.
      shape: of one input.
      examples: how many inputs.
      key: what they are drawn with.

    Returns:
      Standard deviations; 1 everywhere would be a signal that is kept.

    References:
      Evci et al., 2020, arXiv:2010.03533 (signal propagation at initialisation).
    """
    outputs, seen = activations(params, jax.random.normal(key, (examples, *shape)))
    return Signal(
        jnp.std(outputs),
        jax.tree.map(
            lambda leaf: jnp.std(leaf, axis=tuple(range(leaf.ndim - 1))), seen
        ),
        jax.tree.map(jnp.std, seen),
    )


def captured(model: Any, batch_stats: Any = None) -> Callable[..., Any]:
    """Makes the function `propagate` takes of a linen network.

    Args:
      model: called as `model.apply(variables, inputs, train=False)`.
      batch_stats: running statistics of BatchNorm, if it has any.

    Returns:
      A function of parameters and inputs to logits and the outputs of all layers with
      parameters by name, before what follows them.
    """

    def activations(params: Params, inputs: Array) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats or {}}
        outputs, state = model.apply(
            variables, inputs, train=False, capture_intermediates=True
        )
        found = state["intermediates"]
        layers = sorted({name for name in found if name in params})
        return outputs, {name: found[name]["__call__"][0] for name in layers}

    return activations


def _existing(
    grads: Grads, masks: Masks, *, masked_only: bool
) -> dict[str, Float[Array, "..."]]:
    """Lists the leaves that count, in float32 at least, zero outside the masks."""
    fitted = tree.match_structure(masks, grads, fields=("masks", "grads"))
    held = masks_lib.apply(fitted, grads)
    masked = set(masks_lib.names(masks))
    return {
        name: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for name, leaf in tree.named_leaves(held).items()
        if name in masked or not masked_only
    }
