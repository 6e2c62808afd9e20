import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from jaxsparse.reports import (
    gradient_flow,
    gradient_flow_figures,
    gradient_flow_findings,
    gradient_flow_tables,
    plot_style,
)

FIGURES = ("gradient", "changes", "segments", "map", "hessian", "signal")
ALL = {
    *("claims.csv", "arms.csv", "flow.csv"),
    *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")),
}
BLUE, RED = plot_style.STYLES[0].color, plot_style.STYLES[1].color


@pytest.fixture
def found():
    return {
        "title": "LeNet-5 at 95 %",
        "steps": 600,
        "published_steps": 11719,
        "seeds": 3,
        "arms": {
            "prune": {
                "label": "Pruned",
                "accuracy": [98.0, 98.0, 98.0],
                "published": [98.5, None],
                "with_pruned": [0.01, 0.02],
                "published_with_pruned": None,
            },
            "lt": {
                "label": "LT",
                "training": "static",
                "initialisation": "the ticket's",
                "accuracy": [98.0, 99.0, 97.0],
                "published": [97.0, 0.75],
                "ensemble": 98.5,
                "published_ensemble": 97.25,
                "disagreement": [0.004, 0.0006],
                "published_disagreement": [0.0043, 0.0006],
                "with_pruned": [0.008, 0.009, 0.010],
                "published_with_pruned": [0.0089, 0.0002],
                "kl": [0.5, 0.25],
                "js": None,
            },
            "rigl": {
                "label": "RigL",
                "training": "RigL",
                "initialisation": "masked",
                "accuracy": [96.0],
                "published": [95.0, 1.0],
            },
        },
        "gradient": {
            "lt": {
                "steps": [0, 100, 200],
                "norm": [[1.0, 2.0, 4.0], [3.0, 4.0, None]],
                "effective": [[0.5, 1.0, 2.0], [1.5, 2.0, None]],
                "decrease": [[0.1, 0.4, 1.6], [0.9, 1.6, None]],
            },
            "rigl": {"steps": [0, 600], "norm": [[2.0, 1.0]]},
        },
        "changes": {
            "rigl": {
                "steps": [100, 200, 300],
                "before": [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
                "after": [[2.0, 1.0, 0.0], [4.0, 1.0, 2.0]],
            }
        },
        "segments": {
            "lt_end": {
                "label": "LT, end",
                "alphas": [-0.2, 0.0, 1.0, 1.2],
                "loss": [[1.0, 0.5, 0.25, 2.0], [3.0, 1.5, 0.75, 4.0]],
                "error": [[10.0, 5.0, 2.0, 20.0], [30.0, 15.0, 4.0, 40.0]],
                "examples": 2000,
            }
        },
        "distances": {
            "labels": ["prune end 0", "lt start 0", "lt end 0", "lt end 1"],
            "groups": ["prune end", "LT start", "LT end", "LT end"],
            "matrix": [[0, 5, 1, 3], [5, 0, 4, 4], [1, 4, 0, 2], [3, 4, 2, 0]],
            "points": [[0, 0], [5, 0], [1, 0.5], [3, -0.5]],
            "relative_stress": 0.125,
        },
        "hessian": {
            "rigl": {
                "label": "RigL",
                "states": [
                    {"step": 0, "moment": "", "negative": 1, "n": 4},
                    {
                        "step": 500,
                        "moment": "before",
                        "eigenvalues": [10.0, -2.0, 1e-9, 4.0],
                        "negative": 1,
                        "n": 4,
                        "examples": 1000,
                        "lanczos": {"top": [10.0, 4.4], "bottom": [-1.9]},
                    },
                    {
                        "step": 500,
                        "moment": "after",
                        "eigenvalues": [-3.0, -1.0, -0.5, 8.0],
                        "negative": 3,
                        "new_negatives": 2,
                    },
                ],
            }
        },
        "signal": {
            "masked": {
                "label": "masked",
                "output": [0.25, 0.75],
                "layers": {"conv": [1.0, 3.0], "dense": [0.5, 0.5]},
                "neurons": {"conv": [1.0, 2.0, 4.0], "dense": [0.5, 0.0]},
            }
        },
        "claims": [
            {
                "name": "rise",
                "statement": "rises |\n at updates",
                "ours": "+0.2",
                "n": 5,
                "verdict": "reproduced",
            },
            {"name": "barrier", "verdict": "unclear"},
        ],
    }


@pytest.fixture
def unrendered(monkeypatch):
    """Saves the seconds that pictures take, where nobody looks at them."""
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")


def draw(found):
    return gradient_flow_figures.draw(gradient_flow_findings.read("lenet", found))


def table(found, name):
    found = gradient_flow_findings.read("lenet", found)
    return getattr(gradient_flow_tables, f"{name}_table")(found)


def markdown(found, tmp_path):
    gradient_flow.write({"lenet": found}, tmp_path)
    return (tmp_path / "lenet.md").read_text()


def lines(axes, color):
    return [line for line in axes.get_lines() if line.get_color() == color]


def test_accuracies_and_their_difference_in_deviations(found):
    rows = table(found, "variants").set_index("arm")
    assert rows.index.tolist() == ["prune", "lt", "rigl"]
    assert rows["n"].tolist() == [3, 3, 1]
    assert rows.loc["lt", "accuracy_percent"] == 98.0
    assert rows.loc["lt", "accuracy_percent_sd"] == 1.0  # over n - 1
    assert rows.loc["lt", "difference"] == 1.0 / 1.25  # sqrt(1 + 0.75^2)
    assert rows.loc["lt", "gain_points"] == 0.5
    assert rows.loc["lt", "published_gain_points"] == 0.25
    # No published deviation, and none of ours.
    assert rows.loc[["prune", "rigl"], "difference"].isna().all()


def test_no_spread_at_all_is_no_unit(found):
    found["arms"]["prune"]["published"] = [98.5, 0.0]
    assert math.isnan(table(found, "variants")["difference"][0])


def test_a_lost_seed_does_not_count(found):
    found["arms"]["lt"]["accuracy"] = [98.0, None, 97.0]
    row = table(found, "variants").iloc[1]
    assert (row["n"], row["accuracy_percent"]) == (2, 97.5)


@pytest.mark.usefixtures("unrendered")
def test_what_is_missing_is_blank(found, tmp_path):
    rows = markdown(found, tmp_path).splitlines()
    for row in (
        "| Pruned | 3 | 98.00 ± 0.00 | 98.50 |  |  |  |  |  |",
        "| LT | 3 | 98.00 ± 1.00 | 97.00 ± 0.75 | +0.8 | 98.50 | 97.25 | +0.50 | "
        "+0.25 |",
        "| RigL | 1 | 96.00 | 95.00 ± 1.00 |  |  |  |  |  |",
        "| Pruned | 3 |  |  |  | 0.0150 ± 0.0071 (n = 2) |  |  |  |",
        "| LT | 3 | 0.0040 ± 0.0006 | 0.0043 ± 0.0006 | -0.4 | 0.0090 ± 0.0010 | "
        "0.0089 ± 0.0002 | +0.1 | 0.5000 ± 0.2500 |",
        "| RigL | 1 |  |  |  |  |  |  |  |",
    ):
        assert row in rows
    # A column that says nothing is left out, but not from the CSV.
    assert "JS (nats)" not in "".join(rows)
    table = pd.read_csv(tmp_path / "lenet_arms.csv")
    assert table["js"].isna().all()
    assert table["difference"].tolist() == pytest.approx(
        [math.nan, 0.8, math.nan], nan_ok=True
    )


@pytest.mark.usefixtures("unrendered")
def test_claims_begin_with_their_verdict(found, tmp_path):
    content = markdown(found, tmp_path)
    assert "| reproduced | rise | rises \\| at updates |  |  |  | +0.2 | 5 |" in content
    assert "Verdicts: 1 reproduced, 1 unclear. Thresholds were" in content
    csv = pd.read_csv(tmp_path / "lenet_claims.csv")
    assert csv["verdict"].tolist() == ["reproduced", "unclear"]


@pytest.mark.usefixtures("unrendered")
def test_distances_are_to_the_first(found, tmp_path):
    content = markdown(found, tmp_path)
    assert "Mean L2 distance to prune end 0." in content
    assert "| LT start | 1 | 5.00 |\n| LT end | 2 | 2.00 ± 1.41 |\n" in content
    assert "| prune end |" not in content


def test_curvature_at_every_state(found):
    rows = table(found, "hessian")
    assert rows["fraction"].tolist() == [0.25, 0.25, 0.75]
    assert rows["least"].tolist()[1:] == [-2.0, -3.0]
    assert rows["greatest"].tolist()[1:] == [10.0, 8.0]
    assert rows["top_error"][1] == pytest.approx(0.1)  # 4.4 for 4
    assert rows["bottom_error"][1] == pytest.approx(0.05)  # -1.9 for -2
    assert rows["change"][2] == 2
    assert rows["n"].tolist() == [4, 4, 4]  # the last is counted
    blank = rows.loc[[0, 2], ["examples", "top_error", "bottom_error"]]
    assert blank.isna().all(axis=None)
    assert rows.loc[:1, "change"].isna().all()


@pytest.mark.usefixtures("unrendered")
def test_curvature_in_words(found, tmp_path):
    content = markdown(found, tmp_path)
    for row in (
        "| RigL | 0 | 0 |  | 4 |  | 1 | 25.0 |  |  |  |  |  |",
        "| RigL | 0 | 500 | before | 4 | 1,000 | 1 | 25.0 |  | -2 | 10 | 5.0e-02 | "
        "1.0e-01 |",
        "| RigL | 0 | 500 | after | 4 |  | 3 | 75.0 | +2 | -3 | 8 |  |  |",
        "Both ends are within 1% in 0 of 1 states.",
    ):
        assert row in content


@pytest.mark.usefixtures("unrendered")
def test_the_page_for_the_repository_has_all_tables_and_figures(found, tmp_path):
    content = markdown(found, tmp_path)
    assert content.startswith("# LeNet-5 at 95 %, 600 of 11,719 updates\n")
    headings = re.findall(r"^## (.*)$", content, flags=re.MULTILINE)
    assert headings == [
        *("Claims", "Accuracy", "Accuracy by initialisation", "Predictions"),
        *("Distances", "Gradient flow", "Curvature"),
    ]
    shown = re.findall(r"^!\[.+\]\(lenet_(\w+)\.png\)$", content, flags=re.MULTILINE)
    assert tuple(shown) == FIGURES
    assert all((tmp_path / f"lenet_{name}.png").exists() for name in shown)
    places = [content.index(f"## {name}") for name in ("Distances", "Gradient flow")]
    assert places[0] < content.index("![") < places[1]


def test_accuracies_by_training_and_initialisation(found):
    read = gradient_flow_findings.read("lenet", found)
    shown = gradient_flow_tables.show_initialisations(read)
    assert list(shown) == ["Training", "the ticket's (%)", "masked (%)"]
    assert shown.to_numpy().tolist() == [
        ["static", "98.00 ± 1.00 (n = 3)", ""],
        ["RigL", "", "96.00 (n = 1)"],
    ]
    for entry in found["arms"].values():
        entry.pop("training", None)
    read = gradient_flow_findings.read("lenet", found)
    assert gradient_flow_tables.show_initialisations(read).empty


def test_other_seeds_are_tabulated_and_not_drawn(found):
    states = found["hessian"]["rigl"]["states"]
    one = len(draw(found)["hessian"].axes[0].lines)
    states.append(states[1] | {"seed": 1})
    assert len(draw(found)["hessian"].axes[0].lines) == one
    assert len(table(found, "hessian")) == 4


@pytest.mark.usefixtures("unrendered")
def test_gradient_flow_by_three_definitions(found, tmp_path):
    rows = table(found, "flow").set_index(["arm", "step"])
    places = {arm: rows.loc[arm].index.tolist() for arm in ("lt", "rigl")}
    assert places == {"lt": [0, 100, 200], "rigl": [0, 600]}
    assert rows.loc[("lt", 0), "norm"] == 2
    assert rows.loc[("lt", 0), "norm_sd"] == pytest.approx(math.sqrt(2))
    assert rows.loc[("lt", 0), "effective"] == 1
    assert rows.loc[("lt", 0), "decrease"] == pytest.approx(0.5)
    assert rows.loc[("lt", 200), "n"] == 1  # the other seed is lost
    assert rows.loc["rigl", ["effective", "decrease"]].isna().all(axis=None)
    content = markdown(found, tmp_path)
    row = "| LT | 0 | 2 | 2.0000 ± 1.4142 | 1.0000 ± 0.7071 | 5.0e-01 ± 5.7e-01 |"
    assert row in content
    assert "| RigL | 600 | 1 | 1.0000 |  |  |" in content


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("nothing", ["absent", None, "empty", "hollow"])
@pytest.mark.parametrize(
    ("part", "files"),
    [
        ("arms", ("arms.csv",)),
        ("claims", ("claims.csv",)),
        ("distances", ("map.png", "map.svg")),
        ("hessian", ("hessian.png", "hessian.svg")),
        ("gradient", ("flow.csv", "gradient.png", "gradient.svg")),
        *(
            (name, (f"{name}.png", f"{name}.svg"))
            for name in FIGURES
            if name not in ("map", "hessian", "gradient")
        ),
    ],
)
def test_a_missing_part_is_left_out(found, tmp_path, part, files, nothing):
    kind = type(found[part])
    if nothing == "absent":
        del found[part]
    elif nothing == "hollow" and part not in ("claims", "distances"):
        found[part] = dict.fromkeys(found[part], {"label": "x"})
    else:
        found[part] = None if nothing is None else kind()
    content = gradient_flow.write({"lenet": found}, tmp_path).read_text()
    names = {path.name.removeprefix("lenet_") for path in tmp_path.iterdir()}
    assert names == {"index.html", "lenet.md"} | ALL - set(files)
    shown = content.count("<figure>")
    assert shown == sum(f"{name}.svg" in names for name in FIGURES)


@pytest.mark.usefixtures("unrendered")
def test_a_network_of_which_nothing_is_known(tmp_path):
    content = gradient_flow.write({"lenet": {}}, tmp_path).read_text()
    assert "<h2>lenet</h2>" in content
    assert "Nothing has been measured yet." in content
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "lenet.md"}
    assert "Nothing has been measured yet." in (tmp_path / "lenet.md").read_text()


