"""Permutes the masks of one run's ticket to the units of another run's network."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxsparse import coupling, multihost, replicates, transforms, tree
from jaxsparse import masks as masks_lib
from jaxsparse.coupling import activations
from jaxsparse.factory import input_data, models
from jaxsparse.factory.durations import config_context
from jaxsparse.factory.trained_run import DENSE, TrainedRun, load_dense
from jaxsparse.training.state import of_one
from jaxsparse.types import Masks

log = logging.getLogger(__name__)
FIELD = "warm_start.align"


def load_variables(run: TrainedRun) -> tuple[Any, Any]:
    """Loads the final dense network of a run, before any pruning round.

    Args:
      run: the run.

    Returns:
      Parameters and batch statistics [r ...] of all its replicates.

    Raises:
      ValueError: if the run has no such network, or its masks are not all True.
    """
    with config_context(FIELD):
        state = load_dense(run)
    params = transforms.forward_params(state.params, state.opt_state)
    return params, state.batch_stats


def align(
    config: ConfigDict, masks: Masks, theirs: Any, ours: Any, run: TrainedRun
) -> Masks:
    """Permutes the units of masks so that their final network matches another one.

    Each replicate is matched on its own. Only the primary process computes, since
    others may round in another way and thus find other permutations.

    Args:
      config: a validated config with `warm_start.align`.
      masks: masks [r ...] of a ticket.
      theirs: variables [r ...] of the final dense network that the ticket is from.
      ours: variables [r ...] of the final dense network to match.
      run: the run that trained `ours`; its examples are used.

    Returns:
      The permuted masks [r ...].

    Raises:
      ValueError: if leaves of the masks and of the two networks differ in name or
        shape.
    """
    _check_alike(masks, theirs, ours)
    with config_context(FIELD):
        packed = multihost.broadcast_from_primary(
            lambda: masks_lib.pack(_align(config, masks, theirs, ours, run))
        )
    return masks_lib.unpack(packed, masks)


def _align(
    config: ConfigDict, masks: Masks, theirs: Any, ours: Any, run: TrainedRun
) -> Masks:
    """Computes the masks that `align` returns; it has the same arguments."""
    c = config.warm_start
    apply, inputs = _network(run, c.align_examples)
    if c.align == "weights":
        # Running means and variances are no weights: as zeros, they match all alike.
        theirs, ours = map(_without_statistics, (theirs, ours))
        coupled = coupling.coupled_axes(apply, of_one(ours), inputs[:1])
        match = functools.partial(coupling.align, coupled)
    else:
        match = activations.make_align(apply, of_one(ours), inputs)
    found = []
    for r in range(config.replicates):
        own, there, mask = jax.tree.map(
            lambda leaf, r=r: leaf[r], (ours, theirs, masks)
        )
        aligned = match(own, there, {"params": mask})
        log.info(
            "replicate %d: masks aligned by %s, similarity %.4g, before %.4g",
            *(r, c.align, aligned.similarity[1], aligned.similarity[0]),
        )
        found.append(aligned.masks["params"])
    return replicates.stack(found)


def _without_statistics(variables: dict[str, Any]) -> dict[str, Any]:
    """Replaces all variables but the parameters by zeros."""
    zeros = jax.tree.map(jnp.zeros_like, variables)
    return zeros | {"params": variables["params"]}


def _check_alike(masks: Masks, theirs: Any, ours: Any) -> None:
    """Checks that masks and two networks have leaves of the same names and shapes.

    Args:
      masks: masks [r ...]; layers without a mask are dense.
      theirs: variables [r ...] of the network of the masks.
      ours: variables [r ...] of the network to match.

    Raises:
      ValueError: naming the first leaf that differs.
    """
    held, there, here = (
        {name: leaf.shape for name, leaf in tree.named_leaves(each).items()}
        for each in ({"params": masks}, theirs, ours)
    )
    for name in sorted(held.keys() | there.keys() | here.keys()):
        wanted = here.get(name)
        for what, found in (
            (f"{DENSE} of warm_start.masks_run", there.get(name)),
            ("the mask of warm_start.masks", held.get(name, wanted)),
        ):
            if found != wanted:
                raise ValueError(
                    f"config.{FIELD}: expected {name} of shape {wanted}, as in {DENSE} "
                    f"of warm_start.run, got {found} in {what}; choose runs of the "
                    "same network"
                )


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
