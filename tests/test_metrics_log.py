import json
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxsparse import metrics_log

ROWS = [{"kind": "eval", "step": step, "loss": step / 3} for step in range(4)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_what_is_appended_is_read(path: Path) -> None:
    assert metrics_log.read(path) == []
    metrics_log.append(path, ROWS[:1])
    metrics_log.append(path, [])
    metrics_log.append(path, ROWS[1:])
    assert metrics_log.read(path) == ROWS
    assert path.read_text().count("\n") == 4


@hypothesis.given(value=st.floats(width=64))
def test_floats_keep_every_bit_and_others_are_null(value: float) -> None:
    line = metrics_log.to_line({"loss": value, "name": "a\nb", "none": None})
    assert line.count("\n") == 1
    read = json.loads(line)["loss"]
    finite = value == value and abs(value) != float("inf")
    assert read == (value if finite else None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_json_does_not_know_are_null(path: Path, value: float) -> None:
    metrics_log.append(path, [{"loss": value, "step": 3, "flag": True}])
    assert metrics_log.read(path) == [{"loss": None, "step": 3, "flag": True}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_json_does_not_know_are_null_inside_fields(
    path: Path, value: float
) -> None:
    layers = {"a": value, "b": 0.5, "c": [1, value, (value, True)]}
    record = {"step": 3, "layers": layers}
    metrics_log.append(path, [record])
    (read,) = metrics_log.read(path)
    kept = {"a": None, "b": 0.5, "c": [1, None, [None, True]]}
    assert read == {"step": 3, "layers": kept}
    assert record["layers"] is layers and layers["b"] == 0.5  # not changed


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_passed_over_and_then_cut(path: Path, cut: int) -> None:
    metrics_log.append(path, ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    # Without its newline only, a line is whole.
    kept = ROWS if cut == 1 else ROWS[:-1]
    assert metrics_log.read(path) == kept
    assert metrics_log.keep_only(path, lambda row: True) == 0
    assert path.read_bytes() == "".join(map(metrics_log.to_line, kept)).encode()
    metrics_log.append(path, ROWS[len(kept) :])
    assert path.read_bytes() == whole


def test_a_broken_line_elsewhere_is_an_error_that_names_it(path: Path) -> None:
    metrics_log.append(path, ROWS)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:7], *lines[2:]]) + "\n")
    with pytest.raises(
        ValueError, match=r"metrics.jsonl: line 2: expected .*got invalid JSON"
    ):
        metrics_log.read(path)


def test_keep_only_cuts_and_counts(path: Path) -> None:
    assert metrics_log.keep_only(path, lambda row: False) == 0
    assert not path.exists()
    metrics_log.append(path, ROWS)
    assert metrics_log.keep_only(path, lambda row: row["step"] != 2) == 1
    assert metrics_log.read(path) == [ROWS[0], ROWS[1], ROWS[3]]
    untouched = path.stat()
    assert metrics_log.keep_only(path, lambda row: True) == 0
    assert path.stat().st_ino == untouched.st_ino


def test_a_write_that_fails_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics_log.write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        metrics_log.write_atomically(path, "new")
    assert path.read_text() == "old"


def test_an_atomic_write_makes_its_folder_and_leaves_nothing_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a" / "b.json"
    metrics_log.write_atomically(path, "text\n")
    metrics_log.write_atomically(path, "other\n")
    assert path.read_text() == "other\n"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_of_the_disk_names_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"metrics\.jsonl.*No space left on device"):
        metrics_log.write_atomically(path, "new")
    path.mkdir()
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        metrics_log.append(path, ROWS)
