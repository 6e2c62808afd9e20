"""Ghost soft neurons: smooth activations that become ReLU during training.

There are two ways: a smooth activation is blended with ReLU by a strength that falls to
0 (`blend`), or a p-swish becomes sharper, up to an infinite beta (`p_swish`). Both end
with exactly ReLU, bit for bit.
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

    Args:
      x: inputs of any shape.

    References:
      Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019,
      arXiv:1908.08681.
    """
    return x * jnp.tanh(jax.nn.softplus(x))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes x times the normal cumulative distribution function, exactly.

    Args:
      x: inputs of any shape.
    """
    return nn.gelu(x, approximate=False)


def p_swish(beta: ArrayLike) -> Act:
    """Makes the activation x sigmoid(beta x), which is exactly ReLU for infinite beta.

    Args:
      beta: sharpness, above 0; may be traced and infinite. The released code of ToST
        uses 2 or 3 during all of training.

    Returns:
      The activation.

    Examples:
      >>> float(p_swish(jnp.inf)(jnp.float32(-1.0)))
      0.0
    """

    def act(x: Float[Array, "..."]) -> Float[Array, "..."]:
        sharpness = jnp.asarray(beta, x.dtype)
        # An infinite beta times x = 0 would be NaN, also in the gradient of the branch
        # that `where` does not select.
        finite = jnp.where(jnp.isinf(sharpness), jnp.ones_like(sharpness), sharpness)
        return jnp.where(jnp.isinf(sharpness), nn.relu(x), x * nn.sigmoid(finite * x))

    return act


SOFT: dict[str, Act] = {
    "swish": nn.swish,
    "mish": mish,
    "p_swish": p_swish(2.0),
    "gelu": gelu,
}


def blend(soft: Act, strength: ArrayLike) -> Act:
    """Makes the activation strength * soft(x) + (1 - strength) * relu(x).

    Args:
      soft: a smooth activation, such as one in `SOFT`.
      strength: strength of the smooth activation, in [0, 1], such as from
        `annealing.anneal`; may be traced.

    Returns:
      The activation: exactly ReLU at strength 0, and exactly `soft` at strength 1.

    Examples:
      >>> act = blend(nn.swish, 0.0)
      >>> float(act(jnp.float32(2.0)))
      2.0
    """

    def act(x: Float[Array, "..."]) -> Float[Array, "..."]:
        weight = jnp.asarray(strength, x.dtype)
        relu = nn.relu(x)
        blended = weight * soft(x) + (1 - weight) * relu
        # At strength 0, a `soft` that is infinite or NaN would turn the sum into NaN.
        return jnp.where(weight == 0, relu, blended)

    return act
