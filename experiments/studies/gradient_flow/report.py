"""Report: the section of the study on a setting."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import claims as claims_lib
from experiments.studies import report as report_lib
from experiments.studies.gradient_flow import (
    claims,
    evidence,
    figures,
    published,
    tables,
    variants,
)

Found = dict[str, Any]
AGREES = 0.01  # relative error of Lanczos' method below which it agrees
DEAD = 15.0  # percent of accuracy: deviation of seeds some of which never learned
_ACCURACY = {
    "": "Mean ± sample standard deviation over n seeds.",
    "Difference": "A difference is ours minus the published mean, in standard errors "
    "of the difference.",
    "Gain": "The gain is that of the ensemble of all seeds over the mean of its "
    "members. At `cifar16` each seed has a mask of its own, while claims on ensembles "
    "compare orders of the data of one mask.",
}
_INITIALIZATIONS = (
    "Test accuracy, mean ± sample standard deviation over n seeds, of variants that "
    "train the same masks."
)
_PREDICTIONS = {
    "": "Disagreement, as a fraction of the test set, and KL and JS divergence: mean ± "
    "sample standard deviation over pairs of n seeds. With the pruned solution: over "
    "the seeds.",
    "Difference": "A difference from the published mean is in standard errors; those "
    "of means over pairs are computed as of n networks.",
}
_FLOW = (
    "Mean ± sample standard deviation over n seeds, before the update at a step: norm "
    "of the gradient; effective gradient flow, the mean norm over layers' kernels; and "
    "the first-order decrease of the loss in a step, the learning rate times the norm "
    "squared."
)
_CURVATURE = {
    "": "Spectra of the Hessian of the training loss over the active weights, exact "
    "where negative eigenvalues are counted, otherwise their ends by Lanczos' method.",
    "Negative": "Negative eigenvalues are below the rounding error of float32, before "
    "and after a mask update by one threshold.",
    "Error": "An error of Lanczos' method is the largest relative one of the "
    "eigenvalues that it computes.",
}


def section(
    setting: str, scale: str, measured: Mapping[str, Any]
) -> report_lib.Section:
    """Makes the section of the report on a setting.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.
    """
    found = variants.arrange(setting, scale, measured)
    steps, whole = found["steps"], published.STEPS[setting]
    title = published.TITLES[setting]
    if steps < whole:
        title = f"{title}, {steps:,} of {whole:,} updates"
    listed = claims_lib.at_scale(claims.CLAIMS, scale)
    judged = claims_lib.judge(listed, found, length=steps / whole)
    frame, flow = tables.variants_frame(setting, found), tables.flow_frame(found)
    hessian = tables.hessian_frame(found)
    return report_lib.Section(
        name=setting,
        title=title,
        lines=_lines(setting, found),
        claims=judged,
        about_claims=claims_lib.about_thresholds(claims.CLAIMS, scale),
        tables=[
            _table("Accuracy", _ACCURACY, tables.show_accuracy(frame)),
            report_lib.Table(
                "Accuracy by initialization",
                _INITIALIZATIONS,
                tables.show_initializations(found),
            ),
            _table("Predictions", _PREDICTIONS, tables.show_predictions(frame)),
            report_lib.Table(
                "Distances",
                "L2 distance from the pruned solution whose mask is trained.",
                tables.show_distances(found["distances"]),
            ),
            report_lib.Table("Gradient flow", _FLOW, tables.show_flow(flow), long=True),
            _table(
                "Curvature",
                _CURVATURE | {"Error of Lanczos": _agreement(hessian)},
                tables.show_hessian(hessian),
            )._replace(long=True),
        ],
        frames={
            "variants": frame,
            "accuracies": tables.accuracies_frame(found),
            "flow": flow,
        },
        figures=figures.draw(found, title),
        captions=figures.CAPTIONS,
    )


def _table(
    heading: str, notes: Mapping[str, str], shown: pd.DataFrame
) -> report_lib.Table:
    """Makes a table, with the notes on the columns that it has.

    Args:
      heading: above it.
      notes: sentences, by how the names of the columns begin; "" for any.
      shown: the strings.
    """
    there = [
        words
        for begin, words in notes.items()
        if words and any(column.startswith(begin) for column in shown.columns)
    ]
    return report_lib.Table(heading, " ".join(there), shown)


def _lines(setting: str, found: Found) -> list[str]:
    """Says what seeds share, which never learned, and what was kept in part only."""
    lines = []
    if setting != "resnet8":
        lines.append(
            "All seeds of a variant that starts from the pruning run train one mask, "
            "that of its first seed: n counts orders of the data."
        )
    dead = [
        f"{published.LABELS[name]} ({words})"
        for name, entry in found["predictions"].items()
        if (words := _dead(entry))
    ]
    if dead:
        lines.append(f"Some seeds never learned: {', '.join(dead)}.")
    if old := sum("summary" in entry for entry in found["predictions"].values()):
        lines.append(
            f"Measurements of {old} variants are from the tables of an earlier "
            "version, which kept means over seeds only; claims that need more are not "
            "measured."
        )
    return lines


def _dead(entry: Found) -> str:
    """Says how many seeds never learned, or that some have not; "" if all have.

    Of seeds whose values were not kept, a large deviation tells.
    """
    if "summary" in entry:
        mean, sd, n = evidence.summary(entry)
        return f"{mean:.2f} ± {sd:.2f} over {n}" if sd > DEAD else ""
    values = np.asarray(entry.get("accuracy", ()))
    count = int(np.sum(values < claims_lib.DEAD * claims_lib.CHANCE))
    return f"{count} of {len(values)}" if count else ""


def _agreement(frame: pd.DataFrame) -> str:
    """Counts the states in which Lanczos' method agrees with the exact spectrum."""
    if frame.empty or (errors := frame[["top_error", "bottom_error"]].dropna()).empty:
        return ""
    agree = int((errors < AGREES).all(axis=1).sum())
    return f"Both ends are within {AGREES:.0%} in {agree} of {len(errors)} states."
