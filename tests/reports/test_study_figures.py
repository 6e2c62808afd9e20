import itertools
import math

import numpy as np
import pytest

from jaxsparse.reports import plot_curves, plot_style, study_figures
from jaxsparse.reports.plot_curves import Curve, Panel
from jaxsparse.reports.study_figures import Measure, Points, Values

NAN, INF = math.nan, math.inf
BLUE, RED = plot_style.STYLES[0].color, plot_style.STYLES[1].color


def curves(panels, **changes):
    words = {"x": "steps", "y": "accuracy (%)", "title": "LeNet"}
    return plot_curves.curves(panels, **(words | changes))


def matrices(measures, labels=("0", "init"), **changes):
    words = {"axis": "round", "title": "LeNet"}
    return study_figures.matrices(measures, labels=labels, **(words | changes))


def lines(axes, color):
    """The lines with points that are drawn in a colour."""
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
    (found,) = [one.get_legend() for one in figure.axes if one.get_legend()]
    return [label.get_text() for label in found.get_texts()]


CURVE = Curve("IMP", [1, 2, 4], [[1, 2, 9], [3, 2, 1], [2, 5, 2]])


@pytest.mark.parametrize("spread", ["sd", "range"])
def test_bars_are_deviations_or_reach_from_least_to_greatest(spread):
    figure = curves([Panel("batch 128", [CURVE])], spread=spread)
    (axes,) = figure.axes
    (line,) = lines(axes, BLUE)
    assert line.get_xydata().tolist() == [[1, 2], [2, 3], [4, 4]]
    if spread == "range":
        assert bars(axes) == [[[1, 1], [1, 3]], [[2, 2], [2, 5]], [[4, 1], [4, 9]]]
        assert figure.get_suptitle() == "LeNet: mean, and least to greatest, of n seeds"
    else:
        sd = np.std(CURVE.values, axis=0, ddof=1)
        mean = np.mean(CURVE.values, axis=0)
        ends = np.array(bars(axes))[:, :, 1]
        assert ends == pytest.approx(np.stack([mean - sd, mean + sd], axis=1))
        assert figure.get_suptitle() == "LeNet: mean ± s.d. over n seeds"


def test_what_is_not_finite_is_left_out():
    values = [[1, None, INF, 4], [3, NAN, 5, NAN], [NAN, NAN, NAN, NAN]]
    panel = Panel("", [Curve("IMP", [3, 2, 1, 0], values)])
    figure = curves([panel], spread="range")
    (axes,) = figure.axes
    (line,) = lines(axes, BLUE)
    assert line.get_xydata().tolist() == [[0, 4], [1, 5], [3, 2]]
    assert bars(axes) == [[[3, 1], [3, 3]]]  # elsewhere there is one seed
    assert legend(figure) == ["IMP (n = 2)"]


def test_what_is_not_of_seeds_says_nothing_of_them():
    rows = Curve("barriers", [0, 1], [[5, 6], [6, 5]])
    figure = curves([Panel("", [rows])], spread="none")
    assert bars(figure.axes[0]) == []
    assert figure.get_suptitle() == "LeNet"
    assert legend(figure) == ["barriers"]


def test_one_seed_has_no_bars():
    for spread in ("sd", "range"):
        panel = Panel("", [Curve("IMP", [0, 1], [[5, 6]])])
        (axes,) = curves([panel], spread=spread).axes
        assert bars(axes) == []
        assert lines(axes, BLUE)[0].get_ydata().tolist() == [5, 6]


