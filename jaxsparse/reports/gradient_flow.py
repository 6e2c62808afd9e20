"""Gradient flow: the report of the study that reruns Evci et al. (2020).

`write` makes a section a network and has `study` write them. What it takes is
described in `gradient_flow_findings`; the tables are those of `gradient_flow_tables`,
the figures those of `gradient_flow_figures`. What was not measured is left out, or
blank in a table.

References:
  Evci, Ioannou, Keskin and Dauphin, Gradient Flow in Sparse Neural Networks and How
  Lottery Tickets Win, 2020, arXiv:2010.03533.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from jaxsparse.reports import (
    gradient_flow_figures,
    gradient_flow_findings,
    gradient_flow_tables,
    study,
)
from jaxsparse.reports.study import Section, Table

Found = Mapping[str, Any]

_CAPTIONS = {
    "gradient": "Norm of the gradient over the weights that there are, by step.",
    "changes": (
        "Norm of the gradient after each change of masks, less that before it, on the "
        "same examples; the running mean is over about a sixth of the changes."
    ),
    "segments": (
        "Loss and error on training examples along the segment from a network, at 0, "
        "to the pruned solution, at 1."
    ),
    "map": (
        "Solutions in the plane, by multidimensional scaling of their L2 distances; "
        "hollow: before training."
    ),
    "hessian": (
        "Eigenvalues of the Hessian of the training loss: how many lie at least so far "
        "from 0, the negative to the left and the positive to the right. Those that "
        "float32 cannot tell from 0 are left out."
    ),
    "signal": (
        "Standard deviation of what each layer computes at initialisation, of standard "
        "normal inputs. Large: of the layer, mean ± s.d. over seeds. Small: of each of "
        "its neurons, for the first seed; a cross at the foot: some are always 0."
    ),
}
_ACCURACY = (
    "Mean ± sample standard deviation over n seeds. A difference is ours less the "
    "published mean, over the root of the sum of both squared deviations; the gain "
    "that of the ensemble of all seeds over the mean of its members."
)
_CLAIMS = (
    "Thresholds were written before there were arms to compare, amended when some had "
    "been seen, or written after the first measurement, as it says."
)
_INITIALISATIONS = (
    "Test accuracy, mean ± sample standard deviation over n seeds, of arms that train "
    "the same masks."
)
_PREDICTIONS = (
    "Disagreement, as a fraction of the test set, and KL and JS divergence: mean ± "
    "sample standard deviation over pairs of n seeds. With the pruned solution: over "
    "the seeds."
)
_FLOW = (
    "Mean ± sample standard deviation over n seeds, before the update at a step: norm "
    "of the gradient; effective gradient flow, the mean norm over layers' kernels; and "
    "the decrease of the loss that a step promises to first order, the learning rate "
    "times the norm squared."
)
_CURVATURE = (
    "Exact spectra of the Hessian of the training loss; the negative ones lie below "
    "what rounding in float32 can make, before and after a change by one threshold. An "
    "error of Lanczos is the largest relative one of those values that it was asked "
    "for."
)
AGREES = 0.01  # relative error of Lanczos below which it agrees with the exact ends


def write(findings: Found, out: str | os.PathLike[str]) -> Path:
    """Writes the report of the study.

    Args:
      findings: by network, such as "lenet", what was found; see
        `gradient_flow_findings`. File names begin with these keys.
      out: folder to write into; made if need be.

    Returns:
      The page's path.

    Raises:
      ValueError: for findings that do not fit together, naming network, part and entry;
        nothing is written then.
    """
    networks = {
        network: gradient_flow_findings.read(network, found)
        for network, found in findings.items()
    }
    sections = [_section(network, found) for network, found in networks.items()]
    return study.write("Report: gradient flow in sparse networks", sections, out)


def _section(network: str, found: Found) -> Section:
    """Makes the section of a network."""
    return Section(
        name=network,
        title=found["title"],
        claims=found["claims"],
        about_claims=_CLAIMS,
        tables=tables(found),
        frames=_frames(found),
        figures=gradient_flow_figures.draw(found),
        captions=_CAPTIONS,
    )


def tables(found: Found) -> list[Table]:
    """Makes text of all there is to tabulate but the claims.

    Args:
      found: findings on one network, from `gradient_flow_findings.read`.

    Returns:
      The tables in the order of the page.
    """
    made = []
    if found["arms"]:
        table = gradient_flow_tables.variants_table(found)
        made.append(
            Table("Accuracy", _ACCURACY, gradient_flow_tables.show_accuracy(table))
        )
        shown = gradient_flow_tables.show_initialisations(found)
        if len(shown):
            made.append(Table("Accuracy by initialisation", _INITIALISATIONS, shown))
        shown = gradient_flow_tables.show_predictions(table)
        if shown.shape[1] > 2:
            made.append(Table("Predictions", _PREDICTIONS, shown))
    if found["gradient"]:
        shown = gradient_flow_tables.show_flow(gradient_flow_tables.flow_table(found))
        made.append(Table("Gradient flow", _FLOW, shown, long=True))
    if found["distances"]:
        note = f"Mean L2 distance to {found['distances']['labels'][0]}."
        shown = gradient_flow_tables.show_distances(
            gradient_flow_tables.distances_table(found)
        )
        made.append(Table("Distances", note, shown))
    if found["hessian"]:
        table = gradient_flow_tables.hessian_table(found)
        note = f"{_CURVATURE} {_agreement(table)}".strip()
        made.append(
            Table(
                "Curvature", note, gradient_flow_tables.show_hessian(table), long=True
            )
        )
    return made


def _agreement(table: pd.DataFrame) -> str:
    """Says in how many states Lanczos found what the exact spectrum has at its ends."""
    errors = table[["top_error", "bottom_error"]].dropna()
    if errors.empty:
        return ""
    agree = int((errors < AGREES).all(axis=1).sum())
    return f"Both ends are within {AGREES:.0%} in {agree} of {len(errors)} states."


def _frames(found: Found) -> dict[str, pd.DataFrame]:
    """Makes the tables that are kept with all digits, by name."""
    frames = {}
    if found["arms"]:
        frames["arms"] = gradient_flow_tables.variants_table(found)
    if found["gradient"]:
        frames["flow"] = gradient_flow_tables.flow_table(found)
    return frames
