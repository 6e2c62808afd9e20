"""Two runs are compared in every bit: masks, weights, and what was recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from helpers import tiny

import jaxsparse
from experiments import compare_runs
from jaxsparse import metrics_log

# The programs are those of `tests/test_runs.py`.
FIELDS = {"lottery.levels": 1, "model.features": (12, 8), "training.duration": "1ep"}
FIELDS["schedule.milestones"] = ("4step",)
RECORDED = {
    f"recorded {of}{what}"
    for of in ("", "validation ", "test ")
    for what in ("loss", "accuracy")
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, and the same config trained again but for the control."""
    root = tmp_path_factory.mktemp("runs")
    for name, controls in (("a", ()), ("b", ("shuffled_layers",))):
        fields = FIELDS | {"lottery.controls": controls}
        jaxsparse.run(tiny.config(fields), root / name, report=False)
    return [root / "a", root / "b"]


def compare(*folders: Path) -> int:
    return compare_runs.main(["compare_runs.py", *map(str, folders)])


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    return {what: found.strip() for what, found in lines}


def test_a_run_equals_its_repetition_except_for_what_one_has_alone(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*folders) == 1
    found = printed(capsys)
    assert found.pop("level 1, shuffled_layers") == "only in the second run"
    records = {what: found.pop(what) for what in RECORDED}
    assert all("are in one run only" in each for each in records.values())
    assert not any("by at most" in each for each in records.values())
    assert found == {
        f"level {level}, ticket: {what}": "equal"
        for level in (0, 1)
        for what in ("masks", "weights")
    }
    assert compare(folders[0], folders[0]) == 0
    assert set(printed(capsys).values()) == {"equal"}


def test_a_changed_record_is_found(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(folders[0], changed)
    rows: list[dict[str, Any]] = metrics_log.read(changed / "metrics.jsonl")
    row = next(row for row in rows if row["kind"] == "eval")
    row["test_accuracy"] += 0.25
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (changed / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert compare(folders[0], changed) == 1
    found = printed(capsys)
    numbers = sum(row["kind"] == "eval" for row in rows)
    assert found.pop("recorded test accuracy") == (
        f"1 of {numbers} differ, by at most 2.5e-01"
    )
    assert set(found.values()) == {"equal"}


def test_arrays_are_equal_in_every_bit_or_differ_by_a_number() -> None:
    mask, weight = jnp.array([True, False, True]), jnp.array([1.0, -2.0, 0.0])
    tree = {"kernel": weight, "bias": None}
    assert compare_runs.describe(tree, dict(tree)) == "equal"
    other = {"kernel": weight.at[1].add(-0.5), "bias": None}
    assert compare_runs.describe(tree, other) == "differ by at most 5.0e-01"
    # Zeros of two signs are other bits, and a weight that is not a number is no number.
    negative = {"kernel": weight * jnp.array([1.0, 1.0, -1.0]), "bias": None}
    assert compare_runs.describe(tree, negative) == "differ by at most 0.0e+00"
    broken = {"kernel": weight.at[0].set(jnp.nan), "bias": None}
    assert compare_runs.describe(tree, broken) == "differ by at most nan"
    assert compare_runs.describe(broken, broken) == "equal"
    assert compare_runs.describe(mask, ~mask) == "3 of 3 entries differ"
    with pytest.raises(ValueError, match="of other names or shapes"):
        compare_runs.describe(weight, weight[:2])
    with pytest.raises(ValueError, match="of other names or shapes"):
        compare_runs.describe(tree, {"kernel": weight})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "error: expected two run directories, got 0; give those of the runs"),
        (("absent", "absent"), "expected a run directory of experiments/train.py, got"),
    ],
)
def test_wrong_commands_are_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        compare_runs.main(["compare_runs.py", *words])
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
