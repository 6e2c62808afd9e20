"""Options about layers, which all functions that choose masks share."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxsparse import arguments, distributions, fan_axes, masks, select, tree

Prunable = Callable[[str, Any], bool] | tuple[str, ...]
Distribution = str | distributions.Distribute

# Values of `unused` in `resolve`: for functions that choose the units themselves, that
# also choose how many weights each layer has, and that only ask for leaves.
OWN_UNITS = ("structure", "min_layer_density", "pack_masks")
OWN_COUNTS = ("distribution", *OWN_UNITS)
ALL_BUT_LEAVES = ("axes", *OWN_COUNTS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """Which leaves have masks, and how a sparsity is divided among them.

    A function that does not use one of these options refuses any value but its default.

    Attributes:
      distribution: "global" for one threshold over all layers; or how the active
        weights are divided among layers: a name in `distributions.NAMES` ("uniform",
        "balanced", "er" or "erk"), or a function of masks and sparsity that returns the
        number of active weights of each layer. None for the default of the function.
        Methods that start from random masks do not have "global".
      dense: shell patterns of leaf names, such as ("*head/*",). The names begin with
        "params/" if the whole result of a linen module's `init` is passed. Matching
        layers stay dense: mask updates do not change them, and they need not fit
        `structure`. Their weights count toward the sparsity, except with "uniform",
        which keeps them in addition. Must be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels`, `select.fan_in` or `select.diagonals`; None selects weights
        one by one. Counts are rounded to those that the structure can keep. With
        distribution "global", it must be `blocks` or `channels`, with units of the same
        size in all layers.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights or structural units; other layers are pruned more to compensate. Only
        for distribution "global". With 0, as in the papers, a layer may lose all of its
        weights. Nothing can warn of that inside a compiled step: in a training loop of
        your own, pass a density above 0, or call `layer_counts.warn_if_empty` with the
        masks after the last mask update.
      pack_masks: whether the state stores two bits for each weight in place of a byte.
        Training is bit for bit the same; every step unpacks them. Only for methods that
        store sparse weights, those that call `transforms.sparsify`.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Raises:
      ValueError: if `min_layer_density` is out of range.
      TypeError: if a value has a wrong type.

    Examples:
      >>> layers = transforms.LayerOptions(distribution="uniform", dense=("*_0/*",))
      >>> tx = transforms.sparse_evolution(optax.sgd(0.1), sparsity=0.75, layers=layers)
      >>> masks.layer_counts(transforms.get_masks(tx.init(params)))
      {'params/layers_0/kernel': LayerCount(num_active=48, size=48),
       'params/layers_2/kernel': LayerCount(num_active=8, size=32)}
    """

    distribution: Distribution | None = None
    dense: tuple[str, ...] = ()
    structure: select.Structure | None = None
    min_layer_density: float = 0.0
    pack_masks: bool = False
    prunable: Prunable = masks.is_kernel
    axes: fan_axes.Axes = None

    def __post_init__(self) -> None:
        """Checks the options that can be checked without a network."""
        arguments.check_fields(
            self,
            distribution=arguments.optional(arguments.name_or_function),
            dense=arguments.patterns,
            structure=arguments.optional(arguments.instance(select.Structure)),
            min_layer_density=arguments.number(0, 1),
        )
        if not callable(self.prunable):
            tree.check_globs(self.prunable, field="prunable")


def resolve(
    layers: LayerOptions | None,
    *,
    function: str,
    distribution: Distribution | None,
    unused: tuple[str, ...] = (),
    by_layer: bool = False,
) -> LayerOptions:
    """Completes the options that a function was called with.

    Args:
      layers: the caller's options; None for the defaults.
      function: name of the function, for error messages.
      distribution: its own distribution, for options without one.
      unused: names of the options that it does not use.
      by_layer: whether the distribution must set the count of each layer.

    Returns:
      The options, with a distribution.

    Raises:
      ValueError: if an option that is not used differs from its default, or the
        distribution is "global" with `by_layer`.
      TypeError: if `layers` is not a `LayerOptions`.
    """
    arguments.optional(arguments.instance(LayerOptions))("layers", layers)
    layers = layers or LayerOptions()
    for field in dataclasses.fields(layers):
        value = getattr(layers, field.name)
        if field.name in unused and value != field.default:
            raise ValueError(
                f"{field.name}: expected {field.default!r} with {function}, which does "
                f"not use it, got {value!r}"
            )
    if by_layer and layers.distribution == "global":
        raise ValueError(
            "distribution: expected one that sets the count of each layer with "
            f"{function}, got 'global'; choose 'uniform' or another"
        )
    if layers.distribution is None:
        return dataclasses.replace(layers, distribution=distribution)
    return layers
