"""Initial masks of a sparse training method, as functions of the parameters."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

import jax
from jaxtyping import Array, Key

from jaxsparse import distributions, fan_axes, rng, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import mask_codes
from jaxsparse.transforms.protocols import InitMasks
from jaxsparse.types import Counts, Masks, Params, RandomKey


def layer_counts(
    masks: Masks, sparsity: float | Fraction, layers: LayerOptions
) -> Counts:
    """Divides a sparsity among layers, as counts that a structure can have.

    Args:
      masks: masks of the prunable leaves; only names and shapes are used.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      layers: how the sparsity is divided; with a distribution other than "global", and
        a structure that is bound to the leaves.

    Returns:
      Number of active weights of each layer; Python integers.
    """
    [counts] = tabulate(masks, [sparsity], layers)
    return counts


def tabulate(
    masks: Masks, sparsities: Sequence[float | Fraction], layers: LayerOptions
) -> list[Counts]:
    """Divides each of many sparsities among layers, see `layer_counts`.

    Args:
      masks: masks of the prunable leaves; only names and shapes are used.
      sparsities: fractions of the prunable weights to remove, each in [0, 1).
      layers: how the sparsities are divided; with a distribution other than "global",
        and a structure that is bound to the leaves.

    Returns:
      For each sparsity the number of active weights of each layer; Python integers.
    """
    divide = distributions.make_divider(
        layers.distribution, masks, dense=layers.dense, axes=layers.axes
    )
    table = [divide(sparsity) for sparsity in sparsities]
    # `distributions` computes counts without regard to structure.
    if layers.structure is None:
        return table
    return [select.round_counts(layers.structure, masks, counts) for counts in table]


def bind(layers: LayerOptions, params: Params) -> LayerOptions:
    """Attaches to options the layouts of a network's leaves.

    Args:
      layers: options of any network.
      params: the parameters. Layouts are inferred from them and not from masks, which
        lack the biases, whose shapes tell which leading axes of a kernel are stacked
        layers.

    Returns:
      The options, with layouts and a bound structure.
    """
    axes = fan_axes.of_tree(params, layers.axes)
    structure = select.bind(layers.structure, params, axes=axes, dense=layers.dense)
    return dataclasses.replace(layers, axes=axes, structure=structure)


def first_key(key: RandomKey | None) -> Key[Array, ""]:
    """Returns a method's random key as a typed key, by default `jax.random.key(0)`.

    Args:
      key: a typed key, raw key data (uint32), or None for the default.
    """
    return jax.random.key(0) if key is None else rng.as_typed(key)


def stored(init_masks: InitMasks, layers: LayerOptions) -> InitMasks:
    """Returns initial masks in the form in which the state is to store them.

    Args:
      init_masks: makes boolean masks.
      layers: its `pack_masks` says whether they are packed.
    """
    if not layers.pack_masks:
        return init_masks
    return lambda params: mask_codes.pack_masks(init_masks(params))


def random(
    *, sparsity: float | Fraction, layers: LayerOptions, key: RandomKey | None
) -> InitMasks:
    """Makes the function that draws random masks with exact layer counts.

    Masks are drawn with `jax.random.fold_in(key, 2**31)`. Steps are at most 2**31 - 1,
    so no mask update, which folds in its step, uses the same key.

    Args:
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      layers: which leaves have masks, and how the sparsity is divided among them; with
        a distribution other than "global".
      key: random key, typed or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      A function from parameters to masks.
    """

    def init(params: Params) -> Masks:
        dense_masks = masks_lib.ones(params, prunable=layers.prunable)
        bound = bind(layers, params)
        counts = layer_counts(dense_masks, sparsity, bound)
        mask_key = jax.random.fold_in(first_key(key), 2**31)
        random_scores = scores.random(dense_masks, key=mask_key)
        return select.top_k_per_layer(random_scores, counts, structure=bound.structure)

    return init
