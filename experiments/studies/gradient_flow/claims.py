"""The claims of the paper, and what must be seen for each; written before the runs.

Every claim compares arms of one network. It is reproduced if what it says is seen
beyond the threshold that stands with it, not reproduced if the opposite or nothing is
seen, and unclear between, or with fewer than 3 seeds, or where a run is shorter than a
third of the published length. The seeds that count are those of what differs: where
all seeds of an arm share what is looked at, they are one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments.studies.gradient_flow import curvature
from jaxsparse.analysis import connectivity

Findings = dict[str, Any]
LEAST_SEEDS = 3
CONNECTED = 1.0  # percentage points of error: a barrier lower than this is none
APART = 5.0  # a barrier higher than this is one
EARLY = 2000  # updates, in which the gradient norm is compared at changes of masks
SIGNIFICANT = 0.05


class Seen(NamedTuple):
    """What the runs say about a claim.

    Attributes:
      ours: the numbers, in words.
      n: seeds they come from.
      holds: True, False, or None between.
    """

    ours: str
    n: int
    holds: bool | None


class Claim(NamedTuple):
    """A claim of the paper.

    Attributes:
      name: short.
      statement: what the paper says.
      published: its numbers, in words.
      threshold: what must be seen.
      look: from all findings of a network to what is seen; KeyError where a run that
        it needs is missing.
    """

    name: str
    statement: str
    published: str
    threshold: str
    look: Callable[[Findings], Seen]


def judge(found: Findings, *, steps: int, whole: int) -> list[dict[str, Any]]:
    """Says of each claim whether the findings of a network bear it out.

    Args:
      found: what `measuring.measure` returned.
      steps: length of the runs in updates.
      whole: published length.
    """
    verdicts = []
    for claim in CLAIMS:
        try:
            seen = claim.look(found)
        except KeyError:
            continue
        enough = seen.n >= LEAST_SEEDS and 3 * steps >= whole
        words = {True: "reproduced", False: "not reproduced", None: "unclear"}
        verdict = words[seen.holds if enough else None]
        row = claim._asdict() | seen._asdict() | {"verdict": verdict}
        verdicts.append({k: v for k, v in row.items() if k not in ("look", "holds")})
    return verdicts


def _accuracy(found: Findings, arm: str) -> np.ndarray:
    return np.asarray(found["predictions"][arm]["accuracy"])


def _higher(better: str, worse: str) -> Callable[[Findings], Seen]:
    """Says whether an arm ends more accurate than another (Welch's t, one-sided)."""

    def look(found: Findings) -> Seen:
        a, b = _accuracy(found, better), _accuracy(found, worse)
        n = min(len(a), len(b))
        words = f"{_spread(a)} against {_spread(b)}"
        if n < 2:
            return Seen(words, n, None)
        p = stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue
        return Seen(f"{words}, p = {p:.2g}", n, _by_p(p, a.mean() > b.mean()))

    return look


def _by_p(p: float, right_way: bool) -> bool | None:
    if right_way and p < SIGNIFICANT:
        return True
    return None if right_way else False


def _spread(values: np.ndarray, digits: int = 2) -> str:
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def _barriers(found: Findings, key: str) -> np.ndarray:
    """Takes the error barrier on each seed's way to the pruned solution."""
    segment = found["segments"][key]
    return connectivity.barrier(np.asarray(segment["error"]).T, segment["alphas"])


def _tickets_are_connected(found: Findings) -> Seen:
    lt, scratch = _barriers(found, "lt_end"), _barriers(found, "scratch_end")
    words = f"LT {_spread(lt)}, Scratch {_spread(scratch)} percentage points"
    holds = None
    if lt.mean() < CONNECTED and scratch.mean() > APART:
        holds = True
    elif lt.mean() > APART or scratch.mean() < CONNECTED:
        holds = False
    return Seen(words, min(len(lt), len(scratch)), holds)


def _tickets_agree(found: Findings) -> Seen:
    entries = found["predictions"]
    lt, scratch = (np.asarray(entries[a]["with_pruned"]) for a in ("lt", "scratch"))
    words = f"LT {_spread(lt, 4)}, Scratch {_spread(scratch, 4)}"
    ratio = lt.mean() / scratch.mean()
    holds = True if ratio < 0.5 else False if ratio > 0.8 else None
    return Seen(words, min(len(lt), len(scratch)), holds)


def _ensembles(found: Findings) -> Seen:
    entries = found["predictions"]
    gains = {
        arm: entries[arm]["ensemble"] - np.mean(entries[arm]["accuracy"])
        for arm in ("lt", "scratch")
    }
    words = f"LT {gains['lt']:+.2f}, Scratch {gains['scratch']:+.2f} percentage points"
    n = min(len(entries[arm]["accuracy"]) for arm in gains)
    holds = None
    if gains["lt"] < 0.2 and gains["scratch"] > max(0.3, 3 * gains["lt"]):
        holds = True
    elif gains["scratch"] < max(0.1, gains["lt"]):
        holds = False
    return Seen(words, n, holds)


def _initialisation(found: Findings) -> Seen:
    starts = found["starts"]
    plus, plain = (np.asarray(starts[arm]) for arm in ("scratch_plus", "scratch"))
    ratio = np.exp(np.mean(np.log(plus)) - np.mean(np.log(plain)))
    words = f"{_spread(plus, 3)} against {_spread(plain, 3)}, {ratio:.1f} times"
    holds = True if ratio > 5 else False if ratio < 2 else None
    return Seen(words, min(len(plus), len(plain)), holds)


def _tickets_do_not_flow(found: Findings) -> Seen:
    lt, scratch = (np.asarray(found["starts"][arm]) for arm in ("lt", "scratch"))
    ratio = np.exp(np.mean(np.log(lt)) - np.mean(np.log(scratch)))
    words = f"LT {_spread(lt, 3)}, Scratch {_spread(scratch, 3)}, {ratio:.1f} times"
    holds = True if ratio < 2 else False if ratio > 5 else None
    return Seen(words, min(len(lt), len(scratch)), holds)


def _rises(found: Findings, arm: str) -> tuple[list[int], np.ndarray]:
    """Takes how much each early change of masks adds to the norm [seeds, changes]."""
    change = found["changes"][arm]
    early = [place for place, step in enumerate(change["steps"]) if step <= EARLY]
    rise = np.asarray(change["after"]) - np.asarray(change["before"])
    return [change["steps"][place] for place in early], rise[:, early]


def _updates(found: Findings) -> Seen:
    (steps, rigl), (other, set_) = _rises(found, "rigl"), _rises(found, "set")
    n = min(len(rigl), len(set_))
    if steps != other:
        raise KeyError("changes at other updates")
    apart = rigl[:n] - set_[:n]
    share = np.mean(apart > 0)
    p = stats.ttest_1samp(apart.mean(axis=1), 0, alternative="greater").pvalue
    words = (
        f"RigL {_spread(rigl.mean(axis=1), 3)}, SET {_spread(set_.mean(axis=1), 3)}; "
        f"RigL more in {share:.0%} of {apart.size} pairs, p = {p:.2g}"
    )
    holds = True if share > 0.75 and p < SIGNIFICANT else None
    return Seen(words, n, False if share < 0.5 else holds)


def _inverted(found: Findings) -> Seen:
    (steps, rigl), (other, inverted) = (
        _rises(found, arm) for arm in ("rigl", "rigl_inverted")
    )
    if steps != other:
        raise KeyError("changes at other updates")
    n = min(len(rigl), len(inverted))
    rise, less = rigl[:n].mean(), inverted[:n].mean()
    if rise <= 0:
        return Seen(f"RigL's norm does not rise: {rise:+.3f}", n, None)
    holds = True if less < 0.2 * rise else False if less > 0.5 * rise else None
    return Seen(f"{less:+.3f}, RigL {rise:+.3f}: {less / rise:.0%} of it", n, holds)


def _distances(found: Findings) -> Seen:
    part = found["distances"]
    to_pruned = np.asarray(part["matrix"])[part["groups"].index("prune end")]
    groups = np.asarray(part["groups"])
    order = ("lt end", "lt start", "scratch start", "scratch end")
    each = {name: to_pruned[groups == name] for name in order}
    if any(not len(values) for values in each.values()):
        raise KeyError("a group is missing")
    called = ("LT end", "LT start", "Scratch start", "Scratch end")
    words = zip(called, each.values(), strict=True)
    words = ", ".join(f"{name} {_spread(v)}" for name, v in words)
    n = min(len(each["lt end"]), len(each["scratch end"]))
    near = list(each.values())
    steps = list(zip(near, near[1:], strict=False))
    holds = True if all(a.max() < b.min() for a, b in steps) else None
    ordered = all(a.mean() < b.mean() for a, b in steps)
    return Seen(words, n, holds if ordered else False)


def _negatives(found: Findings) -> Seen:
    made = curvature.new_negatives(found["curvature"]["rigl"]["states"])
    if not made:
        raise KeyError("no spectrum around a change of masks")
    new, n = list(made.values()), len({place.seed for place in made})
    words = f"{np.mean(new):+.0f}, from {min(new):+.0f} to {max(new):+.0f}"
    words = f"{words}, over {len(new)} changes"
    holds = True if min(new) > 0 else False if max(new) <= 0 else None
    return Seen(words, n, holds)


CLAIMS = (
    Claim(
        "same basin",
        "The ticket's solution lies in the basin of the pruned one, that from scratch "
        "does not.",
        "no barrier for LT, a large one for Scratch (figure)",
        f"mean error barrier to the pruned solution: LT below {CONNECTED:g} and "
        f"Scratch above {APART:g} percentage points",
        _tickets_are_connected,
    ),
    Claim(
        "same function",
        "Tickets predict like the pruned solution, other solutions do not.",
        "disagreement 0.0089 ± 0.0002 for LT, 0.0278 ± 0.0032 for Scratch",
        "LT less than half of Scratch; not reproduced above four fifths",
        _tickets_agree,
    ),
    Claim(
        "no ensembles",
        "An ensemble of tickets gains little, one of networks from scratch much.",
        "LT +0.06, Scratch +1.24 percentage points",
        "LT below 0.2; Scratch above 0.3 and above 3 times LT's; not reproduced with "
        "Scratch below 0.1 or below LT",
        _ensembles,
    ),
    Claim(
        "flow at initialisation",
        "Sparsity-aware initialisation raises the gradient norm about tenfold.",
        "about 10 times at step 0 (figure)",
        "geometric mean of the ratio above 5, each seed with a mask of its own; not "
        "reproduced below 2",
        _initialisation,
    ),
    Claim(
        "tickets do not flow",
        "Tickets do not begin with more gradient flow than training from scratch.",
        "about equal at step 0 (figure)",
        "geometric mean of the ratio below 2, each seed with a mask of its own; not "
        "reproduced above 5",
        _tickets_do_not_flow,
    ),
    Claim(
        "flow at changes",
        "RigL's changes of masks raise the gradient norm more than SET's.",
        "clear rises for RigL, little for SET (figure)",
        f"over changes up to update {EARLY}, paired by seed and change: RigL more in "
        "over three quarters, and p < 0.05 over seeds; not reproduced below half",
        _updates,
    ),
    Claim(
        "inverted growth",
        "Growing by the least gradient does not raise the norm.",
        "no rise (figure)",
        f"up to update {EARLY}: less than a fifth of RigL's mean rise; not reproduced "
        "above half; unclear if RigL's does not rise",
        _inverted,
    ),
    Claim(
        "distances",
        "To the pruned solution: LT end < LT start < Scratch start < Scratch end.",
        "in this order (figure)",
        "in this order, every seed of one nearer than all of the next; not reproduced "
        "if the means are not in this order",
        _distances,
    ),
    Claim(
        "initialisation helps",
        "Sparsity-aware initialisation makes training from scratch more accurate.",
        "Scratch+ above Scratch",
        "higher mean, Welch's t one-sided p < 0.05; unclear above",
        _higher("scratch_plus", "scratch"),
    ),
    Claim(
        "dynamic training helps",
        "RigL is more accurate than static training from scratch.",
        "RigL above Scratch",
        "higher mean, Welch's t one-sided p < 0.05; unclear above",
        _higher("rigl", "scratch"),
    ),
    Claim(
        "tickets win",
        "Tickets are more accurate than training from scratch.",
        "98.52 ± 0.02 against 97.19 ± 0.33",
        "higher mean, Welch's t one-sided p < 0.05; unclear above",
        _higher("lt", "scratch"),
    ),
    Claim(
        "pruning wins",
        "Gradual pruning is more accurate than training from scratch.",
        "98.30 ± 0.23 against 97.19 ± 0.33",
        "higher mean, Welch's t one-sided p < 0.05; unclear above",
        _higher("prune", "scratch"),
    ),
    Claim(
        "new descent directions",
        "RigL's changes of masks make new negative eigenvalues of the Hessian.",
        "more negative eigenvalues after than before (figure)",
        "more below rounding after every change looked at, by one threshold for both; "
        "not reproduced if after none",
        _negatives,
    ),
)
