import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from jaxsparse.reports import page, plot_style


def joined(content):
    """The page without white space between its elements."""
    return re.sub(r">\s+<", "><", content)


ENVIRONMENT = {
    "command": "python train.py --config.name='<b>'",
    "versions": {"jax": "0.10.2"},
    "devices": ["cpu:0"],
    "commit": "abc123",
}


@pytest.fixture
def unrendered(monkeypatch):
    """Saves the seconds that pictures take, where nobody looks at them."""
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")


def test_the_page_says_what_was_run_and_found(make_run, records, tmp_path):
    config = {"model": {"name": "<script>alert(1)</script>"}}
    folder = make_run("a", records, config=config, environment=ENVIRONMENT)
    out = tmp_path / "out"
    written = page.write([folder], out)
    content = written.read_text()
    assert written == out / "index.html"
    for wanted in (
        "<td>91.00 ± 1.00</td>",
        "<td>93.00 ± 1.00</td>",
        "<td>2.50 ± 0.71</td>",  # (92 - 90 and 94 - 91) points
        "python train.py --config.name='&lt;b&gt;'",
        "0.10.2",
        "abc123",
        "1.50 h",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
    ):
        assert wanted in content
    assert "<script" not in content
    assert content.count("data:image/svg+xml;base64,") == 4
    assert "http" not in content


@pytest.mark.usefixtures("unrendered")
def test_tables_and_figures_lie_beside_the_page(make_run, records, tmp_path):
    page.write([make_run("a", records)], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {"accuracy", "early_stop", "layers", "curves"}
    assert names == {"index.html", "levels.md", "levels.csv"} | {
        f"{name}.{kind}" for name in figures for kind in ("png", "svg")
    }
    table = pd.read_csv(tmp_path / "out" / "levels.csv")
    assert table["test_accuracy_percent"].tolist() == pytest.approx(
        [91.0, 93.0, 90.5, 90.5]
    )
    markdown = (tmp_path / "out" / "levels.md").read_text()
    assert "| ticket | 1 | 80.0 | 3 | 93.00 ± 1.00 | 200 ± 100 |" in markdown


@pytest.mark.usefixtures("unrendered")
def test_broken_replicates_are_left_out_and_named(make_run, records, tmp_path):
    note = "Left out because of a non-finite loss:"
    whole = page.write([make_run("whole", records)], tmp_path / "whole_out")
    assert note not in whole.read_text()
    where = {"stage": "level_01/ticket", "level": 1, "variant": "ticket"}
    failed = {"kind": "failed", **where, "replicate": 2, "step": 200, "epoch": 4.0}
    content = page.write([make_run("a", [*records, failed])], tmp_path / "out")
    found = content.read_text()
    assert f"{note} replicate 2 in level_01/ticket, by update 200.<" in found
    markdown = (tmp_path / "out" / "levels.md").read_text()
    # Of 92, 94 and 93 % the last is missing; the level before is whole.
    assert "| ticket | 1 | 80.0 | 2 | 93.00 ± 1.41 | 150 ± 71 |" in markdown
    assert "| ticket | 0 | 100 | 3 | 91.00 ± 1.00 | 200 ± 100 |" in markdown
    assert "<td>93.00 ± 1.41</td>" in found


@pytest.mark.usefixtures("unrendered")
def test_several_runs_are_compared(make_run, records, tmp_path):
    folders = [
        make_run("a", records, config={"lr": 0.1, "same": 1}),
        make_run("b & c", records, config={"lr": 0.2, "same": 1}),
    ]
    content = page.write(folders, tmp_path / "out").read_text()
    assert "<td>lr</td><td>0.1</td><td>0.2</td>" in joined(content)
    assert "<td>same</td>" not in content
    assert "<p>b &amp; c, " in content
    assert (tmp_path / "out" / "comparison.svg").exists()
    assert (tmp_path / "out" / "run2_accuracy.png").exists()


@pytest.mark.usefixtures("unrendered")
def test_a_run_without_levels_says_so(make_run, records, tmp_path):
    begun = [record for record in records if record["kind"] in ("train", "eval")]
    content = page.write([make_run("a", begun)], tmp_path / "out").read_text()
    assert "No level has finished yet." in content
    assert "data:image/svg+xml" in content  # its curves
    assert "No level" in (tmp_path / "out" / "levels.md").read_text()


@pytest.mark.usefixtures("unrendered")
def test_a_run_that_only_has_a_config(make_run, tmp_path):
    folder = make_run("a", [])
    (folder / "metrics.jsonl").unlink()
    content = page.write([folder], tmp_path / "out").read_text()
    assert "No level has finished yet." in content
    assert "not recorded" in content


@pytest.mark.usefixtures("unrendered")
def test_a_ticket_without_controls(make_run, records, tmp_path):
    alone = [record for record in records if record["variant"] == "ticket"]
    content = page.write([make_run("a", alone)], tmp_path / "out").read_text()
    assert "93.00 ± 1.00" in content
    assert "minus control" not in content


@pytest.mark.usefixtures("unrendered")
def test_controls_without_their_ticket(make_run, records, tmp_path):
    alone = [record for record in records if record["variant"] == "dense_continued"]
    content = page.write([make_run("a", alone)], tmp_path / "out").read_text()
    assert "90.50 ± 0.71" in content


@pytest.mark.usefixtures("unrendered")
def test_a_failed_write_leaves_the_old_page(make_run, records, tmp_path, monkeypatch):
    folder, out = make_run("a", records), tmp_path / "out"
    before = page.write([folder], out).read_bytes()

    def fail(*_):
        raise OSError(28, "no space")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        page.write([folder], out)
    assert (out / "index.html").read_bytes() == before


def command(root, *arguments):
    return subprocess.run(
        [sys.executable, str(root / "experiments" / "report.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )


def test_the_command(root, make_run, records):
    """Its refusals are in tests/test_command_line.py."""
    folder = make_run("a", records)
    done = command(root, str(folder))
    assert done.returncode == 0, done.stderr
    assert "93.00 ± 1.00" in done.stdout
    assert f"page: {folder / 'report' / 'index.html'}" in done.stdout
    assert json.loads((folder / "config.json").read_text()) == {"levels": 3}
