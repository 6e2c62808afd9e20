"""Claims on the parts of lottery tickets, and what must be observed for each.

All thresholds were written before any run of the study. Of its tickets, those with all
of their parts and those with shuffled masks are trained in the study `stable_imp` too,
where they had been seen; claims on them are marked. The gap is the test accuracy of
tickets minus that of tickets with newly drawn signs and magnitudes (`random_weights`),
in points, seed by seed: what both together add to the masks. All of these tickets have
the same leaves without masks, such as those of BatchNorm, and one order of the
examples, that of the last level. Masks on other weights are trained in another order.
Papers on tickets that need rewinding leave open how much of the gap signs carry; the
papers below have other networks, in which tickets start from initialization.

Tickets continue the learning-rate schedule of the dense network from the rewinding
step. Aligned and unaligned masks on the weights of step 150 begin a new schedule, over
the remaining steps.
"""

from collections.abc import Callable

import numpy as np

from experiments.studies import effects
from experiments.studies.claims import Claim, Found, Premise, entries, plain
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


def _gap(found: Found) -> Effect:
    ticket, drawn = accuracies(found, "k_150", "ticket", "random_weights")
    return effects.above(ticket - drawn, GAP)


HAS_GAP = Premise(f"tickets more than {GAP} points above random weights", _gap)


def _carries_most(control: str) -> Callable[[Found], Effect]:
    """Tests whether a control recovers more than half of the gap."""

    def evaluate(found: Found) -> Effect:
        names = ("ticket", control, "random_weights")
        ticket, kept, drawn = each = accuracies(found, "k_150", *names)
        words = ", ".join(
            f"{plain(name)} {spread(one)} %"
            for name, one in zip(names, each, strict=True)
        )
        effect = effects.above(kept - drawn - HALF * (ticket - drawn))
        of = f"{plain(control)} minus the middle of tickets and random weights, points"
        return effect.said(words, of=of)

    return evaluate


def _above(name: str, other: str) -> Callable[[Found], Effect]:
    """Tests whether one kind of tickets is above another."""

    def evaluate(found: Found) -> Effect:
        one, two = accuracies(found, "k_150", name, other)
        words = f"{plain(name)} {spread(one)} %, {plain(other)} {spread(two)} %"
        of = f"{plain(name)} minus {plain(other)}, points"
        return effects.above(one - two).said(words, of=of)

    return evaluate


def _sign_in(found: Found) -> Effect:
    names = ("sign_in", "plain", "plain_half")
    ours, plain, half = (accuracies(found, name, "ticket")[0] for name in names)
    words = f"Sign-In {spread(ours)} %, plain {spread(plain)} %, with half the weight "
    words += f"decay {spread(half)} %"
    return effects.every(
        effects.above(ours - plain).named("Sign-In minus plain training, points"),
        effects.above(ours - half).named(
            "Sign-In minus plain with half the weight decay, points"
        ),
        words=words,
    )


def _room(run: str) -> Premise:
    """Presumes that tickets are better than their masks with other weights."""

    def evaluate(found: Found) -> Effect:
        (ticket,), (other,) = (accuracies(found, n, "ticket") for n in ("k_150", run))
        return effects.above(ticket - other, GAP)

    name = f"tickets more than {GAP} points above {variants.label(run)}"
    return Premise(name, evaluate)


def _matches(found: Found) -> Effect:
    """Compares aligned and unaligned masks with the other network's largest weights."""
    pair = entries(found, "aligned_150", "unaligned_150")
    ours, others = (np.asarray(entries(one, "overlap")[0], float) for one in pair)
    words = f"{spread(ours)} % aligned, {spread(others)} % unaligned"
    return effects.above(ours - others).said(words)


MATCHES = Premise(
    "aligned masks keep more of the other network's largest weights", _matches
)


def _aligned(share: float) -> Callable[[Found], Effect]:
    """Tests whether aligned masks recover more than a part of what others lose."""

    def evaluate(found: Found) -> Effect:
        names = ("k_150", "aligned_150", "unaligned_150")
        ticket, ours, others = (accuracies(found, name, "ticket")[0] for name in names)
        words = f"tickets {spread(ticket)} %, aligned {spread(ours)} %, "
        words += f"unaligned {spread(others)} %"
        effect = effects.above(ours - others - share * (ticket - others))
        part = f" minus {share:g} of what is lost" if share else ""
        return effect.said(words, of=f"aligned minus unaligned{part}, points")

    return evaluate


_ZHOU = "fully connected and Conv-2 to -6 (Zhou et al. 2019, arXiv:1905.01067)"
_LRR = "ResNets (Gadhikar and Burkholz 2024, arXiv:2402.19262)"
_ADNAN = "ResNet-20, VGG-11 and ResNet-50 (Adnan et al. 2025, arXiv:2505.05143)"
CLAIMS = (
    Claim(
        "signs of rewound tickets",
        "Signs carry most of what rewound weights add to the masks.",
        f"signs that training has found decide, {_LRR}",
        "random magnitudes recover more than half of the gap",
        _carries_most("random_magnitudes"),
        (HAS_GAP,),
    ),
    Claim(
        "magnitudes of rewound tickets",
        "Magnitudes alone carry most of what rewound weights add to the masks.",
        "not claimed; with the claim before, both or neither may hold",
        "random signs recover more than half of the gap",
        _carries_most("random_signs"),
        (HAS_GAP,),
    ),
    Claim(
        "signs before magnitudes",
        "Signs matter more than magnitudes.",
        f"so for {_ZHOU} and {_LRR}",
        "random magnitudes above random signs",
        _above("random_magnitudes", "random_signs"),
        (HAS_GAP,),
    ),
    Claim(
        "positions of weights",
        "Rewound weights need the masks that were found with them.",
        "ResNet-20, VGG-16: shuffled masks of tickets train worse (Frankle et al. "
        "2020, arXiv:2009.08576)",
        "tickets of step 150 above masks shuffled within layers",
        _above("ticket", "shuffled_layers"),
        seen=("cifar16",),
    ),
    Claim(
        "signs can be learned",
        "Sign-In makes networks with given masks and new weights better.",
        "ResNet-20, -18, -50 (Gadhikar et al. 2025, arXiv:2504.12801)",
        "Sign-In above plain training of the masks of step 150, with the same and with "
        "half the weight decay",
        _sign_in,
        (_room("plain"),),
    ),
    Claim(
        "masks are aligned",
        "Masks train better on other weights if their units are permuted to match.",
        f"so for {_ADNAN}",
        "aligned above unaligned masks at step 150",
        _aligned(0),
        (_room("unaligned_150"), MATCHES),
    ),
    Claim(
        "what aligned masks recover",
        "Aligned masks recover most of what unaligned masks lose.",
        f"so for wide networks of {_ADNAN}",
        "aligned masks recover more than half of what unaligned masks lose at step "
        "150; tickets continue their schedule, the others begin a new one",
        _aligned(HALF),
        (_room("unaligned_150"), MATCHES),
    ),
)
