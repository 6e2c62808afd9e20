"""The network that an experiment trains, with its initialization and optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Key

from jaxsparse.runner.flop_records import FlopAccount
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
      flops: what the FLOPs of the run are computed from; None omits the account.
    """

    initialize: Callable[[Key[Array, "r"]], tuple[Params, Any]]
    tx: optax.GradientTransformationExtraArgs
    masks: Masks
    first_masks: Callable[[Params, Any, Seeds], Masks] | None = None
    start: StartWeights = StartWeights()
    count_effective: Callable[[Masks], int] | None = None
    level_scores: Callable[[Params, Any, Masks, Seeds, int], Scores] | None = None
    place: Callable[[TrainState], TrainState] | None = None
    flops: FlopAccount | None = None


def first_state(
    task: TrainTask, seeds: Seeds, *, put: Callable[[Any], Any] = lambda tree: tree
) -> TrainState:
    """Makes the dense state before any training, [r ...].

    Checkpoints are loaded into states with this structure.

    Args:
      task: what is trained.
      seeds: random keys of all replicates.
      put: moves weights, masks and keys [r ...] to the devices of a run; the default
        leaves them where they are made.
    """
    draw = task.start.first_weights or task.initialize
    masks = dense_masks(task.masks, len(seeds.init))
    start = put((*draw(seeds.init), masks, seeds.masks))
    return state_lib.start(task.tx, *start, step=0, place=task.place)


def dense_masks(masks: Any, *lengths: int) -> Masks:
    """Makes dense masks on the host, which compiles no program.

    Args:
      masks: masks of one replicate, possibly abstract; only their shapes are used.
      *lengths: lengths of leading axes to add, such as the number of replicates.
    """
    return jax.tree.map(
        lambda leaf: jax.device_put(np.ones((*lengths, *leaf.shape), bool)), masks
    )
