"""Paths that a run directory may have; this imports no JAX."""

from pathlib import Path


def check(path: Path) -> None:
    """Checks that Orbax can read back what it writes in a directory.

    Args:
      path: the directory; it need not exist.

    Raises:
      ValueError: if the path contains characters that Orbax misreads; the message gives
        the path and the characters.
    """
    text = str(path.absolute())
    misread = ("*", "?", "[", "\\", ":/")
    found = [pattern for pattern in misread if pattern in f"{text}/"]
    if found:
        raise ValueError(
            f"{text}: has {' and '.join(map(repr, found))} in its path, which Orbax "
            "reads as a pattern or an address; expected a path without; rename the "
            "folder, or choose another one with --workdir"
        )
