"""HTML: a self-contained page, its pictures and tables, and files written whole."""

import base64
import os
from html import escape
from pathlib import Path

import pandas as pd

from jaxsparse.reports import folder as folder_lib
from jaxsparse.reports import formatting

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
h2 { border-bottom: 1px solid #ccc; padding-bottom: .3rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #222; } td { border-bottom: 1px solid #e5e5e5; }
table.facts td { text-align: left; white-space: pre-wrap; overflow-wrap: anywhere; }
table.words th, table.words td { text-align: left; white-space: normal;
  vertical-align: top; }
table.numbers th { white-space: normal; vertical-align: bottom; }
table.numbers th, table.numbers td { padding: .2rem .3rem; }
img { max-width: 100%; height: auto; } figure { margin: 1.5rem 0; }
figcaption { color: #555; } summary { cursor: pointer; margin: .5rem 0; }
p.note { background: #fff3cd; padding: .6rem 1rem; border-left: .3rem solid #e69f00; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; }
"""
_LONG = 15  # rows; tables with more are folded


def replace(path: Path, content: bytes | str) -> None:
    """Writes a file so that no reader ever sees half of it."""
    if isinstance(content, str):
        content = content.encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def document(title: str, body: str) -> str:
    """Writes a page around its body.

    Args:
      title: plain text, for the heading too.
      body: HTML.

    Returns:
      HTML that refers to nothing outside itself if its body does not.
    """
    title = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{folder_lib.GENERATOR}\n"
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )


def picture(image: bytes, caption: str) -> str:
    """Embeds an SVG under its caption."""
    data = base64.b64encode(image).decode()
    caption = escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">\n'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def wide(shown: pd.DataFrame, *, kind: str = "") -> str:
    """Lays out a table that may be wider than the page.

    Args:
      shown: text with headings.
      kind: "words" where cells hold sentences, which are then broken into lines, and
        "numbers" where only headings are to be broken.

    Returns:
      HTML; a table of many rows is folded until the reader opens it.
    """
    table = f'<div class="wide">{formatting.html(shown, kind=kind)}</div>\n'
    if len(shown) <= _LONG or kind == "words":
        return table
    return f"<details><summary>{len(shown)} rows</summary>\n{table}</details>\n"