@pytest.mark.parametrize(
    "nothing", [Curve("x", [], []), Curve("x", [1], [[NAN]]), Curve("x", None, None)]
)
@pytest.mark.parametrize("draw", [curves, plot_curves.segments])
def test_empty_lines_and_panels_are_left_out(nothing, draw):
    panels = [Panel("a", [nothing]), Panel("b", [CURVE, nothing]), Panel("c", [])]
    figure = draw(panels, title="LeNet", y=["1", "2", "3"])
    assert [axes.get_title() for axes in figure.axes] == ["b"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["2"]
    assert legend(figure) == ["IMP (n = 3)"]
    assert draw([Panel("a", [nothing], (1.0, "dense"))], title="LeNet") is None
    assert draw([], title="LeNet") is None


def test_a_label_looks_alike_in_all_panels():
    other = CURVE._replace(label="reinitialised", values=CURVE.values[:2])
    one = other._replace(values=CURVE.values[:1])
    figure = curves([Panel("a", [CURVE, other]), Panel("b", [one])])
    left, right = figure.axes
    assert len(lines(left, BLUE)) == len(lines(left, RED)) == 1
    assert (len(lines(right, BLUE)), len(lines(right, RED))) == (0, 1)
    assert legend(figure) == ["IMP (n = 3)", "reinitialised (n = 1 to 2)"]


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("shared", [True, False])
def test_panels_stand_side_by_side(count, shared):
    panels = [
        Panel(f"level {i}", [CURVE._replace(values=i + np.array(CURVE.values))])
        for i in range(count)
    ]
    y = "accuracy" if shared else [f"measure {i}" for i in range(count)]
    made = curves(panels, y=y).axes
    assert [axes.get_title() for axes in made] == [f"level {i}" for i in range(count)]
    assert len({axes.get_xlim() for axes in made}) == 1
    assert len({axes.get_ylim() for axes in made}) == (1 if shared else count)
    columns = made[0].get_gridspec().ncols
    assert columns == {1: 1, 2: 2, 4: 2}.get(count, 3)
    wanted = ["accuracy" if i % columns == 0 else "" for i in range(count)]
    assert [axes.get_ylabel() for axes in made] == (wanted if shared else y)


def test_thresholds_are_named_once():
    stable = (2.0, "stable below 2 %")
    panels = [
        *(Panel("a", [CURVE], stable), Panel("b", [CURVE], stable)),
        *(Panel("c", [CURVE], (5.0, "dense")), Panel("d", [CURVE], (NAN, "no"))),
        Panel("e", [CURVE]),
    ]
    figure = curves(panels)
    drawn = [
        [line for line in axes.get_lines() if line.get_color() == plot_style.GREY]
        for axes in figure.axes
    ]
    heights = [[line.get_ydata()[0] for line in found] for found in drawn]
    assert heights == [[2.0], [2.0], [5.0], [], []]
    assert drawn[0][0].get_linestyle() != drawn[2][0].get_linestyle()
    assert legend(figure) == ["IMP (n = 3)", "stable below 2 %", "dense"]


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_weights_remaining_run_from_dense_to_sparse():
    remaining = 100 * 0.8 ** np.arange(20)
    panel = Panel("", [Curve("IMP", remaining, np.ones((2, 20)))])
    (axes,) = curves([panel], scale="remaining").axes
    left, right = axes.get_xlim()
    assert left > 100 > remaining[-1] > right
    assert axes.get_xscale() == "log"
    assert labels(axes.xaxis)[:2] == ["100", "51.2"]


def test_steps_show_zero():
    steps = [0, 100, 200, 400, 2000]
    panel = Panel("", [Curve("easy", steps, np.ones((2, 5)))])
    (axes,) = curves([panel], scale="steps").axes
    assert axes.get_xscale() == "symlog"
    assert labels(axes.xaxis) == ["0", "100", "400", "2,000"]
    places = axes.transAxes.inverted().transform(
        axes.transData.transform([(step, 1) for step in steps])
    )
    assert 0 < places[0, 0] < 0.1 and 0.9 < places[-1, 0] < 1
    assert np.all(np.diff(places[:, 0]) > 0.05)


@pytest.mark.parametrize("steps", [[0], [0.0, 0.0], [7]])
@pytest.mark.parametrize("scale", ["steps", "linear"])
def test_a_single_step_can_be_drawn(steps, scale):
    panel = Panel("", [Curve("easy", steps, np.ones((2, len(steps))))])
    figure = curves([panel], scale=scale)
    assert plot_style.render(figure, file_format="png").startswith(b"\x89PNG")


def test_sizes_are_logarithmic():
    panel = Panel("", [Curve("easy", [256, 512, 1024, 25600], np.ones((2, 4)))])
    (axes,) = curves([panel], scale="log").axes
    assert axes.get_xscale() == "log"
    assert labels(axes.xaxis) == ["256", "1,024", "25,600"]


@pytest.mark.parametrize(
    ("scale", "x"), [("log", 0), ("remaining", 0), ("steps", -1), ("log", -1)]
)
def test_x_that_a_scale_does_not_have(scale, x):
    panel = Panel("a", [Curve("IMP", [x, 1], [[1, 2]])])
    with pytest.raises(ValueError, match=f"^x: {x} on the scale '{scale}'; wanted"):
        curves([panel], scale=scale)


def test_lines_of_many_points_have_few_bars_that_take_turns():
    x = np.arange(300)
    values = np.stack([x, x + 2])
    panel = Panel("", [Curve("a", x, values), Curve("b", x, values)])
    (axes,) = curves([panel], spread="range").axes
    first, second = (
        {segment[0, 0] for segment in container[2][0].get_segments()}
        for container in axes.containers
    )
    assert 10 <= len(first) == len(second) <= 20
    assert not first & second
    assert len(lines(axes, BLUE)[0].get_xdata()) == 300


def test_labels_with_an_order_are_shades():
    panel = Panel("", [CURVE._replace(label=f"{i} examples") for i in range(9)])
    (axes,) = curves([panel], ordered=True).axes
    colors = [line.get_color() for line in axes.get_lines() if line.get_marker() != "_"]
    light = [
        np.dot(color[:3], [0.2, 0.7, 0.1]) for color in colors if np.size(color) == 4
    ]
    assert len(light) == 9
    assert light == sorted(light)


def test_many_styles_differ():
    looks = {(s.color, s.marker) for s in plot_style.styles(49)}
    assert len(looks) == 49
    assert plot_style.styles(7) == list(plot_style.STYLES)


def test_segments_have_bands_and_mark_their_ends():
    error = [[0, 10, 2], [0, 30, 4]]
    panels = [Panel(f"round {i}", [Curve("128", [0, 0.5, 1], error)]) for i in (5, 10)]
    figure = plot_curves.segments(panels, title="LeNet")
    for axes in figure.axes:
        (line,) = lines(axes, BLUE)
        assert line.get_xydata().tolist() == [[0, 0], [0.5, 20], [1, 3]]
        band = axes.collections[0].get_paths()[0].vertices.tolist()
        assert [0.5, 20 + math.sqrt(200)] in band
        ends = [one for one in axes.get_lines() if one.get_color() == plot_style.GREY]
        assert [end.get_xdata()[0] for end in ends] == [0, 1]
    assert figure.get_suptitle() == "LeNet: mean ± s.d. over n seeds"


@pytest.mark.parametrize("draw", [curves, plot_curves.segments])
def test_what_does_not_fit_is_refused_by_name(draw):
    short = Panel("round 5", [Curve("128", [0, 1], [[1, 2, 3]])])
    with pytest.raises(ValueError, match=r"^round 5, 128.values: .* \(seeds, 2\)"):
        draw([short], title="LeNet")
    with pytest.raises(ValueError, match="^y: 2 labels; wanted 1, one a panel"):
        draw([Panel("a", [CURVE])], y=["a", "b"], title="LeNet")


def test_heat_maps_share_a_colour_bar_a_measure():
    one, two = np.array([[0, 0.5], [0.5, NAN]]), np.array([[0, 2], [2, 0.25]])
    far = Measure("angle", {"128": one, "512": two, "none": np.full((2, 2), NAN)})
    near = Measure("barrier", {"128": 10 * two}, (0.0, 50.0))
    figure = matrices([far, Measure("empty", {}), near])
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["128", "512", "128"]
    for axes, wanted in zip(maps, (one, two, 10 * two), strict=True):
        shown = axes.images[0].get_array()
        assert np.array_equal(shown.filled(NAN), wanted, equal_nan=True)
    limits = [axes.images[0].get_clim() for axes in maps]
    assert limits == [(0, 2), (0, 2), (0, 50)]
    bars = [axes for axes in figure.axes if not axes.images]
    assert [axes.get_ylabel() for axes in bars] == ["angle", "barrier"]
    rows = [axes.get_subplotspec().rowspan.start for axes in (*maps, *bars)]
    assert rows == [0, 0, 1, 0, 1]


def test_seven_heat_maps_are_two_rows_with_one_bar():
    entries = {str(i): np.eye(2) for i in range(7)}
    figure = matrices([Measure("angle", entries)])
    *maps, bar = figure.axes
    assert len(maps) == 7
    assert [axes.get_subplotspec().rowspan.start for axes in maps] == [0] * 4 + [1] * 3
    assert list(bar.get_subplotspec().rowspan) == [0, 1]


@pytest.mark.parametrize("count", [1, 2, 6, 9, 10, 26, 100])
def test_ticks_are_few_and_end_with_the_last(count):
    names = [*map(str, range(count - 1)), "init"]
    figure = matrices([Measure("angle", {"128": np.eye(count)})], names)
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        places = axis.get_ticklocs().astype(int).tolist()
        assert labels(axis) == [names[place] for place in places]
        assert places[-1] == count - 1
        assert len(places) <= 10
        least = min((b - a for a, b in itertools.pairwise(places)), default=0)
        assert least >= (count - 1) // 10


def test_matrices_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"^angle.128: .* \(3, 3\); wanted .* \(2, 2\)"
    ):
        matrices([Measure("angle", {"128": np.eye(3)})])
    assert matrices([]) is None
    assert matrices([Measure("angle", {"128": np.full((2, 2), INF)})]) is None


