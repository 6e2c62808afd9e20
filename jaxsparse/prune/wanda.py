"""Wanda: pruning by weights and the norms of their inputs."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxsparse import arguments, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune import layer_inputs, layerwise
from jaxsparse.types import Masks, Params, Scores


@arguments.check(apply=arguments.function, masks=arguments.masks)
def wanda_scores(
    apply: Callable[..., Any], params: Params, masks: Masks, *inputs: Any
) -> Scores:
    r"""Scores weights by their magnitude times the norm of their input.

    The score of a weight :math:`W_{ij}` from the input :math:`j` is
    :math:`|W_{ij}| \cdot \lVert X_j \rVert_2`, where :math:`X_j` are the values of that
    input for all examples, and all positions of a convolution. The inputs are those of
    the network with pruned weights at zero.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: any tree of parameters.
      masks: boolean masks of the active weights; the leaves to score.
      *inputs: arguments of `apply`, such as a batch of training images.

    Returns:
      Scores with the nesting of `masks`, for `prune.prune` and other functions.

    Raises:
      ValueError: if a leaf is used by no layer or by more than one, or there are no
        examples.
      TypeError: if `apply` is not a function or `masks` are not boolean masks.

    Examples:
      >>> flat = lambda params, ones: wanda_scores(model.apply, params, ones, inputs)
      >>> masks.num_active(jaxsparse.prune.prune(params, 0.5, score=flat))
      40

    References:
      Sun, Liu, Bair, Kolter. A Simple and Effective Pruning Approach for Large Language
      Models. 2023. arXiv:2306.11695, equation 1.
    """
    found: dict[str, Array] = {}

    def score(name: str, leaf: Array, layer: Any, given: Array) -> Array:
        sums = layer_inputs.square_sums(leaf, layer, given)
        found[name] = jnp.abs(leaf) * jnp.sqrt(sums)
        return leaf

    layer_inputs.visit(apply, masks_lib.apply(masks, params), inputs, masks, score)
    return tree.map_with_names(lambda name, _: found[name], masks)


@arguments.check(apply=arguments.function, sparsity=arguments.fraction)
def wanda(
    apply: Callable[..., Any],
    params: Params,
    sparsity: float,
    *inputs: Any,
    layers: LayerOptions | None = None,
) -> Masks:
    """Prunes the weights of small magnitude and small inputs: Wanda.

    Layers are pruned in the order in which they are computed, by `wanda_scores`, with
    the inputs that the layers before them have after pruning.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: trained parameters; any tree. Each prunable leaf belongs to one layer.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      *inputs: arguments of `apply`, such as a batch of training images.
      layers: which leaves are pruned, and how the sparsity is divided among them; the
        distribution is "uniform" by default, and the structure `select.fan_in()`: as in
        the paper, the weights into each output are compared with each other only.
        `select.n_of_m(4)` makes groups of four compete, for 2:4 sparsity.
        `min_layer_density` must be 0.

    Returns:
      Boolean masks with the nesting of `params`, None at leaves that are not prunable.
      Each layer keeps the count of its distribution, rounded to one that the structure
      can keep.

    Raises:
      ValueError: if the sparsity is out of range, the distribution is unknown or
        "global", a pattern matches no leaf, a leaf does not fit the structure, a leaf
        is used by no layer or by more than one, or there are no examples.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> ticket = wanda(model.apply, params, 0.5, inputs)
      >>> [count.num_active for count in masks.layer_counts(ticket).values()]
      [24, 16]

    Deviations:
      The authors prune the layers of a transformer block together, and compute the
      inputs of the next block anew; here each layer has inputs of its own. They round
      the weights to remove of an output down, here to the nearest number.

    References:
      Sun, Liu, Bair, Kolter. A Simple and Effective Pruning Approach for Large Language
      Models. 2023. arXiv:2306.11695, section 3.
    """
    plan = layerwise.plan(params, sparsity, layers, function="wanda")
    found: dict[str, Array] = {}

    def prune(name: str, leaf: Array, layer: Any, given: Array) -> Array:
        score = jnp.abs(leaf) * jnp.sqrt(layer_inputs.square_sums(leaf, layer, given))
        kept = select.top_k_per_layer(
            *({name: score}, {name: plan.counts[name]}),
            structure=plan.layers.structure,
        )
        found[name] = kept[name]
        return jnp.where(kept[name], leaf, 0)

    layer_inputs.visit(apply, params, inputs, plan.masks, prune)
    return tree.map_with_names(lambda name, _: found[name], plan.masks)