def test_states_without_eigenvalues_are_only_tabulated(found):
    for state in found["hessian"]["rigl"]["states"]:
        state.pop("eigenvalues", None)
    assert len(table(found, "hessian")) == 3
    assert "hessian" not in draw(found)


def test_the_page_is_whole_escaped_and_the_same_again(found, tmp_path):
    found["title"] = "<script>alert(1)</script> $x$"
    found["arms"]["lt"]["label"] = "<b>LT & co</b> $y$"
    found["claims"][0]["statement"] = "<i>"
    findings = {"lenet": found, "mlp": {"title": "MLP"}}
    pages = [gradient_flow.write(findings, tmp_path / name) for name in "ab"]
    content = pages[0].read_text()
    for wanted in (
        "&lt;script&gt;alert(1)&lt;/script&gt; $x$, 600 of 11,719 updates</h2>",
        "<td>&lt;b&gt;LT &amp; co&lt;/b&gt; $y$</td>",
        "<td>&lt;i&gt;</td>",
        "<h2>MLP</h2>",
    ):
        assert wanted in content
    for unwanted in ("<script", "<b>", "<i>", "http", "href", "url("):
        assert unwanted not in content
    assert content.count("src=") == content.count('src="data:image/svg+xml;base64,')
    order = ["<h3>Claims", "<h3>Accuracy", "<h3>Predictions", "<h3>Distances"]
    places = [content.index(s) for s in [*order, "<figure>", "<h3>Curvature"]]
    assert places == sorted(places)
    names = {path.name for path in pages[0].parent.iterdir()}
    pages_of = {"lenet.md", "mlp.md", "index.html"}
    assert names == pages_of | {f"lenet_{name}" for name in ALL}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (
            tmp_path / "b" / name
        ).read_bytes()


