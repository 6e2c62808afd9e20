"""Makes the ToST techniques of a config that are annealed during training.

Soft activations, ghost skips and label smoothing (Jaiswal et al., 2022,
arXiv:2206.12755) modify the network or its loss early in training, as a function of the
training step.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Int
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import tree
from jaxsparse.factory import models
from jaxsparse.factory.durations import Durations
from jaxsparse.tost import annealing, ghost_skips, soft_activations
from jaxsparse.training import steps
from jaxsparse.types import Params


def check(config: ConfigDict) -> None:
    """Checks that the network supports the techniques, and that options apply.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if a technique does not fit the network, or an option of an absent
        technique is set; the message names the config field.
    """
    c, family = config.tost, config_lib.MODELS.find(config.model.name)
    if c.activation and not family.rectifies:
        raise ValueError(
            f"config.tost.activation: expected None for {config.model.name!r}, whose "
            f"activation is not ReLU, got {c.activation!r}; choose another network"
        )
    if c.mode == "sharpen" and c.activation != "p_swish":
        raise ValueError(
            "config.tost.mode: expected 'blend' with tost.activation "
            f"{c.activation!r}, got 'sharpen'; set tost.activation 'p_swish', which "
            "alone has a sharpness"
        )
    if c.mode == "sharpen" and c.schedule != "linear":
        raise ValueError(
            "config.tost.schedule: expected 'linear' with tost.mode 'sharpen', got "
            f"{c.schedule!r}; set tost.mode 'blend'"
        )
    if c.skips and "skip" not in family.takes:
        able = [
            name for name, other in config_lib.MODELS.items() if "skip" in other.takes
        ]
        raise ValueError(
            f"config.tost.skips: expected None for {config.model.name!r}, which does "
            f"not support ghost skips, got {c.skips!r}; choose one of {able}"
        )
    unused = functools.partial(config_lib.check_unused, config)
    used, fields = any((c.activation, c.skips)), "tost.activation or tost.skips"
    unused("tost", used, ("end", "schedule"), what=fields)
    anneals = c.schedule != "constant"
    unused("tost", anneals, ("end",), what="a tost.schedule that is not 'constant'")
    _check_analyses(config, used, anneals)
    sharpens = c.mode == "sharpen"
    unused("tost", sharpens, ("beta",), what="tost.mode 'sharpen'")
    t = config.training
    soft = t.label_smoothing > 0
    smoothing = ("smoothing_target", "smoothing_schedule", "smoothing_end")
    unused("training", soft, smoothing, what="training.label_smoothing")
    hardens = t.smoothing_schedule != "constant"
    what = "a training.smoothing_schedule that is not 'constant'"
    unused("training", hardens, ("smoothing_end",), what=what)


def tost_strength(config: ConfigDict) -> bool:
    """Returns whether soft activations or ghost skips are annealed away in training.

    Args:
      config: a validated config.
    """
    c = config.tost
    return bool(c.activation or c.skips) and c.schedule != "constant"


def check_lengths(config: ConfigDict, length: Durations) -> None:
    """Checks that annealing ends no later than training.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Raises:
      ValueError: if it ends later; the message names the config field.
    """
    t = config.training
    soft = t.label_smoothing and t.smoothing_schedule != "constant"
    for name, anneals, end in (
        ("tost.end", tost_strength(config), length.annealing.tost_end),
        ("training.smoothing_end", soft, length.annealing.smoothing_end),
    ):
        if anneals and end > length.total:
            section, field = name.split(".")
            raise ValueError(
                f"config.{name}: expected at most {length.total} steps, the length of "
                f"training, got {config[section][field]!r}, which is {end}; set an "
                "earlier end, or a constant schedule"
            )


def _check_analyses(config: ConfigDict, used: bool, anneals: bool) -> None:
    """Checks that no analysis measures a network without its ghost skips.

    Analyses evaluate the network without soft activations and ghost skips.

    Args:
      config: a config with valid types and ranges.
      used: whether there are soft activations or ghost skips.
      anneals: whether they are annealed away, so that final networks have none.

    Raises:
      ValueError: if an analysis would; the message names the config field.
    """
    a, s = config.analysis, config.instability
    # Copies and levels are compared at the end, where they are annealed away.
    measured = {
        "analysis.gradient_every": used and a.gradient_every,
        "analysis.at_mask_updates": used and a.at_mask_updates,
        "instability.copies": used and not anneals and s.copies,
        "instability.compare_levels": used and not anneals and s.compare_levels,
    }
    for name, value in measured.items():
        if value:
            raise ValueError(
                f"config.{name}: expected no analysis with tost.activation or "
                "tost.skips, without which analyses compute the network, got "
                f"{value!r}; leave out one of the two"
            )


def make_annealed_model(
    config: ConfigDict, length: Durations, *, axis_name: str | None = None
) -> steps.AnnealedModel | None:
    """Makes the function that adds soft activations and ghost skips to a network.

    Args:
      config: a validated config.
      length: durations of the config in steps.
      axis_name: mapped axis over which BatchNorm averages in addition to the batch,
        from `MeshLayout.batch_axis`; None for none.

    Returns:
      A function of a network, the training step and `train` to the modified network;
      None if the config has neither.
    """
    c = config.tost
    if not (c.activation or c.skips):
        return None

    def annealed(
        model: nn.Module, step: Int[Array, ""] | int, *, train: bool
    ) -> nn.Module:
        # A factor and not a new network at some step, so that one compiled program
        # serves all steps.
        strength = annealing.anneal(
            step, end=length.annealing.tost_end, form=c.schedule
        )
        fields: dict[str, Any] = {}
        if c.mode == "sharpen":
            initial, final = c.beta
            beta = annealing.sharpen(
                step, end=length.annealing.tost_end, initial=initial, final=final
            )
            fields["act"] = soft_activations.p_swish(beta)
        elif c.activation:
            fields["act"] = soft_activations.blend(
                soft_activations.SOFT[c.activation], strength
            )
        if c.skips:
            fast = train and models.uses_custom_conv_grads(config)
            usual = models.batch_norm(axis_name, fast=fast)
            layers = _layers_of(model, usual)
            fields["skip"] = ghost_skips.make(
                strength, train=train, kind=c.skips, **layers
            )
        return model.clone(**fields)

    return annealed


def as_rescaled(model: nn.Module, annealed: steps.AnnealedModel | None) -> nn.Module:
    """Returns the network whose initial weights GradInit rescales.

    Its activations are those at the beginning of training. Ghost skips are left out,
    because the gradients of their constant weights are so large (98.6 % of the squared
    norm in a LeNet-5) that the factors would be determined by them alone.

    Args:
      model: the network that trains.
      annealed: the function of `make_annealed_model`, or None.
    """
    if annealed is None:
        return model
    found = annealed(model, 0, train=True)
    return found.clone(skip=None) if hasattr(found, "skip") else found


def _layers_of(model: Any, usual: Callable[..., nn.Module]) -> dict[str, Any]:
    """Returns the layers of ghost skips: the network's own where it has them.

    Args:
      model: the network.
      usual: creates BatchNorm layers for networks that have none of their own.
    """
    # Ghost skips are normalized also in networks without BatchNorm.
    found = {"conv": model.conv, "norm": getattr(model, "norm", None) or usual}
    return {
        name: functools.partial(layer, dtype=model.dtype)
        for name, layer in found.items()
    }


def make_smoothing(
    config: ConfigDict, length: Durations
) -> float | Callable[[Int[Array, ""]], Any]:
    """Makes the label smoothing of a config.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Returns:
      The weight of the uniform part of the targets, or a function of the training step
      to it if it is annealed.
    """
    c = config.training
    if not c.label_smoothing or c.smoothing_schedule == "constant":
        return c.label_smoothing
    strength = functools.partial(
        annealing.anneal, end=length.annealing.smoothing_end, form=c.smoothing_schedule
    )
    return lambda step: c.label_smoothing * strength(step)


def fill(params: Params) -> Params:
    """Fills the kernels of ghost skips with the constant of the released code.

    Args:
      params: parameters of one replicate.
    """

    def one(name: str, leaf: Array) -> Array:
        filled = ghost_skips.is_ghost(name) and name.endswith("kernel")
        return jnp.full_like(leaf, ghost_skips.CONSTANT) if filled else leaf

    return tree.map_with_names(one, params)
