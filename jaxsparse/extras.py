"""Packages that only some functions need, and that the core install does not bring."""

import importlib.util


def require(*packages: str, purpose: str, extra: str = "experiments") -> None:
    """Checks that optional packages are installed; imports none of them.

    Args:
      *packages: names under which the packages are imported.
      purpose: what needs them, for the message.
      extra: extra of the project that contains them.

    Raises:
      ModuleNotFoundError: if any is missing; the message names it and the command that
        installs all of them.

    Examples:
      >>> require("numpy", purpose="arrays")
      >>> require("numpi", purpose="arrays")
      Traceback (most recent call last):
      ModuleNotFoundError: arrays: expected the packages numpi, which are not installed
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{purpose}: expected the packages {', '.join(missing)}, which are not "
            f"installed; run pip install -e '.[{extra}]' in the project's folder"
        )
