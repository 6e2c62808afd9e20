"""The report of the study of gradient flow: its tables and figures."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from experiments.studies import report as report_lib
from experiments.studies.gradient_flow import (
    figures,
    published,
    report,
    spectra,
    tables,
)
from jaxsparse.reports import plot_style

BLUE, RED = plot_style.STYLES[0].color, plot_style.STYLES[1].color


def state(step, moment, eigenvalues, negative, lanczos=None):
    return {
        "n": len(eigenvalues),
        "seed": 0,
        "step": step,
        "moment": moment,
        "eigenvalues": eigenvalues,
        "negative": negative,
        "examples": 1000,
        "lanczos": lanczos or {"top": [], "bottom": []},
    }


def findings():
    norms = {"steps": [0, 100, 200], "norm": [[1.0, 2.0, 4.0], [3.0, 4.0, math.nan]]}
    halves = [[0.5, 1.0, 2.0], [1.5, 2.0, math.nan]]
    decrease = [[0.1, 0.4, 1.6], [0.9, 1.6, math.nan]]
    flow = norms | {"effective": halves, "decrease": decrease}
    return {
        "steps": 600,
        "has_norm": False,
        "orders": {},
        "predictions": {
            "prune": {"accuracy": [98.0, 98.0, 98.0], "with_pruned": [0.01, 0.02]},
            "lt": {
                "accuracy": [98.0, 99.0, 97.0],
                "ensemble": 0.5,
                "disagreement": [0.004, 0.0006],
                "with_pruned": [0.008, 0.009, 0.010],
                "kl": [0.5, 0.25],
                "js": [0.5, 0.25],
            },
            "rigl": {"accuracy": [96.0]},
        },
        "gradients": {"lt": flow, "rigl": flow, "dense": flow},
        "changes": {
            "rigl": {
                "steps": [100, 200, 300],
                "before": [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
                "after": [[2.0, 1.0, 0.0], [4.0, 1.0, 2.0]],
            }
        },
        "starts": {},
        "interpolations": {
            "lt_end": {
                "variant": "lt",
                "moment": "end",
                "alphas": [-0.2, 0.0, 1.0, 1.2],
                "loss": [[1.0, 0.5, 0.25, 2.0], [3.0, 1.5, 0.75, 4.0]],
                "error": [[10.0, 5.0, 2.0, 20.0], [30.0, 15.0, 4.0, 40.0]],
                "examples": 2000,
            }
        },
        "distances": {"lt": {"start": [5.0], "end": [1.0, 3.0]}},
        "map": {
            "prune": {"start": [[9.0, 0.0]], "end": [[0.0, 0.0]]},
            "lt": {"start": [[5.0, 0.0]], "end": [[1.0, 0.5], [3.0, -0.5]]},
        },
        "curvature": {
            "rigl": {
                "states": [
                    state(
                        *(500, "before", [10.0, -2.0, 1e-9, 4.0], 1),
                        {"top": [10.0, 4.4], "bottom": [-1.9]},
                    ),
                    state(500, "after", [-3.0, -1.0, -0.5, 8.0], 3),
                ]
            }
        },
        "signals": {
            "masked": {
                "output": [0.25, 0.75],
                "layers": {"conv": [1.0, 3.0], "dense": [0.5, 0.5]},
                "neurons": {"conv": [1.0, 2.0, 4.0], "dense": [0.5, 0.0]},
            }
        },
    }


@pytest.fixture
def found():
    return findings()


def section_of(network, found):
    """Makes the section of findings that are arranged already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report.variants, "arrange", lambda *args: found)
        return report.section(network, "quick", {})


@pytest.fixture(scope="module")
def section():
    """Every figure, drawn once."""
    return section_of("lenet", findings())


def lines(axes, color):
    return [line for line in axes.get_lines() if line.get_color() == color]


def test_accuracies_and_their_difference_in_standard_errors(found):
    rows = tables.variants_frame("lenet", found).set_index("variant")
    assert rows["n"].tolist() == [3, 3, 1]
    assert rows.loc["lt", "accuracy_percent"] == 98.0
    assert rows.loc["lt", "accuracy_percent_sd"] == 1.0  # over n - 1
    # Of three networks here, five in the paper.
    expected = (98.0 - 98.52) / math.hypot(1.0 / 3**0.5, 0.02 / 5**0.5)
    assert rows.loc["lt", "difference"] == pytest.approx(expected)
    assert rows.loc["lt", "gain_points"] == 0.5
    assert rows.loc["lt", "published_gain_points"] == pytest.approx(0.06)
    # The deviation of one pair of seeds is NaN.
    found["predictions"]["lt"]["disagreement"] = [0.004, math.nan]
    rows = tables.variants_frame("lenet", found).set_index("variant")
    assert math.isnan(rows.loc["lt", "disagreement_difference"])
    # One seed, or no published numbers.
    assert math.isnan(rows.loc["rigl", "difference"])


