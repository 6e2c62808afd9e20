"""Makes tables, figures and one HTML page from the work folders of runs.

    python experiments/report.py WORKDIR
    python experiments/report.py WORKDIR WORKDIR ... --out=DIR

One run's report goes to its own `report/` unless told otherwise. Finished or not:
whatever the runs have recorded so far is reported. Needs no JAX and no accelerator.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from jaxsparse.reports import labels, methods, page, tables, text

_OUT = flags.DEFINE_string(
    "out", None, "folder for the report; default: report/ in the one WORKDIR"
)


def main(argv: Sequence[str]) -> int:
    """Reports on the work folders named on the command line.

    Args:
      argv: the program's name, then the work folders.

    Returns:
      The exit code: 0, or 1 if something that was named is not a run.
    """
    workdirs = argv[1:]
    if not workdirs:
        raise app.UsageError("name one or more work folders")
    if len(workdirs) > 1 and _OUT.value is None:
        raise app.UsageError("several work folders: say where to write with --out=DIR")
    try:
        runs = tables.read_runs(workdirs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    out = Path(workdirs[0]) / "report" if _OUT.value is None else Path(_OUT.value)
    try:
        written = page.write_runs(runs, out)
    except OSError as error:
        print(f"error: --out: {out} cannot be written ({error})", file=sys.stderr)
        return 1
    levels = tables.levels_table(runs)
    if levels.empty:
        print("No level has finished yet.")
    elif any(labels.is_sparse(run) for run in runs):
        print(text.plain(text.show_methods(methods.methods_table(runs))))
    else:
        print(text.plain(text.show_levels(levels)))
    print(f"page: {written}")
    return 0


if __name__ == "__main__":
    app.run(main)
