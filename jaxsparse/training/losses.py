"""Losses and counts over a batch, in float32 at least."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, "b"]:
    """Computes each example's cross-entropy in nats.

    Args:
      logits: unnormalised log-probabilities of the k classes.
      labels: true classes in [0, k).
      label_smoothing: weight s in [0, 1) of the uniform distribution: the target is
        (1 - s) on the true class plus s / k on every class.

    Returns:
      One loss an example, at least 0.

    References:
      Szegedy et al., Rethinking the Inception Architecture for Computer Vision,
      2015, arXiv:1512.00567, section 7.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if not label_smoothing:
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    one_hot = jnp.asarray(labels[:, None] == jnp.arange(logits.shape[1])[None, :])
    targets = optax.losses.smooth_labels(one_hot.astype(logits.dtype), label_smoothing)
    return optax.losses.softmax_cross_entropy(logits, targets)


def is_correct(logits: Float[Array, "b k"], labels: Int[Array, "b"]) -> Int[Array, "b"]:
    """Says for each example, as 1 or 0, whether its highest logit is the true class."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.int32)
