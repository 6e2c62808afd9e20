"""Page: one self-contained HTML file about one run, or about several.

`write` puts `index.html`, `levels.md`, `levels.csv` and the figures as PNG and SVG
into a folder. The page embeds its figures and refers to nothing outside itself, so
it can be mailed. Every file appears whole or not at all.
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

from jaxsparse.reports import drawing, figures, tables, text

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
img { max-width: 100%; height: auto; } figure { margin: 1.5rem 0; }
figcaption { color: #555; } summary { cursor: pointer; margin: .5rem 0; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; }
"""
_CAPTIONS = {
    "comparison": "Test accuracy of the tickets of all runs against weights remaining.",
    "accuracy": "Test accuracy after training against weights remaining.",
    "early_stop": "Step of the least validation loss against weights remaining.",
    "layers": "Weights remaining in each layer of the ticket, by level.",
    "curves": "Training of the tickets at a few levels.",
}


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
    drawn = _draw_all(runs)
    images = {}
    for name, figure in drawn.items():
        images[name] = drawing.render(figure, file_format="svg")
        png = drawing.render(figure, file_format="png")
        _replace(folder / f"{name}.svg", images[name])
        _replace(folder / f"{name}.png", png)
    _replace(folder / "levels.csv", _csv(runs))
    _replace(folder / "levels.md", _markdown(runs))
    _replace(folder / "index.html", _page(runs, images))
    return folder / "index.html"


def _replace(path: Path, content: bytes | str) -> None:
    """Writes a file so that no reader ever sees half of it."""
    if isinstance(content, str):
        content = content.encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw_all(runs: Sequence[tables.Run]) -> dict[str, Figure]:
    """Draws every figure there are records for, by the name of its files."""
    drawn = {}
    if len(runs) > 1:
        levels = tables.levels_table(runs)
        if (levels["arm"] == tables.TICKET).any():
            drawn["comparison"] = figures.comparison(levels, title="tickets")
    for place, run in enumerate(runs):
        for name, figure in _draw(run).items():
            drawn[_figure_name(name, place, len(runs))] = figure
    return drawn


def _figure_name(name: str, place: int, count: int) -> str:
    """Names a run's figure; by the run's place, as its name may be any string."""
    return name if count == 1 else f"run{place + 1}_{name}"


def _draw(run: tables.Run) -> dict[str, Figure]:
    """Draws the figures of one run."""
    table = tables.levels_table([run])
    layers = tables.layers_table(run)
    drawn = {}
    if table["test_accuracy"].notna().any():
        drawn["accuracy"] = figures.accuracy(table, title=run.name)
    if table["early_stop_step"].notna().any():
        drawn["early_stop"] = figures.early_stop(table, title=run.name)
    if len(layers):
        drawn["layers"] = figures.layers(layers, title=run.name)
    if not tables.frame([run], "train").query("arm == 'ticket'").empty:
        drawn["curves"] = figures.curves(run, title=run.name)
    return drawn


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
        parts += ["No level has finished yet.\n"]
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


def _spread(runs: Sequence[tables.Run]) -> str:
    """Says which runs the numbers are of, and what ± stands for."""
    names = ", ".join(run.name for run in runs)
    return (
        f"{names}. Means ± sample standard deviation over n replicates; a single "
        "replicate has none.\n"
    )


def _page(runs: Sequence[tables.Run], images: Mapping[str, bytes]) -> str:
    """Writes the page."""
    title = escape("Report: " + ", ".join(run.name for run in runs))
    body = [f"<h1>{title}</h1>\n", f"<p>{escape(_spread(runs))}</p>\n"]
    if len(runs) > 1:
        body += ["<h2>The runs side by side</h2>\n", _figure("comparison", images)]
        body += ["<h3>Where the configurations differ</h3>\n", _differences(runs)]
    for place, run in enumerate(runs):
        names = {name: _figure_name(name, place, len(runs)) for name in _CAPTIONS}
        body.append(_section(run, {name: images.get(names[name]) for name in names}))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(body)}</body>\n</html>\n"
    )


def _section(run: tables.Run, images: Mapping[str, bytes | None]) -> str:
    """Writes what the page says about one run."""
    table = tables.levels_table([run])
    paired = tables.paired_table([run])
    layers = tables.layers_table(run)
    parts = [f"<h2>{escape(run.name)}</h2>\n"]
    if table.empty:
        parts.append("<p><strong>No level has finished yet.</strong></p>\n")
    parts += [f"<p>{escape(sentence)}</p>\n" for sentence in text.summary(table)]
    parts += [_figure("accuracy", images), _figure("early_stop", images)]
    if not table.empty:
        parts += ["<h3>Test accuracy</h3>\n", _wide(text.show_arms(table))]
        parts += ["<h3>Levels</h3>\n", _wide(text.show_levels(table))]
    if not paired.empty:
        parts += [
            "<h3>Ticket minus control, paired by replicate</h3>\n",
            "<p>Test accuracy in percentage points; positive: the ticket is better."
            "</p>\n",
            _wide(text.show_paired(paired)),
        ]
    if images["curves"] is not None:
        parts += ["<h3>Training</h3>\n", _figure("curves", images)]
    if not layers.empty:
        parts += ["<h3>Layers</h3>\n", _figure("layers", images)]
        parts += ["<p>Weights remaining (%)</p>\n", _wide(text.show_layers(layers))]
    parts += ["<h3>What was run</h3>\n", _facts(run)]
    config = escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    parts.append(
        "<details open><summary>Configuration</summary>\n"
        f"<pre>{config}</pre></details>\n"
    )
    return "".join(parts)


def _figure(name: str, images: Mapping[str, bytes | None]) -> str:
    """Embeds a figure; nothing if it was not drawn."""
    image = images.get(name)
    if image is None:
        return ""
    data = base64.b64encode(image).decode()
    caption = escape(_CAPTIONS[name])
    return (
        f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">\n'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _wide(shown: pd.DataFrame) -> str:
    """Lays out a table that may be wider than the page."""
    return f'<div class="wide">{text.html(shown)}</div>\n'


def _facts(run: tables.Run) -> str:
    """Tabulates command, versions, devices, commit, levels finished and time."""
    # First, as it is what a reader will want to repeat.
    facts = {"command": run.environment.get("command", "not recorded")}
    facts |= flatten(run.environment)
    levels = tables.levels_table([run])
    for arm, rows in levels.groupby("arm", sort=False)["level"]:
        finished = ", ".join(str(level) for level in rows)
        facts[f"levels finished, {text.arm_label(str(arm))}"] = finished
    hours = tables.frame([run], "time")["seconds"].sum() / 3600
    facts["training time, all stages"] = f"{hours:.2f} h"
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
    return _wide(pd.DataFrame(rows, columns=["Field", *(run.name for run in runs)]))


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
