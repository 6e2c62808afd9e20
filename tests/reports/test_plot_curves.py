import math

import numpy as np
import pandas as pd
import pytest

from jaxsparse.reports import plot_curves, plot_style

NAN, INF = math.nan, math.inf
BLUE, RED = plot_style.STYLES[0].color, plot_style.STYLES[1].color
X, VALUES = [1, 2, 4], [[1, 2, 9], [3, 2, 1], [2, 5, 2]]


def line(label, x, values, panel="batch 128"):
    """The rows of one line: values by replicate."""
    rows = [
        (panel, label, replicate, at, value)
        for replicate, row in enumerate(values)
        for at, value in zip(x, row, strict=True)
    ]
    return pd.DataFrame(rows, columns=plot_curves.COLUMNS)


CURVE = line("IMP", X, VALUES)


def curves(*parts, **changes):
    words = {"x": "steps", "y": "accuracy (%)", "title": "LeNet"}
    return plot_curves.curves(pd.concat(parts), **(words | changes))


def lines(axes, color):
    """The lines with points that are drawn in a color."""
    found = [line for line in axes.get_lines() if line.get_color() == color]
    return [line for line in found if line.get_marker() not in ("None", "", "_", "|")]


def bars(axes):
    """The lower and upper end of every bar, by x."""
    return [
        segment.tolist()
        for container in axes.containers
        for collection in container[2]
        for segment in collection.get_segments()
        if len(segment) and np.isfinite(segment).all()
    ]


def legend(figure):
    return [label.get_text() for label in figure.legends[0].get_texts()]


@pytest.mark.parametrize("error", ["bars", "range"])
def test_bars_are_deviations_or_reach_from_lowest_to_highest(error):
    figure = curves(CURVE, error=error)
    (axes,) = figure.axes
    (drawn,) = lines(axes, BLUE)
    assert drawn.get_xydata().tolist() == [[1, 2], [2, 3], [4, 4]]
    if error == "range":
        assert bars(axes) == [[[1, 1], [1, 3]], [[2, 2], [2, 5]], [[4, 1], [4, 9]]]
        title = "LeNet: mean, lowest and highest of n seeds"
        assert figure.get_suptitle() == title
    else:
        sd, mean = np.std(VALUES, axis=0, ddof=1), np.mean(VALUES, axis=0)
        ends = np.array(bars(axes))[:, :, 1]
        assert ends == pytest.approx(np.stack([mean - sd, mean + sd], axis=1))
        assert figure.get_suptitle() == "LeNet: mean ± s.d. over n seeds"


def test_what_is_not_finite_is_left_out():
    values = [[1, None, INF, 4], [3, NAN, 5, NAN], [NAN, NAN, NAN, NAN]]
    figure = curves(line("IMP", [3, 2, 1, 0], values), error="range")
    (axes,) = figure.axes
    (drawn,) = lines(axes, BLUE)
    assert drawn.get_xydata().tolist() == [[0, 4], [1, 5], [3, 2]]
    assert bars(axes) == [[[3, 1], [3, 3]]]  # elsewhere there is one seed
    assert legend(figure) == ["IMP (n = 2)"]
    assert curves(line("x", [1], [[NAN]])) is None
    assert curves(CURVE.iloc[:0]) is None


def test_values_without_replicates_have_no_count():
    figure = curves(line("barriers", [0, 1], [[5, 6]]), error="none")
    assert bars(figure.axes[0]) == []
    assert figure.get_suptitle() == "LeNet"
    assert legend(figure) == ["barriers"]


@pytest.mark.parametrize("error", ["bars", "range"])
def test_one_seed_has_no_bars(error):
    (axes,) = curves(line("IMP", [0, 1], [[5, 6]]), error=error).axes
    assert bars(axes) == []
    assert lines(axes, BLUE)[0].get_ydata().tolist() == [5, 6]


def test_a_label_looks_the_same_in_all_panels():
    other = line("reinitialized", X, VALUES[:2])
    one = line("reinitialized", X, VALUES[:1], panel="batch 512")
    figure = curves(CURVE, other, one)
    left, right = figure.axes
    assert len(lines(left, BLUE)) == len(lines(left, RED)) == 1
    assert (len(lines(right, BLUE)), len(lines(right, RED))) == (0, 1)
    assert legend(figure) == ["IMP (n = 3)", "reinitialized (n = 1 to 2)"]


@pytest.mark.parametrize(
    ("count", "shared"), [(1, False), (2, True), (3, False), (4, True), (7, False)]
)
def test_panels_are_side_by_side(count, shared):
    parts = [
        line("IMP", X, i + np.array(VALUES), panel=f"level {i}") for i in range(count)
    ]
    words = {"y": "accuracy (%)", "title": "LeNet", "share_y": shared}
    made = plot_curves.interpolations(pd.concat(parts), **words).axes
    assert [axes.get_title() for axes in made] == [f"level {i}" for i in range(count)]
    assert len({axes.get_xlim() for axes in made}) == 1
    assert len({axes.get_ylim() for axes in made}) == (1 if shared else count)
    columns = made[0].get_gridspec().ncols
    assert columns == {1: 1, 2: 2, 4: 2}.get(count, 3)
    expected = ["accuracy (%)" if i % columns == 0 else "" for i in range(count)]
    assert [axes.get_ylabel() for axes in made] == expected


