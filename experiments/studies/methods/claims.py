"""Claims of several papers on methods, and what must be observed for each.

Thresholds, and the number of seeds, were written before any run of `cifar16`, but after
runs of other studies of the same network, see `report.ABOUT_CLAIMS`; of the scale `cpu`
a table of an earlier version had been seen. Claims are judged on test accuracy at the
end of training at 95 % sparsity, seed by seed: seeds share initial weights and the
order of the data, but for later levels of tickets, each of which has an order of its
own. Two comparisons are not in pairs: that with the smaller dense network, which has
weights of its own, and that of SWAMP, whose particles have orders of their own, and
whose means are tested with statistics of BatchNorm estimated anew, as are the tickets
beside them. What papers report of larger
networks is given in words: no number of theirs can be compared with ours.
"""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.studies import effects
from experiments.studies.claims import (
    Claim,
    Found,
    NotMeasured,
    Premise,
    are_dead,
    entries,
    plain,
)
from experiments.studies.effects import Effect, spread

SPARSITY = 95  # percent, at which claims are judged
COST = 0.5  # points of accuracy that pruning must cost, so that methods can differ
MARGIN = 1.0  # points within which methods are as good as each other
# Updates of a run over the published 62,560 of residual networks, or 11,719 of
# LeNet-300-100.
LENGTHS = {
    ("mnist", "quick"): 300 / 11_719,
    ("mnist", "cpu"): 4690 / 11_719,
    ("resnet8", "cifar16"): 1560 / 62_560,
}
_AT = f"at {SPARSITY} %"


def accuracies(found: Found, *names: str) -> list[np.ndarray]:
    """Returns test accuracies in percent by seed [n], of as many seeds each.

    Args:
      found: measurements by variant.
      *names: "dense", or methods at `SPARSITY`.

    Raises:
      NotMeasured: if one is missing.
    """
    keys = [name if name == "dense" else f"{name}_{SPARSITY}" for name in names]
    each = [np.asarray(one["accuracy"], float) for one in entries(found, *keys)]
    n = min(map(len, each))
    return [values[:n] for values in each]


def _describe(names: Sequence[str], each: Sequence[np.ndarray]) -> str:
    """Formats the accuracies of methods."""
    words = (
        f"{plain(name)} {spread(one)} %" for name, one in zip(names, each, strict=True)
    )
    return f"{', '.join(words)} {_AT} sparsity"


def _difference(name: str, other: str) -> str:
    """Names the difference of two methods, with its unit."""
    return f"{plain(name)} minus {plain(other)}, points"


def above(name: str, *others: str) -> Callable[[Found], Effect]:
    """Makes a test of whether a method is above each of several others.

    Args:
      name: the method.
      *others: the others.
    """

    def evaluate(found: Found) -> Effect:
        ours, *theirs = each = accuracies(found, name, *others)
        exact = any(are_dead(one) for one in each)
        parts = (
            effects.above(ours - one, exact=exact).named(_difference(name, other))
            for other, one in zip(others, theirs, strict=True)
        )
        return effects.every(*parts, words=_describe((name, *others), each))

    return evaluate


def _each_above(*pairs: tuple[str, str]) -> Callable[[Found], Effect]:
    """Tests whether the first method of every pair is above the second."""
    above_others, others = zip(*pairs, strict=True)
    names = tuple(dict.fromkeys(above_others + others))

    def evaluate(found: Found) -> Effect:
        words = _describe(names, accuracies(found, *names))
        return effects.every(*(above(*pair)(found) for pair in pairs), words=words)

    return evaluate


def _no_worse(name: str, other: str) -> Callable[[Found], Effect]:
    """Tests whether a method is above another minus the margin."""

    def evaluate(found: Found) -> Effect:
        ours, theirs = each = accuracies(found, name, other)
        exact = any(are_dead(one) for one in each)
        effect = effects.above(ours - theirs, -MARGIN, exact=exact)
        return effect.said(_describe((name, other), each), _difference(name, other))

    return evaluate


def _higher(name: str, other: str) -> Callable[[Found], Effect]:
    """Tests whether a method is above another, not in pairs."""

    def evaluate(found: Found) -> Effect:
        one, two = (accuracies(found, each)[0] for each in (name, other))
        exact = are_dead(one) or are_dead(two)
        effect = effects.higher(one, two, exact=exact)
        words = _describe((name, other), (one, two))
        return effect.said(words, _difference(name, other))

    return evaluate


def _mean_above_tickets(found: Found) -> Effect:
    """Tests whether means of particles are above tickets, both re-estimated."""
    keys = (f"{name}_{SPARSITY}" for name in ("swamp", "tickets"))
    swamp, tickets = entries(found, *keys)
    pair = swamp["accuracy"], entries(tickets, "re_estimated")[0]
    one, two = (np.asarray(values, float) for values in pair)
    effect = effects.higher(one, two, exact=are_dead(one) or are_dead(two))
    words = _describe(("swamp", "tickets"), (one, two))
    return effect.said(words, _difference("swamp", "tickets"))