def test_histograms_are_percent_on_shared_bins():
    entries = [
        Values("128", [-1.0, 1.0, 1.0, NAN, None], 0.5),
        Values("512", [0.0, 0.0, 0.0, 3.0, INF], NAN),
        Values("none", [NAN]),
    ]
    figure = study_figures.histograms(entries, x="weight", title="LeNet", bins=4)
    (axes,) = figure.axes
    shown = [patch.get_data() for patch in axes.patches]
    filled, outlined = shown[::2], shown[1::2]
    assert [one.edges.tolist() for one in shown] == [[-1, 0, 1, 2, 3]] * 4
    shares = [[100 / 3, 0, 200 / 3, 0], [0, 75, 0, 25]]
    for found in (filled, outlined):
        assert np.allclose([one.values for one in found], shares)
    heights = [line.get_xdata()[0] for line in axes.get_lines()]
    assert heights == [-0.5, 0.5]
    assert legend(figure) == ["128 (n = 3)\nlines at ± 0.5", "512 (n = 4)"]


def test_histograms_on_given_bins_count_what_lies_outside():
    entry = Values("barriers", [-5.0, 0.25, 0.75, 0.8])
    figure = study_figures.histograms(
        [entry], x="barrier", title="LeNet", bins=[0.0, 0.5, 1.0]
    )
    assert figure.axes[0].patches[0].get_data().values.tolist() == [25, 50]


