"""The claims of Maene et al. (2021), and what must be observed for each.

Thresholds were written before any run of the study had pruned: dense networks alone had
been trained, to choose the batch sizes (`variants.BATCHES`). Amended ones were made
stricter when runs had been seen: what a claim presumes, that training is stable or
unstable, must be observed too. All claims are tested at the scale of the run, whose
fraction of the published length is on the page.

Seeds are paired: variants share initial weights and, per batch size, the orders of
data, so differences are taken seed by seed, and tests are one-sided t-tests on them. A
gap is the test accuracy of tickets minus that of their reinitialized controls, in
percentage points, averaged over late rounds (`LATE`): the second half of rounds.
"""

from typing import Any

import numpy as np

from experiments.studies import claims
from experiments.studies.claims import (
    Claim,
    Evidence,
    Findings,
    NotMeasured,
    entries,
    spread,
)
from jaxsparse.analysis import connectivity

STABLE = 100 * connectivity.STABLE_BELOW  # points of instability
LATE = 0.5  # late rounds start at this fraction of all rounds
APART = 0.1  # of a right angle, between mean angles
ORTHOGONAL = 0.5  # right angles: nearer to orthogonal than to equal


def gaps(variant: Findings) -> np.ndarray:
    """Returns the gap of each seed, in percentage points, over late rounds.

    Args:
      variant: measurements of a variant.
    """
    levels = np.asarray(variant["levels"])
    late = levels >= LATE * levels.max()
    ticket, control = (
        np.asarray(variant[name])[:, late] for name in ("ticket", "reinitialized")
    )
    return np.mean(ticket - control, axis=1)


def accuracies(variant: Findings, name: str) -> np.ndarray:
    """Returns the mean test accuracy of each seed in late rounds, in percent.

    Args:
      variant: measurements of a variant.
      name: "ticket" or "reinitialized".
    """
    levels = np.asarray(variant["levels"])
    late = levels >= LATE * levels.max()
    return np.mean(np.asarray(variant[name])[:, late], axis=1)


def instabilities(variant: Findings, *, pruned: bool) -> np.ndarray:
    """Returns each seed's instability in percentage points of test error.

    Args:
      variant: measurements of a variant.
      pruned: whether to average over the pruned rounds that have copies, or to take
        the dense network.

    Raises:
      NotMeasured: if there are no copies.
    """
    rows = {int(level): values for level, values in variant["instability"].items()}
    chosen = [values for level, values in rows.items() if bool(level) == pruned]
    if not chosen:
        raise NotMeasured("no copies")
    return np.mean(np.asarray(chosen, np.float64), axis=0)


def _stable(variant: Findings, *, pruned: bool) -> bool:
    """Returns whether training is stable, on average over seeds."""
    return bool(instabilities(variant, pruned=pruned).mean() < STABLE)


def _how_stable(small: Findings) -> str:
    """Describes whether dense networks and pruned rounds are stable."""
    words = {True: "stable", False: "unstable"}
    dense, pruned = (words[_stable(small, pruned=which)] for which in (False, True))
    return f"; at small ones dense networks are {dense}, pruned rounds {pruned}"


def _falls_with_batches(found: Findings) -> Evidence:
    small, large = entries(found["variants"], "small", "large")
    words = []
    for pruned in (True, False):
        a, b = (instabilities(variant, pruned=pruned) for variant in (small, large))
        words.append(f"{'pruned' if pruned else 'dense'} {spread(a)} and {spread(b)}")
    falls = claims.above(a - b)  # of dense networks
    crosses = not _stable(small, pruned=False) and _stable(large, pruned=False)
    text = "instability at small and large batches, points of error: "
    holds = False if falls is False else True if falls and crosses else None
    return Evidence(text + ", ".join(reversed(words)), len(a), holds)


def _warmup_helps(found: Findings) -> Evidence:
    plain, warm = entries(found.get("warmup", {}), "plain", "warm")
    a, b = (instabilities(variant, pruned=False) for variant in (plain, warm))
    words = f"dense {spread(a)} points of error, {spread(b)} with warm-up"
    if _stable(plain, pruned=False):
        return Evidence(f"{words}; stable without", len(a), None)
    return Evidence(words, len(a), claims.above(a - b))


def _stable_at_large(found: Findings) -> Evidence:
    (large,) = entries(found["variants"], "large")
    values = instabilities(large, pruned=True)
    holds = True if values.mean() < STABLE else None
    if holds is None and claims.above(values, STABLE):
        holds = False
    return Evidence(f"instability {spread(values)} points of error", len(values), holds)


