"""Quantities: what claims and premises read from the measurements of runs.

Seeds are paired: runs share initial weights and, per batch size, the orders of data, so
differences are taken seed by seed. Instability is in percentage points of test error. A
gap is the test accuracy of tickets minus that of their reinitialized controls, in
points, averaged over the levels of the second half that have controls.

At the scales `quick`, `cpu` and `full` training is made stable by large batches, at
`cifar16` by its stabilizer: "unstable" and "stable" are the two runs that differ in it.
"""

import numpy as np

from experiments.studies import effects
from experiments.studies.claims import Found, NotMeasured, are_dead, fact
from experiments.studies.effects import Effect
from jaxsparse.analysis import mode_connectivity

STABLE = 100 * mode_connectivity.STABLE_BELOW  # points of instability
LATE = 0.5  # late levels start at this fraction of all levels
APART = 0.1  # of a right angle, by which a penalty must move levels
NEAR, FAR = 1 / 3, 2 / 3  # of a right angle: the same region, and nearly orthogonal
FEW = round(100 * 0.8**15, 1)  # percent left at Maene et al.'s level 15 of 25
MATCHING = 0.5  # points of accuracy below dense that count as matching


def gaps(variant: Found, control: str = "reinitialized") -> np.ndarray:
    """Returns the gap of each seed over late levels, in points.

    Args:
      variant: measurements of a run.
      control: the control that is subtracted.

    Raises:
      NotMeasured: if no late level has the control.
    """
    ticket, other = _compared(variant, control)
    return np.mean(ticket - other, axis=1)


def accuracies(variant: Found, name: str) -> np.ndarray:
    """Returns the mean test accuracy of each seed in late levels, in percent.

    Only levels that have reinitialized controls count, for tickets too.

    Args:
      variant: measurements of a run.
      name: "ticket" or "reinitialized".

    Raises:
      NotMeasured: if no late level has reinitialized controls.
    """
    ticket, control = _compared(variant, "reinitialized")
    return np.mean(ticket if name == "ticket" else control, axis=1)


def _compared(variant: Found, control: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns accuracies of tickets and of a control in late levels that have it."""
    if control not in variant["controls"]:
        raise NotMeasured(f"no control {control}")
    ticket, other = (
        np.asarray(values, np.float64)
        for values in (variant["ticket"], variant["controls"][control])
    )
    chosen = _late(variant) & ~np.isnan(other).any(axis=0)
    if not chosen.any():
        raise NotMeasured(f"no late level with the control {control}")
    return ticket[:, chosen], other[:, chosen]


def _late(variant: Found) -> np.ndarray:
    levels = np.asarray(variant["levels"])
    return levels >= LATE * levels.max()


def instabilities(variant: Found, *, pruned: bool) -> np.ndarray:
    """Returns the instability of each seed.

    Args:
      variant: measurements of a run.
      pruned: whether to average over the pruned levels that have copies, or to take
        the dense network.
    """
    rows = {int(level): values for level, values in variant["instability"].items()}
    chosen = [values for level, values in rows.items() if bool(level) == pruned]
    if not chosen:
        raise NotMeasured("no copies")
    return np.mean(np.asarray(chosen, np.float64), axis=0)


def successive(variant: Found) -> np.ndarray:
    """Returns the mean angle between levels that follow each other [seeds].

    In right angles, over all levels from the dense network on, without the
    initialization, which is last in the matrices.

    Args:
      variant: measurements of a run.
    """
    matrices = np.asarray(variant["angles"])[:, :-1, :-1]
    return np.mean(np.diagonal(matrices, offset=1, axis1=1, axis2=2), axis=1)


def moves_apart(plain: Found, repelled: Found) -> Effect:
    """Tests whether repulsion moves successive levels apart, `APART` right angles.

    Args:
      plain: measurements of the run without it.
      repelled: measurements of the run with it.
    """
    return effects.above(successive(repelled) - successive(plain), APART)


def moves_together(plain: Found, attracted: Found) -> Effect:
    """Tests whether attraction moves successive levels together, `APART` right angles.

    Args:
      plain: measurements of the run without it.
      attracted: measurements of the run with it.
    """
    return effects.above(successive(plain) - successive(attracted), APART)


def rises(variant: Found, part: str) -> np.ndarray:
    """Returns how far the error rises between successive levels [seeds], in points.

    Args:
      variant: measurements of a run.
      part: "medium" for the middle third of levels that prune, rounded outward, or
        "late" for the last third.
    """
    rows = np.asarray(variant["successive"], np.float64)
    if not rows.size:
        raise NotMeasured("no successive levels")
    count = rows.shape[1]
    third = _third(count)
    medium = rows[:, third : max(count - third, third + 1)]
    return np.mean(medium if part == "medium" else rows[:, -third:], axis=1)


def few_left(variant: Found) -> Effect:
    """Returns, as a fact, whether all levels of the last third leave few weights.

    Args:
      variant: measurements of a run.

    Raises:
      NotMeasured: if there are no successive levels.
    """
    levels = variant["successive_levels"]
    if not levels:
        raise NotMeasured("no successive levels")
    first = levels[-_third(len(levels))]
    left = variant["remaining"][variant["levels"].index(first)]
    return fact(round(left, 1) <= FEW, f"{left:.1f} % in the first of them")


def _third(levels: int) -> int:
    """Returns how many levels the last third has."""
    return max(1, levels // 3)


def onset(found: Found, level: int) -> dict[int, np.ndarray]:
    """Returns the instability of each seed by the update at which copies start.

    Args:
      found: measurements of a setting.
      level: 0 for dense networks; otherwise of the sparsest tickets.

    Raises:
      NotMeasured: if fewer than two starts are measured.
    """
    by_step: dict[int, np.ndarray] = {}
    for line in found["onset"]:
        if bool(line["level"]) == bool(level):
            columns = np.asarray(line["instability"]).T
            by_step |= dict(zip(line["steps"], columns, strict=True))
    if len(by_step) < 2:
        raise NotMeasured("copies from fewer than two starts")
    return dict(sorted(by_step.items()))


def has_dead(*variants: Found, control: str = "reinitialized") -> bool:
    """Returns whether a ticket or a control that is compared never learned.

    Args:
      *variants: measurements of runs.
      control: the control.
    """
    return any(are_dead(rows) for v in variants for rows in _compared(v, control))
