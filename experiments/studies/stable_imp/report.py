"""What the page of the study says and shows of a network."""

import math
from typing import Any, NamedTuple

from experiments.studies import claims as claims_lib
from experiments.studies.stable_imp import claims, figures, tables, variants
from jaxsparse.reports import study

Found = dict[str, Any]


class Published(NamedTuple):
    """Length of the published training."""

    epochs: int
    rounds: int
    examples: int


TITLES = {
    "quick": {
        "mnist": "LeNet-300-100 on images of MNIST",
        "cifar": "LeNet-5 on 1,000 images of CIFAR-10",
    },
    "cpu": {
        "mnist": "LeNet-300-100 on MNIST",
        "cifar": "LeNet-5 on 5,000 images of CIFAR-10",
    },
    "full": {"mnist": "LeNet-300-100 on MNIST", "cifar": "ResNet-20 on CIFAR-10"},
}
# As published: of LeNet-300-100; of ResNet-20, or of Conv-4 at other scales. Then those
# of the onset: updates and batches of LeNet-300-100 and of ResNet-20.
PUBLISHED = {
    "mnist": Published(epochs=25, rounds=25, examples=60_000),
    "cifar": Published(epochs=85, rounds=25, examples=50_000),
}
PUBLISHED_SMALL = Published(epochs=75, rounds=25, examples=50_000)
PUBLISHED_ONSET = {"mnist": (24_000, 60), "cifar": (62_560, 128)}
WRITTEN = (
    "Thresholds were written before any run of the study had pruned, and batch sizes "
    "chosen by the instability of dense networks alone. Amended ones were made "
    "stricter when runs had been seen: what a claim takes for granted must be seen "
    "too. At cpu scale a first series had one order of examples for all rounds, which "
    "makes rounds alike, and on CIFAR-10 the published strengths, which changed angles "
    "by 0.01 right angles; here rounds have orders of their own, and there are "
    "stronger arms beside the published ones."
)


def section(network: str, scale: str, found: Found) -> study.Section:
    """Makes the part of the page on a network.

    Args:
      network: one of `arms.NETWORKS`.
      scale: one of `arms.SCALES`.
      found: what `measuring.measure` returned.
    """
    levels, stability, onset = (
        tables.rounds_frame(found),
        tables.stability_frame(found),
        tables.onset_frame(found),
    )
    solutions, cuts = tables.solutions_frame(found), tables.thresholds_frame(found)
    called = {arm: variants.label(arm, network, scale) for arm in found["arms"]}
    return study.Section(
        name=network,
        title=TITLES[scale][network],
        lines=_lines(network, scale, found),
        claims=claims_lib.judge(claims.CLAIMS, found),
        about_claims=WRITTEN,
        tables=[
            study.Table(
                "Rounds",
                "Test accuracy in percent, mean ± sample standard deviation over n "
                "seeds. The gap is that of tickets to controls, seed by seed.",
                tables.show_rounds(levels, called),
                long=True,
            ),
            study.Table(
                "Stability",
                "Percentage points, mean ± sample standard deviation over n seeds: "
                "instability between children of a round, and the rise of the error "
                "between a round and the one before. Stable: below 2 on the test set, "
                "on average; matching: accuracy less than 0.2 below the dense network.",
                tables.show_stability(found, stability, called),
            ),
            study.Table(
                "Onset of stability",
                "Instability in percentage points of error, distance over all "
                "parameters, and test examples classified differently in percent, "
                "between children that begin at an update.",
                tables.show_means(onset, ["test", "train", "l2", "different"], called),
            ),
        ],
        frames={
            "rounds": levels,
            "stability": stability,
            "onset": onset,
            "solutions": solutions,
            "thresholds": cuts,
        },
        figures=figures.draw(network, scale, found, title=TITLES[scale][network]),
        captions=figures.CAPTIONS,
    )


def _lines(network: str, scale: str, found: Found) -> list[str]:
    """Says how much of the published training there was, and what is missing."""
    whole = PUBLISHED[network]
    if scale != "full" and network == "cifar":
        whole = PUBLISHED_SMALL
    lines = []
    for arm, entry in found["arms"].items():
        updates = whole.epochs * math.ceil(whole.examples / entry["batch"])
        lines.append(
            f"{variants.label(arm, network, scale)}: {entry['steps']:,} updates a "
            f"round, {entry['steps'] / updates:.2g} of the published number at these "
            f"batches, in {entry['epochs']:g} epochs of {whole.epochs}; "
            f"{entry['levels'][-1]} of {whole.rounds} rounds; "
            f"{len(entry['ticket'])} seeds."
        )
    if "onset" in found:
        (entry, *_), (updates, batch) = found["onset"], PUBLISHED_ONSET[network]
        lines.append(
            f"Onset of stability: {entry['updates']:,} updates at batches of "
            f"{entry['batch']}, {entry['updates'] / updates:.2g} of the published "
            f"{updates:,} at {batch}; {len(entry['instability'])} seeds."
        )
    for segment in dict.fromkeys(tuple(e["segment"]) for e in found["arms"].values()):
        lines.append(claims_lib.of_segments(*segment))
    return [*lines, *claims_lib.not_here(found)]
