"""TensorBoard events besides the records, written without TensorFlow."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsparse import records
from jaxsparse.records import Record

# Above it only means are shown: every replicate is a run of TensorBoard, and a file.
MOST_REPLICATES = 16
_PLACE = ("kind", "stage", "level", "arm", "replicate", "step", "epoch", "start_step")
_METRICS = ("test_accuracy", "weights_remaining", "live")


def _numbers(record: Record) -> Iterator[tuple[str, float]]:
    """Yields what to show of a record by name; of counts of masks the fractions."""
    if record["kind"] == "masks":
        yield "masks/density", record["kept"] / record["total"]
        if record["ever_active"] is not None:
            yield "masks/ever_active", record["ever_active"] / record["total"]
    else:
        for key, value in record.items():
            if key not in _PLACE and isinstance(value, int | float):
                yield f"{record['kind']}/{key}", value
    for layer, (kept, total) in (record.get("layers") or {}).items():
        yield f"layers/{layer}", kept / total


class Events:
    """Shows records as TensorBoard scalars.

    Each variant of a run (the ticket, and each control) is a run of TensorBoard for
    every replicate and one for their mean: `ticket/replicate_0`, ..., `ticket/mean`,
    `random_mask/replicate_0`, ...; with one replicate it is `ticket` alone, and of
    copies trained for instability analysis only the mean is shown. In each:

        levels/test_accuracy, ...       what levels came to, over the level
        levels/layers/...               density of each layer, over the level
        by_weights/test_accuracy        the same over the number of weights kept
        level_03/train/loss, ...        training of that level, over the step
        pretraining/train/loss, ...     and before the levels, in the ticket's run

    A run that prunes no levels has `result/test_accuracy` and `train/loss` instead.
    Its hyperparameters are those of the hparams plugin, where variants are told apart
    by `variant`, and several runs by their fields of the config.

    Events repeat what `metrics.jsonl` holds and are for looking only: a stage that was
    resumed shows the steps it repeated once more. They are written at once, by no
    thread of their own: the usual writer's thread ends on a full disk, and whoever goes
    on writing then waits for it for ever.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicates: int = 1,
        levels: int = 0,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
          folder: where to write; made when the first record comes.
          replicates: how many the run has, 1 or more.
          levels: how often the run prunes; 0 for training that has no levels.
          hyperparameters: by name, for the hparams plugin; what is no number, text or
            truth value is shown as text. None or {}: nothing for that plugin.
        """
        self._folder, self._replicates, self._levels = folder, replicates, levels
        self._hyperparameters = dict(hyperparameters or {})
        self._writers: dict[str, Any] = {}

    def __call__(self, rows: Sequence[Record]) -> None:
        """Shows the numbers of records, and their means over replicates.

        Replicates that have failed are in no mean, nor are numbers that are not finite,
        unless there is no other.

        Raises:
          OSError: if they cannot be written, naming the folder.
        """
        shown: dict[tuple[str, str, int], list[float]] = {}
        for record in rows:
            for run in self._runs(record):
                for tag, value, step in self._scalars(record):
                    shown.setdefault((run, tag, step), []).append(value)
        by_run: dict[str, list[tuple[str, float, int]]] = {}
        for (run, tag, step), values in shown.items():
            by_run.setdefault(run, []).append((tag, _mean(values), step))
        for run, scalars in by_run.items():
            with records.naming(self._folder / run):
                self._write(run, scalars)

    def _runs(self, record: Record) -> list[str]:
        """Says in which runs of TensorBoard a record is shown."""
        variant = "ticket" if record["arm"] == "pretraining" else record["arm"]
        if variant == "children" or self._replicates == 1:
            return [variant]
        if "replicate" not in record or self._replicates > MOST_REPLICATES:
            return [] if record.get("failed") else [f"{variant}/mean"]
        own = f"{variant}/replicate_{record['replicate']}"
        return [own] if record.get("failed") else [own, f"{variant}/mean"]

    def _scalars(self, record: Record) -> Iterator[tuple[str, float, int]]:
        """Yields tag, value and step of what a record shows."""
        if record["kind"] != "level":
            stage = record["stage"].removesuffix(f"/{record['arm']}")
            prefix = "" if stage == "level_00" and not self._levels else f"{stage}/"
            for name, value in _numbers(record):
                yield f"{prefix}{name}", value, record["step"]
            return
        where, step = "levels", record["level"]
        if not self._levels:
            where, step = "result", record["step"]
        for name, value in _numbers(record):
            yield f"{where}/{name.removeprefix('level/')}", value, step
        if self._levels and isinstance(record.get("test_accuracy"), float):
            yield "by_weights/test_accuracy", record["test_accuracy"], record["kept"]

    def _write(self, run: str, scalars: Sequence[tuple[str, float, int]]) -> None:
        # Here and not above: where PyTorch is installed, this imports it, in seconds.
        from tensorboardX.summary import scalar

        writer = self._writer(run)
        for tag, value, step in scalars:
            _write_event(writer, scalar(tag, value), step)
        writer.flush()

    def _writer(self, run: str) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        if run not in self._writers:
            folder = self._folder / run
            folder.mkdir(parents=True, exist_ok=True)
            # One file a session: the name has the second only.
            number = len([path for path in folder.iterdir() if path.is_file()])
            self._writers[run] = EventsWriter(str(folder / "events"), f".{number}")
            if self._hyperparameters and "/replicate_" not in run:
                self._describe(run)
        return self._writers[run]

    def _describe(self, run: str) -> None:
        """Writes the hyperparameters of a run of TensorBoard."""
        from tensorboardX.summary import hparams

        values = {"variant": run.removesuffix("/mean")} | {
            name: value if isinstance(value, str | bool | int | float) else str(value)
            for name, value in self._hyperparameters.items()
        }
        where = "levels" if self._levels else "result"
        metrics = dict.fromkeys(f"{where}/{name}" for name in _METRICS)
        for summary in hparams(values, metrics)[:2]:
            _write_event(self._writers[run], summary, 0)

    def close(self) -> None:
        """Closes the files; every record was written out when it came."""
        for writer in self._writers.values():
            with contextlib.suppress(OSError):
                writer.close()


def _mean(values: Sequence[float | int]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite or values))


def _write_event(writer: Any, summary: Any, step: int) -> None:
    from tensorboardX.proto import event_pb2

    event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
    writer.write_event(event)
