"""The network that an experiment trains, and how it begins."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse.training import state as state_lib
from jaxsparse.training.state import Seeds, TrainState
from jaxsparse.types import Masks, Params, Scores


class TrainTask(NamedTuple):
    """What is trained.

    Attributes:
      initialize: keys [r] to initial weights and batch statistics [r ...].
      tx: the sparse optimiser.
      masks: the dense masks of one replicate.
      first_masks: for sparse training from the start: initial weights, batch statistics
        and seeds to masks, all [r ...]. None to begin dense.
      fresh_weights: whether training starts from other weights than those the first
        masks were chosen on.
      live: masks of one replicate to how many of its weights lie on a path from input
        to output.
      first_weights: as `initialize`, for what training starts from, if that is not
        drawn: weights of another run.
      redraw: weights and masks of one replicate and a key to fresh weights that suit
        the masks; None to leave those drawn as they are.
      level_scores: what weights are worth at the end of a level: weights, batch
        statistics, masks, seeds [r ...] and the next level to scores [r ...]. None for
        those that `levels.prune` computes.
      rescale: weights, batch statistics, masks and seeds [r ...] to what
        `tost.rescaling.Rescaled` holds, for what training starts from; None for none.
      place: for use in jit, says how a state [r ...] is divided over devices as it is
        made; None leaves it to whoever trains it.
    """

    initialize: Callable[[Key[Array, "r"]], tuple[Params, Any]]
    tx: optax.GradientTransformationExtraArgs
    masks: Masks
    first_masks: Callable[[Params, Any, Seeds], Masks] | None = None
    fresh_weights: bool = False
    live: Callable[[Masks], int] | None = None
    first_weights: Callable[[Key[Array, "r"]], tuple[Params, Any]] | None = None
    redraw: Callable[[Params, Masks, Key[Array, ""]], Params] | None = None
    rescale: Callable[[Params, Any, Masks, Seeds], Any] | None = None
    level_scores: Callable[[Params, Any, Masks, Seeds, int], Scores] | None = None
    place: Callable[[TrainState], TrainState] | None = None


def first_state(task: TrainTask, seeds: Seeds) -> TrainState:
    """Makes the state before any training, dense, every leaf leading with replicates.

    Checkpoints are loaded into states like this one.
    """
    draw = task.first_weights or task.initialize
    params, batch_stats = draw(seeds.init)
    masks = dense_masks(task, len(seeds.init))
    return state_lib.start(
        task.tx,
        params,
        batch_stats,
        masks,
        step=0,
        keys=seeds.masks,
        place=task.place,
    )


def dense_masks(task: TrainTask, replicates: int) -> Masks:
    """Returns the network's dense masks for so many replicates."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (replicates, *leaf.shape)), task.masks
    )
