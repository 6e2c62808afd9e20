import math
import re

import numpy as np
import pandas as pd
import pytest

from jaxsparse.reports import (
    figures,
    formatting,
    method_figures,
    method_names,
    methods,
    page,
    plot_style,
    report_figures,
)
from jaxsparse.reports import records as records_lib

TOTAL = 1000


def settings(method="none", **sparse):
    return {
        "lottery": {"levels": 0},
        "model": {"features": None},
        "sparse": {"method": method, "distribution": None, "sparsity": 0.9} | sparse,
    }


LOTTERY = {"lottery": {"levels": 3}}
NAMED = [
    (settings(), "dense"),
    ({"levels": 3}, "dense"),
    (settings() | {"model": {"features": [8, 8]}}, "dense, features 8-8"),
    (LOTTERY, "lottery tickets"),
    (settings("static", pai_score="random"), "random (ERK)"),
    (settings("static", pai_score="random", distribution="er"), "random (ER)"),
    (settings("static", pai_score="snip"), "SNIP"),
    (settings("static", pai_score="snip", score_iterations=20), "SNIP (20 iterations)"),
    (settings("static", pai_score="grasp"), "GraSP"),
    (settings("static", pai_score="grasp_absolute"), "GraSP |.|"),
    (settings("static", pai_score="synflow", score_iterations=100), "SynFlow"),
    (settings("static", pai_score="magnitude"), "magnitude at init"),
    (
        settings("static", pai_score="magnitude", distribution="er"),
        "magnitude at init (ER)",
    ),
    (settings("gmp"), "GMP"),
    (settings("gmp", distribution="global"), "GMP (global)"),
    (settings("set"), "SET"),
    (settings("set", distribution="er"), "SET"),
    (settings("rigl"), "RigL (ERK)"),
    (settings("rigl", distribution="uniform"), "RigL (uniform)"),
    (settings("rigl", grow="inverted"), "RigL inverted"),
    (settings("rigl", structure="groups 4"), "RigL (ERK, groups 4)"),
    (settings("snfs"), "SNFS"),
    (settings("granet"), "GraNet"),
    (settings("east", grow="random"), "EAST random"),
    (settings("mest"), "MEST"),
    (settings("ac_dc"), "AC/DC"),
    (settings("ste"), "straight-through"),
    (settings("top_kast"), "Top-KAST"),
    (settings("sr_ste"), "SR-STE"),
    (settings("mine"), "mine"),
]


@pytest.mark.parametrize(("config", "called"), NAMED)
def test_labels(config, called):
    assert method_names.of_run(records_lib.RunRecords("a", config, {}, [])) == called


def test_labels_tell_runs_apart_by_sparsity_and_then_by_name():
    configs = {
        "a": settings("set"),
        "b": settings("set", sparsity=0.98),
        "c": settings("set"),
        "d": settings("gmp"),
        "e": settings("gmp"),
        "f": settings("mest", sparsity=0.5),
    }
    runs = [
        records_lib.RunRecords(name, config, {}, []) for name, config in configs.items()
    ]
    assert list(method_names.of_runs(runs).values()) == [
        "SET, 90 %, a",
        "SET, 98 %",
        "SET, 90 %, c",
        "GMP, d",
        "GMP, e",
        "MEST",
    ]


def ended(kept, accuracy, *, replicate=0, live=None, layers=None, total=TOTAL, level=0):
    """The record of a run's end."""
    return {
        "kind": "level",
        "stage": f"level_{level:02d}/ticket",
        "level": level,
        "variant": "ticket",
        "replicate": replicate,
        "step": 400,
        "kept": kept,
        "total": total,
        "density": kept / total,
        "effective_params": live,
        "layers": layers or {"dense1/kernel": [kept, total]},
        "test_accuracy": accuracy,
        "early_stop_step": 100 * (replicate + 1),
        "early_stop_test_accuracy": accuracy - 0.01,
    }


def counted(step, kept, ever, *, replicate=0, layers=None):
    """The record of the masks at an evaluation."""
    return {
        "kind": "mask_stats",
        "stage": "level_00/ticket",
        "level": 0,
        "variant": "ticket",
        "replicate": replicate,
        "step": step,
        "epoch": step / 50,
        "kept": kept,
        "total": TOTAL,
        "ever_active": ever,
        "layers": layers or {"dense1/kernel": [kept, TOTAL]},
    }


