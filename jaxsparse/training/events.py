"""TensorBoard events besides the records, written without TensorFlow."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxsparse import records
from jaxsparse.records import Record

_PLACE = ("kind", "stage", "level", "arm", "replicate", "step", "epoch", "start_step")


def _scalars(record: Record) -> Iterator[tuple[str, float]]:
    """Yields what to show of a record by name; of counts of masks the fractions."""
    if record["kind"] == "masks":
        yield "masks/density", record["kept"] / record["total"]
        if record["ever_active"] is not None:
            yield "masks/ever_active", record["ever_active"] / record["total"]
        for layer, (kept, total) in record["layers"].items():
            yield f"layers/{layer}", kept / total
        return
    for key, value in record.items():
        if key not in _PLACE and isinstance(value, int | float):
            yield f"{record['kind']}/{key}", value


class Events:
    """Shows records as TensorBoard scalars: a run of it for each stage.

    Curves of a stage lie in a folder of its name over the clock; what levels came to
    lies in the folder "levels" over the level. Events repeat what `metrics.jsonl`
    holds and are for looking only: a stage that was resumed shows the steps it
    repeated once more.

    Events are written at once, by no thread of their own: the usual writer's thread
    ends on a full disk, and whoever goes on writing then waits for it for ever.
    """

    def __init__(self, folder: Path) -> None:
        """Writes below `folder`, which is made when the first record comes."""
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def __call__(self, record: Record) -> None:
        """Shows the numbers of one record.

        Raises:
          OSError: if they cannot be written, naming the folder.
        """
        # Here and not above: where PyTorch is installed, this imports it, in seconds.
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        if record["kind"] == "level":
            name, step, prefix = "levels", record["level"], f"{record['arm']}/"
        else:
            name, step, prefix = record["stage"], record["step"], ""
        which = f"/replicate_{record['replicate']}" if "replicate" in record else ""
        with records.naming(self._folder / name):
            writer = self._writer(name)
            for shown, value in _scalars(record):
                summary = scalar(f"{prefix}{shown}{which}", value)
                event = event_pb2.Event(
                    wall_time=time.time(), step=step, summary=summary
                )
                writer.write_event(event)
            writer.flush()

    def _writer(self, name: str) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        if name not in self._writers:
            for stage in [other for other in self._writers if other != "levels"]:
                self._writers.pop(stage).close()
            folder = self._folder / name
            folder.mkdir(parents=True, exist_ok=True)
            # One file a session: the name has the second only.
            number = len(list(folder.iterdir()))
            self._writers[name] = EventsWriter(str(folder / "events"), f".{number}")
        return self._writers[name]

    def close(self) -> None:
        """Closes the files; every record was written out when it came."""
        for writer in self._writers.values():
            with contextlib.suppress(OSError):
                writer.close()
