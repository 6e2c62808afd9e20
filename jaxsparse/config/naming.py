"""Names that must be known, and hints for misspelt ones."""

import difflib


def nearest(name: str, known: list[str]) -> str:
    """Words a hint: the known names closest to a misspelt one, else all of them."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return " or ".join(close) if close else "one of " + ", ".join(known)


def check_known(field: str, name: str, known: list[str]) -> None:
    """Refuses a name that is none of those known, with the nearest that is.

    Raises:
      ValueError: naming the field of the config.
    """
    if name not in known:
        raise ValueError(
            f"config.{field}: unknown {name!r}; did you mean {nearest(name, known)}?"
        )
