"""Evidence: what the measurements show for each claim; see `quantities`.

Each function takes `found`, the measurements of the study.
"""

from collections.abc import Callable

import numpy as np

from experiments.studies import correlations, effects
from experiments.studies.claims import Found, NotMeasured, entries
from experiments.studies.effects import Effect, spread
from experiments.studies.stable_imp.quantities import (
    FAR,
    MATCHING,
    NEAR,
    STABLE,
    accuracies,
    gaps,
    has_dead,
    instabilities,
    onset,
    rises,
    successive,
)

_LOST = "dense minus tickets, points"
_CONTROLS = {
    "reinitialized": "reinitialized",
    "shuffled_layers": "shuffled masks",
    "random_mask": "random masks",
}


def becomes_stable(level: int) -> Callable[[Found], Effect]:
    """Compares the instability from the earliest and from the latest start.

    Args:
      level: 0 for dense networks; otherwise of the sparsest tickets.
    """

    def evaluate(found: Found) -> Effect:
        each = list(onset(found, level).items())
        (begin, first), (end, last) = each[0], each[-1]
        words = f"instability {spread(first)} points from update {begin}, "
        words += f"{spread(last)} from {end}"
        falls = effects.above(first - last).named(
            "instability, first minus last, points"
        )
        ends = effects.below(last, STABLE).named(
            f"instability from update {end}, points"
        )
        return effects.every(falls, ends, words=words)

    return evaluate


def tickets_sooner(found: Found) -> Effect:
    """Instability of dense networks and of tickets, from starts between the ends."""
    dense, tickets = onset(found, 0), onset(found, 1)
    between = [k for k in dense if k in tickets and 0 < k < max(dense)]
    if not between:
        raise NotMeasured("no common starts")
    a, b = (np.mean([of[k] for k in between], axis=0) for of in (dense, tickets))
    words = (
        f"instability of dense networks {spread(a)} points, of tickets {spread(b)}, "
    )
    words += f"mean over updates {', '.join(f'{k:,}' for k in between)}"
    of = "instability, dense minus tickets, points"
    return effects.above(a - b).said(words, of=of)


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
    words = f"tickets of update {step}: {spread(lost)} points below dense"
    return effects.above(lost, MATCHING).said(words, of=_LOST)


def stable_match(found: Found) -> Effect:
    """Loss of tickets that are rewound to the latest step."""
    lost, step = _drop(found, -1)
    words = f"tickets of update {step}: {spread(lost)} points below dense"
    return effects.below(lost, MATCHING).said(words, of=_LOST)


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
    words = f"instability {spread(a)} points, {spread(b)} at large batches"
    falls = effects.above(a - b).named("fall of the instability, points")
    ends = effects.below(b, STABLE).named("instability at large batches, points")
    return effects.every(falls, ends, words=words)


def warmup_helps(found: Found) -> Effect:
    """Instability with and without warm-up."""
    plain, warm = entries(found["warmup"], "plain", "warm")
    a, b = (instabilities(variant, pruned=False) for variant in (plain, warm))
    words = f"instability {spread(a)} points, {spread(b)} with warm-up"
    return effects.above(a - b).said(words, of="without minus with warm-up, points")


def stays_stable(found: Found) -> Effect:
    """Instability of pruned levels where dense training is stable."""
    (stable,) = entries(found["variants"], "stable")
    values = instabilities(stable, pruned=True)
    words = f"{spread(values)} points"
    return effects.below(values, STABLE).said(words, of="instability, points")


def win(control: str) -> Callable[[Found], Effect]:
    """Compares tickets with a control where training is stable.

    Args:
      control: name of the control.
    """

    def evaluate(found: Found) -> Effect:
        (stable,) = entries(found["variants"], "stable")
        values = gaps(stable, control)
        exact = has_dead(stable, control=control)
        words = f"{spread(values)} points"
        of = f"tickets minus {_CONTROLS[control]}, points"
        return effects.above(values, exact=exact).said(words, of=of)

    return evaluate


def no_win(found: Found) -> Effect:
    """Gap where unstable, and half of it where stable."""
    pair = entries(found["variants"], "unstable", "stable")
    unstable, stable = map(gaps, pair)
    words = (
        f"gap {spread(unstable)} points where unstable, {spread(stable)} where stable"
    )
    effect = effects.above(0.5 * stable - unstable, exact=has_dead(*pair))
    return effect.said(words, of="half of the stable gap minus the unstable, points")


