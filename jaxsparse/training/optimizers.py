"""Dense optimisers whose learning rate reads the run's clock.

An optax schedule counts the optimiser's own updates. A level of a lottery run has a
fresh optimiser, so that Adam's bias correction and the momenta begin anew, but its
learning rate continues from the rewinding step: the rate therefore comes from the
clock, which the step hands to `update` as the extra argument `clock`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxsparse import masks as masks_lib
from jaxsparse import tree
from jaxsparse.types import Params, Step

LearningRate = Callable[[Step], Float[Array, ""]]


def learning_rate(
    *,
    peak: float,
    total: int,
    warmup: int = 0,
    decay: str = "constant",
    milestones: tuple[int, ...] = (),
    gamma: float = 0.1,
) -> LearningRate:
    """Makes the map from the run's clock to the learning rate.

    Args:
      peak: the rate before decay and after warm-up.
      total: length of dense training in updates; from then on the rate stays at its
        last value, which is what fine-tuning trains with.
      warmup: updates over which the rate grows linearly from 0; the factor
        min(1, t / warmup) multiplies the decay, as in open_lth, and does not delay it.
      decay: "constant"; "step", times `gamma` at each milestone; or "cosine",
        peak (1 + cos(pi t / total)) / 2.
      milestones: updates at which "step" decays.
      gamma: factor of each "step".

    Returns:
      A function of the clock, int32, to a float32 scalar.
    """

    def rate(clock: Step) -> Float[Array, ""]:
        time = jnp.minimum(clock, total - 1)
        value = jnp.asarray(peak, jnp.float32)
        if decay == "step":
            for milestone in milestones:
                value = jnp.where(time >= milestone, value * gamma, value)
        elif decay == "cosine":
            value = value * 0.5 * (1 + jnp.cos(jnp.pi * time / total))
        return value * jnp.minimum(1.0, time / warmup) if warmup else value

    return rate


def scale_by_clock(rate: LearningRate) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate at `clock`, and keeps no state."""

    def update(
        updates: Params,
        state: optax.EmptyState,
        params: Params | None = None,
        *,
        clock: Step,
        **extra: Any,
    ) -> tuple[Params, optax.EmptyState]:
        del params, extra
        factor = -rate(clock)
        return jax.tree.map(lambda u: factor.astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )


def kernels_only(params: Params) -> Any:
    """Marks the kernels, for a weight decay that leaves biases and scales alone."""
    return tree.map_with_names(masks_lib.is_kernel, params)


def sgd(
    rate: LearningRate, *, momentum: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Makes SGD in PyTorch's form: the momentum buffer holds unscaled gradients."""
    trace = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return optax.chain(trace, scale_by_clock(rate))


def adam(
    rate: LearningRate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Makes Adam; its bias correction counts updates since the level began."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), scale_by_clock(rate))


def adamw(
    rate: LearningRate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decays: Callable[[Params], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes Adam with decoupled weight decay, scaled by the learning rate."""
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, decays),
        scale_by_clock(rate),
    )


def with_l2(
    optimizer: optax.GradientTransformation,
    *,
    weight_decay: float,
    decays: Callable[[Params], Any] | None = None,
) -> optax.GradientTransformation:
    """Adds the gradient of (weight_decay / 2) |w|^2 before the optimiser sees it.

    This coupled form is PyTorch's `weight_decay` and that of the lottery papers.

    Args:
      optimizer: what sees gradient plus penalty.
      weight_decay: coefficient; 0 returns `optimizer` as it is.
      decays: chooses the leaves that decay; None for all.
    """
    if not weight_decay:
        return optimizer
    return optax.chain(optax.add_decayed_weights(weight_decay, decays), optimizer)
