"""Study: the report of a study, which tests a paper's claims on several networks.

`write` puts a page a section as Markdown, tables as CSV, figures as PNG and SVG, and
all of it as one self-contained `index.html` into a folder. A section is what a study
found on one network. What is empty is left out. What tables and figures say is the
business of the study; `study_figures` draws what several have in common.
"""

import collections
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import folder as folder_lib
from jaxsparse.reports import formatting, html, page

Claim = Mapping[str, Any]

VERDICTS = ("reproduced", "not reproduced", "unclear", "not measured")
KINDS = ("numbers", "words")
_HEADINGS = {
    "verdict": "Verdict",
    "name": "Claim",
    "statement": "Statement",
    "published": "Published",
    "threshold": "Threshold",
    "written": "Written",
    "ours": "Ours",
    "n": "n",
}
_NOTHING = "Nothing has been measured yet."


class Table(NamedTuple):
    """A table for people.

    Attributes:
      heading: above it.
      note: what to know about it, in a sentence or two; "" for nothing.
      shown: its text.
      kind: see `html.wide`.
      long: whether it comes after the figures.
    """

    heading: str
    note: str
    shown: pd.DataFrame
    kind: str = "numbers"
    long: bool = False


class Section(NamedTuple):
    """What a study found on one network.

    Attributes:
      name: such as "mnist": letters, digits, _ and - only, as files are named after it.
      title: what the network is called.
      lines: sentences under the title, such as how much of the published training
        there was.
      claims: see `read_claims`; a table of them comes first.
      about_claims: said after the number of verdicts, such as when thresholds were
        written.
      tables: in the order of the page.
      frames: by name, what is kept as CSV with all digits; the claims are so anyway.
      figures: by name, in the order of the page; None is left out.
      captions: of the figures, by name; there may be more than figures.
    """

    name: str
    title: str
    lines: Sequence[str] = ()
    claims: Sequence[Claim] = ()
    about_claims: str = ""
    tables: Sequence[Table] = ()
    frames: Mapping[str, pd.DataFrame] = {}
    figures: Mapping[str, Figure | None] = {}
    captions: Mapping[str, str] = {}


def write(title: str, sections: Sequence[Section], out: str | os.PathLike[str]) -> Path:
    """Writes the report of a study.

    Args:
      title: of the page of all sections.
      sections: in the order of the page. Those without anything say so.
      out: folder to write into; made if need be. Tables and figures of these sections
        from an earlier report that this one has not are deleted.

    Returns:
      The page's path.

    Raises:
      ValueError: for claims that `read_claims` refuses, a figure without a caption, a
        kind of table that is not known, and names that are no names of files or come
        twice, and if `out` has a page that no report has written; nothing is written
        then.
    """
    sections = [_read(section) for section in sections]
    names = _file_names(sections)
    folder = Path(out)
    folder_lib.check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    body = []
    for section in sections:
        for name, frame in section.frames.items():
            content = frame.to_csv(index=False, lineterminator="\n")
            html.replace(folder / f"{section.name}_{name}.csv", content)
        images = page.write_figures(section.figures, folder, prefix=f"{section.name}_")
        html.replace(folder / f"{section.name}.md", _markdown(section))
        body.append(_html(section, images))
    _tidy(folder, sections, names)
    html.replace(folder / "index.html", html.document(title, "".join(body)))
    return folder / "index.html"


def read_claims(where: str, claims: Sequence[Any]) -> list[dict[str, str]]:
    """Makes text on one line of claims.

    Args:
      where: what to call the section in errors.
      claims: each with a verdict, one of `VERDICTS`, and perhaps name, statement,
        published, threshold, written (when the threshold was), ours and n.

    Returns:
      The claims with all of these fields in the order of their table, "" for what is
      missing, None or NaN, and no others.

    Raises:
      ValueError: for a verdict that is not known, or a claim without fields.
    """
    made = []
    for place, claim in enumerate(claims):
        here = f"{where}.claims[{place}]"
        if not isinstance(claim, Mapping):
            raise ValueError(
                f"{here}: {str(claim)[:40]!r}; wanted an object with named fields; "
                "leave it out if there is nothing to say"
            )
        if claim.get("verdict") not in VERDICTS:
            raise ValueError(
                f"{here}.verdict: {claim.get('verdict')!r}; wanted one of {VERDICTS}; "
                "choose one"
            )
        made.append({name: _on_one_line(claim.get(name)) for name in _HEADINGS})
    return made


