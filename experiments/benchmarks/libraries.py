"""Timing the same work in several libraries, of which some may be missing."""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType

from experiments.benchmarks import rows, timing
from experiments.benchmarks.timing import Job, Table

OURS, JAXPRUNER, DENSE = "jaxsparse", "jaxpruner", "dense"
SHARED_STEP = f"{JAXPRUNER}, step not batched"
TORCH = "PyTorch, torch.nn.utils.prune"
ABSENT = {
    JAXPRUNER: "not installed: pip install "
    "git+https://github.com/google-research/jaxpruner",
    TORCH: rows.MISSING,
}


def load(name: str, package: str) -> ModuleType | None:
    """Imports the module that needs a package; None if that is impossible.

    Args:
      name: name of a module of this package.
      package: the package that it needs.
    """
    try:
        return importlib.import_module(f"experiments.benchmarks.{name}")
    except Exception as error:  # packages of incompatible versions fail in many ways
        if getattr(error, "name", None) != package:
            reason = f"cannot be imported: {type(error).__name__}: {error}"
            ABSENT[{"jaxpruner": JAXPRUNER, "torch": TORCH}[package]] = reason
        return None


def compare(
    title: str,
    makers: Mapping[str, Callable[[], Job] | None],
    *,
    seconds: float,
    repetitions: int,
    note: str,
    base: str = OURS,
) -> Table:
    """Times the jobs that can be made and run, and gives the reasons for the others.

    Args:
      title: what was measured.
      makers: by library the function that makes its job; None if it is not installed.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      note: how to read the table.
      base: the row whose time is 1.
    """
    jobs, absent = {}, {}
    for name, make in makers.items():
        if make is None:
            absent[name] = ABSENT[name]
            continue
        try:
            job = make()
            job.run(1)
        except Exception as error:  # libraries of other versions fail in many ways
            if name in (OURS, base):
                raise
            line = (str(error).splitlines() or [""])[0]
            absent[name] = f"fails here: {type(error).__name__}: {line[:120]}"
            continue
        jobs[name] = job
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    times = timing.milliseconds(rates)
    table_rows = [
        (
            name,
            timing.format_rates(values),
            timing.format_spread(timing.ratios(values, times[base]), 2),
        )
        for name, values in times.items()
    ]
    table_rows += [(name, reason, "") for name, reason in absent.items()]
    header = ("", "ms", f"time as a multiple of {base}")
    data = {"milliseconds": times, "absent": absent}
    return Table(title, header, table_rows, note, data)
