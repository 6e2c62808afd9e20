"""Adam for the factors of GradInit, with separate moments for constrained steps."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxsparse import tree
from jaxsparse.tost.gradinit_options import GradInitOptions
from jaxsparse.types import Params


class Moments(NamedTuple):
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


class FactorState(NamedTuple):
    """State of the optimization, updated at each step.

    Attributes:
      factors: one scalar per tensor, in the nesting of the parameters.
      moments: moments of Adam.
    """

    factors: PyTree
    moments: Moments


# Decay rates of the moments and epsilon: the usual ones of Adam.
B1, B2, EPS = 0.9, 0.999, 1e-8


def _clipped_grad(gradient: Array, start: Array, clip: float) -> Float[Array, ""]:
    """Computes the clipped gradient of a tensor's factor, 0 for a tensor of zeros.

    Args:
      gradient: gradient with respect to the weights of the tensor.
      start: initial weights of the tensor.
      clip: limit of the absolute value.
    """
    return jnp.clip(jnp.sum(gradient * start), -clip, clip)


@functools.partial(jax.jit, static_argnums=0)
def advance(
    options: GradInitOptions,
    state: FactorState,
    start: Params,
    gradient: Params,
    constrained: Array,
) -> FactorState:
    """Updates the factors by a step of Adam.

    Args:
      options: the options.
      state: factors and moments before the step.
      start: masked initial parameters.
      gradient: gradient of the objective with respect to the weights.
      constrained: whether the objective was the norm of the gradient, a boolean scalar.

    Returns:
      The state after the step.
    """
    factors, moments = state
    factor_grads = jax.tree.map(
        lambda s, w: _clipped_grad(s, w, options.clip), gradient, start
    )

    def select(new: PyTree, old: PyTree, *, where: Array) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(where, a, b), new, old)

    first_moments = select(moments.first_constrained, moments.first, where=constrained)
    first = jax.tree.map(
        lambda m, p: B1 * m + (1 - B1) * p, first_moments, factor_grads
    )
    second = jax.tree.map(
        lambda v, p: B2 * v + (1 - B2) * p * p, moments.second, factor_grads
    )
    count = moments.count + ~constrained
    count_constrained = moments.count_constrained + constrained
    # Each kind of step has a bias correction by its own count, the shared second
    # moments one by both counts.
    own_count = jnp.where(constrained, count_constrained, count).astype(jnp.float32)
    total_count = (count + count_constrained).astype(jnp.float32)

    def move(name: str, factor: Array, m: Array, v: Array, leaf: Array) -> Array:
        is_bias = name.endswith("bias")
        corrected = m / (1 - B1**own_count)
        scale = jnp.sqrt(v / (1 - B2**total_count)) + EPS
        min_factor = 0.0 if is_bias else options.min_factor
        stepped = jnp.maximum(
            factor - options.learning_rate * corrected / scale, min_factor
        )
        # A factor of 0 stays 0, as in the released code.
        return jnp.where(jnp.any(leaf != 0) & (factor > 0), stepped, factor)

    factors = tree.map_with_names(move, factors, first, second, start)
    moments = Moments(
        select(moments.first, first, where=constrained),
        select(first, moments.first_constrained, where=constrained),
        second,
        count.astype(jnp.int32),
        count_constrained.astype(jnp.int32),
    )
    return FactorState(factors, moments)
