"""The study of stable pruning: its claims, and what it measures, against plain code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import tiny, tiny_studies

from experiments.studies import launcher, stable_imp
from experiments.studies.runs import Run
from experiments.studies.stable_imp import analysis, claims, evidence, variants
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.reports import plot_style
from jaxsparse.training import preemption

BATCHES = variants.Batches(10, 40)
CHILDREN = {
    "instability.copies": 2,
    "instability.compare_levels": True,
    "instability.points": 3,
    "instability.examples": 50,
}
PRUNED = {
    "lottery.controls": ("reinitialized",),
    "instability.levels": (0, 2),
    "data.batch_size": 10,
}
RUNS = [
    Run("mnist_batch_10", "tiny", CHILDREN | PRUNED),
    Run("mnist_batch_40", "tiny", CHILDREN | PRUNED | {"data.batch_size": 40}),
    Run(
        "mnist_onset",
        "tiny",
        # Batches of another run, so that most of its programs are in the cache.
        CHILDREN
        | {"lottery.levels": 0, "instability.compare_levels": False}
        | {"instability.levels": (0,), "instability.start_steps": ("0step", "6step")}
        | {"data.batch_size": 10},
    ),
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A study of three runs on digits."""
    tiny_studies.as_tiny(monkeypatch, variants, RUNS)
    monkeypatch.setitem(variants.BATCHES["quick"], "mnist", BATCHES)
    return monkeypatch


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has run through, with its report."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        tiny_studies.as_tiny(patch, variants, RUNS)
        patch.setitem(variants.BATCHES["quick"], "mnist", BATCHES)
        # Figures are drawn, but nobody looks at them.
        patch.setattr(plot_style, "render", lambda figure, file_format: b"")
        assert launcher.run_all(RUNS, folder, "") == []
        stable_imp.STUDY.finish(folder, "quick", "")
    return folder


@pytest.fixture(scope="module")
def found(whole: Path) -> dict[str, Any]:
    """What is measured of the three runs that all tests here share."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_studies.as_tiny(patch, variants, RUNS)
        patch.setitem(variants.BATCHES["quick"], "mnist", BATCHES)
        return analysis.measure(whole, "mnist", "quick", "")


def test_accuracies_are_those_recorded(whole: Path, found: dict[str, Any]) -> None:
    assert found["variants"].keys() == {"small", "large"}
    for role, size in (("small", 10), ("large", 40)):
        arm = found["variants"][role]
        rows = metrics_log.read(whole / f"mnist_batch_{size}" / "metrics.jsonl")
        assert arm["levels"] == [0, 1, 2]
        for r in range(2):
            for level in range(3):
                ends = {
                    row["variant"]: 100 * row["test_accuracy"]
                    for row in rows
                    if row["kind"] == "level"
                    and (row["level"], row["replicate"]) == (level, r)
                }
                assert arm["ticket"][r][level] == ends["ticket"]
                control = arm["reinitialized"][r][level]
                if level:
                    assert control == ends["reinitialized"]
                else:
                    assert np.isnan(control)


def test_gaps_are_of_late_rounds(found: dict[str, Any]) -> None:
    arm = found["variants"]["small"]
    ticket, control = np.asarray(arm["ticket"]), np.asarray(arm["reinitialized"])
    # Rounds 1 and 2 of 2 are late.
    wanted = [np.mean([ticket[r, i] - control[r, i] for i in (1, 2)]) for r in (0, 1)]
    np.testing.assert_allclose(evidence.gaps(arm), wanted, rtol=1e-12)


def weights(
    run: factory.TrainedRun, level: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one round's kernels and masks as flat vectors, in plain code."""
    name = "init" if level < 0 else f"level_{level:02d}/ticket/last"
    state = factory.load_state(run, name)
    masks = transforms.get_masks(state.opt_state)
    params = {k: v for k, v in state.params.items()}
    layers = sorted(params)
    flat = [np.asarray(params[k]["kernel"])[seed].reshape(-1) for k in layers]
    kept = [np.asarray(masks[k]["kernel"])[seed].reshape(-1) for k in layers]
    return np.concatenate(flat).astype(np.float64), np.concatenate(kept)


