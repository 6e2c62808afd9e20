"""Training metrics since the last record, fetched as late as possible."""

from typing import NamedTuple

import numpy as np

from jaxsparse.training import scan_chunks
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.steps import MetricSums


class Totals(NamedTuple):
    """Training metrics since the last record, summed in float64; one entry a replicate.

    Attributes:
      loss: sums of the losses, in nats.
      correct: numbers of correct predictions.
      predictions: numbers of predictions.
    """

    loss: list[float]
    correct: list[int]
    predictions: list[int]


class SumBuffer:
    """Training metrics since the last record: fetched totals, and chunks in flight.

    Attributes:
      totals: sums of the chunks fetched so far; None if there are none.
    """

    def __init__(self, layout: MeshLayout, totals: Totals | None = None) -> None:
        """Initializes a buffer without chunks in flight.

        Args:
          layout: placement of arrays on the devices.
          totals: sums to continue from, of a resumed stage.
        """
        self.totals = totals
        self._layout = layout
        self._pending: list[MetricSums] = []

    def __len__(self) -> int:
        """Returns the number of chunks in flight."""
        return len(self._pending)

    def add(self, sums: MetricSums) -> None:
        """Adds a chunk without waiting for it.

        Args:
          sums: metric sums of the chunk, as its compiled function returned them.
        """
        self._pending.append(sums)

    def fetch(self) -> Totals | None:
        """Waits for all chunks in flight and adds them to the totals.

        Returns:
          The new totals; None if no step was trained since the last record.
        """
        pending, self._pending = self._pending, []
        for sums in scan_chunks.sums_on_host(self._layout, pending):
            self.totals = _add(self.totals, sums)
        return self.totals

    def take(self) -> "SumBuffer":
        """Moves the content to a new buffer and empties this one."""
        taken = SumBuffer(self._layout, self.totals)
        taken._pending = self._pending
        self.totals, self._pending = None, []
        return taken

    def is_finite(self) -> bool:
        """Returns whether the fetched losses of all replicates are finite."""
        return self.totals is None or bool(np.all(np.isfinite(self.totals.loss)))


def _add(totals: Totals | None, sums: MetricSums) -> Totals:
    """Adds the metric sums [length r] of a chunk to those since the last record."""
    # float64 and int64: float32 sums over many steps would lose precision.
    new = [
        np.sum(np.asarray(leaf, kind), axis=0)
        for leaf, kind in zip(sums, (np.float64, np.int64, np.int64), strict=True)
    ]
    if totals is not None:
        new = [np.asarray(old) + more for old, more in zip(totals, new, strict=True)]
    return Totals(*(leaf.tolist() for leaf in new))
