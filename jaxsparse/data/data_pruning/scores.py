r"""Scores of examples: how hard each is for a network at some time of its training.

`el2n`, `margin` and `loss` read logits alone; `grand` needs the gradient of every
example. How the logits are made is up to the caller, and matters: images as they are or
augmented, BatchNorm with its running averages or those of the batch. Choosing examples
by score is for `subsets`.

All but `grand` see the true class against the rest. With the logits :math:`z`, the true
class :math:`y` and :math:`x = \log \sum_{j \ne y} e^{z_j} - z_y`, the probability of
being wrong is :math:`1 - p_y = \sigma(x)`. Nothing cancels in it, so that examples of
which the network is sure stay in order as long as their probabilities are numbers at
all, and score exactly 0 after that.
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
    r"""Computes the norm of the error: probabilities less the one-hot label.

    That is :math:`\|p - e_y\|_2 = (1 - p_y) \sqrt{1 + \sum_{j \ne y} q_j^2}`, where
    :math:`q` are the probabilities of the other classes given that one is right. For
    vmap over replicates: `jax.vmap(el2n, in_axes=(0, None))`.

    Args:
      logits: finite, unnormalised log-probabilities of k classes, 2 or more.
      labels: true classes in [0, k).

    Returns:
      One score an example in [0, sqrt(2)], float32 or wider; NaN for a label out of
      range. The paper's score is its mean over training runs.

    Raises:
      ValueError: if there are fewer than 2 classes.

    Examples:
      >>> el2n(jnp.array([[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]]), jnp.zeros(3, int))
      Array([0.70710677, 0.        , 1.4142135 ], dtype=float32)

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, definition 2.3.
    """
    against, others = _true_against_rest(logits, labels)
    return jax.nn.sigmoid(against) * jnp.sqrt(1.0 + jnp.sum(others**2, axis=-1))


def margin(
    logits: Float[Array, " n k"], labels: Int[Array, " n"]
) -> Float[Array, " n"]:
    """Computes by how much the true class is more probable than the best other.

    The margin is of probabilities. That of logits has no bound, and means more in a
    network of large logits than in one of small, so that its mean over training runs
    would listen to some of them more than to others.

    Args:
      logits: as in `el2n`.
      labels: as in `el2n`.

    Returns:
      One margin an example in [-1, 1], positive where the true class is the most
      probable; NaN for a label out of range. Less is harder, other than of all other
      scores: give `subsets.choose` its negative.

    Raises:
      ValueError: as `el2n`.

    Examples:
      >>> margin(jnp.array([[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]]), jnp.zeros(3, int))
      Array([ 0.,  1., -1.], dtype=float32)

    Deviations:
      The public code of Paul et al. (2021) has the negative of this as "max_margin".
    """
    against, others = _true_against_rest(logits, labels)
    return jax.nn.sigmoid(-against) - jax.nn.sigmoid(against) * jnp.max(others, axis=-1)


def loss(logits: Float[Array, " n k"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """Computes the cross-entropy of each example, in nats.

    Args:
      logits: as in `el2n`.
      labels: as in `el2n`.

    Returns:
      One loss an example, at least 0; NaN for a label out of range.

    Raises:
      ValueError: as `el2n`.

    Examples:
      >>> loss(jnp.array([[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]]), jnp.zeros(3, int))
      Array([  0.6931472,   0.       , 200.       ], dtype=float32)
    """
    against, _ = _true_against_rest(logits, labels)
    return jax.nn.softplus(against)


def grand(
    loss: ExampleLoss, params: PyTree, examples: PyTree, *, block_size: int
) -> Float[Array, " n"]:
    r"""Computes the norm of the gradient of each example's loss.

    That is :math:`\|\nabla_w \ell(w; x_i, y_i)\|_2` over all parameters. Gradients are
    made in blocks, one block after the other, and only their norms are kept. Call it
    under `jit` to compile it once for many calls.

    Every parameter takes part, also weights that a mask holds at zero: their gradient
    is not zero. To leave them out, give a loss that masks its parameters first, such as
    `lambda params, example: loss(masks.apply(ticket, params), example)`.

    Args:
      loss: called as `loss(params, example)` with one example; a scalar. In inference
        mode: no example may depend on others.
      params: the point; floating leaves.
      examples: a tree whose leaves all begin with the axis of examples, [n ...]; the
        loss gets it without.
      block_size: gradients to hold at once, 1 or more. Accelerators want many, as far
        as memory goes; on a CPU, convolutions are fastest in blocks of a few.

    Returns:
      One score an example, at least 0, float32 or wider. The paper's score is its mean
      over training runs. Norms below 1e-19 may come out as 0 in float32.

    Raises:
      ValueError: if the leaves of `examples` do not begin with one axis of 1 or more,
        or `block_size` is below 1.

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
        raise ValueError(f"block_size: got {block_size}; wanted 1 or more gradients")

    def norm(example: Any) -> Float[Array, ""]:
        slopes = jax.grad(loss)(params, example)
        return optax.tree.norm(jax.tree.map(_widen, slopes))

    return lax.map(norm, examples, batch_size=min(block_size, count))


def mean_over_replicates(
    scores: Float[Array, "r n"] | Float[np.ndarray, "r n"],
) -> Float64[np.ndarray, " n"]:
    """Averages the scores of independent training runs, on the host.

    Args:
      scores: those of each run in a row, the same examples in every row. An infinite
        score, as of an example that a run never learned, makes the mean infinite.

    Returns:
      The mean over runs, in float64.

    Raises:
      ValueError: if there is no run, or a score is NaN, naming the first such.

    Examples:
      >>> mean_over_replicates(np.array([[0.0, 1.0], [1.0, 1.0]]))
      array([0.5, 1. ])
    """
    each = np.asarray(scores, np.float64)
    if not len(each):
        raise ValueError(
            "scores: got 0 replicates; wanted 1 or more rows, one a training run"
        )
    bad = np.argwhere(np.isnan(each))
    if len(bad):
        raise ValueError(
            f"scores: got NaN for {len(bad)} of {each.size}, the first of replicate "
            f"{bad[0][0]}, example {bad[0][1]}; wanted numbers; leave out runs that "
            "diverged, and check that labels count from 0"
        )
    return np.mean(each, axis=0)


def _true_against_rest(
    logits: Float[Array, " n k"], labels: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n k"]]:
    """Returns the log-odds of being wrong, and the others' shares, 0 at the label."""
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(
            f"logits: got {classes} classes; wanted 2 or more; is the axis of classes "
            "the last?"
        )
    logits = _widen(logits)
    is_true = labels[:, None] == jnp.arange(classes)[None, :]
    true = jnp.sum(logits, axis=-1, where=is_true)
    true = jnp.where(jnp.any(is_true, axis=-1), true, jnp.nan)
    others = jnp.where(is_true, -jnp.inf, logits)
    rest = jax.nn.logsumexp(others, axis=-1)
    return rest - true, jax.nn.softmax(others, axis=-1)


def _widen(leaf: Float[Array, "..."]) -> Float[Array, "..."]:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _count(examples: PyTree) -> int:
    """Returns how many examples there are, and refuses what is not examples."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            f"examples: got leaves of shapes {shapes}; wanted all to begin with the "
            "same axis of examples, 1 or more; a single example needs an axis of 1 too"
        )
    return lengths.pop()[0]
