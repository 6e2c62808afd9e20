"""The claims of Maene et al. (2021), and what must be seen for each.

Thresholds were written before any run of the study had pruned: dense networks alone had
been trained, to choose the batch sizes (`arms.BATCHES`). Those that are marked amended
were made stricter when runs had been seen: what a claim takes for granted, that
training is stable or unstable, must be seen too. All claims are tested at the scale of
the run, whose fraction of the published length stands on the page.

Seeds are pairs: arms share initial weights and, per batch size, the orders of data, so
differences are taken seed by seed, and tests are one-sided t tests on them. A gap is
the test accuracy of tickets less that of their reinitialised controls, in percentage
points, averaged over late rounds (`LATE`): those from the middle on.
"""

from typing import Any

import numpy as np

from experiments.studies import claims
from experiments.studies.claims import Claim, Findings, Missing, Seen, entries, spread
from jaxsparse.analysis import connectivity

STABLE = 100 * connectivity.STABLE_BELOW  # points of instability
LATE = 0.5  # late rounds are those from this fraction of all on
APART = 0.1  # of a right angle, between mean angles
ORTHOGONAL = 0.5  # right angles: nearer to orthogonal than to alike


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


def _stable(arm: Findings, *, pruned: bool) -> bool:
    """Says whether training of an arm is stable, on average over seeds."""
    return bool(instabilities(arm, pruned=pruned).mean() < STABLE)


def _how_stable(small: Findings) -> str:
    """Says what is stable at small batches: the dense network, or pruned rounds."""
    words = {True: "stable", False: "unstable"}
    dense, pruned = (words[_stable(small, pruned=which)] for which in (False, True))
    return f"; at small ones dense networks are {dense}, pruned rounds {pruned}"


def _falls_with_batches(found: Findings) -> Seen:
    small, large = entries(found["arms"], "small", "large")
    words = []
    for pruned in (True, False):
        a, b = (instabilities(arm, pruned=pruned) for arm in (small, large))
        words.append(f"{'pruned' if pruned else 'dense'} {spread(a)} and {spread(b)}")
    falls = claims.above(a - b)  # of dense networks
    crosses = not _stable(small, pruned=False) and _stable(large, pruned=False)
    text = "instability at small and large batches, points of error: "
    holds = False if falls is False else True if falls and crosses else None
    return Seen(text + ", ".join(reversed(words)), len(a), holds)


def _warmup_helps(found: Findings) -> Seen:
    plain, warm = entries(found.get("warmup", {}), "plain", "warm")
    a, b = (instabilities(arm, pruned=False) for arm in (plain, warm))
    words = f"dense {spread(a)} points of error, {spread(b)} with warm-up"
    if _stable(plain, pruned=False):
        return Seen(f"{words}; stable without", len(a), None)
    return Seen(words, len(a), claims.above(a - b))


def _stable_at_large(found: Findings) -> Seen:
    (large,) = entries(found["arms"], "large")
    values = instabilities(large, pruned=True)
    holds = True if values.mean() < STABLE else None
    if holds is None and claims.above(values, STABLE):
        holds = False
    return Seen(f"instability {spread(values)} points of error", len(values), holds)


def _tickets_win(found: Findings) -> Seen:
    (large,) = entries(found["arms"], "large")
    values = gaps(large)
    if not _stable(large, pruned=True):
        return Seen(f"{spread(values)} points; not stable", len(values), None)
    return Seen(f"{spread(values)} points", len(values), claims.above(values))


def _no_tickets_at_small(found: Findings) -> Seen:
    arms = entries(found["arms"], "small", "large")
    small, large = map(gaps, arms)
    words = f"gap {spread(small)} points at small batches, {spread(large)} at large"
    words += _how_stable(arms[0])
    if _stable(arms[0], pruned=False):
        return Seen(words, len(small), None)
    if large.mean() <= 0:
        return Seen(words, len(small), None)
    ratio, better = small.mean() / large.mean(), claims.above(small)
    holds = None
    if ratio < 0.5 and claims.above(large - small) and not better:
        holds = True
    elif ratio >= 1 or (ratio >= 0.5 and better):
        holds = False
    return Seen(words, len(small), holds)


