"""Sparse initializers: random weights of a kernel with a given mask.

Each function here makes a sparse initializer, and `reinitialize.redraw` applies one to
a tree. A sparse initializer takes a mask [..., i, o], draws in float32 or wider, rounds
to the requested dtype, and returns exact zeros outside the mask. They differ in what
they use of the mask:

    masked        nothing: dense weights, so the density shrinks the signals
    layer_scaled  the density of the layer
    rescaled      the connections of each neuron, with any dense initializer
    per_neuron    the connections of each neuron, drawn directly

All can be used under `jit` and `vmap`, including `vmap` over masks.
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
    """Draws the weights of one sparse kernel."""

    def __call__(
        self, mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        """Returns weights of the mask's shape that are 0 outside the mask.

        Args:
          mask: mask of a kernel, boolean [..., i, o]; True for active weights.
          dtype: floating-point dtype of the weights.
          key: typed key of the kernel.
        """


@arguments.check(scale=arguments.number(0, above=True))
def per_neuron(
    *, fan: str = "in", distribution: str = "normal", scale: float = 1.0
) -> SparseInitializer:
    r"""Makes a sparse initializer with a variance for each neuron's active connections.

    An active weight from input :math:`i` to output :math:`o` is drawn independently
    with mean 0 and variance :math:`s / \max(1, f)`, where :math:`s` is the scale and
    :math:`f` is the fan-in of :math:`o`, the fan-out of :math:`i` or the mean of the
    two, counted in the mask.

    Args:
      fan: fan that determines the variance of a weight: "in" for the fan-in of its
        output, "out" for the fan-out of its input, "average" for the mean of both.
      distribution: "normal" (not truncated), or "uniform" in
        :math:`\pm\sqrt{3 s / \max(1, f)}`.
      scale: above 0; 1 preserves the variance of signals in a linear network, 2 with
        ReLU.

    Returns:
      The sparse initializer.

    Raises:
      ValueError: if the fan or the distribution is unknown, listing the known names, or
        the scale is not positive.
      TypeError: if the scale is not a number.

    Examples:
      >>> draw = per_neuron(scale=2.0)
      >>> mask = jnp.array([[True, False], [True, True]])
      >>> draw(mask, jnp.float32, key=jax.random.key(0))[0, 1]
      Array(0., dtype=float32)

    Deviations:
      None known in the distribution, neither from the equation nor from the code. The
      paper states scale 2. Its code runs with `fan="in"` and scale 1, the defaults
      here; without a configuration, it uses `fan="average"` and
      `distribution="uniform"`.

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, the sparsity-aware initialization.
    """
    kernels.check_name("fan", fan, fans.FANS)
    kernels.check_name("distribution", distribution, DISTRIBUTIONS)
    if not scale > 0:
        raise ValueError(
            f"scale: expected a number above 0, such as 1 or 2, got {scale}"
        )

    def draw(
        mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        wide = jnp.promote_types(dtype, jnp.float32)
        # Drawn in float32 at least, since values drawn in bfloat16 would take few
        # distinct values.
        if distribution == "normal":
            unit = jax.random.normal(key, mask.shape, wide)
        else:
            bound = math.sqrt(3.0)  # for unit variance
            unit = jax.random.uniform(key, mask.shape, wide, -bound, bound)
        fan_of = jnp.maximum(1.0, fans.of_weights(mask, fan)).astype(wide)
        return _inside(mask, unit * jnp.sqrt(scale / fan_of), dtype)

    return draw


def rescaled(base: str | Initializer, *, fan: str = "in") -> SparseInitializer:
    r"""Makes a sparse initializer that corrects dense weights for each neuron's fan.

    The dense weight from :math:`i` to :math:`o` is multiplied by :math:`\sqrt{F / f}`,
    where :math:`F` is its fan in the dense kernel and :math:`f` its fan in the mask, at
    least 1. If the base is a variance-scaling initializer with the same fan, this
    equals `per_neuron` in distribution.

    Args:
      base: a name in `KERNELS`, or an initializer of JAX or Flax, called as
        `base(key, shape, dtype)` with the shape [..., i, o].
      fan: fan to correct for: "in" for the fan-in of a weight's output, "out" for the
        fan-out of its input, "average" for the mean of both.

    Returns:
      The sparse initializer.

    Raises:
      ValueError: if the fan or the base is unknown; the message lists the known names.

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
      Lottery Tickets Win. 2020. arXiv:2010.03533, for the fans. Rescaling any base by
      the fans is not part of the paper.
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
    """Makes a sparse initializer that divides dense weights by the root of the density.

    One factor scales the whole layer. It is right only for neurons that keep the
    average number of connections.

    Args:
      base: a name in `KERNELS`, or an initializer of JAX or Flax, called as
        `base(key, shape, dtype)` with the shape [..., i, o].

    Returns:
      The sparse initializer; a kernel without active weights is zero.

    Raises:
      ValueError: if the base is unknown; the message lists the known names.

    References:
      Liu, Sun, Zhou, Huang, Darrell. Rethinking the Value of Network Pruning. 2018.
      arXiv:1810.05270, as compared by Evci et al. (2020), arXiv:2010.03533.
    """
    base = kernels.kernel_initializer(base)

    def draw(
        mask: Bool[Array, "..."], dtype: DTypeLike, *, key: Key[Array, ""]
    ) -> Float[Array, "..."]:
        wide = jnp.promote_types(dtype, jnp.float32)
        # At least 1, to avoid a division by 0 for an empty mask.
        kept = jnp.maximum(1, jnp.sum(mask, dtype=jnp.int32)).astype(wide)
        gain = jnp.sqrt(mask.size / kept)
        return _inside(mask, base(key, mask.shape, wide) * gain, dtype)

    return draw


def masked(base: str | Initializer = "glorot_uniform") -> SparseInitializer:
    """Makes a sparse initializer that masks dense weights, the usual baseline.

    Args:
      base: a name in `KERNELS`, or an initializer of JAX or Flax, called as
        `base(key, shape, dtype)` with the shape [..., i, o].

    Returns:
      The sparse initializer.

    Raises:
      ValueError: if the base is unknown; the message lists the known names.
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
    """Sets weights outside the mask to 0, even infinite ones, and rounds to a dtype."""
    return jnp.where(mask, weights, jnp.zeros((), weights.dtype)).astype(dtype)
