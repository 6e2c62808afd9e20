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
from jaxsparse import tree
from jaxsparse.types import Masks, Params

Loss = Callable[[Params, Any], Float[Array, ""]]
Batches = Callable[[Int[Array, ""]], tuple[Any, Any]]


class GradInitOptions(NamedTuple):
    r"""Options of GradInit. The defaults are those in the README of the released code.

    Attributes:
      steps: number of updates of the factors, 0 or more.
      learning_rate: learning rate of Adam for the factors, above 0.
      look_ahead: length of the normalized step of gradient descent (:math:`\eta`),
        above 0.
      longest: largest allowed norm of the gradient (:math:`\gamma`), above 0.
      least: smallest allowed factor of weights, in [0, 1]; factors of biases may fall
        to 0.
      clip: limit of the absolute value of each factor's gradient, above 0.
      masked: whether to use the gradient and the step of the masked network. The
        released code uses those of the dense network, even if the mask is given first.
    """

    steps: int = 180
    learning_rate: float = 1e-2
    look_ahead: float = 0.1
    longest: float = 1.0
    least: float = 0.01
    clip: float = 1.0
    masked: bool = True


class GradInitResult(NamedTuple):
    """Result of GradInit.

    Attributes:
      params: the masked parameters, each tensor multiplied by its factor.
      factors: the factors, one scalar per tensor, in the nesting of the parameters.
      objective: the minimized quantity at each step [steps]: the loss after the
        look-ahead step divided by the step's length, or the norm of the gradient if
        that exceeded `longest`.
      constrained: whether the norm of the gradient exceeded `longest` at each step
        [steps], boolean.
    """

    params: Params
    factors: PyTree
    objective: Float[Array, "steps"]
    constrained: Bool[Array, "steps"]


class _Adam(NamedTuple):
    """Moments of Adam for the factors.

    The first moments and step counts are separate for steps that minimize the loss and
    for constrained steps, which minimize the norm of the gradient. The second moments
    are shared.

    Attributes:
      first: first moments of the loss steps, in the nesting of the factors.
      first_constrained: first moments of the constrained steps.
      second: second moments of all steps.
      count: number of loss steps so far, int32.
      count_constrained: number of constrained steps so far, int32.
    """

    first: PyTree
    first_constrained: PyTree
    second: PyTree
    count: Array
    count_constrained: Array


class _State(NamedTuple):
    """State of the optimization, updated at each step.

    Attributes:
      factors: one scalar per tensor, in the nesting of the parameters.
      moments: moments of Adam.
    """

    factors: PyTree
    moments: _Adam


# Decay rates of the moments and epsilon: the usual ones of Adam.
B1, B2, EPS = 0.9, 0.999, 1e-8


