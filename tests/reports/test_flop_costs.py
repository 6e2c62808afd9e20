"""FLOPs in reports, of records made up by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.studies.methods import report as methods_report
from jaxsparse.reports import flop_costs, methods, report_figures
from jaxsparse.reports import records as records_lib

Record = dict[str, Any]


def settings(method: str) -> Record:
    sparse = {"method": method, "distribution": "uniform", "sparsity": 0.9}
    return {
        "lottery": {"levels": 0},
        "model": {"name": "lenet_300_100", "features": None},
        "data": {"name": "mnist"},
        "sparse": sparse,
    }


def rows(
    accuracy: float, multiple: float | None, *, interpolated: bool
) -> list[Record]:
    where = {"stage": "level_00/ticket", "level": 0, "variant": "ticket", "step": 9}
    found = []
    for replicate in range(2):
        of_one = where | {"replicate": replicate}
        level = {"kept": 10, "total": 100, "density": 0.1, "effective_params": 10}
        level |= {"layers": {"w": [10, 100]}, "test_accuracy": accuracy}
        level |= {name: None for name in ("early_stop_step", "validation_loss")}
        level |= {"early_stop_test_accuracy": None, "start_step": 0}
        found.append({"kind": "level", **of_one, **level})
        cost = {"params": 12, "training_multiple": multiple, "inference_multiple": 0.2}
        found.append({"kind": "flops", **of_one, **cost, "interpolated": interpolated})
    return found


@pytest.fixture
def runs(make_run: Callable[..., Path]) -> list[records_lib.RunRecords]:
    folders = [
        make_run("rigl", rows(0.9, 0.231, interpolated=False), config=settings("rigl")),
        make_run("gmp", rows(0.95, 0.56, interpolated=True), config=settings("gmp")),
        make_run("set", rows(0.8, None, interpolated=False), config=settings("set")),
    ]
    return records_lib.read_runs(folders)


def test_tables_have_multiples_of_dense(runs: list[records_lib.RunRecords]) -> None:
    table = methods.methods_table(runs).set_index("run")
    assert table.loc["rigl", "training_multiple"] == pytest.approx(0.231)
    assert table.loc["gmp", "inference_multiple"] == pytest.approx(0.2)
    assert pd.isna(table.loc["set", "training_multiple"])
    shown = flop_costs.show(runs[1]).iloc[0]
    assert shown["Training FLOPs (x dense)"] == "about 0.56x"
    assert shown["Inference FLOPs (x dense)"] == "0.2x"
    assert flop_costs.show(runs[2]).iloc[0]["Training FLOPs (x dense)"] == ""


def test_figure_has_a_point_for_each_known_cost(
    runs: list[records_lib.RunRecords],
) -> None:
    figure = report_figures.compare(runs)["flops"]
    (axes,) = figure.axes
    points = {
        (x, y) for line in axes.lines for x, y in zip(*line.get_data(), strict=True)
    }
    assert {(0.231, 90.0), (0.56, 95.0)} <= points
    assert flop_costs.by_training(runs[2:], title="none") is None


def test_the_study_of_methods_draws_what_was_measured() -> None:
    measured = {
        "dense": {"accuracy": [95.0, 95.0], "training_flops": [4e9, 4e9]},
        "rigl_90": {"accuracy": [90.0, 91.0], "training_flops": [8e8, 8e8]},
        "rigl_80": {"accuracy": [92.0, 93.0], "training_flops": [1.2e9, 1.2e9]},
        "old_90": {"accuracy": [80.0]},  # measured before FLOPs were recorded
    }
    table = methods_report.training_costs(measured)
    assert list(table["label"].unique()) == ["dense", "rigl"]
    multiples = table.drop_duplicates("run")["training_multiple"]
    assert list(multiples) == pytest.approx([1.0, 0.2, 0.3])
    assert flop_costs.draw(table, title="digits") is not None
    assert flop_costs.draw(table.iloc[:0], title="digits") is None
