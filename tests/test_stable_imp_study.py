"""The study of stable pruning: its claims, and what it measures, against plain code."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import tiny, tiny_studies

from experiments.studies import driver, stable_imp
from experiments.studies.runs import Run
from experiments.studies.stable_imp import claims, quantities, variants
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
    Run("mnist_batch_10", tiny_studies.RECIPE, CHILDREN | PRUNED),
    Run(
        "mnist_batch_40",
        tiny_studies.RECIPE,
        CHILDREN | PRUNED | {"data.batch_size": 40},
    ),
    Run(
        "mnist_onset",
        tiny_studies.RECIPE,
        # Batches of another run, so that most of its programs are in the cache.
        CHILDREN
        | {"lottery.levels": 0, "instability.compare_levels": False}
        | {"instability.levels": (0,), "instability.start_steps": ("0step", "6step")}
        | {"data.batch_size": 10},
    ),
]
STUDY = tiny_studies.as_tiny(stable_imp.STUDY, RUNS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a study that has run through, and what is measured of its runs."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.BATCHES["quick"], "mnist", BATCHES)
        # Figures are drawn, but nobody looks at them.
        patch.setattr(plot_style, "render", lambda figure, file_format: b"")
        return folder, tiny_studies.train(STUDY, folder)


@pytest.fixture(scope="module")
def whole(study: tuple[Path, dict[str, Any]]) -> Path:
    return study[0]


@pytest.fixture(scope="module")
def found(study: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return study[1]


def test_accuracies_are_those_recorded(whole: Path, found: dict[str, Any]) -> None:
    for size in (10, 40):
        arm = found[f"mnist_batch_{size}"]
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
                control = arm["controls"]["reinitialized"][r][level]
                if level:
                    assert control == ends["reinitialized"]
                else:
                    assert np.isnan(control)


def test_gaps_are_of_late_rounds(found: dict[str, Any]) -> None:
    arm = found["mnist_batch_10"]
    ticket = np.asarray(arm["ticket"])
    control = np.asarray(arm["controls"]["reinitialized"])
    # Levels 1 and 2 of 2 are late.
    wanted = [np.mean([ticket[r, i] - control[r, i] for i in (1, 2)]) for r in (0, 1)]
    np.testing.assert_allclose(quantities.gaps(arm), wanted, rtol=1e-12)


def weights(
    run: factory.TrainedRun, level: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one level's kernels and masks as flat vectors, in plain code."""
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
    arm = found["mnist_batch_10"]
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
    (dense,) = found["mnist_onset"]["onset"]
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
    rows = pd.read_csv(report / "mnist_claims.csv").set_index("claim")["verdict"]
    assert list(rows.index) == [claim.name for claim in claims.CLAIMS]
    for name in ("repelling destroys tickets", "attracting makes tickets"):
        assert rows[name] == "not measured"
    # Two seeds are too few for a verdict.
    assert {row.removesuffix(" (short)") for row in rows} <= {
        *("not measured", "unclear", "premise absent")
    }
    table = pd.read_csv(report / "mnist_levels.csv")
    assert len(table) == 2 * 3 * 2
    text = (report / "mnist.md").read_text()
    mean, sd = tiny_studies.spread(
        table.query("variant == 'unstable' and level == 2")["ticket_percent"]
    )
    assert f"{mean:.2f} ± {sd:.2f}" in text
    for name in ("onset", "levels", "stability", "angles", "thresholds", "histogram"):
        assert (report / f"mnist_{name}.png").exists()


@pytest.mark.campaign
def test_a_killed_study_resumes_to_identical_results(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(variants.BATCHES["quick"], "mnist", BATCHES)
    calls, stops = [0], 0

    def stops_now_and_then() -> int:
        calls[0] += 1
        return 15 if calls[0] % 7 == 0 else 0

    @contextlib.contextmanager
    def listening() -> Any:
        yield stops_now_and_then

    monkeypatch.setattr(preemption, "listening", listening)
    tasks = tiny_studies.tasks(STUDY, tmp_path)
    for _ in range(100):
        try:
            assert driver.run_all(tasks) == []
            break
        except preemption.Preempted:
            stops += 1
    assert stops >= 4
    for run in RUNS:
        name = f"{run.name}.json"
        again, once = (folder / "records" / name for folder in (tmp_path, whole))
        a, b = (json.loads(path.read_text()) for path in (again, once))
        assert (a["recipe"], a["measured"]) == (b["recipe"], b["measured"])
        level = run.overrides.get("lottery.levels", 2)
        last = f"level_{level:02d}/ticket/last"
        states = (
            factory.load_state(factory.open_run(folder / run.name), last)
            for folder in (tmp_path, whole)
        )
        tiny.check_equal(*states)


def test_pages_are_made_from_records_without_run_directories(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(variants.BATCHES["quick"], "mnist", BATCHES)
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")
    shutil.copytree(whole / "records", tmp_path / "records")
    STUDY.report("quick", tmp_path / "records", tmp_path / "report")
    wanted = tiny_studies.contents(whole / "report", ".csv", ".md")
    assert tiny_studies.contents(tmp_path / "report", ".csv", ".md") == wanted
    # On another disk, nothing is trained again.
    monkeypatch.setattr(driver, "complete", lambda task: 1 / 0)
    assert driver.run_all(tiny_studies.tasks(STUDY, tmp_path)) == []
