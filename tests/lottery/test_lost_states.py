"""The loop over stages: what is trained, in which order, when states are lost."""

from pathlib import Path
from typing import Any

import pytest

from jaxsparse.lottery import plan as plan_lib
from jaxsparse.lottery.plan import LotteryPlan
from jaxsparse.lottery.rewinding import RewindPlan
from jaxsparse.runner import records
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.saved_states import LostState
from jaxsparse.stages import Stage
from jaxsparse.training.run_dir import RunDir

PLAN = LotteryPlan(RewindPlan(2, 12), levels=3)
FIRST, *LEVELS = plan_lib.stages(PLAN)


class Disk:
    """Stages that have ended, and those of them whose states cannot be read."""

    def __init__(self, ended: list[Stage], lost: list[Stage], broken: bool) -> None:
        self.plan, self.ended, self.lost = PLAN, set(ended), set(lost)
        self.broken = broken  # what is written cannot be read either
        self.trained: list[str] = []

    def has_ended(self, stage: Stage) -> bool:
        return stage in self.ended

    def delete_unneeded(self, stage: Stage) -> None:
        assert stage in self.ended


def needed(stage: Stage) -> list[Stage]:
    """The rewound weights, and the level before."""
    if stage == FIRST:
        return []
    before = [plan_lib.ticket(PLAN, stage.level - 1)] if stage.level else []
    return [*before, FIRST]


def run(
    monkeypatch: pytest.MonkeyPatch,
    *,
    ended: list[Stage],
    lost: list[Stage],
    put_back: tuple[str, ...] = (),
    broken: bool = False,
) -> list[str]:
    disk = Disk(ended, lost, broken)
    run_dir = RunDir(Path("unused"))

    def train_stage(saved: Any, stage: Stage, *, put_back: bool) -> None:
        del saved
        for source in needed(stage):
            if source in disk.lost:
                raise LostState(source, f"{source.name}/last", run_dir)
        disk.trained.append(f"{stage.name} again" if put_back else stage.name)
        disk.ended.add(stage)
        disk.lost -= set() if disk.broken else {stage}

    monkeypatch.setattr(run_lib, "SavedStates", lambda *_: disk)
    monkeypatch.setattr(run_lib, "train_stage", train_stage)
    monkeypatch.setattr(records, "find_lost", lambda *_: set(put_back))
    monkeypatch.setattr(records, "sort", lambda *_: None)
    monkeypatch.setattr(records, "write_stages", lambda *_: None)
    run_lib.run(Experiment(None, None, None, PLAN), run_dir)
    return disk.trained


NAMES = [FIRST.name, *(stage.name for stage in LEVELS)]


@pytest.mark.parametrize(
    ("ended", "lost", "trained"),
    [
        (0, [], NAMES),
        (2, [], NAMES[2:]),
        (5, [], []),
        (5, [2, 3], []),  # nothing needs them
        (2, [0], [NAMES[0], *NAMES[2:]]),
        (2, [1], NAMES[1:]),
        (3, [0, 2], [NAMES[n] for n in (0, 2, 3, 4)]),
        (4, [0, 1, 2, 3], [NAMES[n] for n in (0, 1, 2, 3, 4)]),
    ],
)
def test_lost_states_are_trained_again_before_what_needs_them(
    monkeypatch: pytest.MonkeyPatch, ended: int, lost: list[int], trained: list[str]
) -> None:
    stages = [FIRST, *LEVELS]
    found = run(monkeypatch, ended=stages[:ended], lost=[stages[n] for n in lost])
    assert found == trained


def test_lost_records_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [FIRST, *LEVELS]
    found = run(monkeypatch, ended=stages, lost=[FIRST], put_back=(NAMES[2],))
    assert found == [NAMES[0], f"{NAMES[2]} again"]


def test_states_that_cannot_be_read_again_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = [FIRST, *LEVELS]
    with pytest.raises(ValueError, match=r"though it was just written; is the disk"):
        run(monkeypatch, ended=stages[:2], lost=[FIRST], broken=True)
