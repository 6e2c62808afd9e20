"""Fading: numbers that fall from 1 to exactly 0 while a network trains.

The paper says that ghosts are there early in training, and its released code never
fades anything. All forms here but "constant" are ours.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsparse import arguments

FORMS = ("constant", "linear", "cosine", "step")


@arguments.check(until=arguments.integer(0), form=arguments.one_of(FORMS))
def fade(
    clock: Int[Array, ""] | int, *, until: int, form: str = "linear"
) -> Float[Array, ""]:
    r"""Computes how much of a ghost is left.

    With :math:`t` the share of the fade that is over, in [0, 1], it is 1 - t
    ("linear"), :math:`(1 + \cos \pi t) / 2` ("cosine"), or 1 until the end ("step");
    from `until` on exactly 0. "constant" is 1 for ever, as the released code has it.

    Where a fade ends just before training does, running statistics of BatchNorm are
    still those of the network with ghosts.

    Args:
      clock: updates made so far; may be traced.
      until: updates after which nothing is left, 0 or more.
      form: one of `FORMS`.

    Returns:
      A number in [0, 1], float32.

    Raises:
      ValueError: for an unknown form or a negative `until`.

    Examples:
      >>> [float(fade(step, until=4)) for step in (0, 1, 4, 9)]
      [1.0, 0.75, 0.0, 0.0]
    """
    now = jnp.asarray(clock, jnp.float32)
    if form == "constant":
        return jnp.ones_like(now)
    share = now / max(until, 1)
    left = {
        "linear": 1 - share,
        "cosine": (1 + jnp.cos(jnp.pi * share)) / 2,
        "step": jnp.ones_like(now),
    }[form]
    return jnp.where(jnp.asarray(clock) < until, left, 0.0)


@arguments.check(
    until=arguments.integer(0),
    least=arguments.number(0, above=True),
    most=arguments.number(0, above=True),
)
def sharpen(
    clock: Int[Array, ""] | int, *, until: int, least: float = 1.0, most: float = 50.0
) -> Float[Array, ""]:
    r"""Computes the sharpness :math:`\beta` of a p-swish that becomes ReLU.

    It grows geometrically from `least` to `most` at `until`, and is infinite from
    there on.

    Args:
      clock: updates made so far; may be traced.
      until: updates after which it is ReLU, 0 or more.
      least: in the beginning, above 0.
      most: before the end, at least `least`.

    Returns:
      A number above 0, perhaps infinite, float32.

    Raises:
      ValueError: for numbers out of range.

    Examples:
      >>> [float(sharpen(step, until=2, most=100.0)) for step in (0, 1, 2)]
      [1.0, 10.0, inf]
    """
    if least > most:
        raise ValueError(f"least: got {least} with most {most}; wanted least <= most")
    share = jnp.asarray(clock, jnp.float32) / max(until, 1)
    beta = least * (most / least) ** share
    return jnp.where(jnp.asarray(clock) < until, beta, jnp.inf)
