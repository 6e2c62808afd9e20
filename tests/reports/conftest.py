"""Work folders with records made up by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Record = dict[str, Any]


def level(
    arm: str, number: int, replicate: int, accuracy: float, **changes: Any
) -> Record:
    kept = [100, 80, 64, 51][number]
    return {
        "kind": "level",
        "stage": f"level_{number:02d}/{arm}",
        "level": number,
        "variant": arm,
        "replicate": replicate,
        "kept": kept,
        "total": 100,
        "density": kept / 100,
        "layers": {"hidden/kernel": [kept - 10, 90], "output/kernel": [10, 10]},
        "start_step": 0,
        "step": 400,
        "validation_loss": 0.2,
        "validation_accuracy": accuracy,
        "test_loss": 0.2,
        "test_accuracy": accuracy,
        "early_stop_step": 100 * (replicate + 1),
        "early_stop_validation_loss": 0.1,
        "early_stop_test_accuracy": accuracy,
    } | changes


def history(arm: str, number: int, replicate: int) -> list[Record]:
    where = {
        "stage": f"level_{number:02d}/{arm}",
        "level": number,
        "variant": arm,
        "replicate": replicate,
    }
    records = []
    for step in (100, 200, 300, 400):
        accuracy = 0.9 + step / 10_000 + replicate / 1000
        when = {"step": step, "epoch": step / 50}
        train = {"loss": 1 / step, "accuracy": accuracy, "learning_rate": 0.1}
        score = {"test_loss": 0.2, "test_accuracy": accuracy}
        score |= {"validation_loss": None, "validation_accuracy": None}
        records.append({"kind": "train", **where, **when, **train})
        records.append({"kind": "eval", **where, **when, **score})
    return records


@pytest.fixture
def records() -> list[Record]:
    """Two tickets and a control: three replicates; the control lacks one."""
    made = []
    for replicate, (dense, ticket, control) in enumerate(
        [(0.90, 0.92, 0.90), (0.91, 0.94, 0.91), (0.92, 0.93, None)]
    ):
        made += history("ticket", 0, replicate) + history("ticket", 1, replicate)
        made.append(level("ticket", 0, replicate, dense))
        made.append(level("ticket", 1, replicate, ticket))
        if control is not None:
            made.append(level("random_mask", 1, replicate, control))
            going_on = {"density": 1.0, "kept": 100}
            made.append(level("dense_continued", 1, replicate, dense, **going_on))
    where = {"stage": "level_00/ticket", "level": 0, "variant": "ticket"}
    made.append({"kind": "timing", **where, "seconds": 5400, "steps_per_second": 9.0})
    return made


@pytest.fixture
def make_record() -> Callable[..., Record]:
    return level


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str,
        records: list[Record],
        *,
        config: Record | None = None,
        environment: Record | None = None,
        torn: str = "",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config or {"levels": 3}))
        if environment is not None:
            (folder / "environment.json").write_text(json.dumps(environment))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "metrics.jsonl").write_text(lines + torn)
        return folder

    return make
