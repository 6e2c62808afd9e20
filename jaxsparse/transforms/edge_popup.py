"""Edge-popup: weights keep their initial values, and scores choose which are used."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse import arguments, fan_axes, layer_options, rng, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import init_masks
from jaxsparse.transforms.parts import Parts, Reparameterization, pass_gradient
from jaxsparse.transforms.self_sparse import self_sparse
from jaxsparse.types import Params, RandomKey, Step

# Leaves that keep their initial values.
FROZEN = Reparameterization(
    init=lambda weight: {"initial": weight},
    forward=lambda parts, step: parts["initial"],
    frozen=("initial",),
)


@arguments.check(sparsity=arguments.fraction, key=arguments.optional(arguments.key))
def edge_popup(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    layers: LayerOptions | None = None,
    train_others: bool = False,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Trains scores that choose among frozen initial weights: edge-popup.

    The weights of a layer are :math:`h \odot w`, where w are the initial weights and h
    is 1 for the largest :math:`|s|` of the layer and 0 elsewhere. The gradient passes
    straight through h: that of s is :math:`\mathrm{sign}(s) \, w \odot g`, with the
    gradient g at the weights, also for weights that are not used.

    Args:
      inner: the optimizer of the scores; any optax gradient transformation except
        `optax.lookahead`.
      sparsity: fraction of the prunable weights that are not used, in [0, 1).
      layers: which leaves have masks, and how the used weights are divided among them;
        the distribution is "uniform" by default and cannot be "global". `structure`,
        `min_layer_density` and `pack_masks` must have their defaults.
      train_others: whether all other leaves, such as biases, are trained, instead of
        keeping their initial values too.
      key: random key of the initial scores, typed or raw key data (uint32);
        `jax.random.key(0)` if None. It is folded with the initial weights, so that
        replicates have scores of their own.

    Returns:
      The wrapped optimizer. Compute with `forward_params`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.edge_popup(optax.sgd(0.1, momentum=0.9), sparsity=0.5)

    Deviations:
      None from the authors' code, which draws scores from U(-1/sqrt(n), 1/sqrt(n)) for
      n inputs and ranks their magnitudes; the paper ranks the scores themselves. The
      initial weights are the network's; the paper's are best as signed constants.

    References:
      Ramanujan, Wortsman, Kembhavi, Farhadi, Rastegari. What's Hidden in a Randomly
      Weighted Neural Network? 2020. arXiv:1911.13299, section 3, and the authors' code.
    """
    layers = layer_options.resolve(
        layers,
        function="edge_popup",
        distribution="uniform",
        unused=layer_options.OWN_UNITS,
        by_layer=True,
    )

    def maps(params: Params) -> Mapping[str, Reparameterization]:
        bound = init_masks.bind(layers, params)
        masks = masks_lib.ones(params, prunable=layers.prunable)
        counts = tree.named_leaves(init_masks.layer_counts(masks, sparsity, bound))
        found = {
            name: _chosen_by_scores(name, counts[name], bound.axes[name], key)
            for name in masks_lib.names(masks)
        }
        others = {} if train_others else dict.fromkeys(tree.names(params), FROZEN)
        return others | found

    return self_sparse(inner, maps, prunable=layers.prunable)


def _chosen_by_scores(
    name: str, count: Any, axes: fan_axes.FanAxes, key: RandomKey | None
) -> Reparameterization:
    """Makes the reparameterization of one leaf.

    Args:
      name: name of the leaf.
      count: number of weights that are used.
      axes: layout of the leaf.
      key: random key of the initial scores.
    """

    def init(weight: Array) -> Parts:
        fans = fan_axes.fans(axes, name, weight.shape)
        bound = 1 / math.sqrt(fans.inputs * math.prod(fans.positions))
        draw = jax.random.uniform(score_key(key, name, weight), weight.shape)
        scores = (2 * draw - 1) * bound
        return {"initial": weight, "scores": scores.astype(weight.dtype)}

    def forward(parts: Parts, step: Step) -> Array:
        del step
        sizes = jnp.abs(parts["scores"])
        fixed = {name: jax.lax.stop_gradient(sizes)}
        kept = select.top_k_per_layer(fixed, {name: count})[name]
        return parts["initial"] * pass_gradient(kept.astype(sizes.dtype), sizes)

    return Reparameterization(init, forward, frozen=("initial",))


def score_key(key: RandomKey | None, name: str, weight: Array) -> Key[Array, ""]:
    """Derives the key of a leaf's initial scores, from its name and weights too.

    Args:
      key: random key, typed or raw key data; `jax.random.key(0)` if None.
      name: name of the leaf.
      weight: its initial weights.
    """
    bits = jax.lax.bitcast_convert_type(weight.astype(jnp.float32), jnp.uint32)
    own = rng.leaf_key(init_masks.first_key(key), name)
    return jax.random.fold_in(own, jnp.sum(bits, dtype=jnp.uint32))
