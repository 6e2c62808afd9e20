"""Measures a network during training without making the devices wait.

A probe specifies the training steps at which the network is measured, and the mask
updates before and after which it is measured. Chunks end at these steps. Measurements
are dispatched between chunks, like training itself, and fetched when an evaluation is
recorded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxsparse import metrics_log, multihost, transforms
from jaxsparse.training import state_sharding
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.types import Masks, Params

Rows = list[dict[str, Any]]


class Probe(NamedTuple):
    """A measurement of the network, and the steps at which it is taken.

    Attributes:
      at: training steps, increasing, at which the state is measured.
      changes: training steps, increasing, before mask updates. At each, the parameters
        before the update are measured under the masks before and after it.
      measure: function of parameters, masks and batch statistics [r ...] to a tree of
        arrays. It must only dispatch work and not wait for results.
      rows: converts the fetched result of `measure` to one dict of record fields per
        replicate.
    """

    at: tuple[int, ...]
    changes: tuple[int, ...]
    measure: Callable[[Params, Masks, Any], Any]
    rows: Callable[[Any], Rows]

    @property
    def boundary_steps(self) -> tuple[int, ...]:
        """Steps at which a chunk must end: `at`, and both sides of `changes`."""
        around = (step + late for step in self.changes for late in (0, 1))
        return tuple(sorted({*self.at, *around}))


class MetricBuffer:
    """Measurements of a stage that are dispatched but not yet written."""

    def __init__(
        self,
        probe: Probe | None,
        layout: MeshLayout,
        begin: Callable[[str, int], metrics_log.Record],
        *,
        recorded_step: int | None = None,
    ) -> None:
        """Initializes an empty buffer.

        Args:
          probe: the measurement; None measures nothing.
          layout: placement of arrays on the devices.
          begin: returns the common fields of a record for a kind and a training step.
          recorded_step: training step of a resumed stage, which was measured before the
            stage was interrupted; None for a stage that starts.
        """
        if probe is None:
            probe = Probe((), (), lambda *_: None, lambda _: [])
        self._probe, self._layout, self._begin = probe, layout, begin
        self._at, self._changes = set(probe.at), set(probe.changes)
        self._recorded_step = recorded_step
        self._before: tuple[int, Params, Any] | None = None
        self._pending: list[tuple[str, int, Any]] = []

    def maybe_measure(self, step: int, state: TrainState) -> None:
        """Measures a state if this is one of the steps of the probe.

        Args:
          step: training step of the state.
          state: state as placed for training.
        """
        new = step != self._recorded_step
        begins = step in self._changes
        measured = step in self._at and new
        if not (begins or measured or self._before):
            return
        state = state_sharding.gather_state(self._layout, state)
        masks = transforms.get_masks(state.opt_state)
        # The parameters before the update under the masks after it isolate the effect
        # of the mask update from that of the gradient step.
        if self._before and self._before[0] + 1 == step:
            change, params, stats = self._before
            after = self._probe.measure(params, masks, stats)
            self._pending.append(("mask_update", change + 1, after))
        self._before = None
        if measured or (begins and new):
            now = self._probe.measure(state.params, masks, state.batch_stats)
            self._pending.append(("gradient_norm", step, now))
        # Also for a step recorded before a restart: the measurement after the update is
        # still missing.
        if begins:
            # Copies, because the next chunk donates the buffers.
            mine = multihost.copy((state.params, state.batch_stats))
            self._before = (step, *mine)

    def flush(self) -> list[metrics_log.Record]:
        """Fetches all pending measurements and empties the buffer.

        Returns:
          One record per measurement and replicate.
        """
        pending, self._pending = self._pending, []
        # All in one transfer.
        fetched = multihost.to_host([measured for *_, measured in pending])
        return [
            self._begin(kind, step) | {"replicate": r} | row
            for (kind, step, _), measured in zip(pending, fetched, strict=True)
            for r, row in enumerate(self._probe.rows(measured))
        ]
