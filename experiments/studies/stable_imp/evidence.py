"""Evidence: what the measurements show for each claim."""

from typing import Any

import numpy as np

from experiments.studies import claims
from experiments.studies.claims import Evidence, Findings, NotMeasured, entries, spread
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


def falls_with_batches(found: Findings) -> Evidence:
    """Instability at small and large batches."""
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


def warmup_helps(found: Findings) -> Evidence:
    """Instability with and without warm-up."""
    plain, warm = entries(found.get("warmup", {}), "plain", "warm")
    a, b = (instabilities(variant, pruned=False) for variant in (plain, warm))
    words = f"dense {spread(a)} points of error, {spread(b)} with warm-up"
    if _stable(plain, pruned=False):
        return Evidence(f"{words}; stable without", len(a), None)
    return Evidence(words, len(a), claims.above(a - b))


def stable_at_large(found: Findings) -> Evidence:
    """Instability of pruned rounds at large batches."""
    (large,) = entries(found["variants"], "large")
    values = instabilities(large, pruned=True)
    holds = True if values.mean() < STABLE else None
    if holds is None and claims.above(values, STABLE):
        holds = False
    return Evidence(f"instability {spread(values)} points of error", len(values), holds)


def tickets_win(found: Findings) -> Evidence:
    """Gap of tickets at large batches."""
    (large,) = entries(found["variants"], "large")
    values = gaps(large)
    if not _stable(large, pruned=True):
        return Evidence(f"{spread(values)} points; not stable", len(values), None)
    return Evidence(f"{spread(values)} points", len(values), claims.above(values))


def no_tickets_at_small(found: Findings) -> Evidence:
    """Gap of tickets at small and at large batches."""
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


def repelled(found: Findings) -> Evidence:
    """Gap of tickets with and without repulsion."""
    plain, repelled = entries(found["variants"], "large", "repelled")
    before, after = gaps(plain), gaps(repelled)
    words = f"gap {spread(before)} points, repelled {spread(after)}"
    if not claims.above(before):
        return Evidence(f"{words}; no gap to lose", len(after), None)
    ratio = after.mean() / before.mean()
    holds = True if ratio < 0.5 and claims.above(before - after) else None
    return Evidence(words, len(after), False if ratio > 0.8 else holds)


def controls_unaffected(found: Findings) -> Evidence:
    """Losses of controls and of tickets by repulsion."""
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


def attracted(found: Findings) -> Evidence:
    """Gain of attracted tickets over plain controls."""
    plain, attracted = entries(found["variants"], "small", "attracted")
    gain = accuracies(attracted, "ticket") - accuracies(plain, "reinitialized")
    before = gaps(plain)
    words = f"tickets above plain controls by {spread(gain)} points, plain by "
    more = claims.above(gain - before)
    holds = True if more and claims.above(gain) else None
    holds = False if more is False or gain.mean() <= 0 else holds
    return Evidence(words + spread(before), len(gain), holds)


def attraction_hurts_controls(found: Findings) -> Evidence:
    """Loss of controls by attraction."""
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


def angles(found: Findings) -> Evidence:
    """Angles between successive rounds at small and large batches."""
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


def successive_connected(found: Findings) -> Evidence:
    """Rises of the error between medium rounds at small and large batches."""
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


def late_apart(found: Findings) -> Evidence:
    """Rises of the error between late and between medium rounds."""
    (large,) = entries(found["variants"], "large")
    medium, late = (_increases(large, part) for part in ("medium", "late"))
    words = f"rise {spread(medium)} points in medium rounds, {spread(late)} in late"
    return Evidence(words, len(late), claims.above(late - medium))


def threshold(found: Findings) -> Evidence:
    """Pruning thresholds at small and large batches."""
    small, large = entries(found["variants"], "small", "large")
    a, b = (_late_thresholds(variant) for variant in (small, large))
    ratio = float(np.exp(np.mean(b - a)))
    words = f"{ratio:.2f} times as high at large batches"
    return Evidence(words, len(a), claims.above(b - a))


def _late_thresholds(variant: Findings) -> np.ndarray:
    """Returns the logarithm of each seed's threshold, over the later half of rounds."""
    cuts = np.log(np.asarray(variant["thresholds"], np.float64))
    return np.mean(cuts[:, cuts.shape[1] // 2 :], axis=1)


def onset(found: Findings) -> Evidence:
    """Instability of dense networks from their first and last start."""
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