def _tickets_win(found: Findings) -> Evidence:
    (large,) = entries(found["variants"], "large")
    values = gaps(large)
    if not _stable(large, pruned=True):
        return Evidence(f"{spread(values)} points; not stable", len(values), None)
    return Evidence(f"{spread(values)} points", len(values), claims.above(values))


def _no_tickets_at_small(found: Findings) -> Evidence:
    pair = entries(found["variants"], "small", "large")
    small, large = map(gaps, pair)
    words = f"gap {spread(small)} points at small batches, {spread(large)} at large"
    words += _how_stable(pair[0])
    if _stable(pair[0], pruned=False):
        return Evidence(words, len(small), None)
    if large.mean() <= 0:
        return Evidence(words, len(small), None)
    ratio, better = small.mean() / large.mean(), claims.above(small)
    holds = None
    if ratio < 0.5 and claims.above(large - small) and not better:
        holds = True
    elif ratio >= 1 or (ratio >= 0.5 and better):
        holds = False
    return Evidence(words, len(small), holds)


def _repelled(found: Findings) -> Evidence:
    plain, repelled = entries(found["variants"], "large", "repelled")
    before, after = gaps(plain), gaps(repelled)
    words = f"gap {spread(before)} points, repelled {spread(after)}"
    if not claims.above(before):
        return Evidence(f"{words}; no gap to lose", len(after), None)
    ratio = after.mean() / before.mean()
    holds = True if ratio < 0.5 and claims.above(before - after) else None
    return Evidence(words, len(after), False if ratio > 0.8 else holds)


def _controls_unaffected(found: Findings) -> Evidence:
    plain, repelled = entries(found["variants"], "large", "repelled")
    lost, control = (
        accuracies(plain, name) - accuracies(repelled, name)
        for name in ("ticket", "reinitialized")
    )
    words = f"controls lose {spread(control)} points, tickets {spread(lost)}"
    if not claims.above(lost):
        return Evidence(f"{words}; no clear loss of tickets", len(lost), None)
    ratio = control.mean() / lost.mean()
    holds = True if ratio < 0.5 and claims.above(lost - control) else None
    return Evidence(words, len(lost), False if ratio > 0.8 else holds)


def _attracted(found: Findings) -> Evidence:
    plain, attracted = entries(found["variants"], "small", "attracted")
    gain = accuracies(attracted, "ticket") - accuracies(plain, "reinitialized")
    before = gaps(plain)
    words = f"tickets above plain controls by {spread(gain)} points, plain by "
    more = claims.above(gain - before)
    holds = True if more and claims.above(gain) else None
    holds = False if more is False or gain.mean() <= 0 else holds
    return Evidence(words + spread(before), len(gain), holds)


def _attraction_hurts_controls(found: Findings) -> Evidence:
    plain, attracted = entries(found["variants"], "small", "attracted")
    lost = accuracies(plain, "reinitialized") - accuracies(attracted, "reinitialized")
    return Evidence(f"lose {spread(lost)} points", len(lost), claims.above(lost))


def successive(variant: Findings) -> np.ndarray:
    """Returns the mean angle between rounds that follow each other [seeds].

    In right angles, over all rounds from the dense network on, without the
    initialization, which is last in the matrices.

    Args:
      variant: measurements of a variant.
    """
    matrices = np.asarray(variant["angles"])[:, :-1, :-1]
    return np.mean(np.diagonal(matrices, offset=1, axis1=1, axis2=2), axis=1)


def _angles(found: Findings) -> Evidence:
    small, large = (successive(a) for a in entries(found["variants"], "small", "large"))
    words = f"{spread(small)} right angles at small batches, {spread(large)} at large"
    apart = claims.above(small - large)
    holds = None
    if apart and (small - large).mean() > APART and small.mean() > ORTHOGONAL:
        holds = True
    return Evidence(words, len(small), False if apart is False else holds)


