"""NeurRev: mask updates also drop negative weights that hardly change."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse import arguments, layer_options, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import (
    drop_grow,
    grow,
    init_masks,
    options,
    update_schedules,
)
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Grads, Masks, Params, RandomKey, Scores, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeurRevOptions(DropGrowOptions):
    """How mask updates of NeurRev drop and grow weights.

    By default, `drop_fraction` is 0.3, `drop_schedule` "cosine" and `skip_update`
    False.

    `DropGrowOptions` explains the options that are not listed here.

    Attributes:
      negative_drop_fraction: fraction of each layer's active weights that a mask update
        drops because they are negative and have changed least, in addition to
        `drop_fraction`, in [0, 1]; the count is rounded down, and the fraction changes
        over training like that one.
      grow: which weights grow, as in `RigLOptions`.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    negative_drop_fraction: float = 0.1
    grow: str = "gradient"

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(
            self,
            negative_drop_fraction=arguments.number(0, 1),
            grow=arguments.one_of(grow.GROWTH),
        )


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def neurrev(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | NeurRevOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lets neurons of output zero train again by dropping negative weights: NeurRev.

    A neuron whose input is negative for all examples outputs zero after a ReLU. It then
    has no gradient, and without momentum and weight decay the weights into it no longer
    change. Negative ones among them keep its input negative if the outputs of the layer
    before are at least 0, as after another ReLU. A mask update of a layer with
    :math:`n` active weights

    1. drops the :math:`\lfloor \alpha_t n \rfloor` weights of smallest magnitude;
    2. grows as many and :math:`\lfloor p_t n \rfloor` more, from the weights outside;
    3. drops the :math:`\lfloor p_t n \rfloor` weights of least
       :math:`|\theta - \theta'|` among the negative ones that survived step 1, where
       :math:`\theta'` are the weights after the mask update before.

    A layer with fewer such negative weights, or with less room to grow, replaces fewer
    in steps 2 and 3.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      update_every: steps between mask updates, at least 1.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step. Required, unless
        `drop_schedule` is "constant": then None means no end.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "erk" by default. `structure` must be None and
        `min_layer_density` 0.
      updates: how mask updates drop and grow weights; a `DropGrowOptions` or a
        `NeurRevOptions`.
      key: random key that the initial masks and, with `grow` "random", the mask updates
        are drawn with, typed or raw key data (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The number of active weights of each layer is constant. The
      state holds a copy of the prunable weights.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> updates = transforms.NeurRevOptions(negative_drop_fraction=0.05)
      >>> tx = neurrev(optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=updates)

    Deviations:
      We had no access to the paper beyond its abstract, nor to its code. That negative
      weights of least change are dropped, after others were dropped and grown at a
      sparsity that is lower by their part p, is from public reviews. Everything else is
      our choice: the default values and course of p and of the drop fraction, growth by
      gradient, changes measured from one mask update to the next, and what happens in
      a layer with too few negative weights.

    References:
      Li, Yin, Ji, Niu, Qin, Ren, Guo, Liu, Ma. NeurRev: Train Better Sparse Neural
      Network Practically via Neuron Revitalization. ICLR 2024.
      https://openreview.net/forum?id=60lNoatp7u
    """
    layers = layer_options.resolve(
        layers,
        function="neurrev",
        distribution="erk",
        unused=("structure", "min_layer_density"),
    )
    updates = options.resolve(
        updates,
        NeurRevOptions,
        function="neurrev",
        drop_fraction=0.3,
        drop_schedule="cosine",
        skip_update=False,
    )
    schedule, drops, *_ = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        layers=layers,
        updates=updates,
    )
    negative_drops = update_schedules.drop_fractions(
        schedule,
        fraction=updates.negative_drop_fraction,
        schedule=updates.drop_schedule,
    )
    grow_score = grow.score_by(updates.grow)

    def inside(masks: Masks, params: Params) -> Scores:
        return masks_lib.tree_map(lambda m, w: jnp.where(m, w, 0), masks, params)

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
        drop_counts, negative_counts = (
            grow.zero_counts(
                grow.part(masks, grow.fraction_at(table, schedule, step)), layers.dense
            )
            for table in (drops, negative_drops)
        )
        room = grow.num_inactive(masks)
        if not updates.allow_regrow:
            drop_counts = jax.tree.map(jnp.minimum, drop_counts, room)
            room = grow.subtract(room, drop_counts)
        kept = select.top_k_per_layer(
            scores.magnitude(params, masks),
            grow.subtract(grow.count(masks), drop_counts),
            candidates=masks,
        )
        negative = masks_lib.tree_map(lambda mask, w: mask & (w < 0), kept, params)
        num_negative = grow.count(negative)
        negative_counts = jax.tree.map(
            lambda *counts: jnp.minimum(jnp.minimum(*counts[:2]), counts[2]),
            *(negative_counts, room, num_negative),
        )
        changes = masks_lib.tree_map(
            lambda _, w, old: jnp.abs(w - old), masks, params, memory.own
        )
        changing = select.top_k_per_layer(
            changes, grow.subtract(num_negative, negative_counts), candidates=negative
        )
        grow_counts = jax.tree.map(jnp.add, drop_counts, negative_counts)
        growth_scores = grow_score(masks, grads, key, step)
        more = grow.grow(
            *(masks, kept, grow_counts, growth_scores),
            allow_regrow=updates.allow_regrow,
        )
        new = jax.tree.map(lambda m, neg, c: m & (~neg | c), more, negative, changing)
        finite = grow.finite_where_grown(
            growth_scores, kept if updates.allow_regrow else masks, grow_counts
        )
        regrown, holding = None, new
        if updates.zero_regrown:
            regrown = grow.dropped_and_regrown(masks, kept, new)
            holding = jax.tree.map(lambda mask, zero: mask & ~zero, new, regrown)
        return MaskUpdate(
            *(new, memory._replace(own=inside(holding, params))),
            reset=regrown,
            zeroed=regrown,
            finite=finite,
        )

    return sparsify(
        inner,
        init_masks.stored(
            init_masks.random(sparsity=sparsity, layers=layers, key=key), layers
        ),
        update_masks=update_masks,
        update_at=update_schedules.due(schedule),
        init_memory=lambda params, masks: grow.EverActive(inside(masks, params)),
        skip_update=updates.skip_update,
        key=init_masks.first_key(key) if updates.grow == "random" else None,
    )
