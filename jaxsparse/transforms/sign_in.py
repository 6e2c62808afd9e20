"""Sign-In: weights are products of two trained factors, so that signs can flip."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from jaxsparse import arguments
from jaxsparse.transforms import update_schedules
from jaxsparse.transforms.parts import Parts, Reparameterization
from jaxsparse.types import Step

Decay = float | Callable[[Step], Array]


@arguments.check(inner_scaling=arguments.number(0, above=True))
def sign_in(
    inner_scaling: float = 1.0,
    *,
    rescale_every: int | None = None,
    rescale_until: int | None = None,
    decay: Decay = 0.0,
) -> Reparameterization:
    r"""Trains weights as products, which eases changes of their signs: Sign-In.

    Weights are :math:`\theta = m w`, elementwise, under any masks. Training starts at
    the network's initial weights, with

    .. math:: m^2 - w^2 = \beta,
       \quad m = \sqrt{(\beta + \sqrt{\beta^2 + 4 \theta^2}) / 2}

    Gradient flow keeps :math:`m^2 - w^2`, so that m stays at least
    :math:`\sqrt{\beta}` while w, and with it the weight, can pass through zero.
    Discrete steps and weight decay change the difference; rescaling restores it without
    changing the weights.

    `decay` adds the gradient of :math:`\frac{\alpha_t}{2} (m^2 + w^2)`, which acts on
    the weights as an implicit regularizer that moves from L2 to L1 (PILoT).

    Args:
      inner_scaling: the difference beta, finite and above 0, where weights of 0 would
        have no gradient.
      rescale_every: steps between rescalings of m and w to that difference; None
        rescales never.
      rescale_until: step after which they are no longer rescaled, at least 0; None for
        never. Only with `rescale_every`.
      decay: the coefficient alpha, finite and at least 0, or a function of the step.

    Returns:
      A reparameterization with the parts "m" and "w".

    Raises:
      ValueError: if an argument is out of range, or `rescale_until` is given alone.
      TypeError: if a number of steps is not an integer.

    Examples:
      >>> ticket = prune.prune(params, 0.9)
      >>> tx = transforms.reparameterize(optax.sgd(0.1), transforms.sign_in())
      >>> tx = transforms.fixed(tx, masks=ticket)

    Deviations:
      The paper rescales in intervals and for a part of training that we could not look
      up; here it happens only if asked for. The momenta of m and w are not rescaled.
      PILoT raises the coefficient alpha while the L1 norm of the weights is above a
      target, and then turns it off, by factors that we could not look up; here it is a
      constant or a function of the step.

    References:
      Gadhikar, Jacobs, Zhou, Burkholz. Sign-In to the Lottery: Reparameterizing Sparse
      Training From Scratch. 2025. arXiv:2504.12801. Jacobs, Burkholz. Mask in the
      Mirror: Implicit Sparsification. 2024. arXiv:2408.09966 (PILoT). The balanced
      start is the one for which both papers' conserved quantity is beta.
    """
    if rescale_every is not None:
        rescale_every = update_schedules.check_steps(
            rescale_every, field="rescale_every", minimum=1
        )
    if rescale_until is not None:
        rescale_until = update_schedules.check_steps(
            rescale_until, field="rescale_until"
        )
        if rescale_every is None:
            raise ValueError(
                "rescale_until: expected None without rescale_every, which says how "
                f"often to rescale, got {rescale_until}; give rescale_every, too"
            )
    coefficient = decay if callable(decay) else lambda step: decay
    if not callable(decay):
        arguments.number(0)("decay", decay)

    def balance(weight: Array) -> Parts:
        root = jnp.sqrt(inner_scaling**2 + 4 * jnp.square(weight))
        m = jnp.sqrt((inner_scaling + root) / 2)
        return {"m": m, "w": weight / m}

    def rescale(parts: Parts, step: Step) -> Parts:
        due = step % rescale_every == 0
        if rescale_until is not None:
            due &= step <= rescale_until
        balanced = balance(parts["m"] * parts["w"])
        return {name: jnp.where(due, balanced[name], parts[name]) for name in parts}

    def penalty(parts: Parts, step: Step) -> Array:
        squares = jnp.sum(parts["m"] ** 2) + jnp.sum(parts["w"] ** 2)
        return coefficient(step) / 2 * squares

    return Reparameterization(
        init=balance,
        forward=lambda parts, step: parts["m"] * parts["w"],
        penalty=penalty if callable(decay) or decay else None,
        adjust=None if rescale_every is None else rescale,
    )
