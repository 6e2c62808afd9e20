"""Counting the masks of a run while it trains, without waiting for the counts."""

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
    """How many weights there are.

    Attributes:
      kept: weights of each layer, in the order of `masks.names`.
      ever: weights of all layers that were ever held; None for a method that does not
        remember them.
      skipped: updates of the masks that were skipped, as a number was not finite.
    """

    kept: Int[Array, "r l"]
    ever: Int[Array, "r"] | None
    skipped: Int[Array, "r"]


ComputeMaskStats = Callable[[TrainState], MaskStats]


@jax.jit
def compute_mask_stats(state: TrainState) -> MaskStats:
    """Counts the masks of a state as under jit; every leaf leads with replicates."""

    def by_layer(masks: Any) -> Int[Array, "r l"]:
        counts = [
            jnp.sum(leaf, axis=tuple(range(1, leaf.ndim)), dtype=jnp.int32)
            for leaf in jax.tree.leaves(masks)
        ]
        return jnp.stack(counts, axis=1)

    held = by_layer(transforms.get_masks(state.opt_state))
    skipped = find(state.opt_state).skipped_updates
    if not transforms.tracks_exploration(state.opt_state):
        return MaskStats(held, None, skipped)
    ever = by_layer(transforms.ever_active(state.opt_state))
    return MaskStats(held, jnp.sum(ever, axis=1, dtype=jnp.int32), skipped)


def rows(census: Any, masks: Any) -> list[dict[str, Any]]:
    """Words a census that was fetched, one row a replicate.

    Args:
      census: a `Census` of numpy arrays.
      masks: dense masks of one replicate, for names and sizes.

    Returns:
      Rows with `kept`, `total` and `ever_active` (counts over all layers, the last may
      be None), `skipped_updates` (of the masks, so far) and `layers`, pairs of kept and
      total by name.
    """
    layers = masks_lib.layer_counts(masks)
    sizes = {name: count.total for name, count in layers.items()}
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
