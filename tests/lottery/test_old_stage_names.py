"""Run directories keep the stage names with which they began."""

import json
from pathlib import Path

import pytest
from helpers import tiny

import jaxsparse
from jaxsparse import metrics_log
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.lottery.plan import LotteryPlan
from jaxsparse.lottery.rewinding import RewindPlan
from jaxsparse.runner import old_runs, records
from jaxsparse.runner import run as run_lib
from jaxsparse.training import checkpoints, preemption

OLD = "level_00/ticket"
PLAIN, LOTTERY = (LotteryPlan(RewindPlan(0, 12), levels=n) for n in (0, 1))


def first_name(plan: LotteryPlan, folder: Path) -> str:
    return plan_lib.stages(old_runs.with_recorded_names(plan, folder))[0].name


@pytest.mark.parametrize("begun", ["checkpoint", "record"])
@pytest.mark.parametrize("name", ["train", OLD])
def test_level_0_keeps_its_name(tmp_path: Path, name: str, begun: str) -> None:
    assert first_name(PLAIN, tmp_path) == "train"
    assert first_name(LOTTERY, tmp_path) == OLD
    if begun == "checkpoint":
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    else:
        row = {"kind": "eval", "stage": name, "step": 0}
        metrics_log.append(tmp_path / "metrics.jsonl", [row])
    assert first_name(PLAIN, tmp_path) == first_name(LOTTERY, tmp_path) == name


def test_checkpoints_are_found_by_either_name(tmp_path: Path) -> None:
    for there, asked in (("train", OLD), (OLD, "train")):
        folder = tmp_path / there.replace("/", "_")
        for name in (f"{there}/last", f"kept/{there}/step_000000004"):
            note = folder / f"{name}.json"
            note.parent.mkdir(parents=True)
            note.write_text("{}")
            assert old_runs.recorded_name(folder, name) == name
            other = name.replace(there, asked)
            assert old_runs.recorded_name(folder, other) == name
        for absent in (f"{asked}/step_000000004", "init", "level_01/ticket/last"):
            assert old_runs.recorded_name(folder, absent) == absent


def outcome(folder: Path, stage: str) -> tuple[str | None, list[str]]:
    """Hash of the final state, and all records but times, without the stage's name."""
    rows = metrics_log.read(folder / "metrics.jsonl")
    lines = [metrics_log.to_line(row | {"stage": ""}) for row in rows]
    hashed = checkpoints.recorded_hash(folder / "checkpoints", f"{stage}/last")
    return hashed, [line for line in lines if '"timing"' not in line]


def test_an_old_run_goes_on_under_its_own_name(tmp_path: Path) -> None:
    fields = {"lottery.levels": 0}
    new, old = tmp_path / "new", tmp_path / "old"
    made = tiny.with_loop(tiny.experiment(old, fields), checkpoint_every=4)
    run_lib.run(made, tiny.desk(new))
    (old / "checkpoints" / OLD).mkdir(parents=True)  # as an older version made it
    calls = iter(range(1))
    with pytest.raises(preemption.Preempted, match=f"^{OLD}, step"):
        run_lib.run(made, tiny.desk(old, lambda: next(calls, None) is None))
    run_lib.run(made, tiny.desk(old))
    assert outcome(old, OLD) == outcome(new, "train")
    for folder, name in ((old, OLD), (new, "train")):
        assert json.loads((folder / records.STAGES).read_text()) == [f"{name}/last"]
        assert records.has_ended(folder, levels=0)
        (folder / "config.json").write_text(tiny.config(fields).to_json())
        assert jaxsparse.load(folder).levels() == [0]


def test_ordinary_training_may_grow_to_a_lottery_run(tmp_path: Path) -> None:
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    for levels in (0, 1):
        tiny.run(grown, {"lottery.levels": levels})
    tiny.run(whole, {"lottery.levels": 1})
    last = "level_01/ticket/last"
    hashes = {
        checkpoints.recorded_hash(folder / "checkpoints", last)
        for folder in (grown, whole)
    }
    assert len(hashes) == 1 and None not in hashes
    assert records.has_ended(grown, levels=1)
    assert not (grown / "checkpoints" / "level_00").exists()
