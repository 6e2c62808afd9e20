"""Page: one self-contained HTML file about one run, or about several.

`write` puts `index.html`, `levels.md`, `levels.csv` and the figures of `gallery` as PNG
and SVG into a folder, for methods of sparse training that are compared `methods.md` and
`methods.csv`, and of what was recorded between children or successive levels
`segment.csv` and `successive.csv`. The page embeds its figures and refers to nothing
outside itself, so it can be mailed. Every file appears whole or not at all.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import (
    drawing,
    gallery,
    labels,
    methods,
    stability,
    tables,
    text,
)

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
h2 { border-bottom: 1px solid #ccc; padding-bottom: .3rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #222; } td { border-bottom: 1px solid #e5e5e5; }
table.facts td { text-align: left; white-space: pre-wrap; overflow-wrap: anywhere; }
table.words th, table.words td { text-align: left; white-space: normal;
  vertical-align: top; }
table.numbers th { white-space: normal; vertical-align: bottom; }
table.numbers th, table.numbers td { padding: .2rem .3rem; }
img { max-width: 100%; height: auto; } figure { margin: 1.5rem 0; }
figcaption { color: #555; } summary { cursor: pointer; margin: .5rem 0; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; }
"""
_NOTHING = "No level has finished yet.\n"


def write(
    workdirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]
) -> Path:
    """Reads runs and writes the report on them.

    Args:
      workdirs: work folders of one or more runs, finished or not.
      out: folder to write into; made if need be.

    Returns:
      The page's path.

    Raises:
      ValueError: if a folder is not a run or its records cannot be read.
    """
    return write_runs(tables.read_runs(workdirs), out)