def test_what_is_missing_is_blank(found):
    shown = tables.show_accuracy(tables.variants_frame("lenet", found))
    rigl = shown.set_index("Variant").loc["RigL"]
    assert rigl["Test accuracy (%)"] == "96.00"
    assert (rigl.drop(["n", "Test accuracy (%)"]) == "").all()
    predictions = tables.show_predictions(tables.variants_frame("lenet", found))
    row = predictions.set_index("Variant").loc["gradual pruning"]
    assert row["With pruned"] == "0.0150 ± 0.0071 (n = 2)"
    only = tables.show_accuracy(tables.variants_frame("mlp", found))
    assert not [name for name in only if "ublished" in name]


def test_every_seed_has_a_row(found):
    found["predictions"]["scratch"] = {"summary": [97.0, 0.5, 3]}
    found["orders"] = {"scratch": [{"accuracy": [90.0]}, {"accuracy": [91.0]}]}
    found["orders"]["lt"] = [found["predictions"]["lt"]]  # not a second time
    rows = tables.accuracies_frame(found)
    counts = rows["variant"].value_counts(sort=False)
    once = {"prune": 3, "lt": 3, "rigl": 1}
    assert counts.to_dict() == once | {"scratch_mask_0": 1, "scratch_mask_1": 1}
    lt = rows[rows["variant"] == "lt"]
    assert lt["seed"].tolist() == [0, 1, 2]
    assert lt["accuracy_percent"].tolist() == [98.0, 99.0, 97.0]
    assert lt["with_pruned"].tolist() == [0.008, 0.009, 0.010]
    pruned = rows[rows["variant"] == "prune"]["with_pruned"]
    assert pruned.notna().tolist() == [True, True, False]
    assert tables.accuracies_frame({"predictions": {}, "orders": {}}).empty


def test_accuracies_by_method_and_initialization(found):
    shown = tables.show_initializations(found)
    assert shown["Training"].tolist() == ["static", "RigL"]
    assert shown["the ticket's (%)"].tolist() == ["98.00 ± 1.00 (n = 3)", ""]
    assert shown["Glorot, masked (%)"].tolist() == ["", "96.00 (n = 1)"]


def test_gradient_flow_by_three_definitions(found):
    rows = tables.flow_frame(found).set_index(["variant", "step"])
    assert rows.loc["lt"].index.tolist() == [0, 200]
    assert rows.loc[("lt", 0), "norm"] == 2
    assert rows.loc[("lt", 0), "norm_sd"] == pytest.approx(math.sqrt(2))
    assert rows.loc[("lt", 0), "effective"] == 1
    assert rows.loc[("lt", 0), "decrease"] == pytest.approx(0.5)
    assert rows.loc[("lt", 200), "n"] == 1  # the other seed is lost
    shown = tables.show_flow(tables.flow_frame(found))
    assert shown.loc[0, "First-order decrease"] == "5.0e-01 ± 5.7e-01"


def test_distances_are_to_the_pruned_solution(found):
    shown = tables.show_distances(found["distances"])
    assert shown.to_numpy().tolist() == [
        ["LT start", "1", "5.00"],
        ["LT end", "2", "2.00 ± 1.41"],
    ]


def test_curvature_at_every_state(found):
    rows = tables.hessian_frame(found)
    assert rows["percent"].tolist() == [25, 75]
    assert rows["least"].tolist() == [-2.0, -3.0]
    assert rows["greatest"].tolist() == [10.0, 8.0]
    assert rows["top_error"][0] == pytest.approx(0.1)  # 4.4 for 4
    assert rows["bottom_error"][0] == pytest.approx(0.05)  # -1.9 for -2
    assert rows["change"][1] == 2
    shown = tables.show_hessian(rows)
    assert shown.loc[1, "More negative than before"] == "+2"


def test_the_section_has_all_tables_and_figures(section, tmp_path, monkeypatch):
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")
    report_lib.write("A study", [section], tmp_path)
    content = (tmp_path / "lenet.md").read_text()
    assert content.startswith("# LeNet-5 at 95 %, 600 of 11,719 updates\n")
    assert re.findall(r"^## (.*)$", content, flags=re.MULTILINE) == [
        *("Claims", "Accuracy", "Accuracy by initialization", "Predictions"),
        *("Distances", "Gradient flow", "Curvature"),
    ]
    assert "Both ends are within 1% in 0 of 1 states." in content
    shown = re.findall(r"^!\[.+\]\(lenet_(\w+)\.png\)$", content, flags=re.MULTILINE)
    assert shown == list(figures.CAPTIONS)


def test_parts_that_are_not_measured_are_left_out(found):
    parts = ("interpolations", "distances", "map", "curvature", "signals", "changes")
    section = section_of("mlp", found | dict.fromkeys(parts, {}))
    drawn = {name for name, one in section.figures.items() if one is not None}
    assert drawn == {"gradient"}
    networks = ("LeNet-5: ", "ResNet-50: ", "not in the paper")
    assert all(one.claim.published.startswith(networks) for one in section.claims)