def test_angles_and_thresholds_against_plain_code(
    whole: Path, found: dict[str, Any]
) -> None:
    run = factory.open_run(whole / "mnist_batch_10")
    arm = found["variants"]["small"]
    assert arm["labels"] == ["0", "1", "2", "init"]
    for seed in range(2):
        each = [weights(run, level, seed) for level in (0, 1, 2, -1)]
        for i, (first, mask) in enumerate(each):
            for j, (second, other) in enumerate(each):
                both = mask & other
                a, b = first[both], second[both]
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                angle = 2 / np.pi * np.arccos(min(1.0, cosine))
                assert arm["angles"][seed][i][j] == pytest.approx(angle, abs=2e-4)
                apart = np.linalg.norm(a - b)
                assert arm["distances"][seed][i][j] == pytest.approx(apart, rel=1e-5)
        for i in range(2):
            gone = each[i][1] & ~each[i + 1][1]
            largest = np.max(np.abs(each[i][0][gone]))
            assert arm["thresholds"][seed][i] == pytest.approx(largest, rel=1e-7)
    for i in range(3):
        assert sum(arm["histograms"][i]["counts"]) == weights(run, i, 0)[1].sum()


def test_onset_is_by_the_update_children_begin_at(
    whole: Path, found: dict[str, Any]
) -> None:
    (dense,) = found["onset"]
    assert (dense["level"], dense["steps"]) == (0, [0, 6])
    rows = metrics_log.read(whole / "mnist_onset" / "metrics.jsonl")
    for i, step in enumerate((0, 6)):
        for r in range(2):
            (row,) = [
                row
                for row in rows
                if row["kind"] == "child_barrier"
                and row["stage"].endswith(f"_{step:09d}")
                and row["replicate"] == r
            ]
            error = 100 * np.asarray(row["test_error"])
            rise = error.max() - (error[0] + error[-1]) / 2
            assert dense["instability"][r][i] == pytest.approx(rise, abs=1e-9)
            line = dense["interpolations"][i]
            np.testing.assert_allclose(line["error"][r], error)


def test_the_page_says_what_was_found(whole: Path) -> None:
    report = whole / "report"
    rows = pd.read_csv(report / "mnist_claims.csv").set_index("name")["verdict"]
    assert list(rows.index) == [claim.name for claim in claims.CLAIMS]
    for name in ("repelling destroys tickets", "attracting makes tickets"):
        assert rows[name] == "not measured"
    # Two seeds are too few for a verdict.
    assert set(rows) == {"not measured", "unclear"}
    table = pd.read_csv(report / "mnist_rounds.csv")
    assert len(table) == 2 * 3 * 2
    text = (report / "mnist.md").read_text()
    mean, sd = tiny_studies.spread(
        table.query("variant == 'small' and round == 2")["ticket_percent"]
    )
    assert f"{mean:.2f} ± {sd:.2f}" in text
    for name in ("onset", "rounds", "stability", "angles", "thresholds", "histogram"):
        assert (report / f"mnist_{name}.png").exists()


@pytest.mark.campaign
def test_a_killed_study_resumes_to_identical_results(
    whole: Path, small: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, stops = [0], 0

    def stops_now_and_then() -> bool:
        calls[0] += 1
        return calls[0] % 7 == 0

    def launch(run: Run, workdir: Path, data_dir: str) -> int:
        try:
            return tiny_studies.train(run, workdir, data_dir, stops_now_and_then)
        except preemption.Preempted:
            return 130

    small.setattr(launcher, "launch", launch)
    for _ in range(100):
        try:
            assert launcher.run_all(RUNS, tmp_path, "") == []
            break
        except SystemExit as end:
            assert end.code == 130
            stops += 1
            # What has ended by now is measured, and the rest is when it has.
            if stops == 3:
                stable_imp.STUDY.finish(tmp_path, "quick", "")
    assert stops >= 4
    stable_imp.STUDY.finish(tmp_path, "quick", "")
    wanted = tiny_studies.contents(whole / "report", ".csv", ".md")
    assert tiny_studies.contents(tmp_path / "report", ".csv", ".md") == wanted
    for run in RUNS:
        level = run.overrides.get("lottery.levels", 2)
        again, once = (
            factory.load_state(
                factory.open_run(folder / run.name), f"level_{level:02d}/ticket/last"
            )
            for folder in (tmp_path, whole)
        )
        tiny.check_equal(again, once)


def test_measured_once_and_anew_when_weights_change(
    whole: Path, small: pytest.MonkeyPatch
) -> None:
    kept = whole / "analysis" / "mnist_batch_10.json"
    before = kept.read_bytes()

    def never(*args: Any) -> Any:
        raise AssertionError("was computed again")

    small.setattr(analysis, "of_weights", never)
    analysis.measure(whole, "mnist", "quick", "")
    changed = json.loads(before)
    changed["of"]["checkpoints"]["init"] = "another"
    try:
        kept.write_text(json.dumps(changed))
        with pytest.raises(AssertionError, match="computed again"):
            analysis.measure(whole, "mnist", "quick", "")
    finally:
        kept.write_bytes(before)