def test_a_short_study_says_so_in_every_figure(found):
    drawn = draw(found)
    assert tuple(drawn) == FIGURES
    for figure in drawn.values():
        title = figure.get_suptitle()
        assert title.startswith("LeNet-5 at 95 %, 600 of 11,719 updates")
    found["steps"] = 11719
    for figure in draw(found).values():
        assert "updates" not in figure.get_suptitle()


def test_legends_cover_no_data(found):
    arms = dict.fromkeys([f"arm {i}" for i in range(15)], found["gradient"]["lt"])
    found["gradient"] |= arms
    for figure in draw(found).values():
        figure.draw_without_rendering()
        legends = figure.legends + [
            axes.get_legend() for axes in figure.axes if axes.get_legend()
        ]
        assert legends
        for legend in legends:
            place = legend.get_window_extent()
            assert not any(
                place.overlaps(axes.get_window_extent()) for axes in figure.axes
            )
            assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1


def test_gradients_are_means_over_seeds(found):
    (axes,) = draw(found)["gradient"].axes
    lt, rigl = axes.get_lines()
    assert lt.get_xydata().tolist() == [[0, 2], [100, 3], [200, 4]]
    assert rigl.get_xydata().tolist() == [[0, 2], [600, 1]]
    assert axes.get_yscale() == "log"
    band = axes.collections[0].get_paths()[0].vertices
    assert [0, 2 + math.sqrt(2)] in band.tolist()
    labels = [label.get_text() for label in axes.get_legend().get_texts()]
    assert labels == ["LT (n = 2)", "RigL (n = 1)"]


