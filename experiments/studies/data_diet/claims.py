"""The claims of Paul et al. (2022), and what must be observed for each.

Thresholds were first written before any run of the study, and rewritten when the runs
of `cpu` had been seen, to treat both directions alike, before any run of `cifar16`.
Variants share initial weights, and the orders of data from the rewind step on, so
differences are taken seed by seed. Accuracy is that of tickets on the test set, in
percent, averaged over the levels around the published 16.8 % of the weights (`LATE`).

"As well as" means that at most a third of the gain from updates of pre-training is
lost; without a gain there is nothing to lose, and the premise is absent.

Correlations are Spearman's over variants that were pre-trained with correct labels,
within seeds; subsets of one kind are nested and permuted together.
"""

import itertools
from collections.abc import Callable

import numpy as np

from experiments.studies import correlations, effects
from experiments.studies.claims import Claim, Found, NotMeasured, Premise, entries
from experiments.studies.effects import Effect, spread

LATE = (10.0, 22.0)  # percent of the weights, least and most, at late levels
NEAR = 0.5  # percentage points that "as accurate as dense" allows
PART = 1 / 3  # of the gain from updates, which "as well as" allows to lose
CONNECTED = 0.5  # nats of barrier up to which an example counts as connected


def late(variant: Found) -> np.ndarray:
    """Returns the accuracy of each seed's tickets, over late levels, in percent.

    Args:
      variant: measurements of a variant.
    """
    remaining = np.asarray(variant["remaining"])
    chosen = (remaining >= LATE[0]) & (remaining <= LATE[1])
    chosen[-1] |= not chosen.any()  # a run of few levels: its last one
    return np.mean(np.asarray(variant["ticket"])[:, chosen], axis=1)


# Of kinds of variants: the updates, or the examples.
_LABELS = {"k0": "0 updates", "k1": "k updates", "k2": "2k updates"}
_LABELS |= {"easy": "easy data", "random": "random data", "hard": "hard data"}
_LABELS |= {"noise_50": "50 % wrong labels"}


def _usual(found: Found, kind: str) -> str:
    return f"{kind}_{found['usual']}"


def _lates(found: Found, *names: str) -> list[np.ndarray]:
    return [late(entry) for entry in entries(found["variants"], *names)]


def _loss(found: Found, name: str) -> tuple[np.ndarray, str]:
    """Returns what late tickets lose against the dense network [seeds], and words."""
    (variant,) = entries(found["variants"], name)
    dense = np.asarray(variant["ticket"])[:, 0]
    tickets = late(variant)
    return dense - tickets, f"dense {spread(dense)} %, tickets {spread(tickets)} %"


def _gains(first: str, second: str) -> Premise:
    """Makes the premise that tickets of the second variant are better."""

    def evaluate(found: Found) -> Effect:
        a, b = _lates(found, first, second)
        return effects.above(b - a)

    words = f"tickets from {_LABELS[second]} are better than from {_LABELS[first]}"
    return Premise(words, evaluate)


def _more(*names: str) -> Callable[[Found], Effect]:
    """Compares variants, each of which should be better than the one before."""

    def evaluate(found: Found) -> Effect:
        each = _lates(found, *(_sized(found, name) for name in names))
        words = ", ".join(
            f"{_LABELS[name]} {spread(one)} %"
            for one, name in zip(each, names, strict=True)
        )
        labeled = zip((_LABELS[name] for name in names), each, strict=True)
        parts = (
            effects.above(b - a).named(f"{more} minus {less}, points")
            for (less, a), (more, b) in itertools.pairwise(labeled)
        )
        return effects.every(*parts, words=words)

    return evaluate


def _sized(found: Found, name: str) -> str:
    """Adds the usual number of examples to the name of a kind of subset."""
    return _usual(found, name) if name in ("easy", "random", "hard") else name


def _falls_short(found: Found) -> Effect:
    lost, words = _loss(found, "k0")
    return effects.above(lost, NEAR).said(words, of="dense minus tickets, points")


def _matches_dense(found: Found) -> Effect:
    lost, words = _loss(found, "k2")
    return effects.below(lost, NEAR).said(words, of="dense minus tickets, points")


def _early_falls_short() -> Premise:
    def evaluate(found: Found) -> Effect:
        return effects.above(_loss(found, "k0")[0], NEAR)

    return Premise(f"tickets of 0 updates lose {NEAR:g} points", evaluate)


def _as_good(part: str, whole: str, base: str) -> Callable[[Found], Effect]:
    """Compares what a variant loses against another with a part of the other's gain."""

    def evaluate(found: Found) -> Effect:
        names = (_sized(found, name) for name in (part, whole, base))
        a, b, c = _lates(found, *names)
        pairs = zip((part, whole, base), (a, b, c), strict=True)
        words = ", ".join(f"{_LABELS[name]} {spread(one)} %" for name, one in pairs)
        effect = effects.below(b - a - PART * (b - c))
        return effect.said(words, of="loss minus a third of the gain, points")

    return evaluate


def _easy_is_better(found: Found) -> Effect:
    easy, every, part = _lates(
        found, _usual(found, "easy"), "k1", _usual(found, "random")
    )
    words = f"easy {spread(easy)} %, all {spread(every)} %, random {spread(part)} %"
    parts = (
        effects.above(easy - every).named("easy minus all, points"),
        effects.above(easy - part).named("easy minus random, points"),
    )
    return effects.every(*parts, words=words)


MIN_VARIANTS = 5  # for a correlation


