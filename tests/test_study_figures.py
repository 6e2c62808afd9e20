"""Matrices, histograms and points of studies."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.studies import figures


def matrices(entries, labels=("0", "init")):
    words = {"axis": "round", "measure": "angle", "limits": (0.0, 2.0), "title": "t"}
    return figures.matrices(entries, labels=labels, **words)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_heat_maps_share_a_color_bar():
    one, two = np.array([[0, 0.5], [0.5, math.nan]]), np.array([[0, 2], [2, 0.25]])
    *maps, bar = matrices({"128": one, "512": two}).axes
    assert [axes.get_title() for axes in maps] == ["128", "512"]
    for axes, expected in zip(maps, (one, two), strict=True):
        shown = np.ma.filled(axes.collections[0].get_array(), math.nan)
        assert np.array_equal(shown.reshape(2, 2), expected, equal_nan=True)
        assert axes.collections[0].get_clim() == (0, 2)
    assert bar.get_ylabel() == "angle"
    assert matrices({}) is None


@pytest.mark.parametrize("count", [1, 2, 9, 10, 26])
def test_ticks_are_few_and_end_with_the_last(count):
    names = [*map(str, range(count - 1)), "init"]
    axes = matrices({"128": np.eye(count)}, names).axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        places = (axis.get_ticklocs() - 0.5).astype(int).tolist()
        assert labels(axis) == [names[place] for place in places]
        assert places[-1] == count - 1
        assert len(places) <= 10


def legend(figure):
    return [label.get_text() for label in figure.legends[0].get_texts()]


def test_histograms_are_percent_on_shared_bins():
    rows = [("128", -1.0, 1), ("128", 1.0, 2), ("512", 0.0, 3), ("512", 3.0, 1)]
    table = pd.DataFrame(rows, columns=["label", "value", "count"])
    cut = {"128": 0.5, "512": 0.25}
    figure = figures.histograms(table, x="weight", title="t", thresholds=cut, bins=4)
    (axes,) = figure.axes
    heights = [line.get_xdata()[0] for line in axes.get_lines()]
    assert heights == [-0.5, 0.5, -0.25, 0.25]
    tops = [c.get_paths()[0].vertices[:, 1].max() for c in axes.collections]
    assert tops == pytest.approx([200 / 3, 75])
    assert legend(figure) == [
        "128 (n = 3)\nlines at ± 0.5",
        "512 (n = 4)\nlines at ± 0.25",
    ]
    nothing = table.assign(count=0)
    assert figures.histograms(nothing, x="", title="", thresholds=cut) is None


def test_points_are_means_with_deviations():
    rows = [("easy", "a", 1, 2), ("easy", "a", 3, 4), ("hard", "b", 7, 8)]
    table = pd.DataFrame(rows, columns=["label", "point", "x", "y"])
    words = {"x": "barrier", "y": "accuracy", "title": "t", "note": "correlation −0.9"}
    figure = figures.scatter(table, **words)
    (axes,) = figure.axes
    easy, hard = (container[0] for container in axes.containers)
    assert easy.get_xydata().tolist() == [[2, 3]]
    assert hard.get_xydata().tolist() == [[7, 8]]
    assert easy.get_marker() != hard.get_marker()
    ends = axes.containers[0][2][1].get_segments()[0]
    assert ends[:, 1].tolist() == pytest.approx([3 - math.sqrt(2), 3 + math.sqrt(2)])
    assert legend(figure) == ["easy (n = 1)", "hard (n = 1)"]
    assert "correlation −0.9" in figure.get_suptitle()
    assert figures.scatter(table.iloc[:0], **words) is None
