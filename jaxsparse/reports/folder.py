"""Folder: where a report goes, and whether it may."""

from pathlib import Path

GENERATOR = '<meta name="generator" content="jaxsparse">'
# How pages began before they said what wrote them.
_OLD = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, init'


def check(folder: Path) -> None:
    """Refuses a folder whose `index.html` was not written by a report.

    Args:
      folder: where a report is to go; it may not exist.

    Raises:
      ValueError: naming the file.
      OSError: if the file cannot be read.
    """
    page = folder / "index.html"
    if not page.exists():
        return
    with page.open(encoding="utf-8", errors="replace") as file:
        start = file.read(1000)
    old = f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{_OLD}'
    if GENERATOR not in start and not start.startswith(old):
        raise ValueError(
            f"{page}: expected no file or the page of an earlier report, got another "
            "file; move it away, or choose another folder (report.py --out=DIR)"
        )
