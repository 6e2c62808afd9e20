"""Errors of reading checkpoints: corrupt files, and machines that cannot read."""

import re
from pathlib import Path

from jaxsparse import metrics_log

# Messages of libraries that report errors of the machine without raising OSError.
_MACHINE = re.compile(
    r"\b(EMFILE|ENFILE|EACCES|EPERM|EIO|ENOSPC|ENOMEM|ESTALE|ETIMEDOUT|EDQUOT|EROFS)\b"
    r"|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED"
    r"|Too many open files|Permission denied|Input/output error|No space left"
    r"|Cannot allocate memory|Stale file handle"
)
# Messages of Orbax for a checkpoint whose leaves differ from those requested.
_OTHER_LEAVES = re.compile("structures do not match|not compatible with the stored")


class CorruptFile(ValueError):
    """A checkpoint differs from what was saved; the message gives its name and why."""


def other_leaves_message(folder: Path) -> str:
    """Returns the message for a checkpoint of another network or optimizer.

    Args:
      folder: directory of the checkpoint.
    """
    return (
        f"checkpoint {folder}: expected the leaves of the config's network and "
        "optimizer, got a state with other leaves; use the version of the code that "
        "wrote it (environment.json names its commit), or another --workdir"
    )


def raise_if_undecided(
    folder: Path, failed: Exception | None, *, leaves_known: bool
) -> None:
    """Raises if a failed read does not show that a checkpoint is corrupt.

    Args:
      folder: directory of the checkpoint.
      failed: error raised while it was loaded; None if loading succeeded.
      leaves_known: whether the metadata have shown that the checkpoint holds the
        expected leaves; those of older versions do not.

    Raises:
      OSError: if the machine could not read it.
      MemoryError: if memory ran out.
      ValueError: if it holds a state with another structure.
    """
    error: BaseException | None = failed
    while error is not None:
        _raise_if_of_machine(folder, error)
        error = error.__cause__ or error.__context__
    if failed is None:
        return
    try:
        # Orbax can hide errors of the machine behind its own, so every file is read
        # once more: an unreadable file raises OSError here.
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(2**22):
                        pass
    except OSError as unread:
        _raise_if_of_machine(folder, unread)
    if not leaves_known and _OTHER_LEAVES.search(str(failed)):
        raise ValueError(other_leaves_message(folder)) from failed


def _raise_if_of_machine(folder: Path, error: BaseException) -> None:
    """Raises if an error comes from the machine and not from a file's content."""
    if isinstance(error, MemoryError):
        raise error
    if metrics_log.is_of_machine(error) or _MACHINE.search(str(error)):
        number = error.errno if isinstance(error, OSError) else None
        message = (
            f"checkpoint {folder}: cannot be read now ({first_line(error)}); it may "
            "be intact and was left as it is; check the machine (limits on open files, "
            "permissions, the disk), and run the same command again"
        )
        raise (OSError(message) if number is None else OSError(number, message)) from (
            error
        )


def first_line(error: BaseException) -> str:
    """Returns type and first line of an error, shortened.

    Args:
      error: any error.
    """
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
