"""Contents: what the page of a report says, section by section."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from jaxsparse.reports import (
    formatting,
    method_names,
    methods,
    report_figures,
    settings,
    stability,
    tables,
)
from jaxsparse.reports.html import document, picture, wide

NOTHING = "No level has finished yet.\n"


def write(
    groups: Sequence[Sequence[tables.RunRecords]],
    shared: Sequence[Mapping[str, bytes]],
    images: Mapping[str, bytes],
    notes: Sequence[tuple[str, str]],
) -> str:
    """Writes the page.

    Args:
      groups: of runs to compare.
      shared: figures of each group.
      images: figures of all runs, by `gallery.file_name`.
      notes: name and state of every run that has not ended.
    """
    runs = [run for group in groups for run in group]
    body = [_note(name, note, alone=len(runs) == 1) for name, note in notes]
    if len(groups) > 1:
        body.append(
            f"<p>These runs trained on {len(groups)} different datasets or networks, "
            "which are reported on one after the other.</p>\n"
        )
    for group, drawn in zip(groups, shared, strict=True):
        if len(groups) > 1:
            body.append(f"<h2>{escape(settings.title(group))}</h2>\n")
        body += ["<h3>What was trained</h3>\n", _trained(group)]
        if len(group) > 1:
            body.append(_side_by_side(group, drawn))
            body += ["<h3>Where the configurations differ</h3>\n", _differences(group)]
    body.append(f"<p>{escape(spread(runs))}</p>\n")
    called = method_names.of_runs(runs)
    for place, run in enumerate(runs):
        mine = {
            name: images.get(report_figures.file_name(name, place, len(runs)))
            for name in report_figures.CAPTIONS
        }
        body.append(_section(run, called[run.name], mine))
    return document(settings.title(runs), "".join(body))


def _note(name: str, note: str, *, alone: bool) -> str:
    """Writes at the top of the page that a run has not ended."""
    words = note if alone else f"{name}: {note}"
    return f'<p class="note"><strong>{escape(words)}</strong></p>\n'


def _trained(runs: Sequence[tables.RunRecords]) -> str:
    """Tabulates what runs trained; where they differ, with all that there is."""
    found = [settings.facts(run) for run in runs]
    rows = [("Method", method_names.series(runs).values())]
    for name in dict.fromkeys(name for facts in found for name in facts):
        rows.append((name, [facts.get(name, formatting.MISSING) for facts in found]))
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        f"<td>{escape('; '.join(dict.fromkeys(values)))}</td></tr>\n"
        for name, values in rows
    )
    return f'<table class="facts"><tbody>{body}</tbody></table>\n'


def _side_by_side(
    runs: Sequence[tables.RunRecords], images: Mapping[str, bytes | None]
) -> str:
    """Writes what the page says about several runs together."""
    parts = []
    if compares_methods(runs):
        table = methods.methods_table(runs)
        parts += ["<h3>Methods</h3>\n", wide(formatting.show_methods(table))]
        if table.empty:
            parts = ["<h3>Methods</h3>\n", f"<p>{NOTHING}</p>\n"]
    names = ("sparsity", "methods", "exploration", "densities", "comparison")
    return "".join([*parts, *(_figure(name, images) for name in names)])


def _section(
    run: tables.RunRecords, called: str, images: Mapping[str, bytes | None]
) -> str:
    """Writes what the page says about one run."""
    parts = [f"<h2>{escape(called)}</h2>\n"]
    parts.append(f"<p>{escape(run.name)}, {escape(settings.title([run]))}</p>\n")
    if run.failed:
        where = escape("; ".join(run.failed))
        parts.append(
            "<p><strong>Left out, as their loss ceased to be finite:</strong> "
            f"{where}.</p>\n"
        )
    if tables.levels_table([run]).empty:
        parts.append("<p><strong>No level has finished yet.</strong></p>\n")
    write_results = _of_training if method_names.trains_once(run) else _of_levels
    parts += [write_results(run, images), _stability(run, images)]
    parts += ["<h3>What was run</h3>\n", _facts(run)]
    config = escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    parts.append(
        f"<details><summary>Configuration</summary>\n<pre>{config}</pre></details>\n"
    )
    return "".join(parts)


def _of_levels(run: tables.RunRecords, images: Mapping[str, bytes | None]) -> str:
    """Writes what came of a run that prunes level by level."""
    table = tables.levels_table([run])
    paired = tables.paired_table([run])
    parts = [f"<p>{escape(sentence)}</p>\n" for sentence in formatting.summary(table)]
    parts += [_figure("accuracy", images), _figure("early_stop", images)]
    if not table.empty:
        parts += ["<h3>Test accuracy</h3>\n", wide(formatting.show_variants(table))]
        parts += ["<h3>Levels</h3>\n", wide(formatting.show_levels(table))]
    if not paired.empty:
        parts += [
            "<h3>Ticket minus control, paired by replicate</h3>\n",
            "<p>Test accuracy in percentage points; positive: the ticket is better."
            "</p>\n",
            wide(formatting.show_paired(paired)),
        ]
    if images["curves"] is not None:
        parts += ["<h3>Training</h3>\n", _figure("curves", images)]
    return "".join([*parts, _layers(run, images)])


def _of_training(run: tables.RunRecords, images: Mapping[str, bytes | None]) -> str:
    """Writes what came of a run that trains once."""
    parts = []
    table = methods.methods_table([run])
    if not table.empty:
        levels = tables.levels_table([run])
        sentences = formatting.method_summary(table.iloc[0], levels)
        parts += [f"<p>{escape(sentence)}</p>\n" for sentence in sentences]
        parts += ["<h3>Test accuracy</h3>\n", wide(formatting.show_methods(table))]
    if images["training"] is not None:
        parts += ["<h3>Training</h3>\n", _figure("training", images)]
    if images["exploration"] is not None:
        parts += ["<h3>Exploration</h3>\n", _figure("exploration", images)]
    return "".join([*parts, _layers(run, images)])


def _layers(run: tables.RunRecords, images: Mapping[str, bytes | None]) -> str:
    """Writes how much was left of each layer."""
    layers = tables.layers_table(run)
    drawn = _figure("layers", images) + _figure("history", images)
    if not (drawn or len(layers)):
        return ""
    parts = ["<h3>Layers</h3>\n", drawn]
    if len(layers):
        shown = formatting.show_layers(layers)
        if method_names.trains_once(run):
            shown = shown.drop(columns="Level")
        parts += ["<p>Weights remaining (%)</p>\n", wide(shown)]
    return "".join(parts)


def _stability(run: tables.RunRecords, images: Mapping[str, bytes | None]) -> str:
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
    return "" if image is None else picture(image, report_figures.CAPTIONS[name])


def _facts(run: tables.RunRecords) -> str:
    """Tabulates command, versions, devices, commit, levels finished and time."""
    # First, as it is what a reader will want to repeat.
    facts = {"command": run.environment.get("command", "not recorded")}
    facts |= flatten(run.environment)
    levels = tables.levels_table([run])
    for arm, rows in levels.groupby("arm", sort=False)["level"]:
        finished = ", ".join(str(level) for level in rows)
        facts[f"levels finished, {formatting.variant_label(str(arm))}"] = finished
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


def _differences(runs: Sequence[tables.RunRecords]) -> str:
    """Tabulates the fields in which the runs' configurations differ."""
    configs = [flatten(run.config) for run in runs]
    fields = dict.fromkeys(name for config in configs for name in config)
    values = {
        field: [_value(config.get(field, formatting.MISSING)) for config in configs]
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


def compares_methods(runs: Sequence[tables.RunRecords]) -> bool:
    """Says whether there are methods of sparse training to set side by side."""
    return len(runs) > 1 and any(method_names.is_sparse(run) for run in runs)


def spread(runs: Sequence[tables.RunRecords]) -> str:
    """Says which runs the numbers are of, and what ± stands for."""
    return (
        f"{settings.names(runs)}. Means ± sample standard deviation over n replicates; "
        "a single replicate has none.\n"
    )
