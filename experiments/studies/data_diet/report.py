"""Report: the section of the study on a network."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.studies import claims as claims_lib
from experiments.studies import figures
from experiments.studies import report as report_lib
from experiments.studies.data_diet import analysis, claims, published
from experiments.studies.data_diet.variants import KINDS, SIZES, label
from jaxsparse.reports import formatting, plot_curves

Found = dict[str, Any]
TITLES = {
    "mnist": dict.fromkeys(("quick", "cpu", "full"), "LeNet-300-100 on MNIST"),
    "cifar": {
        "quick": "LeNet-5 on 1,000 images of CIFAR-10",
        "cpu": "LeNet-5 on 5,000 images of CIFAR-10",
        "full": "ResNet-20 on CIFAR-10",
    },
}
PUBLISHED = (62_400, 20)  # updates and levels of ResNet-20 on CIFAR-10
PUBLISHED_SCORED = 7_800  # updates of the networks that score
WRITTEN = (
    "All thresholds were written before any run of this study. Variants with wrong "
    "labels were added to the scale `cpu` when its other runs on MNIST were known."
)
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
LATE = "late test accuracy of tickets (%)"


def section(network: str, scale: str, found: Found) -> report_lib.Section:
    """Makes the section of the report on a network.

    Args:
      network: one of `variants.NETWORKS`.
      scale: one of `studies.SCALES`.
      found: from `analysis.measure`.
    """
    levels, summary = levels_frame(found), variants_frame(found)
    ranks, title = ranks_frame(found), TITLES[network][scale]
    return report_lib.Section(
        name=network,
        title=title,
        lines=_lines(network, scale, found),
        claims=claims_lib.judge(claims.CLAIMS, found),
        about_claims=WRITTEN,
        tables=[
            report_lib.Table(
                "Tickets",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds: of the dense network, of tickets in late levels and at the "
                "last level; and measures of the dense network. Connected: percent of "
                "training examples with a barrier of at most "
                f"{claims.CONNECTED:g} nats.",
                show_variants(summary),
            ),
            report_lib.Table(
                "Beside the published",
                "Gain of tickets over those of 0 updates with as many weights "
                "remaining, in points of test accuracy, seed by seed; in brackets the "
                "published gain of ResNet-20 on CIFAR-10, for as large a part of the "
                "data.",
                published.show(found),
            ),
            report_lib.Table(
                "What predicts tickets",
                "Spearman's rank correlation over variants with the late accuracy of "
                "tickets, two-sided p. Eigenvalues are of the Hessian of the dense "
                f"training loss on the first {analysis.HESSIAN_EXAMPLES[scale]:,} "
                "examples.",
                show_ranks(ranks),
            ),
            report_lib.Table(
                "Connected examples by class",
                f"Percent with a barrier of at most {claims.CONNECTED:g} nats, of all "
                "pairs and seeds.",
                show_classes(found),
                long=True,
            ),
            report_lib.Table(
                "Levels",
                "Test accuracy of tickets in percent.",
                show_levels(levels),
                long=True,
            ),
        ],
        frames={"levels": levels, "variants": summary, "ranks": ranks},
        figures={
            "levels": draw_levels(levels, title),
            "sizes": draw_sizes(network, scale, found, title),
            **{
                name: draw_against(found, summary, measure, title)
                for name, measure in AGAINST.items()
            },
            "barriers": draw_barriers(found, title),
        },
        captions=CAPTIONS,
    )


def _lines(network: str, scale: str, found: Found) -> list[str]:
    """Compares the length of training with the published one."""
    entry, k = next(iter(found["variants"].values())), SIZES[scale][network].k
    steps, most = PUBLISHED
    lines = [
        f"{entry['steps']:,} updates a level ({entry['epochs']:g} epochs), "
        f"{entry['levels'][-1]} levels, k = {k}, {len(entry['ticket'])} seeds.",
        f"Published are {steps:,} updates ({entry['steps'] / steps:.1%} of them here), "
        f"{most} levels and k = {SIZES['full']['cifar'].k}, of ResNet-20 on "
        "all of CIFAR-10."
        + (" The paper has nothing on MNIST." if network == "mnist" else ""),
    ]
    if "scored" in found:
        count, updates = found["scored"]
        lines.append(
            f"Examples were scored by {count} other networks after {updates:,} "
            f"updates; published are 16 after {PUBLISHED_SCORED:,} "
            f"({updates / PUBLISHED_SCORED:.1%} here)."
        )
    lines.append(claims_lib.describe_interpolations(*entry["interpolation"]))
    return [*lines, *claims_lib.unfinished(found)]


def levels_frame(found: Found) -> pd.DataFrame:
    """Tabulates accuracies: one row for each variant, level and seed, in percent."""
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "level": level,
                "remaining_percent": entry["remaining"][i],
                "seed": seed,
                "ticket_percent": accuracies[i],
            }
            for variant, entry in found["variants"].items()
            for seed, accuracies in enumerate(entry["ticket"])
            for i, level in enumerate(entry["levels"])
        ]
    )


def variants_frame(found: Found) -> pd.DataFrame:
    """Tabulates all measures: one row for each variant and seed."""
    rows = []
    for variant, entry in found["variants"].items():
        late = claims.late(entry)
        for seed, accuracies in enumerate(entry["ticket"]):
            row = {"variant": variant, "seed": seed, "rewind": entry["rewind"]}
            row |= {"dense": accuracies[0], "late": late[seed], "last": accuracies[-1]}
            row |= {name: entry[name][seed] for name in MEASURES}
            rows.append(row)
    return pd.DataFrame(rows)


def ranks_frame(found: Found) -> pd.DataFrame:
    """Tabulates rank correlations of measures with late accuracy, over variants."""
    rows = []
    for measure in MEASURES:
        try:
            rho, p, n = claims.correlation(found, measure)
        except claims_lib.NotMeasured:
            continue
        rows.append({"measure": measure, "spearman": rho, "p": p, "variants": n})
    return pd.DataFrame(rows)


def show_variants(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the means over seeds of every variant."""
    columns = {
        "Dense": ("dense", 1, 2),
        "Tickets, late": ("late", 1, 2),
        "Last level": ("last", 1, 2),
        "After pre-training": ("pretrained", 1, 2),
        "Mean barrier": ("mean_barrier", 1, 4),
        "Connected": ("connected", 100, 1),
        "At 0 nats": ("connected_0", 100, 1),
        "Sharpness": ("sharpness_end", 1, 1),
    }
    return pd.DataFrame(
        [
            {"Pre-training": label(str(variant)), "n": str(len(part))}
            | {
                heading: _mean(factor * part[name], digits)
                for heading, (name, factor, digits) in columns.items()
            }
            for variant, part in frame.groupby("variant", sort=False)
        ]
    )


