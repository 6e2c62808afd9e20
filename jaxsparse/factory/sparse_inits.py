"""Makes the function that draws kernels for their masks, as a config describes it."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxsparse import fan_axes, initializers

# Functions that redraw kernels for the masks they will have, by `init.sparse_init`.
SPARSE_INITS: dict[str, Callable[[ConfigDict], initializers.SparseInitializer]] = {
    "fan_in": lambda c: _per_neuron(c, "in"),
    "fan_out": lambda c: _per_neuron(c, "out"),
    "fan_average": lambda c: _per_neuron(c, "average"),
    "layer": lambda c: initializers.layer_scaled(c.kernel),
    "neuron": lambda c: initializers.rescaled(c.kernel),
}


def _per_neuron(c: ConfigDict, fan: str) -> initializers.SparseInitializer:
    """Returns the initializer that scales each neuron by its active weights."""
    return initializers.per_neuron(
        fan=fan, distribution=c.sparse_init_distribution, scale=c.sparse_init_scale
    )


def make_sparse_init(
    config: ConfigDict, axes: fan_axes.Axes = None
) -> Callable[..., Any] | None:
    """Makes the function that redraws kernels for their masks.

    Args:
      config: a validated config.
      axes: input and output axes of the network's weights; None infers them from names
        and shapes.

    Returns:
      A function of parameters, masks and a key, all of one replicate, to parameters
      that are zero outside the masks; None if the config does not redraw.
    """
    if not config.init.sparse_init:
        return None
    draw = SPARSE_INITS[config.init.sparse_init](config.init)
    return lambda params, masks, key: initializers.redraw(
        params, masks, draw, axes=axes, key=key
    )
