"""The study of ToST's techniques: its variants, its claims and its report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny, tiny_studies
from scipy import stats

from experiments.studies import claims as claims_lib
from experiments.studies import launcher, tost
from experiments.studies.tost import analysis, claims, variants
from experiments.studies.tost import report as report_lib
from experiments.studies.tost.variants import Cell
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.training import preemption

GRID = variants.Grid(
    "tiny",
    ("random", "tickets"),
    (60, 80),
    ("activation", "rescaling", "smoothing"),
    ("activation_released",),
    80,
    dense=True,
)
# What the recipe without techniques has.
PLAIN = {
    "model.features": (8,),
    "data.validation": 0,
    "lottery.levels": 0,
    "sparse.method": "static",
    "sparse.sparsity": 0.5,
    "sparse.distribution": "global",
    "sparse.prunable": ("*kernel", "!head/kernel"),
}


def small(patch: pytest.MonkeyPatch) -> None:
    """Makes it a study of one network on digits."""

    def read(run: Any) -> Any:
        rescales = {"gradinit.batch_size": 20, "gradinit.steps": 3}
        own = rescales if "gradinit.steps" in run.overrides else {}
        return tiny.config(PLAIN | run.overrides | own)

    patch.setattr(launcher, "read", read)
    patch.setattr(launcher, "launch", tiny_studies.train)
    patch.setitem(variants.GRIDS, "quick", {"mlp": GRID})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has run through, with its report."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        assert launcher.run_all(tost.STUDY.runs("quick"), folder, "") == []
        tost.STUDY.finish(folder, "quick", "")
    return folder


@pytest.fixture
def found(whole: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    small(monkeypatch)
    return analysis.measure(whole, "mlp", "quick", "")


def test_every_technique_is_tried_alone_and_with_all_in_every_cell(
    found: dict[str, Any],
) -> None:
    cells = [Cell("dense", 0)]
    cells += [Cell(mask, at) for mask in ("random", "tickets") for at in (60, 80)]
    assert list(found["cells"]) == cells
    for cell, entry in found["cells"].items():
        formed = {"activation_released"} if cell == Cell("random", 80) else set()
        assert entry.keys() == {"none", *GRID.techniques, "all"} | formed
    assert found["missing"] == {}


def test_all_techniques_are_those_that_are_tried_alone() -> None:
    for scale, networks in variants.GRIDS.items():
        for network, grid in networks.items():
            for cell in variants.cells(grid):
                fields = variants.of_cell(grid, cell)
                assert fields["none"] == {}
                if "all" in fields:
                    alone = [fields[aid].items() for aid in grid.techniques]
                    together = {k: v for items in alone for k, v in items}
                    assert fields["all"] == together, (scale, network)
    assert set(variants.GRIDS["cpu"]["mlp"].masks) == {
        *("random", "snip", "synflow", "tickets")
    }
    assert variants.GRIDS["cpu"]["mlp"].sparsities == (95, 98, 99)


def test_accuracies_are_those_recorded(whole: Path, found: dict[str, Any]) -> None:
    for cell, entry in found["cells"].items():
        for name, arm in entry.items():
            rows = metrics_log.read(whole / cell.named("mlp", name) / "metrics.jsonl")
            ends = [row for row in rows if row["kind"] == "level"]
            ends.sort(key=lambda row: row["replicate"])
            assert arm["accuracy"] == [100 * row["test_accuracy"] for row in ends]
            steps, curve = arm["curve"]
            assert (steps[0], steps[-1], arm["steps"]) == (0, 12, 12)
            assert [values[-1] for values in curve] == arm["accuracy"]


def held(folder: Path, name: str, moment: str) -> tuple[Any, Any]:
    run = factory.open_run(folder / name)
    state = factory.load_state(run, moment)
    return state.params, transforms.get_masks(state.opt_state)


def test_variants_of_a_cell_share_weights_and_masks(
    whole: Path, found: dict[str, Any]
) -> None:
    counts = {}
    for cell, entry in found["cells"].items():
        params, _ = held(whole, cell.named("mlp", "none"), "init")
        _, last = held(whole, cell.named("mlp", "none"), variants.END)
        counts[cell] = {arm["kept"] for arm in entry.values()}
        for name in entry:
            tiny.check_equal(held(whole, cell.named("mlp", name), "init")[0], params)
            tiny.check_equal(
                held(whole, cell.named("mlp", name), variants.END)[1], last
            )
        if cell.mask == "tickets":
            source = variants.source(cell, "mlp")
            moment = f"level_{variants.QUICK_LEVELS:02d}/ticket/last"
            theirs = held(whole, source, moment)[1]
            tiny.check_equal(last["dense1"], theirs["dense1"])
            tiny.check_equal(params, held(whole, source, "init")[0])
    # 512 weights between the images and the hidden layer.
    assert counts == {
        Cell("dense", 0): {592},
        **{Cell(mask, 60): {205} for mask in ("random", "tickets")},
        **{Cell(mask, 80): {102} for mask in ("random", "tickets")},
    }


def test_rescaled_weights_are_those_of_the_factors(
    whole: Path, found: dict[str, Any]
) -> None:
    cell = Cell("random", 80)
    factors = found["cells"][cell]["rescaling"]["factors"]
    params, _ = held(whole, cell.named("mlp", "none"), "init")
    assert factors.keys() == {
        f"{layer}/{leaf}" for layer in params for leaf in params[layer]
    }
    kernel = factors["dense1/kernel"]
    assert len(kernel) == 2 and all(f != 1.0 for f in kernel)


def test_gains_and_their_tests_against_plain_code(found: dict[str, Any]) -> None:
    frame = report_lib.gain_frame(found)
    expected = []
    for cell, entry in found["cells"].items():
        for name, arm in entry.items():
            if name != "none":
                pairs = zip(arm["accuracy"], entry["none"]["accuracy"], strict=True)
                expected.append((cell, name, [a - b for a, b in pairs]))
    assert len(frame) == len(expected)
    for row, (cell, name, gain) in zip(frame.itertuples(), expected, strict=True):
        assert (row.mask, row.sparsity_percent, row.variant) == (*cell, name)
        mean, sd = tiny_studies.spread(gain)
        np.testing.assert_allclose((row.gain_points, row.sd_points), (mean, sd))
        if abs(gain[0] - gain[1]) > 1e-6:
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


def test_a_killed_study_resumes_to_identical_results(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    # Which run, and how often it is asked before it stops.
    killed = {
        "mlp_pruning_60": 1,
        "mlp_pruning_80": 3,
        "mlp_random_60_rescaling": 0,
        "mlp_random_80_all": 0,
    }
    listed = [run for run in tost.STUDY.runs("quick") if run.name in killed]
    for run in listed:
        asked = iter([False] * killed[run.name])
        stops = lambda asked=asked: next(asked, True)  # noqa: E731
        with pytest.raises(preemption.Preempted):
            tiny_studies.train(run, tmp_path / run.name, "", stops)
    assert launcher.run_all(listed, tmp_path, "") == []
    for run in listed:
        last = f"level_{launcher.read(run).lottery.levels:02d}/ticket/last"
        again, once = (
            factory.load_state(factory.open_run(folder / run.name), last)
            for folder in (tmp_path, whole)
        )
        tiny.check_equal(again, once)


def test_the_page_has_tables_and_figures(whole: Path) -> None:
    report = whole / "report"
    text = (report / "mlp.md").read_text(encoding="utf-8")
    assert "| random | 80 % | 2 |" in text
    assert "12 updates" in text and "2 seeds" in text
    for name in ("gains", "training"):
        assert (report / f"mlp_{name}.png").stat().st_size > 10_000
    assert len((report / "mlp_accuracies.csv").read_text().splitlines()) == 1 + 2 * 26


SEEDS = np.array([-0.03, 0.0, 0.03])
GAINS = {"activation": 0.3, "rescaling": 0.4, "smoothing": 0.2, "skips": 0.1}


def invented(gain: Callable[[Cell, str], float]) -> dict[str, Any]:
    """Findings of three seeds; `gain` of a cell and an arm in points."""

    def arm(value: float, shift: float) -> dict[str, Any]:
        return {
            "accuracy": (90 + value + SEEDS + shift * SEEDS).tolist(),
            "kept": 10,
            "total": 100,
            "effective_params": [10] * 3,
            "layers": {},
            "steps": 100,
            "epochs": 1.0,
            "curve": ([0, 100], [[10.0, 90 + value]] * 3),
        }

    cells = [Cell("dense", 0)]
    cells += [Cell(mask, at) for mask in ("random", "snip") for at in (95, 99)]
    found: dict[str, Any] = {"missing": {}, "cells": {}}
    for cell in cells:
        own = {"none": arm(0.0, 0.0)}
        own |= {name: arm(gain(cell, name), 0.1) for name in (*GAINS, "all")}
        found["cells"][cell] = own
    return found


def published(cell: Cell, name: str) -> float:
    if cell.sparsity == 0:
        return 0.1
    return GAINS.get(name, 1.0) * (2 if cell.sparsity == 99 else 1)


def judged(found: dict[str, Any]) -> dict[str, str]:
    return {
        row["name"]: row["verdict"] for row in claims_lib.judge(claims.CLAIMS, found)
    }


def test_what_is_published_is_reproduced() -> None:
    assert set(judged(invented(published)).values()) == {"reproduced"}


def test_the_opposite_is_not() -> None:
    def opposite(cell: Cell, name: str) -> float:
        if cell.sparsity == 0:
            return 1.0
        return -published(cell, name)

    assert set(judged(invented(opposite)).values()) == {"not reproduced"}


def test_one_mask_that_all_techniques_hurt_is_enough() -> None:
    def gain(cell: Cell, name: str) -> float:
        return published(cell, name) * (-0.5 if cell.mask == "snip" else 1)

    found = judged(invented(gain))
    assert found["together, with any mask"] == "not reproduced"
    assert found["ghost soft neurons help"] == "reproduced"


def test_a_best_technique_as_good_as_all_leaves_nothing_to_the_others() -> None:
    def gain(cell: Cell, name: str) -> float:
        return published(cell, "all" if name == "rescaling" else name)

    found = judged(invented(gain))
    assert found["more together than alone"] == "not reproduced"


def test_gains_that_are_all_over_the_place_are_unclear() -> None:
    found = invented(published)
    for entry in found["cells"].values():
        entry["smoothing"]["accuracy"] = [80.0, 90.0, 101.0]
    assert judged(found)["label smoothing helps"] == "unclear"


@pytest.mark.parametrize("name", [*GAINS, "all"])
def test_a_variant_that_is_missing_in_a_cell_is_not_measured(name: str) -> None:
    found = invented(published)
    del found["cells"][Cell("snip", 99)][name]
    verdict = judged(found)
    assert "not measured" in verdict.values()
    assert set(verdict.values()) == {"not measured", "reproduced"}


def test_nothing_is_judged_of_a_part() -> None:
    found = invented(published) | {"missing": {"mlp_snip_99_all": "in progress"}}
    assert set(judged(found).values()) == {"not measured"}


def test_one_sparsity_and_no_dense_network_leave_two_claims_open() -> None:
    found = invented(published)
    cells = found["cells"]
    found["cells"] = {cell: cells[cell] for cell in cells if cell.sparsity == 95}
    verdict = judged(found)
    open_ = {name for name, word in verdict.items() if word == "not measured"}
    assert open_ == {"more at higher sparsity", "sparse networks need them"}


def test_less_than_a_third_of_the_published_length_is_unclear() -> None:
    found = invented(published)
    made = report_lib.section("resnet", "full", found)
    assert {claim["verdict"] for claim in made.claims} == {"unclear"}
    assert any("of the published 182 epochs" in line for line in made.lines)
    for entry in found["cells"].values():
        for arm in entry.values():
            arm["epochs"] = 61.0
    made = report_lib.section("resnet", "full", found)
    assert {claim["verdict"] for claim in made.claims} == {"reproduced"}


def test_networks_that_never_learned_are_named() -> None:
    found = invented(published)
    assert not any(
        "Seeds that end" in x for x in report_lib.section("mlp", "cpu", found).lines
    )
    found["cells"][Cell("snip", 99)]["rescaling"]["accuracy"][1] = 11.35
    made = report_lib.section("mlp", "cpu", found)
    (line,) = [line for line in made.lines if "Seeds that end" in line]
    assert "SNIP 99 % with rescaling (1 of 3)" in line
    # A gain of so many points makes the axis logarithmic.
    scales = {axes.get_xscale() for axes in made.figures["gains"].axes}
    assert scales == {"symlog"}


def test_records_of_rescaling_are_read(tmp_path: Path) -> None:
    rows = [
        {"factors": {"a/kernel": 0.5 + r}, "objective": [1], "constrained": [r, 0]}
        for r in (0, 1)
    ]
    (tmp_path / "rescaling.json").write_text(json.dumps(rows))
    (tmp_path / "metrics.jsonl").write_text("")
    reader = analysis.Reader(tmp_path, "")
    assert analysis.of_factors(reader) == {
        "factors": {"a/kernel": [0.5, 1.5]},
        "constrained": [0.0, 50.0],
    }
    (tmp_path / "rescaling.json").unlink()
    assert analysis.of_factors(reader) == {}
