"""Counts the active weights of a run during training, without making devices wait."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxsparse import masks as masks_lib
from jaxsparse import transforms
from jaxsparse.training.state import TrainState
from jaxsparse.transforms.state import find


class MaskStats(NamedTuple):
    """Numbers of active weights, per replicate r and layer l.

    Attributes:
      kept: active weights of each layer, int32, in the order of `masks.names`.
      ever: weights of all layers that have been active at any step so far, int32; None
        for methods that do not track exploration.
      skipped: mask updates that were skipped so far because a value was not finite.
    """

    kept: Int[Array, "r l"]
    ever: Int[Array, "r"] | None
    skipped: Int[Array, "r"]


ComputeMaskStats = Callable[[TrainState], MaskStats]


@jax.jit
def compute_mask_stats(state: TrainState) -> MaskStats:
    """Counts the active weights of a state.

    Args:
      state: state sharded as under jit; all leaves except counters lead with the
        replicate axis.
    """

    def by_layer(masks: Any) -> Int[Array, "r l"]:
        counts = [
            jnp.sum(leaf, axis=tuple(range(1, leaf.ndim)), dtype=jnp.int32)
            for leaf in jax.tree.leaves(masks)
        ]
        return jnp.stack(counts, axis=1)

    held = by_layer(transforms.get_masks(state.opt_state))
    skipped = find(state.opt_state).skipped_updates
    # Known at trace time: it depends only on the type of the method's memory.
    if not transforms.tracks_exploration(state.opt_state):
        return MaskStats(held, None, skipped)
    ever = by_layer(transforms.ever_active(state.opt_state))
    return MaskStats(held, jnp.sum(ever, axis=1, dtype=jnp.int32), skipped)


def rows(census: Any, masks: Any) -> list[dict[str, Any]]:
    """Converts fetched counts to one dict of record fields per replicate.

    Args:
      census: a `MaskStats` of numpy arrays.
      masks: dense masks of one replicate; they supply the names and sizes of the
        layers.

    Returns:
      Dicts with `kept` and `total` (active weights and all weights), `ever_active`
      (weights active at any step; None if not tracked), `skipped_updates` (mask updates
      skipped so far) and `layers` (pairs of active and all weights by name).
    """
    layers = masks_lib.layer_counts(masks)
    sizes = {name: count.size for name, count in layers.items()}
    total = sum(sizes.values())
    every = [None] * len(census.kept) if census.ever is None else census.ever.tolist()
    return [
        {
            "kept": int(kept.sum()),
            "total": total,
            "ever_active": ever,
            "skipped_updates": int(skipped),
            "layers": {
                name: [int(count), size]
                for (name, size), count in zip(sizes.items(), kept, strict=True)
            },
        }
        for kept, ever, skipped in zip(census.kept, every, census.skipped, strict=True)
    ]
