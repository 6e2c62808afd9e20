"""Tasks of networks, and losses and correctness of predictions, in float32 or wider.

A network predicts one class for each example, or one token after each of the tokens it
reads. The functions here take targets with any axes, so that everything that computes a
loss works for both: a task says what the inputs and the targets of a batch are.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Int32, UInt8

SMOOTH_OVER = ("every", "others")


class PredictionTask(NamedTuple):
    """What a network reads and what it predicts, as functions of a batch.

    Attributes:
      inputs: function of examples, uint8 [b h w c], to the inputs of the network.
      targets: function of examples and their labels, int [b], to the right classes: one
        for each example, [b], or one for each position, [b t]. The targets of an
        example with the label -1, which marks padding, are all -1.
    """

    inputs: Callable[..., Array]
    targets: Callable[..., Int[Array, "b ..."]]


def class_labels(
    images: UInt8[Array, "b h w c"], labels: Int[Array, "b"]
) -> Int[Array, "b"]:
    """Returns the labels: the targets of classification.

    Args:
      images: examples, which are not used.
      labels: class of each example.
    """
    del images
    return labels


def read_tokens(windows: UInt8[Array, "b n 1 1"]) -> Int32[Array, "b t"]:
    """Returns all tokens but the last: the inputs of next-token prediction.

    Args:
      windows: consecutive tokens of a text, n = t + 1 in each window.
    """
    return windows[:, :-1, 0, 0].astype(jnp.int32)


def next_tokens(
    windows: UInt8[Array, "b n 1 1"], labels: Int[Array, "b"]
) -> Int32[Array, "b t"]:
    """Returns all tokens but the first: the targets of next-token prediction.

    Args:
      windows: consecutive tokens of a text, n = t + 1 in each window.
      labels: -1 for windows that are padding, whose targets are all -1; otherwise 0.
    """
    tokens = windows[:, 1:, 0, 0].astype(jnp.int32)
    return jnp.where(labels[:, None] >= 0, tokens, -1)


NEXT_TOKEN = PredictionTask(read_tokens, next_tokens)


def cross_entropy(
    logits: Float[Array, "*b k"],
    labels: Int[Array, "*b"],
    *,
    label_smoothing: ArrayLike = 0.0,
    smooth_over: str = "every",
) -> Float[Array, "*b"]:
    """Computes the cross-entropy of each prediction in nats.

    Args:
      logits: unnormalized log-probabilities of the k classes.
      labels: true classes in [0, k).
      label_smoothing: weight s in [0, 1) of the uniform part of the targets; may be
        traced.
      smooth_over: classes that receive the uniform part. With "every" the target is 1 -
        s on the true class plus s / k on every class. With "others" it is 1 - s on the
        true class and s / (k - 1) on each other class.

    Returns:
      One loss per prediction, at least 0.

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
    classes = jnp.expand_dims(jnp.arange(logits.shape[-1]), range(labels.ndim))
    one_hot = jnp.asarray(labels[..., None] == classes)
    # `smooth_labels` spreads the weight over all k classes. Scaled by k / (k - 1),
    # every other class gets s / (k - 1), and the true class keeps 1 - s.
    if smooth_over == "others":
        label_smoothing = label_smoothing * (logits.shape[-1] / (logits.shape[-1] - 1))
    targets = optax.losses.smooth_labels(one_hot.astype(logits.dtype), label_smoothing)
    return optax.losses.softmax_cross_entropy(logits, targets)


def is_correct(
    logits: Float[Array, "*b k"], labels: Int[Array, "*b"]
) -> Int[Array, "*b"]:
    """Returns 1 for each prediction whose highest logit is the true class, else 0.

    Args:
      logits: logits of the k classes.
      labels: classes, counted from 0; a label of -1 is never predicted.
    """
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.int32)
