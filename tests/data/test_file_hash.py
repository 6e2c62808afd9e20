"""Hashes of files are those of their contents, remembered or not."""

import os
import time
from pathlib import Path

import pytest

from jaxsparse.data import file_hash


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAXSPARSE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hash, "MANY_FILES", 3)
    for name in ("a", "b"):
        folder = tmp_path / "set" / "train" / name
        folder.mkdir(parents=True)
        for i in range(2):
            (folder / f"{i}.png").write_text(f"{name}{i}")
    return tmp_path / "set"


def wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets time pass, so that the files are not new any more."""
    later = time.time_ns() + 2 * file_hash.SETTLED_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> bytes:
        raise AssertionError(f"read {path}")

    monkeypatch.setattr(Path, "read_bytes", read)


def test_hashes_of_many_files_are_remembered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_hash.of_folder(root)
    assert not (root.parent / "cache").exists()  # the files are too new
    wait(monkeypatch)
    assert file_hash.of_folder(root) == before
    with monkeypatch.context() as patch:
        forbid_reading(patch)
        assert file_hash.of_folder(root) == before
    (memory,) = (root.parent / "cache" / "digests").iterdir()
    memory.write_text("damaged")
    assert file_hash.of_folder(root) == before
    monkeypatch.setattr(file_hash, "MANY_FILES", 5)
    assert file_hash.of_folder(root) == before
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read"):
        file_hash.of_folder(root)


def test_a_changed_file_is_read_again_even_with_its_old_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "train" / "a" / "1.png"
    wait(monkeypatch)
    before = file_hash.of_folder(root)
    status = path.stat()
    time.sleep(0.02)  # more than the resolution of the times of files
    path.write_text("a7")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = file_hash.of_folder(root)
    assert changed != before
    monkeypatch.setattr(file_hash, "MANY_FILES", 5)
    assert file_hash.of_folder(root) == changed


def test_a_memory_that_cannot_be_written_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_hash.of_folder(root)
    wait(monkeypatch)
    (root.parent / "cache").write_text("a file in place of the folder")
    assert file_hash.of_folder(root) == before


def test_empty_folders_count_where_readers_see_them(root: Path) -> None:
    before = file_hash.of_folder(root), file_hash.with_folders(root)
    (root / "train" / ".hidden").mkdir()
    (root / "elsewhere").mkdir()
    assert (file_hash.of_folder(root), file_hash.with_folders(root)) == before
    (root / "train" / "c").mkdir()
    assert file_hash.of_folder(root) == before[0]
    assert file_hash.with_folders(root) != before[1]
