"""The plan of chunks: which steps one compiled call runs.

A chunk is a sequence of steps that one compiled call runs. Chunks end where the host
has work to do: at the end of an epoch, at an evaluation, at a measurement, at a state
to save, and after every `steps_per_call` steps of an epoch. The plan depends on the
config alone and never on the step at which a run was resumed, because chunks of other
lengths may compile to programs that differ in the last bits.
"""

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class ScanChunk(NamedTuple):
    """Consecutive steps of one epoch with batches of one size.

    Attributes:
      step: training step before the first step of the chunk.
      length: number of steps, at least 1.
      epoch: number of the epoch that the steps belong to, counted from 0.
      first: position of the chunk's first example in the epoch's order.
      batch_size: examples per step and replicate.
    """

    step: int
    length: int
    epoch: int
    first: int
    batch_size: int


class EpochSpec(NamedTuple):
    """Number of steps and batch sizes of an epoch.

    Attributes:
      steps: number of batches, including a smaller last one.
      batch_size: examples in a full batch.
      last_batch: examples in the last batch; equal to `batch_size` if it is full.
    """

    steps: int
    batch_size: int
    last_batch: int


def plan(
    start: int,
    stop: int,
    *,
    epoch: EpochSpec,
    steps_per_call: int,
    evaluate_every: int,
    boundary_steps: Sequence[int] = (),
) -> Iterator[ScanChunk]:
    """Yields the chunks that train from step `start` to step `stop`.

    Args:
      start: training step before the first chunk.
      stop: training step after the last chunk.
      epoch: number of steps and batch sizes of an epoch.
      steps_per_call: maximum chunk length; chunks end at its multiples, counted from
        the start of each epoch.
      evaluate_every: chunks end at its multiples, counted from step 0; 0 adds no ends.
      boundary_steps: further training steps, increasing, at which chunks end.

    Yields:
      Chunks without gaps between them. If `start` is the end of a chunk of an earlier
      plan with the same settings, the remaining chunks are the same as in that plan.
    """
    full = epoch.steps if epoch.last_batch == epoch.batch_size else epoch.steps - 1
    step = start
    while step < stop:
        number, within = divmod(step, epoch.steps)
        # A smaller last batch has other shapes than the rest of the epoch, and
        # therefore a chunk of its own.
        if within == full:
            length, size = 1, epoch.last_batch
        else:
            to_call = steps_per_call - within % steps_per_call
            to_eval = evaluate_every - step % evaluate_every if evaluate_every else stop
            later = bisect.bisect_right(boundary_steps, step)
            to_pause = (
                boundary_steps[later] - step if later < len(boundary_steps) else stop
            )
            length = min(full - within, to_call, to_eval, to_pause, stop - step)
            size = epoch.batch_size
        yield ScanChunk(step, length, number, within * epoch.batch_size, size)
        step += length


def room(length: int, usual_length: int) -> int:
    """Returns how many steps the program for a chunk of this length has room for.

    Args:
      length: number of steps of the chunk.
      usual_length: length of the most common and longest chunks; 0 if every length has
        a program of its own.
    """
    return usual_length if 1 <= length < usual_length else length
