r"""GradInit for masked networks: learned scales of the initial parameters.

Each tensor :math:`p` of the parameters gets one factor :math:`\alpha_p`, 0 or more, and
keeps its direction. The factors are learned such that one normalized step of gradient
descent lowers the loss as much as possible, while the norm of the gradient is at most
:math:`\gamma`. ToST calls this layer-wise rescaled initialization.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxsparse import masks as masks_lib
from jaxsparse.tost import factor_adam, gradinit_options
from jaxsparse.tost.factor_adam import FactorState, Moments
from jaxsparse.tost.gradinit_options import GradInitOptions
from jaxsparse.types import Masks, Params

Loss = Callable[[Params, Any], Float[Array, ""]]
Batches = Callable[[Int[Array, ""]], tuple[Any, Any]]


class GradInitResult(NamedTuple):
    """Result of GradInit.

    Attributes:
      params: the masked parameters, each tensor multiplied by its factor.
      factors: the factors, one scalar per tensor, in the nesting of the parameters.
      objective: the minimized quantity at each step [steps]: the loss after the
        look-ahead step divided by the step's length, or the norm of the gradient if
        that exceeded `max_grad_norm`.
      constrained: whether the norm of the gradient exceeded `max_grad_norm` at each
        step [steps], boolean.
    """

    params: Params
    factors: PyTree
    objective: Float[Array, "steps"]
    constrained: Bool[Array, "steps"]


def rescale(
    loss: Loss,
    params: Params,
    masks: Masks,
    batches: Batches,
    *,
    options: GradInitOptions | None = None,
    dispatch: bool = False,
) -> GradInitResult:
    r"""Learns a factor for each tensor of the parameters, by GradInit.

    Let :math:`g` be the gradient of the loss on a batch :math:`S`, and :math:`\tilde S`
    another batch that overlaps with it. A step of Adam lowers, as a function of the
    factors,

    .. math:: L(\tilde S; \theta - \eta \, g / \|g\|_2) / \eta

    where the gradient step :math:`\eta \, g / \|g\|_2` counts as a constant. If
    :math:`\|g\|_2` exceeds :math:`\gamma`, it lowers :math:`\|g\|_2` instead. Because
    each tensor is only scaled, weights outside the masks stay zero.

    Args:
      loss: called as `loss(params, batch)`; returns the mean loss of the batch and must
        be twice differentiable. Compiled programs are cached per loss function, so
        calls with the same function share them. BatchNorm should use batch statistics.
      params: initial parameters, masked or not. Tensors of zeros are not changed.
      masks: boolean masks with the nesting of `params`; None where all elements are
        active.
      batches: function of the step number, counted from 0, to the batch S and the batch
        of the look-ahead step. The number is a Python integer with `dispatch`, and
        otherwise traced, int32.
      options: the options, with Python numbers; None for the defaults.
      dispatch: whether the host dispatches each step. If False, all steps are one
        compiled program, which may be part of another one. Dispatching needs the
        batches of only one step on the device. It is also faster on CPUs, where second
        derivatives of convolutions are many times slower inside loops and branches.

    Returns:
      The scaled parameters, the factors, and the objective at each step.

    Raises:
      ValueError: if an option is out of range, or masks and parameters do not fit.

    Deviations:
      With `mask_gradients=True`, the default, the gradient and the step are those of
      the masked network. In the released code, weights outside the masks contribute to
      them.

    References:
      Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
      Mask, 2022, arXiv:2206.12755.

      Zhu, Ni, Xu, Kong, Huang, Goldstein, GradInit: Learning to Initialize Neural
      Networks for Stable and Efficient Training, 2021, arXiv:2102.08098, algorithm 1.
    """
    options = GradInitOptions() if options is None else options
    gradinit_options.check(options)
    start = masks_lib.apply(masks, params)
    ones = jax.tree.map(lambda leaf: jnp.ones((), leaf.dtype), start)
    zeros = jax.tree.map(jnp.zeros_like, ones)
    none = jnp.int32(0)
    state = FactorState(ones, Moments(zeros, zeros, zeros, none, none))

    def step(
        state: FactorState, number: Any
    ) -> tuple[FactorState, tuple[Array, Array]]:
        first, second = batches(number)
        weights, grads, grad_norm = _measure(loss, options, state, start, masks, first)
        exceeds = grad_norm > options.max_grad_norm
        value, gradient = (_choose if dispatch else lax.cond)(
            exceeds,
            lambda: _shorten(loss, options, weights, masks, first),
            lambda: _look_ahead(loss, options, weights, grads, grad_norm, second),
        )
        state = factor_adam.advance(options, state, start, gradient, exceeds)
        return state, (value, exceeds)

    if not dispatch:
        numbers = jnp.arange(options.steps, dtype=jnp.int32)
        state, (objective, constrained) = lax.scan(step, state, numbers)
    else:
        records = []
        for number in range(options.steps):
            state, record = step(state, number)
            # Waits for the step, so that batches of several steps do not pile up.
            records.append(jax.device_get(record))
        objective = jnp.asarray([value for value, _ in records])
        constrained = jnp.asarray([exceeds for _, exceeds in records], bool)
    return GradInitResult(
        _times(state.factors, start), state.factors, objective, constrained
    )


def _choose(
    condition: Array, if_true: Callable[[], Any], if_false: Callable[[], Any]
) -> Any:
    """Calls one of two functions by a concrete condition; `lax.cond` on the host."""
    return if_true() if condition else if_false()


# `loss` and `options` are static. Within `lax.scan` these calls are inlined; with
# `dispatch` each is a program of its own.
_compiled = functools.partial(jax.jit, static_argnums=(0, 1))


@_compiled
def _measure(
    loss: Loss,
    options: GradInitOptions,
    state: FactorState,
    start: Params,
    masks: Masks,
    batch: Any,
) -> tuple[Params, Params, Array]:
    """Computes the current weights, the gradient on a batch, and its norm.

    Args:
      loss: called as `loss(params, batch)`.
      options: the options.
      state: factors and moments.
      start: masked initial parameters.
      masks: boolean masks.
      batch: the batch.
    """
    weights = _times(state.factors, start)
    grads = _mask_grads(options, masks, jax.grad(loss)(weights, batch))
    return weights, grads, _norm(grads)


@_compiled
def _shorten(
    loss: Loss, options: GradInitOptions, weights: Params, masks: Masks, batch: Any
) -> tuple[Array, Params]:
    """Computes the norm of the gradient and its derivative with respect to the weights.

    Args:
      loss: called as `loss(params, batch)`.
      options: the options.
      weights: current weights.
      masks: boolean masks.
      batch: the batch.
    """

    def grad_norm(weights: Params) -> Array:
        return _norm(_mask_grads(options, masks, jax.grad(loss)(weights, batch)))

    return jax.value_and_grad(grad_norm)(weights)


@_compiled
def _look_ahead(
    loss: Loss,
    options: GradInitOptions,
    weights: Params,
    grads: Params,
    grad_norm: Array,
    batch: Any,
) -> tuple[Array, Params]:
    """Computes the loss after a step of gradient descent, and its gradient.

    Both are divided by the length of the step. The step counts as a constant.

    Args:
      loss: called as `loss(params, batch)`.
      options: the options.
      weights: current weights.
      grads: gradient that gives the direction of the step.
      grad_norm: norm of `grads`.
      batch: the batch on which the loss is computed.
    """
    by = options.step_size
    # A gradient of exactly 0 has no direction: the step is then 0, not NaN.
    scale = by / jnp.maximum(grad_norm, jnp.finfo(grad_norm).tiny)
    stepped = jax.tree.map(lambda w, g: w - scale * g, weights, grads)
    value, gradient = jax.value_and_grad(loss)(stepped, batch)
    return value / by, jax.tree.map(lambda s: s / by, gradient)


def _mask_grads(options: GradInitOptions, masks: Masks, grads: Params) -> Params:
    """Masks gradients, unless the options ask for those of the dense network."""
    return masks_lib.apply(masks, grads) if options.mask_gradients else grads


def _times(factors: PyTree, params: Params) -> Params:
    """Multiplies each tensor by its factor."""
    return jax.tree.map(lambda factor, leaf: factor * leaf, factors, params)


def _norm(tree: Params) -> Float[Array, ""]:
    """Computes the norm of all tensors together. Its gradient at 0 is 0, not NaN."""
    square = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))
    # The derivative of `sqrt` at 0 is infinite. It must not be computed even in the
    # branch that `where` does not select, because 0 times infinity is NaN.
    safe = jnp.where(square > 0, square, 1.0)
    return jnp.where(square > 0, jnp.sqrt(safe), 0.0)
