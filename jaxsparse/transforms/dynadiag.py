"""DynaDiag: weights on wrapped diagonals, which trained importances choose."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxsparse import arguments, layer_options, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.select import units
from jaxsparse.transforms import init_masks, update_schedules
from jaxsparse.transforms.parts import Parts, Reparameterization
from jaxsparse.transforms.self_sparse import self_sparse
from jaxsparse.types import Params, Step


@arguments.check(
    sparsity=arguments.fraction,
    start_temperature=arguments.number(1e-6),
    end_temperature=arguments.number(1e-6),
)
def dynadiag(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    end_step: int,
    start_temperature: float = 5.0,
    end_temperature: float = 0.05,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Trains which wrapped diagonals of each layer are kept: DynaDiag.

    The weights of diagonal j are :math:`w` times

    .. math:: \min\left(k \, \frac{e^{\alpha_j / T_t}}{\sum_i e^{\alpha_i / T_t}},
        1\right), \quad T_t = T_1 + (T_0 - T_1) \frac{1 + \cos(\pi t / t_1)}{2}

    with a trained importance :math:`\alpha_j`, which starts equal for all, the number k
    of diagonals to keep, and a temperature that falls from :math:`T_0` to :math:`T_1`
    until step :math:`t_1`. From this step on, the k diagonals that were most important
    at it have the factor 1, and all others are zero.

    At first all weights are multiplied by the density, and gradients of importances are
    small. Plain SGD may then hardly change them; Adam, which the authors use, does.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation except
        `optax.lookahead`. It trains :math:`w` and :math:`\alpha`.
      sparsity: fraction of the prunable weights to remove by `end_step`, in [0, 1). The
        number of diagonals of a layer is the nearest to it.
      end_step: number of updates :math:`t_1` after which the masks are fixed, at least
        1.
      start_temperature: :math:`T_0`, finite and at least `end_temperature`.
      end_temperature: :math:`T_1`, finite and at least 1e-6.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "uniform" by default and cannot be "global". `structure` must be
        None, since it is always `select.diagonals()`; `min_layer_density` and
        `pack_masks` must have their defaults.

    Returns:
      The wrapped optimizer. All diagonals whose factor is not rounded to zero are
      active until `end_step`, and from then on exactly k. Compute with
      `forward_params`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.dynadiag(
      ...     optax.adam(1e-3), sparsity=0.9, end_step=3000, start_temperature=2.0
      ... )

    Deviations:
      The number of diagonals is rounded to the nearest, where the authors' code rounds
      up. The temperature falls every step, not every epoch. Positions of a kernel
      window count as inputs; the authors have dense layers only. The first gradient is
      taken at the network's initial weights, later ones at weights times the factor.
      Computation is dense: the authors' kernels for diagonals on GPUs are not included.
      Weight decay and clipping within `inner` act on the importances too, unless they
      are masked there.

    References:
      Tyagi, Iyer, Renninger, Kanan, Zhu. Dynamic Sparse Training of Diagonally Sparse
      Networks. 2025. arXiv:2506.11449; the formulas and default values are those of the
      authors' code for MLPs.
    """
    end_step = update_schedules.check_steps(end_step, field="end_step", minimum=1)
    rises = start_temperature < end_temperature
    # With `optax.inject_hyperparams`, temperatures are traced.
    if not isinstance(rises, jax.core.Tracer) and rises:
        raise ValueError(
            f"start_temperature: expected at least end_temperature={end_temperature}, "
            f"since the temperature falls, got {start_temperature}"
        )
    layers = layer_options.resolve(
        layers,
        function="dynadiag",
        distribution="uniform",
        unused=layer_options.OWN_UNITS,
        by_layer=True,
    )
    layers = dataclasses.replace(layers, structure=select.diagonals())

    def factors(importance: Array, step: Step, keep: int) -> Float[Array, "stack d"]:
        progress = jnp.minimum(step / end_step, 1)
        fall = (1 + jnp.cos(jnp.pi * progress)) / 2
        temperature = end_temperature + (start_temperature - end_temperature) * fall
        shares = jax.nn.softmax(importance.astype(jnp.float32) / temperature, axis=1)
        return jnp.minimum(keep * shares, 1)

    def make(name: str, bound: LayerOptions, shape: Any, count: int) -> Any:
        stack, diagonals, length = units.unit_view(bound.structure, name, shape)
        keep = count // (stack * length)

        def init(weight: Array) -> Parts:
            equal = jnp.full((stack, diagonals), 1 / diagonals, weight.dtype)
            chosen = jnp.zeros((stack, diagonals), bool)
            return {"stored": weight, "importance": equal, "chosen": chosen}

        def forward(parts: Parts, step: Step) -> Array:
            soft = factors(parts["importance"], step, keep)
            factor = jnp.where(step >= end_step, parts["chosen"], soft)
            spread = units.from_units(bound.structure, name, factor, shape)
            return parts["stored"] * spread.astype(parts["stored"].dtype)

        def adjust(parts: Parts, step: Step) -> Parts:
            best = _most_important(parts["importance"], keep)
            # Momenta may change importances later; the diagonals stay.
            chosen = jnp.where(step <= end_step, best, parts["chosen"])
            return parts | {"chosen": chosen}

        return Reparameterization(init, forward, frozen=("chosen",), adjust=adjust)

    def maps(params: Params) -> Mapping[str, Reparameterization]:
        bound = init_masks.bind(layers, params)
        masks = masks_lib.ones(params, prunable=layers.prunable)
        counts = tree.named_leaves(init_masks.layer_counts(masks, sparsity, bound))
        shapes = {name: leaf.shape for name, leaf in tree.named_leaves(masks).items()}
        return {
            name: make(name, bound, shapes[name], counts[name])
            for name in masks_lib.names(masks)
            if not masks_lib.matches(name, layers.dense)
        }

    return self_sparse(inner, maps, prunable=layers.prunable)


def _most_important(
    importance: Float[Array, "stack d"], keep: int
) -> Bool[Array, "stack d"]:
    """Returns masks of the `keep` largest entries of each row."""
    kept = select.top_k_per_layer(
        {"d": importance.T},
        {"d": keep * len(importance)},
        structure=select.fan_in(),
    )
    return kept["d"].T
