"""Page: the files of a report on one run or several.

`write` writes into a directory `index.html` and the figures of `report_figures` as PNG
and SVG; for runs that prune level by level `levels.md` and `levels.csv`; for runs that
train once and for methods that are compared `methods.md` and `methods.csv`; and for
runs with error barriers `child_barrier.csv` and `level_barrier.csv`. The page embeds
its figures and refers to nothing outside itself, so it can be sent by mail. Every file
is written completely or not at all.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxsparse import metrics_log
from jaxsparse.reports import (
    contents,
    formatting,
    html,
    method_names,
    methods,
    plot_style,
    progress,
    records,
    report_figures,
    settings,
    stability,
    tables,
)
from jaxsparse.reports import folder as folder_lib
from jaxsparse.reports.records import RunRecords


def write(
    workdirs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    together: bool = False,
) -> Path:
    """Reads runs and writes the report on them.

    Args:
      workdirs: run directories, finished or not. Runs that differ only in their seeds
        are reported on as one run.
      out: directory to write into; created if needed.
      together: whether to compare runs on different datasets or networks in one table
        and figure; otherwise each dataset and network has its own.

    Returns:
      The path of the page.

    Raises:
      ValueError: if a directory is not a run, its records cannot be read, or `out`
        contains a page that no report has written.
    """
    return write_runs(records.read_runs(workdirs), out, together=together)


def write_runs(
    runs: Sequence[RunRecords],
    out: str | os.PathLike[str],
    *,
    together: bool = False,
) -> Path:
    """Writes the report on runs that were already read.

    Args:
      runs: the runs, finished or not.
      out: directory to write into; created if needed.
      together: whether to compare runs on different datasets or networks.

    Returns:
      The path of the page.

    Raises:
      ValueError: if `out` contains a page that no report has written.
    """
    folder = Path(out)
    folder_lib.check(folder)
    notes = [(run.name, progress.unfinished(run)) for run in runs]
    notes = [(name, note) for name, note in notes if note]
    runs = progress.pool(runs)
    groups = [runs] if together else settings.comparable(runs)
    shared = [
        write_figures(
            report_figures.compare(group), folder, prefix=_prefix(place, groups)
        )
        for place, group in enumerate(groups)
    ]
    images = write_figures(report_figures.draw(runs), folder)
    for name, content in _tables(runs, groups).items():
        metrics_log.write_atomically(folder / name, content)
    chapters = contents.chapters(groups, shared, images, notes)
    page = html.render(settings.title(runs), chapters)
    metrics_log.write_atomically(folder / "index.html", page)
    return folder / "index.html"


def _prefix(place: int, groups: Sequence[Any]) -> str:
    """Returns the prefix of the figures that compare a group of runs."""
    return f"group{place + 1}_" if len(groups) > 1 else ""


def write_figures(
    drawn: Mapping[str, Figure], folder: Path, *, prefix: str = ""
) -> dict[str, bytes]:
    """Writes figures as PNG and SVG.

    Args:
      drawn: figures by name.
      folder: directory to write into; created if needed.
      prefix: prepended to the names of the files.

    Returns:
      The SVG of each figure, by name.
    """
    images = {}
    for name, figure in drawn.items():
        images[name] = plot_style.render(figure, file_format="svg")
        png = plot_style.render(figure, file_format="png")
        metrics_log.write_atomically(folder / f"{prefix}{name}.svg", images[name])
        metrics_log.write_atomically(folder / f"{prefix}{name}.png", png)
    return images


def to_csv(table: pd.DataFrame) -> str:
    """Writes a table as CSV with all digits.

    Args:
      table: the table; its index is left out.
    """
    return table.to_csv(index=False, lineterminator="\n")


def _tables(
    runs: Sequence[RunRecords], groups: Sequence[Sequence[RunRecords]]
) -> dict[str, str]:
    """Returns the contents of all tables by the names of their files."""
    in_levels = [run for run in runs if not method_names.trains_once(run)]
    made = {}
    if in_levels:
        made["levels.csv"] = _levels_csv(in_levels)
        made["levels.md"] = _levels_markdown(in_levels)
    compared = any(contents.compares_methods(group) for group in groups)
    if compared or len(in_levels) < len(runs):
        made["methods.csv"] = _methods_csv(groups)
        made["methods.md"] = _methods_markdown(groups)
    for kind in stability.ABOUT:
        between = [stability.table(run, kind).assign(run=run.name) for run in runs]
        between = [table for table in between if len(table)]
        if between:
            made[f"{kind}.csv"] = to_csv(pd.concat(between))
    return made


def _levels_csv(runs: Sequence[RunRecords]) -> str:
    """Writes the table of levels; its headings contain the unit."""
    table = tables.levels_table(runs)
    for name in ("weights_remaining", "test_accuracy"):
        table.columns = table.columns.str.replace(name, f"{name}_percent")
    return to_csv(table)


def _levels_markdown(runs: Sequence[RunRecords]) -> str:
    """Writes the tables of levels and of paired differences in Markdown."""
    table = tables.levels_table(runs)
    parts = ["# Levels\n", f"{contents.spread(runs)}\n"]
    if table.empty:
        parts.append(f"{contents.nothing(runs)}\n")
    else:
        for run in runs:
            shown = formatting.show_variants(table.loc[table["run"] == run.name])
            parts.append(formatting.markdown(shown))
        parts += ["# Details\n", formatting.markdown(formatting.show_levels(table))]
    paired = tables.paired_table(runs)
    if not paired.empty:
        parts += ["# Ticket minus control, paired by replicate\n"]
        parts += [formatting.markdown(formatting.show_paired(paired))]
    return "\n".join(parts)


def _methods_csv(groups: Sequence[Sequence[RunRecords]]) -> str:
    """Writes the tables of methods; their headings contain the unit."""
    made = [methods.methods_table(group) for group in groups]
    if len(groups) > 1:
        made = [
            table.assign(trained=settings.title(group))
            for table, group in zip(made, groups, strict=True)
        ]
    table = pd.concat([table for table in made if len(table)] or made[:1])
    for name in ("^sparsity", "test_accuracy", "effective_sparsity", "explored"):
        heading = f"{name.removeprefix('^')}_percent"
        table.columns = table.columns.str.replace(name, heading, regex=True)
    return to_csv(table)


def _methods_markdown(groups: Sequence[Sequence[RunRecords]]) -> str:
    """Writes the tables of methods in Markdown, one for each group."""
    parts = []
    for group in groups:
        table = methods.methods_table(group)
        shown = f"{contents.nothing(group)}\n"
        if len(table):
            shown = formatting.markdown(formatting.show_methods(table))
        heading = f"# Methods: {settings.title(group)}\n"
        parts += [heading, f"{contents.spread(group)}\n", shown]
    return "\n".join(parts)
