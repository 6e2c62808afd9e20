"""Paths that a user gives."""

from pathlib import Path

from jaxsparse import config as config_lib


def to_folder(path: str | Path, *, argument: str) -> Path:
    """Converts the name of a directory to a path; "~" is expanded.

    Args:
      path: path of a directory, which need not exist.
      argument: name of the caller's argument, for messages.

    Raises:
      TypeError: if it is not a path.
      ValueError: if it is empty, or "~" names an unknown user.
    """
    if not isinstance(path, str | Path):
        raise TypeError(
            f"{argument}: expected the path of a folder, got {type(path).__name__}"
        )
    if not str(path):
        raise ValueError(f"{argument}: expected the path of a folder, got ''")
    return config_lib.to_path(argument, str(path))