def run(name, config, *records):
    return records_lib.RunRecords(name, config, {}, list(records))


RIGL = run(
    "rigl-1",
    settings("rigl"),
    counted(0, 100, 100),
    counted(0, 100, 100, replicate=1),
    counted(200, 100, 130),
    counted(400, 100, 150),
    counted(400, 100, 190),  # written again by a relaunched run
    counted(400, 100, 210, replicate=1),
    ended(100, 0.90, live=80),
    ended(100, 0.92, live=60, replicate=1),
)
DENSE = run("dense-1", settings(), ended(TOTAL, 0.95, live=TOTAL))
SNIP = run("snip-1", settings("static", pai_score="snip"), ended(100, 0.93))
TICKETS = run(
    "lth-1",
    LOTTERY,
    ended(TOTAL, 0.96),
    ended(200, 0.99, level=1),
    ended(20, 0.80, level=2),
)
RUNS = [TICKETS, RIGL, DENSE, SNIP]


def test_one_row_a_run_by_sparsity_and_then_by_accuracy():
    table = methods.methods_table(RUNS)
    assert list(table.columns) == list(methods.COLUMNS)
    assert list(table["run"]) == ["dense-1", "snip-1", "rigl-1", "lth-1"]
    assert list(table["n"]) == [1, 1, 2, 1]
    assert table["sparsity"].tolist() == pytest.approx([0.0, 90.0, 90.0, 98.0])
    rigl = table.iloc[2]
    assert rigl["kept"] == 100
    assert math.isclose(rigl["test_accuracy"], 91.0)
    assert math.isclose(rigl["test_accuracy_sd"], math.sqrt(2))
    assert math.isclose(rigl["effective_sparsity"], 93.0)
    assert math.isclose(rigl["explored"], 20.0)


def test_what_was_not_recorded_is_missing():
    table = methods.methods_table([SNIP, TICKETS])
    assert table[["effective_sparsity", "explored"]].isna().all(axis=None)
    without = {k: v for k, v in SNIP.records[0].items() if k != "effective_params"}
    older = SNIP._replace(config={}, records=[without])
    assert methods.methods_table([older])["effective_sparsity"].isna().all()
    nothing = DENSE._replace(records=[])
    assert methods.methods_table([nothing]).empty
    assert methods.exploration_table([nothing]).empty
    assert methods.densities_table([nothing]).empty
    assert methods.history_table(nothing).empty
    shown = formatting.show_methods(
        methods.methods_table([DENSE, TICKETS._replace(name="b")])
    )
    assert "Ever active (%)" not in shown
    assert list(shown["Effective sparsity (%)"]) == ["0", "–"]


@pytest.mark.parametrize(
    ("sparsities", "groups"),
    [
        ([], []),
        ([90.0, 0.0, 90.06, 89.97], [1, 0, 1, 1]),
        ([90.0, 90.2, 90.1], [0, 1, 0]),
        ([98.0, 98.1], [0, 0]),
        ([99.9, 99.95], [0, 1]),
        ([100.0, 100.0], [0, 0]),
    ],
)
def test_groups_of_the_same_sparsity(sparsities, groups):
    found = methods.sparsity_groups(pd.Series(sparsities, dtype=float))
    assert found.tolist() == groups


def test_the_frame_of_mask_stats_keeps_the_last_record():
    frame = records_lib.frame([RIGL], "mask_stats")
    assert len(frame) == 5
    again = frame.query("step == 400 and replicate == 0")
    assert again["ever_active"].tolist() == [190.0]


def test_exploration_over_steps():
    table = methods.exploration_table([DENSE, RIGL])
    assert list(table["step"]) == [0, 0, 200, 400, 400]
    assert list(table["replicate"]) == [0, 1, 0, 0, 1]
    assert table["explored"].tolist() == pytest.approx([10, 10, 13, 19, 21])
    assert set(table["label"]) == {"RigL (ERK)"}


def test_methods_without_a_memory_explored_nothing_that_is_known():
    records = [counted(step, kept, None) for step, kept in enumerate([500, 300, 100])]
    table = methods.exploration_table([run("a", settings("gmp"), *records)])
    assert table.empty


