"""Sparse momentum (SNFS), which moves weights between layers.

The total number of active weights is constant, but the counts of single layers are not.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxsparse import arguments, layer_options, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import drop_grow, grow, init_masks, options, update_schedules
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Counts, Grads, Masks, Params, RandomKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class SNFSOptions(DropGrowOptions):
    r"""How mask updates of sparse momentum drop, move and grow weights.

    By default, `drop_fraction` is 0.5, `drop_schedule` "cosine" and `skip_update`
    False.

    `DropGrowOptions` explains the options that are not listed here.

    Attributes:
      momentum: the factor :math:`\alpha` of the method's own momentum, in [0, 1).
      redistribute: whether weights move between layers. If False, each layer grows as
        many weights as it drops.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    momentum: float = 0.9
    redistribute: bool = True

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(self, momentum=arguments.number(0, 1, below=True))


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def snfs(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | SNFSOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Drops the smallest weights and grows those of largest momentum: sparse momentum.

    The method keeps its own momentum :math:`M \leftarrow \alpha M + (1 - \alpha) g` of
    the dense gradient, in float32, whatever the optimizer. Elements of the gradient
    that are not finite leave the momentum of their weights unchanged. At a mask update,
    the total number of dropped weights is divided among the layers in proportion to the
    mean :math:`|M|` of the weights that were active in each; no layer grows beyond its
    size. Within each layer, the weights of largest :math:`|M|` are grown.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      update_every: steps between mask updates, at least 1; the paper updates the masks
        after every epoch.
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      end_step: mask updates take place before this step. Required, unless
        `drop_schedule` is "constant": then None means no end.
      layers: which leaves have masks, and how the active weights of the initial masks
        are divided among them; the distribution is "uniform" by default. Dense layers
        stay dense throughout training. `structure` must be None and
        `min_layer_density` 0.
      updates: how mask updates drop, move and grow weights; a `DropGrowOptions` or an
        `SNFSOptions`.
      key: random key that the initial masks are drawn with, typed or raw key data
        (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. The total number of active weights is constant.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> updates = transforms.SNFSOptions(redistribute=False)
      >>> tx = snfs(optax.sgd(0.1), sparsity=0.9, end_step=75_000, updates=updates)

    Deviations:
      Shares have a precision of 20 bits, and the counts that follow from them are
      rounded down. The weights that remain go, one at a time, to the layer with the
      largest share that has inactive weights.

    References:
      Dettmers, Zettlemoyer. Sparse Networks from Scratch: Faster Training without
      Losing Performance. 2019. arXiv:1907.04840, algorithm 1.
    """
    layers = layer_options.resolve(
        layers,
        function="snfs",
        distribution="uniform",
        unused=("structure", "min_layer_density"),
    )
    updates = options.resolve(
        updates,
        SNFSOptions,
        function="snfs",
        drop_fraction=0.5,
        drop_schedule="cosine",
        skip_update=False,
    )
    momentum, redistribute = updates.momentum, updates.redistribute
    spec = drop_grow.make_update_spec(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        layers=layers,
        updates=updates,
    )

    def init_memory(params: Params, masks: Masks) -> grow.EverActive:
        weights = masks_lib.size(masks) if jax.tree.leaves(masks) else 0
        if redistribute and weights * updates.drop_fraction >= 2**31:
            raise ValueError(
                "drop_fraction: expected fewer than 2**31 weights dropped at once, got "
                f"{updates.drop_fraction} of {weights} weights; use a lower fraction, "
                "or redistribute=False"
            )
        zero_momentum = masks_lib.tree_map(
            lambda _, leaf: jnp.zeros_like(leaf, jnp.float32), masks, params
        )
        return grow.EverActive(zero_momentum)

    def observe(memory: grow.EverActive, grads: Grads) -> grow.EverActive:
        def update_momentum(old: Any, grad: Array) -> Any:
            if old is None:
                return None
            wide = grad.astype(jnp.float32)
            new = momentum * old + (1 - momentum) * wide
            # One NaN would otherwise stay in the momentum for all later steps.
            return jnp.where(jnp.isfinite(wide), new, old)

        new_momentum = jax.tree.map(
            update_momentum, memory.own, grads, is_leaf=lambda leaf: leaf is None
        )
        return memory._replace(own=new_momentum)

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Any,
        memory: grow.EverActive,
        **unused: Any,
    ) -> MaskUpdate:
        # `observe` has already added this step's gradient to the momentum.
        del grads, unused
        drop_counts = grow.part(
            masks, grow.fraction_at(spec.drop_fractions, spec.update_schedule, step)
        )
        if not updates.allow_regrow:
            drop_counts = grow.at_most_inactive(drop_counts, masks)
        drop_counts = grow.zero_counts(drop_counts, layers.dense)
        keep_counts = grow.subtract(grow.count(masks), drop_counts)
        kept = select.top_k_per_layer(
            scores.magnitude(params, masks), keep_counts, candidates=masks
        )
        growth_scores = grow.gradient_magnitude(masks, memory.own)
        grow_counts = drop_counts
        if redistribute:
            excluded = kept if updates.allow_regrow else masks
            grow_counts = _redistribute(
                drop_counts, masks, excluded, growth_scores, layers.dense
            )
        new = grow.grow(
            masks, kept, grow_counts, growth_scores, allow_regrow=updates.allow_regrow
        )
        # No `finite`: `observe` keeps the momentum finite, and `sparsify` checks the
        # weights.
        return grow.mask_update(
            masks, kept, new, memory=memory, zero_regrown=updates.zero_regrown
        )

    return sparsify(
        inner,
        init_masks.stored(
            init_masks.random(sparsity=sparsity, layers=layers, key=key), layers
        ),
        update_masks=update_masks,
        update_at=update_schedules.due(spec.update_schedule),
        init_memory=init_memory,
        observe=observe,
        skip_update=updates.skip_update,
    )


def _redistribute(
    drop_counts: Counts,
    masks: Masks,
    excluded: Masks,
    momentum: Any,
    dense: tuple[str, ...],
) -> Counts:
    """Divides the dropped weights of all layers in proportion to their mean momentum.

    Args:
      drop_counts: number of weights that each layer drops; int32.
      masks: masks before the mask update.
      excluded: masks of weights that cannot be grown.
      momentum: absolute value of the momentum of each weight.
      dense: shell patterns of leaf names; matching layers grow no weights.

    Returns:
      Number of weights that each layer grows; int32.
    """
    total = sum(jax.tree.leaves(drop_counts))
    means = [
        jnp.sum(jnp.where(mask, size, 0))
        # A layer without active weights has the mean 0, not 0 / 0.
        / jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)
        for mask, size in zip(
            jax.tree.leaves(masks), jax.tree.leaves(momentum), strict=True
        )
    ]
    num_growable = jax.tree.leaves(grow.zero_counts(grow.num_inactive(excluded), dense))
    shares = apportion(total, jnp.stack(means), jnp.stack(num_growable))
    return jax.tree.unflatten(jax.tree.structure(drop_counts), list(shares))


def apportion(
    total: Int[Array, ""], shares: Float[Array, "l"], limits: Int[Array, "l"]
) -> Int[Array, "l"]:
    """Divides a count in proportion to shares, with an upper limit for each part.

    Args:
      total: the count to divide, at least 0; int32. Anything above the sum of `limits`
        is not distributed.
      shares: nonnegative shares of the layers; NaN counts as 0. If all layers below
        their limit have share 0, they are treated as equal.
      limits: upper limit of each part, at least 0; int32.

    Returns:
      int32 counts that sum to exactly min(total, sum(limits)).
    """
    shares = jnp.nan_to_num(shares)
    # The lower limit avoids 0 / 0 if all shares are 0.
    scale = jnp.maximum(jnp.max(shares), jnp.finfo(shares.dtype).tiny)
    # Integer shares, so that the parts add up to the total exactly.
    weights = jnp.round(shares / scale * 2**20).astype(jnp.int32)
    # min(total, sum(limits)) layer by layer: the sum itself may pass 2**31.
    target, _ = jax.lax.scan(
        lambda placed, limit: (placed + jnp.minimum(limit, total - placed), None),
        jnp.zeros_like(total),
        limits,
    )

    def remaining(counts: Int[Array, "l"]) -> Int[Array, ""]:
        return target - jnp.sum(counts)

    def distribute(counts: Int[Array, "l"]) -> Int[Array, "l"]:
        is_open = counts < limits
        eligible = jnp.where(is_open, weights, 0)
        eligible = jnp.where(is_open & (jnp.sum(eligible) == 0), 1, eligible)
        parts = update_schedules.floor_mul_div(
            remaining(counts), eligible, jnp.sum(eligible)
        )
        parts = jnp.minimum(parts, limits - counts)
        # If all parts round down to 0, the loop would never end: hand out one weight.
        one = jax.nn.one_hot(jnp.argmax(eligible), len(eligible), dtype=jnp.int32)
        return counts + jnp.where(jnp.sum(parts) == 0, one, parts)

    return jax.lax.while_loop(
        lambda counts: remaining(counts) > 0,
        distribute,
        jnp.zeros_like(limits),
    )
