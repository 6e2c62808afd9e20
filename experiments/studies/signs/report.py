"""Report: the section of the study."""

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies import report as report_lib
from experiments.studies import tables
from experiments.studies.signs import claims, variants

PUBLISHED_STEPS = 62_560  # of residual networks on CIFAR-10
ABOUT_CLAIMS = (
    "All thresholds were written before any run of the study. Two kinds of its tickets "
    "had been seen in another study; the claim on them is marked *after*."
)


def section(
    setting: str, scale: str, measured: Mapping[str, Any]
) -> report_lib.Section:
    """Makes the section of the report.

    Args:
      setting: `variants.SETTING`.
      scale: one of `studies.SCALES`.
      measured: measurements by run.
    """
    frame = accuracies_frame(measured)
    masks = masks_frame(measured)
    steps = max(entry["steps"] for entry in measured.values())
    return report_lib.Section(
        name=setting,
        title="ResNet-8 on CIFAR-10 at 16x16 pixels",
        claims=claims_lib.judge(
            claims_lib.at_scale(claims.CLAIMS, scale),
            measured,
            length=steps / PUBLISHED_STEPS,
        ),
        about_claims=ABOUT_CLAIMS,
        tables=[
            report_lib.Table(
                "What is kept",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds, by what of the tickets is kept; the rest is drawn anew.",
                show(frame),
            ),
            report_lib.Table(
                "Masks on other weights",
                "Percentages, mean ± sample standard deviation over n seeds: of kept "
                "weights that end with another sign than they began, and of those that "
                "are among the largest of their layer in the other dense network.",
                show_masks(masks),
            ),
        ],
        frames={"accuracies": frame, "masks": masks},
    )


def accuracies_frame(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates accuracies: one row for each run, part that is kept, and seed.

    Args:
      measured: measurements by run.
    """
    return tables.concat(
        [
            tables.by_seed(
                {"kept": [kept]},
                {"accuracy_percent": [[each] for each in values]},
                run=run,
            )
            for run, entry in measured.items()
            for kept, values in (
                ("ticket", entry["accuracy"]),
                *entry["controls"].items(),
            )
        ]
    )


def show(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats `accuracies_frame`, one row for each run and part.

    Args:
      frame: from `accuracies_frame`.
    """
    columns = {"Test accuracy (%)": ("accuracy_percent", 1, 2)}
    shown = tables.means(frame, ["run", "kept"], columns)
    alone = ~shown["run"].str.startswith("k_")
    kept = shown["kept"].map(variants.LABELS).mask(alone, "")
    return shown.assign(run=shown["run"].map(variants.label), kept=kept).rename(
        columns={"run": "Run", "kept": "Kept of the ticket"}
    )


def masks_frame(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Tabulates signs that change and overlaps: one row for each run and seed.

    Args:
      measured: measurements by run.
    """
    rows = [
        {"run": run, "seed": seed, "flipped": each, "overlap": overlap}
        for run, entry in measured.items()
        for seed, (each, overlap) in enumerate(
            itertools.zip_longest(entry.get("flipped", ()), entry.get("overlap", ()))
        )
    ]
    return pd.DataFrame(rows, columns=["run", "seed", "flipped", "overlap"])


def show_masks(frame: pd.DataFrame) -> pd.DataFrame:
    """Formats `masks_frame`, one row for each run.

    Args:
      frame: from `masks_frame`.
    """
    columns = {
        "Signs that change (%)": ("flipped", 1, 2),
        "Overlap (%)": ("overlap", 1, 2),
    }
    shown = tables.means(frame, ["run"], columns)
    return shown.assign(run=shown["run"].map(variants.label)).rename(
        columns={"run": "Run"}
    )