def test_histograms_of_nothing_and_of_one_value():
    draw = study_figures.histograms
    assert draw([], x="weight", title="") is None
    assert draw([Values("a", [])], x="weight", title="") is None
    same = draw([Values("a", [0.0, 0.0])], x="weight", title="", bins=3)
    assert same.axes[0].patches[0].get_data().values.tolist() == [0, 100, 0]
    with pytest.raises(ValueError, match=r"^a.values: .* wanted .* \(values\)"):
        draw([Values("a", [[1.0]])], x="weight", title="")


def test_points_by_group_with_their_bars():
    groups = [
        Points("easy", [1, 2, NAN], [3, 4, 5], y_sd=[0.5, NAN, 1]),
        Points("none", [NAN], [1]),
        Points("hard", [7], [8], x_sd=[1]),
    ]
    figure = study_figures.scatter(
        groups, x="barrier", y="accuracy", title="LeNet", note="rank correlation −0.9"
    )
    (axes,) = figure.axes
    easy, hard = (container[0] for container in axes.containers)
    assert easy.get_xydata().tolist() == [[1, 3], [2, 4]]
    assert hard.get_xydata().tolist() == [[7, 8]]
    assert easy.get_marker() != hard.get_marker()
    assert easy.get_color() != hard.get_color()
    assert bars(axes) == [[[1, 2.5], [1, 3.5]], [[6, 8], [8, 8]]]
    assert legend(figure) == ["easy (n = 2)", "hard (n = 1)"]
    assert figure.get_suptitle() == "LeNet\nrank correlation −0.9"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("barrier", "accuracy")


