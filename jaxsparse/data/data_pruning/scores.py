r"""Scores of examples: how hard each example is for a network during training.

`el2n`, `margin` and `loss` are computed from logits alone; `grand` needs the gradient
of every example. The caller computes the logits and decides whether images are
augmented and whether BatchNorm uses running averages or batch statistics; both affect
the scores. `subsets` selects examples by score.

All scores but `grand` compare the true class with the rest. With the logits :math:`z`,
the true class :math:`y` and :math:`x = \log \sum_{j \ne y} e^{z_j} - z_y`, the
probability of an error is :math:`1 - p_y = \sigma(x)`. This avoids the cancellation in
:math:`1 - p_y`, so confidently classified examples remain ordered by score until
:math:`\sigma(x)` underflows to exactly 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Float64, Int, PyTree

ExampleLoss = Callable[[Any, Any], Float[Array, ""]]


def el2n(logits: Float[Array, " n k"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    r"""Computes EL2N, the norm of the error: probabilities minus the one-hot label.

    This is :math:`\|p - e_y\|_2 = (1 - p_y) \sqrt{1 + \sum_{j \ne y} q_j^2}`, where
    :math:`q` are the probabilities of the other classes, given that the class is not
    :math:`y`. For replicates, use `jax.vmap(el2n, in_axes=(0, None))`.

    Args:
      logits: finite logits of k classes, at least 2.
      labels: true classes in [0, k).

    Returns:
      One score per example in [0, sqrt(2)], float32 or wider; NaN for a label out of
      range. The score in the paper is its mean over training runs.

    Raises:
      ValueError: if there are fewer than 2 classes.

    Examples:
      >>> el2n(jnp.array([[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]]), jnp.zeros(3, int))
      Array([0.70710677, 0.        , 1.4142135 ], dtype=float32)

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, definition 2.3.
    """
    log_odds, others = _true_against_rest(logits, labels)
    return jax.nn.sigmoid(log_odds) * jnp.sqrt(1.0 + jnp.sum(others**2, axis=-1))


def margin(
    logits: Float[Array, " n k"], labels: Int[Array, " n"]
) -> Float[Array, " n"]:
    """Computes the margin: probability of the true class minus the best other class.

    Margins of probabilities are used, not of logits. Margins of logits are unbounded
    and grow with the scale of a network's logits, so a mean over training runs would
    give more weight to runs with large logits.

    Args:
      logits: finite logits of k classes, at least 2.
      labels: true classes in [0, k).

    Returns:
      One margin per example in [-1, 1], positive if the true class is the most
      probable; NaN for a label out of range. In contrast to all other scores, lower is
      harder: pass the negative to `subsets.choose`.

    Raises:
      ValueError: if there are fewer than 2 classes.

    Examples:
      >>> margin(jnp.array([[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]]), jnp.zeros(3, int))
      Array([ 0.,  1., -1.], dtype=float32)

    Deviations:
      The public code of Paul et al. (2021) calls the negative of this "max_margin".
    """
    log_odds, others = _true_against_rest(logits, labels)
    # The probability of another class j is (1 - p_y) q_j.
    return jax.nn.sigmoid(-log_odds) - jax.nn.sigmoid(log_odds) * jnp.max(
        others, axis=-1
    )


def loss(logits: Float[Array, " n k"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """Computes the cross-entropy loss of each example, in nats.

    Args:
      logits: finite logits of k classes, at least 2.
      labels: true classes in [0, k).

    Returns:
      One loss per example, at least 0, float32 or wider; NaN for a label out of range.

    Raises:
      ValueError: if there are fewer than 2 classes.

    Examples:
      >>> loss(jnp.array([[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]]), jnp.zeros(3, int))
      Array([  0.6931472,   0.       , 200.       ], dtype=float32)
    """
    log_odds, _ = _true_against_rest(logits, labels)
    return jax.nn.softplus(log_odds)


def grand(
    loss: ExampleLoss, params: PyTree, examples: PyTree, *, block_size: int
) -> Float[Array, " n"]:
    r"""Computes GraNd, the gradient norm of each example's loss.

    This is :math:`\|\nabla_w \ell(w; x_i, y_i)\|_2` over all parameters. Gradients are
    computed one block of examples after another, and only their norms are kept. Call
    this function under `jit` to compile it once for many calls.

    All parameters contribute, including pruned weights, whose gradient is not zero. To
    exclude pruned weights, pass a loss that first masks its parameters, such as
    `lambda params, example: loss(masks.apply(ticket, params), example)`.

    Args:
      loss: called as `loss(params, example)` with one example; returns a scalar. It
        must be in inference mode: the loss of an example may not depend on others.
      params: parameters at which the gradients are taken; floating-point leaves.
      examples: a tree whose leaves all have the axis of examples first, [n ...]; `loss`
        receives it without that axis.
      block_size: number of gradients in memory at once, at least 1. On accelerators,
        use as many as memory allows; on a CPU, convolutions are fastest in blocks of a
        few.

    Returns:
      One score per example, at least 0, float32 or wider. The score in the paper is its
      mean over training runs. Norms below 1e-19 may underflow to 0 in float32.

    Raises:
      ValueError: if the leaves of `examples` do not share a first axis of length 1 or
        more, or if `block_size` is below 1.

    Examples:
      >>> square = lambda params, example: (params["w"] * example["x"]) ** 2
      >>> examples = {"x": jnp.array([0.0, 1.0, -2.0])}
      >>> grand(square, {"w": jnp.float32(3.0)}, examples, block_size=2)
      Array([ 0.,  6., 24.], dtype=float32)

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, definition 2.1.

      Kirsch. Does "Deep Learning on a Data Diet" reproduce? Overall yes, but GraNd at
      Initialization does not. 2023. arXiv:2303.14753.
    """
    count = _count(examples)
    if block_size < 1:
        raise ValueError(f"block_size: expected 1 or more gradients, got {block_size}")

    def norm(example: Any) -> Float[Array, ""]:
        gradients = jax.grad(loss)(params, example)
        # Squares are summed in float32 at least, whatever the dtype of the parameters.
        return optax.tree.norm(jax.tree.map(_widen, gradients))

    return lax.map(norm, examples, batch_size=min(block_size, count))


def mean_over_replicates(
    scores: Float[Array, "r n"] | Float[np.ndarray, "r n"],
) -> Float64[np.ndarray, " n"]:
    """Averages the scores of independent training runs, on the host.

    Args:
      scores: one row of scores per run, with the same examples in every row. An
        infinite score, as of an example that a run never learned, makes the mean
        infinite.

    Returns:
      The mean over runs, float64.

    Raises:
      ValueError: if there are no rows, or if a score is NaN; the message locates the
        first one.

    Examples:
      >>> mean_over_replicates(np.array([[0.0, 1.0], [1.0, 1.0]]))
      array([0.5, 1. ])
    """
    rows = np.asarray(scores, np.float64)
    if not len(rows):
        raise ValueError(
            "scores: expected 1 or more rows, one per training run, got 0 replicates"
        )
    bad = np.argwhere(np.isnan(rows))
    if len(bad):
        raise ValueError(
            f"scores: expected numbers, got NaN for {len(bad)} of {rows.size}, the "
            f"first for replicate {bad[0][0]}, example {bad[0][1]}; exclude runs that "
            "diverged, and check that classes are numbered from 0"
        )
    return np.mean(rows, axis=0)


def _true_against_rest(
    logits: Float[Array, " n k"], labels: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n k"]]:
    """Splits logits into the true class and the rest.

    Returns:
      The log-odds of an error, log((1 - p_y) / p_y), and the probabilities of the other
      classes, given that the class is not the true one; 0 for the true class.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(
            f"logits: expected 2 or more classes, got {classes}; the last axis must be "
            "that of classes"
        )
    logits = _widen(logits)
    is_true = labels[:, None] == jnp.arange(classes)[None, :]
    true = jnp.sum(logits, axis=-1, where=is_true)
    # Without this, a label out of range would count as a true logit of 0.
    true = jnp.where(jnp.any(is_true, axis=-1), true, jnp.nan)
    others = jnp.where(is_true, -jnp.inf, logits)
    log_rest = jax.nn.logsumexp(others, axis=-1)
    return log_rest - true, jax.nn.softmax(others, axis=-1)


def _widen(leaf: Float[Array, "..."]) -> Float[Array, "..."]:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _count(examples: PyTree) -> int:
    """Checks that all leaves share their first axis, and returns its length."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            "examples: expected leaves with the same first axis, of 1 or more "
            f"examples, got shapes {shapes}; a single example needs an axis of length "
            "1 too"
        )
    return lengths.pop()[0]
