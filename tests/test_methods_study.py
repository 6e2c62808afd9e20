"""The study of methods: its claims, and what its page shows of made-up measurements."""

import functools
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.studies import claims as claims_lib
from experiments.studies import report as report_lib
from experiments.studies.methods import STUDY, claims, report
from experiments.studies.runs import read
from jaxsparse import masks
from jaxsparse.config import comparing
from jaxsparse.factory import models
from jaxsparse.reports import plot_style

# Means as the papers report them, in points.
LIKE_PAPERS = {
    "dense": 60.0,
    "small_dense_95": 35.0,
    "random_95": 40.0,
    "random_uniform_95": 38.0,
    "snip_95": 45.0,
    "synflow_95": 44.0,
    "ntk_sap_95": 46.0,
    "set_95": 43.0,
    "rigl_95": 46.0,
    "chts_95": 48.0,
    "srigl_95": 46.0,
    "gmp_95": 50.0,
    "gmp_small_95": 50.0,
    "ac_dc_95": 49.0,
    "tickets_95": 51.0,
    "swamp_95": 53.0,
    "tickets_rate_rewound_95": 51.0,
}


def measured_of(means: dict[str, float]) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    seeds = generator.normal(0, 0.3, 5)  # what variants of a seed share
    found = {}
    for name, mean in means.items():
        kept = 1000 if name == "dense" else 50
        found[name] = {
            "accuracy": (mean + seeds + generator.normal(0, 0.2, 5)).tolist(),
            "kept": [kept] * 5,
            "effective": [kept - 1] * 5,
            "total": [1000] * 5,
            "layers": {"conv": kept / 10, "head": kept / 10},
            "curve": ([0, 100], np.full((5, 2), mean).tolist()),
            "explored": ([], []),
            "training_flops": [4e9 if name == "dense" else 1e9] * 5,
        }
    if tickets := found.get("tickets_95"):
        tickets["re_estimated"] = tickets["accuracy"]
    return found


def verdicts(means: dict[str, float]) -> dict[str, str]:
    judged = claims_lib.judge(claims.CLAIMS, measured_of(means), length=1.0)
    return {one.claim.name: one.verdict for one in judged}


def test_all_claims_hold_of_numbers_like_the_papers() -> None:
    assert set(verdicts(LIKE_PAPERS).values()) == {claims_lib.REPRODUCED}


def test_the_opposite_is_contradicted() -> None:
    turned = {n: 100 - mean for n, mean in LIKE_PAPERS.items() if n != "dense"}
    worse = {"tickets_rate_rewound_95": 40.0, "srigl_95": 50.0}
    found = verdicts(turned | {"dense": 90.0} | worse)
    assert set(found.values()) == {claims_lib.CONTRADICTED}


def test_without_a_cost_of_pruning_premises_are_absent() -> None:
    found = verdicts(dict.fromkeys(LIKE_PAPERS, 60.0))
    assert found["RigL above SET above random"] == claims_lib.ABSENT
    assert found["AC/DC above RigL"] == claims_lib.ABSENT


def test_claims_whose_runs_are_missing_are_not_measured() -> None:
    found = verdicts({"dense": 60.0, "snip_95": 45.0, "random_95": 44.0})
    assert set(found.values()) == {claims_lib.NOT_MEASURED}


def test_methods_of_fewer_seeds_are_compared_on_the_seeds_of_both() -> None:
    measured = measured_of(LIKE_PAPERS)
    measured["rigl_95"]["accuracy"] = measured["rigl_95"]["accuracy"][:3]
    one, other = claims.accuracies(measured, "rigl", "set")
    assert len(one) == len(other) == 3
    np.testing.assert_array_equal(other, measured["set_95"]["accuracy"][:3])
    assert claims.above("rigl", "set")(measured).n == 3


def test_a_setting_has_the_claims_on_its_methods() -> None:
    def names(setting: str, scale: str) -> list[str]:
        runs = STUDY.runs(setting, scale)
        return [run.name.removeprefix(f"{setting}_") for run in runs]

    assert claims.of_runs(names("resnet8", "cifar16")) == list(claims.CLAIMS)
    mnist = {claim.name for claim in claims.of_runs(names("mnist", "cpu"))}
    assert {
        "RigL above SET above random",
        "SNIP and SynFlow above random masks",
    } <= mnist
    assert "SWAMP above tickets" not in mnist


def test_methods_that_update_masks_differ_only_in_their_rules() -> None:
    runs = {run.name: read(run) for run in STUDY.runs("resnet8", "cifar16")}
    rigl, set_, chts = (
        comparing.flatten(runs[f"resnet8_{name}_95"].to_dict())
        for name in ("rigl", "set", "chts")
    )
    rule = {"name", "sparse.method", "sparse.skip_update"}  # RigL skips by default
    assert {n for n in rigl if rigl[n] != chts[n]} == rule - {"name"}
    rule |= {"sparse.drop_by_sign", "sparse.drop_schedule"}  # RigL's is a cosine
    assert {n for n in rigl if rigl[n] != set_[n]} == rule
    assert set_["sparse.drop_by_sign"] is False


def test_the_small_dense_network_has_as_many_weights_as_the_sparse_one() -> None:
    runs = {run.name: read(run) for run in STUDY.runs("resnet8", "cifar16")}
    (sparse,) = (c for name, c in runs.items() if name.endswith("gmp_small_95"))

    def count(c: Any) -> int:
        init = functools.partial(models.make_model(c, classes=10).init, train=False)
        image = np.zeros((1, 16, 16, 3), np.float32)
        made = jax.eval_shape(init, jax.random.key(0), image)["params"]
        return masks.size(masks.ones(made))

    small = count(runs["resnet8_small_dense_95"])
    large = count(runs["resnet8_dense"])
    assert round(large * (1 - sparse.sparse.sparsity)) == small


@pytest.fixture(scope="module")
def section() -> report_lib.Section:
    return STUDY.section("resnet8", "cifar16", measured_of(LIKE_PAPERS))


def test_the_page_has_a_row_for_every_method(
    section: report_lib.Section, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot_style, "render", lambda figure, file_format: b"")
    report_lib.write("Methods", [section], tmp_path)
    page = (tmp_path / "resnet8.md").read_text(encoding="utf-8")
    assert "before any run of this study at this scale." in page
    rows = [line for line in page.split("\n") if line.startswith("| tickets, 95 % |")]
    (cells,) = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)
    values = measured_of(LIKE_PAPERS)["tickets_95"]["accuracy"]
    assert cells[1:4] == ["95.00 %", "50", "5"]
    assert cells[4] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    # Student's t with 4 degrees of freedom, 95 % on one side: 2.132.
    half = 2.131847 * np.std(values, ddof=1) / np.sqrt(5)
    ends = f"{np.mean(values) - half:.2f} to {np.mean(values) + half:.2f}"
    assert cells[5:8] == [ends, "0.25x", "95.10 %"]
    kept = pd.read_csv(tmp_path / "resnet8_accuracies.csv")
    assert len(kept) == 5 * len(LIKE_PAPERS)


def test_figures_of_accuracy_by_weights_and_by_flops(
    section: report_lib.Section,
) -> None:
    assert {"accuracy", "training", "densities", "flops"} <= section.figures.keys()
    points = report.remaining(measured_of(LIKE_PAPERS))
    assert "small dense" not in set(points["label"])
    assert set(points["x"]) == {5.0, 100.0}
