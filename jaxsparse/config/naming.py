"""Checks of names, with suggestions for misspelled ones."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxsparse import old_names

# Field names of other programs, and the fields here.
COMMON = {
    "beta1": "optimizer.b1",
    "beta2": "optimizer.b2",
    "dataset": "data.name",
    "epochs": "training.duration",
    "model": "model.name",
    "network": "model.name",
    "optimizer": "optimizer.name",
    "pruning_rate": "lottery.fraction or sparse.sparsity",
    "seed": "seeds.init",
    "steps": "training.duration",
}


def nearest(name: str, known: list[str]) -> str:
    """Suggests the known names that are closest to a misspelled one.

    Args:
      name: the misspelled name.
      known: all valid names.

    Returns:
      Up to three similar names, joined by "or"; all names if none is similar.
    """
    spelled = {value.lower(): value for value in known}
    if name.lower() in spelled:
        return spelled[name.lower()]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return " or ".join(close) if close else "one of " + ", ".join(known)


def check_known(
    field: str,
    name: str,
    known: list[str],
    *,
    others: Mapping[str, list[str]] | None = None,
) -> None:
    """Checks that a config field has one of its valid names.

    Args:
      field: dotted name of the field.
      name: value of the field.
      known: valid values of the field.
      others: valid values of other fields, by dotted field name. If `name` is one of
        them, or very similar, the message says to which field it belongs. Pass fields
        whose values are proper names, such as "snip". Words that would suit many
        fields, such as "scale", are no hint.

    Raises:
      ValueError: if `name` is not in `known`; the message gives the field and a
        suggestion.
    """
    if name in known:
        return
    few = len(known) <= 8
    hint = f"; did you mean {nearest(name, known)}?"
    if few and not difflib.get_close_matches(name, known, cutoff=0.5):
        hint = ""  # the message lists the few names already
    best = max((_likeness(name, value) for value in known), default=0.0)
    for other, values in (others or {}).items():
        for value in values if other != field else ():
            alike = _likeness(name, value)
            # Most short words are similar to some short name.
            if alike > max(best, 0.7 if len(value) > 3 else 0.99):
                best, hint = alike, f"; {_hint_elsewhere(field, other, value, name)}"
    expected = f"one of {', '.join(known)}" if few else "a known name"
    raise ValueError(f"config.{field}: expected {expected}, got {name!r}{hint}")


def _likeness(a: str, b: str) -> float:
    """Returns the similarity of two names from 0 to 1, regardless of case."""
    return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()


def _hint_elsewhere(field: str, other: str, value: str, name: str) -> str:
    """Returns a hint that a name, or a similar one, is a value of another field."""
    it = "it" if value == name else repr(value)
    if (field, other) == ("sparse.method", "sparse.pai_score"):
        flags = f"--config.sparse.method=static --config.sparse.pai_score={value}"
        return f"{it} is a score; set {flags}"
    return f"{it} is a value of config.{other}, not of config.{field}"


def nearest_field(name: str, known: Iterable[str]) -> str:
    """Suggests config fields for a field name that does not exist.

    Args:
      name: the unknown dotted name.
      known: dotted names of all fields.

    Returns:
      Dotted names, joined by "or". For a common name of other programs (`epochs`) or a
      name of older versions, the field of the same meaning. For a name in an existing
      section, similar fields of this section, or else the page that explains the
      section. Otherwise the fields with the same last part or with these initials
      (`lr`), or else similar fields, or else the page that lists all fields.
    """
    known = list(known)
    section, _, last = name.rpartition(".")
    if name in COMMON:
        return COMMON[name]
    if name in old_names.CONFIG_FIELDS:
        return old_names.CONFIG_FIELDS[name]
    ends = {field: field.rpartition(".")[2] for field in known}
    mine = {
        field: end for field, end in ends.items() if field.startswith(f"{section}.")
    }
    if section and mine:
        close = difflib.get_close_matches(last, mine.values(), n=2, cutoff=0.65)
        if close:
            return " or ".join(f"{section}.{end}" for end in close)
    same = [field for field, end in ends.items() if last in (end, initials(end))]
    if not same:
        close = difflib.get_close_matches(last, set(ends.values()), n=1, cutoff=0.7)
        same = [field for field, end in ends.items() if end in close]
    if last in COMMON:  # in a section that has no such field
        return COMMON[last]
    # Several sections may have a field of this name: those most often set are first.
    order = ("schedule", "sparse", "data", "optimizer", "training", "lottery")
    rank = {part: place for place, part in enumerate(order)}
    same.sort(key=lambda field: rank.get(field.partition(".")[0], len(order)))
    where = "configs/README.md"
    if section and mine:
        return " or ".join(same[:3]) or f"one of the section {section!r} in {where}"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return " or ".join(same[:3] or close) or f"one of those in {where}"


def initials(name: str) -> str:
    """Returns the initials of a name with underscores; other names are unchanged.

    Args:
      name: name of a config or a field.
    """
    words = name.split("_")
    return "".join(word[0] for word in words) if len(words) > 1 else name


def to_path(field: str, text: str) -> Path:
    """Converts text to a path, expanding "~" and "~user".

    Args:
      field: flag or config field whose value the text is, for the message.
      text: the path as the user wrote it.

    Raises:
      ValueError: if the user in "~user" does not exist.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{field}: expected a folder or file, got {text!r}, and there is no user "
            f"{text.partition('/')[0]!r} here; write the path in full"
        ) from error
