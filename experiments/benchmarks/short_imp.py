"""A short lottery-ticket run on CIFAR-10, on an accelerator: its time and memory."""

import tempfile
from pathlib import Path

from experiments.benchmarks import commands, fixtures, timing
from experiments.benchmarks.timing import Table
from jaxsparse import metrics_log

TITLE = "A whole short run: lth_cifar:quick"
GIB = 2**30


def measure(
    *, seconds: float, repetitions: int = 2, data_dir: str | None = None
) -> list[Table]:
    """Times `train.py --config=configs/lth_cifar.py:quick` with its report.

    Args:
      seconds: not used: the run takes as long as it takes.
      repetitions: times that it is run; the first compiles its programs.
      data_dir: folder of prepared datasets; None for the default one.
    """
    del seconds
    if fixtures.on_cpu():
        return [timing.absent_table(TITLE, "not measured: no accelerator")]
    where = [f"--config.data.dir={data_dir}"] if data_dir else []
    whole, peaks, devices = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(repetitions):
            run = folder / str(number)
            done = commands.run(
                "experiments/train.py",
                "--config=configs/lth_cifar.py:quick",
                *(f"--workdir={run}", *where),
                cache=folder / "programs",
            )
            whole.append(done.total)
            found = read_peaks(run)
            peaks.append(found["peak_host_bytes"])
            devices.append(found["peak_device_bytes"])
    rows = [
        ("seconds, programs compiled", timing.format_rates(whole[:1])),
        ("seconds, programs cached", timing.format_rates(whole[1:])),
        ("peak memory of the device, GiB", format_gib(devices)),
        ("peak memory of the process, GiB", format_gib(peaks)),
    ]
    note = "Two levels of ResNet-20 after dense training, from the command to its end."
    data = {"seconds": {"compiled": whole[:1], "cached": whole[1:]}}
    data["bytes"] = {"device": [peak or 0 for peak in devices], "host": peaks}
    return [Table(TITLE, ("", "value"), rows, note, data)]


def format_gib(sizes: list[int | None]) -> str:
    """Formats the largest of some sizes in GiB, or "not reported".

    Args:
      sizes: sizes in bytes, None where the device reports none.
    """
    known = [size for size in sizes if size is not None]
    return f"{max(known) / GIB:.2f}" if known else "not reported"


def read_peaks(folder: Path) -> dict[str, int | None]:
    """Reads the largest peak memories that the stages of a run recorded.

    Args:
      folder: the run directory.

    Returns:
      "peak_device_bytes" and "peak_host_bytes"; None where no stage reports one.
    """
    rows = metrics_log.read(folder / "metrics.jsonl")
    found: dict[str, int | None] = {}
    for field in ("peak_device_bytes", "peak_host_bytes"):
        peaks = [row[field] for row in rows if row.get(field) is not None]
        found[field] = max(peaks, default=None)
    return found
