"""The claims of the study of ToST, and its page, of invented findings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import tiny_studies
from scipy import stats

from experiments.studies import claims as claims_lib
from experiments.studies.tost import claims
from experiments.studies.tost import report as report_lib
from experiments.studies.tost.variants import Cell

SEEDS = np.array([-0.03, 0.0, 0.03])
GAINS = {"activation": 0.3, "rescaling": 0.4, "smoothing": 0.2, "skips": 0.1}


def invented(gain: Callable[[Cell, str], float]) -> dict[str, Any]:
    """Findings of three seeds; `gain` of a cell and an arm in points."""

    def arm(value: float, shift: float, base: float) -> dict[str, Any]:
        # Larger gains vary more, so that differences are not all the same.
        own = SEEDS * (1 + shift + value / 5 + base / 100)
        return {
            "accuracy": (base + value + own).tolist(),
            "kept": 10,
            "total": 100,
            "effective_params": [10] * 3,
            "layers": {},
            "steps": 100,
            "epochs": 1.0,
            "curve": ([0, 100], [[10.0, base + value]] * 3),
        }

    cells = [Cell("dense", 0)]
    cells += [Cell(mask, at) for mask in ("random", "snip") for at in (95, 99)]
    found: dict[str, Any] = {"cells": {}}
    for cell in cells:
        base = 90.0 if cell.sparsity else 95.0
        own = {"none": arm(0.0, 0.0, base)}
        own |= {name: arm(gain(cell, name), 0.1, base) for name in (*GAINS, "all")}
        found["cells"][cell] = own
    return found


def published(cell: Cell, name: str) -> float:
    if cell.sparsity == 0:
        return 0.1
    return GAINS.get(name, 1.0) * (2 if cell.sparsity == 99 else 1)


def planned(found: dict[str, Any]) -> dict[Cell, tuple[str, ...]]:
    return {cell: tuple(entry) for cell, entry in found["cells"].items()}


def judged(found: dict[str, Any]) -> dict[str, str]:
    """Judges as if what is measured were all that was planned, unless said."""
    found = {"planned": planned(found)} | found
    rows = claims_lib.judge(claims.CLAIMS, found, length=1.0)
    return {one.claim.name: one.verdict for one in rows}


def test_what_is_published_is_reproduced() -> None:
    verdict = judged(invented(published))
    assert set(verdict.values()) == {"reproduced"}, verdict


OF_GAINS = {"more at higher sparsity", "more together than alone"}


def test_the_opposite_is_contradicted() -> None:
    def opposite(cell: Cell, name: str) -> float:
        if cell.sparsity == 0:
            return 1.0
        return -published(cell, name)

    verdict = judged(invented(opposite))
    # Without a gain, nothing can grow with sparsity, or be more than that of each.
    absent = {name for name, word in verdict.items() if word == "premise absent"}
    assert absent == OF_GAINS
    assert {verdict[name] for name in verdict.keys() - absent} == {"contradicted"}


def test_gains_that_fall_and_do_not_add_up_are_contradicted() -> None:
    def gain(cell: Cell, name: str) -> float:
        if cell.sparsity == 0:
            return 3.0
        own = 2.0 if name in ("rescaling", "smoothing") else 0.5
        return own * (1 if cell.sparsity == 99 else 2)

    verdict = judged(invented(gain))
    against = OF_GAINS | {"sparse networks gain more than dense ones"}
    assert {verdict.pop(name) for name in against} == {"contradicted"}
    assert set(verdict.values()) == {"reproduced"}


def test_as_good_as_dense_leaves_no_room() -> None:
    found = invented(published)
    for cell, entry in found["cells"].items():
        for arm in entry.values():
            arm["accuracy"] = [a - 8.0 * (not cell.sparsity) for a in arm["accuracy"]]
    verdict = judged(found)
    assert verdict.pop("sparse networks gain more than dense ones") == "premise absent"
    assert set(verdict.values()) == {"reproduced"}


def test_one_mask_that_techniques_hurt_is_enough() -> None:
    def gain(cell: Cell, name: str) -> float:
        return published(cell, name) * (-0.5 if cell.mask == "snip" else 1)

    found = judged(invented(gain))
    assert found["all techniques together help with any mask"] == "contradicted"
    assert found["soft activations help"] == "contradicted"


def test_seeds_that_never_learned_are_compared_by_permutations() -> None:
    found = invented(published)
    for entry in found["cells"].values():
        entry["smoothing"]["accuracy"][0] = 11.0
    (row,) = [
        one
        for one in claims_lib.judge(
            claims.CLAIMS, found | {"planned": planned(found)}, length=1.0
        )
        if one.claim.name == "label smoothing helps"
    ]
    assert row.verdict == "unclear"
    assert row.effect.p * 8 == round(row.effect.p * 8)  # of eight changes of sign


def test_a_best_technique_as_good_as_all_leaves_nothing_to_the_others() -> None:
    def gain(cell: Cell, name: str) -> float:
        return published(cell, "all" if name == "rescaling" else name)

    found = judged(invented(gain))
    assert found["more together than alone"] != "reproduced"


def test_dead_seeds_of_other_cells_change_nothing() -> None:
    found = invented(published)
    found["cells"][Cell("snip", 95)]["all"]["accuracy"][0] = 11.0
    rows = claims_lib.judge(
        claims.CLAIMS, found | {"planned": planned(found)}, length=1.0
    )
    p = {one.claim.name: one.effect.p * 8 for one in rows if one.effect}
    exact = {name for name, value in p.items() if value == round(value)}
    assert "all techniques together help with any mask" in exact
    assert not exact & {"soft activations help", "label smoothing helps"}


def test_gains_that_are_all_over_the_place_are_unclear() -> None:
    found = invented(published)
    for entry in found["cells"].values():
        entry["smoothing"]["accuracy"] = [80.0, 90.0, 101.0]
    assert judged(found)["label smoothing helps"] == "unclear"


def test_what_no_cell_has_is_not_measured() -> None:
    found = invented(published)
    for entry in found["cells"].values():
        del entry["skips"]
    verdict = judged(found)
    assert verdict.pop("ghost skips help") == "not measured"
    assert set(verdict.values()) == {"reproduced"}


def test_single_techniques_may_be_trained_in_some_cells_only() -> None:
    found = invented(published)
    for cell, entry in found["cells"].items():
        if cell.sparsity != 95:
            for name in GAINS:
                del entry[name]
    assert set(judged(found).values()) == {"reproduced"}


def test_one_sparsity_and_no_dense_network_leave_two_claims_open() -> None:
    found = invented(published)
    cells = found["cells"]
    found["cells"] = {cell: cells[cell] for cell in cells if cell.sparsity == 95}
    verdict = judged(found)
    open_ = {name for name, word in verdict.items() if word == "not measured"}
    assert open_ == {
        "more at higher sparsity",
        "sparse networks gain more than dense ones",
    }


def test_means_over_a_part_of_the_planned_cells_are_not_judged() -> None:
    found = invented(published)
    found["planned"] = planned(found)
    del found["cells"][Cell("snip", 99)]["skips"]
    verdict = judged(found)
    open_ = {name for name, word in verdict.items() if word == "not measured"}
    assert open_ == {"ghost skips help", "more together than alone"}
    del found["cells"][Cell("random", 95)]
    assert set(judged(found).values()) == {"not measured"}


def by_run(found: dict[str, Any]) -> dict[str, Any]:
    """Names invented findings as the runs of a scale."""
    return {
        cell.named("", name).removeprefix("_"): arm
        for cell, entry in found["cells"].items()
        for name, arm in entry.items()
    }


def test_less_than_a_third_of_the_published_length_is_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("gains", "training"):
        monkeypatch.setattr(report_lib.figures, name, lambda *args: None)
    found = invented(published)
    made = report_lib.section("resnet", "full", by_run(found))
    assert all(one.short for one in made.claims)
    assert any("of the published 182 epochs" in line for line in made.lines)
    for entry in found["cells"].values():
        for arm in entry.values():
            arm["epochs"] = 61.0
    made = report_lib.section("resnet", "full", by_run(found))
    assert not any(one.short for one in made.claims)


def test_networks_that_never_learned_are_named() -> None:
    found = invented(published)
    assert not any(
        "Seeds that end" in x
        for x in report_lib.section("mlp", "cpu", by_run(found)).lines
    )
    found["cells"][Cell("snip", 99)]["rescaling"]["accuracy"][1] = 11.35
    made = report_lib.section("mlp", "cpu", by_run(found))
    (line,) = [line for line in made.lines if "Seeds that end" in line]
    assert "SNIP 99 % with GradInit (1 of 3)" in line
    # A gain of so many points makes the axis logarithmic.
    scales = {axes.get_xscale() for axes in made.figures["gains"].axes}
    assert scales == {"symlog"}


def test_gains_and_their_tests_against_plain_code() -> None:
    found = invented(published)
    rng = np.random.default_rng(0)
    for entry in found["cells"].values():
        for arm in entry.values():
            arm["accuracy"] = (90 + rng.normal(size=3)).tolist()
    # A gain that is the same of every seed has no test.
    entry = found["cells"][Cell("snip", 99)]
    entry["all"]["accuracy"] = [a + 1 for a in entry["none"]["accuracy"]]
    frame = report_lib.gain_frame(found)
    expected = []
    for cell, entry in found["cells"].items():
        for name, arm in entry.items():
            if name != "none":
                pairs = zip(arm["accuracy"], entry["none"]["accuracy"], strict=True)
                expected.append((cell, name, [a - b for a, b in pairs]))
    assert len(frame) == len(expected) == 25
    for row, (cell, name, gain) in zip(frame.itertuples(), expected, strict=True):
        assert (row.mask, row.sparsity_percent, row.variant) == (*cell, name)
        mean, sd = tiny_studies.spread(gain)
        np.testing.assert_allclose((row.gain_points, row.sd_points), (mean, sd))
        if sd > 1e-6:
            p = stats.ttest_rel(
                found["cells"][cell][name]["accuracy"],
                found["cells"][cell]["none"]["accuracy"],
            ).pvalue
            np.testing.assert_allclose(row.p, p)
    # Benjamini and Hochberg, written out.
    p = np.sort(frame["p"].dropna().to_numpy())
    steps = p * len(p) / np.arange(1, len(p) + 1)
    wanted = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    np.testing.assert_allclose(np.sort(frame["q"].dropna()), wanted)


@pytest.mark.parametrize(
    ("gain", "q", "word"),
    [
        (1.0, 0.04, "helps"),
        (-1.0, 0.04, "hurts"),
        (1.0, 0.06, "not shown"),
        (0.0, float("nan"), "not shown"),
    ],
)
def test_verdicts_of_cells(gain: float, q: float, word: str) -> None:
    assert report_lib.verdict(gain, q) == word
