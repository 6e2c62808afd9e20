"""Evidence: what the measurements show for each claim, and for what it presumes.

Each function takes `found`, the measurements of the study.
"""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from experiments.studies import effects
from experiments.studies.claims import (
    Found,
    NotMeasured,
    Premise,
    are_dead,
    entries,
    fact,
)
from experiments.studies.effects import Effect, spread
from experiments.studies.gradient_flow import curvature
from experiments.studies.gradient_flow.published import LABELS
from jaxsparse.analysis import mode_connectivity

CONNECTED, APART = 1.0, 5.0  # percentage points of error barrier: below, above
EARLY = 0.25  # of training: mask updates that are compared


def higher(
    better: str, worse: str, *, paired: bool = True
) -> Callable[[Found], Effect]:
    """Compares the accuracies of two variants.

    Args:
      better: the variant that should be more accurate.
      worse: the other one.
      paired: whether seeds of the same number share something: the order of the data,
        and at `cifar16` the mask of the pruning run. Where only means and deviations
        are known, or numbers of seeds differ, seeds are compared as if independent.
    """

    def evaluate(found: Found) -> Effect:
        pair = entries(found["predictions"], better, worse)
        summaries = [summary(one) for one in pair]
        words = ", ".join(
            f"{LABELS[name]} {mean:.2f}{f' ± {sd:.2f}' if n > 1 else ''} %"
            for name, (mean, sd, n) in zip((better, worse), summaries, strict=True)
        )
        of = f"{LABELS[better]} minus {LABELS[worse]}, points"
        if any("summary" in one for one in pair):  # an older version kept no seeds
            effect = effects.higher_by_summary(*summaries)
            return effect.said(words, of=of)
        a, b = (np.asarray(one["accuracy"]) for one in pair)
        exact = are_dead(np.concatenate([a, b]))
        if not paired or len(a) != len(b):
            effect = effects.higher(a, b, exact=exact)
        else:
            effect = effects.above(a - b, exact=exact)
        return effect.said(words, of=of)

    return evaluate


def summary(prediction: Found) -> tuple[float, float, int]:
    """Returns mean, sample standard deviation (NaN of one) and number of accuracies.

    Args:
      prediction: measurements of the predictions of a variant.
    """
    if "summary" in prediction:
        mean, sd, n = prediction["summary"]
        return mean, sd, n
    values = pd.Series(prediction["accuracy"], dtype=float)
    return float(values.mean()), float(values.std()), len(values)


def _barriers(found: Found, key: str) -> np.ndarray:
    """Returns the error barrier between each seed and the pruned solution."""
    (line,) = entries(found["interpolations"], key)
    return mode_connectivity.barrier(np.asarray(line["error"]).T, line["alphas"])


def are_connected(variant: str) -> Callable[[Found], Effect]:
    """Measures the error barriers between a variant and the pruned solution.

    Args:
      variant: the variant, which should have none.
    """

    def evaluate(found: Found) -> Effect:
        values = _barriers(found, f"{variant}_end")
        words = f"{spread(values)} points"
        return effects.below(values, CONNECTED).said(words, of="barrier, points")

    return evaluate


def scratch_is_apart(found: Found) -> Effect:
    """Error barriers between training from scratch and the pruned solution."""
    values = _barriers(found, "scratch_end")
    words = f"{spread(values)} points"
    return effects.above(values, APART).said(words, of="barrier, points")


def agree(variant: str) -> Callable[[Found], Effect]:
    """Compares disagreement with the pruned solution to that of training from scratch.

    Args:
      variant: the variant, which should disagree less than half as much.
    """

    def evaluate(found: Found) -> Effect:
        pair = entries(found["predictions"], variant, "scratch")
        a, b = (np.asarray(entries(one, "with_pruned")[0]) for one in pair)
        words = f"disagreement: {LABELS[variant]} {spread(a, 4)}, "
        words += f"Scratch {spread(b, 4)} of the predictions"
        if len(a) == len(b):
            effect = effects.above(0.5 * b - a)
        else:
            effect = effects.higher(0.5 * b, a)
        of = f"half of Scratch's disagreement minus that of {LABELS[variant]}, fraction"
        return effect.said(words, of=of)

    return evaluate


