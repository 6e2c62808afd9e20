"""Initial masks of a sparse training method, as functions of the parameters."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
from jaxtyping import Array, Key

from jaxsparse import distributions, fan_axes, rng, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms.protocols import InitMasks
from jaxsparse.types import Counts, Masks, Params, RandomKey

Prunable = Callable[[str, Any], bool] | tuple[str, ...]
Distribution = str | distributions.Distribute


def layer_counts(
    masks: Masks,
    sparsity: float | Fraction,
    *,
    distribution: Distribution = "uniform",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    axes: fan_axes.Axes = None,
) -> Counts:
    """Divides a sparsity among layers, as counts that a structure can have.

    Args:
      masks: masks of the prunable leaves; only names and shapes are used.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: how the active weights are divided among layers: a name in
        `distributions.NAMES` ("uniform", "balanced", "er" or "erk"), or a function of
        masks and sparsity that returns the number of active weights of each layer.
      dense: shell patterns of leaf names; matching layers stay dense. Must be empty if
        `distribution` is a function.
      structure: structured sparsity, whose units the counts are rounded to; None for
        single weights.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      Number of active weights of each layer; Python integers.
    """
    counts = distributions.divide(distribution, masks, sparsity, dense=dense, axes=axes)
    # `distributions` computes counts without regard to structure.
    return (
        counts if structure is None else select.round_counts(structure, masks, counts)
    )


def first_key(key: RandomKey | None) -> Key[Array, ""]:
    """Returns a method's random key as a typed key, by default `jax.random.key(0)`.

    Args:
      key: a typed key, raw key data (uint32), or None for the default.
    """
    return jax.random.key(0) if key is None else rng.as_typed(key)


def random(
    *,
    sparsity: float | Fraction,
    distribution: Distribution,
    dense: tuple[str, ...],
    structure: select.Structure | None,
    axes: fan_axes.Axes,
    prunable: Prunable,
    key: RandomKey | None,
) -> InitMasks:
    """Makes the function that draws random masks with exact layer counts.

    Masks are drawn with `jax.random.fold_in(key, 2**31)`. Steps are at most 2**31 - 1,
    so no mask update, which folds in its step, uses the same key.

    Args:
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: how the active weights are divided among layers: a name in
        `distributions.NAMES` ("uniform", "balanced", "er" or "erk"), or a function of
        masks and sparsity that returns the number of active weights of each layer.
      dense: shell patterns of leaf names; matching layers stay dense and need not fit
        `structure`. Must be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      key: random key, typed or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      A function from parameters to masks.
    """

    def init(params: Params) -> Masks:
        dense_masks = masks_lib.ones(params, prunable=prunable)
        # Layouts are inferred from the parameters: masks lack the biases, whose shapes
        # tell which leading axes of a kernel are stacked layers.
        layouts = fan_axes.of_tree(params, axes)
        bound_structure = select.bind(structure, params, axes=layouts, dense=dense)
        counts = layer_counts(
            dense_masks,
            sparsity,
            distribution=distribution,
            dense=dense,
            structure=bound_structure,
            axes=layouts,
        )
        mask_key = jax.random.fold_in(first_key(key), 2**31)
        random_scores = scores.random(dense_masks, key=mask_key)
        return select.top_k_per_layer(random_scores, counts, structure=bound_structure)

    return init
