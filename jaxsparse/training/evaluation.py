"""Evaluating a network on whole sets of examples, exactly.

Sets lie on the devices, or are brought there, in batches, the last padded with the
label -1. Tallies of
batches are summed on the host in float64, so the sum does not depend on how many
batches there were.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxsparse.data.dataset import Images
from jaxsparse.training import mesh, vmap_seeds
from jaxsparse.training import state as state_lib
from jaxsparse.training.mesh import DATA, MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums
from jaxsparse.training.vmap_seeds import How


class Scores(NamedTuple):
    """What a set of examples says about each replicate.

    Attributes:
      loss: mean cross-entropy in nats.
      accuracy: fraction classified correctly, in [0, 1].
    """

    loss: Float[np.ndarray, "r"]
    accuracy: Float[np.ndarray, "r"]


def average(sums: Sequence[MetricSums]) -> Scores:
    """Turns tallies on the host into means over all their examples.

    Args:
      sums: arrays [r] or [steps r].

    Returns:
      Loss and accuracy of each replicate.
    """

    def total(name: str) -> Float[np.ndarray, "r"]:
        parts = [np.asarray(getattr(t, name), np.float64) for t in sums]
        return np.sum(np.concatenate([np.atleast_2d(part) for part in parts]), axis=0)

    examples = total("examples")
    return Scores(total("loss") / examples, total("correct") / examples)


Evaluate = Callable[[TrainState], list[MetricSums]]


def make_evaluate(
    eval_step: Callable[..., MetricSums],
    like: TrainState,
    images: Images,
    labels: np.ndarray,
    *,
    batch_size: int,
    layout: MeshLayout,
    how: How,
    streamed: bool = False,
) -> Evaluate:
    """Makes the function that evaluates a set, which lies on the devices or the host.

    Evaluation runs under jit also where training runs under pmap.

    Args:
      eval_step: what `steps.make_eval_step` made.
      like: a state in the form of files; only structure and shapes are looked at.
      images: uint8 [n h w c]; those in files are decoded a batch at a time.
      labels: int32 [n].
      batch_size: examples at once; rounded up to what the devices can share.
      layout: how the run uses its devices.
      how: how replicates are arranged, see `replicates`.
      streamed: whether the set stays on the host, and batches are brought to the
        devices each time.

    Returns:
      A function of a state, as under jit, to tallies [r] of each batch. It waits for
      nothing, so training can be dispatched before they are fetched.
    """
    layout = layout._replace(parallelism="jit")
    batch_size = min(batch_size, len(labels))
    batch_size += -batch_size % layout.data_devices
    firsts = range(0, len(labels), batch_size)
    placed = None
    if not streamed:
        whole = _padded(images, labels, size=len(firsts) * batch_size)
        placed = mesh.replicate(layout, whole)
    axes = state_lib.replicate_axes(like)
    every = vmap_seeds.over_replicates(
        eval_step,
        how=how,
        replicates=layout.replicates,
        in_axes=(axes, None, None),
        out_axes=0,
    )

    @functools.partial(jax.jit, out_shardings=mesh.to_all(layout))
    def one_batch(
        state: TrainState, images: Array, labels: Array, first: Int[Array, ""]
    ) -> MetricSums:
        batch: Any = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, batch_size),
            (images, labels),
        )
        if layout.mesh.size > 1:
            batch = jax.lax.with_sharding_constraint(
                batch, jax.NamedSharding(layout.mesh, jax.P(DATA))
            )
        return every(state, *batch)

    def batch(first: int) -> tuple[Any, Any, Int[Array, ""]]:
        """Returns examples that are on the devices, and where a batch begins there."""
        if placed is not None:
            return *placed, jnp.int32(first)
        chosen = slice(first, first + batch_size)
        some = _padded(images[chosen], labels[chosen], size=batch_size)
        return *mesh.replicate(layout, some), jnp.int32(0)

    def evaluate(state: TrainState) -> list[MetricSums]:
        tallies: list[MetricSums] = []
        for first in firsts:
            if streamed and len(tallies) > 1:
                jax.block_until_ready(tallies[-2])  # or all batches come at once
            tallies.append(one_batch(state, *batch(first)))
        return tallies

    return evaluate


def _padded(
    images: np.ndarray, labels: np.ndarray, *, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Adds black images with the label -1, up to a size."""
    missing = size - len(labels)
    if not missing:
        return images, labels
    widths = [(0, missing)] + [(0, 0)] * (images.ndim - 1)
    return np.pad(images, widths), np.pad(labels, (0, missing), constant_values=-1)
