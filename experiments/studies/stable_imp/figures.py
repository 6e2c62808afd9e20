"""Figures of the study."""

from typing import Any

import numpy as np

from experiments.studies.stable_imp import claims, variants
from jaxsparse.reports import plot_curves, study_figures

Found = dict[str, Any]
CAPTIONS = {
    "onset": (
        "Instability, of test error in percentage points, between children that begin "
        "at an update of training and differ in the order of data only."
    ),
    "onset_segments": "Test error between two children, by the update they begin at.",
    "rounds": (
        "Test accuracy of tickets rewound to initialisation and of the same masks with "
        "fresh weights, by the weights remaining."
    ),
    "stability": (
        "Instability of rounds, and how far the test error rises between a round and "
        "the one before, in percentage points."
    ),
    "angles": (
        "Angular distance between the solutions of rounds, over the weights that both "
        "have, in right angles, averaged over seeds; the last row and column are the "
        "initialisation."
    ),
    "thresholds": (
        "Largest magnitude that was pruned after each round: the pruning threshold."
    ),
    "histogram": (
        "Weights of the first seed at the round next to 10.7 % remaining; lines: where "
        "they are cut next."
    ),
}


def draw(network: str, scale: str, found: Found, *, title: str) -> dict[str, Any]:
    """Draws what there is; None for a figure without anything to show."""
    of = {
        variants.label(arm, network, scale): entry
        for arm, entry in found["arms"].items()
    }
    return _of_onset(found.get("onset", []), title) | {
        "rounds": _accuracies(of, title),
        "stability": _stability(of, title),
        "angles": _angles(of, title),
        "thresholds": plot_curves.curves(
            [
                plot_curves.Panel(
                    "",
                    [
                        plot_curves.Curve(name, e["remaining"][:-1], e["thresholds"])
                        for name, e in of.items()
                    ],
                )
            ],
            x="weights remaining (%)",
            y="pruning threshold",
            title=title,
            scale="remaining",
        ),
        "histogram": _histogram(of, title),
    }


def _of_onset(onset: list[Found], title: str) -> dict[str, Any]:
    curves = [
        plot_curves.Curve(
            "dense" if line["level"] == 0 else f"round {line['level']}",
            line["steps"],
            line["instability"],
        )
        for line in onset
    ]
    threshold = (claims.STABLE, "stable below 2")
    segments = [
        plot_curves.Panel(
            "dense" if line["level"] == 0 else f"round {line['level']}",
            [
                plot_curves.Curve(f"from {part['step']}", part["alphas"], part["error"])
                for part in line["segments"]
            ],
        )
        for line in onset
    ]
    return {
        "onset": plot_curves.curves(
            [plot_curves.Panel("", curves, threshold)],
            x="update at which children begin",
            y="instability (points)",
            title=title,
            scale="steps",
        ),
        "onset_segments": plot_curves.segments(segments, title=title, ordered=True),
    }


def _accuracies(of: dict[str, Found], title: str) -> Any:
    panels = []
    for name, entry in of.items():
        lines = [
            plot_curves.Curve("tickets", entry["remaining"], entry["ticket"]),
            plot_curves.Curve(
                "reinitialised", entry["remaining"], entry["reinitialized"]
            ),
        ]
        panels.append(plot_curves.Panel(name, lines))
    return plot_curves.curves(
        panels,
        x="weights remaining (%)",
        y="test accuracy (%)",
        title=title,
        scale="remaining",
    )


def _stability(of: dict[str, Found], title: str) -> Any:
    threshold = (claims.STABLE, "stable below 2")
    children, rises = [], []
    for name, entry in of.items():
        at = dict(zip(entry["levels"], entry["remaining"], strict=True))
        levels = sorted(map(int, entry["instability"]))
        if levels:
            by = {int(k): v for k, v in entry["instability"].items()}
            values = np.asarray([by[level] for level in levels]).T
            places = [at[level] for level in levels]
            children.append(plot_curves.Curve(name, places, values))
        if entry["successive_levels"]:
            places = [at[level] for level in entry["successive_levels"]]
            rises.append(plot_curves.Curve(name, places, entry["successive"]))
    return plot_curves.curves(
        [
            plot_curves.Panel("children of a round", children, threshold),
            plot_curves.Panel("a round and the one before", rises, threshold),
        ],
        x="weights remaining (%)",
        y="rise of the test error (points)",
        title=title,
        scale="remaining",
    )


def _angles(of: dict[str, Found], title: str) -> Any:
    if not of:
        return None
    entries = {name: np.mean(e["angles"], axis=0) for name, e in of.items()}
    labels = max((e["labels"] for e in of.values()), key=len)
    alike = {name: m for name, m in entries.items() if len(m) == len(labels)}
    top = max(1.0, *(float(np.max(m)) for m in alike.values()))
    measure = study_figures.Measure("right angles", alike, (0.0, top))
    return study_figures.matrices([measure], labels=labels, axis="round", title=title)


def _histogram(of: dict[str, Found], title: str) -> Any:
    """Draws the weights at the round that is next to 10.7 % remaining."""
    entries = []
    for name, entry in of.items():
        levels = entry["remaining"][: len(entry["thresholds"][0])]
        if not levels:
            continue
        place = int(np.argmin(np.abs(np.log(np.asarray(levels) / 10.7))))
        counts = np.asarray(entry["histograms"][place]["counts"])
        own = np.asarray(entry["histograms"][place]["edges"])
        values = np.repeat((own[:-1] + own[1:]) / 2, counts)
        threshold = entry["thresholds"][0][place]
        entries.append(study_figures.Values(name, values, threshold))
    return study_figures.histograms(entries, x="weight", title=title, bins=60)
