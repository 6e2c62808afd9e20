"""The claims of Maene et al. (2021), and what must be seen for each.

All thresholds were written before any run of the study had pruned: dense networks alone
had been trained, to choose the batch sizes (`arms.BATCHES`). All claims are tested at
the scale of the run, whose fraction of the published length stands on the page.

Seeds are pairs: arms share initial weights and, per batch size, the orders of data, so
differences are taken seed by seed, and tests are one-sided t tests on them. A gap is
the test accuracy of tickets less that of their reinitialised controls, in percentage
points, averaged over late rounds (`LATE`): those from the middle on.
"""

from typing import Any

import numpy as np

from experiments.studies import verdicts
from experiments.studies.verdicts import Claim, Findings, Missing, Seen, entries, spread

STABLE = 0.02  # instability below which Frankle et al. (2020) call training stable
LATE = 0.5  # late rounds are those from this fraction of all on
APART = 0.1  # of a right angle, between mean angles


def gaps(arm: Findings) -> np.ndarray:
    """Returns the gap of each seed, in percentage points, over late rounds."""
    levels = np.asarray(arm["levels"])
    late = levels >= LATE * levels.max()
    ticket, control = (
        np.asarray(arm[name])[:, late] for name in ("ticket", "reinitialized")
    )
    return np.mean(ticket - control, axis=1)


def accuracies(arm: Findings, name: str) -> np.ndarray:
    """Returns the mean test accuracy of each seed in late rounds, in percent."""
    levels = np.asarray(arm["levels"])
    late = levels >= LATE * levels.max()
    return np.mean(np.asarray(arm[name])[:, late], axis=1)


def instabilities(arm: Findings, *, pruned: bool) -> np.ndarray:
    """Returns each seed's instability in percentage points of test error.

    Args:
      arm: findings on it.
      pruned: the mean over the pruned rounds that have children, or the dense network.
    """
    rows = {int(level): values for level, values in arm["instability"].items()}
    chosen = [values for level, values in rows.items() if bool(level) == pruned]
    if not chosen:
        raise Missing("no children")
    return np.mean(np.asarray(chosen, np.float64), axis=0)


def _falls_with_batches(found: Findings) -> Seen:
    small, large = entries(found["arms"], "small", "large")
    words, verdict = [], []
    for pruned in (False, True):
        a, b = (instabilities(arm, pruned=pruned) for arm in (small, large))
        words.append(f"{'pruned' if pruned else 'dense'} {spread(a)} and {spread(b)}")
        verdict.append(verdicts.above(a - b))
    holds = None
    if all(verdict):
        holds = True
    elif False in verdict:
        holds = False
    text = "instability at small and large batches, points of error: "
    return Seen(text + ", ".join(words), len(a), holds)


def _stable_at_large(found: Findings) -> Seen:
    (large,) = entries(found["arms"], "large")
    values = instabilities(large, pruned=True)
    percent = 100 * STABLE
    holds = True if values.mean() < percent else None
    if holds is None and verdicts.above(values, percent):
        holds = False
    return Seen(f"instability {spread(values)} points of error", len(values), holds)


def _tickets_win(found: Findings) -> Seen:
    (large,) = entries(found["arms"], "large")
    values = gaps(large)
    return Seen(f"{spread(values)} points", len(values), verdicts.above(values))


def _no_tickets_at_small(found: Findings) -> Seen:
    small, large = (gaps(arm) for arm in entries(found["arms"], "small", "large"))
    words = f"gap {spread(small)} points at small batches, {spread(large)} at large"
    if large.mean() <= 0:
        return Seen(words, len(small), None)
    ratio = small.mean() / large.mean()
    holds = True if ratio < 0.5 and verdicts.above(large - small) else None
    return Seen(words, len(small), False if ratio >= 1 else holds)


def _repelled(found: Findings) -> Seen:
    plain, repelled = entries(found["arms"], "large", "repelled")
    before, after = gaps(plain), gaps(repelled)
    words = f"gap {spread(before)} points, repelled {spread(after)}"
    if not verdicts.above(before):
        return Seen(f"{words}; no gap to lose", len(after), None)
    ratio = after.mean() / before.mean()
    holds = True if ratio < 0.5 and verdicts.above(before - after) else None
    return Seen(words, len(after), False if ratio > 0.8 else holds)


