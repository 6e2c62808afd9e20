"""Similarity of predictions: disagreement, divergences and ensembles.

All functions take logits for the same examples, [n, k] from one network or [m, n, k]
from m networks. They work under `jit` and `vmap`, compute in float32 or wider, and
accept any finite logits. Divergences are in nats. `pairwise` computes matrices of these
measures:

    matrix = pairwise.pairwise(predictions.disagreement, logits)
    mean, sd, _ = pairwise.over_pairs(matrix)
    to_pruned = jax.vmap(predictions.disagreement, in_axes=(0, None))(logits, pruned)
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsparse import arguments, losses

AVERAGES = ("probabilities", "logits")


class EnsembleScores(NamedTuple):
    """Loss and accuracy of an ensemble.

    Attributes:
      loss: mean cross-entropy, in nats.
      accuracy: fraction of examples classified correctly, in [0, 1].
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]


def disagreement(
    first: Float[Array, "n k"], second: Float[Array, "..."]
) -> Float[Array, ""]:
    """Computes the fraction of examples that two networks classify differently.

    Args:
      first: logits of one network, [n, k]; of equal logits, the first class is
        predicted.
      second: logits of the other network for the same examples, [n, k].

    Returns:
      A fraction in [0, 1], in float32.

    Raises:
      ValueError: if the shapes differ, or there are no examples or no classes.

    Examples:
      >>> disagreement(jnp.array([[1.0, 0.0], [2.0, 3.0]]), jnp.zeros((2, 2)))
      Array(0.5, dtype=float32)

    References:
      Fort, Hu, Lakshminarayanan. Deep Ensembles: A Loss Landscape Perspective. 2019.
      arXiv:1912.02757, section 3.
    """
    _check(first, second)
    differ = jnp.argmax(first, axis=-1) != jnp.argmax(second, axis=-1)
    return jnp.mean(differ, dtype=jnp.float32)


def kl_divergence(
    first: Float[Array, "n k"], second: Float[Array, "..."]
) -> Float[Array, ""]:
    r"""Computes the mean Kullback-Leibler divergence between softmax outputs.

    With the softmax outputs :math:`p` of the first and :math:`q` of the second network,
    it is the mean over examples of :math:`\sum_k p_k \log (p_k / q_k)`. The term
    :math:`q_k - p_k`, whose sum over classes is zero, is added for each class. No term
    is then negative, and small divergences are not lost in rounding.

    Args:
      first: logits of one network, [n, k].
      second: logits of the other network for the same examples, [n, k].

    Returns:
      A divergence of 0 or more, in nats; exactly 0 for equal logits.

    Raises:
      ValueError: if the shapes differ, or there are no examples or no classes.

    Examples:
      >>> kl_divergence(jnp.array([[1e4, 0.0]]), jnp.array([[0.0, 1e4]]))
      Array(10000., dtype=float32)
    """
    _check(first, second)
    return jnp.mean(jnp.sum(_terms(_log_softmax(first), _log_softmax(second)), axis=-1))


def js_divergence(
    first: Float[Array, "n k"], second: Float[Array, "..."]
) -> Float[Array, ""]:
    """Computes the mean Jensen-Shannon divergence between softmax outputs.

    With the softmax outputs :math:`p` and :math:`q` of the two networks and
    :math:`m = (p + q) / 2`, it is the mean over examples of half the Kullback-Leibler
    divergence of :math:`p` from :math:`m` plus half that of :math:`q` from :math:`m`.

    Args:
      first: logits of one network, [n, k].
      second: logits of the other network for the same examples, [n, k].

    Returns:
      A divergence in [0, ln 2], in nats; its square root is the Jensen-Shannon
      distance. It is exactly symmetric, and exactly 0 for equal logits.

    Raises:
      ValueError: if the shapes differ, or there are no examples or no classes.

    Examples:
      >>> js_divergence(jnp.array([[1e4, 0.0]]), jnp.array([[0.0, 1e4]]))
      Array(0.6931472, dtype=float32)

    References:
      Lin. Divergence Measures Based on the Shannon Entropy. 1991. Equation 3.2.
    """
    _check(first, second)
    p, q = _log_softmax(first), _log_softmax(second)
    # For p above q: log((p + q) / 2) = log p + log(1 + (q/p - 1) / 2). Where p equals
    # q, the ratio is exactly 1, however a compiler implements exp and log.
    middle = jnp.maximum(p, q) + jnp.log1p(jnp.expm1(-jnp.abs(p - q)) / 2)
    divergences = jnp.sum(_terms(p, middle) + _terms(q, middle), axis=-1) / 2
    return jnp.mean(jnp.minimum(divergences, math.log(2)))