def test_gradients_are_divided_by_kind_of_masks(section):
    axes = section.figures["gradient"].axes
    titles = ["fixed masks", "mask updates", "pruning and dense"]
    assert [one.get_title() for one in axes] == titles
    lt = lines(axes[0], BLUE)[0]
    assert lt.get_xydata().tolist() == [[0, 2], [100, 3], [200, 4]]
    assert axes[0].get_yscale() == "log"


def test_changes_have_a_running_mean_and_a_line_at_zero(section):
    (axes,) = section.figures["changes"].axes
    (change,), (smooth,) = lines(axes, BLUE), lines(axes, RED)
    logs = [np.log10(8) / 2, 0, np.log10(2)]  # of 2 and 4, of 1, and of 2 alone
    assert change.get_xdata().tolist() == [100, 200, 300]
    assert change.get_ydata().tolist() == pytest.approx(logs)
    means = [logs[0] / 2, (logs[0] + logs[2]) / 3, logs[2] / 2]
    assert smooth.get_ydata().tolist() == pytest.approx(means)
    (zero,) = lines(axes, "black")
    assert list(zero.get_ydata()) == [0, 0]
    assert axes.get_title() == "RigL (n = 2)"


def test_interpolations_mark_their_ends(section):
    figure = section.figures["interpolations"]
    assert "on 2,000 training examples" in figure.get_suptitle()
    loss, error = figure.axes
    assert (loss.get_title(), error.get_title()) == ("loss", "error (%)")
    means = [lines(axes, BLUE)[0].get_ydata().tolist() for axes in (loss, error)]
    assert means == [[2.0, 1.0, 0.5, 3.0], [20.0, 10.0, 3.0, 30.0]]
    for axes in (loss, error):
        assert [line.get_xdata()[0] for line in lines(axes, plot_style.GREY)] == [0, 1]
    assert (loss.get_yscale(), error.get_yscale()) == ("log", "linear")


def test_the_map_shows_every_solution_by_group(section):
    figure = section.figures["map"]
    (axes,) = figure.axes
    points = [line.get_xydata() for line in axes.get_lines()]
    assert [len(group) for group in points] == [1, 1, 2]
    every = np.concatenate(points)
    # In the plane, distances are kept: 5 to the start, and 2.2 between both ends.
    assert np.linalg.norm(every[0] - every[1]) == pytest.approx(5, rel=1e-2)
    assert np.linalg.norm(every[2] - every[3]) == pytest.approx(5**0.5, rel=1e-2)
    pruned, start, end = axes.get_lines()
    assert pruned.get_marker() == "*"
    assert start.get_marker() == end.get_marker() != "*"
    assert start.get_markerfacecolor() == "none" != end.get_markerfacecolor()
    assert axes.get_aspect() == 1
    assert "relative stress" in figure.get_suptitle()


def test_spectra_count_eigenvalues_from_the_far_end(section):
    (axes,) = section.figures["hessian"].axes
    zero, *tails = axes.get_lines()
    assert [sorted(tail.get_xydata().tolist()) for tail in tails] == [
        [[-2, 1]],
        [[4, 2], [10, 1]],  # 1e-9 is rounding
        [[-3, 1], [-1, 2], [-0.5, 3]],
        [[8, 1]],
    ]
    assert list(zero.get_xdata()) == [0, 0]
    assert [tail.get_linestyle() for tail in tails] == ["-", "-", "--", "--"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "log")


def test_a_large_spectrum_is_thinned_between_its_ends():
    values = np.linspace(-1, 3, 2446)
    sides = (values[values < 0], values[values > 0])
    for (x, rank), side in zip(spectra.tails(values), sides, strict=True):
        assert len(x) <= 200
        assert {x[0], x[-1]} == {side[0], side[-1]}
        assert rank.tolist() == [np.sum(np.abs(side) >= abs(at)) for at in x]


def test_signals_by_layer_and_neuron(section):
    figure = section.figures["signal"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["conv", "dense"]
    crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in crosses] == [[1]]
    (label,) = figure.legends[0].get_texts()
    assert label.get_text() == "Glorot, masked, output 0.5 (n = 2)"
    assert axes.get_yscale() == "log"


def test_labels_of_groups():
    assert published.label_group("lt end") == "LT end"
    assert isinstance(tables.variants_frame("mlp", {"predictions": {}}), pd.DataFrame)


def test_a_page_says_what_seeds_share_and_which_never_learned(found):
    old = {"summary": [46.0, 47.45, 5]}
    found["predictions"]["scratch_same"] = old
    lines = section_of("lenet", found).lines
    assert "one mask" in lines[0]
    never = "Some seeds never learned: "
    assert lines[1] == f"{never}Scratch, one initialization (46.00 ± 47.45 over 5)."
    assert lines[2].startswith("Measurements of 1 variants are from")
    found["predictions"]["scratch_same"] = {"accuracy": [98.0, 11.0, 60.0]}
    lines = section_of("resnet8", found).lines
    assert lines == [f"{never}Scratch, one initialization (1 of 3)."]
