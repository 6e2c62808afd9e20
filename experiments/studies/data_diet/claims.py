"""The claims of Paul et al. (2022), and what must be observed for each.

All thresholds were written before any run of this study. Variants share initial
weights, and the orders of data from the rewind step on, seed by seed: differences are
taken seed by seed, and tests are one-sided t-tests on them. Accuracy is that of tickets
on the test set, in percent, averaged over the levels around the published 16.8 % of the
weights (`LATE`).

"As well as" means within a fraction of the gain from updates of pre-training: if that
gain is zero, all variants are the same, and such a claim is unclear.

Correlations are Spearman's, over variants that were pre-trained with correct labels, of
means over seeds; 15 variants are needed to distinguish a correlation of 0.45 from 0.
"""

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

LATE = (10.0, 22.0)  # percent of the weights, least and most, at late levels
NEAR = 0.5  # percentage points that "as accurate as dense" allows
PART = 1 / 3  # of the gain from updates, which "as well as" allows to lose
CONNECTED = 0.5  # nats of barrier up to which an example counts as connected


def late(variant: Findings) -> np.ndarray:
    """Returns the accuracy of each seed's tickets, over late levels, in percent.

    Args:
      variant: measurements of a variant.
    """
    remaining = np.asarray(variant["remaining"])
    chosen = (remaining >= LATE[0]) & (remaining <= LATE[1])
    chosen[-1] |= not chosen.any()  # a run of few levels: its last one
    return np.mean(np.asarray(variant["ticket"])[:, chosen], axis=1)


def _usual(found: Findings, kind: str) -> str:
    return f"{kind}_{found['usual']}"


def _lates(found: Findings, *names: str) -> list[np.ndarray]:
    return [late(entry) for entry in entries(found["variants"], *names)]


def _pretraining_helps(found: Findings) -> Evidence:
    none, some, more = _lates(found, "k0", "k1", "k2")
    words = f"{spread(none)} from 0, {spread(some)} from k, {spread(more)} from 2k"
    first, second = claims.above(some - none), claims.above(more - some)
    holds = None
    if first and second:
        holds = True
    elif first is False:
        holds = False
    return Evidence(words, len(none), holds)


def _as_good(lost: np.ndarray, worth: np.ndarray, words: str) -> Evidence:
    """Judges whether the loss is at most a part of the gain from updates.

    Args:
      lost: points of accuracy of each seed.
      worth: gain from more updates, points of each seed.
      words: the numbers compared, as text.
    """
    if not claims.above(worth):
        return Evidence(f"{words}; updates gain nothing", len(lost), None)
    over = lost - PART * worth
    holds = True if over.mean() <= 0 else None
    if claims.above(over):
        holds = False
    return Evidence(words, len(lost), holds)


def _matches_dense(found: Findings) -> Evidence:
    none, more = entries(found["variants"], "k0", "k2")
    dense, tickets = np.asarray(more["ticket"])[:, 0], late(more)
    words = f"dense {spread(dense)}, tickets {spread(tickets)}"
    drop = dense - tickets
    if not claims.above(np.asarray(none["ticket"])[:, 0] - late(none), NEAR):
        return Evidence(f"{words}; so do those of 0", len(drop), None)
    holds = True if drop.mean() <= NEAR else None
    if holds is None and claims.above(drop, NEAR):
        holds = False
    return Evidence(words, len(drop), holds)


def _zero_is_too_early(found: Findings) -> Evidence:
    (none,) = entries(found["variants"], "k0")
    dense, tickets = np.asarray(none["ticket"])[:, 0], late(none)
    words = f"dense {spread(dense)}, tickets {spread(tickets)}"
    holds = claims.above(dense - tickets, NEAR)
    return Evidence(words, len(dense), holds)


def _random_suffices(found: Findings) -> Evidence:
    none, every, part = _lates(found, "k0", "k1", _usual(found, "random"))
    words = f"{spread(part)} on {found['usual']} examples, {spread(every)} on all"
    words += f", {spread(none)} from 0"
    return _as_good(every - part, every - none, words)


def _easy_is_better(found: Findings) -> Evidence:
    easy, every, part = _lates(
        found, _usual(found, "easy"), "k1", _usual(found, "random")
    )
    words = f"{spread(easy)} easy, {spread(every)} all, {spread(part)} random"
    each = [claims.above(easy - every), claims.above(easy - part)]
    holds = True if all(each) else False if False in each else None
    return Evidence(words, len(easy), holds)


def _easy_saves_steps(found: Findings) -> Evidence:
    every, easy, more = _lates(found, "k1", _usual(found, "easy"), "k2")
    words = f"{spread(easy)} from k on easy, {spread(more)} from 2k on all"
    words += f", {spread(every)} from k"
    return _as_good(more - easy, more - every, words)


def _hard_is_worse(found: Findings) -> Evidence:
    hard, every = _lates(found, _usual(found, "hard"), "k1")
    words = f"{spread(hard)} hard, {spread(every)} all"
    return Evidence(words, len(hard), claims.above(every - hard))


def correlation(found: Findings, measure: str) -> tuple[float, float, int]:
    """Correlates a measure with late accuracy, over variants.

    Args:
      found: measurements of a network.
      measure: an entry of every variant, one number a seed.

    Returns:
      Spearman's coefficient, its two-sided p, and the number of variants.

    Raises:
      NotMeasured: if a variant is missing, or all are equal.
    """
    if found.get("missing"):
        raise NotMeasured(f"{[*found['missing']]} have not ended")
    chosen = [
        entry
        for name, entry in found["variants"].items()
        if measure in entry and not name.startswith("noise")
    ]
    if len(chosen) < 4:
        raise NotMeasured(f"{measure} of too few variants")
    x = [np.mean(entry[measure]) for entry in chosen]
    y = [late(entry).mean() for entry in chosen]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise NotMeasured(f"{measure} is the same in all variants")
    rho, p = stats.spearmanr(x, y)
    return float(rho), float(p), len(chosen)


