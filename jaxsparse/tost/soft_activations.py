"""Ghost soft neurons: smooth activations that fade to ReLU.

Either a smooth activation is blended with ReLU, by a share that falls to 0 (`blend`),
or a p-swish becomes sharper and sharper (`sharpened`). At the end of both there is
ReLU, to the bit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Act = Callable[[Float[Array, "..."]], Float[Array, "..."]]


def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes x tanh(softplus(x)).

    References:
      Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019,
      arXiv:1908.08681.
    """
    return x * jnp.tanh(jax.nn.softplus(x))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes x times the normal distribution function of x, exactly."""
    return nn.gelu(x, approximate=False)


def p_swish(beta: ArrayLike) -> Act:
    """Makes x sigmoid(beta x); of an infinite beta, which may be traced, ReLU.

    Args:
      beta: above 0. The released code of ToST has 2, or 3, for the whole of training.

    Examples:
      >>> float(p_swish(jnp.inf)(jnp.float32(-1.0)))
      0.0
    """

    def act(x: Float[Array, "..."]) -> Float[Array, "..."]:
        sharp = jnp.asarray(beta, x.dtype)
        # Where it is infinite, 0 times it would be no number.
        finite = jnp.where(jnp.isinf(sharp), jnp.ones_like(sharp), sharp)
        return jnp.where(jnp.isinf(sharp), nn.relu(x), x * nn.sigmoid(finite * x))

    return act


SOFT: dict[str, Act] = {
    "swish": nn.swish,
    "mish": mish,
    "p_swish": p_swish(2.0),
    "gelu": gelu,
}


def blend(soft: Act, strength: ArrayLike) -> Act:
    """Makes left soft(x) + (1 - left) relu(x).

    Args:
      soft: a smooth activation, such as one of `SOFT`.
      strength: how much of it is left, in [0, 1]; may be traced, see `fading.fade`.

    Returns:
      The activation; of 0 exactly ReLU, and of 1 exactly `soft`.

    Examples:
      >>> act = blend(nn.swish, 0.0)
      >>> float(act(jnp.float32(2.0)))
      2.0
    """

    def act(x: Float[Array, "..."]) -> Float[Array, "..."]:
        share = jnp.asarray(strength, x.dtype)
        hard = nn.relu(x)
        mixed = share * soft(x) + (1 - share) * hard
        return jnp.where(share == 0, hard, mixed)

    return act