def of_variants(found: Found, measure: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Returns a measure and the late accuracy of variants with correct labels.

    Args:
      found: measurements of a setting.
      measure: an entry of every variant, one number a seed.

    Returns:
      The measure and the late accuracy [seeds variants], of the seeds that all have,
      and the block of each variant: 0 for those of all data, others by kind of subset.

    Raises:
      NotMeasured: if there are too few variants, or all are equal.
    """
    chosen = {
        name: entry
        for name, entry in found["variants"].items()
        if measure in entry and not name.startswith("noise")
    }
    if len(chosen) < MIN_VARIANTS:
        raise NotMeasured(f"{measure} of too few variants")
    seeds = min(len(entry["ticket"]) for entry in chosen.values())
    x = np.stack([np.asarray(e[measure], float)[:seeds] for e in chosen.values()], 1)
    y = np.stack([late(entry)[:seeds] for entry in chosen.values()], axis=1)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise NotMeasured(f"{measure} is the same in all variants")
    kinds = [name.partition("_")[0] for name in chosen]
    # Variants of all data differ in updates; each is a block of its own.
    blocks = [list(dict.fromkeys(kinds)).index(kind) for kind in kinds]
    return x, y, blocks


def correlation(found: Found, measure: str) -> Effect:
    """Correlates a measure with late accuracy over variants, within seeds.

    Args:
      found: measurements of a setting.
      measure: an entry of every variant, one number a seed.

    Raises:
      NotMeasured: if there are too few variants, or all are equal.
    """
    x, y, blocks = of_variants(found, measure)
    return correlations.rank_correlation(x, y, blocks=blocks)


def _predicts(measure: str, *, falling: bool) -> Callable[[Found], Effect]:
    def evaluate(found: Found) -> Effect:
        effect = correlation(found, measure)
        return effects.opposite(effect) if falling else effect

    return evaluate


def _better_than_accuracy(found: Found) -> Effect:
    barrier, y, blocks = of_variants(found, "mean_barrier")
    early, _, _ = of_variants(found, "pretrained")
    return correlations.stronger_correlation(barrier, early, y, blocks=blocks)


CLAIMS = (
    Claim(
        "tickets of initialization fall short",
        "Tickets rewound to initialization do not train to dense accuracy.",
        "88.50 % with 16.8 % of the weights, dense 91.3 to 91.5 %",
        f"dense minus late tickets of 0 updates above {NEAR:g} points",
        _falls_short,
    ),
    Claim(
        "pre-training helps",
        "Some updates of dense pre-training make tickets better.",
        "88.50 and 90.17 % from 0 and 200 updates, with 16.8 % of the weights",
        "tickets from k updates more accurate than those from 0",
        _more("k0", "k1"),
    ),
    Claim(
        "more pre-training helps more",
        "More updates of dense pre-training make tickets better still.",
        "90.17 and 91.03 % from 200 and 400 updates, with 16.8 % of the weights",
        "tickets from 2k updates more accurate than those from k",
        _more("k1", "k2"),
    ),
    Claim(
        "a few hundred updates suffice",
        "After a few hundred updates tickets train to dense accuracy.",
        "91.03 % from 400 updates with 16.8 % of the weights, dense 91.3 to 91.5 %",
        f"dense minus late tickets of 2k updates below {NEAR:g} points",
        _matches_dense,
        (_early_falls_short(),),
    ),
    Claim(
        "a random part suffices",
        "At equal updates, a small random part of the data does as well as all.",
        "90.36 % on 3,200 examples, 90.17 % on all, with 16.8 % of the weights",
        "with 6.4 % of the data, less than a third of what k updates gain over 0 is "
        "lost",
        _as_good("random", "k1", "k0"),
        (_gains("k0", "k1"),),
    ),
    Claim(
        "easy data are better",
        "At equal updates, easy examples make better tickets than all or random ones.",
        "90.92 % easy, 90.17 % all, 90.36 % random, with 16.8 % of the weights",
        "easy above both",
        _easy_is_better,
        (_gains("k0", "k1"),),
    ),
    Claim(
        "easy data save updates",
        "k updates of easy data do as well as 2k of all.",
        "90.92 against 91.03 % with 16.8 % of the weights",
        "less than a third of what 2k updates gain over k is lost",
        _as_good("easy", "k2", "k1"),
        (_gains("k1", "k2"),),
    ),
    Claim(
        "hard data are worse",
        "At equal updates, hard examples make worse tickets than all data.",
        "88.82 against 90.17 % with 16.8 % of the weights",
        "hard below all",
        _more("hard", "k1"),
        (_gains("k0", "k1"),),
    ),
    Claim(
        "barriers predict",
        "The lower the mean per-example barrier between dense networks trained from "
        "the rewind step, the better its tickets.",
        "ResNet-56 on CINIC-10: clear negative relation (figure)",
        "rank correlation over variants below 0",
        _predicts("mean_barrier", falling=True),
        (_gains("k0", "k1"),),
    ),
    Claim(
        "connection predicts",
        "The more examples are linearly mode connected, the better its tickets.",
        "ResNet-56 on CINIC-10: 0.28, 0.60 connected from 200 and 400, 0.47 easy, 0.22 "
        "random (figure)",
        f"barrier of an example at most {CONNECTED:g} nats; rank correlation above 0",
        _predicts("connected", falling=False),
        (_gains("k0", "k1"),),
    ),
    Claim(
        "barriers predict better than accuracy",
        "Barriers predict tickets better than the accuracy after pre-training.",
        "ResNet-56 on CINIC-10: visibly (figure)",
        "absolute rank correlation of the barrier above that of accuracy, bootstrap "
        "over blocks of variants",
        _better_than_accuracy,
        (_gains("k0", "k1"),),
    ),
    Claim(
        "wrong labels hurt",
        "Wrong labels in pre-training alone make worse tickets.",
        "not known to us; 10 % and 50 % were tried",
        "50 % below clean",
        _more("noise_50", "k1"),
        (_gains("k0", "k1"),),
    ),
)