def _costs(name: str) -> Premise:
    """Presumes that a method is below the dense network, so that there is room."""

    def evaluate(found: Found) -> Effect:
        dense, sparse = accuracies(found, "dense", name)
        words = f"dense {spread(dense)} %, {plain(name)} {spread(sparse)} %"
        return effects.above(dense - sparse, COST).said(words)

    return Premise(f"{plain(name)} {_AT} more than {COST} points below dense", evaluate)


def _is_worse(found: Found) -> Effect:
    """Compares the smaller dense network with the dense one, not in pairs."""
    dense, small = (accuracies(found, n)[0] for n in ("dense", "small_dense"))
    return effects.higher(dense, small, COST)


_SMALL_IS_WORSE = Premise(f"small dense more than {COST} points below dense", _is_worse)

CLAIMS = (
    Claim(
        "RigL above SET above random",
        "RigL is better than SET, and SET is better than static random masks.",
        "ResNet-50: so at 80 % and 90 % (Evci et al. 2019, arXiv:1911.11134)",
        "RigL above SET, and SET above random masks of the same layer counts",
        _each_above(("rigl", "set"), ("set", "random")),
        (_costs("random"),),
    ),
    Claim(
        "pruning at initialization misses the mark",
        "Masks chosen at initialization stay below those chosen during training.",
        "ResNet-20 on CIFAR-10: SNIP and SynFlow below magnitude pruning after "
        "training (Frankle et al. 2020, arXiv:2009.08576)",
        "tickets above SNIP and above SynFlow",
        above("tickets", "snip", "synflow"),
        (_costs("snip"),),
    ),
    Claim(
        "SNIP and SynFlow above random masks",
        "Masks chosen by scores at initialization are better than random ones.",
        "ResNet-20 on CIFAR-10: SNIP and SynFlow above random (Frankle et al. 2020, "
        "arXiv:2009.08576)",
        "SNIP above random masks with uniform layers, and SynFlow above them",
        _each_above(("snip", "random_uniform"), ("synflow", "random_uniform")),
        (_costs("random_uniform"),),
    ),
    Claim(
        "NTK-SAP above SNIP and SynFlow",
        "NTK-SAP is better than SynFlow and SNIP.",
        "ResNet-20 on CIFAR-10 and others, above all at high sparsity (Wang et al. "
        "2023, arXiv:2304.02840)",
        "NTK-SAP above SynFlow and above SNIP",
        above("ntk_sap", "synflow", "snip"),
        (_costs("synflow"),),
    ),
    Claim(
        f"constant fan-in costs less than {MARGIN:g} point",
        "A constant fan-in costs RigL no accuracy if neurons may be removed.",
        "ResNet-50: SRigL close to RigL up to 95 % (Lasby et al. 2023, "
        "arXiv:2305.02299)",
        f"SRigL, with 2 % fewer weights, no more than {MARGIN:g} points below RigL",
        _no_worse("srigl", "rigl"),
        (_costs("rigl"),),
    ),
    Claim(
        "large sparse above small dense",
        "A large sparse network is better than a small dense one of equal size.",
        "several networks (Zhu and Gupta 2017, arXiv:1710.01878)",
        "GMP above a dense network with the same number of weights",
        _higher("gmp_small", "small_dense"),
        (_SMALL_IS_WORSE,),
    ),
    Claim(
        "SWAMP above tickets",
        "SWAMP, the mean of several networks, is better than a rewound ticket.",
        "several networks and datasets, at all sparsities (Choi et al. 2023, "
        "arXiv:2305.14852)",
        "means of four particles, trained at four times the cost and without the "
        "paper's average over the last epochs, above rewound tickets, all with "
        "statistics of BatchNorm estimated on the same training examples",
        _mean_above_tickets,
        (_costs("tickets"),),
    ),
    Claim(
        "CHTs above RigL",
        "CHTs is better than RigL.",
        "several networks at 90 % and more (Zhang et al. 2025, arXiv:2501.19107)",
        "CHTs above RigL",
        above("chts", "rigl"),
        (_costs("rigl"),),
    ),
    Claim(
        "learning rate rewinding",
        "Rewinding the learning rate only is at least as good as rewinding weights.",
        "ResNet-20, -56 and -50 and GNMT (Renda et al. 2020, arXiv:2003.02389)",
        f"learning rate rewinding no more than {MARGIN:g} points below; its weights "
        "are trained at every level, those of rewound tickets only at the last",
        _no_worse("tickets_rate_rewound", "tickets"),
        (_costs("tickets"),),
    ),
    Claim(
        "AC/DC above RigL",
        "AC/DC is better than RigL.",
        "ResNet-50 at 90 % and 95 % (Peste et al. 2021, arXiv:2106.12379)",
        "AC/DC above RigL",
        above("ac_dc", "rigl"),
        (_costs("rigl"),),
    ),
)


def of_runs(names: Sequence[str]) -> list[Claim]:
    """Lists the claims whose methods are among some runs.

    Args:
      names: names of the runs of a setting, without that of the setting.
    """
    numbers = {"accuracy": [0.0, 0.0], "re_estimated": [0.0, 0.0]}
    invented = dict.fromkeys(names, numbers)

    def compares(claim: Claim) -> bool:
        try:
            for one in (claim, *claim.premises):
                one.evaluate(invented)
        except NotMeasured:
            return False
        return True

    return [claim for claim in CLAIMS if compares(claim)]
