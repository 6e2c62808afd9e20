r"""Layer-wise rescaled initialisation: GradInit for a network with masks.

Each tensor :math:`p` of the parameters gets one positive factor :math:`\alpha_p`, and
its direction stays. Factors are learned so that one normalised step of gradient descent
lowers the loss the most, while the gradient is no longer than :math:`\gamma`.
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
    """How factors are learned; as the README of the released code has it.

    Attributes:
      steps: updates of the factors.
      learning_rate: of Adam.
      look_ahead: length of the step of gradient descent.
      longest: gamma, the norm that the gradient may have.
      least: of the factors of weights; those of biases may fall to 0.
      clip: of each factor's gradient, in absolute value.
      masked: whether the gradient and the step are those of the masked network. The
        released code has them of the dense one, also where the mask comes first.
    """

    steps: int = 180
    learning_rate: float = 1e-2
    look_ahead: float = 0.1
    longest: float = 1.0
    least: float = 0.01
    clip: float = 1.0
    masked: bool = True


class GradInitResult(NamedTuple):
    """What came of it.

    Attributes:
      params: the parameters, each tensor times its factor; masked.
      factors: one number a tensor, in the nesting of the parameters.
      objective: what was minimised at each step [steps]: the loss after the look-ahead
        by its length, or the norm of the gradient where that was too long.
      constrained: at which steps that was so [steps].
    """

    params: Params
    factors: PyTree
    objective: Float[Array, "steps"]
    constrained: Bool[Array, "steps"]


class _Adam(NamedTuple):
    """Moments of the factors: of either kind of step, and of both together."""

    first: PyTree
    first_constrained: PyTree
    second: PyTree
    count: Array
    count_constrained: Array


class _State(NamedTuple):
    """What a step changes."""

    factors: PyTree
    moments: _Adam


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
    r"""Learns a factor for each tensor of the parameters.

    With the gradient :math:`g` of the loss on a batch :math:`S` and another batch
    :math:`\tilde S` that overlaps with it, factors lower

    .. math:: L(\tilde S; \theta - \eta \, g / \|g\|_2) / \eta

    where the step counts as a constant; or :math:`\|g\|_2` itself, by its own gradient,
    where that is above :math:`\gamma`. Directions of tensors do not change, so that
    what is masked stays zero.

    Args:
      loss: called as `loss(params, batch)`; the mean over the batch, twice
        differentiable. Programs are kept by it: give the same function for all that are
        to share them. BatchNorm should take the statistics of the batch.
      params: initial parameters; masked or not makes no difference. Tensors of zeros
        stay as they are.
      masks: which weights exist.
      batches: from the number of a step, traced or, with `dispatch`, an int, to the
        batches S and that of the look-ahead.
      settings: see there, plain numbers; None for the published ones.
      dispatch: whether the host goes from step to step, instead of one program for all
        that may be part of another. One step's batches at a time need be on the device
        then; and CPUs compute second gradients of convolutions many times slower
        inside of loops and branches than outside.

    Returns:
      The parameters, and how they came about.

    Raises:
      ValueError: for settings out of range.

    Deviations:
      With `masked=True`, the default, the gradient and the step are those of the masked
      network; the released code lets weights that the mask has removed contribute.

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
            told.append(jax.device_get(each))
        objective = jnp.asarray([value for value, _ in told])
        constrained = jnp.asarray([too_long for _, too_long in told], bool)
    return GradInitResult(
        _times(state.factors, start), state.factors, objective, constrained
    )


def _choose(which: Array, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """Does what `lax.cond` does, on the host."""
    return one() if which else other()


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
    """Computes the weights as they are now, their gradient and its length."""
    weights = _times(state.factors, start)
    grads = _hide(settings, masks, jax.grad(loss)(weights, on))
    return weights, grads, _norm(grads)


@_compiled
def _shorten(
    loss: Loss, settings: GradInitOptions, weights: Params, masks: Masks, on: Any
) -> tuple[Array, Params]:
    """Computes the length of the gradient, and its gradient by the weights."""

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
    """Computes the loss after a step by the step's length, and its gradient."""
    by = settings.look_ahead
    share = by / jnp.maximum(length, jnp.finfo(length).tiny)
    moved = jax.tree.map(lambda w, g: w - share * g, weights, grads)
    value, slope = jax.value_and_grad(loss)(moved, on)
    return value / by, jax.tree.map(lambda s: s / by, slope)


def _hide(settings: GradInitOptions, masks: Masks, grads: Params) -> Params:
    return masks_lib.apply(masks, grads) if settings.masked else grads


def _check(settings: GradInitOptions) -> None:
    """Refuses settings that make no sense."""
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
    return jax.tree.map(lambda factor, leaf: factor * leaf, factors, params)


def _norm(tree: Params) -> Float[Array, ""]:
    """Computes the length of all tensors together; its gradient at 0 is 0."""
    square = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))
    safe = jnp.where(square > 0, square, 1.0)
    return jnp.where(square > 0, jnp.sqrt(safe), 0.0)


def _clipped_grad(slope: Array, start: Array, clip: float) -> Float[Array, ""]:
    """Computes the clipped gradient of a factor; a tensor of zeros has none."""
    return jnp.clip(jnp.sum(slope * start), -clip, clip)


@functools.partial(jax.jit, static_argnums=0)
def _advance(
    settings: GradInitOptions,
    state: _State,
    start: Params,
    slope: Params,
    constrained: Array,
) -> _State:
    """Does a step of Adam with first moments of their own for either kind of step."""
    factors, moments = state
    pulls = jax.tree.map(lambda s, w: _clipped_grad(s, w, settings.clip), slope, start)

    def either(new: PyTree, old: PyTree, *, where: Array) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(where, a, b), new, old)

    old = either(moments.first_constrained, moments.first, where=constrained)
    first = jax.tree.map(lambda m, p: B1 * m + (1 - B1) * p, old, pulls)
    second = jax.tree.map(lambda v, p: B2 * v + (1 - B2) * p * p, moments.second, pulls)
    count = moments.count + ~constrained
    other = moments.count_constrained + constrained
    own = jnp.where(constrained, other, count).astype(jnp.float32)
    both = (count + other).astype(jnp.float32)

    def move(name: str, factor: Array, m: Array, v: Array, leaf: Array) -> Array:
        is_bias = name.endswith("bias")
        ahead = m / (1 - B1**own)
        scale = jnp.sqrt(v / (1 - B2**both)) + EPS
        least = 0.0 if is_bias else settings.least
        moved = jnp.maximum(factor - settings.learning_rate * ahead / scale, least)
        # What has come to 0 has no direction any more, as in the released code.
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