def repelled(found: Found) -> Effect:
    """Gap of tickets with and without repulsion."""
    pair = entries(found["penalty"], "stable", "repelled")
    before, after = map(gaps, pair)
    words = f"gap {spread(before)} points, with repulsion {spread(after)}"
    words += _strength(pair[1])
    effect = effects.above(0.5 * before - after, exact=has_dead(*pair))
    return effect.said(words, of="half of the gap minus that with repulsion, points")


def controls_spared(found: Found) -> Effect:
    """Losses of controls and of tickets by repulsion."""
    pair = entries(found["penalty"], "stable", "repelled")
    lost, control = (
        accuracies(pair[0], name) - accuracies(pair[1], name)
        for name in ("ticket", "reinitialized")
    )
    words = f"controls lose {spread(control)} points, tickets {spread(lost)}"
    words += _strength(pair[1])
    effect = effects.above(0.5 * lost - control, exact=has_dead(*pair))
    return effect.said(words, of="half of the tickets' loss minus controls', points")


def attracted(found: Found) -> Effect:
    """Gain of attracted tickets over plain controls."""
    plain, attracted = pair = entries(found["penalty"], "unstable", "attracted")
    gain = accuracies(attracted, "ticket") - accuracies(plain, "reinitialized")
    before = gaps(plain)
    words = f"attracted tickets {spread(gain)} points above plain controls, plain "
    words += f"tickets {spread(before)}"
    words += _strength(attracted)
    exact = has_dead(*pair)
    above = effects.above(gain, exact=exact).named(
        "attracted tickets minus plain controls, points"
    )
    more = effects.above(gain - before, exact=exact)
    parts = above, more.named("attracted minus plain tickets, points")
    return effects.every(*parts, words=words)


def attraction_hurts(found: Found) -> Effect:
    """Loss of controls by attraction."""
    pair = entries(found["penalty"], "unstable", "attracted")
    a, b = (accuracies(variant, "reinitialized") for variant in pair)
    words = f"controls lose {spread(a - b)} points{_strength(pair[1])}"
    effect = effects.above(a - b, exact=has_dead(*pair))
    return effect.said(words, of="controls without minus with attraction, points")


def _strength(variant: Found) -> str:
    """Says which strength of the penalty counts, where several were tried."""
    return f" (strength {variant['strength']})" if "strength" in variant else ""


def angles(found: Found) -> Effect:
    """Angles between successive levels."""
    pair = entries(found["variants"], "unstable", "stable")
    unstable, stable = map(successive, pair)
    words = (
        f"{spread(unstable)} right angles where unstable, {spread(stable)} where stable"
    )
    near = effects.below(stable, NEAR).named("angle where stable, right angles")
    far = effects.above(unstable, FAR).named("angle where unstable, right angles")
    return effects.every(near, far, words=words)


def medium_connected(found: Found) -> Effect:
    """Rises of the error between medium levels."""
    pair = entries(found["variants"], "unstable", "stable")
    unstable, stable = (rises(variant, "medium") for variant in pair)
    words = (
        f"rise {spread(unstable)} points where unstable, {spread(stable)} where stable"
    )
    near = effects.below(stable, STABLE).named("stable rise, points")
    far = effects.above(unstable, STABLE).named("unstable rise, points")
    return effects.every(near, far, words=words)


def late_apart(found: Found) -> Effect:
    """Rises of the error between late levels."""
    (stable,) = entries(found["variants"], "stable")
    medium, late = (rises(stable, part) for part in ("medium", "late"))
    words = f"rise {spread(medium)} points in medium levels, {spread(late)} in late"
    return effects.above(late, STABLE).said(words, of="late rise, points")


def thresholds(found: Found) -> Effect:
    """Pruning thresholds of later levels."""
    unstable, stable = entries(found["variants"], "unstable", "stable")
    logs = [np.log(np.asarray(v["thresholds"], np.float64)) for v in (unstable, stable)]
    a, b = (np.mean(each[:, each.shape[1] // 2 :], axis=1) for each in logs)
    words = ", ".join(
        f"{np.exp(one.mean()):.3g} where {name}"
        for name, one in (("unstable", a), ("stable", b))
    )
    words = f"magnitude of the threshold, geometric mean: {words}"
    return effects.above(b - a).as_ratio().said(words, of="ratio, stable to unstable")
