"""Functions of a user's own that read the state during training."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny

from jaxsparse.runner import run as run_lib
from jaxsparse.training import preemption
from jaxsparse.training.run_dir import Callback, RunDir

SMALL = {"replicates": 1, "model.features": (10,)}
FIELDS = SMALL | {"lottery.levels": 0}


class Recorder:
    """Collects the steps and a weight of each state that it is called with."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.weights: list[Any] = []

    def __call__(self, step: int, state: Any) -> None:
        assert int(state.step) == step
        self.steps.append(step)
        self.weights.append(np.asarray(state.params["head"]["kernel"]))


def with_callback(run_dir: RunDir, callback: Callback) -> RunDir:
    return run_dir._replace(callbacks=(callback,))


def test_a_callback_reads_the_state_at_each_end_of_a_chunk(tmp_path: Path) -> None:
    made, seen = tiny.experiment(tmp_path, FIELDS), Recorder()
    run_lib.run(made, with_callback(tiny.desk(tmp_path), seen))
    # 6 steps an epoch in chunks of at most 4; evaluated after each epoch.
    assert seen.steps == [0, 4, 6, 10, 12]
    end = tiny.load(tmp_path, "train/last", made)
    np.testing.assert_array_equal(seen.weights[-1], end.params["head"]["kernel"])
    init = tiny.load(tmp_path, "init", made)
    np.testing.assert_array_equal(seen.weights[0], init.params["head"]["kernel"])


def test_steps_before_a_stop_are_not_read_again(tmp_path: Path) -> None:
    made, seen = tiny.experiment(tmp_path, FIELDS), Recorder()
    calls = iter(range(1))
    stopping = tiny.desk(tmp_path, lambda: next(calls, None) is None)
    with pytest.raises(preemption.Preempted):
        run_lib.run(made, with_callback(stopping, seen))
    assert seen.steps == [0, 4, 6]
    run_lib.run(made, with_callback(tiny.desk(tmp_path), seen))
    assert seen.steps == [0, 4, 6, 10, 12]


def test_an_error_of_a_callback_ends_the_run(tmp_path: Path) -> None:
    def fail(step: int, state: Any) -> None:
        del state
        if step == 6:
            raise RuntimeError("out of quota")

    made = tiny.experiment(tmp_path, FIELDS)
    with pytest.raises(RuntimeError, match="out of quota"):
        run_lib.run(made, with_callback(tiny.desk(tmp_path), fail))


def test_stages_trained_again_are_not_read_again(tmp_path: Path) -> None:
    fields = SMALL | {"lottery.levels": 1}
    tiny.run(tmp_path, fields)
    shutil.rmtree(tmp_path / "checkpoints" / "level_00" / "ticket" / "last")
    for path in (tmp_path / "tickets" / "level_01").iterdir():
        path.unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "level_01")
    made, seen = tiny.experiment(tmp_path, fields), Recorder()
    names: list[str] = []

    class Shown:
        def begin(self, name: str, **_: int) -> None:
            names.append(name)

        def advance(self, step: int, *, note: str = "") -> None:
            pass

        def end(self, *, note: str = "") -> None:
            pass

    desk = tiny.desk(tmp_path)._replace(progress=Shown())
    run_lib.run(made, with_callback(desk, seen))
    # Level 1 needs the end of level 0, which is trained again first, unread.
    assert names == ["level_00/ticket", "level_01/ticket"]
    assert seen.steps == [0, 4, 6, 10, 12]
