"""Makes tables, figures and one HTML page from the work folders of runs.

    python experiments/report.py WORKDIR
    python experiments/report.py WORKDIR WORKDIR ... --out=DIR

One run's report goes to its own `report/` unless told otherwise. Finished or not:
whatever the runs have recorded so far is reported. Needs no JAX and no accelerator.
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
    """Reports on the work folders named on the command line.

    Args:
      argv: the program's name, then the work folders.

    Returns:
      The exit code: 0, or 1 if something that was named is not a run.
    """
    workdirs, out = _folders(argv[1:])
    # Here and not above, so that what is wrong with a command is said at once.
    from jaxsparse.reports import page, settings, tables

    try:
        runs = tables.read_runs(workdirs)
        written = page.write_runs(runs, out, together=_TOGETHER.value)
    except ValueError as error:
        command_line.fail(str(error))
    except OSError as error:
        command_line.fail(f"--out: {out} cannot be written ({error})")
    groups = [runs] if _TOGETHER.value else settings.alike(runs)
    for group in groups:
        if len(groups) > 1:
            print(f"{settings.title(group)}:")
        _show(group)
    print(f"page: {written}")
    return 0


def _folders(words: Sequence[str]) -> tuple[list[Path], Path]:
    """Reads the command line: folders of runs, and that of the report."""
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
    """Prints how far runs are, and what they came to."""
    from jaxsparse.reports import formatting, method_names, methods, progress, tables

    for run in runs:
        note = progress.unfinished(run)
        if note:
            print(f"{run.name}: {note}")
    runs = progress.pool(runs)
    levels = tables.levels_table(runs)
    if levels.empty:
        print("No level has finished yet.")
    elif any(method_names.is_sparse(run) for run in runs):
        print(formatting.plain(formatting.show_methods(methods.methods_table(runs))))
    else:
        print(formatting.plain(formatting.show_levels(levels)))


if __name__ == "__main__":
    command_line.run(main, words="folders of runs")
