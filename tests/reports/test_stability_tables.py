"""What a report says of children and of successive levels."""

import math

import pandas as pd
import pytest

from jaxsparse.reports import page, plot_style, stability
from jaxsparse.reports import records as records_lib

ALPHAS = [0.0, 0.5, 1.0]


def between(kind, stage, level, replicate, error, **more):
    rise = max(error) - (error[0] + error[-1]) / 2
    return {
        "kind": kind,
        "stage": stage,
        "level": level,
        "variant": "children",
        "replicate": replicate,
        "alphas": ALPHAS,
        "test_error": error,
        "test_instability": rise,
        "train_instability": rise / 2,
        "l2": 3.0 + replicate,
        "disagreement": 0.25,
    } | more


def children(level, start, replicate, error, pair=(0, 1), **more):
    stage = f"level_{level:02d}/children_{start:09d}"
    more["pair"] = list(pair)
    return between("child_barrier", stage, level, replicate, error, **more)


def verdict(level, start, stable, matching):
    place = {"stage": "", "level": level, "variant": "children", "start": start}
    return {"kind": "stability", **place, "stable": stable, "matching": matching}


@pytest.fixture
def made():
    """Children of two updates of two levels, of two replicates with two pairs each."""
    rows = []
    for level, start, height in ((0, 0, 0.3), (0, 50, 0.2), (1, 0, 0.1), (1, 50, 0.0)):
        for replicate in (0, 1):
            for pair in ((0, 1), (0, 2)):
                up = height + 0.02 * replicate + 0.04 * (pair[1] - 1)
                error = [0.1, 0.1 + up, 0.1]
                rows.append(children(level, start, replicate, error, pair))
        rows.append(verdict(level, start, height == 0, None if not level else True))
    for replicate in (0, 1):
        error = [0.1, 0.2 + 0.02 * replicate, 0.16]
        rows.append(between("level_barrier", "level_01/ticket", 1, replicate, error))
    return rows


@pytest.fixture
def run(make_run, records, made):
    return records_lib.read_runs([make_run("a", [*records, *made])])[0]


def test_pairs_are_averaged_before_replicates(run):
    table = stability.table(run, stability.COPIES)
    places = list(zip(table["level"], table["start"], strict=True))
    assert places == [(0, 0), (0, 50), (1, 0), (1, 50)]
    assert table["n"].tolist() == [2] * 4
    # Of the pairs of a replicate the mean is 0.02 above the first.
    assert table["test"].tolist() == pytest.approx([33, 23, 13, 3])
    assert table["test_sd"].tolist() == pytest.approx([math.sqrt(2)] * 4)
    assert table["train"].tolist() == pytest.approx([16.5, 11.5, 6.5, 1.5])
    assert table["l2"].tolist() == [3.5] * 4
    assert table["different"].tolist() == [25.0] * 4
    assert table["remaining"].tolist() == [100, 100, 80, 80]
    assert table["stable"].tolist() == [False, False, False, True]
    assert table["matching"].tolist() == [None, None, True, True]


def test_levels_rise_above_the_worse_of_both(run):
    table = stability.table(run, stability.LEVELS)
    assert table["level"].tolist() == [1]
    assert table["rise"].tolist() == pytest.approx([5.0])  # 4 and 6 points
    assert table["rise_sd"].tolist() == pytest.approx([math.sqrt(2)])
    assert table["test"].tolist() == pytest.approx([8.0])
    assert "stable" not in table


def test_the_last_record_of_a_pair_counts(make_run, records):
    rows = [children(0, 0, 0, [0.1, 0.9, 0.1]), children(0, 0, 0, [0.1, 0.3, 0.1])]
    run = records_lib.read_runs([make_run("a", [*records, *rows])])[0]
    table = stability.table(run, stability.COPIES)
    assert table["test"].tolist() == pytest.approx([20.0])
    # Runs of before verdicts were recorded have none.
    assert table["stable"].tolist() == [None]
    shown = stability.show(table)
    assert "Stable" not in shown
    assert shown["Instability, test (points)"].tolist() == ["20.00"]


def test_a_pair_that_diverged_has_no_distance(make_run, records):
    row = children(0, 0, 0, [0.9, 0.9, 0.9], l2=None)
    run = records_lib.read_runs([make_run("a", [*records, row])])[0]
    shown = stability.show(stability.table(run, stability.COPIES))
    assert shown["L2 distance"].tolist() == ["–"]


def test_verdicts_are_worded(run):
    shown = stability.show(stability.table(run, stability.COPIES))
    assert shown["Stable"].tolist() == ["no", "no", "no", "yes"]
    assert shown["Matching"].tolist() == ["–", "–", "yes", "yes"]
    assert shown["From update"].tolist() == ["0", "50", "0", "50"]


def test_figures_show_what_varies(run, make_run, records):
    drawn = stability.draw(run)
    assert set(drawn) == {"onset", "instability", "interpolation"}
    onset = drawn["onset"].axes[0].lines
    lines = [line.get_ydata() for line in onset if line.get_linestyle() != "None"]
    threshold, *wanted = ([2, 2], [33, 23], [13, 3])
    assert [*map(list, lines)] == [*map(pytest.approx, [*wanted, threshold])]
    assert [axes.get_title() for axes in drawn["interpolation"].axes] == [
        "level 0",
        "level 1",
    ]
    row = children(0, 0, 0, [0.1, 0.3, 0.1])
    single = records_lib.read_runs([make_run("single", [*records, row])])[0]
    assert set(stability.draw(single)) == {"interpolation"}
    plain = records_lib.read_runs([make_run("plain", records)])[0]
    assert stability.draw(plain) == {}


def test_the_page_has_tables_figures_and_files(
    make_run, records, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")
    out = tmp_path / "out"
    folders = [make_run("a", [*records, *made]), make_run("b", records)]
    content = page.write(folders, out).read_text()
    assert content.count("<h3>Stability</h3>") == 1
    assert content.count("<h3>From level to level</h3>") == 1
    assert "<td>33.00 ± 1.41</td>" in content
    assert (out / "run1_onset.svg").exists()
    assert not (out / "run2_onset.svg").exists()
    written = pd.read_csv(out / "child_barrier.csv")
    assert set(written["run"]) == {"a"}
    assert written["test"].tolist() == pytest.approx([33, 23, 13, 3])
    assert len(pd.read_csv(out / "level_barrier.csv")) == 1
