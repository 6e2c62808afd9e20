"""Cyclic sparsity of EAST: the density rises and falls in cycles, then RigL follows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse import arguments, layer_options, scores, select
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import grow, magnitude, options, update_schedules
from jaxsparse.transforms import init_masks as init_masks_lib
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Grads, Masks, Params, RandomKey, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class EASTOptions(DropGrowOptions):
    """How the density cycles, and how mask updates drop and grow weights afterward.

    By default, `drop_fraction` is 0.5, `drop_schedule` "cosine" and `skip_update`
    False. `allow_regrow` must be True.

    `DropGrowOptions` explains the options that are not listed here.

    Attributes:
      grow: which weights grow, in and after the cycles, as in `RigLOptions`: those of
        largest ("gradient") or smallest ("inverted") gradient, or "random" ones.
      density_factor: the density in the middle of a cycle, in multiples of the final
        density, finite and at least 1; the density is at most 1.
      cycles: number of cycles, at least 0.
      cycle_part: the part of the steps until `end_step` in which there are cycles, in
        [0, 1].

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    grow: str = "gradient"
    density_factor: float = 3.0
    cycles: int = 2
    cycle_part: float = 0.4

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(
            self,
            grow=arguments.one_of(grow.GROWTH),
            density_factor=arguments.number(1),
            cycles=arguments.integer(0),
            cycle_part=arguments.number(0, 1),
        )


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def east(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    end_step: int,
    begin_step: int | None = None,
    update_every: int = 100,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | EASTOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lets the density rise and fall in cycles, then trains as RigL: EAST.

    Training starts at the final density. The counts of the layers follow
    `update_schedules.cyclic_sparsities`. With :math:`n_t` weights in a layer at a mask
    update, of which :math:`a` are active, the update

    1. keeps the :math:`k = \min(a, n_t)` active weights of largest magnitude during the
       cycles, and :math:`k - \lfloor \alpha_t k \rfloor` after them;
    2. grows weights of largest gradient until there are :math:`n_t`.

    In the cycles weights are thus only grown while the density rises and only dropped
    while it falls. Afterward the update is that of `rigl`, with the fraction
    :math:`\alpha_t`.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      end_step: step of the last mask update, counted from 0.
      begin_step: step of the first mask update; `update_every` if None.
      update_every: steps between mask updates, at least 1; cycles of few mask updates
        are coarse.
      layers: which leaves have masks, and how the active weights are divided among
        them; the distribution is "erk" by default. `structure` must be None and
        `min_layer_density` 0.
      updates: the cycles, and how mask updates drop and grow; a `DropGrowOptions` or an
        `EASTOptions`.
      key: random key that the initial masks and, with `grow` "random", the mask updates
        are drawn with, typed or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is exactly that
      of the schedule, and after the cycles that of `sparsity`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> updates = transforms.EASTOptions(density_factor=5.0, cycles=3)
      >>> tx = east(optax.sgd(0.1), sparsity=0.999, end_step=75_000, updates=updates)

    Deviations:
      This is one of the three techniques of the paper, and works with any network. The
      others change the network: dynamic ReLUs, whose slopes a small network computes
      from the input, are phased out until they are ReLUs; and the blocks of a stage
      share weights. Both are left out. So are the authors' triangular cycles, cycles of
      unequal length, and mask updates that are rarer after the cycles than in them.

    References:
      Li, Durrant, Markovic, Huang, Kundu, Chen, Yin, Leontidis. Pushing the Limits of
      Sparsity: A Bag of Tricks for Extreme Pruning. 2024. arXiv:2411.13545; the
      formulas and default values are those of the authors' code.
    """
    schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    layers = layer_options.resolve(
        layers,
        function="east",
        distribution="erk",
        unused=("structure", "min_layer_density"),
    )
    updates = options.resolve(
        updates,
        EASTOptions,
        function="east",
        drop_fraction=0.5,
        drop_schedule="cosine",
        skip_update=False,
    )
    options.check_required(updates, function="east", allow_regrow=True)
    cycled = {"cycles": updates.cycles, "cycle_part": updates.cycle_part}
    table = update_schedules.cyclic_sparsities(
        schedule, final=sparsity, density_factor=updates.density_factor, **cycled
    )
    drops = update_schedules.drop_fractions(
        schedule, fraction=updates.drop_fraction, schedule=updates.drop_schedule
    )
    cycles_end = update_schedules.end_of_cycles(schedule, **cycled)
    drops = [
        (0, 1) if step < cycles_end else drops[min(index, len(drops) - 1)]
        for index, step in enumerate(update_schedules.update_steps(schedule))
    ]
    counts_at = magnitude.make_count_fn(layers)
    grow_score = grow.score_by(updates.grow)

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Step,
        key: Key[Array, ""] | None,
        memory: grow.EverActive,
        **unused: Any,
    ) -> MaskUpdate:
        del unused
        index = update_schedules.update_index(schedule, step)
        wanted = counts_at(masks, params, table, index)
        held = jax.tree.map(jnp.minimum, grow.count(masks), wanted)
        ratio = grow.fraction_at(drops, schedule, step)
        dropped = jax.tree.map(
            lambda count: update_schedules.floor_mul_div(count, *ratio), held
        )
        keep_counts = grow.subtract(held, grow.zero_counts(dropped, layers.dense))
        kept = select.top_k_per_layer(
            scores.magnitude(params, masks), keep_counts, candidates=masks
        )
        grow_counts = grow.subtract(wanted, keep_counts)
        growth_scores = grow_score(masks, grads, key, step)
        new = grow.grow(masks, kept, grow_counts, growth_scores)
        finite = grow.finite_where_grown(growth_scores, kept, grow_counts)
        return grow.mask_update(
            *(masks, kept, new),
            memory=memory,
            zero_regrown=updates.zero_regrown,
            finite=finite,
        )

    return sparsify(
        inner,
        init_masks_lib.stored(
            init_masks_lib.random(sparsity=sparsity, layers=layers, key=key), layers
        ),
        update_masks=update_masks,
        update_at=update_schedules.due(schedule),
        init_memory=lambda params, masks: grow.EverActive(),
        skip_update=updates.skip_update,
        key=init_masks_lib.first_key(key) if updates.grow == "random" else None,
    )
