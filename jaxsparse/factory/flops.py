"""Makes the FLOP account of a config."""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import flops
from jaxsparse.factory import probes
from jaxsparse.factory.durations import Durations
from jaxsparse.runner.flop_records import FlopAccount
from jaxsparse.tost import ghost_skips
from jaxsparse.types import Masks

log = logging.getLogger(__name__)


def make_account(
    config: ConfigDict,
    length: Durations,
    forward: Callable[..., Any],
    weights: Any,
    example: jax.ShapeDtypeStruct,
    masks: Masks,
) -> FlopAccount | None:
    """Makes what the FLOPs of a run are computed from.

    Temporary parts of ToST (soft activations, ghost skips) and GradInit are left out.

    Args:
      config: a validated config.
      length: durations of the config in steps.
      forward: the forward pass in inference mode, of parameters and images.
      weights: parameters of one replicate, possibly abstract.
      example: a batch of one input, abstract.
      masks: dense masks of one replicate.

    Returns:
      The account. None, after a warning, if the network cannot be traced.
    """
    weights, masks = map(ghost_skips.strip_ghosts, (weights, masks))
    try:
        macs = flops.macs(forward, weights, example, masks=masks)
    except ValueError as error:
        log.warning("FLOPs are not counted: %s", error)
        return None
    method = config_lib.METHODS.find(config.sparse.method)
    updates: tuple[int, ...] | None = ()
    rules = method.mask_updates
    if rules.updates_masks:
        is_known = bool(rules.first_update)
        updates = probes.update_steps(config, length) if is_known else None
    return FlopAccount(
        macs,
        dense_params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(weights)),
        gradient=gradient(config),
        updates=updates,
        keeps_counts=method.keeps_counts or rules.gradient == "backward",
        growth_examples=config.sparse.grow_batch_size,
    )


def gradient(config: ConfigDict) -> str:
    """Returns of which weights the gradient is computed, one of `flops.GRADIENTS`.

    Args:
      config: a validated config.
    """
    method = config_lib.METHODS.find(config.sparse.method)
    rules = method.mask_updates
    found = rules.gradient or ("updates" if rules.updates_masks else "active")
    # RigL that grows at random is SET.
    is_random = "grow" in method.fields and config.sparse.grow == "random"
    return "active" if found == "updates" and is_random else found