def write_runs(runs: Sequence[tables.Run], out: str | os.PathLike[str]) -> Path:
    """Writes the report on runs that were read already; see `write`."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    images = write_figures(gallery.draw(runs), folder)
    replace(folder / "levels.csv", _csv(runs))
    replace(folder / "levels.md", _markdown(runs))
    if _compares_methods(runs):
        replace(folder / "methods.csv", _methods_csv(runs))
        replace(folder / "methods.md", _methods_markdown(runs))
    for kind in stability.ABOUT:
        between = pd.concat(
            [stability.table(run, kind).assign(run=run.name) for run in runs]
        )
        if len(between):
            csv = between.to_csv(index=False, lineterminator="\n")
            replace(folder / f"{kind}.csv", csv)
    replace(folder / "index.html", _page(runs, images))
    return folder / "index.html"


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
        images[name] = drawing.render(figure, file_format="svg")
        png = drawing.render(figure, file_format="png")
        replace(folder / f"{prefix}{name}.svg", images[name])
        replace(folder / f"{prefix}{name}.png", png)
    return images


def replace(path: Path, content: bytes | str) -> None:
    """Writes a file so that no reader ever sees half of it."""
    if isinstance(content, str):
        content = content.encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _csv(runs: Sequence[tables.Run]) -> str:
    """Writes the table of levels with all digits; its headings say the unit."""
    table = tables.levels_table(runs)
    for name in ("weights_remaining", "test_accuracy"):
        table.columns = table.columns.str.replace(name, f"{name}_percent")
    return table.to_csv(index=False, lineterminator="\n")


def _markdown(runs: Sequence[tables.Run]) -> str:
    """Writes the tables of levels and of paired differences in Markdown."""
    table = tables.levels_table(runs)
    parts = ["# Levels\n", _spread(runs)]
    if table.empty:
        parts += [_NOTHING]
    else:
        parts += [
            text.markdown(text.show_arms(table.loc[table["run"] == run.name]))
            for run in runs
        ]
        parts += ["# Details\n", text.markdown(text.show_levels(table))]
    paired = tables.paired_table(runs)
    if not paired.empty:
        parts += ["# Ticket minus control, paired by replicate\n"]
        parts += [text.markdown(text.show_paired(paired))]
    return "\n".join(parts)


def _compares_methods(runs: Sequence[tables.Run]) -> bool:
    """Says whether there are methods of sparse training to set side by side."""
    return len(runs) > 1 and any(labels.is_sparse(run) for run in runs)


def _methods_csv(runs: Sequence[tables.Run]) -> str:
    """Writes the table of methods with all digits; its headings say the unit."""
    table = methods.methods_table(runs)
    for name in ("^sparsity", "test_accuracy", "effective_sparsity", "explored"):
        heading = f"{name.removeprefix('^')}_percent"
        table.columns = table.columns.str.replace(name, heading, regex=True)
    return table.to_csv(index=False, lineterminator="\n")


def _methods_markdown(runs: Sequence[tables.Run]) -> str:
    """Writes the table of methods in Markdown."""
    table = methods.methods_table(runs)
    shown = text.markdown(text.show_methods(table))
    return "\n".join(["# Methods\n", _spread(runs), shown if len(table) else _NOTHING])


def _spread(runs: Sequence[tables.Run]) -> str:
    """Says which runs the numbers are of, and what ± stands for."""
    names = ", ".join(run.name for run in runs)
    return (
        f"{names}. Means ± sample standard deviation over n replicates; a single "
        "replicate has none.\n"
    )


def _page(runs: Sequence[tables.Run], images: Mapping[str, bytes]) -> str:
    """Writes the page."""
    body = [f"<p>{escape(_spread(runs))}</p>\n"]
    if len(runs) > 1:
        body += ["<h2>The runs side by side</h2>\n", _side_by_side(runs, images)]
        body += ["<h3>Where the configurations differ</h3>\n", _differences(runs)]
    for place, run in enumerate(runs):
        mine = {
            name: images.get(gallery.file_name(name, place, len(runs)))
            for name in gallery.CAPTIONS
        }
        body.append(_section(run, mine))
    title = "Report: " + ", ".join(run.name for run in runs)
    return document(title, "".join(body))


def document(title: str, body: str) -> str:
    """Writes a page around its body.

    Args:
      title: plain text, for the heading too.
      body: HTML.

    Returns:
      HTML that refers to nothing outside itself if its body does not.
    """
    title = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )


def _side_by_side(
    runs: Sequence[tables.Run], images: Mapping[str, bytes | None]
) -> str:
    """Writes what the page says about several runs together."""
    parts = []
    if _compares_methods(runs):
        table = methods.methods_table(runs)
        parts += ["<h3>Methods</h3>\n", wide(text.show_methods(table))]
        if table.empty:
            parts = ["<h3>Methods</h3>\n", f"<p>{_NOTHING}</p>\n"]
    names = ("methods", "exploration", "densities", "comparison")
    return "".join([*parts, *(_figure(name, images) for name in names)])


def _section(run: tables.Run, images: Mapping[str, bytes | None]) -> str:
    """Writes what the page says about one run."""
    parts = [f"<h2>{escape(run.name)}</h2>\n"]
    if tables.levels_table([run]).empty:
        parts.append("<p><strong>No level has finished yet.</strong></p>\n")
    write_results = _of_training if labels.trains_once(run) else _of_levels
    parts += [write_results(run, images), _stability(run, images)]
    parts += ["<h3>What was run</h3>\n", _facts(run)]
    config = escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    parts.append(
        "<details open><summary>Configuration</summary>\n"
        f"<pre>{config}</pre></details>\n"
    )
    return "".join(parts)


def _of_levels(run: tables.Run, images: Mapping[str, bytes | None]) -> str:
    """Writes what came of a run that prunes level by level."""
    table = tables.levels_table([run])
    paired = tables.paired_table([run])
    parts = [f"<p>{escape(sentence)}</p>\n" for sentence in text.summary(table)]
    parts += [_figure("accuracy", images), _figure("early_stop", images)]
    if not table.empty:
        parts += ["<h3>Test accuracy</h3>\n", wide(text.show_arms(table))]
        parts += ["<h3>Levels</h3>\n", wide(text.show_levels(table))]
    if not paired.empty:
        parts += [
            "<h3>Ticket minus control, paired by replicate</h3>\n",
            "<p>Test accuracy in percentage points; positive: the ticket is better."
            "</p>\n",
            wide(text.show_paired(paired)),
        ]
    if images["curves"] is not None:
        parts += ["<h3>Training</h3>\n", _figure("curves", images)]
    return "".join([*parts, _layers(run, images)])


def _of_training(run: tables.Run, images: Mapping[str, bytes | None]) -> str:
    """Writes what came of a run that trains once."""
    parts = []
    table = methods.methods_table([run])
    if not table.empty:
        levels = tables.levels_table([run])
        sentences = text.method_summary(table.iloc[0], levels)
        parts += [f"<p>{escape(sentence)}</p>\n" for sentence in sentences]
        parts += ["<h3>Test accuracy</h3>\n", wide(text.show_methods(table))]
    if images["training"] is not None:
        parts += ["<h3>Training</h3>\n", _figure("training", images)]
    if images["exploration"] is not None:
        parts += ["<h3>Exploration</h3>\n", _figure("exploration", images)]
    return "".join([*parts, _layers(run, images)])


def _layers(run: tables.Run, images: Mapping[str, bytes | None]) -> str:
    """Writes how much was left of each layer."""
    layers = tables.layers_table(run)
    drawn = _figure("layers", images) + _figure("history", images)
    if not (drawn or len(layers)):
        return ""
    parts = ["<h3>Layers</h3>\n", drawn]
    if len(layers):
        shown = text.show_layers(layers)
        if labels.trains_once(run):
            shown = shown.drop(columns="Level")
        parts += ["<p>Weights remaining (%)</p>\n", wide(shown)]
    return "".join(parts)


def _stability(run: tables.Run, images: Mapping[str, bytes | None]) -> str:
    """Writes what lies between children of one state, and from level to level."""
    parts = []
    for kind, (heading, about) in stability.ABOUT.items():
        made = stability.table(run, kind)
        if len(made):
            parts += [f"<h3>{escape(heading)}</h3>\n", f"<p>{escape(about)}</p>\n"]
            parts.append(wide(stability.show(made)))
    names = ("onset", "instability", "segments")
    return "".join([*parts, *(_figure(name, images) for name in names)])


def _figure(name: str, images: Mapping[str, bytes | None]) -> str:
    """Embeds a figure; nothing if it was not drawn."""
    image = images.get(name)
    return "" if image is None else picture(image, gallery.CAPTIONS[name])


def picture(image: bytes, caption: str) -> str:
    """Embeds an SVG under its caption."""
    data = base64.b64encode(image).decode()
    caption = escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">\n'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def wide(shown: pd.DataFrame, *, kind: str = "") -> str:
    """Lays out a table that may be wider than the page.

    Args:
      shown: text with headings.
      kind: "words" where cells hold sentences, which are then broken into lines, and
        "numbers" where only headings are to be broken.
    """
    return f'<div class="wide">{text.html(shown, kind=kind)}</div>\n'


def _facts(run: tables.Run) -> str:
    """Tabulates command, versions, devices, commit, levels finished and time."""
    # First, as it is what a reader will want to repeat.
    facts = {"command": run.environment.get("command", "not recorded")}
    facts |= flatten(run.environment)
    levels = tables.levels_table([run])
    for arm, rows in levels.groupby("arm", sort=False)["level"]:
        finished = ", ".join(str(level) for level in rows)
        facts[f"levels finished, {text.arm_label(str(arm))}"] = finished
    times = tables.frame([run], "time")
    facts["training time, all stages"] = f"{times['seconds'].sum() / 3600:.2f} h"
    if times["programs"].notna().any():  # older runs do not say
        seconds, count = times["compile_seconds"].sum(), times["programs"].sum()
        facts["compilation"] = f"{seconds:.1f} s for {count:.0f} programs"
    for where in ("device", "host"):
        peak = times[f"peak_{where}_bytes"].max()
        if peak == peak:
            facts[f"peak memory, {where}"] = f"{peak / 2**20:,.0f} MiB"
    cells = [(escape(name), escape(_value(facts[name]))) for name in facts]
    body = "".join(f"<tr><td>{a}</td><td>{b}</td></tr>\n" for a, b in cells)
    return f'<table class="facts"><tbody>{body}</tbody></table>\n'


def _differences(runs: Sequence[tables.Run]) -> str:
    """Tabulates the fields in which the runs' configurations differ."""
    configs = [flatten(run.config) for run in runs]
    fields = dict.fromkeys(name for config in configs for name in config)
    values = {
        field: [_value(config.get(field, text.MISSING)) for config in configs]
        for field in fields
    }
    rows = [[field, *row] for field, row in values.items() if len(set(row)) > 1]
    if not rows:
        return "<p>Nowhere.</p>\n"
    return wide(pd.DataFrame(rows, columns=["Field", *(run.name for run in runs)]))


def flatten(nested: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings to dotted names such as "optimizer.momentum"."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, prefix=f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _value(value: Any) -> str:
    """Writes a value for a reader: strings bare, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
