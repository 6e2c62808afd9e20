"""The study of signs: its claims on made-up accuracies, and its table."""

from typing import Any

import numpy as np
import pytest

from experiments.studies import claims as claims_lib
from experiments.studies import runs as runs_lib
from experiments.studies.signs import STUDY, claims, measure, report, variants
from jaxsparse import config

NOISE = np.array([-0.3, -0.1, 0.0, 0.1, 0.3])


def run(accuracy: float, shift: int = 1, **controls: float) -> dict[str, Any]:
    # Noise of seeds that all share, and of each kind its own.
    kinds = {"ticket": accuracy} | controls
    each = {
        name: (mean + NOISE + np.roll(NOISE, shift + place) / 3).tolist()
        for place, (name, mean) in enumerate(kinds.items())
    }
    return {
        "accuracy": each.pop("ticket"),
        "controls": each,
        "steps": 1560,
        "remaining": 16.0,
    }


def of_signs(signs: float, magnitudes: float, aligned: float = 0.8) -> dict[str, Any]:
    """Makes up accuracies where signs and magnitudes recover parts of the gap.

    Tickets lose 6 points on other weights, of which aligned masks recover a part.
    """

    def tickets(base: float, gap: float) -> dict[str, Any]:
        return run(
            base + gap,
            random_magnitudes=base + signs * gap,
            random_signs=base + magnitudes * gap,
            random_weights=base,
            shuffled_layers=base - 1,
        )

    matched, unmatched = (
        {"overlap": (mean + np.roll(NOISE, shift)).tolist(), "flipped": [10.0] * 5}
        for mean, shift in ((30.0, 1), (25.0, 2))
    )
    return {
        "dense": run(60.0),
        "k_150": tickets(53.0, 7.0),
        "plain": run(53.0),
        "plain_half": run(52.5, shift=4),
        "sign_in": run(53.0 + 4.0 * signs, shift=3),
        "unaligned_150": run(54.0, shift=2) | unmatched,
        "aligned_150": run(54.0 + 6.0 * aligned, shift=4) | matched,
    }


def verdicts(measured: dict[str, Any]) -> list[str]:
    judged = claims_lib.judge(claims.CLAIMS, measured, length=1.0)
    return [one.verdict for one in judged]


def test_claims_hold_where_signs_carry_the_gap() -> None:
    yes, no = claims_lib.REPRODUCED, claims_lib.CONTRADICTED
    assert verdicts(of_signs(0.9, 0.1)) == [
        *(yes, no, yes, yes, yes),
        *(yes, yes),
    ]


def test_claims_are_contradicted_where_magnitudes_carry_it() -> None:
    yes, no = claims_lib.REPRODUCED, claims_lib.CONTRADICTED
    assert verdicts(of_signs(0.1, 0.9))[:4] == [no, yes, no, yes]


def test_aligned_masks_recover_a_part_of_what_is_lost() -> None:
    yes, no = claims_lib.REPRODUCED, claims_lib.CONTRADICTED
    assert verdicts(of_signs(0.9, 0.1, aligned=0.3))[5:] == [yes, no]
    assert verdicts(of_signs(0.9, 0.1, aligned=-0.2))[5:] == [no, no]


def test_without_a_gap_there_is_nothing_to_divide() -> None:
    same = run(53.0, **dict.fromkeys(variants.CONTROLS, 53.0))
    names = ("k_150", "plain", "plain_half", "sign_in", "unaligned_150", "aligned_150")
    same |= {"overlap": [25.0] * 5}
    found = verdicts(dict.fromkeys(names, same))
    absent = claims_lib.ABSENT
    assert found[:3] == [absent] * 3 and found[4:] == [absent] * 3


def test_aligned_masks_are_judged_where_units_match() -> None:
    measured = of_signs(0.9, 0.1)
    measured["aligned_150"]["overlap"] = (20 + NOISE).tolist()
    assert verdicts(measured)[5:] == [claims_lib.ABSENT] * 2
    section = STUDY.section("resnet8", "cifar16", measured)
    shown = section.tables[1].shown.set_index("Run")
    assert len(shown) == 2 and set(shown["Signs that change (%)"]) == {"10.00 ± 0.00"}


