"""Computes the difficulty scores of training examples with all replicates of a run.

`data.data_pruning.scores` defines the scores. Images are not augmented, and are scored
in the order of the dataset. Forgetting events are counted during training instead, see
`factory.forgetting`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from jaxsparse import masks as masks_lib
from jaxsparse import transforms
from jaxsparse.analysis import mode_connectivity
from jaxsparse.analysis.mode_connectivity import example_criteria
from jaxsparse.data.data_pruning import scores as scores_lib
from jaxsparse.data.dataset import Examples
from jaxsparse.factory.eval_fns import EvalFns
from jaxsparse.lottery import instability
from jaxsparse.training import vmap_seeds
from jaxsparse.training.state import TrainState
from jaxsparse.training.vmap_seeds import How

# Higher scores mean harder examples, so the margin is negated.
LOGIT_SCORES: dict[str, Callable[[Any, Any], Any]] = {
    "el2n": scores_lib.el2n,
    "margin": lambda logits, labels: -scores_lib.margin(logits, labels),
    "loss": scores_lib.loss,
}
BATCH_NORM = ("evaluation", "batch")
MIDPOINT = (0.0, 0.5, 1.0)


class Weights(NamedTuple):
    """Networks to compute scores with, every leaf [r ...].

    Attributes:
      params: parameters for the forward pass, exactly zero outside the masks.
      batch_stats: running statistics of BatchNorm; {} for networks without.
      masks: boolean masks of the active weights.
    """

    params: Any
    batch_stats: Any
    masks: Any


def weights(state: TrainState) -> Weights:
    """Extracts what scores need from a training state.

    Args:
      state: a state in the checkpoint layout: leaves lead with the replicate axis,
        counters are scalars.
    """
    return Weights(
        transforms.forward_params(state.params, state.opt_state),
        state.batch_stats,
        transforms.get_masks(state.opt_state),
    )


def score_logits(
    functions: EvalFns,
    networks: Weights,
    examples: Examples,
    *,
    score: str,
    batch_norm: str = "evaluation",
    batch_size: int,
    how: How,
) -> Float[np.ndarray, "r n"]:
    """Scores examples by the logits of each network.

    Args:
      functions: evaluation functions of the networks' config.
      networks: networks of one or more replicates.
      examples: examples to score, at least one.
      score: one of `LOGIT_SCORES`. "margin" is the negative of
        `data_pruning.scores.margin`, so that higher means harder for all scores.
      batch_norm: statistics that BatchNorm uses: "evaluation" for the running averages;
        "batch" for those of each batch of `batch_size` consecutive examples, where the
        last batch may be smaller. Irrelevant for networks without BatchNorm.
      batch_size: examples per batch, at least 1.
      how: how networks are mapped over replicates: "vmap", "map" or "unroll", see
        `training.vmap_seeds`.

    Returns:
      One score for each replicate and example.

    Raises:
      ValueError: if a name is unknown, `batch_size` is below 1, or a score is not
        finite; the message names the replicate.

    Deviations:
      The code of Paul et al. (2021) uses the running averages, that of Paul et al.
      (2022) the statistics of batches of 1000 examples, which is "batch" here.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, definition 2.3 for EL2N.

      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278.
    """
    if score not in LOGIT_SCORES:
        raise ValueError(f"score: expected one of {tuple(LOGIT_SCORES)}, got {score!r}")
    if batch_norm not in BATCH_NORM:
        raise ValueError(
            f"batch_norm: expected one of {BATCH_NORM}, got {batch_norm!r}"
        )

    def one(network: Weights, images: Any, labels: Any) -> Any:
        if batch_norm == "batch":
            logits = functions.batch_logits(network.params, images)
        else:
            logits = functions.logits(network.params, network.batch_stats, images)
        return LOGIT_SCORES[score](logits, labels)

    return _in_batches(one, networks, examples, batch_size, how, score)


def grand(
    functions: EvalFns,
    networks: Weights,
    examples: Examples,
    *,
    block_size: int,
    batch_size: int,
    how: How,
) -> Float[np.ndarray, "r n"]:
    """Scores examples by the norm of their gradient (GraNd), in inference mode.

    The gradient is taken with respect to the active weights and the parameters without
    a mask; inactive weights do not contribute.

    Args:
      functions: evaluation functions of the networks' config.
      networks: networks of one or more replicates.
      examples: examples to score, at least one.
      block_size: number of per-example gradients held in memory at once, at least 1;
        per replicate if `how` is "vmap".
      batch_size: number of examples scored per call of the compiled function, at least
        1.
      how: how networks are mapped over replicates: "vmap", "map" or "unroll", see
        `training.vmap_seeds`.

    Returns:
      One gradient norm for each replicate and example.

    Raises:
      ValueError: if a size is below 1 or a score is not finite.

    Deviations:
      The code of Paul et al. (2021) scores dense networks only.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, definition 2.1.
    """

    def one(network: Weights, images: Any, labels: Any) -> Any:
        def loss(params: Any, example: Any) -> Any:
            # The masks inside of the differentiated function zero the gradients of
            # inactive weights.
            held = masks_lib.apply(network.masks, params)
            batch = jax.tree.map(lambda leaf: leaf[None], example)
            return functions.evaluate(held, network.batch_stats, batch)[0][0]

        examples = (images, labels)
        return scores_lib.grand(loss, network.params, examples, block_size=block_size)

    return _in_batches(one, networks, examples, batch_size, how, "grand")


def example_barriers(
    functions: EvalFns,
    ends: Sequence[tuple[Any, Any]],
    examples: Examples,
    *,
    at: str = "midpoint",
    batch_size: int,
) -> Float64[np.ndarray, "p n"]:
    """Scores examples by their loss barriers between all pairs of networks.

    BatchNorm statistics are interpolated linearly, like the parameters.

    Args:
      functions: evaluation functions of the networks' config.
      ends: parameters and batch statistics of two or more networks without replicate
        axis, such as copies trained with different SGD noise.
      examples: examples to score, at least one.
      at: "midpoint" of the linear interpolation, or "maximum" over 30 points; see
        `mode_connectivity.example_barrier`.
      batch_size: examples per batch, at least 1.

    Returns:
      One barrier in nats for each pair, in the order of `lottery.instability.pairs`,
      and example. Higher means harder: the barriers of easy examples vanish early in
      training.

    Raises:
      ValueError: if there are fewer than two networks, their trees differ, an argument
        is out of range, or a barrier is not finite.

    References:
      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278: a parent
      and two copies, which are three pairs.
    """
    if len(ends) < 2:
        raise ValueError(f"ends: expected 2 or more networks, got {len(ends)}")
    if at not in example_criteria.POINTS:
        raise ValueError(f"at: expected one of {example_criteria.POINTS}, got {at!r}")
    _check_size("batch_size", batch_size)
    alphas = MIDPOINT if at == "midpoint" else mode_connectivity.UNIT_ALPHAS
    on_device = jax.tree.map(jnp.asarray, tuple(examples))
    found = []
    # Barriers are differences of nearly equal losses, and TPUs and recent GPUs multiply
    # float32 matrices with fewer bits by default.
    with jax.default_matmul_precision("highest"):
        for a, b in instability.pairs(len(ends)):
            segment = mode_connectivity.along_path(
                functions.evaluate,
                ends[a][0],
                ends[b][0],
                examples=on_device,
                batch_size=batch_size,
                alphas=alphas,
                batch_stats=mode_connectivity.Interpolated(ends[a][1], ends[b][1]),
            )
            each = mode_connectivity.example_barrier(
                segment.example_loss, alphas, at=at
            )
            found.append(each)
    return _finite(np.stack(found), "barrier", "pair")


def _in_batches(
    one: Callable[..., Any],
    networks: Weights,
    examples: Examples,
    batch_size: int,
    how: How,
    score: str,
) -> Float[np.ndarray, "r n"]:
    """Scores all examples in batches, with all networks.

    Args:
      one: function of a network, images and labels to scores [b].
      networks: networks [r ...].
      examples: examples to score.
      batch_size: examples per batch, at least 1.
      how: how networks are mapped over replicates.
      score: name of the score, for messages.

    Returns:
      Scores of all replicates and examples.

    Raises:
      ValueError: if `batch_size` is below 1 or a score is not finite.
    """
    _check_size("batch_size", batch_size)
    images, labels = examples
    mapped = vmap_seeds.over_replicates(
        one,
        how=how,
        replicates=len(jax.tree.leaves(networks.params)[0]),
        in_axes=(0, None, None),
        out_axes=0,
    )
    every, found = jax.jit(mapped), []
    with jax.default_matmul_precision("highest"):
        for first in range(0, len(labels), batch_size):
            part = slice(first, first + batch_size)
            # To the host after each batch, so that device memory does not grow with the
            # dataset.
            found.append(np.asarray(every(networks, images[part], labels[part])))
    return _finite(np.concatenate(found, axis=1), score, "replicate")


def _check_size(field: str, size: int) -> None:
    if size < 1:
        raise ValueError(f"{field}: expected 1 or more examples, got {size}")


def _finite(
    found: Float[np.ndarray, "r n"], score: str, row: str
) -> Float[np.ndarray, "r n"]:
    """Raises ValueError if a score is not finite, as after diverged training.

    Args:
      found: scores of all examples.
      score: name of the score, for the message.
      row: what the first axis of `found` counts, for the message.

    Returns:
      `found`.
    """
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        raise ValueError(
            f"{score}: expected finite scores, got {found[tuple(bad[0])]} for example "
            f"{bad[0][1]} of {row} {bad[0][0]}, and {len(bad)} such in all; did "
            "training diverge? Take another checkpoint, or train at a lower "
            "config.schedule.learning_rate"
        )
    return found
