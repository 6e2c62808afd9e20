"""Figures: the measurements of the study, drawn."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.studies import claims as claims_lib
from experiments.studies import figures, tables
from experiments.studies.data_diet import claims
from experiments.studies.data_diet import measure as measure_lib
from experiments.studies.data_diet.variants import KINDS, SIZES, label
from jaxsparse.reports import plot_curves

Found = dict[str, Any]
LATE = "late test accuracy of tickets (%)"
MEASURES = {
    "mean_barrier": "mean barrier (nats)",
    "connected": f"connected fraction, up to {claims.CONNECTED:g} nats",
    "connected_0": "connected fraction, up to 0",
    "pretrained": "test accuracy after pre-training (%)",
    "instability": "instability (points of test error)",
    "sharpness_start": "largest eigenvalue after pre-training",
    "sharpness_end": "largest eigenvalue after dense training",
}
# Figures of late accuracy against a measure.
AGAINST = {
    "barrier": "mean_barrier",
    "connected": "connected",
    "pretrained": "pretrained",
    "sharpness": "sharpness_end",
}
CAPTIONS = {
    "levels": "Test accuracy of tickets by the weights remaining.",
    "sizes": (
        "Test accuracy of tickets in late levels, by the number of examples that the "
        "network was pre-trained on; horizontal lines: on all data."
    ),
    "barrier": (
        "Mean per-example barrier between dense networks that train from the rewind "
        "point of the tickets, and late test accuracy of the tickets; one point a "
        "variant, of which there are n, bars are s.d. over seeds."
    ),
    "connected": (
        "Fraction of training examples that are linearly mode connected, and late test "
        "accuracy of the tickets."
    ),
    "pretrained": (
        "Test accuracy after pre-training, and late test accuracy of the tickets."
    ),
    "sharpness": (
        "Largest eigenvalue of the Hessian of the dense training loss, on its first "
        "examples, and late test accuracy of the tickets."
    ),
    "barriers": "Per-example barriers of all pairs and seeds, as fractions.",
}


def draw(
    setting: str, scale: str, found: Found, title: str
) -> dict[str, Figure | None]:
    """Draws all figures; None for a figure without content.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      found: from `variants.arrange`.
      title: what was trained.
    """
    summary = variants_frame(found)
    return {
        "levels": draw_levels(levels_frame(found), title),
        "sizes": draw_sizes(setting, scale, found, title),
        **{
            name: draw_against(found, summary, measure, title)
            for name, measure in AGAINST.items()
        },
        "barriers": draw_barriers(found, title),
    }


def levels_frame(found: Found) -> pd.DataFrame:
    """Tabulates accuracies: one row for each variant, level and seed, in percent.

    Args:
      found: the measurements of the study.
    """
    return tables.concat(
        [
            tables.by_seed(
                {"level": entry["levels"], "remaining_percent": entry["remaining"]},
                {"ticket_percent": entry["ticket"]},
                variant=variant,
            )
            for variant, entry in found["variants"].items()
        ]
    )


def variants_frame(found: Found) -> pd.DataFrame:
    """Tabulates all measures: one row for each variant and seed.

    Args:
      found: the measurements of the study.
    """
    rows = []
    for variant, entry in found["variants"].items():
        late = claims.late(entry)
        for seed, accuracies in enumerate(entry["ticket"]):
            row = {"variant": variant, "seed": seed, "rewind": entry["rewind"]}
            row |= {"dense": accuracies[0], "late": late[seed], "last": accuracies[-1]}
            row |= {name: entry[name][seed] for name in MEASURES}
            rows.append(row)
    return pd.DataFrame(rows)


def _kind(variant: str) -> str:
    """Returns the kind of a variant's data, as a label."""
    kind = variant.partition("_")[0]
    return {"noise": "wrong labels"}.get(kind) or KINDS.get(kind, "all data")


def draw_levels(levels: pd.DataFrame, title: str) -> Figure | None:
    """Draws tickets of all data and of each kind of subset, one panel each.

    Args:
      levels: from `levels_frame`.
      title: what was trained.
    """
    table = pd.DataFrame(
        {
            "panel": levels["variant"].map(_kind),
            "label": levels["variant"].map(label),
            "replicate": levels["seed"],
            "x": levels["remaining_percent"],
            "y": levels["ticket_percent"],
        }
    )
    every = table.loc[table["panel"] == "all data"]
    others = [kind for kind in table["panel"].unique() if kind != "all data"]
    # All panels show the tickets of all data, for comparison.
    parts = [every.assign(panel=kind) for kind in others]
    return plot_curves.curves(
        pd.concat([every, *parts, table.loc[table["panel"] != "all data"]]),
        x="weights remaining (%)",
        y="test accuracy (%)",
        title=title,
        scale="remaining",
    )


def draw_sizes(setting: str, scale: str, found: Found, title: str) -> Figure | None:
    """Draws late accuracy by the size of the subset.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      found: from `variants.arrange`.
      title: what was trained.
    """
    sizes, parts = SIZES[scale][setting].subsets, []
    for variant, entry in found["variants"].items():
        kind, _, size = variant.partition("_")
        if kind == "noise":
            continue
        name = _kind(variant) if kind in KINDS else label(variant)
        places = [int(size)] if kind in KINDS else sizes
        late = np.repeat(claims.late(entry)[:, None], len(places), axis=1)
        parts.append(tables.lines(places, late, label=name))
    return plot_curves.curves(
        tables.concat(parts, plot_curves.COLUMNS),
        x="examples in pre-training",
        y=LATE,
        title=title,
        scale="log",
    )


def draw_against(
    found: Found, summary: pd.DataFrame, measure: str, title: str
) -> Figure | None:
    """Draws late accuracy against a measure, one point a variant.

    Args:
      found: from `variants.arrange`.
      summary: from `variants_frame`.
      measure: one of `MEASURES`.
      title: what was trained.
    """
    note = ""
    try:
        effect = claims.correlation(found, measure)
        p = min(effect.p, effect.p_against)
        note = f"rank correlation {effect.estimate:+.2f}, one-sided p = {p:.2g}"
    except claims_lib.NotMeasured:
        pass
    table = pd.DataFrame(
        {
            "label": summary["variant"].map(_kind),
            "point": summary["variant"],
            "x": summary[measure],
            "y": summary["late"],
        }
    )
    return figures.scatter(table, x=MEASURES[measure], y=LATE, title=title, note=note)


def draw_barriers(found: Found, title: str) -> Figure | None:
    """Draws the distribution of barriers: all data, and subsets of the usual size.

    Args:
      found: from `variants.arrange`.
      title: what was trained.
    """
    middles = (measure_lib.BINS[:-1] + measure_lib.BINS[1:]) / 2
    usual = [f"{kind}_{found['usual']}" for kind in KINDS]
    parts = []
    for variant in ("k0", "k1", "k2", *usual):
        if found["variants"].get(variant, {}).get("histogram"):
            counts = np.asarray(found["variants"][variant]["histogram"], float)
            shares = [counts[1:-1] / counts.sum()]
            parts.append(tables.lines(middles, shares, label=label(variant)))
    return plot_curves.curves(
        tables.concat(parts, plot_curves.COLUMNS),
        x="barrier (nats), bins of 0.5",
        y="fraction of examples",
        title=title,
        error="none",
    )
