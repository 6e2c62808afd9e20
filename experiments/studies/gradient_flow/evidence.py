"""Evidence: what the measurements show for each claim."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.studies import claims
from experiments.studies.claims import Evidence, Findings, NotMeasured, entries, spread
from experiments.studies.gradient_flow import curvature
from jaxsparse.analysis import connectivity

CONNECTED = 1.0  # percentage points of error: a barrier lower than this is none
APART = 5.0  # a barrier higher than this is one
EARLY = 2000  # first updates, in which mask updates are compared
FLAT = 1e-3  # a smaller change of the norm is none


def higher(better: str, worse: str) -> Callable[[Findings], Evidence]:
    """Compares the final accuracy of two variants (Welch's t-test, one-sided).

    Args:
      better: the variant that should be more accurate.
      worse: the other one.
    """

    def evaluate(found: Findings) -> Evidence:
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

    return evaluate


def _barriers(found: Findings, key: str) -> np.ndarray:
    """Returns the error barrier between each seed and the pruned solution."""
    (line,) = entries(found["interpolations"], key)
    return connectivity.barrier(np.asarray(line["error"]).T, line["alphas"])


def tickets_are_connected(found: Findings) -> Evidence:
    """Error barriers to the pruned solution, from tickets and from scratch."""
    lt, scratch = _barriers(found, "lt_end"), _barriers(found, "scratch_end")
    words = f"LT {spread(lt)}, Scratch {spread(scratch)} percentage points"
    holds = None
    if lt.mean() < CONNECTED and scratch.mean() > APART:
        holds = True
    elif lt.mean() > APART or scratch.mean() < CONNECTED:
        holds = False
    return Evidence(words, min(len(lt), len(scratch)), holds)


def tickets_agree(found: Findings) -> Evidence:
    """Disagreement with the pruned solution."""
    lt, scratch = (
        np.asarray(entry["with_pruned"])
        for entry in entries(found["predictions"], "lt", "scratch")
    )
    words = f"LT {spread(lt, 4)}, Scratch {spread(scratch, 4)}"
    ratio = lt.mean() / scratch.mean()
    holds = True if ratio < 0.5 else False if ratio > 0.8 else None
    return Evidence(words, min(len(lt), len(scratch)), holds)


def ensembles(found: Findings) -> Evidence:
    """Gains of ensembles over their members."""
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


def initialization(found: Findings) -> Evidence:
    """Ratio of gradient norms at initialization, sparsity-aware to masked."""
    plus, plain = map(np.asarray, entries(found["starts"], "scratch_plus", "scratch"))
    ratio = np.exp(np.mean(np.log(plus)) - np.mean(np.log(plain)))
    words = f"{spread(plus, 3)} against {spread(plain, 3)}, {ratio:.1f} times"
    holds = True if ratio > 5 else False if ratio < 2 else None
    return Evidence(words, min(len(plus), len(plain)), holds)


def tickets_do_not_flow(found: Findings) -> Evidence:
    """Ratio of gradient norms at initialization, tickets to training from scratch."""
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


def updates(found: Findings) -> Evidence:
    """Changes of the gradient norm at mask updates of RigL and SET."""
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


def inverted(found: Findings) -> Evidence:
    """Changes of the gradient norm at mask updates of RigL and of inverted growth."""
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


def plateau(found: Findings) -> Evidence:
    """Steps at which tickets and training from scratch leave the first plateau."""
    lt, scratch = (_escapes(found, variant) for variant in ("lt", "scratch"))
    words = f"LT at {spread(lt, 0)}, Scratch at {spread(scratch, 0)} updates"
    holds = True if lt.max() < scratch.min() else None
    ordered = lt.mean() < scratch.mean()
    return Evidence(words, min(len(lt), len(scratch)), holds if ordered else False)


def flows_more(
    better: str, worse: str, *, until: int
) -> Callable[[Findings], Evidence]:
    """Compares the mean gradient norms of two variants, paired by seed.

    Args:
      better: the variant that should have the higher norm.
      worse: the other one.
      until: last step of the mean.
    """

    def evaluate(found: Findings) -> Evidence:
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

    return evaluate


def distances(found: Findings) -> Evidence:
    """Distances from the pruned solution."""
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


def negatives(found: Findings) -> Evidence:
    """New negative eigenvalues of the Hessian after mask updates."""
    (rigl,) = entries(found["curvature"], "rigl")
    made = curvature.new_negatives(rigl["states"])
    if not made:
        raise NotMeasured("no spectrum around a mask update")
    new, n = list(made.values()), len({place.seed for place in made})
    words = f"{np.mean(new):+.0f}, from {min(new):+.0f} to {max(new):+.0f}"
    words = f"{words}, over {len(new)} changes"
    holds = True if min(new) > 0 else False if max(new) <= 0 else None
    return Evidence(words, n, holds)
