"""Pages of studies of which only the first run, or one run, is measured."""

import importlib
import shutil
from pathlib import Path

import pytest

from experiments.studies import records
from jaxsparse.reports import plot_style

SCALE = "cifar16"
# Which of the first two runs has something to show without the other.
SHOWN = {
    "data_diet": [1],  # the first yields scores of examples
    "gradient_flow": [0, 1],
    "stable_imp": [1],  # the first is a dense network, beside which nothing is pruned
    "tost": [0, 1],
}


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("place", [0, 1])
def test_a_page_can_be_made_of_any_single_run(
    name: str,
    place: int,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some runs alone show nothing; none may keep other pages from being made."""
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")
    study = importlib.import_module(f"experiments.studies.{name}").STUDY
    kept = root / "experiments" / "results" / name / SCALE / "records"
    measured = [
        run
        for run in study.all_runs(SCALE)
        if records.path_of(kept, run).exists() and run.part == 1
    ]
    (tmp_path / "records").mkdir()
    shutil.copy(records.path_of(kept, measured[place]), tmp_path / "records")
    page = study.report(SCALE, tmp_path / "records", tmp_path / "page")
    assert page.exists()
    assert page.with_name("resnet8.md").exists() == (place in SHOWN[name]), page
