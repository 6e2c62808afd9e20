"""Annealing schedules: ghost strengths that fall from 1 to exactly 0 during training.

According to the paper, ghosts are present early in training, but its released code
never removes them. All schedules here except "constant" are therefore our own.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsparse import arguments

FORMS = ("constant", "linear", "cosine", "step")


@arguments.check(end=arguments.integer(0), form=arguments.one_of(FORMS))
def anneal(
    step: Int[Array, ""] | int, *, end: int, form: str = "linear"
) -> Float[Array, ""]:
    r"""Computes the strength of ghosts at a step.

    With the fraction :math:`t = \mathrm{step} / \mathrm{end}` of the schedule that has
    passed, the strength is :math:`1 - t` ("linear"), :math:`(1 + \cos \pi t) / 2`
    ("cosine"), or 1 until the end ("step"). From the step `end` on, it is exactly 0.
    "constant" is always 1, as in the released code.

    If the annealing ends shortly before training, the running statistics of BatchNorm
    are still those of the network with ghosts.

    Args:
      step: number of optimizer steps so far, 0 or more; may be traced.
      end: optimizer step from which the strength is 0, 0 or more; without effect for
        "constant".
      form: schedule, one of "constant", "linear", "cosine" and "step".

    Returns:
      The strength, in [0, 1], float32.

    Raises:
      ValueError: if the form is unknown or `end` is negative.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> [float(anneal(step, end=4)) for step in (0, 1, 4, 9)]
      [1.0, 0.75, 0.0, 0.0]
    """
    current_step = jnp.asarray(step, jnp.float32)
    if form == "constant":
        return jnp.ones_like(current_step)
    # `end` may be 0; the result is then 0 at every step.
    progress = current_step / max(end, 1)
    strength = {
        "linear": 1 - progress,
        "cosine": (1 + jnp.cos(jnp.pi * progress)) / 2,
        "step": jnp.ones_like(current_step),
    }[form]
    # Integers are compared, because float32 is not exact for steps above 2**24.
    return jnp.where(jnp.asarray(step) < end, strength, 0.0)


@arguments.check(
    end=arguments.integer(0),
    initial=arguments.number(0, above=True),
    final=arguments.number(0, above=True),
)
def sharpen(
    step: Int[Array, ""] | int, *, end: int, initial: float = 1.0, final: float = 50.0
) -> Float[Array, ""]:
    r"""Computes the sharpness :math:`\beta` of a p-swish that becomes ReLU.

    It grows geometrically from `initial` at step 0 to `final` at step `end`, and is
    infinite from `end` on.

    Args:
      step: number of optimizer steps so far, 0 or more; may be traced.
      end: optimizer step from which the activation is ReLU, 0 or more.
      initial: sharpness at step 0, above 0.
      final: sharpness that is approached just before `end`, at least `initial`.

    Returns:
      The sharpness, above 0 and possibly infinite, float32.

    Raises:
      ValueError: if an argument is out of range.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> [float(sharpen(step, end=2, final=100.0)) for step in (0, 1, 2)]
      [1.0, 10.0, inf]
    """
    if initial > final:
        raise ValueError(f"initial: expected at most final={final}, got {initial}")
    progress = jnp.asarray(step, jnp.float32) / max(end, 1)
    beta = initial * (final / initial) ** progress
    return jnp.where(jnp.asarray(step) < end, beta, jnp.inf)
