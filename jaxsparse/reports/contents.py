"""Contents: the chapters on the page of a report.

Runs that may be compared form a group. The page shows for each group what was trained
and the comparison of its runs, and then each run in a chapter of its own.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from jaxsparse.reports import (
    flop_costs,
    formatting,
    method_names,
    methods,
    records,
    report_figures,
    settings,
    stability,
    tables,
)
from jaxsparse.reports.html import Chapter, Part, Picture
from jaxsparse.reports.records import RunRecords

Images = Mapping[str, bytes]


def chapters(
    groups: Sequence[Sequence[RunRecords]],
    shared: Sequence[Images],
    images: Images,
    notes: Sequence[tuple[str, str]],
) -> list[Chapter]:
    """Makes the chapters of the page.

    Args:
      groups: groups of runs that are compared with each other.
      shared: figures of each group as SVG, by name.
      images: figures of all runs as SVG, by `report_figures.file_name`.
      notes: name and progress of every run that has not ended.
    """
    runs = [run for group in groups for run in group]
    made = [Chapter("", [_opening(groups, notes)])]
    for group, drawn in zip(groups, shared, strict=True):
        heading = settings.title(group) if len(groups) > 1 else ""
        made.append(Chapter(heading, _group(group, drawn)))
    made[-1] = made[-1]._replace(
        parts=[*made[-1].parts, Part(paragraphs=[spread(runs)])]
    )
    labels = method_names.of_runs(runs)
    for place, run in enumerate(runs):
        mine = {
            name: images[file]
            for name in report_figures.CAPTIONS
            if (file := report_figures.file_name(name, place, len(runs))) in images
        }
        made.append(Chapter(labels[run.name], _run(run, mine)))
    return made


def spread(runs: Sequence[RunRecords]) -> str:
    """Describes which runs the numbers are from, and what ± means.

    Args:
      runs: records of the runs.
    """
    return (
        f"{settings.names(runs)}. Means ± sample standard deviation over n replicates; "
        "a single replicate has none."
    )


def _opening(
    groups: Sequence[Sequence[RunRecords]], notes: Sequence[tuple[str, str]]
) -> Part:
    """Describes what the page is about, and which runs have not ended."""
    alone = sum(map(len, groups)) == 1
    lines = []
    if len(groups) > 1:
        lines.append(
            f"These runs trained on {len(groups)} different datasets or networks, "
            "which are reported on one after the other."
        )
    return Part(
        notes=[note if alone else f"{name}: {note}" for name, note in notes],
        paragraphs=lines,
    )


def _group(runs: Sequence[RunRecords], images: Images) -> list[Part]:
    """Describes what runs trained, and compares them."""
    parts = [Part("What was trained", table=_trained(runs), kind="facts")]
    if len(runs) == 1:
        return parts
    if compares_methods(runs):
        table = methods.methods_table(runs)
        shown = None if table.empty else formatting.show_methods(table)
        words = [nothing(runs)] if table.empty else []
        parts.append(Part("Methods", paragraphs=words, table=shown))
    names = ("sparsity", "methods", "flops", "exploration", "densities", "comparison")
    parts.append(Part(pictures=_pictures(images, *names)))
    different = _differences(runs)
    words = ["Nowhere."] if different.empty else []
    table = None if different.empty else different
    heading = "Where the configurations differ"
    parts.append(Part(heading, paragraphs=words, table=table))
    return parts


def compares_methods(runs: Sequence[RunRecords]) -> bool:
    """Returns whether runs are compared by method, and not level by level.

    Args:
      runs: records of the runs.
    """
    return len(runs) > 1 and (
        any(method_names.is_sparse(run) for run in runs)
        or all(method_names.trains_once(run) for run in runs)
    )


def nothing(runs: Sequence[RunRecords]) -> str:
    """Returns the note on runs without results.

    Args:
      runs: records of runs, none of which has results yet.
    """
    if all(method_names.trains_once(run) for run in runs):
        return "Training has not finished yet."
    return "No level has finished yet."


def _trained(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Tabulates what runs trained; where they differ, with all values."""
    found = [settings.facts(run) for run in runs]
    rows = {"Method": list(method_names.series(runs).values())}
    for name in dict.fromkeys(name for facts in found for name in facts):
        rows[name] = [facts.get(name, formatting.MISSING) for facts in found]
    return _facts({name: "; ".join(dict.fromkeys(v)) for name, v in rows.items()})