def ensembles(variant: str) -> Callable[[Found], Effect]:
    """Compares the gains of ensembles over their members with those from scratch.

    With several masks, one ensemble each, gains are compared over masks; with one, over
    the pseudo-values of leaving out members.

    Args:
      variant: the variant, whose ensembles should gain less than a third as much.
    """

    def evaluate(found: Found) -> Effect:
        ours, theirs = entries(found["orders"], variant, "scratch")
        a, b = _gains(ours), _gains(theirs)
        words = f"gain: {LABELS[variant]} {spread(a)} points, Scratch {spread(b)}"
        n = min(len(a), len(b))
        effect = effects.above(b[:n] / 3 - a[:n])
        of = f"a third of Scratch's gain minus that of {LABELS[variant]}, points"
        return effect.said(words, of=of)

    return evaluate


def _gains(orders: list[Found]) -> np.ndarray:
    """Returns gains of the ensembles of masks, or pseudo-values of the only one."""
    if len(orders) > 1:
        return np.asarray([one["ensemble"] for one in orders])
    if "ensemble_without" not in orders[0]:
        raise NotMeasured("no ensemble of three or more")
    return effects.pseudo_values(orders[0]["ensemble"], orders[0]["ensemble_without"])


def has_no_norm(found: Found) -> Effect:
    """Whether the network is without normalization, which undoes the scale of weights.

    The gradient of weights before a normalization is inversely proportional to their
    scale, so that an initialization with larger weights lowers it.
    """
    words = "BatchNorm" if found["has_norm"] else "none"
    return fact(not found["has_norm"], words)


def flows_at_start(
    variant: str, base: str, *, times: float, equal: bool = False
) -> Callable[[Found], Effect]:
    """Compares gradient norms at initialization, each seed with a mask of its own.

    Args:
      variant: the variant whose norm is compared.
      base: the one it is divided by.
      times: ratio of the norms that must be exceeded.
      equal: whether the ratio should instead be below `times` and above its reciprocal:
        two one-sided tests.
    """

    def evaluate(found: Found) -> Effect:
        a, b = map(np.asarray, entries(found["starts"], variant, base))
        ratio = np.log(a) - np.log(b)
        words = f"norm: {LABELS[variant]} {spread(a, 3)}, {LABELS[base]} {spread(b, 3)}"
        compare = effects.within if equal else effects.above
        effect = compare(ratio, float(np.log(times))).as_ratio()
        return effect.said(words, of=f"ratio, {LABELS[variant]} to {LABELS[base]}")

    return evaluate


