"""The masks a method starts from, as functions of the parameters."""

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
    """Divides a sparsity among layers, in counts that a structure can have.

    Args:
      masks: which leaves are prunable; only names and shapes are used.
      sparsity: fraction to remove, in [0, 1).
      distribution: one of `distributions.NAMES`, or a function `(masks, sparsity)` to
        counts.
      dense: shell patterns of layers to keep whole; for named distributions.
      structure: which weights stand or fall together; None for each on its own.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`.

    Returns:
      Weights to keep in each layer, Python integers.
    """
    counts = distributions.divide(distribution, masks, sparsity, dense=dense, axes=axes)
    return (
        counts if structure is None else select.round_counts(structure, masks, counts)
    )


def first_key(key: RandomKey | None) -> Key[Array, ""]:
    """Returns what a method draws with: `jax.random.key(0)` if it was given nothing."""
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
    """Makes the function that draws masks with exact layer counts.

    The draw is by `jax.random.fold_in(key, 2**31)`, which no step of training equals.
    """

    def init(params: Params) -> Masks:
        all_of = masks_lib.ones(params, prunable=prunable)
        layouts = fan_axes.of_tree(params, axes)
        tied = select.bind(structure, params, axes=layouts, dense=dense)
        counts = layer_counts(
            all_of,
            sparsity,
            distribution=distribution,
            dense=dense,
            structure=tied,
            axes=layouts,
        )
        draw = jax.random.fold_in(first_key(key), 2**31)
        worth = scores.random(all_of, key=draw)
        return select.top_k_per_layer(worth, counts, structure=tied)

    return init