@arguments.check(average=arguments.one_of(AVERAGES))
def ensemble(
    logits: Float[Array, "..."],
    *,
    average: str = "probabilities",
) -> Float[Array, "n k"]:
    """Averages the predictions of networks.

    Args:
      logits: logits of m networks for the same examples, [m, n, k].
      average: "probabilities" for the mean of the softmax outputs, or "logits" for the
        softmax of the mean logits, which is the normalized geometric mean of the
        softmax outputs.

    Returns:
      Log-probabilities of the ensemble, [n, k], which can be used as logits.

    Raises:
      ValueError: if `average` is unknown, or `logits` is empty or does not have three
        axes.

    Deviations:
      That Evci et al. (2020), arXiv:2010.03533, average probabilities is inferred;
      `average="logits"` is the other interpretation.
    """
    if average not in AVERAGES:
        raise ValueError(f"average: expected one of {AVERAGES}, got {average!r}")
    if logits.ndim != 3 or not logits.size:
        raise ValueError(
            "logits: expected the axes networks, examples and classes, none of length "
            f"0, got shape {logits.shape}"
        )
    if average == "logits":
        wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return jax.nn.log_softmax(jnp.mean(wide, axis=0), axis=-1)
    log_probs = _log_softmax(logits)
    return jax.nn.logsumexp(log_probs, axis=0) - math.log(logits.shape[0])


def ensemble_scores(
    logits: Float[Array, "..."],
    labels: Int[Array, "..."],
    *,
    average: str = "probabilities",
) -> EnsembleScores:
    """Computes the loss and accuracy of an ensemble.

    Args:
      logits: logits of m networks for the same examples, [m, n, k].
      labels: true classes, [n], integers in [0, k).
      average: "probabilities" for the mean of the softmax outputs, or "logits" for the
        softmax of the mean logits.

    Returns:
      Loss and accuracy over all examples.

    Raises:
      ValueError: if `average` is unknown, `logits` is empty or does not have three
        axes, or `labels` does not have the shape [n].

    Examples:
      >>> ensemble_scores(jnp.zeros((5, 3, 2)), jnp.array([0, 0, 1]))
      EnsembleScores(loss=Array(0.6931472, dtype=float32),
                     accuracy=Array(0.6666667, dtype=float32))
    """
    combined = ensemble(logits, average=average)
    if labels.shape != combined.shape[:1]:
        raise ValueError(
            f"labels: expected shape {combined.shape[:1]}, one class per example, got "
            f"{labels.shape}"
        )
    loss = jnp.mean(losses.cross_entropy(combined, labels))
    return EnsembleScores(
        loss, jnp.mean(losses.is_correct(combined, labels), dtype=jnp.float32)
    )


def _check(first: Array, second: Array) -> None:
    """Raises ValueError unless both are logits [n, k] of the same, nonempty shape."""
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise ValueError(
            "second: expected logits with the axes examples and classes, of the same "
            f"shape as first, {first.shape}, and not empty, got {second.shape}"
        )


def _log_softmax(logits: Float[Array, "... k"]) -> Float[Array, "... k"]:
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jax.nn.log_softmax(wide, axis=-1)


def _terms(
    log_p: Float[Array, "n k"], log_q: Float[Array, "n k"]
) -> Float[Array, "n k"]:
    """Returns p log(p/q) + q - p for each class, which is not negative."""
    p, ratio = jnp.exp(log_p), log_q - log_p
    # Near p = q the terms cancel, which expm1 avoids. The inner `where` keeps large
    # ratios out of expm1: an overflow there would make the gradient NaN.
    is_near = jnp.abs(ratio) < 1
    stable_terms = jnp.expm1(jnp.where(is_near, ratio, 0.0)) - ratio
    return jnp.where(is_near, p * stable_terms, jnp.exp(log_q) - p - p * ratio)
