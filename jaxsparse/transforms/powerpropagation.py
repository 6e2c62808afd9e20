"""Powerpropagation: weights are powers of the trained parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxsparse import arguments
from jaxsparse.transforms.parts import Reparameterization


@arguments.check(power=arguments.number(1))
def powerpropagation(power: float = 2.0) -> Reparameterization:
    r"""Makes large weights learn faster than small ones: powerpropagation.

    Weights are :math:`\theta = \phi |\phi|^{\alpha - 1}`, so that the gradient of
    :math:`\phi` is :math:`\alpha |\phi|^{\alpha - 1}` times that of the weight. Weights
    near zero hardly move, and many end there and can be pruned. Training starts at the
    network's initial weights, for which
    :math:`\phi = \mathrm{sign}(\theta) |\theta|^{1/\alpha}`.

    A weight of exactly zero never moves if :math:`\alpha > 1`. Methods that grow
    weights from zero, such as `rigl`, therefore grow none that learn.

    Args:
      power: the exponent alpha, finite and at least 1; 1 trains the weights themselves.

    Returns:
      A reparameterization with the part "root", which is phi.

    Raises:
      ValueError: if `power` is out of range.

    Examples:
      >>> tx = transforms.reparameterize(
      ...     optax.sgd(0.1, momentum=0.9), transforms.powerpropagation(3.0)
      ... )
      >>> tx = transforms.top_kast(tx, sparsity=0.9, backward_sparsity=0.8)

    Deviations:
      The paper tunes the exponent; here it is 2 unless given.

    References:
      Schwarz, Jayakumar, Pascanu, Latham, Teh. Powerpropagation: A sparsity inducing
      weight reparameterisation. 2021. arXiv:2110.00296, section 2; the initialization
      is that of the authors' notebook.
    """

    @jax.custom_jvp
    def raise_to_power(root: Array) -> Array:
        return root * jnp.abs(root) ** (power - 1)

    # The derivative of the two factors would be 0 times infinity at zero.
    @raise_to_power.defjvp
    def derivative(roots: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (root,), (tangent,) = roots, tangents
        slope = power * jnp.abs(root) ** (power - 1)
        return raise_to_power(root), (slope * tangent).astype(root.dtype)

    return Reparameterization(
        init=lambda weight: {"root": jnp.sign(weight) * jnp.abs(weight) ** (1 / power)},
        forward=lambda parts, step: raise_to_power(parts["root"]),
    )