def test_a_longer_training_has_its_beginning_beside_it(found):
    found["gradient"]["rigl"]["steps"] = [0, 11719]
    whole, first = draw(found)["gradient"].axes
    assert whole.get_xlim()[1] > 11719
    assert first.get_xlim() == pytest.approx((-30, 1030))
    assert whole.get_ylim() == first.get_ylim()
    for left, right in zip(whole.get_lines(), first.get_lines(), strict=True):
        assert left.get_xydata().tolist() == right.get_xydata().tolist()


def test_many_arms_are_divided_by_what_their_masks_do(found):
    entry = found["gradient"]["lt"]
    names = ["dense", "rigl", "lt", "set", "scratch", "liu", "stranger", "set_plus"]
    found["gradient"] = {name: entry | {"label": name} for name in names}
    rows = draw(found)["gradient"].axes
    called = {
        axes.get_legend().get_title().get_text(): [
            label.get_text().removesuffix(" (n = 2)")
            for label in axes.get_legend().get_texts()
        ]
        for axes in rows
    }
    assert called == {
        "fixed masks": ["lt", "scratch", "liu"],
        "masks that change": ["rigl", "set", "set_plus"],
        "pruning and dense": ["dense"],
        "others": ["stranger"],
    }
    assert len({axes.get_ylim() for axes in rows}) == 1
    for axes in rows:
        colors = [line.get_color() for line in axes.get_lines()]
        assert len(set(colors)) == len(colors)


