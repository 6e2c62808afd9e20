"""Folder: whether a report may be written into a directory."""

from pathlib import Path

GENERATOR = '<meta name="generator" content="jaxsparse">'  # in `page.html.jinja`
# The start of pages of older versions, which had no generator.
_OLD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, init'
)


def check(folder: Path) -> None:
    """Checks that a directory has no `index.html` but that of an earlier report.

    Args:
      folder: directory of the report; it may be missing.

    Raises:
      ValueError: if there is another page; the message names the file.
      OSError: if the file cannot be read.
    """
    page = folder / "index.html"
    if not page.exists():
        return
    with page.open(encoding="utf-8", errors="replace") as file:
        start = file.read(1000)
    if GENERATOR not in start and not start.startswith(_OLD):
        raise ValueError(
            f"{page}: expected no file or the page of an earlier report, got another "
            "file; move it away, or choose another folder (report.py --out=DIR)"
        )