def _controls_unaffected(found: Findings) -> Seen:
    plain, repelled = entries(found["arms"], "large", "repelled")
    lost, control = (
        accuracies(plain, name) - accuracies(repelled, name)
        for name in ("ticket", "reinitialized")
    )
    words = f"controls lose {spread(control)} points, tickets {spread(lost)}"
    if not verdicts.above(lost):
        return Seen(f"{words}; tickets lose nothing", len(lost), None)
    ratio = control.mean() / lost.mean()
    holds = True if ratio < 0.5 and verdicts.above(lost - control) else None
    return Seen(words, len(lost), False if ratio > 0.8 else holds)


def _attracted(found: Findings) -> Seen:
    plain, attracted = entries(found["arms"], "small", "attracted")
    gain = accuracies(attracted, "ticket") - accuracies(plain, "reinitialized")
    before = gaps(plain)
    words = f"tickets above plain controls by {spread(gain)} points, plain by "
    holds = verdicts.above(gain - before)
    return Seen(words + spread(before), len(gain), holds)


def _attraction_hurts_controls(found: Findings) -> Seen:
    plain, attracted = entries(found["arms"], "small", "attracted")
    lost = accuracies(plain, "reinitialized") - accuracies(attracted, "reinitialized")
    return Seen(f"lose {spread(lost)} points", len(lost), verdicts.above(lost))


def successive(arm: Findings) -> np.ndarray:
    """Returns the mean angle between rounds that follow each other [seeds].

    In right angles, of all rounds from the dense network on; the initialisation, last
    in the matrices, is left aside.
    """
    matrices = np.asarray(arm["angles"])[:, :-1, :-1]
    return np.mean(np.diagonal(matrices, offset=1, axis1=1, axis2=2), axis=1)


def _angles(found: Findings) -> Seen:
    small, large = (successive(a) for a in entries(found["arms"], "small", "large"))
    words = f"{spread(small)} right angles at small batches, {spread(large)} at large"
    apart = verdicts.above(small - large)
    holds = True if apart and (small - large).mean() > APART else None
    return Seen(words, len(small), False if apart is False else holds)


