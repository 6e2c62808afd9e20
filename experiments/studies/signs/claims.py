"""Claims on the parts of lottery tickets, and what must be observed for each.

All thresholds were written before any run of the study. The gap of a rewinding step is
the test accuracy of its tickets minus that of tickets with newly drawn signs and
magnitudes (`random_weights`), in points, seed by seed: what both together add to the
masks. All of these tickets have the same leaves without masks, such as those of
BatchNorm. Seeds share masks and the order of the examples. The question how much of a
gap signs carry was left open by the papers on tickets that need rewinding; the papers
below have other networks, in which tickets start from initialization.

Tickets continue the learning-rate schedule of the dense network from the rewinding
step. Aligned and unaligned masks on the weights of step 150 begin a new schedule, over
the remaining steps.
"""

from collections.abc import Callable

import numpy as np

from experiments.studies import effects
from experiments.studies.claims import Claim, Found, Premise, entries
from experiments.studies.effects import Effect, spread
from experiments.studies.signs import variants

GAP = 0.5  # points that signs and magnitudes must add, so that they can be divided
HALF = 0.5  # part of the gap above which something carries most of it


def accuracies(found: Found, run: str, *names: str) -> list[np.ndarray]:
    """Returns test accuracies in percent by seed [n].

    Args:
      found: measurements by run.
      run: the run.
      *names: "ticket", or controls of the run.

    Raises:
      NotMeasured: if the run or a control is missing.
    """
    (entry,) = entries(found, run)
    listed = {"ticket": entry["accuracy"]} | dict(entry["controls"])
    return [np.asarray(values, float) for values in entries(listed, *names)]


def gap(step: int) -> Premise:
    """Presumes that signs and magnitudes add to the masks.

    Args:
      step: the rewinding step.
    """

    def evaluate(found: Found) -> Effect:
        ticket, drawn = accuracies(found, f"k_{step}", "ticket", "random_weights")
        return effects.above(ticket - drawn, GAP)

    name = f"tickets of step {step} more than {GAP} points above random weights"
    return Premise(name, evaluate)


def _carries_most(step: int, control: str) -> Callable[[Found], Effect]:
    """Tests whether a control recovers more than half of the gap."""

    def evaluate(found: Found) -> Effect:
        names = ("ticket", control, "random_weights")
        ticket, kept, drawn = each = accuracies(found, f"k_{step}", *names)
        words = ", ".join(
            f"{name.replace('_', ' ')} {spread(one)}"
            for name, one in zip(names, each, strict=True)
        )
        return effects.above(kept - drawn - HALF * (ticket - drawn)).said(words)

    return evaluate


def _above(run: str, name: str, other: str) -> Callable[[Found], Effect]:
    """Tests whether one part of a run is above another."""

    def evaluate(found: Found) -> Effect:
        one, two = accuracies(found, run, name, other)
        words = f"{name.replace('_', ' ')} {spread(one)}, "
        words += f"{other.replace('_', ' ')} {spread(two)}"
        return effects.above(one - two).said(words)

    return evaluate


def _sign_in(found: Found) -> Effect:
    (ours,), (plain,) = (accuracies(found, n, "ticket") for n in ("sign_in", "plain"))
    words = f"Sign-In {spread(ours)}, plain {spread(plain)}"
    return effects.above(ours - plain).said(words)


def _room(run: str) -> Premise:
    """Presumes that tickets are better than their masks with other weights."""

    def evaluate(found: Found) -> Effect:
        (ticket,), (other,) = (accuracies(found, n, "ticket") for n in ("k_150", run))
        return effects.above(ticket - other, GAP)

    name = f"tickets more than {GAP} points above {variants.label(run)}"
    return Premise(name, evaluate)


def _aligned(share: float) -> Callable[[Found], Effect]:
    """Tests whether aligned masks recover more than a part of what others lose."""

    def evaluate(found: Found) -> Effect:
        names = ("k_150", "aligned_150", "unaligned_150")
        ticket, ours, others = (accuracies(found, name, "ticket")[0] for name in names)
        words = f"tickets {spread(ticket)}, aligned {spread(ours)}, "
        words += f"unaligned {spread(others)}"
        return effects.above(ours - others - share * (ticket - others)).said(words)

    return evaluate


_ZHOU = "fully connected and Conv-2 to -6 (Zhou et al. 2019, arXiv:1905.01067)"
_LRR = "ResNets (Gadhikar and Burkholz 2024, arXiv:2402.19262)"
_ADNAN = "ResNet-20, VGG-11 and ResNet-50 (Adnan et al. 2025, arXiv:2505.05143)"
CLAIMS = (
    Claim(
        "signs of initialization",
        "Tickets at initialization keep their accuracy if only signs are kept.",
        f"so for {_ZHOU}",
        "random magnitudes recover more than half of the gap at step 0",
        _carries_most(0, "random_magnitudes"),
        (gap(0),),
    ),
    Claim(
        "signs of rewound tickets",
        "Signs carry most of what rewound weights add to the masks.",
        f"signs that training has found decide, {_LRR}",
        "random magnitudes recover more than half of the gap at step 150",
        _carries_most(150, "random_magnitudes"),
        (gap(150),),
    ),
    Claim(
        "magnitudes of rewound tickets",
        "Magnitudes alone carry most of what rewound weights add to the masks.",
        "not claimed: the opposite of the claim before",
        "random signs recover more than half of the gap at step 150",
        _carries_most(150, "random_signs"),
        (gap(150),),
    ),
    Claim(
        "signs before magnitudes",
        "Signs matter more than magnitudes.",
        f"so for {_ZHOU} and {_LRR}",
        "random magnitudes above random signs at step 150",
        _above("k_150", "random_magnitudes", "random_signs"),
        (gap(150),),
    ),
    Claim(
        "positions of weights",
        "Rewound weights need the masks that were found with them.",
        "ResNet-20, VGG-16: shuffled masks of tickets train worse (Frankle et al. "
        "2020, arXiv:2009.08576)",
        "tickets of step 150 above masks shuffled within layers",
        _above("k_150", "ticket", "shuffled_layers"),
    ),
    Claim(
        "signs can be learned",
        "Sign-In makes networks with given masks and new weights better.",
        "ResNet-20, -18, -50 (Gadhikar et al. 2025, arXiv:2504.12801)",
        "Sign-In above plain training of the masks of step 150",
        _sign_in,
        (_room("plain"),),
    ),
    Claim(
        "masks are aligned",
        "Masks train better on other weights if their units are permuted to match.",
        f"so for {_ADNAN}",
        "aligned above unaligned masks at step 150",
        _aligned(0),
        (_room("unaligned_150"),),
    ),
    Claim(
        "what aligned masks recover",
        "Aligned masks recover most of what unaligned masks lose.",
        f"so for wide networks of {_ADNAN}",
        "aligned masks recover more than half of what unaligned masks lose at step "
        "150; tickets continue their schedule, the others begin a new one",
        _aligned(HALF),
        (_room("unaligned_150"),),
    ),
)
