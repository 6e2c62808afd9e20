"""Counts the active weights of a run during training, without making devices wait."""

import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxsparse import masks as masks_lib
from jaxsparse import metrics_log, transforms
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.stage_run import StageRun, read_records
from jaxsparse.training.state import TrainState
from jaxsparse.transforms.state import find
from jaxsparse.types import Masks

log = logging.getLogger(__name__)


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


def fields(stats: MaskStats, masks: Masks) -> list[dict[str, Any]]:
    """Converts fetched counts to one dict of record fields per replicate.

    Args:
      stats: counts as NumPy arrays.
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
    every = [None] * len(stats.kept) if stats.ever is None else stats.ever.tolist()
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
        for kept, ever, skipped in zip(stats.kept, every, stats.skipped, strict=True)
    ]


def records(
    run: StageRun, step: int, stats: MaskStats | None
) -> list[metrics_log.Record]:
    """Returns one record of kind "mask_stats" per replicate.

    Args:
      run: the stage under way.
      step: training step of the counts.
      stats: counts as NumPy arrays; None for fixed masks, which have no records.
    """
    if stats is None:
        return []
    found = fields(stats, run.trainer.records.dynamic_masks)
    return [
        run.record("mask_stats", step) | {"replicate": r} | row
        for r, row in enumerate(found)
    ]


def warn_of_skipped(rows: list[metrics_log.Record], run_dir: RunDir) -> None:
    """Warns once per stage and replicate that mask updates were skipped.

    Args:
      rows: new records of kind "mask_stats", not yet written.
      run_dir: output files of the run, whose records show whether a warning was already
        given.
    """
    skipped = [row for row in rows if row["skipped_updates"]]
    if not skipped:
        return
    # Read from the file and not kept in memory, so that a resumed run does not warn
    # again.
    earlier = read_records(run_dir, kind="mask_stats", stage=skipped[0]["stage"])
    warned = {row["replicate"] for row in earlier if row.get("skipped_updates")}
    for row in skipped:
        if row["replicate"] not in warned:
            log.warning(
                "%s, by step %d: %d updates of the masks of replicate %d were skipped, "
                "as a weight, gradient or score was not finite; expected finite "
                "numbers; records of kind 'mask_stats' go on counting "
                "(skipped_updates); try a lower config.schedule.learning_rate",
                *(row["stage"], row["step"], row["skipped_updates"], row["replicate"]),
            )
