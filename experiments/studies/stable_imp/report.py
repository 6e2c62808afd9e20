"""Report: the section of the study on a setting."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies import report as report_lib
from experiments.studies.stable_imp import claims, figures, tables, variants

Found = dict[str, Any]


class Published(NamedTuple):
    """Length of the published training.

    Attributes:
      epochs: epochs of each level.
      levels: levels of pruning.
      examples: training examples.
    """

    epochs: int
    levels: int
    examples: int


TITLES = {
    "quick": {
        "mnist": "LeNet-300-100 on images of MNIST",
        "cifar": "LeNet-5 on 1,000 images of CIFAR-10",
    },
    "cpu": {
        "mnist": "LeNet-300-100 on MNIST",
        "cifar": "LeNet-5 on 5,000 images of CIFAR-10",
    },
    "cifar16": {"resnet8": "ResNet-8 on CIFAR-10 at 16x16 pixels"},
    "full": {"mnist": "LeNet-300-100 on MNIST", "cifar": "ResNet-20 on CIFAR-10"},
}
# LeNet-300-100; ResNet-20, or Conv-4 at scales other than full. For the onset: updates
# and batch sizes of LeNet-300-100 and ResNet-20.
PUBLISHED = {
    "mnist": Published(epochs=25, levels=25, examples=60_000),
    "cifar": Published(epochs=85, levels=25, examples=50_000),
    "resnet8": Published(epochs=85, levels=25, examples=50_000),
}
PUBLISHED_SMALL = Published(epochs=75, levels=25, examples=50_000)
PUBLISHED_ONSET = {"mnist": (24_000, 60), "cifar": (62_560, 128)}
PUBLISHED_ONSET["resnet8"] = PUBLISHED_ONSET["cifar"]
# What claims call the runs that they compare.
_ROLES = {"unstable": "the plain run", "stable": "the stabilized run"}
# What had been seen before the thresholds were written, or has changed since.
ABOUT = {
    "cpu": (
        " Batch sizes were chosen by the instability of dense networks alone, before "
        "any run had pruned. Amended thresholds are stricter: premises must be "
        "observed as well, since a later change in both dense networks and pruned "
        "levels. Bounds "
        "of angles and of late levels were changed when eight runs of `cifar16` had "
        "been seen. That late levels must leave 3.5 % of the weights or less was added "
        "when the claim on them had been contradicted here and at `cifar16`, by levels "
        "with more. A first series had one order of examples for all "
        "levels, which makes levels similar, and on CIFAR-10 the published strengths, "
        "which changed angles by 0.01 right angles; here each level has its own order, "
        "and there are stronger variants in addition to the published ones."
    ),
    "cifar16": (
        " Before the first thresholds, only dense networks and tickets of updates 0 "
        "and 150, without copies, had been seen, and of one seed a reinitialized "
        "ticket and one with its masks shuffled within layers. Those written after "
        "were changed when stability, and eight levels without stabilizer and with "
        "warm-up, had been seen, and before any run had pruned with the stabilizer; "
        "only that late levels must leave 3.5 % of the weights or less was added when "
        "the claim on them had been contradicted, by levels with more; "
        "see `experiments/studies/stable_imp/cifar16.py`."
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
    if not tables.all_runs(found):
        return None
    levels, stability, onset = (
        tables.levels_frame(found),
        tables.stability_frame(found),
        tables.onset_frame(found),
    )
    settings = tables.settings_frame(found)
    solutions, cuts = tables.solutions_frame(found), tables.thresholds_frame(found)
    names = tables.all_runs(found)
    labels = {name: variants.label(name, setting, scale) for name in names}
    return report_lib.Section(
        name=setting,
        title=TITLES[scale][setting],
        lines=_lines(setting, scale, found, labels),
        claims=claims_lib.judge(
            claims_lib.at_scale(claims.CLAIMS, scale),
            found,
            length=length(setting, scale, found),
        ),
        about_claims=claims_lib.about_thresholds(claims.CLAIMS, scale)
        + ABOUT.get(scale, ""),
        tables=[
            report_lib.Table(
                "Training",
                "Of every variant that prunes.",
                lengths(setting, scale, found, labels),
            ),
            report_lib.Table(
                "Levels",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds. The gap is tickets minus controls, seed by seed.",
                tables.show_levels(levels, labels),
                long=True,
            ),
            report_lib.Table(
                "Stability",
                "Percentage points, mean ± sample standard deviation over n seeds: "
                "instability between copies of a level, and the rise of the error "
                "between a level and the one before. Stable: below 2 on the test set, "
                "on average; matching, in this table: less than 0.2 points below the "
                "dense network (claims allow 0.5).",
                tables.show_stability(found, stability, labels),
            ),
            report_lib.Table(
                "Onset of stability",
                "Instability in percentage points of error, distance over all "
                "parameters, and test examples classified differently in percent, "
                "between copies that start at an update.",
                tables.show_means(onset, ["test", "train", "l2", "different"], labels),
            ),
            report_lib.Table(
                "Other settings",
                "Test accuracy in percent of dense networks and of tickets with 16 % "
                "of the weights, by the step to which they are rewound; then the "
                "instability in percentage points of copies from a step. Training has "
                "1,560 steps with batches of 128, 388 with 512 and 192 with 1,024, so "
                "that step 150 is a tenth, two fifths and four fifths of it. Unless a "
                "row says otherwise, the learning rate is 0.2, also for large batches; "
                "warm-up takes half of training.",
                tables.show_settings(settings),
            ),
        ],
        frames={
            "levels": levels,
            "stability": stability,
            "onset": onset,
            "settings": settings,
            "solutions": solutions,
            "thresholds": cuts,
        },
        figures=figures.draw(setting, scale, found, TITLES[scale][setting]),
        captions=figures.CAPTIONS,
    )


def length(setting: str, scale: str, found: Found) -> float:
    """Returns the number of updates of the runs, divided by the published number.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      found: from `variants.arrange`.
    """
    return min(
        entry["steps"] / _published_updates(setting, scale, entry)
        for entry in tables.all_runs(found).values()
    )


def _published(setting: str, scale: str) -> Published:
    if scale != "full" and setting == "cifar":
        return PUBLISHED_SMALL
    return PUBLISHED[setting]


def lengths(
    setting: str, scale: str, found: Found, labels: Mapping[str, str]
) -> pd.DataFrame:
    """Compares the length of each run with the published one.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      found: from `variants.arrange`.
      labels: labels of variants.

    Returns:
      One row of text for each variant. The fraction of the published updates is at the
      variant's batch size.
    """
    rows = []
    for name, entry in tables.all_runs(found).items():
        updates = _published_updates(setting, scale, entry)
        rows.append(
            {
                "Variant": labels[name],
                "Batch": f"{entry['batch']:,}",
                "Updates a level": f"{entry['steps']:,}",
                "of the published": f"{100 * entry['steps'] / updates:.2g} %",
                "Epochs a level": f"{entry['epochs']:g}",
                "Levels": str(entry["levels"][-1]),
                "Seeds": str(len(entry["ticket"])),
            }
        )
    return pd.DataFrame(rows)


def _published_updates(setting: str, scale: str, entry: Found) -> int:
    """Returns the published number of updates of a level, at the batches of a run."""
    whole = _published(setting, scale)
    return whole.epochs * math.ceil(whole.examples / entry["batch"])


def _lines(
    setting: str, scale: str, found: Found, labels: Mapping[str, str]
) -> list[str]:
    """Describes the published training, what claims compare, and what is measured."""
    whole, lines = _published(setting, scale), []
    lines.append(
        f"Published are {whole.epochs} epochs of {whole.examples:,} examples a level, "
        f"and {whole.levels} levels (rounds, in the words of Maene et al.)."
    )
    named = [f'{_ROLES[name]} ("{labels[name]}")' for name in _ROLES if name in labels]
    if named:
        lines.append(f"Claims compare {' and '.join(named)}.")
    if found["onset"]:
        (entry, *_), (updates, batch) = found["onset"], PUBLISHED_ONSET[setting]
        lines.append(
            f"Onset of stability: {entry['updates']:,} updates at batches of "
            f"{entry['batch']}, {entry['updates'] / updates:.2g} of the published "
            f"{updates:,} at {batch}; {len(entry['instability'])} seeds."
        )
    each = (tuple(entry["interpolation"]) for entry in tables.all_runs(found).values())
    for points, examples in dict.fromkeys(each):
        lines.append(report_lib.describe_interpolations(points, examples))
    return lines
