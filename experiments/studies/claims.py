"""Claims of papers, and verdicts on them.

A claim names the effect that must be observed, and its premises. For example, a claim
that later starts become stable presumes that training from initialization is unstable.
There are five verdicts:

    reproduced      the effect is shown
    contradicted    the premises are present, and the effect is refuted as clearly as it
                    would have to be shown
    unclear         neither, or it is not clear whether a premise is present, or there
                    are fewer than `MIN_UNITS` seeds
    premise absent  a premise is refuted: this setting cannot show the effect
    not measured    a run that the claim compares is missing

"Shown" and "refuted" mean p < 0.05, corrected for the number of claims on the page
whose premises are present (Holm's method), once for the claims and once for their
opposites. Premises are tested without correction. Runs much shorter than the published
ones may differ for that reason alone, so their verdicts are marked as short.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.studies.effects import Effect

Found = Mapping[str, Any]
MIN_UNITS = 3
SIGNIFICANT = 0.05
SHORT = 1 / 3  # of the published number of updates
CHANCE = 10.0  # percent: the accuracy of guessing one of ten classes
DEAD = 1.5  # times that: below it, a network has not learned
REPRODUCED, CONTRADICTED, UNCLEAR = "reproduced", "contradicted", "unclear"
ABSENT, NOT_MEASURED = "premise absent", "not measured"
VERDICTS = (REPRODUCED, CONTRADICTED, UNCLEAR, ABSENT, NOT_MEASURED)
SHORT_MARK = " (short)"  # after the verdict in tables
BEFORE, AMENDED, AFTER = "before", "amended", "after"
# Scales with runs that had been seen when all thresholds were rewritten, to treat both
# directions alike. Runs of the other scales began later; a claim names those whose runs
# had been seen when its threshold was last changed.
SEEN = ("quick", "cpu")


class NotMeasured(Exception):
    """Raised if a run that a claim compares has not ended."""


class Premise(NamedTuple):
    """What a claim presumes of the setting.

    Attributes:
      name: a few words, as "dense training is unstable".
      evaluate: returns the effect in the measurements of a setting.
    """

    name: str
    evaluate: Callable[[Found], Effect]


class Claim(NamedTuple):
    """A claim of a paper.

    Attributes:
      name: a few words.
      statement: what the paper says.
      published: its numbers, as text.
      threshold: what must be observed, as text.
      evaluate: returns the effect in the measurements of a setting; raises
        `NotMeasured` if a run is missing.
      premises: what the setting must have for the claim to be judged.
      written: when the threshold was first written: `BEFORE` there were runs to
        compare, or `AFTER` the first measurement. `at_scale` puts what holds for the
        runs of a scale in its place.
      seen: scales, other than those of `SEEN`, whose runs had been seen when the
        threshold was last changed.
    """

    name: str
    statement: str
    published: str
    threshold: str
    evaluate: Callable[[Found], Effect]
    premises: tuple[Premise, ...] = ()
    written: str = BEFORE
    seen: tuple[str, ...] = ()


class Judged(NamedTuple):
    """A claim, what was measured, and the verdict.

    Attributes:
      claim: the claim.
      verdict: one of `VERDICTS`.
      effect: what was measured; None if nothing was.
      premises: what was measured for the premises, as text.
      holm: corrected p-values for the claim and against it; None if it is not tested.
      short: whether the runs are much shorter than the published ones.
    """

    claim: Claim
    verdict: str
    effect: Effect | None = None
    premises: str = ""
    holm: tuple[float, float] | None = None
    short: bool = False


def at_scale(claims: Sequence[Claim], scale: str) -> list[Claim]:
    """Sets when the threshold of each claim was written, for the runs of a scale.

    Args:
      claims: the claims of a study.
      scale: one of `studies.SCALES`.

    Returns:
      The claims. Their `written` is `AMENDED` or `AFTER` for a scale of `SEEN`; for
      the others `AFTER` where they name the scale in `seen`, and otherwise `BEFORE`.
    """
    if scale in SEEN:
        words = {BEFORE: AMENDED, AFTER: AFTER}
        return [one._replace(written=words[one.written]) for one in claims]
    return [
        one._replace(written=AFTER if scale in one.seen else BEFORE) for one in claims
    ]


def about_thresholds(claims: Sequence[Claim], scale: str) -> str:
    """Says when the thresholds of claims were written, for the runs of a scale.

    Args:
      claims: the claims of a study.
      scale: one of `studies.SCALES`.
    """
    late = any(one.written == AFTER for one in at_scale(claims, scale))
    if scale not in SEEN:
        if not late:
            return "All thresholds were written before any run of this scale."
        return (
            "Thresholds were written before any run of this scale, or changed when "
            "some had been seen, where the table says *after*."
        )
    first = "before there were runs to compare" + (
        ", or after the first measurement where the table says so" if late else ""
    )
    return (
        f"Thresholds were first written {first}; all of them were amended when the "
        "runs of the scale `cpu` had been seen, to treat both directions alike."
    )


def judge(claims: Sequence[Claim], found: Found, *, length: float) -> list[Judged]:
    """Judges the claims of a page.

    Args:
      claims: the claims, which are corrected for together.
      found: measurements of one setting, whatever the claims read.
      length: number of updates of the runs, divided by the published number.

    Returns:
      The judged claims, in order.
    """
    judged = [_measure(claim, found) for claim in claims]
    tested = [i for i, one in enumerate(judged) if one.verdict == ""]
    effects = [judged[i].effect for i in tested]
    columns = (
        _corrected([getattr(effect, name) for effect in effects])
        for name in ("p", "p_against")
    )
    for i, holm in zip(tested, zip(*columns, strict=True), strict=True):
        verdict = UNCLEAR
        if judged[i].effect.n >= MIN_UNITS and holm[0] < SIGNIFICANT:
            verdict = REPRODUCED
        elif judged[i].effect.n >= MIN_UNITS and holm[1] < SIGNIFICANT:
            verdict = CONTRADICTED
        judged[i] = judged[i]._replace(verdict=verdict, holm=holm)
    return [one._replace(short=length < SHORT) for one in judged]


def _measure(claim: Claim, found: Found) -> Judged:
    """Measures a claim and its premises; the verdict is "" if it is to be tested."""
    try:
        premises = [(one.name, one.evaluate(found)) for one in claim.premises]
        effect = claim.evaluate(found)
    except NotMeasured:
        return Judged(claim, NOT_MEASURED)
    states = [(name, _state(each), each.words) for name, each in premises]
    words = "; ".join(f"{name}: {state} ({said})" for name, state, said in states)
    if any(state == "no" for _, state, _ in states):
        return Judged(claim, ABSENT, effect, words)
    if any(state == "unclear" for _, state, _ in states):
        return Judged(claim, UNCLEAR, effect, words)
    return Judged(claim, "", effect, words)


def _state(premise: Effect) -> str:
    """Returns whether a premise is present: "yes", "no" or "unclear"."""
    if premise.p < SIGNIFICANT:
        return "yes"
    return "no" if premise.p_against < SIGNIFICANT else "unclear"


def _corrected(values: Sequence[float]) -> list[float]:
    """Corrects p-values by Holm's method (Holm 1979)."""
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    rising = np.maximum.accumulate(np.asarray(values, float)[order] * factors)
    found = np.empty(len(values))
    found[order] = np.minimum(rising, 1.0)
    return found.tolist()


