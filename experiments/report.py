"""Makes tables, figures and one HTML page from the work folders of runs.

    python experiments/report.py WORKDIR
    python experiments/report.py WORKDIR WORKDIR ... --out=DIR

One run's report goes to its own `report/` unless told otherwise. Finished or not:
whatever the runs have recorded so far is reported. Needs no JAX and no accelerator.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import config  # noqa: E402

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
    if not argv[1:]:
        command_line.fail("expected folders of runs, got none; give one or more")
    if len(argv) > 2 and _OUT.value is None:
        command_line.fail(
            f"--out: missing with {len(argv) - 1} folders of runs; say where to write"
        )
    try:
        workdirs = [config.to_path("folder of a run", word) for word in argv[1:]]
        out = command_line.path(_OUT) or workdirs[0] / "report"
    except ValueError as error:
        command_line.fail(str(error))
    for workdir in workdirs:
        if not workdir.is_dir():
            command_line.fail(f"{workdir}: not a run; expected the folder of a run")
    # Here and not above, so that what is wrong with a command is said at once.
    from jaxsparse.reports import labels, methods, page, tables, text

    try:
        runs = tables.read_runs(workdirs)
    except ValueError as error:
        command_line.fail(str(error))
    try:
        written = page.write_runs(runs, out)
    except OSError as error:
        command_line.fail(f"--out: {out} cannot be written ({error})")
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
    command_line.run(main, words="folders of runs")