def show_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the rank correlations."""
    return pd.DataFrame(
        [
            {
                "Measure": MEASURES[row.measure],
                "Correlation": f"{row.spearman:+.2f}",
                "p": f"{row.p:.2g}",
                "Variants": str(row.variants),
            }
            for row in frame.itertuples()
        ]
    )


def show_classes(found: Found) -> pd.DataFrame:
    """Formats the connected fraction of each class, in percent."""
    return pd.DataFrame(
        [
            {"Pre-training": label(variant)}
            | {str(c): f"{100 * x:.0f}" for c, x in enumerate(entry["by_class"])}
            for variant, entry in found["variants"].items()
        ]
    )


def show_levels(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the accuracy of every level and variant."""
    by = ["level", "variant"]
    means = frame.groupby(by, sort=False)["ticket_percent"].agg(_mean)
    shown = means.unstack("variant", sort=False).rename(columns=label)
    remaining = frame.groupby("level", sort=False)["remaining_percent"].first()
    shown.insert(0, "Level", shown.index.astype(str))
    shown.insert(1, "Remaining", [f"{x:.1f} %" for x in remaining.loc[shown.index]])
    return shown.reset_index(drop=True)


def _mean(values: pd.Series, digits: int = 2) -> str:
    """Formats a mean over seeds."""
    return formatting.plus_minus(values.mean(), values.std(), digits=digits)


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


def draw_sizes(network: str, scale: str, found: Found, title: str) -> Figure | None:
    """Draws late accuracy by the size of the subset.

    Args:
      network: one of `variants.NETWORKS`.
      scale: one of `studies.SCALES`.
      found: from `analysis.measure`.
      title: what was trained.
    """
    sizes, rows = SIZES[scale][network].subsets, []
    for variant, entry in found["variants"].items():
        kind, _, size = variant.partition("_")
        if kind == "noise":
            continue
        name = _kind(variant) if kind in KINDS else label(variant)
        for at in [int(size)] if kind in KINDS else sizes:
            late = enumerate(claims.late(entry))
            rows += [("", name, seed, at, value) for seed, value in late]
    return plot_curves.curves(
        pd.DataFrame(rows, columns=plot_curves.COLUMNS),
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
      found: from `analysis.measure`.
      summary: from `variants_frame`.
      measure: one of `MEASURES`.
      title: what was trained.
    """
    note = ""
    try:
        rho, p, n = claims.correlation(found, measure)
        note = f"rank correlation {rho:+.2f}, p = {p:.2g}, {n} variants"
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
      found: from `analysis.measure`.
      title: what was trained.
    """
    middles = (analysis.BINS[:-1] + analysis.BINS[1:]) / 2
    usual = [f"{kind}_{found['usual']}" for kind in KINDS]
    rows = []
    for variant in ("k0", "k1", "k2", *usual):
        if variant in found["variants"]:
            counts = np.asarray(found["variants"][variant]["histogram"], float)
            inner = zip(middles, counts[1:-1] / counts.sum(), strict=True)
            rows += [("", label(variant), 0, at, share) for at, share in inner]
    return plot_curves.curves(
        pd.DataFrame(rows, columns=plot_curves.COLUMNS),
        x="barrier (nats), bins of 0.5",
        y="fraction of examples",
        title=title,
        error="none",
    )