def _seeds(found: Findings) -> int:
    return min(len(entry["ticket"]) for entry in found["variants"].values())


def _barrier_predicts(found: Findings) -> Evidence:
    rho, p, n = correlation(found, "mean_barrier")
    words = f"rank correlation {rho:+.2f} over {n} variants, p = {p:.2g}"
    holds = claims.by_p(p / 2, rho < 0)
    return Evidence(words, _seeds(found), holds)


def _connection_predicts(found: Findings) -> Evidence:
    rho, p, n = correlation(found, "connected")
    words = f"rank correlation {rho:+.2f} over {n} variants, p = {p:.2g}"
    return Evidence(words, _seeds(found), claims.by_p(p / 2, rho > 0))


def _better_than_accuracy(found: Findings) -> Evidence:
    barrier, p, n = correlation(found, "mean_barrier")
    early, _, _ = correlation(found, "pretrained")
    words = f"barrier {barrier:+.2f}, pre-trained accuracy {early:+.2f}, {n} variants"
    holds = None
    if barrier < 0 and p / 2 < claims.SIGNIFICANT and -barrier > abs(early) + 0.1:
        holds = True
    elif -barrier <= abs(early):
        holds = False
    return Evidence(words, _seeds(found), holds)


def _noise_hurts(found: Findings) -> Evidence:
    every, some, many = _lates(found, "k1", "noise_10", "noise_50")
    words = f"{spread(every)} clean, {spread(some)} at 10 %, {spread(many)} at 50 %"
    return Evidence(words, len(every), claims.above(every - many))


CLAIMS = (
    Claim(
        "zero steps are too few",
        "Tickets rewound to initialization do not train to dense accuracy.",
        "88.50 at 16.8 %, dense 91.3 to 91.5",
        f"dense above late tickets by {NEAR:g} points, p < 0.05; not reproduced if the "
        "drop is no larger",
        _zero_is_too_early,
    ),
    Claim(
        "pre-training helps",
        "Some updates of dense pre-training make tickets better, and more make them "
        "better still.",
        "88.50, 90.17 and 91.03 at 16.8 % from 0, 200 and 400",
        "k above 0 and 2k above k, each p < 0.05; not reproduced if k is not above 0",
        _pretraining_helps,
    ),
    Claim(
        "a few hundred suffice",
        "After a few hundred updates tickets train to dense accuracy.",
        "91.03 at 16.8 % from 400, dense 91.3 to 91.5",
        f"late tickets of 2k at most {NEAR:g} points below dense; not reproduced if "
        "more, p < 0.05; unclear unless those of 0 are further below, p < 0.05",
        _matches_dense,
    ),
    Claim(
        "a random part suffices",
        "At equal updates, a small random part of the data does as well as all.",
        "90.36 on 3,200, 90.17 on all, 16.8 %",
        "6.4 % of the data lose at most a third of what k updates gain over 0; not "
        "reproduced if more, p < 0.05; unclear unless these gain, p < 0.05",
        _random_suffices,
    ),
    Claim(
        "easy data are better",
        "At equal updates, easy examples make better tickets than all or random ones.",
        "90.92 easy, 90.17 all, 90.36 random, 16.8 %",
        "easy above both, each p < 0.05; not reproduced if not above both",
        _easy_is_better,
    ),
    Claim(
        "easy data save updates",
        "k updates of easy data do as well as 2k of all.",
        "90.92 against 91.03 at 16.8 %",
        "at most a third of what 2k updates gain over k is lost; not reproduced if "
        "more, p < 0.05; unclear unless these gain, p < 0.05",
        _easy_saves_steps,
    ),
    Claim(
        "hard data are worse",
        "At equal updates, hard examples make worse tickets than all data.",
        "88.82 against 90.17 at 16.8 %",
        "hard below all, p < 0.05; not reproduced if not below",
        _hard_is_worse,
    ),
    Claim(
        "barriers predict",
        "The lower the mean per-example barrier between dense networks trained from "
        "the rewind step, the better its tickets.",
        "ResNet-56 on CINIC-10: clear negative relation (figure)",
        "rank correlation over variants negative, one-sided p < 0.05; not reproduced "
        "if not negative",
        _barrier_predicts,
    ),
    Claim(
        "connection predicts",
        "The more examples are linearly mode connected, the better its tickets.",
        "ResNet-56 on CINIC-10: 0.28, 0.60 connected from 200 and 400, 0.47 easy, 0.22 "
        "random (figure)",
        f"barrier of an example at most {CONNECTED:g} nats; rank correlation positive, "
        "one-sided p < 0.05; not reproduced if not positive",
        _connection_predicts,
    ),
    Claim(
        "better than accuracy",
        "Barriers predict tickets better than the accuracy after pre-training.",
        "ResNet-56 on CINIC-10: visibly (figure)",
        "rank correlation of the barrier negative, p < 0.05, and by 0.1 stronger than "
        "that of accuracy, whatever the sign of that; not reproduced if no stronger",
        _better_than_accuracy,
    ),
    Claim(
        "wrong labels hurt",
        "Wrong labels in pre-training alone make worse tickets.",
        "not known to us; 10 % and 50 % were tried",
        "50 % below clean, p < 0.05; not reproduced if not below",
        _noise_hurts,
    ),
)
