"""Names that must be known, and hints for misspelt ones."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

# What other programs call some fields.
COMMON = {
    "dataset": "data.name",
    "epochs": "training.length",
    "model": "model.name",
    "network": "model.name",
    "optimizer": "optimizer.name",
    "seed": "seeds.init",
    "steps": "training.length",
}


def nearest(name: str, known: list[str]) -> str:
    """Words a hint: the known names closest to a misspelt one, else all of them."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return " or ".join(close) if close else "one of " + ", ".join(known)


def check_known(
    field: str,
    name: str,
    known: list[str],
    *,
    others: Mapping[str, list[str]] | None = None,
) -> None:
    """Refuses a name that is none of those known, with the nearest that is.

    Args:
      field: dotted name of the config's field.
      name: its value.
      known: the values it may have.
      others: what other fields may be; a name that stands there belongs to that field.

    Raises:
      ValueError: naming the field of the config.
    """
    if name in known:
        return
    hint = f"did you mean {nearest(name, known)}?"
    for other, values in (others or {}).items():
        if name in values:
            hint = f"it is a value of config.{other}, not of config.{field}"
            if (field, other) == ("sparse.method", "sparse.score"):
                hint = (
                    f"it is a score: set config.sparse.method='static' and "
                    f"config.sparse.score={name!r}"
                )
    raise ValueError(f"config.{field}: unknown {name!r}; {hint}")


def nearest_field(name: str, known: Iterable[str]) -> str:
    """Words a hint for a field that no config has.

    Args:
      name: dotted, as it was written.
      known: dotted names of all fields.

    Returns:
      The fields of the same last part, or of which it has the initials (`lr`); else
      those closest to it in its section, or in all; else where all of them stand.
    """
    known = list(known)
    section, _, last = name.rpartition(".")
    if name in COMMON:
        return COMMON[name]
    ends = {field: field.rpartition(".")[2] for field in known}
    mine = {
        field: end for field, end in ends.items() if field.startswith(f"{section}.")
    }
    if section and mine:
        close = difflib.get_close_matches(last, mine.values(), n=2, cutoff=0.6)
        return " or ".join([f"{section}.{end}" for end in close] or mine)
    same = [field for field, end in ends.items() if last in (end, initials(end))]
    if not same:
        close = difflib.get_close_matches(last, set(ends.values()), n=1, cutoff=0.7)
        same = [field for field, end in ends.items() if end in close]
    # Of fields with one name, first those that most recipes set.
    order = ("schedule", "sparse", "data", "optimizer", "training", "lottery")
    rank = {part: place for place, part in enumerate(order)}
    same.sort(key=lambda field: rank.get(field.partition(".")[0], len(order)))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return " or ".join(same[:3] or close) or "one of jaxsparse/config/schema.py"


def initials(name: str) -> str:
    """Returns the initials of a name of several words, else the name."""
    words = name.split("_")
    return "".join(word[0] for word in words) if len(words) > 1 else name


def to_path(field: str, text: str) -> Path:
    """Makes a path of what a user wrote, with "~" and "~user" expanded.

    Args:
      field: the flag or field that it is the value of, for the message.
      text: the path.

    Raises:
      ValueError: if there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{field}: expected a folder or file, got {text!r}, and there is no user "
            f"{text.partition('/')[0]!r} here; write the path in full"
        ) from error
