"""Draws: rules by which the weights inside one mask are drawn.

Each function here makes a rule; `redrawing.redraw` applies one to a tree. A rule sees
a mask [..., i, o], draws in float32 at least, rounds to the wanted dtype and leaves
exact zeros outside the mask. Which of them knows what of the mask:

    masked        nothing: the dense draw, so that signals shrink by the density
    layer_scaled  the density of the layer
    rescaled      the connections of each neuron; any dense initialiser
    per_neuron    the same, drawn directly

All work under `jit` and `vmap`, over masks too.
"""

import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from jaxsparse import arguments
from jaxsparse.initializers import fans, kernels

DISTRIBUTIONS = ("normal", "uniform")


@runtime_checkable
class SparseInitializer(Protocol):
    """Draws one sparse kernel."""

    def __call__(
        self, mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        """Returns weights of the mask's shape, 0 outside it.

        Args:
          mask: which weights of a kernel [..., i, o] exist.
          dtype: what to return.
          key: what to draw with.
        """


@arguments.check(scale=arguments.number(0, above=True))
def per_neuron(
    *, fan: str = "in", distribution: str = "normal", scale: float = 1.0
) -> SparseInitializer:
    r"""Makes the rule that gives every neuron the variance its connections call for.

    A weight that exists, from input :math:`i` to output :math:`o`, is drawn
    independently with mean 0 and variance :math:`s / \max(1, f)`. The scale is
    :math:`s`; :math:`f` is the fan-in of :math:`o`, the fan-out of :math:`i` or the
    average of the two, counted in the mask.

    Args:
      fan: "in", "out" or "average".
      distribution: "normal", not truncated, or "uniform" in
        :math:`\pm\sqrt{3 s / \max(1, f)}`.
      scale: 1 keeps the variance of signals in a linear network, 2 with ReLU; above 0.

    Returns:
      The rule.

    Raises:
      ValueError: for an unknown fan or distribution, listing those known, or a scale
        that is not positive.

    Examples:
      >>> draw = per_neuron(scale=2.0)
      >>> mask = jnp.array([[True, False], [True, True]])
      >>> draw(mask, jnp.float32, key=jax.random.key(0))[0, 1]
      Array(0., dtype=float32)

    Deviations:
      None known from equation or code in the law drawn from. The paper writes scale 2;
      its code runs with `fan="in"` and scale 1, the default here, and has without a
      configuration `fan="average"`, `distribution="uniform"`.

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, the sparsity-aware initialisation.
    """
    kernels.check_name("fan", fan, fans.FANS)
    kernels.check_name("distribution", distribution, DISTRIBUTIONS)
    if not scale > 0:
        raise ValueError(
            f"scale: got {scale}; wanted a variance above 0, such as 1 or 2"
        )

    def draw(
        mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        wide = jnp.promote_types(dtype, jnp.float32)
        if distribution == "normal":
            unit = jax.random.normal(key, mask.shape, wide)
        else:
            bound = math.sqrt(3.0)
            unit = jax.random.uniform(key, mask.shape, wide, -bound, bound)
        fan_of = jnp.maximum(1.0, fans.of_weights(mask, fan)).astype(wide)
        return _inside(mask, unit * jnp.sqrt(scale / fan_of), dtype)

    return draw


def rescaled(base: str | Initializer, *, fan: str = "in") -> SparseInitializer:
    r"""Makes the rule that draws densely and corrects the fan of every neuron.

    The weight from :math:`i` to :math:`o` is multiplied by :math:`\sqrt{F / f}`, with
    :math:`F` its fan in the dense kernel and :math:`f` that in the mask, at least 1.
    For a variance-scaling base of the same fan this is `per_neuron` in distribution.

    Args:
      base: a name in `KERNELS`, or an initialiser of JAX or Flax, called as
        `base(key, shape, dtype)` with the shape [..., i, o].
      fan: "in", "out" or "average"; see `per_neuron`.

    Returns:
      The rule.

    Raises:
      ValueError: for an unknown fan or base, listing those known.

    Examples:
      >>> draw = rescaled(jax.nn.initializers.ones)
      >>> mask = jnp.array([[True, True], [False, True], [False, True], [False, True]])
      >>> draw(mask, jnp.float32, key=jax.random.key(0))
      Array([[2., 1.],
             [0., 1.],
             [0., 1.],
             [0., 1.]], dtype=float32)

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, for the fans. That any base may be
      rescaled by them is no part of it.
    """
    base = kernels.kernel_initializer(base)
    kernels.check_name("fan", fan, fans.FANS)

    def draw(
        mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        wide = jnp.promote_types(dtype, jnp.float32)
        sparse = jnp.maximum(1.0, fans.of_weights(mask, fan)).astype(wide)
        gain = jnp.sqrt(fans.of_shape(mask.shape, fan) / sparse)
        return _inside(mask, base(key, mask.shape, wide) * gain, dtype)

    return draw


def layer_scaled(base: str | Initializer = "glorot_uniform") -> SparseInitializer:
    """Makes the rule that draws densely and divides by the root of the density.

    One factor for the whole layer: it suits neurons that keep the average number of
    connections, and no others.

    Args:
      base: as in `rescaled`.

    Returns:
      The rule; a kernel of which nothing is kept is zero.

    Raises:
      ValueError: for an unknown base, listing those known.

    References:
      Liu, Sun, Zhou, Huang, Darrell. Rethinking the Value of Network Pruning. 2018.
      arXiv:1810.05270, as Evci et al. (2020), arXiv:2010.03533, compare with it.
    """
    base = kernels.kernel_initializer(base)

    def draw(
        mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        wide = jnp.promote_types(dtype, jnp.float32)
        kept = jnp.maximum(1, jnp.sum(mask, dtype=jnp.int32)).astype(wide)
        gain = jnp.sqrt(mask.size / kept)
        return _inside(mask, base(key, mask.shape, wide) * gain, dtype)

    return draw


def masked(base: str | Initializer = "glorot_uniform") -> SparseInitializer:
    """Makes the rule that draws densely and masks: the usual, and the baseline.

    Args:
      base: as in `rescaled`.

    Returns:
      The rule.

    Raises:
      ValueError: for an unknown base, listing those known.
    """
    base = kernels.kernel_initializer(base)

    def draw(
        mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        wide = jnp.promote_types(dtype, jnp.float32)
        return _inside(mask, base(key, mask.shape, wide), dtype)

    return draw


def _inside(
    mask: Bool[Array, "..."], weights: Float[Array, "..."], dtype: DTypeLike
) -> Float[Array, "..."]:
    """Rounds what is inside the mask; outside is 0, whatever came."""
    return jnp.where(mask, weights, jnp.zeros((), weights.dtype)).astype(dtype)
