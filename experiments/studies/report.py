"""Report: the pages, tables and figures of a study.

`write` writes into a directory, for each setting, a page in Markdown, tables as CSV and
figures as PNG and SVG, and all of it as one self-contained `index.html`. Empty tables
and figures are left out.
"""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from experiments.studies import claims as claims_lib
from experiments.studies.claims import Judged
from jaxsparse import metrics_log
from jaxsparse.reports import folder as folder_lib
from jaxsparse.reports import formatting, html, page

_HEADINGS = {
    "verdict": "Verdict",
    "claim": "Claim",
    "statement": "Statement",
    "published": "Published",
    "threshold": "Threshold",
    "written": "Written",
    "premises": "Premises",
    "ours": "Ours",
    "effect": "Effect (90 % interval)",
    "n": "n",
    "p": "p (Holm)",
    "p_against": "p against (Holm)",
}
_NOTHING = "Nothing has been measured yet."


class Table(NamedTuple):
    """A table of strings.

    Attributes:
      heading: above it.
      note: one or two sentences about it; "" for none.
      shown: the strings, with their headings as columns.
      kind: see `html.Part`.
      long: whether it is shown after the figures.
    """

    heading: str
    note: str
    shown: pd.DataFrame
    kind: str = "numbers"
    long: bool = False


class Section(NamedTuple):
    """The results of a study on one setting.

    Attributes:
      name: such as "mnist"; the names of files begin with it.
      title: what was trained.
      lines: sentences below the title, such as how much of the published training
        there was.
      claims: judged claims; the first table shows them.
      about_claims: sentences after the number of verdicts, such as when the thresholds
        were written.
      tables: in the order of the page.
      frames: by name, tables that are kept as CSV with all digits; so are the claims.
      figures: by name, in the order of the page; None is left out.
      captions: captions by the names of figures; there may be more than figures.
    """

    name: str
    title: str
    lines: Sequence[str] = ()
    claims: Sequence[Judged] = ()
    about_claims: str = ""
    tables: Sequence[Table] = ()
    frames: Mapping[str, pd.DataFrame] = {}
    figures: Mapping[str, Figure | None] = {}
    captions: Mapping[str, str] = {}


def write(title: str, sections: Sequence[Section], folder: Path) -> Path:
    """Writes the report of a study.

    Args:
      title: title of the page of all sections.
      sections: in the order of the page.
      folder: directory to write into; created if needed. Tables and figures of these
        sections from an earlier report that no longer exist are deleted.

    Returns:
      The path of the page.

    Raises:
      ValueError: if the directory contains a page that no report has written.
    """
    folder_lib.check(folder)
    sections = [_prepare(section) for section in sections]
    chapters, names = [], set()
    for section in sections:
        files = {
            f"{section.name}_{name}.csv": page.to_csv(frame)
            for name, frame in section.frames.items()
        }
        files[f"{section.name}.md"] = _markdown(section)
        for name, content in files.items():
            metrics_log.write_atomically(folder / name, content)
        images = page.write_figures(section.figures, folder, prefix=f"{section.name}_")
        names |= files.keys()
        names |= {f"{section.name}_{n}.{kind}" for n in images for kind in _IMAGES}
        chapters.append(html.Chapter(section.title, _parts(section, images)))
    _delete_old(folder, sections, names)
    metrics_log.write_atomically(folder / "index.html", html.render(title, chapters))
    return folder / "index.html"


_IMAGES = ("png", "svg")


def _prepare(section: Section) -> Section:
    """Adds the table and the file of claims, and drops what is empty."""
    tables = [table for table in section.tables if table.shown.size]
    frames = {name: frame for name, frame in section.frames.items() if frame.size}
    figures = {name: one for name, one in section.figures.items() if one is not None}
    if section.claims:
        rows = pd.DataFrame([claims_lib.row(judged) for judged in section.claims])
        frames = {"claims": rows} | frames
        note = f"{_verdicts(section.claims)} {section.about_claims}".strip()
        tables.insert(0, Table("Claims", note, _show(rows), "words"))
    return section._replace(tables=tables, frames=frames, figures=figures)


def _show(rows: pd.DataFrame) -> pd.DataFrame:
    """Formats judged claims, each p-value with the corrected one in brackets."""
    shown = rows.astype(object)
    for name in ("p", "p_against"):
        pairs = zip(rows[name], rows[f"{name}_holm"], strict=True)
        shown[name] = [_with_corrected(*pair) for pair in pairs]
    return shown[list(_HEADINGS)].astype(str).rename(columns=_HEADINGS)


def _with_corrected(p: float | str, holm: float | str) -> str:
    """Formats a p-value; "" for a claim that is not measured."""
    if p == "":
        return ""
    return f"{p:.2g}" if holm == "" else f"{p:.2g} ({holm:.2g})"


def _verdicts(judged: Sequence[Judged]) -> str:
    """Counts the claims of each verdict, and says if the runs are short."""
    counts = collections.Counter(one.verdict for one in judged)
    listed = [f"{counts[v]} {v}" for v in claims_lib.VERDICTS if counts[v]]
    words = f"Verdicts: {', '.join(listed)}."
    if any(one.short for one in judged):
        words += (
            " All verdicts are marked as short: the runs have less than a third of "
            "the published length."
        )
    return f"{words} {_RULES}"


_RULES = (
    "Reproduced and contradicted: p < 0.05 after Holm's correction over the claims of "
    "this page whose premises are present, for the claim or against it. The effect is "
    "the tested quantity: its name, its estimate and the interval. Where a claim has "
    "several parts, it is the least clear of them. Intervals have 90 % confidence. See "
    "`experiments/studies/claims.py`."
)


def describe_interpolations(points: int, examples: int) -> str:
    """Describes the resolution at which copies were interpolated.

    Args:
      points: points on the interpolation.
      examples: training examples; 0 for all.
    """
    trained = f"the first {examples:,}" if examples else "all"
    return (
        f"Errors between copies are measured at {points} points of the interpolation "
        f"(30 in Frankle et al. 2020), those of training on {trained} examples."
    )


def _delete_old(folder: Path, sections: Sequence[Section], names: set[str]) -> None:
    """Deletes tables and figures of an earlier report that this one does not have."""
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


def _parts(section: Section, images: Mapping[str, bytes]) -> list[html.Part]:
    """Makes the parts of one section on the page of all sections."""

    def made(long: bool) -> list[html.Part]:
        return [
            html.Part(
                table.heading,
                paragraphs=[table.note] if table.note else [],
                table=table.shown,
                kind=table.kind,
            )
            for table in section.tables
            if table.long == long
        ]

    pictures = [html.Picture(images[n], section.captions[n]) for n in images]
    empty = not (section.tables or section.figures)
    return [
        html.Part(notes=[_NOTHING] if empty else [], paragraphs=section.lines),
        *made(long=False),
        *([html.Part("Figures", pictures=pictures)] if pictures else []),
        *made(long=True),
    ]
