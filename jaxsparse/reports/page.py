"""Page: one self-contained HTML file about one run, or about several.

`write` puts `index.html`, `levels.md`, `levels.csv` and the figures of `gallery` as PNG
and SVG into a folder, for methods of sparse training that are compared `methods.md` and
`methods.csv`, and of what was recorded between children or successive levels
`segment.csv` and `successive.csv`. The page embeds its figures and refers to nothing
outside itself, so it can be mailed. Every file appears whole or not at all.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import (
    contents,
    formatting,
    html,
    methods,
    plot_style,
    progress,
    report_figures,
    settings,
    stability,
    tables,
)
from jaxsparse.reports import folder as folder_lib


def write(
    workdirs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    together: bool = False,
) -> Path:
    """Reads runs and writes the report on them.

    Args:
      workdirs: work folders of one or more runs, finished or not. Those that differ in
        their seeds only are reported on as one run.
      out: folder to write into; made if need be.
      together: whether to compare runs on different data or networks in one table and
        figure; each dataset and network has its own otherwise.

    Returns:
      The page's path.

    Raises:
      ValueError: if a folder is not a run or its records cannot be read, or if there is
        a page in `out` that no report has written.
    """
    return write_runs(tables.read_runs(workdirs), out, together=together)


def write_runs(
    runs: Sequence[tables.RunRecords],
    out: str | os.PathLike[str],
    *,
    together: bool = False,
) -> Path:
    """Writes the report on runs that were read already; see `write`."""
    folder = Path(out)
    folder_lib.check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    notes = [(run.name, progress.unfinished(run)) for run in runs]
    notes = [(name, note) for name, note in notes if note]
    runs = progress.pool(runs)
    groups = [runs] if together else settings.alike(runs)
    shared = [
        write_figures(
            report_figures.compare(group), folder, prefix=_prefix(place, groups)
        )
        for place, group in enumerate(groups)
    ]
    images = write_figures(report_figures.draw(runs), folder)
    html.replace(folder / "levels.csv", _csv(runs))
    html.replace(folder / "levels.md", _markdown(runs))
    if any(contents.compares_methods(group) for group in groups):
        html.replace(folder / "methods.csv", _methods_csv(groups))
        html.replace(folder / "methods.md", _methods_markdown(groups))
    for kind in stability.ABOUT:
        between = pd.concat(
            [stability.table(run, kind).assign(run=run.name) for run in runs]
        )
        if len(between):
            csv = between.to_csv(index=False, lineterminator="\n")
            html.replace(folder / f"{kind}.csv", csv)
    html.replace(folder / "index.html", contents.write(groups, shared, images, notes))
    return folder / "index.html"


def _prefix(place: int, groups: Sequence[Any]) -> str:
    """Begins the names of the figures that compare a group of runs."""
    return f"group{place + 1}_" if len(groups) > 1 else ""


def write_figures(
    drawn: Mapping[str, Figure], folder: Path, *, prefix: str = ""
) -> dict[str, bytes]:
    """Writes figures as PNG and SVG.

    Args:
      drawn: figures by name.
      folder: where to write them; it exists.
      prefix: what file names begin with, before the figure's name.

    Returns:
      The SVG of each figure by name, for `picture`.
    """
    images = {}
    for name, figure in drawn.items():
        images[name] = plot_style.render(figure, file_format="svg")
        png = plot_style.render(figure, file_format="png")
        html.replace(folder / f"{prefix}{name}.svg", images[name])
        html.replace(folder / f"{prefix}{name}.png", png)
    return images


def _csv(runs: Sequence[tables.RunRecords]) -> str:
    """Writes the table of levels with all digits; its headings say the unit."""
    table = tables.levels_table(runs)
    for name in ("weights_remaining", "test_accuracy"):
        table.columns = table.columns.str.replace(name, f"{name}_percent")
    return table.to_csv(index=False, lineterminator="\n")


def _markdown(runs: Sequence[tables.RunRecords]) -> str:
    """Writes the tables of levels and of paired differences in Markdown."""
    table = tables.levels_table(runs)
    parts = ["# Levels\n", contents.spread(runs)]
    if table.empty:
        parts += [contents.NOTHING]
    else:
        parts += [
            formatting.markdown(
                formatting.show_variants(table.loc[table["run"] == run.name])
            )
            for run in runs
        ]
        parts += ["# Details\n", formatting.markdown(formatting.show_levels(table))]
    paired = tables.paired_table(runs)
    if not paired.empty:
        parts += ["# Ticket minus control, paired by replicate\n"]
        parts += [formatting.markdown(formatting.show_paired(paired))]
    return "\n".join(parts)


def _methods_csv(groups: Sequence[Sequence[tables.RunRecords]]) -> str:
    """Writes the tables of methods with all digits; its headings say the unit."""
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
    return table.to_csv(index=False, lineterminator="\n")


def _methods_markdown(groups: Sequence[Sequence[tables.RunRecords]]) -> str:
    """Writes the tables of methods in Markdown, one a group."""
    parts = []
    for group in groups:
        table = methods.methods_table(group)
        heading = f"# Methods: {settings.title(group)}\n"
        shown = (
            formatting.markdown(formatting.show_methods(table))
            if len(table)
            else contents.NOTHING
        )
        parts += [heading, contents.spread(group), shown]
    return "\n".join(parts)
