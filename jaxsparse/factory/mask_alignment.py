"""Permutes the masks of one run's ticket to the units of another run's network."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxsparse import coupling, replicates
from jaxsparse.factory import input_data, models
from jaxsparse.factory.trained_run import TrainedRun
from jaxsparse.types import Masks

log = logging.getLogger(__name__)
DENSE = "train/last"  # final network before any pruning round; also of a lottery


def align(
    config: ConfigDict, masks: Masks, theirs: Any, ours: Any, run: TrainedRun
) -> Masks:
    """Permutes the units of masks so that their final network matches another one.

    Each replicate is matched on its own.

    Args:
      config: a validated config with `warm_start.align`.
      masks: masks [r ...] of a ticket.
      theirs: variables [r ...] of the final dense network that the ticket is from.
      ours: variables [r ...] of the final dense network to match.
      run: the run that trained `ours`; its examples are used.

    Returns:
      The permuted masks [r ...].
    """
    c = config.warm_start
    apply, inputs = _network(run, c.align_examples)
    found = []
    for r in range(config.replicates):
        own, there, mask = jax.tree.map(
            lambda leaf, r=r: leaf[r], (ours, theirs, masks)
        )
        if c.align == "weights":
            coupled = coupling.coupled_axes(apply, own, inputs[:1])
            aligned = coupling.align(coupled, own, there, {"params": mask})
        else:
            aligned = coupling.align_activations(
                apply, own, there, inputs, masks={"params": mask}
            )
        log.info(
            "replicate %d: masks aligned by %s, similarity %.4g, before %.4g",
            *(r, c.align, aligned.similarity[1], aligned.similarity[0]),
        )
        found.append(aligned.masks["params"])
    return replicates.stack(found)


def _network(run: TrainedRun, examples: int) -> tuple[Callable[..., Any], Any]:
    """Makes the forward function of a run, and its inputs for training examples.

    Args:
      run: the run.
      examples: number of training examples, from the first; all if there are fewer.
    """
    images = run.dataset.train.images[:examples]
    model = models.make_model(run.config, classes=run.dataset.classes, precise=True)
    task = input_data.make_task(run.config, run.dataset)

    def apply(variables: Any, inputs: Any) -> Any:
        return model.apply(variables, inputs, train=False)

    return apply, task.inputs(jnp.asarray(np.asarray(images)))
