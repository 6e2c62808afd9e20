"""Measuring a network while it trains, without making the device wait.

An observer says at which readings of the clock it measures, and across which changes of
masks. Calls end there; measurements are dispatched between them like everything else,
and fetched when an evaluation is recorded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsparse import metrics_log, multihost, transforms
from jaxsparse.training import state_sharding
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.types import Masks, Params

Rows = list[dict[str, Any]]


class Probe(NamedTuple):
    """What is measured, and when.

    Attributes:
      at: readings of the clock, growing, at which a state is measured.
      changes: updates, growing, in which masks change: across each, the parameters
        before are measured under the masks before and after.
      measure: from parameters, masks and batch statistics [r ...] to anything; what it
        computes is only dispatched.
      rows: words what `measure` returned once it was fetched, one row a replicate.
    """

    at: tuple[int, ...]
    changes: tuple[int, ...]
    measure: Callable[[Params, Masks, Any], Any]
    rows: Callable[[Any], Rows]

    @property
    def pauses(self) -> tuple[int, ...]:
        """Readings of the clock at which a call must end."""
        around = (step + late for step in self.changes for late in (0, 1))
        return tuple(sorted({*self.at, *around}))


class MetricBuffer:
    """What was measured in a stage and is not yet written."""

    def __init__(
        self,
        observer: Probe | None,
        layout: MeshLayout,
        begin: Callable[[str, int], metrics_log.Record],
    ) -> None:
        """Opens an empty one; `begin` begins a record of a kind at a step."""
        if observer is None:
            observer = Probe((), (), lambda *_: None, lambda _: [])
        self._observer, self._layout, self._begin = observer, layout, begin
        self._at, self._changes = set(observer.at), set(observer.changes)
        self._before: tuple[int, Params, Any] | None = None
        self._pending: list[tuple[str, int, Any]] = []

    def see(self, state: TrainState, step: int, *, anew: bool = True) -> None:
        """Measures a state as training left it, if it is time to.

        Args:
          state: placed as training has it.
          step: what its clock shows.
          anew: False if this reading was recorded before a restart.
        """
        begins = step in self._changes
        measured = step in self._at and anew
        if not (begins or measured or self._before):
            return
        state = state_sharding.gather_state(self._layout, state)
        masks = transforms.get_masks(state.opt_state)
        if self._before and self._before[0] + 1 == step:
            change, params, stats = self._before
            after = self._observer.measure(params, masks, stats)
            self._pending.append(("change", change + 1, after))
        self._before = None
        if measured or (begins and anew):
            now = self._observer.measure(state.params, masks, state.batch_stats)
            self._pending.append(("gradient", step, now))
        if begins:
            # Copies: the next call takes the buffers.
            mine = jax.tree.map(jnp.copy, (state.params, state.batch_stats))
            self._before = (step, *mine)

    def take(self) -> list[metrics_log.Record]:
        """Waits for what was measured, and words it."""
        rows = [
            self._begin(kind, step) | {"replicate": r} | row
            for kind, step, measured in self._pending
            for r, row in enumerate(self._observer.rows(multihost.to_host(measured)))
        ]
        self._pending = []
        return rows