def _increases(arm: Findings, part: str) -> np.ndarray:
    """Returns how far the error rises between successive rounds [seeds], in points.

    Of "medium" rounds, the middle third of those that prune, or of "late" ones, the
    last third.
    """
    rows = np.asarray(arm["successive"], np.float64)
    if not rows.size:
        raise Missing("no successive rounds")
    third = max(1, rows.shape[1] // 3)
    chosen = rows[:, third : 2 * third] if part == "medium" else rows[:, -third:]
    return np.mean(chosen, axis=1)


def _successive_connected(found: Findings) -> Seen:
    small, large = (
        _increases(arm, "medium") for arm in entries(found["arms"], "small", "large")
    )
    words = f"rise {spread(small)} points at small batches, {spread(large)} at large"
    percent = 100 * STABLE
    holds = None
    if large.mean() < percent and verdicts.above(small, percent):
        holds = True
    elif verdicts.above(large, percent) or not (small - large).mean() > 0:
        holds = False
    return Seen(words, len(small), holds)


def _late_apart(found: Findings) -> Seen:
    (large,) = entries(found["arms"], "large")
    medium, late = (_increases(large, part) for part in ("medium", "late"))
    words = f"rise {spread(medium)} points in medium rounds, {spread(late)} in late"
    return Seen(words, len(late), verdicts.above(late - medium))


def _threshold(found: Findings) -> Seen:
    small, large = entries(found["arms"], "small", "large")
    a, b = (np.log(_late_thresholds(arm)) for arm in (small, large))
    ratio = float(np.exp(np.mean(b - a)))
    words = f"{ratio:.2f} times as high at large batches"
    return Seen(words, len(a), verdicts.above(b - a))


def _late_thresholds(arm: Findings) -> np.ndarray:
    cuts = np.asarray(arm["thresholds"], np.float64)
    return np.mean(cuts[:, cuts.shape[1] // 2 :], axis=1)


def _onset(found: Findings) -> Seen:
    (onset,) = entries(found, "onset")
    dense: Any = next(line for line in onset if line["level"] == 0)
    first, last = (np.asarray(dense["instability"])[:, i] for i in (0, -1))
    words = f"dense: {spread(first)} points of error from update {dense['steps'][0]}"
    words += f", {spread(last)} from update {dense['steps'][-1]}"
    if first.mean() < 100 * STABLE:
        return Seen(f"{words}; stable from the start", len(first), None)
    return Seen(words, len(first), verdicts.above(first - last))


CONTROLS = "tickets less reinitialised controls, late rounds, seed by seed"
CLAIMS = (
    Claim(
        "onset of stability",
        "Training becomes stable to the noise of SGD at some update, early.",
        "ResNet-20: from update 2,000 dense, 500 sparse (Frankle et al. 2020)",
        "dense networks: instability from the last update looked at below that from "
        "initialisation, p < 0.05; unclear if stable from the start (below 2 points)",
        _onset,
    ),
    Claim(
        "batches make stable",
        "Larger batches, all else equal, make training from initialisation stable.",
        "128 unstable, 512 between, 1,024 and 2,048 stable (figure)",
        "instability at small above large batches, dense and pruned, each p < 0.05; "
        "not reproduced if either is not above",
        _falls_with_batches,
    ),
    Claim(
        "stable at large batches",
        "Subnetworks trained with large batches from initialisation are stable.",
        "low error increase at rounds 5 to 15 (figure)",
        "mean instability of pruned rounds below 2 points; not reproduced if above, "
        "p < 0.05",
        _stable_at_large,
    ),
    Claim(
        "tickets at initialisation",
        "Where training is stable, tickets rewound to initialisation beat "
        "reinitialised controls.",
        "IMP above reinitialised at 1,024 and 2,048 (figure)",
        f"{CONTROLS}: above 0, p < 0.05; not reproduced if not above",
        _tickets_win,
    ),
    Claim(
        "no tickets where unstable",
        "Where training is unstable, tickets are no better than controls.",
        "IMP as reinitialised at 128 (figure)",
        "gap at small batches under half of that at large, difference p < 0.05; not "
        "reproduced if no smaller; unclear without a gap at large",
        _no_tickets_at_small,
    ),
    Claim(
        "repelling destroys tickets",
        "Repelled from the solutions of earlier rounds, stable pruning falls to the "
        "level of controls.",
        "to the level of reinitialised (figure)",
        "gap repelled under half of that before, loss p < 0.05; not reproduced above "
        "four fifths; unclear without a gap before",
        _repelled,
    ),
    Claim(
        "repelling spares controls",
        "Repelling does not hurt reinitialised controls.",
        "unaffected (figure)",
        "controls lose under half of what tickets lose, difference p < 0.05; not "
        "reproduced above four fifths; unclear if tickets lose nothing",
        _controls_unaffected,
    ),
    Claim(
        "attracting makes tickets",
        "Drawn to the solutions of earlier rounds, unstable pruning finds tickets.",
        "above reinitialised, below rewinding (figure)",
        "attracted tickets gain more over plain controls than plain tickets, p < 0.05; "
        "not reproduced if not more",
        _attracted,
    ),
    Claim(
        "attracting hurts controls",
        "Attraction to the tickets' solutions hurts reinitialised controls.",
        "hurts (figure)",
        "controls lose in late rounds, p < 0.05; not reproduced if they do not",
        _attraction_hurts_controls,
    ),
    Claim(
        "same region",
        "Stable rounds end in the same region, unstable ones nearly orthogonal.",
        "near-orthogonal at 128, very small angles at 1,024 and 2,048 (figure)",
        f"mean angle of successive rounds at small above large batches by {APART:g} "
        "right angles, p < 0.05; not reproduced if not above",
        _angles,
    ),
    Claim(
        "medium rounds are connected",
        "Successive stable rounds are linearly connected at medium sparsity, unstable "
        "ones are not.",
        "no increase at medium sparsity at 2,048 (figure)",
        "rise of the test error above the worse end, middle third of rounds: large "
        "below 2 points, small above, p < 0.05; not reproduced if large is above, p < "
        "0.05, or small rises no more",
        _successive_connected,
    ),
    Claim(
        "late rounds are not",
        "At high sparsity successive rounds are no longer connected, stable or not.",
        "increase at high sparsity (figure)",
        "large batches: rise in the last third of rounds above the middle third, p < "
        "0.05; not reproduced if not above",
        _late_apart,
    ),
    Claim(
        "higher thresholds",
        "Stable pruning raises the magnitude at which weights are pruned.",
        "higher in stable pruning (figure)",
        "logarithm of the threshold, mean over later rounds: higher at large batches, "
        "p < 0.05; not reproduced if not higher",
        _threshold,
    ),
)
