"""TensorBoard events besides the records, written without TensorFlow."""

from pathlib import Path
from typing import Any

from jaxsparse.records import Record

_PLACE = ("kind", "stage", "level", "arm", "replicate", "step", "epoch", "start_step")


class Events:
    """Shows records as TensorBoard scalars: a run of it for each stage.

    Curves of a stage lie in a folder of its name over the clock; what levels came to
    lies in the folder "levels" over the level. Events repeat what `metrics.jsonl`
    holds and are for looking only: a stage that was resumed shows the steps it
    repeated once more.
    """

    def __init__(self, folder: Path) -> None:
        """Writes below `folder`, which is made when the first record comes."""
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def __call__(self, record: Record) -> None:
        """Shows the numbers of one record."""
        if record["kind"] == "level":
            name, step, prefix = "levels", record["level"], f"{record['arm']}/"
        else:
            name, step, prefix = record["stage"], record["step"], ""
        which = f"/replicate_{record['replicate']}" if "replicate" in record else ""
        writer = self._writer(name)
        for key, value in record.items():
            if key not in _PLACE and isinstance(value, int | float):
                writer.add_scalar(f"{prefix}{record['kind']}/{key}{which}", value, step)

    def _writer(self, name: str) -> Any:
        # Here and not above: where PyTorch is installed, this imports it, in seconds.
        from tensorboardX import SummaryWriter

        if name not in self._writers:
            for stage in [
                open_one for open_one in self._writers if open_one != "levels"
            ]:
                self._writers.pop(stage).close()
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]

    def close(self) -> None:
        """Writes out what is still held."""
        for writer in self._writers.values():
            writer.close()