def _repelled(found: Findings) -> Seen:
    plain, repelled = entries(found["arms"], "large", "repelled")
    before, after = gaps(plain), gaps(repelled)
    words = f"gap {spread(before)} points, repelled {spread(after)}"
    if not claims.above(before):
        return Seen(f"{words}; no gap to lose", len(after), None)
    ratio = after.mean() / before.mean()
    holds = True if ratio < 0.5 and claims.above(before - after) else None
    return Seen(words, len(after), False if ratio > 0.8 else holds)


def _controls_unaffected(found: Findings) -> Seen:
    plain, repelled = entries(found["arms"], "large", "repelled")
    lost, control = (
        accuracies(plain, name) - accuracies(repelled, name)
        for name in ("ticket", "reinitialized")
    )
    words = f"controls lose {spread(control)} points, tickets {spread(lost)}"
    if not claims.above(lost):
        return Seen(f"{words}; no clear loss of tickets", len(lost), None)
    ratio = control.mean() / lost.mean()
    holds = True if ratio < 0.5 and claims.above(lost - control) else None
    return Seen(words, len(lost), False if ratio > 0.8 else holds)


def _attracted(found: Findings) -> Seen:
    plain, attracted = entries(found["arms"], "small", "attracted")
    gain = accuracies(attracted, "ticket") - accuracies(plain, "reinitialized")
    before = gaps(plain)
    words = f"tickets above plain controls by {spread(gain)} points, plain by "
    more = claims.above(gain - before)
    holds = True if more and claims.above(gain) else None
    holds = False if more is False or gain.mean() <= 0 else holds
    return Seen(words + spread(before), len(gain), holds)


def _attraction_hurts_controls(found: Findings) -> Seen:
    plain, attracted = entries(found["arms"], "small", "attracted")
    lost = accuracies(plain, "reinitialized") - accuracies(attracted, "reinitialized")
    return Seen(f"lose {spread(lost)} points", len(lost), claims.above(lost))


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
    apart = claims.above(small - large)
    holds = None
    if apart and (small - large).mean() > APART and small.mean() > ORTHOGONAL:
        holds = True
    return Seen(words, len(small), False if apart is False else holds)


