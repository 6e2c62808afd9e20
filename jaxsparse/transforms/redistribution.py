"""Methods that move weights from layer to layer: the total is kept, not the layers'."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxsparse import arguments, calendars, fan_axes, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import exchange, regrowth, starting
from jaxsparse.transforms.engine import sparsify
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.starting import Distribution, Prunable
from jaxsparse.types import Counts, Grads, Masks, Params, RandomKey


@arguments.check(
    sparsity=arguments.real,
    drop_fraction=arguments.real,
    drop_schedule=arguments.name_or_function,
    momentum=arguments.real,
)
def snfs(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    distribution: Distribution = "uniform",
    dense: tuple[str, ...] = (),
    update_every: int = 100,
    begin_step: int | None = None,
    end_step: int | None = None,
    drop_fraction: float = 0.5,
    drop_schedule: exchange.Schedule = "cosine",
    momentum: float = 0.9,
    redistribute: bool = True,
    regrow_dropped: bool = True,
    restart_dropped: bool = False,
    skip_inner: bool = False,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Drops the smallest weights and grows where momentum is largest: sparse momentum.

    The momentum :math:`M \leftarrow \alpha M + (1 - \alpha) g` of the dense gradient is
    kept by the method itself, in float32, whatever the optimiser; a gradient that is
    not finite leaves it as it was, weight by weight. What all layers drop
    together is divided among them in proportion to the mean :math:`|M|` of the weights
    they had, no layer above its size; in each, the weights of largest :math:`|M|` are
    grown.

    Args:
      inner: as in `sparse_evolution`, and so are the others not named here.
      sparsity: as above.
      distribution: as above; of the masks training starts from.
      dense: as above; these layers take no part afterwards either.
      update_every: as above; the paper changes masks after every epoch.
      begin_step: as above.
      end_step: as above.
      drop_fraction: as above.
      drop_schedule: as above.
      momentum: :math:`\alpha`, in [0, 1).
      redistribute: whether weights move between layers.
      regrow_dropped: as above.
      restart_dropped: as above.
      skip_inner: as above.
      prunable: as above.
      axes: as above.
      key: as above; only the first masks are drawn.

    Returns:
      The optimiser, with a constant count over all layers.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      Shares are rounded down in 20-bit arithmetic, and what that leaves goes, one
      weight at a time, to the layer of the largest share that has room.

    References:
      Dettmers, Zettlemoyer. Sparse Networks from Scratch: Faster Training without
      Losing Performance. 2019. arXiv:1907.04840, algorithm 1.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: got {momentum}; wanted a factor in [0, 1)")
    change = exchange.make_change(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        drop_fraction=drop_fraction,
        drop_schedule=drop_schedule,
        structure=None,
        dense=dense,
        axes=axes,
        regrow_dropped=regrow_dropped,
        restart_dropped=restart_dropped,
    )

    def init_memory(params: Params, masks: Masks) -> regrowth.Explored:
        weights = masks_lib.total(masks) if jax.tree.leaves(masks) else 0
        if redistribute and weights * drop_fraction >= 2**31:
            raise ValueError(
                f"drop_fraction: got {drop_fraction} of {weights} weights; wanted "
                "fewer than 2**31 that go at once, or redistribute=False"
            )
        still = masks_lib.tree_map(
            lambda _, leaf: jnp.zeros_like(leaf, jnp.float32), masks, params
        )
        return regrowth.remember(params, masks)._replace(own=still)

    def observe(memory: regrowth.Explored, grads: Grads) -> regrowth.Explored:
        def move(old: Any, grad: Array) -> Any:
            if old is None:
                return None
            wide = grad.astype(jnp.float32)
            new = momentum * old + (1 - momentum) * wide
            return jnp.where(jnp.isfinite(wide), new, old)

        moving = jax.tree.map(
            move, memory.own, grads, is_leaf=lambda leaf: leaf is None
        )
        return memory._replace(own=moving)

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Any,
        memory: regrowth.Explored,
        **unused: Any,
    ) -> MaskUpdate:
        del grads, unused
        goes = regrowth.part(
            masks, regrowth.look_up(change.drops, change.calendar, step)
        )
        if not regrow_dropped:
            goes = regrowth.at_most_room(goes, masks)
        goes = regrowth.except_of(goes, dense)
        left = regrowth.subtract(regrowth.count(masks), goes)
        kept = select.per_layer(scores.magnitude(params, masks), left, within=masks)
        promise = regrowth.gradient_magnitude(masks, memory.own)
        comes = goes
        if redistribute:
            taken = kept if regrow_dropped else masks
            comes = _redistribute(goes, masks, taken, promise, dense)
        new = regrowth.grow(masks, kept, comes, promise, regrow_dropped=regrow_dropped)
        both = regrowth.regrown(masks, kept, new) if restart_dropped else None
        seen = regrowth.explored(memory, masks, new, own=memory.own)
        return MaskUpdate(new, seen, reset=both, zeroed=both)

    return sparsify(
        inner,
        starting.random(
            sparsity=sparsity,
            distribution=distribution,
            dense=dense,
            structure=None,
            axes=axes,
            prunable=prunable,
            key=key,
        ),
        update_masks=update_masks,
        update_at=lambda step: calendars.is_due(change.calendar, step),
        init_memory=init_memory,
        observe=observe,
        skip_inner=skip_inner,
    )


def _redistribute(
    goes: Counts, masks: Masks, taken: Masks, momentum: Any, dense: tuple[str, ...]
) -> Counts:
    """Divides what all layers drop by the mean momentum of what each had."""
    total = sum(jax.tree.leaves(goes))
    means = [
        jnp.sum(jnp.where(mask, size, 0))
        / jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1)
        for mask, size in zip(
            jax.tree.leaves(masks), jax.tree.leaves(momentum), strict=True
        )
    ]
    open_to = jax.tree.leaves(regrowth.except_of(regrowth.room(taken), dense))
    shares = apportion(total, jnp.stack(means), jnp.stack(open_to))
    return jax.tree.unflatten(jax.tree.structure(goes), list(shares))


def apportion(
    total: Int[Array, ""], shares: Float[Array, "l"], room: Int[Array, "l"]
) -> Int[Array, "l"]:
    """Divides a count in proportion to shares, no part above its room.

    Args:
      total: what to divide; at most the sum of `room` can be.
      shares: at least 0; NaN counts as 0, and where all that have room are 0 they
        count as equal.
      room: the largest each part can be, at least 0.

    Returns:
      int32 that sum to exactly min(total, sum(room)).
    """
    shares = jnp.nan_to_num(shares)
    scale = jnp.maximum(jnp.max(shares), jnp.finfo(shares.dtype).tiny)
    weights = jnp.round(shares / scale * 2**20).astype(jnp.int32)
    # Room of 2**31 weights or more would overflow in one sum.
    most, _ = jax.lax.scan(
        lambda most, room: (most + jnp.minimum(room, total - most), None),
        jnp.zeros_like(total),
        room,
    )

    def left_of(given: Int[Array, "l"]) -> Int[Array, ""]:
        return most - jnp.sum(given)

    def give(given: Int[Array, "l"]) -> Int[Array, "l"]:
        has_room = given < room
        mine = jnp.where(has_room, weights, 0)
        mine = jnp.where(has_room & (jnp.sum(mine) == 0), 1, mine)
        parts = calendars.part_of(left_of(given), mine, jnp.sum(mine))
        parts = jnp.minimum(parts, room - given)
        one = jax.nn.one_hot(jnp.argmax(mine), len(mine), dtype=jnp.int32)
        return given + jnp.where(jnp.sum(parts) == 0, one, parts)

    return jax.lax.while_loop(
        lambda given: left_of(given) > 0, give, jnp.zeros_like(room)
    )
