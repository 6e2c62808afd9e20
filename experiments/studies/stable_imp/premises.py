"""Premises: what the claims presume of the setting."""

from experiments.studies import effects
from experiments.studies.claims import Found, Premise, entries
from experiments.studies.effects import Effect
from experiments.studies.stable_imp.evidence import (
    APART,
    STABLE,
    accuracies,
    gaps,
    has_dead,
    instabilities,
    onset,
    successive,
)


def is_unstable(role: str, *, pruned: bool) -> Premise:
    """Makes the premise that training from initialization is unstable.

    Args:
      role: "unstable" or "stable".
      pruned: whether of pruned rounds or of dense networks.
    """

    def evaluate(found: Found) -> Effect:
        (variant,) = entries(found["variants"], role)
        return effects.above(instabilities(variant, pruned=pruned), STABLE)

    what = "pruned rounds" if pruned else "dense networks"
    return Premise(f"{role} {what} are unstable (above {STABLE:g} points)", evaluate)


def is_stable(role: str, *, pruned: bool) -> Premise:
    """Makes the premise that training from initialization is stable.

    Args:
      role: "unstable" or "stable".
      pruned: whether of pruned rounds or of dense networks.
    """

    def evaluate(found: Found) -> Effect:
        (variant,) = entries(found["variants"], role)
        return effects.below(instabilities(variant, pruned=pruned), STABLE)

    what = "pruned rounds" if pruned else "dense networks"
    return Premise(f"{role} {what} are stable (below {STABLE:g} points)", evaluate)


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

    def evaluate(found: Found) -> Effect:
        (variant,) = entries(found[part], "stable")
        return effects.above(gaps(variant), exact=has_dead(variant))

    return Premise("stable tickets beat reinitialized controls", evaluate)


def last_is_stable() -> Premise:
    """Makes the premise that tickets of the latest rewinding step are stable."""

    def evaluate(found: Found) -> Effect:
        return effects.below(list(onset(found, 1).values())[-1], STABLE)

    return Premise("tickets of the latest rewinding step are stable", evaluate)


def plain_is_unstable() -> Premise:
    """Makes the premise that training without warm-up is unstable."""

    def evaluate(found: Found) -> Effect:
        (plain,) = entries(found["warmup"], "plain")
        return effects.above(instabilities(plain, pruned=False), STABLE)

    return Premise("dense networks are unstable without warm-up", evaluate)


def moves_apart() -> Premise:
    """Makes the premise that repulsion moves successive solutions apart."""

    def evaluate(found: Found) -> Effect:
        plain, repelled = entries(found["penalty"], "stable", "repelled")
        return effects.above(successive(repelled) - successive(plain), APART)

    return Premise(f"repulsion moves rounds apart, {APART:g} right angles", evaluate)


def moves_together() -> Premise:
    """Makes the premise that attraction moves successive solutions together."""

    def evaluate(found: Found) -> Effect:
        plain, attracted = entries(found["penalty"], "unstable", "attracted")
        return effects.above(successive(plain) - successive(attracted), APART)

    return Premise(f"attraction moves rounds by {APART:g} right angles", evaluate)


def tickets_lose() -> Premise:
    """Makes the premise that repulsion costs tickets accuracy."""

    def evaluate(found: Found) -> Effect:
        pair = entries(found["penalty"], "stable", "repelled")
        a, b = (accuracies(variant, "ticket") for variant in pair)
        return effects.above(a - b, exact=has_dead(*pair))

    return Premise("repulsion costs tickets accuracy", evaluate)