def _increases(variant: Findings, part: str) -> np.ndarray:
    """Returns how far the error rises between successive rounds [seeds], in points.

    For "medium" rounds, the middle third of those that prune, rounded outwards, or for
    "late" ones, the last third.
    """
    rows = np.asarray(variant["successive"], np.float64)
    if not rows.size:
        raise NotMeasured("no successive rounds")
    count = rows.shape[1]
    third = max(1, count // 3)
    medium = rows[:, third : max(count - third, third + 1)]
    chosen = medium if part == "medium" else rows[:, -third:]
    return np.mean(chosen, axis=1)


def _successive_connected(found: Findings) -> Evidence:
    pair = entries(found["variants"], "small", "large")
    small, large = (_increases(variant, "medium") for variant in pair)
    words = f"rise {spread(small)} points at small batches, {spread(large)} at large"
    words += _how_stable(pair[0])
    if _stable(pair[0], pruned=False):
        return Evidence(words, len(small), None)
    holds = None
    if large.mean() < STABLE and claims.above(small, STABLE):
        holds = True
    elif claims.above(large, STABLE) or not (small - large).mean() > 0:
        holds = False
    return Evidence(words, len(small), holds)


def _late_apart(found: Findings) -> Evidence:
    (large,) = entries(found["variants"], "large")
    medium, late = (_increases(large, part) for part in ("medium", "late"))
    words = f"rise {spread(medium)} points in medium rounds, {spread(late)} in late"
    return Evidence(words, len(late), claims.above(late - medium))


def _threshold(found: Findings) -> Evidence:
    small, large = entries(found["variants"], "small", "large")
    a, b = (_late_thresholds(variant) for variant in (small, large))
    ratio = float(np.exp(np.mean(b - a)))
    words = f"{ratio:.2f} times as high at large batches"
    return Evidence(words, len(a), claims.above(b - a))


def _late_thresholds(variant: Findings) -> np.ndarray:
    """Returns the logarithm of each seed's threshold, over the later half of rounds."""
    cuts = np.log(np.asarray(variant["thresholds"], np.float64))
    return np.mean(cuts[:, cuts.shape[1] // 2 :], axis=1)


def _onset(found: Findings) -> Evidence:
    (onset,) = entries(found, "onset")
    dense: Any = next(line for line in onset if line["level"] == 0)
    first, last = (np.asarray(dense["instability"])[:, i] for i in (0, -1))
    words = f"dense: {spread(first)} points of error from update {dense['steps'][0]}"
    words += f", {spread(last)} from update {dense['steps'][-1]}"
    if first.mean() < STABLE:
        return Evidence(f"{words}; stable from the start", len(first), None)
    falls = claims.above(first - last)
    holds = (
        False if falls is False else True if falls and last.mean() < STABLE else None
    )
    return Evidence(words, len(first), holds)


AMENDED = "amended"
CONTROLS = "tickets less reinitialized controls, late rounds, seed by seed"
CLAIMS = (
    Claim(
        "onset of stability",
        "Training becomes stable to the SGD noise at some update, early.",
        "ResNet-20 on CIFAR-10: from update 2,000 dense, 500 sparse; LeNet-300-100 on "
        "MNIST, batches of 60: from initialization (Frankle et al. 2020)",
        "dense networks: instability from the last update measured below that from "
        "initialization, p < 0.05, and below 2 points; not reproduced if not below; "
        "unclear if stable from the start",
        _onset,
        AMENDED,
    ),
    Claim(
        "batches make stable",
        "Larger batches, all else equal, make training from initialization stable.",
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
        "Subnetworks trained with large batches from initialization are stable.",
        "low error increase at rounds 5 to 15 (figure)",
        "mean instability of pruned rounds below 2 points; not reproduced if above, "
        "p < 0.05",
        _stable_at_large,
    ),
    Claim(
        "tickets at initialization",
        "Where training is stable, tickets rewound to initialization beat "
        "reinitialized controls.",
        "IMP above reinitialized at 1,024 and 2,048 (figure)",
        f"{CONTROLS}: above 0, p < 0.05; not reproduced if not above; unclear unless "
        "pruned rounds are stable",
        _tickets_win,
        AMENDED,
    ),
    Claim(
        "no tickets where unstable",
        "Where training is unstable, tickets are no better than controls.",
        "IMP as reinitialized at 128 (figure)",
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
        "to the level of reinitialized (figure)",
        "gap repelled under half of that before, loss p < 0.05; not reproduced above "
        "four fifths; unclear without a gap before",
        _repelled,
    ),
    Claim(
        "repelling spares controls",
        "Repelling does not hurt reinitialized controls.",
        "unaffected (figure)",
        "controls lose under half of what tickets lose, difference p < 0.05; not "
        "reproduced above four fifths; unclear if the loss of tickets is",
        _controls_unaffected,
    ),
    Claim(
        "attracting makes tickets",
        "Attracted to the solutions of earlier rounds, unstable pruning finds tickets.",
        "above reinitialized, below rewinding (figure)",
        "attracted tickets gain over plain controls, and more than plain tickets do, "
        "each p < 0.05; not reproduced if not more, or nothing",
        _attracted,
        AMENDED,
    ),
    Claim(
        "attracting hurts controls",
        "Attraction to the tickets' solutions hurts reinitialized controls.",
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