def check_name(name: str, what: str) -> None:
    """Refuses what cannot be part of a file's name, called `what` in the error."""
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(
            f"{name!r}: as {what}; wanted letters, digits, _ and - only; rename it, as "
            "files are named after it"
        )


def _on_one_line(value: Any) -> str:
    """Writes a field of a claim."""
    missing = value is None or (isinstance(value, float) and pd.isna(value))
    return "" if missing else " ".join(str(value).split())


def _read(section: Section) -> Section:
    """Checks a section, adds the claims' table and file, and drops what is empty."""
    check_name(section.name, "a section")
    claims = read_claims(section.name, section.claims)
    tables = [table for table in section.tables if table.shown.size]
    frames = {name: frame for name, frame in section.frames.items() if frame.size}
    drawn = {name: one for name, one in section.figures.items() if one is not None}
    for table in tables:
        if table.kind not in KINDS:
            raise ValueError(
                f"{section.name}, table {table.heading}: {table.kind!r}; wanted one of "
                f"{KINDS}; choose one"
            )
    for name in (*frames, *drawn):
        check_name(name, f"a table or figure of {section.name}")
    for name in drawn:
        if not section.captions.get(name):
            raise ValueError(
                f"{section.name}, figure {name}: no caption; wanted a sentence; add it "
                "to captions"
            )
    if claims:
        if "claims" in frames:
            raise ValueError(
                f"{section.name}, frame claims: there are claims too; wanted one table "
                "of this name; rename the frame"
            )
        shown = pd.DataFrame(claims)
        frames = {"claims": shown} | frames
        words = f"{_verdicts(claims)} {section.about_claims}".strip()
        shown = shown.rename(columns=_HEADINGS)
        tables.insert(0, Table("Claims", words, shown, "words"))
    return section._replace(claims=claims, tables=tables, frames=frames, figures=drawn)


def _verdicts(claims: Sequence[Claim]) -> str:
    """Says in a sentence how many claims came to each verdict."""
    counts = collections.Counter(claim["verdict"] for claim in claims)
    words = ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])
    return f"Verdicts: {words}."


def _file_names(sections: Sequence[Section]) -> set[str]:
    """Lists the files of all sections, each of which is one's own."""
    names = [f"{section.name}.md" for section in sections]
    for section in sections:
        names += [f"{section.name}_{name}.csv" for name in section.frames]
        for kind in ("png", "svg"):
            names += [f"{section.name}_{name}.{kind}" for name in section.figures]
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(
                f"{name}: {count} times; wanted one file of a name; rename a section, "
                "table or figure"
            )
    return set(names)


def _tidy(folder: Path, sections: Sequence[Section], names: set[str]) -> None:
    """Deletes tables and figures of an earlier report that this one has not."""
    for section in sections:
        for path in folder.glob(f"{section.name}_*"):
            ours = path.suffix in (".csv", ".png", ".svg", ".md")
            if ours and path.name not in names:
                path.unlink()


def _markdown(section: Section) -> str:
    """Writes the page of one section, for readers of the repository."""
    parts = [f"# {section.title}\n", *(f"{line}\n" for line in section.lines)]

    def add(long: bool) -> None:
        for table in section.tables:
            if table.long == long:
                content = formatting.markdown(table.shown)
                blocks = (f"## {table.heading}", table.note, content)
                parts.append("\n\n".join(block for block in blocks if block))

    add(long=False)
    for name in section.figures:
        caption = section.captions[name]
        parts.append(f"![{caption}]({section.name}_{name}.png)\n\n{caption}\n")
    add(long=True)
    if not (section.tables or section.figures):
        parts.append(f"{_NOTHING}\n")
    return "\n".join(parts)


def _html(section: Section, images: Mapping[str, bytes]) -> str:
    """Writes what the page of all sections says about one."""
    parts = [f"<h2>{escape(section.title)}</h2>\n"]
    parts += [f"<p>{escape(line)}</p>\n" for line in section.lines]

    def add(long: bool) -> None:
        for table in section.tables:
            if table.long == long:
                parts.append(f"<h3>{escape(table.heading)}</h3>\n")
                parts.append(f"<p>{escape(table.note)}</p>\n" if table.note else "")
                parts.append(html.wide(table.shown, kind=table.kind))

    add(long=False)
    if images:
        parts.append("<h3>Figures</h3>\n")
    parts += [html.picture(images[name], section.captions[name]) for name in images]
    add(long=True)
    if not (section.tables or section.figures):
        parts.append(f"<p><strong>{_NOTHING}</strong></p>\n")
    return "".join(parts)