def test_points_that_do_not_fit():
    draw = study_figures.scatter
    assert draw([], x="", y="", title="") is None
    assert draw([Points("a", [], [])], x="", y="", title="") is None
    assert draw([Points("a", [1], None)], x="", y="", title="") is None
    with pytest.raises(ValueError, match=r"^a.y: .* \(3\); wanted .* \(2\)"):
        draw([Points("a", [1, 2], [1, 2, 3])], x="", y="", title="")


def every_figure():
    many = [CURVE._replace(label=f"$an$ arm with a long name, {i}") for i in range(9)]
    weights = np.random.default_rng(0).normal(size=100)
    yield curves([Panel(f"$round$ {i}", many, (3.0, "$dense$")) for i in range(3)])
    yield plot_curves.segments([Panel("$a$", many)], title="$LeNet$")
    yield study_figures.histograms(
        [Values(f"$batch$ {i}, a long name", weights, 0.1) for i in range(7)],
        x="weight",
        title="$LeNet$",
    )
    yield study_figures.scatter(
        [Points(f"$group$ {i}, a long name", [1], [i]) for i in range(12)],
        x="barrier",
        y="accuracy",
        title="$LeNet$",
    )


def test_legends_cover_no_data_and_stay_inside():
    for figure in every_figure():
        figure.draw_without_rendering()
        (found,) = [one.get_legend() for one in figure.axes if one.get_legend()]
        place = found.get_window_extent()
        assert not any(place.overlaps(one.get_window_extent()) for one in figure.axes)
        assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= place.y0 < place.y1 <= figure.bbox.y1
        for one in figure.axes:
            assert one.get_window_extent().width > 150  # pixels


def test_no_tick_labels_overlap():
    names = [*map(str, range(25)), "init"]
    entries = {f"batch {i}": np.eye(26) for i in range(4)}
    steps = [0, 1, 2, 10, 50, 100, 200, 250, 400, 800, 1600, 3000, 50000]
    panels = [Panel(c, [Curve("a", steps, np.ones((1, 13)))]) for c in "abc"]
    for figure in (
        matrices([Measure("angle", entries)], names),
        curves(panels, scale="steps"),
    ):
        figure.draw_without_rendering()
        for axis in itertools.chain(*((o.xaxis, o.yaxis) for o in figure.axes)):
            shown = [one for one in axis.get_ticklabels() if one.get_text()]
            places = [one.get_window_extent() for one in shown]
            for first, second in itertools.pairwise(places):
                assert not first.overlaps(second)


def test_rendering_is_reproducible_and_dollars_are_literal():
    for pair in zip(every_figure(), every_figure(), strict=True):
        first, second = (plot_style.render(one, file_format="svg") for one in pair)
        assert first == second
        assert b"\\$" not in first