def test_a_threshold_is_named_once():
    figure = curves(CURVE, CURVE.assign(panel="b"), threshold=(2.0, "stable below 2"))
    for axes in figure.axes:
        (drawn,) = (
            one for one in axes.get_lines() if one.get_color() == plot_style.GREY
        )
        assert drawn.get_ydata()[0] == 2.0
    assert legend(figure) == ["IMP (n = 3)", "stable below 2"]


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_weights_remaining_run_from_dense_to_sparse():
    remaining = 100 * 0.8 ** np.arange(20)
    (axes,) = curves(line("IMP", remaining, np.ones((2, 20))), scale="remaining").axes
    left, right = axes.get_xlim()
    assert left > 100 > remaining[-1] > right
    assert axes.get_xscale() == "log"
    assert labels(axes.xaxis)[:2] == ["100", "51.2"]


def test_means_are_not_those_of_logarithms():
    (axes,) = curves(line("IMP", [1, 100], [[1, 2], [3, 8]]), scale="log").axes
    assert lines(axes, BLUE)[0].get_xydata().tolist() == [[1, 2], [100, 5]]


def test_steps_show_zero():
    steps = [0, 100, 200, 400, 2000]
    (axes,) = curves(line("easy", steps, np.ones((2, 5))), scale="steps").axes
    assert axes.get_xscale() == "symlog"
    assert labels(axes.xaxis) == ["0", "100", "400", "2,000"]
    places = axes.transAxes.inverted().transform(
        axes.transData.transform([(step, 1) for step in steps])
    )
    assert 0 < places[0, 0] < 0.1 and 0.9 < places[-1, 0] < 1
    assert np.all(np.diff(places[:, 0]) > 0.05)


@pytest.mark.parametrize("step", [0, 7])
@pytest.mark.parametrize("scale", ["steps", "linear"])
def test_a_single_step_can_be_drawn(step, scale):
    figure = curves(line("easy", [step], np.ones((2, 1))), scale=scale)
    assert plot_style.render(figure, file_format="png").startswith(b"\x89PNG")


def test_sizes_are_logarithmic():
    sizes = [256, 512, 1024, 25600]
    (axes,) = curves(line("easy", sizes, np.ones((2, 4))), scale="log").axes
    assert axes.get_xscale() == "log"
    assert labels(axes.xaxis) == ["256", "1,024", "25,600"]


@pytest.mark.parametrize(
    ("scale", "x"), [("log", 0), ("remaining", 0), ("steps", -1), ("log", -1)]
)
def test_x_that_a_scale_does_not_have(scale, x):
    message = f"^x: expected .* on the scale '{scale}', got {x}"
    with pytest.raises(ValueError, match=message):
        curves(line("IMP", [x, 1], [[1, 2]]), scale=scale)


def test_lines_of_many_points_have_few_bars_that_take_turns():
    x = np.arange(300)
    values = np.stack([x, x + 2])
    (axes,) = curves(line("a", x, values), line("b", x, values), error="range").axes
    first, second = (
        {segment[0, 0] for segment in container[2][0].get_segments() if len(segment)}
        for container in axes.containers
    )
    assert 10 <= len(first) == len(second) <= 20
    assert not first & second
    assert len(lines(axes, BLUE)[0].get_xdata()) == 300


def test_labels_with_an_order_are_shades():
    parts = [CURVE.assign(label=f"{i} examples") for i in range(9)]
    (axes,) = curves(*parts, ordered=True, error="band").axes
    colors = [one.get_color() for one in axes.get_lines()]
    light = [
        np.dot(color[:3], [0.2, 0.7, 0.1]) for color in colors if np.size(color) == 4
    ]
    assert len(light) == 9
    assert light == sorted(light)


def test_many_styles_differ():
    names = [f"label {i}" for i in range(100)]
    looks = {(s.color, s.marker) for s in plot_style.styles(names).values()}
    assert len(looks) == 100
    few = plot_style.styles(names[:10]).values()
    assert list(few) == list(plot_style.STYLES)


def test_interpolations_have_bands_and_mark_their_ends():
    error = [[0, 10, 2], [0, 30, 4]]
    parts = [line("128", [0, 0.5, 1], error, panel=f"round {i}") for i in (5, 10)]
    figure = plot_curves.interpolations(pd.concat(parts), title="LeNet")
    for axes in figure.axes:
        (drawn,) = lines(axes, BLUE)
        assert drawn.get_xydata().tolist() == [[0, 0], [0.5, 20], [1, 3]]
        band = axes.collections[0].get_paths()[0].vertices
        assert any(np.allclose(p, [0.5, 20 + math.sqrt(200)]) for p in band)
        ends = [one for one in axes.get_lines() if one.get_color() == plot_style.GREY]
        assert [end.get_xdata()[0] for end in ends] == [0, 1]
    assert figure.get_suptitle() == "LeNet: mean ± s.d. over n seeds"


def test_legends_cover_no_data():
    parts = [CURVE.assign(label=f"variant {i}") for i in range(30)]
    figure = curves(*parts)
    figure.draw_without_rendering()
    place = figure.legends[0].get_window_extent()
    assert not any(place.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1
