"""The network that an experiment trains, with its initialization and optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse.training import state as state_lib
from jaxsparse.training.state import Seeds, TrainState
from jaxsparse.types import Masks, Params, Scores


class StartWeights(NamedTuple):
    """Where initial weights come from, and how they are changed before training.

    Attributes:
      first_weights: function with the signature of `TrainTask.initialize` that returns
        weights taken from another run; None starts from the weights of `initialize`.
      fresh_weights: whether training starts from weights drawn independently of those
        for which the first masks were chosen.
      redraw: function of weights and masks of one replicate and a key to new weights
        whose scale suits the masks; None keeps the weights as drawn.
      rescale: function of weights, batch statistics, masks and seeds [r ...] to a
        `tost.gradinit.GradInitResult` [r ...] with the factors by which initial weights
        are multiplied; None keeps their scale.
    """

    first_weights: Callable[[Key[Array, "r"]], tuple[Params, Any]] | None = None
    fresh_weights: bool = False
    redraw: Callable[[Params, Masks, Key[Array, ""]], Params] | None = None
    rescale: Callable[[Params, Any, Masks, Seeds], Any] | None = None


class TrainTask(NamedTuple):
    """What is trained.

    Attributes:
      initialize: function of typed random keys [r] to initial weights and batch
        statistics [r ...].
      tx: the sparse optimizer.
      masks: dense masks of one replicate.
      first_masks: for methods that are sparse from the start, a function of initial
        weights, batch statistics and seeds to masks, all [r ...]. None starts dense.
      start: where initial weights come from, and how they are changed.
      count_effective: function of the masks of one replicate to the number of its
        active weights that lie on a path from input to output.
      level_scores: function of the final weights of a level, batch statistics, masks,
        seeds [r ...] and the number of the next level to pruning scores [r ...]. None
        for scores that `imp.prune` computes itself.
      place: function for use under jit that constrains the sharding of a state [r ...]
        when it is made; None leaves the placement to the trainer.
    """

    initialize: Callable[[Key[Array, "r"]], tuple[Params, Any]]
    tx: optax.GradientTransformationExtraArgs
    masks: Masks
    first_masks: Callable[[Params, Any, Seeds], Masks] | None = None
    start: StartWeights = StartWeights()
    count_effective: Callable[[Masks], int] | None = None
    level_scores: Callable[[Params, Any, Masks, Seeds, int], Scores] | None = None
    place: Callable[[TrainState], TrainState] | None = None


def first_state(task: TrainTask, seeds: Seeds) -> TrainState:
    """Makes the dense state before any training, [r ...].

    Checkpoints are loaded into states with this structure.

    Args:
      task: what is trained.
      seeds: random keys of all replicates.
    """
    draw = task.start.first_weights or task.initialize
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
    """Returns the network's dense masks [r ...].

    Args:
      task: what is trained.
      replicates: number of replicates, r.
    """
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (replicates, *leaf.shape)), task.masks
    )