def rescale(
    loss: Loss,
    params: Params,
    masks: Masks,
    batches: Batches,
    *,
    settings: GradInitOptions | None = None,
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
      settings: the options, with Python numbers; None for the defaults.
      dispatch: whether the host dispatches each step. If False, all steps are one
        compiled program, which may be part of another one. Dispatching needs the
        batches of only one step on the device. It is also faster on CPUs, where second
        derivatives of convolutions are many times slower inside loops and branches.

    Returns:
      The scaled parameters, the factors, and the objective at each step.

    Raises:
      ValueError: if an option is out of range, or masks and parameters do not fit.

    Deviations:
      With `masked=True`, the default, the gradient and the step are those of the masked
      network. In the released code, weights outside the masks contribute to them.

    References:
      Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
      Mask, 2022, arXiv:2206.12755.

      Zhu, Ni, Xu, Kong, Huang, Goldstein, GradInit: Learning to Initialize Neural
      Networks for Stable and Efficient Training, 2021, arXiv:2102.08098, algorithm 1.
    """
    settings = GradInitOptions() if settings is None else settings
    _check(settings)
    start = masks_lib.apply(masks, params)
    ones = jax.tree.map(lambda leaf: jnp.ones((), leaf.dtype), start)
    zeros = jax.tree.map(jnp.zeros_like, ones)
    none = jnp.int32(0)
    state = _State(ones, _Adam(zeros, zeros, zeros, none, none))

    def step(state: _State, number: Any) -> tuple[_State, tuple[Array, Array]]:
        first, second = batches(number)
        weights, grads, length = _measure(loss, settings, state, start, masks, first)
        too_long = length > settings.longest
        value, slope = (_choose if dispatch else lax.cond)(
            too_long,
            lambda: _shorten(loss, settings, weights, masks, first),
            lambda: _look_ahead(loss, settings, weights, grads, length, second),
        )
        return _advance(settings, state, start, slope, too_long), (value, too_long)

    if not dispatch:
        numbers = jnp.arange(settings.steps, dtype=jnp.int32)
        state, (objective, constrained) = lax.scan(step, state, numbers)
    else:
        told = []
        for number in range(settings.steps):
            state, each = step(state, number)
            # Waits for the step, so that batches of several steps do not pile up.
            told.append(jax.device_get(each))
        objective = jnp.asarray([value for value, _ in told])
        constrained = jnp.asarray([too_long for _, too_long in told], bool)
    return GradInitResult(
        _times(state.factors, start), state.factors, objective, constrained
    )


def _choose(which: Array, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """Calls one of two functions by a concrete condition; `lax.cond` on the host."""
    return one() if which else other()


# `loss` and `settings` are static. Within `lax.scan` these calls are inlined; with
# `dispatch` each is a program of its own.
_compiled = functools.partial(jax.jit, static_argnums=(0, 1))


@_compiled
def _measure(
    loss: Loss,
    settings: GradInitOptions,
    state: _State,
    start: Params,
    masks: Masks,
    on: Any,
) -> tuple[Params, Params, Array]:
    """Computes the current weights, the gradient on a batch, and its norm.

    Args:
      loss: called as `loss(params, batch)`.
      settings: the options.
      state: factors and moments.
      start: masked initial parameters.
      masks: boolean masks.
      on: the batch.
    """
    weights = _times(state.factors, start)
    grads = _hide(settings, masks, jax.grad(loss)(weights, on))
    return weights, grads, _norm(grads)


@_compiled
def _shorten(
    loss: Loss, settings: GradInitOptions, weights: Params, masks: Masks, on: Any
) -> tuple[Array, Params]:
    """Computes the norm of the gradient and its derivative with respect to the weights.

    Args:
      loss: called as `loss(params, batch)`.
      settings: the options.
      weights: current weights.
      masks: boolean masks.
      on: the batch.
    """

    def length(weights: Params) -> Array:
        return _norm(_hide(settings, masks, jax.grad(loss)(weights, on)))

    return jax.value_and_grad(length)(weights)


@_compiled
def _look_ahead(
    loss: Loss,
    settings: GradInitOptions,
    weights: Params,
    grads: Params,
    length: Array,
    on: Any,
) -> tuple[Array, Params]:
    """Computes the loss after a step of gradient descent, and its gradient.

    Both are divided by the length of the step. The step counts as a constant.

    Args:
      loss: called as `loss(params, batch)`.
      settings: the options.
      weights: current weights.
      grads: gradient that gives the direction of the step.
      length: norm of `grads`.
      on: the batch on which the loss is computed.
    """
    by = settings.look_ahead
    # A gradient of exactly 0 has no direction: the step is then 0, not NaN.
    share = by / jnp.maximum(length, jnp.finfo(length).tiny)
    moved = jax.tree.map(lambda w, g: w - share * g, weights, grads)
    value, slope = jax.value_and_grad(loss)(moved, on)
    return value / by, jax.tree.map(lambda s: s / by, slope)


def _hide(settings: GradInitOptions, masks: Masks, grads: Params) -> Params:
    """Masks gradients, unless the options ask for those of the dense network."""
    return masks_lib.apply(masks, grads) if settings.masked else grads


def _check(settings: GradInitOptions) -> None:
    """Checks that all options are in range.

    Raises:
      ValueError: if one is not; the message names all that are not.
    """
    above = ("learning_rate", "look_ahead", "longest", "clip")
    wrong = [name for name in above if not getattr(settings, name) > 0]
    if settings.steps < 0:
        wrong.append("steps")
    if not 0 <= settings.least <= 1:
        wrong.append("least")
    if wrong:
        came = {name: getattr(settings, name) for name in wrong}
        raise ValueError(
            f"settings: got {came}; wanted {list(above)} above 0, steps of 0 or more "
            "and least in [0, 1]"
        )


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


def _clipped_grad(slope: Array, start: Array, clip: float) -> Float[Array, ""]:
    """Computes the clipped gradient of a tensor's factor, 0 for a tensor of zeros.

    Args:
      slope: gradient with respect to the weights of the tensor.
      start: initial weights of the tensor.
      clip: limit of the absolute value.
    """
    return jnp.clip(jnp.sum(slope * start), -clip, clip)


@functools.partial(jax.jit, static_argnums=0)
def _advance(
    settings: GradInitOptions,
    state: _State,
    start: Params,
    slope: Params,
    constrained: Array,
) -> _State:
    """Updates the factors by a step of Adam.

    Args:
      settings: the options.
      state: factors and moments before the step.
      start: masked initial parameters.
      slope: gradient of the objective with respect to the weights.
      constrained: whether the objective was the norm of the gradient, a boolean scalar.

    Returns:
      The state after the step.
    """
    factors, moments = state
    pulls = jax.tree.map(lambda s, w: _clipped_grad(s, w, settings.clip), slope, start)

    def either(new: PyTree, old: PyTree, *, where: Array) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(where, a, b), new, old)

    old = either(moments.first_constrained, moments.first, where=constrained)
    first = jax.tree.map(lambda m, p: B1 * m + (1 - B1) * p, old, pulls)
    second = jax.tree.map(lambda v, p: B2 * v + (1 - B2) * p * p, moments.second, pulls)
    count = moments.count + ~constrained
    other = moments.count_constrained + constrained
    # Each kind of step has a bias correction by its own count, the shared second
    # moments one by both counts.
    own = jnp.where(constrained, other, count).astype(jnp.float32)
    both = (count + other).astype(jnp.float32)

    def move(name: str, factor: Array, m: Array, v: Array, leaf: Array) -> Array:
        is_bias = name.endswith("bias")
        ahead = m / (1 - B1**own)
        scale = jnp.sqrt(v / (1 - B2**both)) + EPS
        least = 0.0 if is_bias else settings.least
        moved = jnp.maximum(factor - settings.learning_rate * ahead / scale, least)
        # A factor of 0 stays 0, as in the released code.
        return jnp.where(jnp.any(leaf != 0) & (factor > 0), moved, factor)

    factors = tree.map_with_names(move, factors, first, second, start)
    moments = _Adam(
        either(moments.first, first, where=constrained),
        either(first, moments.first_constrained, where=constrained),
        second,
        count.astype(jnp.int32),
        other.astype(jnp.int32),
    )
    return _State(factors, moments)
