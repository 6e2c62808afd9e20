"""Paths of a run directory, and what receives the measurements of a run.

`workdir` decides who may write to a run directory; `stage_run` writes records there.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from jaxsparse import metrics_log
from jaxsparse.training.progress import Progress
from jaxsparse.training.record_index import RecordIndex
from jaxsparse.training.state import TrainState

METRICS = "metrics.jsonl"


@runtime_checkable
class MetricWriter(Protocol):
    """Sends records to a destination other than `metrics.jsonl`, such as TensorBoard.

    Any function of a list of records qualifies. It is called on the primary process
    only, after the records were written to the file; an exception that it raises ends
    the run. A run that is resumed may send the records of a few steps a second time.

    Examples:
      >>> def to_wandb(rows):
      ...     for row in rows:
      ...         wandb.log({f"{row['kind']}/{k}": v for k, v in row.items()})
      >>> isinstance(to_wandb, MetricWriter)
      True
      >>> jaxsparse.run(  # doctest: +SKIP
      ...     config, "runs/digits", metric_writers=[to_wandb]
      ... )
    """

    def __call__(self, rows: Sequence[metrics_log.Record]) -> None:
        """Sends records.

        Args:
          rows: records written together, such as those of all replicates at one
            evaluation; must not be modified. Each has a `kind` ("train", "eval",
            "mask_stats", "level", "timing" or the kind of an analysis) and its position
            in the run (`stage`, `level`, `variant`, `step`, `epoch`, and `replicate`
            unless it covers all replicates). The other fields are numbers, or None
            where a value is missing.
        """


@runtime_checkable
class Callback(Protocol):
    """Reads the training state during training.

    Any function of a step and a state qualifies. It is called on every process when a
    stage starts and at the end of every chunk of steps, in particular at every step of
    `config.analysis.save_at`. An exception that it raises ends the run. It is not
    called at steps that a resumed run has already passed, nor for stages that are
    trained again because their weights or records were lost.

    Examples:
      >>> def histogram(step, state):
      ...     kernel = state.params["head"]["kernel"]
      ...     wandb.log({"head": wandb.Histogram(kernel), "step": step})
      >>> isinstance(histogram, Callback)
      True
      >>> jaxsparse.run(  # doctest: +SKIP
      ...     config, "runs/digits", callbacks=[histogram]
      ... )
    """

    def __call__(self, step: int, state: TrainState) -> None:
        """Reads a state.

        Args:
          step: training steps since initialization. It starts over at each level of a
            lottery-ticket run.
          state: the state at this step, as placed for training: leaves lead with the
            replicate axis, under `pmap` with the device axis. Its arrays are deleted
            when training continues, so copy what is needed later. Fetching an array
            makes the devices wait.
        """


def _never() -> int:
    """Requests no stop."""
    return 0


class RunDir(NamedTuple):
    """Output files of a run, and the objects that report on it.

    Attributes:
      folder: the run directory.
      progress: display of the run's progress; None where no stage is trained.
      should_stop: returns the number of the signal that requests a clean stop, or 0.
      metric_writers: further destinations of the records written to `metrics`.
      callbacks: functions of step and state, called during training.
      metrics_name: name of the file of records.
      index: index of the file of records during a session; None makes a new one for
        every access.
    """

    folder: Path
    progress: Progress | None = None
    should_stop: Callable[[], int] = _never
    metric_writers: tuple[MetricWriter, ...] = ()
    callbacks: tuple[Callback, ...] = ()
    metrics_name: str = METRICS
    index: RecordIndex | None = None

    @property
    def metrics(self) -> Path:
        """Path of the JSON Lines file of records."""
        return self.folder / self.metrics_name

    @property
    def records(self) -> RecordIndex:
        """Index of the file of records."""
        # The index of another file does not fit: a stage that is trained again only
        # for its weights writes its records elsewhere.
        if self.index is not None and self.index.path == self.metrics:
            return self.index
        return RecordIndex(self.metrics)

    @property
    def checkpoints(self) -> Path:
        """Directory of all checkpoints."""
        return self.folder / "checkpoints"

    @property
    def tickets(self) -> Path:
        """Directory of the ticket files."""
        return self.folder / "tickets"
