"""How many weights each layer keeps, for methods that prune layer by layer."""

import dataclasses
from typing import NamedTuple

from jaxsparse import distributions, fan_axes, layer_options, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.types import Masks, Params


class Pruned(NamedTuple):
    """A pruned network.

    Attributes:
      params: parameters; the weights that remain are updated, and pruned ones are zero.
      masks: boolean masks with the nesting of `params`, None at leaves that are not
        prunable.
    """

    params: Params
    masks: Masks


class Plan(NamedTuple):
    """What to prune.

    Attributes:
      masks: dense masks of the prunable leaves.
      layers: options with layouts and a bound structure.
      counts: number of weights that each leaf keeps, by name.
    """

    masks: Masks
    layers: LayerOptions
    counts: dict[str, int]


def plan(
    params: Params, sparsity: float, layers: LayerOptions | None, *, function: str
) -> Plan:
    """Divides a sparsity among layers and rounds the counts to a structure.

    Args:
      params: any tree of parameters.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      layers: the caller's options; None for the defaults: "uniform" and a constant
        fan-in.
      function: name of the calling function, for error messages.

    Raises:
      ValueError: if an option has a wrong value.
    """
    layers = layer_options.resolve(
        layers or LayerOptions(structure=select.fan_in()),
        function=function,
        distribution="uniform",
        unused=("min_layer_density", "pack_masks"),
    )
    ones = masks_lib.ones(params, prunable=layers.prunable)
    axes, dense = fan_axes.of_tree(params, layers.axes), layers.dense
    structure = select.bind(layers.structure, params, axes=axes, dense=dense)
    counts = distributions.divide(
        layers.distribution, ones, sparsity, dense=dense, axes=axes
    )
    counts = tree.named_leaves(select.round_counts(structure, ones, counts))
    layers = dataclasses.replace(layers, axes=axes, structure=structure)
    return Plan(ones, layers, counts)


def group_size(structure: select.Structure | None, *, function: str) -> int:
    """Returns how many inputs have weights that compete, for methods that move weights.

    Args:
      structure: the structure of the options.
      function: name of the calling function, for the error message.

    Returns:
      m for n of m weights, 1 if all weights of an output compete, and 0 if all weights
      of a layer do.

    Raises:
      ValueError: if it is another structure.
    """
    if structure is None:
        return 0
    group = structure.block[0]
    if structure.name not in (select.fan_in().name, f"n_of_m({group})"):
        raise ValueError(
            f"structure: expected None, fan_in() or n_of_m(m) with {function}, got "
            f"{structure}"
        )
    return group
