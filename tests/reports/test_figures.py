import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from jaxsparse.reports import figures, plot_style, tables
from jaxsparse.reports import records as records_lib


@pytest.fixture
def run(make_run, records):
    (run,) = records_lib.read_runs([make_run("a", records)])
    return run


def drawn(axes):
    """The x and y of the lines with points, by the color they are drawn in."""
    lines = [line for line in axes.get_lines() if line.get_marker() not in ("None", "")]
    return {line.get_color(): line.get_xydata().tolist() for line in lines}


def test_weights_remaining_is_logarithmic_dense_on_the_left(run):
    figure = figures.accuracy(tables.in_percent([run]), title="a")
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        left, right = axes.get_xlim()
        assert left > 100 > 80 > right
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["100", "80.0"]


def test_lines_are_the_means_in_percent(run):
    axes = figures.accuracy(tables.in_percent([run]), title="a").axes[0]
    ticket = drawn(axes)[plot_style.STYLES[0].color]
    assert np.allclose(ticket, [[80.0, 93.0], [100.0, 91.0]])


def test_the_dense_continued_stands_beside_the_ticket_of_its_level(run):
    axes = figures.accuracy(tables.in_percent([run]), title="a").axes[0]
    continued = drawn(axes)[plot_style.STYLES[5].color]
    assert np.allclose(continued, [[80.0, 90.5]])


def test_the_legend_says_n_and_covers_no_data(run):
    figure = figures.accuracy(tables.in_percent([run]), title="a")
    labels = [label.get_text() for label in figure.legends[0].get_texts()]
    assert labels == [
        "ticket (n = 3)",
        "random mask (n = 2)",
        "dense, trained as long (n = 2)",
        "dense network (level 0)",
    ]
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_a_collapse_gets_a_second_panel(make_run, make_record):
    accuracies = [0.98, 0.985, 0.98, 0.30]
    found = [make_record("ticket", n, 0, a) for n, a in enumerate(accuracies)]
    table = tables.in_percent(records_lib.read_runs([make_run("a", found)]))
    whole, near = figures.accuracy(table, title="a").axes
    assert whole.get_ylim()[0] < 30 < 98.5 < whole.get_ylim()[1]
    assert 90 < near.get_ylim()[0] < 98 < 98.5 < near.get_ylim()[1]


def test_styles_differ_without_color():
    looks = {(style.marker, str(style.dash)) for style in plot_style.STYLES}
    assert len(looks) == len(plot_style.STYLES) > len(tables.VARIANTS)


def test_early_stop_steps(run):
    axes = figures.early_stop(tables.in_percent([run]), title="a").axes[0]
    ticket = drawn(axes)[plot_style.STYLES[0].color]
    assert np.allclose(ticket, [[80.0, 200.0], [100.0, 200.0]])


def test_an_empty_layer_is_marked():
    columns = {"all layers": [100.0, 50.0], "a": [100.0, 0.0], "b": [100.0, 60.0]}
    table = pd.DataFrame(columns, index=[0, 1])
    axes = figures.layers(table, title="a").axes[0]
    crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert [line.get_xydata().tolist() for line in crosses] == [[[1.0, 0.0]]]
    assert axes.get_yscale() == "log"


def test_many_layers_get_shades_of_their_own():
    names = [f"block{i}/kernel" for i in range(30)]
    table = pd.DataFrame(np.full((2, 30), 50.0), columns=names).assign(
        **{"all layers": 50.0}
    )
    axes = figures.layers(table, title="a").axes[0]
    assert len({str(line.get_color()) for line in axes.get_lines()}) == 31


def test_curves_average_over_replicates(run):
    left, right = figures.curves(run, title="a").axes
    dense = left.get_lines()[0].get_xydata()
    assert dense[0].tolist() == pytest.approx([100.0, 91.1])
    assert right.get_lines()[0].get_xydata()[0].tolist() == pytest.approx([100.0, 0.01])
    assert left.get_ylabel() == "test accuracy (%)"  # no validation set


def test_the_dense_curve_includes_its_pretraining(make_run, records):
    first = next(record for record in records if record["kind"] == "train")
    early = first | {"stage": "rewind", "variant": "pretraining", "step": 50}
    (run,) = records_lib.read_runs([make_run("a", [early, *records])])
    axes = figures.curves(run, title="a").axes[1]
    assert axes.get_lines()[0].get_xdata()[0] == 50


@pytest.mark.parametrize("most", [1, 2, 3])
def test_curves_of_at_most_so_many_levels(make_run, records, most):
    new = {"level": 2, "stage": "level_02/ticket"}
    third = [record | new for record in records if record["stage"] == "level_01/ticket"]
    (run,) = records_lib.read_runs([make_run("a", records + third)])
    figure = figures.curves(run, title="a", most=most)
    assert len(figure.legends[0].get_texts()) == most


def test_one_replicate_of_one_level_can_be_drawn(make_run, make_record):
    (run,) = records_lib.read_runs([make_run("a", [make_record("ticket", 0, 0, 0.9)])])
    table = tables.in_percent([run])
    for figure in (
        figures.accuracy(table, title="a"),
        figures.early_stop(table, title="a"),
        figures.layers(tables.layers_table(run), title="a"),
        figures.comparison(table, labels={"a": "b"}, title="a"),
        figures.curves(run, title="a"),
    ):
        assert plot_style.render(figure, file_format="png").startswith(b"\x89PNG")


def test_rendering_is_reproducible_and_dollars_are_literal(run):
    table = tables.in_percent([run])
    images = [
        plot_style.render(
            figures.accuracy(table, title="$x$ \\frac"), file_format="svg"
        )
        for _ in range(2)
    ]
    assert images[0] == images[1]
    assert b"$x$ \\frac" in images[0]


def test_no_figure_becomes_global_state(run):
    figures.accuracy(tables.in_percent([run]), title="a")
    assert pyplot.get_fignums() == []


def test_jax_is_not_imported(root):
    code = (
        "import sys; from jaxsparse.reports import page; "
        "print({'jax', 'flax', 'optax'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
