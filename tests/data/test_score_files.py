"""The files that keep scores of examples."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxsparse.data.data_pruning import score_files

LABELS = np.array([3, 1, 4, 1, 5], np.int32)
WILD = np.array([0.1, -0.0, np.inf, 1e-310, 1 / 3])


def origin(**changes: Any) -> score_files.Provenance:
    said = {"score": "el2n", "dataset": "digits", "split": "train"}
    said |= {"replicates": 10, "step": 7800, "config": "3f2a"}
    return score_files.describe(LABELS, **(said | changes))


def test_scores_come_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "el2n.npz"
    score_files.save(path, WILD, provenance=origin())
    got = score_files.load(path, labels=LABELS.astype(np.int64))
    assert got.scores.dtype == np.float64
    assert got.scores.tobytes() == WILD.tobytes()
    assert got.provenance == origin()
    assert got.provenance.examples == 5 and len(got.provenance.hashes.labels) == 64
    assert [file.name for file in path.parent.iterdir()] == ["el2n.npz"]


def test_narrow_scores_are_kept_exactly(tmp_path: Path) -> None:
    narrow = np.array([0.1, 0.2, np.inf, 1e-40, 3.0], np.float32)
    score_files.save(tmp_path / "a.npz", narrow, provenance=origin())
    got = score_files.load(tmp_path / "a.npz", labels=LABELS).scores
    assert got.astype(np.float32).tobytes() == narrow.tobytes()


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (LABELS[:4], "expected scores of 4 examples.*got 5"),
        (LABELS[::-1].copy(), "expected .*labels of SHA-256"),
        (np.where(np.arange(5) == 2, 0, LABELS), "expected .*labels of SHA-256"),
    ],
)
def test_scores_of_other_examples_are_refused(
    labels: np.ndarray, match: str, tmp_path: Path
) -> None:
    score_files.save(tmp_path / "a.npz", WILD, provenance=origin())
    with pytest.raises(ValueError, match=match):
        score_files.load(tmp_path / "a.npz", labels=labels)


def test_a_file_that_holds_the_same_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    score_files.save(path, WILD, provenance=origin())
    before = path.stat()
    score_files.save(path, WILD, provenance=origin())
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("wild", "said", "match"),
    [
        (np.abs(WILD), origin(), "with other scores; nothing was written"),
        (WILD, origin(step=1), r"with other step \(7800, now 1\); nothing"),
        (-WILD, origin(split="test"), r"split \('train', now 'test'\), scores; n"),
    ],
)
def test_a_file_that_holds_something_else_is_never_overwritten(
    wild: np.ndarray, said: Any, match: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    score_files.save(path, WILD, provenance=origin())
    before = path.read_bytes()
    with pytest.raises(ValueError, match=match):
        score_files.save(path, wild, provenance=said)
    assert path.read_bytes() == before


def strangers() -> dict[str, bytes]:
    """Files of other things, of which no scores can be read."""
    return {"empty": b"", "text": b"scores: none\n", "zip": b"PK\x03\x04 cut off"}


@pytest.mark.parametrize("kind", [*strangers(), "array", "cut", "archive", "said"])
def test_what_is_no_file_of_scores_is_neither_read_nor_lost(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    if kind in strangers():
        path.write_bytes(strangers()[kind])
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, WILD)
    elif kind == "cut":
        score_files.save(path, WILD, provenance=origin())
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "archive":
        np.savez(path, other=WILD)
    else:
        np.savez(path, scores=WILD, provenance=json.dumps({"score": "el2n"}))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a\.npz: expected a score file"):
        score_files.load(path, labels=LABELS)
    with pytest.raises(ValueError, match=r"a\.npz: expected a score file"):
        score_files.save(path, WILD, provenance=origin())
    assert path.read_bytes() == before


@pytest.mark.parametrize("held", [WILD[:4], WILD.astype(np.float32), WILD[None]])
def test_a_file_at_odds_with_itself_is_refused(
    held: np.ndarray, tmp_path: Path
) -> None:
    said = json.dumps(origin().to_dict())
    np.savez(tmp_path / "a.npz", scores=held, provenance=said)
    with pytest.raises(ValueError, match="expected 5 scores in float64"):
        score_files.load(tmp_path / "a.npz", labels=LABELS)


def test_scores_are_whole_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, real = [], {"fsync": os.fsync, "replace": os.replace}
    path = tmp_path / "a.npz"

    def spy(name: str) -> Any:
        def call(*args: Any) -> None:
            assert not path.exists()
            done.append(name)
            real[name](*args)

        return call

    for name in real:
        monkeypatch.setattr(os, name, spy(name))
    score_files.save(path, WILD, provenance=origin())
    assert done == ["fsync", "replace"]
    monkeypatch.undo()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        score_files.save(tmp_path / "b.npz", WILD, provenance=origin())
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("bad", [WILD[:4], np.append(WILD[:4], np.nan)])
def test_scores_that_are_none_are_not_saved(bad: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scores: expected .*got [45]"):
        score_files.save(tmp_path / "a.npz", bad, provenance=origin())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"replicates": 0}, {"step": -1}])
def test_impossible_numbers_of_a_provenance_are_refused(changes: Any) -> None:
    with pytest.raises(ValueError, match="replicates: expected .*got"):
        origin(**changes)


def test_the_hash_of_labels_is_pinned() -> None:
    wanted = "23c379d6c0f22ef64cdef873fd530df1f1419b4a3935e9323d5f1d82ca697b6a"
    assert score_files.hash_labels(np.arange(10, dtype=np.int8)) == wanted


def test_what_could_not_be_saved_is_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "a.npz"
    score_files.check_free(path, origin())
    assert path.parent.is_dir() and not path.exists()
    score_files.save(path, WILD, provenance=origin())
    # What is known only later does not count yet.
    score_files.check_free(path, origin()._replace(step=1, replicates=7, weights="x"))
    with pytest.raises(
        ValueError, match=r"a\.npz: expected no file .*other score \('el2n'"
    ):
        score_files.check_free(path, origin()._replace(score="grand"))
    with pytest.raises(ValueError, match="got a folder"):
        score_files.check_free(path.parent, origin())
    monkeypatch.setattr(score_files.os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match="expected a writable folder"):
        score_files.check_free(tmp_path / "b.npz", origin())