def row(judged: Judged) -> dict[str, Any]:
    """Returns a judged claim as a row of a table.

    Args:
      judged: the claim.

    Returns:
      Text by column; p-values are numbers.
    """
    claim, effect = judged.claim, judged.effect
    holm = judged.holm or ("", "")
    return {
        "verdict": judged.verdict + (SHORT_MARK if judged.short and effect else ""),
        "claim": claim.name,
        "statement": " ".join(claim.statement.split()),
        "published": claim.published,
        "threshold": claim.threshold,
        "written": claim.written,
        "premises": judged.premises,
        "ours": effect.words if effect else "",
        "effect": effect.summary if effect else "",
        "n": effect.n if effect else "",
        "p": effect.p if effect else "",
        "p_holm": holm[0],
        "p_against": effect.p_against if effect else "",
        "p_against_holm": holm[1],
    }


def fact(holds: bool, words: str) -> Effect:
    """Returns what is known of a setting, not measured, as an effect for premises.

    Args:
      holds: whether the premise is present.
      words: what is known.
    """
    return Effect(float(holds), None, float(not holds), float(holds), 0, words)


def entries(part: Found, *names: str) -> list[Any]:
    """Returns entries of a part of the measurements.

    Args:
      part: entries by name.
      *names: names of the entries.

    Raises:
      NotMeasured: if an entry is missing.
    """
    missing = [name for name in names if name not in part]
    if missing:
        raise NotMeasured(f"{missing} is not measured")
    return [part[name] for name in names]


def plain(name: str) -> str:
    """Writes the name of a method or control as words.

    Args:
      name: the name, with underscores.
    """
    return name.replace("_", " ")


def are_dead(accuracies: Any) -> bool:
    """Returns whether some network never learned, so that tests must be exact.

    Args:
      accuracies: test accuracies in percent, of ten classes.
    """
    return bool(np.min(accuracies) < DEAD * CHANCE)
