"""The study of signs: its claims on made-up accuracies, and its table."""

from typing import Any

import numpy as np

from experiments.studies import claims as claims_lib
from experiments.studies.signs import STUDY, claims, report, variants

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


def of_signs(signs: float, magnitudes: float) -> dict[str, Any]:
    """Makes up accuracies where signs and magnitudes recover parts of the gap."""

    def tickets(base: float, gap: float) -> dict[str, Any]:
        return run(
            base + gap,
            random_magnitudes=base + signs * gap,
            random_signs=base + magnitudes * gap,
            reinitialized=base,
            shuffled_layers=base - 1,
        )

    return {
        "dense": run(60.0),
        "k_0": tickets(53.0, 3.0),
        "k_150": tickets(53.0, 7.0),
        "plain": run(53.0),
        "sign_in": run(53.0 + 4.0 * signs, shift=3),
    }


def verdicts(measured: dict[str, Any]) -> list[str]:
    judged = claims_lib.judge(claims.CLAIMS, measured, length=1.0)
    return [one.verdict for one in judged]


def test_claims_hold_where_signs_carry_the_gap() -> None:
    yes, no = claims_lib.REPRODUCED, claims_lib.CONTRADICTED
    assert verdicts(of_signs(0.9, 0.1)) == [yes, yes, no, yes, yes, yes]


def test_claims_are_contradicted_where_magnitudes_carry_it() -> None:
    yes, no = claims_lib.REPRODUCED, claims_lib.CONTRADICTED
    assert verdicts(of_signs(0.1, 0.9))[:5] == [no, no, yes, no, yes]


def test_without_a_gap_there_is_nothing_to_divide() -> None:
    same = run(53.0, **dict.fromkeys(variants.CONTROLS, 53.0))
    found = verdicts({"k_0": same, "k_150": same, "plain": same, "sign_in": same})
    absent = claims_lib.ABSENT
    assert found[:4] == [absent] * 4 and found[5] == absent


def test_runs_that_are_missing_are_not_measured() -> None:
    found = verdicts({"dense": run(60.0)})
    assert set(found) == {claims_lib.NOT_MEASURED}


def test_the_table_says_what_is_kept() -> None:
    section = STUDY.section("resnet8", "cifar16", of_signs(0.9, 0.1))
    shown = section.tables[0].shown.set_index(["Run", "Kept of the ticket"])
    values = of_signs(0.9, 0.1)["k_150"]["controls"]["random_magnitudes"]
    mean = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    row = shown.loc[("rewound to step 150", "masks and signs")]
    assert (row["n"], row["Test accuracy (%)"]) == ("5", mean)
    assert ("dense", "") in shown.index
    assert len(report.accuracies_frame(of_signs(0.9, 0.1))) == 5 * (3 + 2 * 5)


def test_all_runs_share_masks_or_dense_networks() -> None:
    runs = {one.name: one.overrides for one in STUDY.all_runs("cifar16")}
    assert runs["resnet8_k_0"]["lottery.dense_run"] == "../resnet8_dense"
    plain, learned = runs["resnet8_plain"], runs["resnet8_sign_in"]
    assert plain.items() <= learned.items()
    assert plain["warm_start.masks"] == "level_02/ticket/last"
