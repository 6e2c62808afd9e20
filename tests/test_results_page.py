"""The page of results copies its numbers from the committed pages."""

import re
from pathlib import Path

import pytest

RESULTS = Path("experiments") / "results"
# "**[Title](file)** text", up to the next blank line.
PARAGRAPH = re.compile(
    r"^\*\*\[[^]]*\]\(([^)]*)\).*?(?=\n\n)", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"-?\d+\.\d+ ± \d+\.\d+")


def paragraphs(root: Path) -> dict[str, str]:
    """The paragraphs of the page by the result that they link to."""
    text = (root / RESULTS / "README.md").read_text(encoding="utf-8")
    return {found[1]: found[0] for found in PARAGRAPH.finditer(text + "\n\n")}


def test_every_result_has_a_paragraph(root: Path) -> None:
    pages = {
        p.relative_to(root / RESULTS).as_posix()
        for p in root.glob(f"{RESULTS}/**/*.md")
        if p.parent.name != "earlier"  # kept, but superseded
    }
    assert {*paragraphs(root)} == pages - {"README.md"}


def test_numbers_are_those_of_the_results(root: Path) -> None:
    for page, text in paragraphs(root).items():
        numbers = {number.lstrip("-") for number in NUMBER.findall(text)}
        result = (root / RESULTS / page).read_text(encoding="utf-8")
        earlier = root / RESULTS / Path(page).parent / "earlier" / Path(page).name
        if earlier.exists():  # has what an older version measured and did not keep
            result += earlier.read_text(encoding="utf-8")
        missing = [number for number in numbers if number not in result]
        assert not missing, f"{page}: {missing}"
        assert numbers or page in ("benchmark-cpu.md", "changed_verdicts.md")


def test_verdicts_are_those_of_the_results(root: Path) -> None:
    for page, text in paragraphs(root).items():
        result = (root / RESULTS / page).read_text(encoding="utf-8")
        if verdicts := re.search(r"^Verdicts: (.*?)\.", result, re.MULTILINE):
            flat = (
                " ".join(text.split()).replace(" claims ", " ").replace(" claim ", " ")
            )
            assert verdicts[1] in flat, page


@pytest.mark.parametrize("number", ["1,806", "824", "3.90", "6.19", "158", "2,153"])
def test_speeds_are_those_of_the_benchmark(number: str, root: Path) -> None:
    assert number in paragraphs(root)["benchmark-cpu.md"]
    assert f" {number} " in (root / RESULTS / "benchmark-cpu.md").read_text("utf-8")