def test_changes_have_a_running_mean_and_a_line_at_zero(found):
    (axes,) = draw(found)["changes"].axes
    (change,), (smooth,) = lines(axes, BLUE), lines(axes, RED)
    assert change.get_xydata().tolist() == [[100, 2], [200, 0], [300, 0]]
    assert smooth.get_ydata().tolist() == pytest.approx([1, 2 / 3, 0])
    (zero,) = lines(axes, "black")
    assert list(zero.get_ydata()) == [0, 0]
    assert axes.get_title() == "RigL (n = 2)"


@pytest.mark.parametrize("count", range(1, 8))
def test_panels_share_axes_whatever_their_number(found, count):
    entry = found["changes"]["rigl"]
    found["changes"] = {f"arm {i}": entry for i in range(count)}
    panels = draw(found)["changes"].axes
    assert [axes.get_title() for axes in panels] == [
        f"arm {i} (n = 2)" for i in range(count)
    ]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1


def test_segments_mark_their_ends(found):
    figure = draw(found)["segments"]
    assert "on 2,000 training examples" in figure.get_suptitle()
    loss, error = figure.axes
    assert (loss.get_ylabel(), error.get_ylabel()) == ("loss", "error (%)")
    means = [
        line.get_ydata().tolist()
        for axes in (loss, error)
        for line in lines(axes, BLUE)
    ]
    assert means == [[2.0, 1.0, 0.5, 3.0], [20.0, 10.0, 3.0, 30.0]]
    for axes in (loss, error):
        assert [line.get_xdata()[0] for line in lines(axes, plot_style.GREY)] == [0, 1]
    assert (loss.get_yscale(), error.get_yscale()) == ("log", "linear")