def _increases(arm: Findings, part: str) -> np.ndarray:
    """Returns how far the error rises between successive rounds [seeds], in points.

    Of "medium" rounds, the middle third of those that prune, rounded outwards, or of
    "late" ones, the last third.
    """
    rows = np.asarray(arm["successive"], np.float64)
    if not rows.size:
        raise Missing("no successive rounds")
    count = rows.shape[1]
    third = max(1, count // 3)
    medium = rows[:, third : max(count - third, third + 1)]
    chosen = medium if part == "medium" else rows[:, -third:]
    return np.mean(chosen, axis=1)


def _successive_connected(found: Findings) -> Seen:
    arms = entries(found["arms"], "small", "large")
    small, large = (_increases(arm, "medium") for arm in arms)
    words = f"rise {spread(small)} points at small batches, {spread(large)} at large"
    words += _how_stable(arms[0])
    if _stable(arms[0], pruned=False):
        return Seen(words, len(small), None)
    holds = None
    if large.mean() < STABLE and claims.above(small, STABLE):
        holds = True
    elif claims.above(large, STABLE) or not (small - large).mean() > 0:
        holds = False
    return Seen(words, len(small), holds)


def _late_apart(found: Findings) -> Seen:
    (large,) = entries(found["arms"], "large")
    medium, late = (_increases(large, part) for part in ("medium", "late"))
    words = f"rise {spread(medium)} points in medium rounds, {spread(late)} in late"
    return Seen(words, len(late), claims.above(late - medium))


def _threshold(found: Findings) -> Seen:
    small, large = entries(found["arms"], "small", "large")
    a, b = (_late_thresholds(arm) for arm in (small, large))
    ratio = float(np.exp(np.mean(b - a)))
    words = f"{ratio:.2f} times as high at large batches"
    return Seen(words, len(a), claims.above(b - a))


def _late_thresholds(arm: Findings) -> np.ndarray:
    """Returns the logarithm of each seed's threshold, over the later half of rounds."""
    cuts = np.log(np.asarray(arm["thresholds"], np.float64))
    return np.mean(cuts[:, cuts.shape[1] // 2 :], axis=1)


def _onset(found: Findings) -> Seen:
    (onset,) = entries(found, "onset")
    dense: Any = next(line for line in onset if line["level"] == 0)
    first, last = (np.asarray(dense["instability"])[:, i] for i in (0, -1))
    words = f"dense: {spread(first)} points of error from update {dense['steps'][0]}"
    words += f", {spread(last)} from update {dense['steps'][-1]}"
    if first.mean() < STABLE:
        return Seen(f"{words}; stable from the start", len(first), None)
    falls = claims.above(first - last)
    holds = (
        False if falls is False else True if falls and last.mean() < STABLE else None
    )
    return Seen(words, len(first), holds)


AMENDED = "amended"
CONTROLS = "tickets less reinitialised controls, late rounds, seed by seed"
CLAIMS = (
    Claim(
        "onset of stability",
        "Training becomes stable to the noise of SGD at some update, early.",
        "ResNet-20 on CIFAR-10: from update 2,000 dense, 500 sparse; LeNet-300-100 on "
        "MNIST, batches of 60: from initialisation (Frankle et al. 2020)",
        "dense networks: instability from the last update looked at below that from "
        "initialisation, p < 0.05, and below 2 points; not reproduced if not below; "
        "unclear if stable from the start",
        _onset,
        AMENDED,
    ),
    Claim(
        "batches make stable",
        "Larger batches, all else equal, make training from initialisation stable.",
        "128 unstable, 512 between, 1,024 and 2,048 stable (figure)",
        "dense networks: instability at small above large batches, p < 0.05, at least "
        "2 points at small and below at large; not reproduced if not above",
        _falls_with_batches,
        AMENDED,
    ),
    Claim(
        "warm-up helps",
        "Where training is half stable, warm-up makes it more stable.",
        "helps at 512, not at 1,024 and 2,048 (figure)",
        "dense networks: instability with warm-up below that without, p < 0.05; not "
        "reproduced if not below; unclear if stable without",
        _warmup_helps,
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
        f"{CONTROLS}: above 0, p < 0.05; not reproduced if not above; unclear unless "
        "pruned rounds are stable",
        _tickets_win,
        AMENDED,
    ),
    Claim(
        "no tickets where unstable",
        "Where training is unstable, tickets are no better than controls.",
        "IMP as reinitialised at 128 (figure)",
        "gap at small batches under half of that at large, difference p < 0.05, and "
        "not above 0, p < 0.05; not reproduced if no smaller, or above half and above "
        "0; unclear without a gap at large, and if dense networks at small are stable",
        _no_tickets_at_small,
        AMENDED,
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
        "reproduced above four fifths; unclear if the loss of tickets is",
        _controls_unaffected,
    ),
    Claim(
        "attracting makes tickets",
        "Drawn to the solutions of earlier rounds, unstable pruning finds tickets.",
        "above reinitialised, below rewinding (figure)",
        "attracted tickets gain over plain controls, and more than plain tickets do, "
        "each p < 0.05; not reproduced if not more, or nothing",
        _attracted,
        AMENDED,
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
        f"right angles, p < 0.05, and above {ORTHOGONAL:g} at small; not reproduced if "
        "not above large",
        _angles,
        AMENDED,
    ),
    Claim(
        "medium rounds are connected",
        "Successive stable rounds are linearly connected at medium sparsity, unstable "
        "ones are not.",
        "no increase at medium sparsity at 2,048 (figure)",
        "rise of the test error above the worse end, middle third of rounds: large "
        "below 2 points, small above, p < 0.05; not reproduced if large is above, p < "
        "0.05, or small rises no more; unclear if dense networks at small are stable",
        _successive_connected,
        AMENDED,
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
