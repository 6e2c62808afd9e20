"""Losses and correctness of a batch, computed in float32 or wider."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

SMOOTH_OVER = ("every", "others")


def cross_entropy(
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"],
    *,
    label_smoothing: ArrayLike = 0.0,
    smooth_over: str = "every",
) -> Float[Array, "b"]:
    """Computes the cross-entropy of each example in nats.

    Args:
      logits: unnormalized log-probabilities of the k classes.
      labels: true classes in [0, k).
      label_smoothing: weight s in [0, 1) of the uniform part of the targets; may be
        traced.
      smooth_over: classes that receive the uniform part. With "every" the target is 1 -
        s on the true class plus s / k on every class. With "others" it is 1 - s on the
        true class and s / (k - 1) on each other class.

    Returns:
      One loss per example, at least 0.

    Raises:
      ValueError: if `smooth_over` is neither "every" nor "others".

    References:
      Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015,
      arXiv:1512.00567, section 7. "others" follows the released code of Jaiswal et al.,
      Training Your Sparse Neural Network Better with Any Mask, 2022, arXiv:2206.12755.
    """
    if smooth_over not in SMOOTH_OVER:
        raise ValueError(
            f"smooth_over: expected one of {SMOOTH_OVER}, got {smooth_over!r}"
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if isinstance(label_smoothing, int | float) and not label_smoothing:
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    one_hot = jnp.asarray(labels[:, None] == jnp.arange(logits.shape[1])[None, :])
    # `smooth_labels` spreads the weight over all k classes. Scaled by k / (k - 1),
    # every other class gets s / (k - 1), and the true class keeps 1 - s.
    if smooth_over == "others":
        label_smoothing = label_smoothing * (logits.shape[1] / (logits.shape[1] - 1))
    targets = optax.losses.smooth_labels(one_hot.astype(logits.dtype), label_smoothing)
    return optax.losses.softmax_cross_entropy(logits, targets)


def is_correct(logits: Float[Array, "b k"], labels: Int[Array, "b"]) -> Int[Array, "b"]:
    """Returns 1 for each example whose highest logit is the true class, else 0.

    Args:
      logits: logits, [b k].
      labels: classes, counted from 0, [b].
    """
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.int32)
