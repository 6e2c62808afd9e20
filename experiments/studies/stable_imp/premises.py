"""Premises: what the claims presume of the setting."""

from collections.abc import Callable

from experiments.studies import effects
from experiments.studies.claims import Found, Premise, entries
from experiments.studies.effects import Effect
from experiments.studies.stable_imp.quantities import (
    APART,
    FEW,
    STABLE,
    accuracies,
    few_left,
    gaps,
    has_dead,
    instabilities,
    moves_apart,
    moves_together,
    onset,
)


def _of(part: str, *roles: str, name: str, evaluate: Callable[..., Effect]) -> Premise:
    """Makes a premise on the measurements of runs, by their roles in a part."""
    return Premise(name, lambda found: evaluate(*entries(found[part], *roles)))


def is_unstable(
    role: str, *, pruned: bool, part: str = "variants", name: str = ""
) -> Premise:
    """Makes the premise that training from initialization is unstable.

    Args:
      role: the run by its role in the part, such as "unstable".
      pruned: whether of pruned levels or of dense networks.
      part: part of the measurements.
      name: what the premise says; by default of "the plain run".
    """
    what = "pruned levels" if pruned else "dense networks"
    return _of(
        *(part, role),
        name=name or f"{what} of the plain run are unstable (above {STABLE:g} points)",
        evaluate=lambda run: effects.above(instabilities(run, pruned=pruned), STABLE),
    )


def is_stable(role: str, *, pruned: bool, part: str = "variants") -> Premise:
    """Makes the premise that training from initialization is stable.

    Args:
      role: "unstable" or "stable".
      pruned: whether of pruned levels or of dense networks.
      part: part of the measurements, "variants" or "penalty".
    """
    what = "pruned levels" if pruned else "dense networks"
    return _of(
        *(part, role),
        name=f"{what} of the stabilized run are stable (below {STABLE:g} points)",
        evaluate=lambda run: effects.below(instabilities(run, pruned=pruned), STABLE),
    )


def starts_unstable(level: int) -> Premise:
    """Makes the premise that the earliest start is unstable.

    Args:
      level: 0 for dense networks; otherwise of the sparsest tickets.
    """

    def evaluate(found: Found) -> Effect:
        return effects.above(next(iter(onset(found, level).values())), STABLE)

    what = "tickets" if level else "dense networks"
    return Premise(f"{what} are unstable from initialization", evaluate)


def has_gap(part: str) -> Premise:
    """Makes the premise that tickets beat reinitialized controls where stable.

    Args:
      part: part of the measurements, "variants" or "penalty".
    """
    return _of(
        *(part, "stable"),
        name="stable tickets beat reinitialized controls",
        evaluate=lambda run: effects.above(gaps(run), exact=has_dead(run)),
    )


LAST_IS_STABLE = Premise(
    "tickets of the latest rewinding step are stable",
    lambda found: effects.below(list(onset(found, 1).values())[-1], STABLE),
)
IS_SPARSE = _of(
    *("variants", "stable"),
    name=f"late levels leave {FEW:g} % of the weights or less",
    evaluate=few_left,
)
PLAIN_IS_UNSTABLE = is_unstable(
    "plain",
    pruned=False,
    part="warmup",
    name="dense networks are unstable without warm-up",
)
SMALL_IS_UNSTABLE = is_unstable(
    "small",
    pruned=False,
    part="batches",
    name=f"dense networks are unstable at small batches (above {STABLE:g} points)",
)
MOVES_APART = _of(
    *("penalty", "stable", "repelled"),
    name=f"repulsion moves levels apart, {APART:g} right angles",
    evaluate=moves_apart,
)
MOVES_TOGETHER = _of(
    *("penalty", "unstable", "attracted"),
    name=f"attraction moves levels together, {APART:g} right angles",
    evaluate=moves_together,
)
TICKETS_LOSE = _of(
    *("penalty", "stable", "repelled"),
    name="repulsion costs tickets accuracy",
    evaluate=lambda a, b: effects.above(
        accuracies(a, "ticket") - accuracies(b, "ticket"), exact=has_dead(a, b)
    ),
)
