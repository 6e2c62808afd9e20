"""HTML: one self-contained page from tables, text and figures.

`render` fills the template `page.html.jinja`. Everything is escaped.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

_LONGEST = 15  # rows; longer tables are folded


class Picture(NamedTuple):
    """A figure on a page.

    Attributes:
      svg: the figure as SVG.
      caption: text below it, and its alternative text.
    """

    svg: bytes
    caption: str


class Part(NamedTuple):
    """A part of a chapter. Everything is plain text, shown in the order below.

    Attributes:
      heading: above the part; "" for none.
      notes: highlighted paragraphs, such as that a run has not ended.
      paragraphs: paragraphs.
      table: strings, with their headings as columns; None for none. A table of many
        rows is folded until the reader opens it.
      kind: "" for a usual table; "numbers" if only headings may be broken into lines;
        "words" if cells contain sentences, which are broken into lines; "facts" for
        names and values without headings.
      pictures: figures.
      folded: summary and content of a preformatted text that the reader opens.
    """

    heading: str = ""
    notes: Sequence[str] = ()
    paragraphs: Sequence[str] = ()
    table: pd.DataFrame | None = None
    kind: str = ""
    pictures: Sequence[Picture] = ()
    folded: tuple[str, str] | None = None


class Chapter(NamedTuple):
    """A chapter of a page.

    Attributes:
      heading: above the chapter; "" for none.
      parts: what it contains.
    """

    heading: str
    parts: Sequence[Part]


def render(title: str, chapters: Sequence[Chapter]) -> str:
    """Renders a page.

    Args:
      title: plain text, also used as the heading.
      chapters: the content.

    Returns:
      HTML that refers to nothing outside itself.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["table_html"] = _table
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, chapters=chapters, longest=_LONGEST)


def _table(table: pd.DataFrame, kind: str) -> str:
    """Renders a table; pandas escapes its cells, so the template does not."""
    # pandas cuts cells at 50 characters by default.
    with pd.option_context("display.max_colwidth", None):
        return table.to_html(
            index=False, header=kind != "facts", border=0, classes=kind or None
        )