def _differences(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Tabulates the fields in which the configurations of runs differ."""
    configs = [flatten(run.config) for run in runs]
    fields = dict.fromkeys(name for config in configs for name in config)
    rows = [
        [field, *(_value(config.get(field, formatting.MISSING)) for config in configs)]
        for field in fields
    ]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return pd.DataFrame(rows, columns=["Field", *(run.name for run in runs)])


def _run(run: RunRecords, images: Images) -> list[Part]:
    """Describes one run: its results, its environment and its configuration."""
    notes = []
    if run.failed:
        where = "; ".join(run.failed)
        notes.append(f"Left out because of a non-finite loss: {where}.")
    if tables.levels_table([run]).empty:
        notes.append(nothing([run]))
    results = _of_training if method_names.trains_once(run) else _of_levels
    config = json.dumps(run.config, indent=2, ensure_ascii=False)
    return [
        Part(notes=notes, paragraphs=[f"{run.name}, {settings.title([run])}"]),
        *results(run, images),
        *_stability(run, images),
        Part("What was run", table=_environment(run), kind="facts"),
        Part(folded=("Configuration", config)),
    ]


def _of_levels(run: RunRecords, images: Images) -> list[Part]:
    """Describes the results of a run that prunes level by level."""
    table, paired = tables.levels_table([run]), tables.paired_table([run])
    sentences = formatting.summary(table)
    pictures = _pictures(images, "accuracy", "perplexity", "early_stop")
    parts = [Part(paragraphs=sentences, pictures=pictures)]
    if not table.empty:
        parts.append(Part("Test accuracy", table=formatting.show_variants(table)))
        parts.append(Part("Levels", table=formatting.show_levels(table)))
    if not paired.empty:
        words = "Test accuracy in percentage points; positive: the ticket is better."
        heading = "Ticket minus control, paired by replicate"
        shown = formatting.show_paired(paired)
        parts.append(Part(heading, paragraphs=[words], table=shown))
    costs = flop_costs.show(run)
    if len(costs):
        pictures = _pictures(images, "flops")
        parts.append(Part("FLOPs", pictures=pictures, table=costs))
    if "curves" in images:
        parts.append(Part("Training", pictures=_pictures(images, "curves")))
    return [*parts, *_layers(run, images)]


def _of_training(run: RunRecords, images: Images) -> list[Part]:
    """Describes the results of a run that trains once."""
    parts, table = [], methods.methods_table([run])
    if not table.empty:
        words = formatting.method_summary(table.iloc[0])
        parts.append(Part(paragraphs=words))
        parts.append(Part("Test accuracy", table=formatting.show_methods(table)))
    for heading in ("Training", "Exploration"):
        pictures = _pictures(images, heading.lower())
        if pictures:
            parts.append(Part(heading, pictures=pictures))
    return [*parts, *_layers(run, images)]


def _layers(run: RunRecords, images: Images) -> list[Part]:
    """Shows the fraction of each layer that remains."""
    pictures = _pictures(images, "layers", "history")
    layers = tables.layers_table(run)
    parts = [Part("Layers", pictures=pictures)] if pictures or len(layers) else []
    if len(layers):
        shown = formatting.show_layers(layers)
        if method_names.trains_once(run):
            shown = shown.drop(columns="Level")
        parts.append(Part(paragraphs=["Weights remaining (%)"], table=shown))
    return parts


def _stability(run: RunRecords, images: Images) -> list[Part]:
    """Shows error barriers between copies of a state, and between levels."""
    parts = []
    for kind, (heading, about) in stability.ABOUT.items():
        made = stability.table(run, kind)
        if len(made):
            shown = stability.show(made)
            parts.append(Part(heading, paragraphs=[about], table=shown))
    names = ("onset", "instability", "interpolation")
    return [*parts, Part(pictures=_pictures(images, *names))]


def _pictures(images: Images, *names: str) -> list[Picture]:
    """Returns those of the figures that were drawn, with their captions."""
    captions = report_figures.CAPTIONS
    return [Picture(images[name], captions[name]) for name in names if name in images]


def _environment(run: RunRecords) -> pd.DataFrame:
    """Tabulates command, versions, devices, commit, time, and levels finished."""
    # The command is first, because a reader will want to repeat it.
    facts = {"command": run.environment.get("command", "not recorded")}
    facts |= flatten(run.environment)
    once = method_names.trains_once(run)
    levels = tables.levels_table([] if once else [run])
    for variant, rows in levels.groupby("variant", sort=False)["level"]:
        finished = ", ".join(str(level) for level in rows)
        facts[f"levels finished, {formatting.variant_label(str(variant))}"] = finished
    times = records.frame([run], "timing")
    facts["training time, all stages"] = f"{times['seconds'].sum() / 3600:.2f} h"
    if times["programs"].notna().any():  # not recorded by older runs
        seconds, count = times["compile_seconds"].sum(), times["programs"].sum()
        facts["compilation"] = f"{seconds:.1f} s for {count:.0f} programs"
    for where in ("device", "host"):
        peak = times[f"peak_{where}_bytes"].max()
        if not pd.isna(peak):
            facts[f"peak memory, {where}"] = f"{peak / 2**20:,.0f} MiB"
    return _facts({name: _value(value) for name, value in facts.items()})


def _facts(facts: Mapping[str, str]) -> pd.DataFrame:
    """Makes a table of names and values."""
    return pd.DataFrame(facts.items(), columns=["Name", "Value"])


def flatten(nested: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings to dotted names.

    Args:
      nested: mappings and other values.
      prefix: prepended to every name.

    Examples:
      >>> flatten({"optimizer": {"momentum": 0.9}, "replicates": 3})
      {'optimizer.momentum': 0.9, 'replicates': 3}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, prefix=f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _value(value: Any) -> str:
    """Formats a value: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
