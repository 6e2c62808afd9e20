"""Fading: numbers that fall from 1 to exactly 0 while a network trains.

The paper says that ghosts are there early in training, and its released code never
fades anything. All forms here but "constant" are ours.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsparse import arguments

FORMS = ("constant", "linear", "cosine", "step")


@arguments.check(end=arguments.integer(0), form=arguments.one_of(FORMS))
def anneal(
    step: Int[Array, ""] | int, *, end: int, form: str = "linear"
) -> Float[Array, ""]:
    r"""Computes how much of a ghost is left.

    With :math:`t` the share of the fade that is over, in [0, 1], it is 1 - t
    ("linear"), :math:`(1 + \cos \pi t) / 2` ("cosine"), or 1 until the end ("step");
    from `end` on exactly 0. "constant" is 1 for ever, as the released code has it.

    Where a fade ends just before training does, running statistics of BatchNorm are
    still those of the network with ghosts.

    Args:
      step: updates made so far; may be traced.
      end: updates after which nothing is left, 0 or more.
      form: one of `FORMS`.

    Returns:
      A number in [0, 1], float32.

    Raises:
      ValueError: for an unknown form or a negative `end`.

    Examples:
      >>> [float(anneal(step, end=4)) for step in (0, 1, 4, 9)]
      [1.0, 0.75, 0.0, 0.0]
    """
    now = jnp.asarray(step, jnp.float32)
    if form == "constant":
        return jnp.ones_like(now)
    share = now / max(end, 1)
    left = {
        "linear": 1 - share,
        "cosine": (1 + jnp.cos(jnp.pi * share)) / 2,
        "step": jnp.ones_like(now),
    }[form]
    return jnp.where(jnp.asarray(step) < end, left, 0.0)


@arguments.check(
    end=arguments.integer(0),
    initial=arguments.number(0, above=True),
    final=arguments.number(0, above=True),
)
def sharpen(
    step: Int[Array, ""] | int, *, end: int, initial: float = 1.0, final: float = 50.0
) -> Float[Array, ""]:
    r"""Computes the sharpness :math:`\beta` of a p-swish that becomes ReLU.

    It grows geometrically from `initial` to `final` at `end`, and is infinite from
    there on.

    Args:
      step: updates made so far; may be traced.
      end: updates after which it is ReLU, 0 or more.
      initial: in the beginning, above 0.
      final: before the end, at least `initial`.

    Returns:
      A number above 0, perhaps infinite, float32.

    Raises:
      ValueError: for numbers out of range.

    Examples:
      >>> [float(sharpen(step, end=2, final=100.0)) for step in (0, 1, 2)]
      [1.0, 10.0, inf]
    """
    if initial > final:
        raise ValueError(
            f"initial: got {initial} with final {final}; wanted initial <= final"
        )
    share = jnp.asarray(step, jnp.float32) / max(end, 1)
    beta = initial * (final / initial) ** share
    return jnp.where(jnp.asarray(step) < end, beta, jnp.inf)