def test_signs_that_change_and_overlaps_are_counted() -> None:
    first = {"a": np.array([1.0, -1.0, 2.0, 0.0]), "b": np.array([[3.0, -4.0]])}
    mask = {"a": np.array([True, True, False, True]), "b": np.array([[True, False]])}
    marked = {"a": np.array([True, False, True, False]), "b": np.array([[True, True]])}
    assert measure.share(mask, marked) == 50.0
    largest = measure.largest(first["a"], 2)
    assert largest.tolist() == [True, False, True, False]  # the first of equals
    assert measure.largest(first["b"], 1).tolist() == [[False, True]]


def test_runs_that_are_missing_are_not_measured() -> None:
    found = verdicts({"dense": run(60.0)})
    assert set(found) == {claims_lib.NOT_MEASURED}


def test_the_table_says_what_is_kept() -> None:
    section = STUDY.section("resnet8", "cifar16", of_signs(0.9, 0.1))
    shown = section.tables[0].shown.set_index(["Run", "Kept of the ticket"])
    values = of_signs(0.9, 0.1)["k_150"]["controls"]["random_magnitudes"]
    mean = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    row = shown.loc[("rewound to step 150", variants.LABELS["random_magnitudes"])]
    assert (row["n"], row["Test accuracy (%)"]) == ("5", mean)
    assert ("dense", "") in shown.index
    assert ("masks of step 150, other weights of step 150, aligned", "") in shown.index
    assert len(report.accuracies_frame(of_signs(0.9, 0.1))) == 5 * (6 + 5)


def test_all_runs_share_masks_or_dense_networks() -> None:
    runs = {one.name: one.overrides for one in STUDY.all_runs("cifar16")}
    assert runs["resnet8_k_150"]["lottery.dense_run"] == "../resnet8_dense"
    plain, learned = runs["resnet8_plain"], runs["resnet8_sign_in"]
    assert plain.items() <= learned.items()
    configs = {one.name: runs_lib.read(one) for one in STUDY.all_runs("cifar16")}
    decays = [
        configs[f"resnet8_{name}"].optimizer.weight_decay
        for name in ("plain", "sign_in", "plain_half")
    ]
    # Of a weight, of each of its two factors, and of a weight.
    assert decays == [1e-3, 5e-4, 5e-4]
    assert plain["warm_start.masks"] == "level_02/ticket/last"


@pytest.mark.parametrize("scale", ["quick", "cifar16"])
def test_aligned_masks_differ_from_others_in_nothing_else(scale: str) -> None:
    configs = {one.name: runs_lib.read(one) for one in STUDY.all_runs(scale)}
    ours, others = configs["resnet8_aligned_150"], configs["resnet8_unaligned_150"]
    (only,) = config.differences(ours, others)
    assert only == ("warm_start.align", "activations", None)
    begun, plain = configs["resnet8_aligned_0"], configs["resnet8_plain"]
    found = {name for name, *_ in config.differences(begun, plain)}
    # `plain` draws the weights that `other` starts from.
    assert {name for name in found if not name.startswith("warm_start.")} == {"name"}
    assert begun.seeds == plain.seeds == configs["resnet8_other"].seeds
    # The checkpoint of the weights is one that `other` saves.
    (saved,) = configs["resnet8_other"].analysis.save_at
    steps = int(saved.removesuffix("step"))
    assert ours.warm_start.weights == f"kept/train/step_{steps:09d}"
    lengths = [c.training.duration for c in (ours, begun)]
    whole = {"quick": "30step", "cifar16": "4ep"}[scale]
    total = {"quick": 30, "cifar16": 4 * 390}[scale]
    assert lengths == [f"{total - steps}step", whole]


def test_aligned_runs_wait_for_the_runs_that_they_read() -> None:
    listed = STUDY.all_runs("cifar16")
    (ours,) = [one for one in listed if one.name == "resnet8_aligned_150"]
    needed = {one.name for one in runs_lib.needs(ours, listed)}
    assert needed == {"resnet8_other", "resnet8_k_150"}
