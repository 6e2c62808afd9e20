"""Writes the reference of all config fields, a part of configs/README.md.

Run `python -m jaxsparse.config.reference configs/README.md` after a change of `fields`;
a test fails if the page is not up to date.
"""

import sys
import textwrap
from pathlib import Path
from typing import Any

from jaxsparse.config import registries
from jaxsparse.config.field import Field
from jaxsparse.config.fields import SECTIONS

BEGIN = "<!-- Begin of the fields, made by `python -m jaxsparse.config.reference`. -->"
END = "<!-- End of the fields. -->"
HEADER = "| Field | Default | Valid values | Meaning |\n| --- | --- | --- | --- |"
NAMED = {
    "model.name": registries.MODELS,
    "sparse.method": registries.METHODS,
    "sparse.reparameterization": registries.REPARAMETERIZATIONS,
    "sparse.pai_score": registries.SCORES,
    "lottery.score": registries.SCORES,
}


def reference() -> str:
    """Returns Markdown with one table of fields for each section of the config.

    Entries that users have registered are not listed, nor are the fields they add.
    """
    parts = []
    for name, section in SECTIONS.items():
        rows = [
            _row(f"{name}.{field}" if name else field, record)
            for field, record in section.fields.items()
        ]
        title = f"### `{name}`" if name else "### General"
        text = textwrap.wrap(section.help, 100, break_on_hyphens=False)
        parts.append("\n".join([title, "", *text, "", HEADER, *rows]))
    return "\n\n".join(parts)


def _row(name: str, record: Field) -> str:
    """Returns the row of a field in the table of its section."""
    text, users = record.help, _users(name.partition(".")[2])
    if record.operational and not name.startswith("run."):
        text += " Results do not depend on it."
    if record.may_grow:
        text += " It may increase when a run continues."
    if name.startswith("sparse.") and users:
        text += f" Used by {users}."
    cells = (f"`{name}`", f"`{_literal(record.default)}`", _valid(name, record), text)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _users(field: str) -> str:
    """Names the built-in entries that use a field of the section `sparse`."""
    every = (*registries.METHODS.values(), *registries.REPARAMETERIZATIONS.values())
    users = [s.name for s in every if s.is_built_in and field in s.fields]
    return ", ".join(f"`{name}`" for name in users)


def _valid(name: str, record: Field) -> str:
    """Describes the valid values of a field in Markdown."""
    if name not in NAMED:
        return record.valid.words.replace("*", "\\*")  # not emphasis
    names = [spec.name for spec in NAMED[name].values() if spec.is_built_in]
    words = f"one of {', '.join(names)}, or a registered name"
    return words if record.default is not None else f"{words}, or None"


def _literal(value: Any) -> str:
    """Writes a default value as Python does, strings without quotation marks."""
    return value if isinstance(value, str) else repr(value)


def inserted(page: str) -> str:
    """Returns a page with the present reference between its two markers.

    Args:
      page: content of the page.

    Raises:
      ValueError: if the page does not have both markers, in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"page: expected the lines {BEGIN!r} and {END!r}, got neither")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        text = path.read_text(encoding="utf-8")
        path.write_text(inserted(text), encoding="utf-8")
