"""Evidence: what the measurements show for each claim, and for what it presumes.

Seeds are paired: runs share initial weights and, per batch size, the orders of data, so
differences are taken seed by seed. Instability is in percentage points of test error. A
gap is the test accuracy of tickets minus that of their reinitialized controls, in
points, averaged over the levels of the second half that have controls.

At the scales `quick`, `cpu` and `full` training is made stable by large batches, at
`cifar16` by its stabilizer: "unstable" and "stable" are the two runs that differ in it.
"""

from collections.abc import Callable

import numpy as np

from experiments.studies import correlations, effects
from experiments.studies.claims import Found, NotMeasured, are_dead, entries
from experiments.studies.effects import Effect, spread
from jaxsparse.analysis import mode_connectivity

STABLE = 100 * mode_connectivity.STABLE_BELOW  # points of instability
LATE = 0.5  # late rounds start at this fraction of all rounds
APART = 0.1  # of a right angle, by which a penalty must move rounds
NEAR, FAR = 1 / 3, 2 / 3  # of a right angle: the same region, and nearly orthogonal
MATCHING = 0.5  # points of accuracy below dense that count as matching
CHANCE = 10.0  # percent, of ten classes


def gaps(variant: Found, control: str = "reinitialized") -> np.ndarray:
    """Returns the gap of each seed over late rounds, in points.

    Args:
      variant: measurements of a run.
      control: the control that is subtracted.
    """
    ticket, other = _compared(variant, control)
    return np.mean(ticket - other, axis=1)


def accuracies(variant: Found, name: str) -> np.ndarray:
    """Returns the mean test accuracy of each seed in late rounds, in percent.

    Only rounds that have reinitialized controls count, for tickets too.

    Args:
      variant: measurements of a run.
      name: "ticket" or "reinitialized".
    """
    ticket, control = _compared(variant, "reinitialized")
    return np.mean(ticket if name == "ticket" else control, axis=1)