def test_segments_of_errors_alone(found):
    del found["segments"]["lt_end"]["loss"]
    (error,) = draw(found)["segments"].axes
    assert error.get_ylabel() == "error (%)"


def test_the_map_shows_every_solution_by_group(found):
    figure = draw(found)["map"]
    (axes,) = figure.axes
    points = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert points == [[[0, 0]], [[5, 0]], [[1, 0.5], [3, -0.5]]]
    pruned, start, end = axes.get_lines()
    assert pruned.get_marker() == "*"
    assert start.get_marker() == end.get_marker() != "*"
    assert start.get_markerfacecolor() == "none" != end.get_markerfacecolor()
    assert axes.get_aspect() == 1
    assert "relative stress 0.12" in figure.get_suptitle()
    labels = [label.get_text() for label in figure.legends[0].get_texts()]
    assert labels == ["prune end (n = 1)", "LT start (n = 1)", "LT end (n = 2)"]


def test_spectra_count_eigenvalues_from_the_far_end(found):
    figure = draw(found)["hessian"]
    (axes,) = figure.axes
    zero, *tails = axes.get_lines()
    assert [tail.get_xydata().tolist() for tail in tails] == [
        [[-2, 1]],
        [[4, 2], [10, 1]],  # 1e-9 is rounding
        [[-3, 1], [-1, 2], [-0.5, 3]],
        [[8, 1]],
    ]
    assert list(zero.get_xdata()) == [0, 0]
    assert [tail.get_linestyle() for tail in tails] == ["-", "-", "--", "--"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "log")
    labels = [label.get_text() for label in figure.legends[0].get_texts()]
    assert labels == ["step 500", "before a change of masks", "after a change of masks"]


def test_a_large_spectrum_is_thinned_between_its_ends(found):
    values = np.linspace(-1, 3, 2446)
    state = {"step": 0, "eigenvalues": values.tolist()}
    found["hessian"] = {"lt": {"states": [state]}}
    (axes,) = draw(found)["hessian"].axes
    _, negative, positive = axes.get_lines()
    for tail, side in ((negative, values[values < 0]), (positive, values[values > 0])):
        x, rank = tail.get_data()
        assert len(x) <= 200
        assert {x[0], x[-1]} == {side[0], side[-1]}
        assert rank.tolist() == [np.sum(np.abs(side) >= abs(at)) for at in x]


