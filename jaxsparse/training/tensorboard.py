"""Writes records as TensorBoard events, without TensorFlow."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsparse import extras, metrics_log
from jaxsparse.metrics_log import Record
from jaxsparse.stages import TRAIN

log = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0  # least time between flushes within a stage
# With more replicates only their mean is shown, because every replicate is a
# TensorBoard run with a file of its own.
MOST_REPLICATES = 16
_PLACE = (
    "kind",
    "stage",
    "level",
    "variant",
    "replicate",
    "step",
    "epoch",
    "start_step",
)
_METRICS = ("test_accuracy", "density", "effective_params")


def _numbers(record: Record) -> Iterator[tuple[str, float]]:
    """Yields the names and values that are shown of a record.

    In mask statistics and by layer, counts of active weights become fractions of all
    weights. Gradients have a norm by layer, which is shown as it is.
    """
    if record["kind"] == "mask_stats":
        yield "masks/density", record["kept"] / record["total"]
        if record["ever_active"] is not None:
            yield "masks/ever_active", record["ever_active"] / record["total"]
    else:
        for key, value in record.items():
            if key not in _PLACE and isinstance(value, int | float):
                yield f"{record['kind']}/{key}", value
    for layer, value in (record.get("layers") or {}).items():
        if record["kind"] in ("mask_stats", "level"):
            kept, total = value
            yield f"layers/{layer}", kept / total
        else:
            yield f"{record['kind']}/layers/{layer}", value


class TensorBoardWriter:
    """Writes records as TensorBoard scalars.

    Each variant (the ticket, and each control) is a TensorBoard run for every replicate
    and one for their mean: `ticket/replicate_0`, ..., `ticket/mean`,
    `random_mask/replicate_0`, .... With one replicate it is `ticket` alone. For the
    copies trained for instability analysis only the mean is shown. Each TensorBoard run
    contains:

        levels/test_accuracy, ...       results of levels, over the level
        levels/layers/...               density of each layer, over the level
        by_weights/test_accuracy        the same over the number of active weights
        level_03/train/loss, ...        training of that level, over the step
        pretraining/train/loss, ...     training before the levels; ticket only

    Ordinary training has `train` in place of the variants, and `result/test_accuracy`
    and `train/loss` instead of those of levels.
    Hyperparameters are written for the hparams plugin, which distinguishes variants by
    `variant` and runs by their config fields.

    Events duplicate the content of `metrics.jsonl` and are for viewing only: a resumed
    stage shows the repeated steps a second time. Events are written in the calling
    thread. The thread of the usual writer ends when the disk is full, and later writes
    then block forever. Files are flushed at the end of each stage and otherwise at most
    every `FLUSH_SECONDS`, because a flush waits for the disk: a process that is killed
    loses the events since the last flush.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicates: int = 1,
        levels: int = 0,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Initializes the writer without opening files.

        Args:
          folder: directory of the events; created with the first record.
          replicates: number of replicates of the run, 1 or more.
          levels: number of pruning rounds; 0 for training without levels.
          hyperparameters: values by name for the hparams plugin; values other than
            numbers, text and booleans are shown as text. None or {} writes no
            hyperparameters.

        Raises:
          ModuleNotFoundError: if tensorboardX is not installed.
        """
        extras.require("tensorboardX", purpose="config.run.tensorboard")
        self._folder, self._replicates, self._levels = folder, replicates, levels
        self._hyperparameters = dict(hyperparameters or {})
        self._writers: dict[str, Any] = {}
        self._unflushed: set[str] = set()  # TensorBoard runs
        self._last_flush = time.monotonic()

    def __call__(self, rows: Sequence[Record]) -> None:
        """Writes the numbers of records, and their means over replicates.

        Args:
          rows: records that were written together.

        Replicates that have failed are in no mean, nor are numbers that are not finite,
        unless there is no other.

        Raises:
          OSError: if they cannot be written; the message names the directory.
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
            with metrics_log.naming(self._folder / run):
                self._write(run, scalars)
        # A record of kind "timing" is the last one of a stage.
        has_ended = any(record["kind"] == "timing" for record in rows)
        if has_ended or time.monotonic() - self._last_flush >= FLUSH_SECONDS:
            self.flush()

    def _runs(self, record: Record) -> list[str]:
        """Returns the names of the TensorBoard runs in which a record is shown."""
        variant = "ticket" if record["variant"] == "pretraining" else record["variant"]
        variant = TRAIN if record["stage"] == TRAIN else variant
        if variant == "children" or self._replicates == 1:
            return [variant]
        if "replicate" not in record or self._replicates > MOST_REPLICATES:
            return [] if record.get("failed") else [f"{variant}/mean"]
        own = f"{variant}/replicate_{record['replicate']}"
        return [own] if record.get("failed") else [own, f"{variant}/mean"]

    def _scalars(self, record: Record) -> Iterator[tuple[str, float, int]]:
        """Yields tag, value and step of the scalars of a record."""
        if record["kind"] != "level":
            stage = record["stage"].removesuffix(f"/{record['variant']}")
            plain = stage in (TRAIN, "level_00") and not self._levels
            prefix = "" if plain else f"{stage}/"
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
        # Imported here, because tensorboardX imports PyTorch where it is installed,
        # which takes seconds.
        from tensorboardX.proto.summary_pb2 import Summary

        writer = self._writer(run)
        self._unflushed.add(run)
        by_step: dict[int, list[Any]] = {}
        for tag, value, step in scalars:
            shown = Summary.Value(tag=tag, simple_value=value)
            by_step.setdefault(step, []).append(shown)
        # One event for all scalars of a step: events have checksums, slow in Python.
        for step, values in by_step.items():
            _write_event(writer, Summary(value=values), step)

    def _writer(self, run: str) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        if run not in self._writers:
            folder = self._folder / run
            folder.mkdir(parents=True, exist_ok=True)
            # A number for each session: the time in the file name has a resolution of
            # one second.
            number = len([path for path in folder.iterdir() if path.is_file()])
            self._writers[run] = EventsWriter(str(folder / "events"), f".{number}")
            # Once per variant, so that the hparams table has one row for it and not one
            # for each replicate.
            if self._hyperparameters and "/replicate_" not in run:
                self._describe(run)
        return self._writers[run]

    def _describe(self, run: str) -> None:
        """Writes the hyperparameters of a TensorBoard run."""
        from tensorboardX.summary import hparams

        values = {"variant": run.removesuffix("/mean")} | {
            name: value if isinstance(value, str | bool | int | float) else str(value)
            for name, value in self._hyperparameters.items()
        }
        where = "levels" if self._levels else "result"
        metrics = dict.fromkeys(f"{where}/{name}" for name in _METRICS)
        for summary in hparams(values, metrics)[:2]:
            _write_event(self._writers[run], summary, 0)

    def flush(self) -> None:
        """Writes all events to disk.

        Raises:
          OSError: if they cannot be written; the message names the directory.
        """
        self._last_flush = time.monotonic()
        for run in sorted(self._unflushed):
            with metrics_log.naming(self._folder / run):
                self._writers[run].flush()
            self._unflushed.remove(run)

    def close(self) -> None:
        """Flushes and closes the files; events that cannot be written are a warning."""
        for run, writer in self._writers.items():
            try:
                writer.close()
            except OSError as error:
                log.warning(
                    "%s: the last events are lost: %s", self._folder / run, error
                )


def _mean(values: Sequence[float | int]) -> float:
    chosen = [value for value in values if math.isfinite(value)] or values
    return sum(chosen) / len(chosen)


def _write_event(writer: Any, summary: Any, step: int) -> None:
    from tensorboardX.proto import event_pb2

    event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
    writer.write_event(event)
