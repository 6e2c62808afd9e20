"""Evaluates a network on whole sets of examples.

Sets are stored on the devices, or copied there batch by batch. The last batch is padded
with examples of the label -1, which are not counted. Sums over batches are accumulated
on the host in float64, so that the result does not depend on the number of batches.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxsparse.data.dataset import Images
from jaxsparse.training import mesh, placement, vmap_seeds
from jaxsparse.training import state as state_lib
from jaxsparse.training.mesh import DATA, MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums
from jaxsparse.training.vmap_seeds import How


class Scores(NamedTuple):
    """Loss and accuracy of each replicate on a set of examples.

    Attributes:
      loss: mean cross-entropy of all predictions in nats, float64.
      accuracy: fraction of correct predictions, in [0, 1].
    """

    loss: Float[np.ndarray, "r"]
    accuracy: Float[np.ndarray, "r"]


def average(sums: Sequence[MetricSums]) -> Scores:
    """Converts metric sums on the host to means over all predictions.

    Args:
      sums: metric sums of batches, each field of shape [r] or [steps r].

    Returns:
      Loss and accuracy of each replicate.
    """
    count = _total(sums, "predictions")
    return Scores(_total(sums, "loss") / count, _total(sums, "correct") / count)


def _total(sums: Sequence[MetricSums], name: str) -> Float[np.ndarray, "r"]:
    """Adds up a field of all batches."""
    parts = [np.asarray(getattr(t, name), np.float64) for t in sums]
    return np.sum(np.concatenate([np.atleast_2d(part) for part in parts]), axis=0)


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
    """Makes the function that evaluates a state on a set of examples.

    Evaluation runs under jit, even if training runs under pmap.

    Args:
      eval_step: evaluation of one batch and replicate, from `steps.make_eval_step`.
      like: a state in the checkpoint layout (leaves lead with the replicate axis,
        counters are scalars); only its structure and shapes are used.
      images: uint8 [n h w c]; images stored in files are decoded one batch at a time.
      labels: int32 [n], classes from 0.
      batch_size: examples per batch; at most n, rounded up to a multiple of the devices
        that share a batch.
      layout: mesh of devices and placement of arrays on it.
      how: how replicates are mapped: "vmap", "map" or "unroll".
      streamed: whether the set stays on the host and is copied to the devices one batch
        at a time; False copies the whole set to every device once.

    Returns:
      A function from a state, sharded as under jit, to the metric sums [r] of each
      batch. It only dispatches work, so that training continues before the results are
      fetched.
    """
    # States are evaluated in the checkpoint layout, which has no axis of devices.
    layout = layout._replace(parallelism="jit")
    batch_size = min(batch_size, len(labels))
    batch_size += -batch_size % layout.data_devices
    firsts = range(0, len(labels), batch_size)
    # Without streaming, one copy on every device serves all evaluations of the run.
    placed = None
    if not streamed:
        whole = _padded(images, labels, size=len(firsts) * batch_size)
        placed = placement.replicate(layout, whole)
    every = vmap_seeds.over_replicates(
        eval_step,
        how=how,
        replicates=layout.replicates,
        in_axes=(state_lib.replicate_axes(like), None, None),
        out_axes=0,
    )
    one_batch = _make_one_batch(every, layout, batch_size)

    def batch(first: int) -> tuple[Any, Any, np.int32]:
        """Returns placed images and labels, and the position of the batch in them."""
        # The position of a batch is traced, so that one program serves all batches.
        if placed is not None:
            return *placed, np.int32(first)
        chosen = slice(first, first + batch_size)
        some = _padded(images[chosen], labels[chosen], size=batch_size)
        return *placement.replicate(layout, some), np.int32(0)

    def evaluate(state: TrainState) -> list[MetricSums]:
        """Dispatches the evaluation of all batches."""
        sums: list[MetricSums] = []
        for first in firsts:
            if streamed and len(sums) > 1:
                # Without waiting, the device memory would fill with batches.
                jax.block_until_ready(sums[-2])
            sums.append(one_batch(state, *batch(first)))
        return sums

    return evaluate


def _make_one_batch(
    every: Callable[..., MetricSums], layout: MeshLayout, size: int
) -> Callable[..., MetricSums]:
    """Makes the compiled evaluation of a batch.

    Args:
      every: evaluates a batch for all replicates, `(state, images, labels) -> sums`.
      layout: mesh of devices and placement of arrays on it.
      size: examples in a batch.

    Returns:
      A function of a state, images, labels, and the position in them of the first
      example of the batch.
    """

    @functools.partial(jax.jit, out_shardings=mesh.to_all(layout))
    def one_batch(
        state: TrainState, images: Array, labels: Array, first: Int[Array, ""]
    ) -> MetricSums:
        batch: Any = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size),
            (images, labels),
        )
        # Every device evaluates a part of the batch, although it holds all examples.
        if layout.mesh.size > 1:
            batch = jax.lax.with_sharding_constraint(
                batch, jax.NamedSharding(layout.mesh, jax.P(DATA))
            )
        return every(state, *batch)

    return one_batch


def _padded(
    images: np.ndarray, labels: np.ndarray, *, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Appends black images with the label -1 until there are `size` examples."""
    missing = size - len(labels)
    if not missing:
        return images, labels
    widths = [(0, missing)] + [(0, 0)] * (images.ndim - 1)
    return np.pad(images, widths), np.pad(labels, (0, missing), constant_values=-1)
