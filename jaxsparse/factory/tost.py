"""The aids of ToST that a config asks for by the clock: ghosts, and soft labels."""

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
    """Refuses aids that the network has no place for, and options of absent ones.

    Raises:
      ValueError: naming the field.
    """
    c, family = config.ghosts, config_lib.MODELS.find(config.model.name)
    if c.activation:
        config_lib.check_known(
            "ghosts.activation", c.activation, list(soft_activations.SOFT)
        )
    if c.activation and not family.rectifies:
        raise ValueError(
            f"config.ghosts.activation: came {c.activation!r} for "
            f"{config.model.name!r}, whose own activation is not ReLU, which ghosts "
            "fade to; wanted ''"
        )
    if c.neurons == "sharpen" and c.activation != "p_swish":
        raise ValueError(
            f"config.ghosts.neurons: came 'sharpen' with activation {c.activation!r}; "
            "wanted activation 'p_swish', the only one with a sharpness"
        )
    if c.neurons == "sharpen" and c.fade != "linear":
        raise ValueError(
            f"config.ghosts.fade: came {c.fade!r} with neurons 'sharpen', whose "
            "sharpness grows by a factor; wanted 'linear', or neurons 'blend'"
        )
    if c.skips and "skip" not in family.takes:
        able = [
            name for name, other in config_lib.MODELS.items() if "skip" in other.takes
        ]
        raise ValueError(
            f"config.ghosts.skips: came {c.skips!r} for {config.model.name!r}, which "
            f"has no place for them; wanted '', or one of {able}"
        )
    unused = functools.partial(config_lib.check_unused, config)
    some, aids = any((c.activation, c.skips)), "activation or skips"
    unused("ghosts", some, ("until", "fade"), what=aids)
    fades = c.fade != "constant"
    unused("ghosts", fades, ("until",), what="a fade other than constant")
    _check_analyses(config, some, fades)
    sharpens = c.neurons == "sharpen"
    unused("ghosts", sharpens, ("sharpness",), what="neurons 'sharpen'")
    t = config.training
    soft = t.label_smoothing > 0
    smoothing = ("smooth_over", "smoothing_fade", "smoothing_until")
    unused("training", soft, smoothing, what="label_smoothing")
    hardens = t.smoothing_fade != "constant"
    what = "a smoothing_fade other than constant"
    unused("training", hardens, ("smoothing_until",), what=what)


def tost_strength(config: ConfigDict) -> bool:
    """Says whether there are ghosts that go."""
    c = config.ghosts
    return bool(c.activation or c.skips) and c.fade != "constant"


def check_lengths(config: ConfigDict, length: Durations) -> None:
    """Refuses fades that would not be over when training is.

    Raises:
      ValueError: naming the field.
    """
    t = config.training
    soft = t.label_smoothing and t.smoothing_fade != "constant"
    for name, fades, until in (
        ("ghosts.until", tost_strength(config), length.ghosts),
        ("training.smoothing_until", soft, length.smoothing),
    ):
        if fades and until > length.total:
            section, field = name.split(".")
            raise ValueError(
                f"config.{name}: came {config[section][field]!r}, {until} updates, for "
                f"training of {length.total}; wanted at most as many, or a constant "
                "fade"
            )


def _check_analyses(config: ConfigDict, some: bool, anneals: bool) -> None:
    """Refuses to measure a network with ghosts as if it had none."""
    a, s = config.analysis, config.stability
    wanted = {
        "analysis.gradient_every": some and a.gradient_every,
        "analysis.at_changes": some and a.at_changes,
        "stability.children": some and not anneals and s.children,
        "stability.successive": some and not anneals and s.successive,
    }
    for name, value in wanted.items():
        if value:
            raise ValueError(
                f"config.{name}: came {value!r} with ghosts; wanted none, as analyses "
                "see the network without them"
            )


def make_annealed_model(
    config: ConfigDict, length: Durations, *, axis_name: str | None = None
) -> steps.AnnealedModel | None:
    """Makes what puts ghosts into a network; None if there are none.

    Args:
      config: a validated config.
      length: its lengths in updates.
      axis_name: for BatchNorm, see `sharding`.
    """
    c = config.ghosts
    if not (c.activation or c.skips):
        return None

    def haunt(
        model: nn.Module, clock: Int[Array, ""] | int, *, train: bool
    ) -> nn.Module:
        left = annealing.anneal(clock, end=length.ghosts, form=c.fade)
        fields: dict[str, Any] = {}
        if c.neurons == "sharpen":
            least, most = c.sharpness
            until = length.ghosts
            beta = annealing.sharpen(clock, end=until, initial=least, final=most)
            fields["act"] = soft_activations.p_swish(beta)
        elif c.activation:
            fields["act"] = soft_activations.blend(
                soft_activations.SOFT[c.activation], left
            )
        if c.skips:
            layers = _layers_of(model, axis_name)
            fields["skip"] = ghost_skips.make(left, train=train, kind=c.skips, **layers)
        return model.clone(**fields)

    return haunt


def as_rescaled(model: nn.Module, haunt: steps.AnnealedModel | None) -> nn.Module:
    """Returns the network that initial weights are rescaled in.

    Its neurons are those that training begins with. Skips are left out: their constant
    weights have gradients so large (98.6 % of the squared norm in a LeNet-5) that
    factors would be chosen for them alone.
    """
    if haunt is None:
        return model
    found = haunt(model, 0, train=True)
    return found.clone(skip=None) if hasattr(found, "skip") else found


def _layers_of(model: Any, axis_name: str | None) -> dict[str, Any]:
    """Returns the network's own layers for its ghosts, or such as others have."""
    usual = models.batch_norm(axis_name)
    found = {"conv": model.conv, "norm": getattr(model, "norm", None) or usual}
    return {
        name: functools.partial(layer, dtype=model.dtype)
        for name, layer in found.items()
    }


def make_smoothing(
    config: ConfigDict, length: Durations
) -> float | Callable[[Int[Array, ""]], Any]:
    """Makes the label smoothing of a config: a number, or a function of the clock."""
    c = config.training
    if not c.label_smoothing or c.smoothing_fade == "constant":
        return c.label_smoothing
    fade = functools.partial(
        annealing.anneal, end=length.smoothing, form=c.smoothing_fade
    )
    return lambda clock: c.label_smoothing * fade(clock)


def fill(params: Params) -> Params:
    """Gives the convolutions of ghosts the constant of the released code."""

    def one(name: str, leaf: Array) -> Array:
        filled = ghost_skips.is_ghost(name) and name.endswith("kernel")
        return jnp.full_like(leaf, ghost_skips.CONSTANT) if filled else leaf

    return tree.map_with_names(one, params)
