"""Makes tables, figures and one HTML page from run directories.

    python experiments/report.py WORKDIR
    python experiments/report.py WORKDIR WORKDIR ... --out=DIR

The report on one run goes to its own `report/` by default. Runs may be in progress: the
report contains what they have recorded so far. Needs no JAX and no accelerator.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import config  # noqa: E402

_OUT = flags.DEFINE_string(
    "out", None, "folder for the report; default: report/ in the one WORKDIR"
)


_TOGETHER = flags.DEFINE_bool(
    "together", False, "compare runs on different datasets or networks with each other"
)


def main(argv: Sequence[str]) -> int:
    """Reports on the run directories on the command line.

    Args:
      argv: the name of the program and the run directories.

    Returns:
      The exit code: 0, or 1 if a directory is not a run.
    """
    workdirs, out = _folders(argv[1:])
    # Imported here, so that errors in a command are reported at once.
    from jaxsparse.reports import page, records, settings

    try:
        runs = records.read_runs(workdirs)
        written = page.write_runs(runs, out, together=_TOGETHER.value)
    except ValueError as error:
        command_line.fail(str(error))
    except OSError as error:
        command_line.fail(f"--out: {out} cannot be written ({error})")
    groups = [runs] if _TOGETHER.value else settings.comparable(runs)
    for group in groups:
        if len(groups) > 1:
            print(f"{settings.title(group)}:")
        _show(group)
    print(f"page: {written}")
    return 0


def _folders(words: Sequence[str]) -> tuple[list[Path], Path]:
    """Reads the command line: run directories, and that of the report."""
    if not words:
        command_line.fail("expected folders of runs, got none; give one or more")
    if len(words) > 1 and _OUT.value is None:
        command_line.fail(f"--out: missing with {len(words)} runs; give --out=DIR")
    try:
        workdirs = [config.to_path("folder of a run", word) for word in words]
        out = command_line.path(_OUT) or workdirs[0] / "report"
    except ValueError as error:
        command_line.fail(str(error))
    for workdir in workdirs:
        if not workdir.is_dir():
            command_line.fail(f"{workdir}: not a run; expected the folder of a run")
    return workdirs, out


def _show(runs: Sequence[Any]) -> None:
    """Prints the progress and the results of runs."""
    from jaxsparse.reports import (
        contents,
        formatting,
        method_names,
        methods,
        progress,
        tables,
    )

    for run in runs:
        note = progress.unfinished(run)
        if note:
            print(f"{run.name}: {note}")
    runs = progress.pool(runs)
    levels = tables.levels_table(runs)
    if levels.empty:
        print(contents.nothing(runs))
    elif any(map(method_names.is_sparse, runs)) or all(
        map(method_names.trains_once, runs)
    ):
        shown = formatting.show_methods(methods.methods_table(runs))
        print(shown.to_string(index=False))
    else:
        print(formatting.show_levels(levels).to_string(index=False))


if __name__ == "__main__":
    command_line.run(main, words="folders of runs")
