"""The claims of the paper, and what must be observed for each.

Every claim has the time at which its threshold was written: "before" any variants could
be compared, when only the pruning runs had ended; "amended" when some variants of
LeNet-5 had ended, and the accuracies and recorded gradient norms of tickets and
training from scratch had been seen; or "after" the first whole measurement. The
amendments: what is equal at the start for all seeds of a variant is measured on masks
of several pruning runs ("flow at initialization", "tickets do not flow"; the recorded
norms, of one mask, have a ratio of 8.3 instead of 6.5 and the same verdicts); distances
need a margin; growth that does not raise the norm cannot be inverted; negatives before
and after are counted by one threshold and over seeds; an ensemble that gains nothing
from scratch refutes its claim.

Every claim compares variants of one network. It is also unclear if a run is shorter
than a third of the published length. The number of seeds is that of distinct
measurements: seeds of a variant that share what is measured count as one. Tests of
accuracy treat variants as independent, although they are trained in the same orders of
the data, which is conservative. Tickets differ in these orders only, so they represent
one ticket.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments.studies import claims
from experiments.studies.claims import (
    Claim,
    Evidence,
    Findings,
    NotMeasured,
    entries,
    spread,
)
from experiments.studies.gradient_flow import curvature
from jaxsparse.analysis import connectivity

CONNECTED = 1.0  # percentage points of error: a barrier lower than this is none
APART = 5.0  # a barrier higher than this is one
EARLY = 2000  # first updates, in which mask updates are compared
FLAT = 1e-3  # a smaller change of the norm is none


def judge(found: Findings, *, steps: int, whole: int) -> list[dict[str, Any]]:
    """Judges each claim by the measurements of a network.

    Args:
      found: from `analysis.measure`.
      steps: updates of the runs.
      whole: published updates.
    """
    return claims.judge(CLAIMS, found, long_enough=3 * steps >= whole)


def _higher(better: str, worse: str) -> Callable[[Findings], Evidence]:
    """Compares the accuracy of two variants (Welch's t-test, one-sided)."""

    def look(found: Findings) -> Evidence:
        a, b = (
            np.asarray(entry["accuracy"])
            for entry in entries(found["predictions"], better, worse)
        )
        n = min(len(a), len(b))
        words = f"{spread(a)} against {spread(b)}"
        if n < 2:
            return Evidence(words, n, None)
        p = stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue
        return Evidence(f"{words}, p = {p:.2g}", n, claims.by_p(p, a.mean() > b.mean()))

    return look


def _barriers(found: Findings, key: str) -> np.ndarray:
    """Returns the error barrier between each seed and the pruned solution."""
    (line,) = entries(found["interpolations"], key)
    return connectivity.barrier(np.asarray(line["error"]).T, line["alphas"])


def _tickets_are_connected(found: Findings) -> Evidence:
    lt, scratch = _barriers(found, "lt_end"), _barriers(found, "scratch_end")
    words = f"LT {spread(lt)}, Scratch {spread(scratch)} percentage points"
    holds = None
    if lt.mean() < CONNECTED and scratch.mean() > APART:
        holds = True
    elif lt.mean() > APART or scratch.mean() < CONNECTED:
        holds = False
    return Evidence(words, min(len(lt), len(scratch)), holds)


def _tickets_agree(found: Findings) -> Evidence:
    lt, scratch = (
        np.asarray(entry["with_pruned"])
        for entry in entries(found["predictions"], "lt", "scratch")
    )
    words = f"LT {spread(lt, 4)}, Scratch {spread(scratch, 4)}"
    ratio = lt.mean() / scratch.mean()
    holds = True if ratio < 0.5 else False if ratio > 0.8 else None
    return Evidence(words, min(len(lt), len(scratch)), holds)


def _ensembles(found: Findings) -> Evidence:
    both = entries(found["predictions"], "lt", "scratch")
    n = min(len(entry["accuracy"]) for entry in both)
    if n < 2:
        raise NotMeasured("no ensemble of one")
    lt, scratch = (one["ensemble"] - np.mean(one["accuracy"]) for one in both)
    words = f"LT {lt:+.2f}, Scratch {scratch:+.2f} percentage points, ensembles of {n}"
    holds = None
    if lt < 0.2 and scratch > max(0.3, 3 * lt):
        holds = True
    elif scratch < max(0.1, lt):
        holds = False
    return Evidence(words, n, holds)


def _initialization(found: Findings) -> Evidence:
    plus, plain = map(np.asarray, entries(found["starts"], "scratch_plus", "scratch"))
    ratio = np.exp(np.mean(np.log(plus)) - np.mean(np.log(plain)))
    words = f"{spread(plus, 3)} against {spread(plain, 3)}, {ratio:.1f} times"
    holds = True if ratio > 5 else False if ratio < 2 else None
    return Evidence(words, min(len(plus), len(plain)), holds)


def _tickets_do_not_flow(found: Findings) -> Evidence:
    lt, scratch = map(np.asarray, entries(found["starts"], "lt", "scratch"))
    ratio = np.exp(np.mean(np.log(lt)) - np.mean(np.log(scratch)))
    words = f"LT {spread(lt, 3)}, Scratch {spread(scratch, 3)}, {ratio:.1f} times"
    holds = True if ratio < 2 else False if ratio > 5 else None
    return Evidence(words, min(len(lt), len(scratch)), holds)


class Rises(NamedTuple):
    """Changes of the gradient norm at early mask updates [seeds updates].

    Attributes:
      one: of a variant.
      other: of another one, at the same mask updates.
      before: norms before, of both variants [2 seeds updates].
    """

    one: np.ndarray
    other: np.ndarray
    before: np.ndarray


def _rises(found: Findings, *names: str) -> Rises:
    """Returns the changes of two variants, seed by seed."""
    pair = entries(found["gradients"]["changes"], *names)
    if pair[0]["steps"] != pair[1]["steps"]:
        raise NotMeasured("masks are updated at other steps")
    early = np.asarray(pair[0]["steps"]) <= EARLY
    n = min(len(change["after"]) for change in pair)
    before, after = (
        np.stack([np.asarray(change[name])[:n, early] for change in pair])
        for name in ("before", "after")
    )
    return Rises(*(after - before), before)


def _updates(found: Findings) -> Evidence:
    rigl, set_, before = _rises(found, "rigl", "set")
    apart = rigl - set_
    share = np.mean(apart > 0)
    p = stats.ttest_1samp(apart.mean(axis=1), 0, alternative="greater").pvalue
    each = (spread(rise.mean(axis=1), 3) for rise in (rigl, set_))
    words = "RigL {}, SET {}".format(*each)
    words += f"; RigL more in {share:.0%} of {apart.size} pairs, p = {p:.2g}"
    # Reported only: pairs on the first plateau have no difference to compare.
    moved = np.maximum(np.abs(rigl), np.abs(set_)) >= FLAT
    if not moved.all():
        words += f"; in {np.mean(apart[moved] > 0):.0%} of the {moved.sum()} not flat"
    pairs = zip((rigl, set_), before, strict=True)
    ratios = [f"{rise.mean() / norm.mean():+.0%}" for rise, norm in pairs]
    words += "; of the norm before, {} and {}".format(*ratios)
    holds = True if share > 0.75 and p < claims.SIGNIFICANT else None
    return Evidence(words, len(rigl), False if share < 0.5 else holds)


def _inverted(found: Findings) -> Evidence:
    rigl, inverted, _ = _rises(found, "rigl", "rigl_inverted")
    n, rise, less = len(rigl), rigl.mean(), inverted.mean()
    if rise <= 0:
        return Evidence(f"RigL's norm does not rise: {rise:+.3f}", n, None)
    holds = True if less < 0.2 * rise else False if less > 0.5 * rise else None
    return Evidence(f"{less:+.3f}, RigL {rise:+.3f}: {less / rise:.0%} of it", n, holds)


def _escapes(found: Findings, variant: str) -> np.ndarray:
    """Returns the first step at which each seed's norm exceeds 3 times its start."""
    (curve,) = entries(found["gradients"]["gradient"], variant)
    norms, steps = np.asarray(curve["norm"]), np.asarray(curve["steps"])
    above = norms > 3 * norms[:, :1]
    return np.where(above.any(axis=1), steps[np.argmax(above, axis=1)], np.inf)


def _plateau(found: Findings) -> Evidence:
    lt, scratch = (_escapes(found, variant) for variant in ("lt", "scratch"))
    words = f"LT at {spread(lt, 0)}, Scratch at {spread(scratch, 0)} updates"
    holds = True if lt.max() < scratch.min() else None
    ordered = lt.mean() < scratch.mean()
    return Evidence(words, min(len(lt), len(scratch)), holds if ordered else False)


def _flows_more(
    better: str, worse: str, *, until: int
) -> Callable[[Findings], Evidence]:
    """Compares the mean norms of two variants, paired by seed."""

    def look(found: Findings) -> Evidence:
        means = []
        for curve in entries(found["gradients"]["gradient"], better, worse):
            early = np.asarray(curve["steps"]) <= until
            means.append(np.asarray(curve["norm"])[:, early].mean(axis=1))
        n = min(map(len, means))
        a, b = (values[:n] for values in means)
        words = f"{spread(a, 3)} against {spread(b, 3)}"
        if n < 2:
            return Evidence(words, n, None)
        p = stats.ttest_rel(a, b, alternative="greater").pvalue
        return Evidence(f"{words}, p = {p:.2g}", n, claims.by_p(p, a.mean() > b.mean()))

    return look


def _distances(found: Findings) -> Evidence:
    matrix, groups = entries(found["distances"], "matrix", "groups")
    to_pruned = np.asarray(matrix)[groups.index("prune end")]
    groups = np.asarray(groups)
    order = ("LT end", "LT start", "Scratch start", "Scratch end")
    near = [to_pruned[groups == name.lower()] for name in order]
    if not all(map(len, near)):
        raise NotMeasured("a group is missing")
    each = zip(order, near, strict=True)
    words = ", ".join(f"{name} {spread(values)}" for name, values in each)
    n = min(len(near[0]), len(near[-1]))
    steps = list(zip(near, near[1:], strict=False))
    holds = True if all(a.max() < b.min() for a, b in steps) else None
    ordered = all(a.mean() < b.mean() for a, b in steps)
    return Evidence(words, n, holds if ordered else False)


def _negatives(found: Findings) -> Evidence:
    (rigl,) = entries(found["curvature"], "rigl")
    made = curvature.new_negatives(rigl["states"])
    if not made:
        raise NotMeasured("no spectrum around a mask update")
    new, n = list(made.values()), len({place.seed for place in made})
    words = f"{np.mean(new):+.0f}, from {min(new):+.0f} to {max(new):+.0f}"
    words = f"{words}, over {len(new)} changes"
    holds = True if min(new) > 0 else False if max(new) <= 0 else None
    return Evidence(words, n, holds)


MORE_ACCURATE = (
    "higher mean, Welch's t one-sided p < 0.05; unclear above; not reproduced if the "
    "mean is not higher"
)
PAIRED = (
    "paired by seed: higher mean, one-sided p < 0.05; unclear above; not reproduced if "
    "the mean is not higher"
)

CLAIMS = (
    Claim(
        "same basin",
        "The ticket's solution lies in the basin of the pruned one, that from scratch "
        "does not.",
        "no barrier for LT, a large one for Scratch (figure)",
        f"mean error barrier to the pruned solution: LT below {CONNECTED:g} and "
        f"Scratch above {APART:g} percentage points; not reproduced with LT above "
        f"{APART:g} or Scratch below {CONNECTED:g}",
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
        "amended",
    ),
    Claim(
        "flow at initialization",
        "Sparsity-aware initialization raises the gradient norm about tenfold.",
        "about 10 times at step 0, to 0.40, band 0.32 to 0.47 (figure)",
        "geometric mean of the ratio above 5, each seed with a mask of its own; not "
        "reproduced below 2",
        _initialization,
        "amended",
    ),
    Claim(
        "tickets do not flow",
        "Tickets do not begin with more gradient flow than training from scratch.",
        "about equal at step 0 (figure)",
        "geometric mean of the ratio below 2, each seed with a mask of its own; not "
        "reproduced above 5",
        _tickets_do_not_flow,
        "amended",
    ),
    Claim(
        "flow at changes",
        "RigL's mask updates raise the gradient norm more than SET's.",
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
        "amended",
    ),
    Claim(
        "distances",
        "To the pruned solution: LT end < LT start < Scratch start < Scratch end.",
        "in this order (figure)",
        "in this order, every seed of one nearer than all of the next; not reproduced "
        "if the means are not in this order",
        _distances,
        "amended",
    ),
    Claim(
        "initialization helps",
        "Sparsity-aware initialization makes training from scratch more accurate.",
        "Scratch+ above Scratch",
        MORE_ACCURATE,
        _higher("scratch_plus", "scratch"),
    ),
    Claim(
        "dynamic training helps",
        "RigL is more accurate than static training from scratch.",
        "RigL above Scratch",
        MORE_ACCURATE,
        _higher("rigl", "scratch"),
    ),
    Claim(
        "tickets win",
        "Tickets are more accurate than training from scratch.",
        "98.52 ± 0.02 against 97.19 ± 0.33",
        MORE_ACCURATE,
        _higher("lt", "scratch"),
    ),
    Claim(
        "pruning wins",
        "Gradual pruning is more accurate than training from scratch.",
        "98.30 ± 0.23 against 97.19 ± 0.33",
        MORE_ACCURATE,
        _higher("prune", "scratch"),
    ),
    Claim(
        "new descent directions",
        "RigL's mask updates make new negative eigenvalues of the Hessian.",
        "more negative eigenvalues after than before (figure)",
        "more below rounding after every mask update measured, by one threshold for "
        "both; not reproduced if after none",
        _negatives,
        "amended",
    ),
    Claim(
        "plateau",
        "Training from scratch stays on a plateau of small gradients; tickets leave it "
        "early.",
        "LT early, Scratch after hundreds of updates (figure)",
        "first recorded norm above 3 times that at 0: every ticket before every "
        "Scratch; not reproduced if tickets are not earlier on average",
        _plateau,
        "after",
    ),
    Claim(
        "flow in training",
        "RigL has more gradient flow in training than static masks.",
        "RigL above Scratch (figure)",
        f"mean norm up to update {EARLY}, {PAIRED}",
        _flows_more("rigl", "scratch", until=EARLY),
        "after",
    ),
    Claim(
        "flow of RigL+",
        "With sparsity-aware initialization too, RigL has more gradient flow early.",
        "RigL+ above Scratch+ in the first 1,000 updates (figure)",
        f"mean norm up to update 1000, {PAIRED}",
        _flows_more("rigl_plus", "scratch_plus", until=1000),
        "after",
    ),
    Claim(
        "random growth helps",
        "SET is more accurate than static training from scratch.",
        "SET above Scratch",
        MORE_ACCURATE,
        _higher("set", "scratch"),
        "after",
    ),
)
