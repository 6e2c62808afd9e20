"""The tables over all claims, made from tables of claims; no JAX, no training."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.studies import overview

HEADER = "verdict,claim,published,ours,effect,n\n"
STUDIES = (
    SimpleNamespace(name="tickets", paper="Able 2020", settings=("lenet", "resnet")),
    SimpleNamespace(name="diet", paper="Baker 2022", settings=("resnet",)),
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    files = {
        "tickets/cpu/lenet": 'reproduced (short),win,1.5,"2 | 3",gap: 1.5 (1 to 2),5\n'
        "not measured,last,,,,\n",
        "tickets/cpu/resnet": "unclear,win,1.5,0,-0.2,3\nnot measured,last,,,,\n",
        "diet/cifar16/resnet": "premise absent,early,,4,4 (3 to 5),5\n",
    }
    for name, rows in files.items():
        path = tmp_path / f"{name}_claims.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + rows)
    return tmp_path


def test_a_row_for_each_claim_and_a_column_for_each_scale(results: Path) -> None:
    table = overview.of_claims(STUDIES, results)
    wide, small = (overview.SCALES[scale] for scale in ("cifar16", "cpu"))
    assert [*table.columns] == ["Paper", "Claim", "Published", wide, small]
    win = (
        "LeNet-5, MNIST: **reproduced (short)**: 2 | 3; gap: 1.5 (1 to 2); n = 5<br>"
        "resnet: **unclear**: 0; -0.2; n = 3"
    )
    early = "**premise absent**: 4; 4 (3 to 5); n = 5"
    none = "not measured"
    assert table.to_numpy().tolist() == [
        ["Able 2020", "win", "1.5", none, win],
        ["Able 2020", "last", "", none, none],
        ["Baker 2022", "early", "", early, none],
    ]


def test_verdicts_are_counted_by_paper_and_scale(results: Path) -> None:
    counts = overview.of_verdicts(STUDIES, results).set_index("Paper")
    verdicts = ["reproduced", "contradicted", "unclear", "premise absent"]
    assert counts.loc["Able 2020", [*verdicts, "not measured"]].tolist() == [
        *("1", "0", "1", "0", "2")
    ]
    assert counts.loc["Baker 2022", verdicts].tolist() == ["0", "0", "0", "1"]


def test_only_the_part_between_the_comments_is_written(results: Path) -> None:
    page = results / "README.md"
    page.write_text("top\n<!-- claims -->\nold\n<!-- end of claims -->\nend \\1\n")
    assert overview.write(STUDIES, results)
    top, _, rest = page.read_text().partition("<!-- claims -->\n")
    content, _, end = rest.partition("<!-- end of claims -->")
    assert (top, end) == ("top\n", "\nend \\1\n")
    assert "old" not in content and r"2 \| 3" in content
    again = page.read_text()
    assert overview.write(STUDIES, results) and page.read_text() == again


def test_other_pages_are_left_alone(results: Path) -> None:
    assert not overview.write(STUDIES, results)
    (results / "README.md").write_text("mine")
    assert not overview.write(STUDIES, results)
    assert (results / "README.md").read_text() == "mine"


def test_the_committed_page_has_the_tables_of_the_committed_claims(root: Path) -> None:
    from experiments import studies

    text = (root / "experiments/results/README.md").read_text(encoding="utf-8")
    assert "| Paper | Claim | Published |" in text
    without = ("methods", "signs", "language_model")
    names = [name for name in studies.NAMES if name not in without]
    files = sorted((root / "experiments/results").glob("*/*/*_claims.csv"))
    assert {path.parts[-3] for path in files} == {*names}
    for path in files:
        for claim in pd.read_csv(path).itertuples():
            start = f"| {claim.claim} |"
            row = next(line for line in text.split("\n") if start in line)
            assert f"**{claim.verdict}**" in row or claim.verdict == "not measured"
