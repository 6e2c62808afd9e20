"""The page of results copies its numbers from the committed pages."""

import csv
import json
import re
from pathlib import Path

import pytest

from experiments.benchmarks import timing

RESULTS = Path("experiments") / "results"
# "**[Title](file)** text", with the paragraphs up to the next title, command or table.
PARAGRAPH = re.compile(
    r"^\*\*\[[^]]*\]\(([^)]*)\).*?(?=\n\n(?:\*\*|##|`python|\||\Z))",
    re.MULTILINE | re.DOTALL,
)
# Numbers of the pages whose numbers are no means over seeds.
SPEEDS = {
    "benchmark-cpu-before.md": (),
    "benchmark-cpu-epyc.md": (
        *("4.95", "9.43", "101.8", "1.44", "0.664", "18.3", "1.24", "46.5", "2,309"),
        *("319", "1.04", "0.98", "2.16", "95.20"),
    ),
    "benchmark-cpu.md": (),
    "benchmark-cpu-reproduction-before.md": ("329", "336"),
    "benchmark-cpu-reproduction-now.md": ("110", "192"),
    "benchmark-cpu-five-seeds.md": ("48", "50", "101", "111", "1.95", "2.14"),
    "benchmark-cpu-reproduction.md": ("175", "105", "122", "78", "212", "278", "669"),
    "compaction-cpu.md": (
        *("3.88", "3.06", "4.21", "77.7", "23.6", "34.6", "43.6", "98.22", "94.37"),
        *(
            "1.11",
            "0.89",
            "1.17",
            "1.09",
            "1.27",
            "0.86",
            "0.73",
            "1.01",
            "0.94",
            "0.91",
            "1.05",
            "73.3",
            "93.35",
            "79.56",
        ),
    ),
    "flops-resnet50.md": ("0.244", "0.495", "0.399", "0.515"),
    "inference-cpu.md": (
        *("3.95", "1.44", "1.73", "2.17", "4.46", "1.56", "5.06", "0.49", "2.22"),
        *("37.5", "15.0"),
    ),
}
# Below the table of speeds before and now.
BELOW = ("65.9", "21.7", "10.7", "5.6", "15.2", "3.8")
BELOW += ("0.953", "2.10 (1.38 to 2.98)", "1.12 (1.04 to 1.16)", "144", "2.66")
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
        assert numbers or page in SPEEDS or page == "changed_verdicts.md"


def test_verdicts_are_those_of_the_results(root: Path) -> None:
    for page, text in paragraphs(root).items():
        result = (root / RESULTS / page).read_text(encoding="utf-8")
        if verdicts := re.search(r"^Verdicts: (.*?)\.", result, re.MULTILINE):
            flat = (
                " ".join(text.split()).replace(" claims ", " ").replace(" claim ", " ")
            )
            assert verdicts[1] in flat, page


@pytest.mark.parametrize("page", SPEEDS)
def test_speeds_are_those_of_the_page(page: str, root: Path) -> None:
    text = (root / RESULTS / page).read_text(encoding="utf-8")
    for number in SPEEDS[page]:
        assert number in paragraphs(root)[page]
        # The whole number, not a part of one with more digits.
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d|[.,]\d)", text), number


def ratios_before(root: Path) -> set[str]:
    """The ratios that today's page has in its summary, of the measurements before."""
    path = root / RESULTS / "benchmark-cpu-before.json"
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    twenty = tables["Gradients of convolutions: resnet_20, batch 128, 20 % of weights"]
    eight = tables["ResNet-8, width 8, images of 16 x 16 x 3"]["milliseconds"]
    job = tables["lth_digits: a run of 21 levels"]["share"]
    rates = twenty["rates"]
    found = (
        (timing.ratios(rates["explicit, scan of 5"], rates["PyTorch"]), 3),
        (timing.ratios(eight["1 replicate"], eight["PyTorch"]), 2),
        (job["not training"], 3),
    )
    return {timing.format_spread(values, digits) for values, digits in found}


def test_speeds_before_and_now_are_those_of_the_pages(root: Path) -> None:
    text = (root / RESULTS / "README.md").read_text(encoding="utf-8")
    table = text.partition("| work | before | now | aim |")[2].partition("\n\n")[0]
    lines = [line.split(" | ")[1:3] for line in table.splitlines()[2:]]
    assert len(lines) > 15
    before, now = ({*cells} for cells in zip(*lines, strict=True))
    assert {"not measured"} | ratios_before(root) < before
    before -= {"not measured"} | ratios_before(root)
    below = text.partition("Medians with the range over 3 or 5 turns")[2]
    assert all(number in below.partition("**[")[0] for number in BELOW)
    now |= {*BELOW}
    pages = {"benchmark-cpu-before.md": before, "benchmark-cpu.md": now}
    for page, cells in pages.items():
        found = (root / RESULTS / page).read_text(encoding="utf-8")
        for cell in cells:
            for number in cell.split(", packed "):
                assert re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d)", found), cell


@pytest.mark.parametrize(
    ("label", "page", "count"),
    [("Predictions", "inference-cpu.md", 3), ("Compaction", "compaction-cpu.md", 5)],
)
def test_speeds_in_the_readme_are_those_of_the_page(
    label: str, page: str, count: int, root: Path
) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    sentences = re.search(rf"^- {label}: (.*?)^- ", text, re.MULTILINE | re.DOTALL)
    assert sentences and f"({RESULTS.as_posix()}/{page})" in sentences[1]
    numbers = re.findall(r"\d+\.\d+", sentences[1])
    assert len(numbers) == count and {*numbers} <= {*SPEEDS[page]}


def test_every_effect_on_the_pages_says_what_was_tested(root: Path) -> None:
    rows = [
        row
        for path in root.glob(f"{RESULTS}/**/*_claims.csv")
        if "earlier" not in path.parts
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    ]
    effects = [row["effect"] for row in rows if row["effect"]]
    assert all(": " in effect for effect in effects)
    named = [effect.partition(": ")[0] for effect in effects]
    assert len(named) > 100 and all(re.search("[a-z]", name) for name in named)
    assert all(not row["effect"] for row in rows if row["verdict"] == "not measured")
