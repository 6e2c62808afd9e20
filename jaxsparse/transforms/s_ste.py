"""S-STE: N:M sparse weights that are a continuous function of dense ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import layer_options, select
from jaxsparse.layer_options import LayerOptions
from jaxsparse.select import units
from jaxsparse.transforms import init_masks
from jaxsparse.transforms.parts import Parts, Reparameterization, pass_gradient
from jaxsparse.transforms.self_sparse import by_layer, self_sparse
from jaxsparse.transforms.sr_ste import check_group
from jaxsparse.types import Params, Step


def s_ste(
    inner: optax.GradientTransformation,
    *,
    n: int = 2,
    m: int = 4,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Soft-thresholds every group of m weights so that n remain: S-STE.

    The weights are :math:`\beta \, \mathrm{sign}(w) \, \mathrm{relu}(|w| - t)`, where t
    is the largest of the m - n smallest magnitudes of w's group, so that weights enter
    and leave continuously. The scale of each layer is fixed at the start, as
    :math:`\beta = \langle w, S(w) \rangle / \|S(w)\|^2` for the thresholded weights
    S(w): the one that brings them closest to w. The gradient passes straight through:
    that of w is the gradient at the weights.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation except
        `optax.lookahead`.
      n: weights of each group that remain, in [1, m); fewer if magnitudes tie.
      m: weights in a group, which are consecutive along the input axis.
      layers: which leaves have masks. Weights of dense layers are trained themselves;
        every other leaf must have a number of inputs divisible by m. The options that
        divide a sparsity (`distribution`, `structure` and `min_layer_density`) must
        have their defaults.

    Returns:
      The wrapped optimizer. Compute with `forward_params`.

    Raises:
      ValueError: if an argument is out of range or a layer's inputs are not divisible
        by m.
      TypeError: if `n` or `m` is not an integer.

    Examples:
      >>> tx = transforms.s_ste(optax.adamw(1e-3))

    Deviations:
      The first gradient is taken at the initial weights of the first masks, without
      threshold and scale. The unbiased 2:4 estimate of the activations' gradient and
      8-bit floats, which make training faster, are not included.

    References:
      Hu, Zhu, Chen. S-STE: Continuous Pruning Function for Efficient 2:4 Sparse
      Pre-training. 2024. arXiv:2409.09099, section 4, and the authors' code.
    """
    check_group(n, m)
    if n == m:
        raise ValueError(f"n: expected less than m={m}, got {n}")
    layers = layer_options.resolve(
        layers,
        function="s_ste",
        distribution=None,
        unused=layer_options.OWN_COUNTS,
    )
    layers = dataclasses.replace(layers, structure=select.n_of_m(m))

    def maps(params: Params) -> Mapping[str, Reparameterization]:
        groups: Any = init_masks.bind(layers, params).structure
        return by_layer(lambda name, leaf: _soft_groups(name, groups, n), layers)(
            params
        )

    return self_sparse(inner, maps, prunable=layers.prunable)


def _soft_groups(name: str, groups: select.Structure, n: int) -> Reparameterization:
    """Makes the reparameterization of one leaf.

    Args:
      name: name of the leaf.
      groups: the structure, bound to the leaves of the network.
      n: weights of each group that remain.
    """

    def shrink(weight: Array) -> Array:
        sizes = units.to_units(groups, name, jnp.abs(weight))[:, :, 0]
        threshold = jnp.sort(sizes, axis=1)[:, -n - 1, None]
        threshold = jnp.broadcast_to(threshold, sizes.shape)
        cut = units.from_units(groups, name, threshold, weight.shape)
        return jnp.sign(weight) * jax.nn.relu(jnp.abs(weight) - cut)

    def init(weight: Array) -> Parts:
        wide = weight.astype(jnp.float32)
        shrunk = shrink(wide)
        # Where all magnitudes of each group are equal, all weights start at zero, and
        # no scale is the nearest. It must not be 0: then weights would stay zero.
        square = jnp.sum(shrunk**2)
        some = square > 0
        scale = jnp.sum(wide * shrunk) / jnp.where(some, square, 1)
        scale = jnp.where(some, scale, 1)
        return {"stored": weight, "scale": scale.astype(weight.dtype)}

    def forward(parts: Parts, step: Step) -> Array:
        del step
        stored = parts["stored"]
        value = parts["scale"] * shrink(jax.lax.stop_gradient(stored))
        return pass_gradient(value, stored)

    return Reparameterization(init, forward, frozen=("scale",))
