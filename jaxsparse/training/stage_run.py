"""The stage under way, and how its records are made and written."""

from typing import Any, NamedTuple

from jaxsparse import metrics_log, multihost
from jaxsparse.stages import Stage
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.trainer import Trainer


class StageRun(NamedTuple):
    """A stage, with what trains it and where its results are written.

    Attributes:
      trainer: settings and compiled functions with which the stage is trained.
      stage: the stage.
      run_dir: output files of the run.
    """

    trainer: Trainer
    stage: Stage
    run_dir: RunDir

    def record(self, kind: str, step: int) -> metrics_log.Record:
        """Returns a new record with the fields that every record of a stage has.

        Args:
          kind: kind of record, such as "train" or "eval".
          step: training step of the record.

        Returns:
          A record with kind, stage, level, variant, step and epoch (step divided by the
          steps per epoch, rounded to 4 decimals).
        """
        return {
            "kind": kind,
            "stage": self.stage.name,
            "level": self.stage.level,
            "variant": self.stage.variant,
            "step": step,
            "epoch": round(step / self.trainer.epoch.steps, 4),
        }

    def write(self, rows: list[metrics_log.Record]) -> None:
        """Appends records to the metrics file and sends them to all metric writers.

        Only the primary process writes; the others wait until it has finished.

        Args:
          rows: records to append, in this order.

        Raises:
          OSError: if the metrics file cannot be written.
          Exception: on all processes, whatever a metric writer raises.
        """
        multihost.on_primary(lambda: self._append(rows))

    def _append(self, rows: list[metrics_log.Record]) -> None:
        """Appends records on the process that calls it."""
        metrics_log.append(self.run_dir.metrics, rows)
        for send in self.run_dir.metric_writers:
            send(rows)

    def sync_records(self) -> int:
        """Flushes the records to disk and counts those of the stage.

        A checkpoint stores this count. The flush ensures that no checkpoint survives a
        crash in which the records that it counts are lost.

        Returns:
          Number of complete records of the stage, the same on every process.
        """

        def count() -> int:
            metrics_log.sync(self.run_dir.metrics)
            return self.run_dir.records.count(self.stage.name)

        return multihost.broadcast_from_primary(count)


def read_records(run_dir: RunDir, **wanted: Any) -> list[metrics_log.Record]:
    """Reads the records whose fields have given values, the same on every process.

    Args:
      run_dir: output files of the run.
      **wanted: field names and their values.

    Raises:
      ValueError: if the file of records is damaged.
    """
    return multihost.broadcast_from_primary(lambda: run_dir.records.read(**wanted))
