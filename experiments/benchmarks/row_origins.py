"""Machine, cores and versions of each row of a table that grows over several calls."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import environment

FIELDS = ("processor", "cores", "python", "versions")


def use_one_core() -> None:
    """Has all threads of this process run on one core, where the system allows it.

    New threads inherit this, such as those of XLA, which start with its first use.
    """
    if hasattr(os, "sched_setaffinity"):
        core = min(os.sched_getaffinity(0))
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def record(packages: Sequence[str]) -> dict[str, str]:
    """Returns the cells of a row that is measured by this process.

    Args:
      packages: names of the packages whose versions are recorded.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count()
    versions = ", ".join(f"{name} {environment.version(name)}" for name in packages)
    values = (environment.processor(), str(cores), platform.python_version(), versions)
    return dict(zip(FIELDS, values, strict=True))


def describe(
    rows: Sequence[Mapping[str, Any]], name: Callable[[Mapping[str, Any]], str]
) -> str:
    """Words as a list where the rows were measured.

    Args:
      rows: rows with the cells of `record`; "" or a missing cell was not recorded.
      name: the words for what a row measures. Rows may share them.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        origin = tuple(row.get(field) or "" for field in FIELDS)
        found.setdefault(origin, []).append(name(row))
    lines = []
    for (processor, cores, python, versions), names in found.items():
        places = "; ".join(dict.fromkeys(names)) if len(found) > 1 else "all rows"
        lines.append(
            f"- {processor or 'processor not recorded'}, {_cores(cores)}, Python "
            f"{python or 'not recorded'}, {versions or 'versions not recorded'}: "
            f"{places}."
        )
    return "\n".join(["Measured on:", "", *lines])


def _cores(cores: str) -> str:
    """Words how many cores the process was allowed to use."""
    if not cores:
        return "number of cores not recorded"
    return "one core" if cores == "1" else f"{cores} cores"
