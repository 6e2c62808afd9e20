"""The page of the configs lists every recipe, and links to files that exist."""

import re
from pathlib import Path

import pages


def test_it_lists_every_recipe(root: Path) -> None:
    page = root / "configs" / "README.md"
    rows = [row for row in page.read_text().splitlines() if row.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`(\w+\.py)`", row)]
    assert sorted(listed) == sorted(path.name for path in page.parent.glob("*.py"))
    links = pages.links(page)
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
