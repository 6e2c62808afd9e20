"""Static masks that remove whole channels from all layers that share them."""

import functools
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import coupling, select
from jaxsparse import masks as masks_lib
from jaxsparse.factory import methods
from jaxsparse.factory import scores as scores_lib
from jaxsparse.factory.durations import config_context
from jaxsparse.types import Masks

# Fields of `config.sparse` that divide weights among layers, which units do not need.
DIVIDE = ("distribution", "layer_sparsity", "min_layer_density", "dense")
DIVIDE += ("first_layer_dense", "last_layer_dense", "prunable")


def is_chosen(config: ConfigDict) -> bool:
    """Says whether a config has this structure.

    Args:
      config: a config with valid types and ranges.
    """
    return config.sparse.structure == methods.COUPLED


def check(config: ConfigDict) -> None:
    """Checks that the other fields of the section "sparse" fit this structure.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if the method changes masks in training, or a field is set that
        divides the sparsity among layers; the message names the config field.
    """
    if not is_chosen(config):
        return
    c, plain = config.sparse, config_lib.default().sparse
    if c.method != "static":
        raise ValueError(
            f"config.sparse.structure: expected {methods.COUPLED!r} only with "
            f"sparse.method 'static', since units are chosen once, got {c.method!r}; "
            "choose 'channels' or another method"
        )
    for name in DIVIDE:
        if c[name] != plain[name]:
            raise ValueError(
                f"config.sparse.{name}: expected {plain[name]!r} with "
                f"sparse.structure {methods.COUPLED!r}, which removes the same "
                f"fraction of every group of units, got {c[name]!r}; leave it out"
            )


def choose(
    config: ConfigDict,
    model: nn.Module,
    variables: dict[str, Any],
    scorer: scores_lib.ScoreInputs,
) -> Masks:
    """Chooses the masks of one replicate.

    Args:
      config: a validated config; its sparsity is the fraction of the units of each
        group that are removed.
      model: the network.
      variables: initial weights as "params", and batch statistics.
      scorer: inputs of the score.

    Raises:
      ValueError: if no unit of the network can be removed.
    """
    c = config.sparse
    spec = config_lib.SCORES.find(c.pai_score)
    score = scorer.bind(spec, c, field=scores_lib.PAI_SCORE)
    apply = functools.partial(model.apply, train=False)
    coupled = coupling.coupled_axes(apply, variables, scorer.inputs[0, :1])
    weights = variables["params"]
    everything = masks_lib.ones(weights, prunable=methods.prunable(config))
    scores = {"params": score(weights, everything)}
    with config_context("sparse"):
        return select.coupled_channels(scores, coupled, c.sparsity)["params"]
