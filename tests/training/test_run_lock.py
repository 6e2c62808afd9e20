"""The folder of a run: who may write there."""

import errno
import logging
from pathlib import Path

import pytest

from jaxsparse.training import run_lock


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    held = run_lock.acquire(tmp_path / "run")
    with pytest.raises(ValueError, match=r"another process is.*remove .*run/\.lock"):
        run_lock.acquire(tmp_path / "run")
    held.close()
    run_lock.acquire(tmp_path / "run").close()


def test_a_disk_may_word_a_lock_of_others_as_a_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "locked elsewhere")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with pytest.raises(ValueError, match="another process is running"):
        run_lock.acquire(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_no_other_process(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING):
        run_lock.acquire(tmp_path).close()
    assert f"{tmp_path} cannot be locked (no locks here)" in caplog.text
