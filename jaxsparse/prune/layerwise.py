"""What methods share that prune layer by layer: counts of weights, and Hessians."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jaxsparse import distributions, fan_axes, layer_options, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune import layer_inputs
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


def prune_layers(
    plan: Plan,
    solve: Callable[[str, Array, Array], tuple[Array, Array]],
    apply: Callable[..., Any],
    params: Params,
    inputs: tuple[Any, ...],
    *,
    damping: float,
) -> Pruned:
    r"""Prunes one layer after the other, by the Hessians of their inputs.

    The inputs of a layer are those that it has after the layers before it are pruned.

    Args:
      plan: what to prune.
      solve: called as `solve(name, hessian, weights)` with the Hessians
        [stack fan_in fan_in] and the weights [stack fan_in outputs] of a leaf; returns
        new weights, zero where pruned, and the mask of those that remain.
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: trained parameters.
      inputs: arguments of `apply`.
      damping: what is added to the diagonal of Hessians, as a fraction of its mean.

    Returns:
      The pruned network.

    Raises:
      ValueError: if a leaf is used by no layer or by more than one, or there are no
        examples.
    """
    found: dict[str, Array] = {}

    def prune(name: str, leaf: Array, layer: Any, given: Array) -> Array:
        if tree.matches(name, plan.layers.dense):
            found[name] = jnp.ones(leaf.shape, bool)
            return leaf
        axes = plan.layers.axes[name]
        hessian = layer_inputs.hessians(axes, name, leaf, layer, given, damping=damping)
        matrices = fan_axes.to_matrices(axes, name, leaf)
        columns = matrices.reshape(*hessian.shape[:2], -1)
        weights, found[name] = (
            fan_axes.from_matrices(axes, name, each.reshape(matrices.shape), leaf.shape)
            for each in solve(name, hessian, columns)
        )
        return weights.astype(leaf.dtype)

    pruned = layer_inputs.visit(apply, params, inputs, plan.masks, prune)
    masks = tree.map_with_names(lambda name, _: found[name], plan.masks)
    return Pruned(pruned, masks)