def _compared(variant: Found, control: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns accuracies of tickets and of a control in late rounds that have it."""
    if control not in variant["controls"]:
        raise NotMeasured(f"no control {control}")
    ticket, other = (
        np.asarray(values, np.float64)
        for values in (variant["ticket"], variant["controls"][control])
    )
    chosen = _late(variant) & ~np.isnan(other).any(axis=0)
    if not chosen.any():
        raise NotMeasured(f"no late round with the control {control}")
    return ticket[:, chosen], other[:, chosen]


def _late(variant: Found) -> np.ndarray:
    levels = np.asarray(variant["levels"])
    return levels >= LATE * levels.max()


def instabilities(variant: Found, *, pruned: bool) -> np.ndarray:
    """Returns the instability of each seed.

    Args:
      variant: measurements of a run.
      pruned: whether to average over the pruned rounds that have copies, or to take
        the dense network.
    """
    rows = {int(level): values for level, values in variant["instability"].items()}
    chosen = [values for level, values in rows.items() if bool(level) == pruned]
    if not chosen:
        raise NotMeasured("no copies")
    return np.mean(np.asarray(chosen, np.float64), axis=0)


def successive(variant: Found) -> np.ndarray:
    """Returns the mean angle between rounds that follow each other [seeds].

    In right angles, over all rounds from the dense network on, without the
    initialization, which is last in the matrices.

    Args:
      variant: measurements of a run.
    """
    matrices = np.asarray(variant["angles"])[:, :-1, :-1]
    return np.mean(np.diagonal(matrices, offset=1, axis1=1, axis2=2), axis=1)


def moves_apart(plain: Found, repelled: Found) -> Effect:
    """Tests whether repulsion moves successive rounds apart by `APART`.

    Args:
      plain: measurements of the run without it.
      repelled: measurements of the run with it.
    """
    return effects.above(successive(repelled) - successive(plain), APART)


def moves_together(plain: Found, attracted: Found) -> Effect:
    """Tests whether attraction moves successive rounds together by `APART`.

    Args:
      plain: measurements of the run without it.
      attracted: measurements of the run with it.
    """
    return effects.above(successive(plain) - successive(attracted), APART)


def rises(variant: Found, part: str) -> np.ndarray:
    """Returns how far the error rises between successive rounds [seeds], in points.

    Args:
      variant: measurements of a run.
      part: "medium" for the middle third of rounds that prune, rounded outwards, or
        "late" for the last third.
    """
    rows = np.asarray(variant["successive"], np.float64)
    if not rows.size:
        raise NotMeasured("no successive rounds")
    count = rows.shape[1]
    third = max(1, count // 3)
    medium = rows[:, third : max(count - third, third + 1)]
    return np.mean(medium if part == "medium" else rows[:, -third:], axis=1)


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
    return any(
        are_dead(rows, CHANCE) for v in variants for rows in _compared(v, control)
    )


def becomes_stable(level: int) -> Callable[[Found], Effect]:
    """Compares the instability from the earliest and from the latest start.

    Args:
      level: 0 for dense networks; otherwise of the sparsest tickets.
    """

    def evaluate(found: Found) -> Effect:
        each = list(onset(found, level).items())
        (begin, first), (end, last) = each[0], each[-1]
        words = f"{spread(first)} from update {begin}, {spread(last)} from {end}"
        falls, ends = effects.above(first - last), effects.below(last, STABLE)
        return effects.every(falls, ends, words=words)

    return evaluate


def tickets_sooner(found: Found) -> Effect:
    """Instability of dense networks and of tickets, from starts between the ends."""
    dense, tickets = onset(found, 0), onset(found, 1)
    between = [k for k in dense if k in tickets and 0 < k < max(dense)]
    if not between:
        raise NotMeasured("no common starts")
    a, b = (np.mean([of[k] for k in between], axis=0) for of in (dense, tickets))
    words = f"dense {spread(a)}, tickets {spread(b)}, mean over updates {between}"
    return effects.above(a - b).said(words)


def _drop(found: Found, place: int) -> tuple[np.ndarray, int]:
    """Returns the loss of tickets against dense [seeds], and their rewinding step."""
    each = sorted(found["rewound"].items())
    if len(each) < 2:
        raise NotMeasured("tickets of fewer than two rewinding steps")
    step, variant = each[place]
    return _lost(variant), step


def _lost(variant: Found) -> np.ndarray:
    """Returns the accuracy of dense networks minus that of the last tickets [seeds]."""
    ticket = np.asarray(variant["ticket"], np.float64)
    return ticket[:, 0] - ticket[:, -1]


def unstable_fall_short(found: Found) -> Effect:
    """Loss of tickets that are rewound to the earliest step."""
    lost, step = _drop(found, 0)
    words = f"dense minus tickets of update {step}: {spread(lost)} points"
    return effects.above(lost, MATCHING).said(words)


def stable_match(found: Found) -> Effect:
    """Loss of tickets that are rewound to the latest step."""
    lost, step = _drop(found, -1)
    words = f"dense minus tickets of update {step}: {spread(lost)} points"
    return effects.below(lost, MATCHING).said(words)


def together(found: Found) -> Effect:
    """Correlation of instability and loss over rewinding steps."""
    tickets = onset(found, 1)
    steps = [step for step in sorted(found["rewound"]) if step in tickets]
    if len(steps) < 4:
        raise NotMeasured("fewer than four rewinding steps")
    lost = [_lost(found["rewound"][step]) for step in steps]
    unstable = [tickets[step] for step in steps]
    return correlations.rank_correlation(np.stack(unstable, 1), np.stack(lost, 1))


def made_stable(found: Found) -> Effect:
    """Instability of dense networks by batch size."""
    pair = entries(found["batches"], "small", "large")
    a, b = (instabilities(variant, pruned=False) for variant in pair)
    words = f"dense: {spread(a)} points, {spread(b)} at large batches"
    return effects.every(effects.above(a - b), effects.below(b, STABLE), words=words)


def warmup_helps(found: Found) -> Effect:
    """Instability with and without warm-up."""
    plain, warm = entries(found["warmup"], "plain", "warm")
    a, b = (instabilities(variant, pruned=False) for variant in (plain, warm))
    return effects.above(a - b).said(f"dense: {spread(a)} points, {spread(b)} with it")


def stays_stable(found: Found) -> Effect:
    """Instability of pruned rounds where dense training is stable."""
    (stable,) = entries(found["variants"], "stable")
    values = instabilities(stable, pruned=True)
    return effects.below(values, STABLE).said(f"{spread(values)} points")


def win(control: str) -> Callable[[Found], Effect]:
    """Compares tickets with a control where training is stable.

    Args:
      control: name of the control.
    """

    def evaluate(found: Found) -> Effect:
        (stable,) = entries(found["variants"], "stable")
        values = gaps(stable, control)
        exact = has_dead(stable, control=control)
        return effects.above(values, exact=exact).said(f"{spread(values)} points")

    return evaluate


def no_win(found: Found) -> Effect:
    """Gap where unstable, and half of it where stable."""
    pair = entries(found["variants"], "unstable", "stable")
    unstable, stable = map(gaps, pair)
    words = f"gap {spread(unstable)} points, stable {spread(stable)}"
    return effects.above(0.5 * stable - unstable, exact=has_dead(*pair)).said(words)


def repelled(found: Found) -> Effect:
    """Gap of tickets with and without repulsion."""
    pair = entries(found["penalty"], "stable", "repelled")
    before, after = map(gaps, pair)
    words = f"gap {spread(before)} points, repelled {spread(after)}{_strength(pair[1])}"
    return effects.above(0.5 * before - after, exact=has_dead(*pair)).said(words)


def controls_spared(found: Found) -> Effect:
    """Losses of controls and of tickets by repulsion."""
    pair = entries(found["penalty"], "stable", "repelled")
    lost, control = (
        accuracies(pair[0], name) - accuracies(pair[1], name)
        for name in ("ticket", "reinitialized")
    )
    words = f"controls lose {spread(control)} points, tickets {spread(lost)}"
    words += _strength(pair[1])
    return effects.above(0.5 * lost - control, exact=has_dead(*pair)).said(words)


def attracted(found: Found) -> Effect:
    """Gain of attracted tickets over plain controls."""
    plain, attracted = pair = entries(found["penalty"], "unstable", "attracted")
    gain = accuracies(attracted, "ticket") - accuracies(plain, "reinitialized")
    before = gaps(plain)
    words = f"above plain controls by {spread(gain)} points, plain by {spread(before)}"
    words += _strength(attracted)
    exact = has_dead(*pair)
    parts = effects.above(gain, exact=exact), effects.above(gain - before, exact=exact)
    return effects.every(*parts, words=words)


def attraction_hurts(found: Found) -> Effect:
    """Loss of controls by attraction."""
    pair = entries(found["penalty"], "unstable", "attracted")
    a, b = (accuracies(variant, "reinitialized") for variant in pair)
    words = f"lose {spread(a - b)} points{_strength(pair[1])}"
    return effects.above(a - b, exact=has_dead(*pair)).said(words)


def _strength(variant: Found) -> str:
    """Says which strength of the penalty counts, where several were tried."""
    return f" (strength {variant['strength']})" if "strength" in variant else ""


def angles(found: Found) -> Effect:
    """Angles between successive rounds."""
    pair = entries(found["variants"], "unstable", "stable")
    unstable, stable = map(successive, pair)
    words = f"{spread(unstable)} right angles, stable {spread(stable)}"
    parts = effects.below(stable, NEAR), effects.above(unstable, FAR)
    return effects.every(*parts, words=words)


def medium_connected(found: Found) -> Effect:
    """Rises of the error between medium rounds."""
    pair = entries(found["variants"], "unstable", "stable")
    unstable, stable = (rises(variant, "medium") for variant in pair)
    words = f"rise {spread(unstable)} points, stable {spread(stable)}"
    parts = effects.below(stable, STABLE), effects.above(unstable, STABLE)
    return effects.every(*parts, words=words)


def late_apart(found: Found) -> Effect:
    """Rises of the error between late rounds."""
    (stable,) = entries(found["variants"], "stable")
    medium, late = (rises(stable, part) for part in ("medium", "late"))
    words = f"rise {spread(medium)} points in medium rounds, {spread(late)} in late"
    return effects.above(late, STABLE).said(words)


def thresholds(found: Found) -> Effect:
    """Pruning thresholds of later rounds."""
    unstable, stable = entries(found["variants"], "unstable", "stable")
    logs = [np.log(np.asarray(v["thresholds"], np.float64)) for v in (unstable, stable)]
    a, b = (np.mean(each[:, each.shape[1] // 2 :], axis=1) for each in logs)
    words = f"{float(np.exp(np.mean(b - a))):.2f} times as high where stable"
    return effects.above(b - a).said(words)