def _rises(found: Found, *names: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the change of the norm at early updates [seeds] of two variants."""
    each = []
    for change in entries(found["changes"], *names):
        early = np.asarray(change["steps"]) <= EARLY * found["steps"]
        before, after = (np.asarray(change[n])[:, early] for n in ("before", "after"))
        each.append(np.log(after.mean(axis=1) / before.mean(axis=1)))
    n = min(map(len, each))
    return each[0][:n], each[1][:n]


def rises_more(better: str, worse: str) -> Callable[[Found], Effect]:
    """Compares the rise of the gradient norm at mask updates, seed by seed.

    Args:
      better: the variant whose norm should rise more.
      worse: the other one.
    """

    def evaluate(found: Found) -> Effect:
        a, b = _rises(found, better, worse)
        effect = effects.above(a - b).as_ratio()
        of = f"ratio of the rises, {LABELS[better]} to {LABELS[worse]}"
        return effect.said(_times({better: a, worse: b}), of=of)

    return evaluate


def rises(variant: str) -> Premise:
    """Makes the premise that the norm rises at mask updates.

    Args:
      variant: a variant with mask updates.
    """

    def evaluate(found: Found) -> Effect:
        values, _ = _rises(found, variant, variant)
        return effects.above(values).said(_times({variant: values}))

    return Premise(f"the norm rises at mask updates of {LABELS[variant]}", evaluate)


def inverted(found: Found) -> Effect:
    """Rises of the norm by inverted growth, and half of those of RigL+."""
    a, b = _rises(found, "rigl_plus", "rigl_inverted_plus")
    words = _times({"rigl_inverted_plus": b, "rigl_plus": a})
    of = "logarithm of the rise, half of RigL+'s minus that of RigL+ inverted"
    return effects.above(0.5 * a - b).said(words, of=of)


def _times(logs: Mapping[str, np.ndarray]) -> str:
    """Formats the mean changes of the norm, which differ between seeds by factors."""
    each = (f"{LABELS[name]} {np.exp(v.mean()):.3g} times" for name, v in logs.items())
    return f"norm after mask updates: {', '.join(each)} that before (geometric mean)"


def _escapes(found: Found, variant: str) -> tuple[np.ndarray, int]:
    """Returns when each seed's norm exceeds 3 times its start, and what is "never"."""
    (curve,) = entries(found["gradients"], variant)
    norms, steps = np.asarray(curve["norm"]), np.asarray(curve["steps"])
    above = norms > 3 * norms[:, :1]
    last = steps[-1] + 1  # of seeds that never do
    return np.where(above.any(axis=1), steps[np.argmax(above, axis=1)], last), last


def plateau(found: Found) -> Effect:
    """Steps at which tickets and training from scratch leave the first plateau."""
    each = {name: _escapes(found, name) for name in ("lt", "scratch")}
    words = "; ".join(f"{LABELS[name]} {_at(*one)}" for name, one in each.items())
    effect = effects.higher(each["scratch"][0], each["lt"][0], exact=True)
    return effect.said(f"updates: {words}", of="Scratch minus LT, updates")


def _at(left: np.ndarray, never: int) -> str:
    """Lists the updates at which seeds left the plateau, and how many never did."""
    some = [f"{update:,}" for update in left if update < never]
    stayed = len(left) - len(some)
    words = [f"at {', '.join(some)}"] if some else []
    if stayed:
        words.append(f"never in {stayed} of {len(left)} seeds (counted as {never:,})")
    return " and ".join(words)


def flows_more(better: str, worse: str, *, until: float) -> Callable[[Found], Effect]:
    """Compares the mean gradient norms of two variants, paired by seed.

    Args:
      better: the variant that should have the higher norm.
      worse: the other one.
      until: part of training over which norms are averaged.
    """

    def evaluate(found: Found) -> Effect:
        means = []
        for curve in entries(found["gradients"], better, worse):
            early = np.asarray(curve["steps"]) <= until * found["steps"]
            means.append(np.asarray(curve["norm"])[:, early].mean(axis=1))
        n = min(map(len, means))
        a, b = (values[:n] for values in means)
        words = f"norm: {LABELS[better]} {spread(a, 3)}, {LABELS[worse]} {spread(b, 3)}"
        of = f"norm, {LABELS[better]} minus {LABELS[worse]}"
        return effects.above(a - b).said(words, of=of)

    return evaluate


def distances(found: Found) -> Effect:
    """Distances from the pruned solution."""
    lt, scratch = entries(found["distances"], "lt", "scratch")
    order = {
        "LT end": lt["end"],
        "LT start": lt["start"],
        "Scratch start": scratch["start"],
        "Scratch end": scratch["end"],
    }
    near = [np.asarray(values) for values in order.values()]
    each = zip(order, near, strict=True)
    words = ", ".join(f"{name} {spread(values)}" for name, values in each)
    words = f"distance: {words}"
    pairs = itertools.pairwise(zip(order, near, strict=True))
    parts = (
        effects.above(b - a).named(f"distance, {far} minus {close}")
        for (close, a), (far, b) in pairs
    )
    return effects.every(*parts, words=words)


def negatives(found: Found) -> Effect:
    """New negative eigenvalues after mask updates, averaged within seeds."""
    effect = _after_updates(found, curvature.new_negatives)
    return effect.named("negative eigenvalues, after minus before")


def least_falls(found: Found) -> Effect:
    """Fall of the least eigenvalue over mask updates, averaged within seeds."""
    effect = _after_updates(found, curvature.falls)
    return effect.named("least eigenvalue, before minus after")


def _after_updates(
    found: Found, change: Callable[[list[Found]], dict[curvature.Place, float]]
) -> Effect:
    """Tests whether a change of the spectrum over mask updates is above 0."""
    for variant in ("rigl_plus", "rigl"):
        made = change(found["curvature"].get(variant, {}).get("states", []))
        if made:
            break
    else:
        raise NotMeasured("no such spectrum around a mask update")
    seeds = sorted({place.seed for place in made})
    means = [
        np.mean([new for place, new in made.items() if place.seed == seed])
        for seed in seeds
    ]
    words = f"{spread(means, 3)} over {len(made)} mask updates of {LABELS[variant]}"
    return effects.above(means).said(words)
