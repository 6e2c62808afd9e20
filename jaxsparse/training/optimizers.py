"""Dense optimizers whose learning rate depends on the training step of the run.

An optax schedule counts the optimizer's own updates. Each level of a lottery run starts
with a fresh optimizer, so that the momenta and Adam's bias correction restart, but its
learning rate continues from the rewinding step. The learning rate therefore depends on
the training step, which is passed to `update` as the keyword argument `clock`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxsparse import masks as masks_lib
from jaxsparse import tree
from jaxsparse.types import Params, Step

Rate = Float[Array, ""] | Float[np.ndarray, ""] | np.float32
LearningRate = Callable[[Step | np.int32], Rate]


def learning_rate(
    *,
    peak: float,
    total: int,
    warmup: int = 0,
    decay: str = "constant",
    milestones: tuple[int, ...] = (),
    gamma: float = 0.1,
) -> LearningRate:
    """Makes the learning rate schedule as a function of the training step.

    Args:
      peak: learning rate before decay and after warmup.
      total: length of dense training in steps. From step `total` on the learning rate
        keeps its last value, which fine-tuning uses.
      warmup: number of steps over which the learning rate increases linearly from 0.
        The factor min(1, t / warmup) multiplies the decay, as in open_lth, and does not
        delay it.
      decay: "constant"; "step", multiplied by `gamma` at each milestone; or "cosine",
        peak (1 + cos(pi t / total)) / 2.
      milestones: training steps at which "step" decays.
      gamma: factor applied at each milestone.

    Returns:
      A function from the training step, int32 scalar, to a float32 scalar. Of a step of
      NumPy it is computed on the host, where it compiles at most a cosine; it has the
      bits of JAX outside of jit.
    """

    def rate(clock: Step | np.int32) -> Rate:
        xp = jnp if isinstance(clock, jax.Array) else np
        # Fine-tuning after the last step continues with the final learning rate.
        last = xp.minimum(clock, total - 1)
        time = last.astype(np.float32)
        value = xp.float32(peak)
        if decay == "step":
            # The step is traced, so milestones are compared inside the program.
            for milestone in milestones:
                value = xp.where(last >= milestone, value * gamma, value)
        elif decay == "cosine":
            angle = xp.pi * time / total
            cosine = jnp.cos(angle) if xp is jnp else _cosine_on_host(angle)
            value = value * 0.5 * (1 + cosine)
        return value * xp.minimum(1.0, time / warmup) if warmup else value

    return rate


def _cosine_on_host(angle: np.float32) -> np.float32:
    """Computes the cosine of JAX, since that of NumPy has other last bits."""
    return np.float32(_compiled_cosine()(angle))


@functools.cache
def _compiled_cosine() -> Any:
    # Compiled ahead: JAX would compile once for each context it is called in, such as
    # within the tracing of another program.
    return jax.jit(jnp.cos).lower(jax.ShapeDtypeStruct((), np.float32)).compile()


def scale_by_clock(rate: LearningRate) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate at step `clock`, without state.

    Args:
      rate: learning rate as a function of the training step.
    """

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
        # In the dtype of the updates: a float32 factor would promote bfloat16 updates.
        return jax.tree.map(lambda u: factor.astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )


def kernels_only(params: Params) -> Any:
    """Returns a tree of booleans, True for kernels and False for biases and scales.

    Used as the mask of weight decay.

    Args:
      params: parameters of one network.
    """
    return tree.map_with_names(masks_lib.is_kernel, params)


def sgd(
    rate: LearningRate, *, momentum: float = 0.0, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Makes SGD as in PyTorch: the momentum buffer holds unscaled gradients.

    A change of the learning rate therefore applies to the whole buffer at once.

    Args:
      rate: learning rate as a function of the training step.
      momentum: decay of the momentum buffer, in [0, 1); 0 keeps no buffer.
      nesterov: whether to use Nesterov momentum.
    """
    # Without momentum no buffer is allocated.
    trace = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return optax.chain(trace, scale_by_clock(rate))


def adam(
    rate: LearningRate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Makes Adam; its bias correction counts updates since the level began.

    Args:
      rate: learning rate as a function of the training step.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: constant added to the denominator.
    """
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
    """Makes Adam with decoupled weight decay, which the learning rate scales.

    Args:
      rate: learning rate as a function of the training step.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: constant added to the denominator.
      weight_decay: coefficient of the decay.
      decays: function of the parameters to a tree of booleans that selects the leaves
        to decay; None decays all.
    """
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
    """Adds the gradient of (weight_decay / 2) |w|^2 before the optimizer.

    This coupled form is PyTorch's `weight_decay`, which the lottery ticket papers use.

    Args:
      optimizer: receives the sum of the gradient and the gradient of the penalty.
      weight_decay: coefficient; 0 returns `optimizer` unchanged.
      decays: function of the parameters to a tree of booleans that selects the leaves
        to decay; None decays all.
    """
    if not weight_decay:
        return optimizer
    return optax.chain(optax.add_decayed_weights(weight_decay, decays), optimizer)