def layers(*kept):
    names = ("conv1/kernel", "conv10/kernel", "conv2/kernel", "head/kernel", "a/b")
    return {name: [k, 100] for name, k in zip(names, kept, strict=False)}


def test_long_names_have_room_beside_and_below_densities():
    layers = ["all layers", "dense1/kernel", "head/kernel"]
    for count in (2, 4):  # below the figure, and beside it
        names = [
            f"random + ToST (swish neurons, label smoothing 0.{i})" * 2
            for i in range(count)
        ]
        table = pd.DataFrame(20.0, range(count), layers)
        figure = method_figures.densities(table, names=names, title="t")
        figure.draw_without_rendering()  # it warns where there is no room for the axes
        whole = figure.bbox
        for label in (
            *figure.axes[0].get_xticklabels(),
            *figure.axes[0].get_yticklabels(),
        ):
            box = label.get_window_extent()
            assert box.x0 >= whole.x0 and box.y0 >= whole.y0, label.get_text()


def numbers(axes):
    """Row, column and text of every number on a heat map."""
    return {
        (int(one.get_position()[1]), int(one.get_position()[0]), one.get_text())
        for one in axes.texts
        if one.get_text()
    }


def test_densities_come_in_the_order_of_the_network():
    a = run("a", settings("gmp"), ended(250, 0.9, layers=layers(90, 30, 0, 100)))
    b = run("b", settings("set"), ended(250, 0.8, layers={"other": [1, 4]}))
    table = methods.densities_table([b, DENSE, a])
    assert list(table.index) == ["a", "b"]
    assert list(table.columns) == [
        *("all layers", "conv1/kernel", "conv2/kernel", "conv10/kernel"),
        *("other", "head/kernel"),
    ]
    assert table.loc["a"].dropna().tolist() == pytest.approx([25, 90, 0, 30, 100])
    assert table.loc["b"].dropna().tolist() == pytest.approx([25, 25])
    figure = method_figures.densities(table, names=["GMP", "SET"], title="t")
    # Layers are rows, "a" and "b" columns.
    assert numbers(figure.axes[0]) == {
        *((0, 0, "25.0"), (0, 1, "25.0"), (1, 0, "90.0"), (2, 0, "0")),
        *((3, 0, "30.0"), (4, 1, "25.0"), (5, 0, "100")),
    }
    assert plot_style.render(figure, file_format="svg")
    many = table.loc[["a"] * 6 + ["b"]]
    figure = method_figures.densities(many, names=list("uvwxyz") + ["SET"], title="t")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(table.columns)
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "SET"
    written = numbers(axes)
    first = {(0, 0, "25.0"), (0, 1, "90.0"), (0, 2, "0"), (0, 3, "30.0"), (0, 5, "100")}
    assert {place for place in written if place[0] == 0} == first
    assert {place for place in written if place[0] == 6} == {
        *((6, 0, "25.0"), (6, 4, "25.0"))
    }


def test_the_history_of_layers():
    records = [
        counted(0, 40, 40, layers=layers(10, 10, 10, 10)),
        counted(9, 40, 60, layers=layers(40, 0, 0, 0)),
        counted(9, 40, 60, layers=layers(20, 20, 0, 0), replicate=1),
    ]
    table = methods.history_table(run("a", settings("snfs"), *records))
    assert list(table.index) == [0, 9]
    assert table.loc[9].tolist() == pytest.approx([4, 30, 0, 10, 0])
    figure = figures.layer_lines(table, x="step", y="weights (%)", title="a")
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert 0 < low < 4 < 100 < high
    crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in crosses] == [[9], [9]]
    called = [words.get_text() for words in figure.legends[0].get_texts()]
    assert called == list(table.columns[1:]) + ["all layers"]


