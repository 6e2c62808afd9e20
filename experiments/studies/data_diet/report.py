"""Report: the section of the study on a setting."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies import report as report_lib
from experiments.studies import tables
from experiments.studies.data_diet import claims, figures, published, variants
from experiments.studies.data_diet.variants import SIZES, label

Found = dict[str, Any]
TITLES = {
    "mnist": dict.fromkeys(("quick", "cpu", "full"), "LeNet-300-100 on MNIST"),
    "resnet8": {"cifar16": "ResNet-8 on CIFAR-10 at 16x16 pixels"},
    "cifar": {
        "quick": "LeNet-5 on 1,000 images of CIFAR-10",
        "cpu": "LeNet-5 on 5,000 images of CIFAR-10",
        "full": "ResNet-20 on CIFAR-10",
    },
}
PUBLISHED = (62_400, 20)  # updates and levels of ResNet-20 on CIFAR-10
PUBLISHED_SCORED = 7_800  # updates of the networks that score
ABOUT = {
    "cpu": (
        " Variants with wrong labels were added when the other runs on MNIST were "
        "known."
    ),
    "cifar16": (
        " Known of this setting were the test accuracies of dense networks and of "
        "tickets rewound to updates 0 and 150, from earlier trials."
    ),
}


def section(
    setting: str, scale: str, measured: Mapping[str, Any]
) -> report_lib.Section | None:
    """Makes the section of the report on a setting; None without runs to show.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.
    """
    found = variants.arrange(setting, scale, measured)
    if not found["variants"]:
        return None
    entry = next(iter(found["variants"].values()))
    levels, summary = figures.levels_frame(found), figures.variants_frame(found)
    ranks, title = ranks_frame(found), TITLES[setting][scale]
    return report_lib.Section(
        name=setting,
        title=title,
        lines=_lines(setting, scale, found),
        claims=claims_lib.judge(
            claims_lib.at_scale(claims.CLAIMS, scale),
            found,
            length=entry["steps"] / PUBLISHED[0],
        ),
        about_claims=claims_lib.about_thresholds(claims.CLAIMS, scale)
        + ABOUT.get(scale, ""),
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
                "published gain of ResNet-20 on CIFAR-10 with about as many, for as "
                "large a part of the data.",
                published.show(found),
            ),
            report_lib.Table(
                "What predicts tickets",
                "Spearman's rank correlation over variants, within seeds, with the "
                "late accuracy of tickets; one-sided p of its sign by permutations. "
                "Eigenvalues are of the Hessian of the dense training loss on the "
                f"first {entry['hessian_examples']:,} examples.",
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
        figures=figures.draw(setting, scale, found, title),
        captions=figures.CAPTIONS,
    )


def _lines(setting: str, scale: str, found: Found) -> list[str]:
    """Compares the length of training with the published one."""
    entry, k = next(iter(found["variants"].values())), SIZES[scale][setting].k
    steps, most = PUBLISHED
    lines = [
        f"{entry['steps']:,} updates a level ({entry['epochs']:g} epochs), "
        f"{entry['levels'][-1]} levels, k = {k}, {len(entry['ticket'])} seeds.",
        f"Published are {steps:,} updates ({entry['steps'] / steps:.1%} of them here), "
        f"{most} levels and k = {SIZES['full']['cifar'].k}, of ResNet-20 on "
        "all of CIFAR-10."
        + (" The paper has nothing on MNIST." if setting == "mnist" else ""),
    ]
    if "scored" in found:
        count, updates = found["scored"]
        lines.append(
            f"Examples were scored by {count} other networks after {updates:,} "
            f"updates; published are 16 after {PUBLISHED_SCORED:,} "
            f"({updates / PUBLISHED_SCORED:.1%} here)."
        )
    lines.append(report_lib.describe_interpolations(*entry["interpolation"]))
    return lines


def ranks_frame(found: Found) -> pd.DataFrame:
    """Tabulates rank correlations of measures with late accuracy, over variants.

    Args:
      found: the measurements of the study.
    """
    rows = []
    for measure in figures.MEASURES:
        try:
            effect = claims.correlation(found, measure)
        except claims_lib.NotMeasured:
            continue
        p = min(effect.p, effect.p_against)
        row = {"measure": measure, "spearman": effect.estimate, "p": p}
        rows.append(row | {"blocks": effect.n})
    return pd.DataFrame(rows)


def show_variants(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the means over seeds of every variant.

    Args:
      frame: from `figures.variants_frame`.
    """
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
    shown = tables.means(frame, ["variant"], columns)
    shown["variant"] = shown["variant"].map(label)
    return shown.rename(columns={"variant": "Pre-training"})


def show_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the rank correlations.

    Args:
      frame: from `ranks_frame`.
    """
    return pd.DataFrame(
        [
            {
                "Measure": figures.MEASURES[row.measure],
                "Correlation": f"{row.spearman:+.2f}",
                "p": f"{row.p:.2g}",
                "Blocks": str(row.blocks),
            }
            for row in frame.itertuples()
        ]
    )


def show_classes(found: Found) -> pd.DataFrame:
    """Formats the connected fraction of each class, in percent.

    Args:
      found: the measurements of the study.
    """
    return pd.DataFrame(
        [
            {"Pre-training": label(variant)}
            | {str(c): f"{100 * x:.0f}" for c, x in enumerate(entry["by_class"])}
            for variant, entry in found["variants"].items()
        ]
    )


def show_levels(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats the accuracy of every level and variant.

    Args:
      frame: from `figures.levels_frame`.
    """
    by = ["level", "variant"]
    means = frame.groupby(by, sort=False)["ticket_percent"].agg(tables.mean)
    shown = means.unstack("variant", sort=False).rename(columns=label)
    remaining = frame.groupby("level", sort=False)["remaining_percent"].first()
    shown.insert(0, "Level", shown.index.astype(str))
    shown.insert(1, "Remaining", [f"{x:.1f} %" for x in remaining.loc[shown.index]])
    return shown.reset_index(drop=True)
