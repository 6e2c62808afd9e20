"""Records that a checkpoint presumes and that are lost are named and written again."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import tiny

from jaxsparse import metrics_log
from jaxsparse.runner import records
from jaxsparse.runner import run as run_lib
from jaxsparse.training import preemption

FIELDS = {"lottery.levels": 1, "lottery.rewind": "4step"}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended")
    tiny.run(folder, FIELDS)
    return folder


def lines(folder: Path) -> list[str]:
    """All records but times, in their order."""
    rows = metrics_log.read(folder / "metrics.jsonl")
    return [metrics_log.to_line(row) for row in rows if row["kind"] != "timing"]


def notes(folder: Path) -> dict[str, str]:
    found = sorted((folder / "checkpoints").rglob("*.json"))
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def without(text: str, kept: Callable[[str], bool]) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if kept(line))


LOSSES = {
    "deleted": lambda text: None,
    "emptied": lambda text: "",
    "short of its end": lambda text: text[: len(text) * 2 // 3],
    "short of one line": lambda text: text[: text.rindex("{")],
    "without one in between": lambda text: text.replace(
        next(x for x in text.splitlines(keepends=True) if '"level_00/ticket"' in x), ""
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_lost_records_of_stages_that_ended_are_put_back(
    tmp_path: Path, ended: Path, caplog: pytest.LogCaptureFixture, loss: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    metrics = folder / "metrics.jsonl"
    content = LOSSES[loss](metrics.read_text())
    metrics.unlink()
    if content is not None:
        metrics.write_text(content)
    assert not records.has_ended(folder, levels=1)
    with caplog.at_level(logging.WARNING):
        tiny.run(folder, FIELDS)
    assert lines(folder) == lines(ended)
    assert notes(folder) == notes(ended)
    assert records.has_ended(folder, levels=1)
    named = [r.getMessage() for r in caplog.records if "are put back" in r.getMessage()]
    stages = ("rewind", "level_00/ticket/last", "level_01/ticket/last")
    lost = {
        name
        for name in stages
        if any(f"of {name}, which ended, got" in x for x in named)
    }
    if loss in ("deleted", "emptied"):
        assert lost == set(stages)
    elif loss == "short of one line":
        assert lost == {"level_01/ticket/last"}
        assert "level_01/ticket/last, which ended, got 14 of 15 records" in named[0]
    elif loss == "without one in between":
        assert lost == {"level_00/ticket/last"}
    else:
        assert "rewind" not in lost


def test_records_of_a_stage_with_a_damaged_note_come_back_to_their_place(
    tmp_path: Path, ended: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    name = "level_00/ticket/last"
    (folder / "checkpoints" / f"{name}.json").write_text("[]")
    tiny.run(folder, FIELDS)
    assert lines(folder) == lines(ended)
    assert notes(folder) == notes(ended)
    assert (folder / "checkpoints" / f"{name}.corrupt-0").is_dir()


def test_notes_that_do_not_count_records_still_ask_for_the_last(
    tmp_path: Path, ended: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    for path in (folder / "checkpoints").rglob("*.json"):
        if "extra" in (note := json.loads(path.read_text())):
            path.write_text(json.dumps(note | {"extra": {}}))
    assert records.has_ended(folder, levels=1)
    metrics = folder / "metrics.jsonl"
    metrics.write_text(without(metrics.read_text(), lambda x: '"level_01' not in x))
    assert not records.has_ended(folder, levels=1)
    tiny.run(folder, FIELDS)
    assert lines(folder) == lines(ended)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in level 0, after its first checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    made = tiny.with_loop(tiny.experiment(folder, FIELDS), checkpoint_every=4)
    calls = iter(range(1))
    desk = tiny.desk(folder, lambda: next(calls, None) is None)
    with pytest.raises(preemption.Preempted):
        run_lib.run(made, desk)
    assert list((folder / "checkpoints").rglob("step_*.json"))
    return folder


@pytest.mark.parametrize("left", [0, 1, 100])
def test_lost_records_of_a_stage_under_way_are_trained_to_again(
    tmp_path: Path,
    ended: Path,
    stopped: Path,
    caplog: pytest.LogCaptureFixture,
    left: int,
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    made = tiny.experiment(tmp_path, FIELDS)
    made = tiny.with_loop(made, checkpoint_every=4)
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_text().splitlines(keepends=True)
    mine = [line for line in whole if '"level_00/ticket"' in line]
    before = [line for line in whole if line not in mine]
    metrics.write_text("".join(before + mine[:left]))
    with caplog.at_level(logging.WARNING):
        run_lib.run(made, tiny.desk(tmp_path))
    assert lines(tmp_path) == lines(ended)
    assert ("resumes from an earlier checkpoint" in caplog.text) == (left < len(mine))


def test_a_record_without_a_step_is_one_error(tmp_path: Path, ended: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "eval", "stage": "level_00/ticket"}\n')
    with pytest.raises(ValueError, match=r"line \d+: expected .*without \['step'\]"):
        tiny.run(folder, FIELDS)