def test_signals_by_layer_and_neuron(found):
    figure = draw(found)["signal"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["conv", "dense"]
    (layers,) = axes.containers
    assert layers[0].get_xydata().tolist() == [[0, 2], [1, 0.5]]
    bars = layers[2][0].get_segments()
    assert bars[0][:, 1].tolist() == pytest.approx([2 - math.sqrt(2), 2 + math.sqrt(2)])
    by_marker = {
        marker: [line for line in axes.get_lines() if line.get_marker() == marker]
        for marker in (".", "x")
    }
    conv, dense = by_marker["."]
    assert conv.get_ydata().tolist() == [1, 2, 4]
    assert np.all(np.abs(conv.get_xdata()) <= 0.5)
    assert dense.get_ydata().tolist() == [0.5]
    (foot,) = by_marker["x"]  # of the layer with a neuron at 0
    assert foot.get_xdata().tolist() == [1]
    (label,) = figure.legends[0].get_texts()
    assert label.get_text() == "masked, output 0.5 (n = 2)"


def test_dead_networks_can_be_drawn(found):
    found["gradient"] = {"lt": {"steps": [0, 1], "norm": [[0.0, 0.0], [None, None]]}}
    found["segments"]["lt_end"]["loss"] = [[0.0, 0.0, 0.0, 0.0]] * 2
    found["hessian"] = {"lt": {"states": [{"step": 0, "eigenvalues": [0.0, 0.0]}]}}
    layers = found["signal"]["masked"]
    layers["layers"] = {"conv": [0.0, 0.0]}
    layers["neurons"] = {"conv": [0.0, 0.0]}
    for figure in draw(found).values():
        assert plot_style.render(figure, file_format="png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("gradient.lt.norm", [[1, 2, 3], [1, 2]], "lists of different lengths"),
        ("gradient.lt.norm", [[1, 2]], r"shape \(1, 2\); wanted .* \(seeds, 3\)"),
        ("gradient.lt.norm", "high", "no numbers"),
        ("changes.rigl.after", [[1, 2, 3]], r"\(1, 3\); wanted .* \(2, 3\)"),
        ("segments.lt_end.error", [[1, 2, 3, 4]], r"\(1, 4\); wanted .* \(2, 4\)"),
        ("arms.lt.published", [98.5], r"\(1\); wanted .* \(2\)"),
        ("arms.lt.accuracy", [[98.5]], r"\(1, 1\); wanted .* \(seeds\)"),
        ("arms.lt.ensemble", [98.5], r"\(1\); wanted .* \(\)"),
        ("arms.lt", [98.5], "wanted an object"),
        ("arms", [98.5], "wanted an object"),
        ("distances.matrix", [[0, 1], [1, 0]], r"\(2, 2\); wanted .* \(4, 4\)"),
        ("distances.points", [[0, 1, 2]] * 4, r"\(4, 3\); wanted .* \(4, 2\)"),
        ("distances.groups", ["a"], "1 names; wanted 4"),
        ("hessian.rigl.states", "all", "wanted a list"),
        ("hessian.rigl.states.1.n", 5, "5; wanted 4, the number of eigenvalues"),
        ("hessian.rigl.states.1.moment", "during", "'during'; wanted one of"),
        ("hessian.rigl.states.1.step", None, "missing"),
        ("hessian.rigl.states.1.lanczos.top", [[1]], r"\(1, 1\); wanted .* \(top\)"),
        ("signal.masked.layers.dense", [1, 2, 3], r"\(3\); wanted .* \(2\)"),
        ("signal.masked.neurons.conv", [[1]], r"\(1, 1\)"),
        ("claims.1.verdict", "yes", "'yes'; wanted one of"),
        ("claims.1.verdict", None, "None; wanted one of"),
        ("steps", "many", "no numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(found, tmp_path, place, value, message):
    *path, last = place.split(".")
    inner = found
    for name in path:
        inner = inner[int(name) if isinstance(inner, list) else name]
    inner[last] = value
    with pytest.raises(ValueError, match=message) as error:
        gradient_flow.write({"mlp": {}, "lenet": found}, tmp_path / "out")
    where = re.sub(r"\.(\d)", r"[\1]", place)
    assert str(error.value).startswith(f"lenet.{where}: ")
    assert not (tmp_path / "out").exists()


def test_names_of_networks_are_names_of_files(tmp_path):
    with pytest.raises(ValueError, match="'../lenet': as a network"):
        gradient_flow.write({"../lenet": {}}, tmp_path)


@pytest.mark.usefixtures("unrendered")
def test_findings_may_come_straight_out_of_json(found, tmp_path):
    found["gradient"]["lt"]["norm"][1][2] = math.nan
    found["segments"]["lt_end"]["arm"] = "unknown fields do no harm"
    again = json.loads(json.dumps({"lenet": found}))
    assert gradient_flow.write(again, tmp_path).exists()