def ticks(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_one_panel_a_sparsity_with_dense_as_a_line():
    small = run(
        "small-1",
        settings() | {"model": {"features": [3, 2]}},
        ended(105, 0.91, total=105),
    )
    again = RIGL._replace(name="rigl-2")
    table = methods.methods_table([*RUNS, small, again])
    figure = method_figures.methods(table, title="digits")
    first, second = figure.axes
    assert ticks(first) == [
        *("SNIP", "dense, features 3-2 (105 weights)"),
        *("RigL (ERK), rigl-1", "RigL (ERK), rigl-2"),
    ]
    assert ticks(second) == ["lottery tickets"]
    for axes, least in ((first, 91 - math.sqrt(2)), (second, 80)):
        low, high = axes.get_xlim()
        assert 0 < low < least < 95 < high
        assert f"(axis starts at {low:.1f} %)" in axes.get_title()
        vertical = [list(line.get_xdata()) for line in axes.get_lines()]
        assert [95.0, 95.0] in vertical
    assert first.get_title().startswith("90.00 % sparsity")
    assert second.get_title().startswith("98.00 % sparsity")
    written = [words.get_text() for words in first.texts]
    assert written[2] == "91.00 ± 1.41 (n = 2)"
    (dense,) = figure.legends[0].get_texts()
    assert dense.get_text() == "dense network (n = 1)"


def test_labels_and_numbers_of_methods_do_not_overlap():
    many = [
        run(f"r{i}", settings(f"method {i}"), ended(100 - i // 8 * 50, 0.9 - i / 500))
        for i in range(16)
    ]
    figure = method_figures.methods(methods.methods_table(many), title="t")
    figure.draw_without_rendering()
    for axes in figure.axes:
        for written in (axes.get_yticklabels(), axes.texts):
            boxes = [words.get_window_extent() for words in written]
            pairs = zip(boxes, boxes[1:], strict=False)
            assert not any(one.overlaps(other) for one, other in pairs)
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    assert not titles[1].overlaps(figure.axes[0].get_tightbbox())


@pytest.mark.parametrize(
    "runs", [[DENSE], [SNIP], [DENSE, DENSE._replace(name="b")], [RIGL, SNIP], []]
)
def test_methods_can_be_drawn_of_any_runs(runs):
    figure = method_figures.methods(methods.methods_table(runs), title="$x$")
    assert plot_style.render(figure, file_format="png").startswith(b"\x89PNG")
    for axes in figure.axes:
        assert np.isfinite(axes.get_xlim()).all()


@pytest.mark.parametrize("count", [1, 3, 12])
def test_exploration_has_a_line_a_run(count):
    runs = [RIGL._replace(name=f"r{place}") for place in range(count)]
    figure = method_figures.exploration(methods.exploration_table(runs), title="a")
    axes = figure.axes[0]
    lines = axes.get_lines()
    assert len(lines) == len({str(line.get_color()) for line in lines}) == count
    assert np.allclose(lines[0].get_xydata(), [[0, 10], [200, 13], [400, 20]])
    low, high = axes.get_ylim()
    assert 0 < low < 10 < 100 < high
    called = [words.get_text() for words in figure.legends[0].get_texts()]
    assert called[0] == (
        "RigL (ERK) (n = 2)" if count == 1 else "RigL (ERK), r0 (n = 2)"
    )


def training(step):
    return {
        "kind": "train",
        "stage": "level_00/ticket",
        "level": 0,
        "variant": "ticket",
        "replicate": 0,
        "step": step,
        "loss": 1.0 / step,
    }


def test_figures_that_say_nothing_are_left_out():
    assert set(report_figures.draw([RIGL])) == {"exploration"}
    assert set(report_figures.draw([DENSE])) == set()
    trained = DENSE._replace(records=[*DENSE.records, training(100), training(200)])
    assert set(report_figures.draw([trained])) == {"training"}
    moved = RIGL._replace(
        records=[
            counted(0, 40, 40, layers=layers(10, 30)),
            counted(9, 40, 40, layers=layers(30, 10)),
        ]
    )
    assert set(report_figures.draw([moved])) == {"exploration", "history"}
    together = {"sparsity", "methods", "exploration", "densities"}
    lottery = {"accuracy", "early_stop", "layers"}
    assert set(report_figures.draw([RIGL, TICKETS])) == {
        f"run2_{name}" for name in lottery
    }
    assert set(report_figures.compare([RIGL, TICKETS])) == together
    second = TICKETS._replace(name="b")
    assert "comparison" in report_figures.compare([RIGL, TICKETS, second])
    assert "comparison" in report_figures.compare([DENSE, TICKETS])
    assert report_figures.compare([DENSE, DENSE._replace(name="b")]) == {}


@pytest.fixture
def folders(make_run):
    return [make_run(one.name, one.records, config=one.config) for one in RUNS]


@pytest.mark.usefixtures("unrendered")
def test_a_page_of_methods(folders, tmp_path):
    out = tmp_path / "out"
    content = re.sub(r">\s+<", "><", page.write(folders, out).read_text())
    for wanted in (
        "<h3>Methods</h3>",
        "<td>RigL (ERK)</td><td>rigl-1</td><td>90.00</td><td>100</td><td>2</td>"
        "<td>91.00 ± 1.41</td><td>93.00</td><td>20.0</td>",
        "<td>lottery tickets</td><td>lth-1</td><td>98.00</td><td>20</td>",
        report_figures.CAPTIONS["methods"],
        report_figures.CAPTIONS["exploration"],
        report_figures.CAPTIONS["densities"],
        "Dense network: 96.00 % test accuracy (n = 1).",  # of the lottery
    ):
        assert wanted in content
    assert "http" not in content
    assert "<script" not in content
    names = {path.name for path in out.iterdir()}
    assert {"methods.md", "methods.csv", "methods.svg", "densities.png"} <= names
    table = pd.read_csv(out / "methods.csv").set_index("run")
    assert table.loc["rigl-1", "test_accuracy_percent"] == pytest.approx(91.0)
    assert table.loc["rigl-1", "test_accuracy_percent_sd"] == pytest.approx(2**0.5)
    assert table.loc["rigl-1", "sparsity_percent"] == pytest.approx(90.0)
    assert table.loc["rigl-1", "effective_sparsity_percent"] == pytest.approx(93.0)
    assert table.loc["rigl-1", "explored_percent"] == pytest.approx(20.0)
    markdown = (out / "methods.md").read_text()
    assert "| SNIP | snip-1 | 90.00 | 100 | 1 | 93.00 | – | – |" in markdown


@pytest.fixture
def unrendered(monkeypatch):
    """Saves the seconds that pictures take, where nobody looks at them."""
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")


@pytest.mark.usefixtures("unrendered")
def test_a_page_of_one_sparse_run(folders, tmp_path):
    out = tmp_path / "out"
    content = page.write([folders[1]], out).read_text()
    for wanted in (
        "RigL (ERK): 91.00 ± 1.41 % test accuracy (n = 2) at 90.00 % sparsity, with "
        "100 of 1,000 prunable weights.",
        "Effective sparsity: 93.00 %",
        "Explored: 20.0 %",
        "after 150 ± 71 updates: 90.00 ± 1.41 %.",
        report_figures.CAPTIONS["exploration"],
    ):
        assert wanted in content
    whole = content + (out / "methods.md").read_text()
    for unwanted in ("Dense network", "ticket", "<th>Level</th>", "levels finished"):
        assert unwanted not in whole.split("Configuration")[0]
    assert "Early-stop step" in whole
    table = pd.read_csv(out / "methods.csv")
    assert table["early_stop_test_accuracy_percent"].tolist() == [pytest.approx(90)]
    assert {path.name for path in out.iterdir()} == {
        *("index.html", "methods.md", "methods.csv"),
        *("exploration.svg", "exploration.png"),
    }


@pytest.mark.usefixtures("unrendered")
def test_lotteries_beside_sparse_runs_have_the_tables_of_levels(folders, tmp_path):
    page.write(folders, tmp_path / "out")
    levels = pd.read_csv(tmp_path / "out" / "levels.csv")
    assert set(levels["run"]) == {"lth-1"}
    methods = pd.read_csv(tmp_path / "out" / "methods.csv")
    assert {"lth-1", "rigl-1", "snip-1"} <= set(methods["run"])


@pytest.mark.usefixtures("unrendered")
def test_dense_runs_are_compared_as_methods(make_run, tmp_path):
    rows = [ended(TOTAL, 0.9)]
    pair = [make_run(name, rows, config=settings()) for name in "ab"]
    content = page.write(pair, tmp_path / "out").read_text()
    assert "<h3>Methods</h3>" in content
    assert not (tmp_path / "out" / "levels.md").exists()


@pytest.mark.usefixtures("unrendered")
def test_a_page_of_sparse_runs_that_have_just_begun(make_run, tmp_path):
    begun = [make_run(name, [], config=settings("set")) for name in "ab"]
    content = page.write(begun, tmp_path / "out").read_text()
    assert content.count("Training has not finished yet.") == 3
    assert "Training has not" in (tmp_path / "out" / "methods.md").read_text()
