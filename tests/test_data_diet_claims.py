"""The claims of the study of data diets, and its page, of invented findings."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.studies import claims as claims_lib
from experiments.studies.data_diet import claims, measure, published
from experiments.studies.data_diet import report as report_lib


def make_arm(late: float, *, barrier: float, early: float) -> dict[str, Any]:
    """Invents findings of an arm with three seeds."""
    rng = np.random.default_rng(round(1000 * late))
    levels = list(range(11))
    ticket = np.full((3, 11), late) + rng.normal(scale=0.05, size=(3, 11))
    ticket[:, 0] = 91.4
    return {
        "levels": levels,
        "remaining": [100 * 0.8**level for level in levels],
        "ticket": ticket.tolist(),
        "mean_barrier": [barrier] * 3,
        "connected": [1 / (1 + barrier)] * 3,
        "connected_0": [0.1 / (1 + barrier)] * 3,
        "pretrained": [early] * 3,
        "instability": [10 * barrier] * 3,
        "hessian_examples": 500,
        "sharpness_start": [5.0] * 3,
        "sharpness_end": [5.0] * 3,
        "by_class": [0.5] * 10,
        "histogram": [1] * (len(measure.BINS) + 1),
        "examples": 50_000,
        "rewind": 200,
        "steps": 62_400,
        "epochs": 160.0,
        "interpolation": [30, 0],
    }


def as_published() -> dict[str, Any]:
    made = {
        "k0": make_arm(88.5, barrier=4.0, early=50.0),
        "k1": make_arm(90.2, barrier=1.5, early=10.0),
        "k2": make_arm(91.3, barrier=0.3, early=45.0),
        "k4": make_arm(91.35, barrier=0.2, early=12.0),
        "easy_320": make_arm(91.25, barrier=0.7, early=30.0),
        "easy_640": make_arm(91.2, barrier=0.8, early=32.0),
        "random_320": make_arm(90.3, barrier=1.4, early=40.0),
        "hard_320": make_arm(88.8, barrier=3.5, early=42.0),
        "noise_10": make_arm(90.0, barrier=1.6, early=40.0),
        "noise_50": make_arm(89.0, barrier=1.7, early=30.0),
    }
    return {"usual": 320, "variants": made}


def judged(found: dict[str, Any]) -> dict[str, str]:
    rows = claims_lib.judge(claims.CLAIMS, found, length=1.0)
    return {one.claim.name: one.verdict for one in rows}


# Permutations of a handful of blocks, and a bootstrap over eight variants, show little.
OF_VARIANTS = {
    "barriers predict",
    "connection predicts",
    "barriers predict better than accuracy",
}


def test_what_is_published_is_reproduced() -> None:
    verdict = judged(as_published())
    assert {word for name, word in verdict.items() if name not in OF_VARIANTS} == {
        "reproduced"
    }, verdict


def test_correlations_have_the_published_signs() -> None:
    found = as_published()
    by_name = {claim.name: claim.evaluate(found) for claim in claims.CLAIMS}
    assert by_name["barriers predict"].estimate < -0.9
    assert by_name["barriers predict"].p < 0.05
    assert by_name["connection predicts"].p < 0.05
    assert by_name["barriers predict better than accuracy"].estimate > 0.5


def test_the_opposite_is_contradicted_or_has_no_premise() -> None:
    found = as_published()
    turned = {"k0": 91.8, "k1": 90.5, "k2": 89.0, "easy_320": 88.0, "easy_640": 88.1}
    turned |= {"random_320": 89.5, "hard_320": 91.3, "noise_10": 90.6}
    turned |= {"noise_50": 91.0, "k4": 88.9}
    for name, late in turned.items():
        arm = found["variants"][name]
        found["variants"][name] = make_arm(
            late, barrier=late / 10, early=arm["pretrained"][0]
        )
    verdict = judged(found)
    plain = ("tickets of initialization fall short", "pre-training helps")
    plain += ("more pre-training helps more",)
    assert {verdict.pop(name) for name in plain} == {"contradicted"}
    # Where updates gain nothing there is nothing to be as good as.
    assert set(verdict.values()) == {"premise absent"}


@pytest.mark.parametrize(
    ("variant", "late", "name"),
    [
        ("k2", 90.5, "a few hundred updates suffice"),
        ("random_320", 89.0, "a random part suffices"),
        ("easy_320", 90.3, "easy data save updates"),
        ("hard_320", 90.9, "hard data are worse"),
    ],
)
def test_what_loses_more_than_a_part_is_not_as_good(
    variant: str, late: float, name: str
) -> None:
    found = as_published()
    found["variants"][variant] = make_arm(late, barrier=1.0, early=40.0)
    assert judged(found)[name] == "contradicted"


def test_variants_without_any_effect_reproduce_nothing() -> None:
    found = as_published()
    for i, name in enumerate(found["variants"]):
        found["variants"][name] = make_arm(91.35 + 0.001 * i, barrier=1.0, early=40.0)
    assert "reproduced" not in judged(found).values()


def test_late_levels_are_those_around_the_published_one() -> None:
    arm = make_arm(90.0, barrier=1.0, early=40.0)
    arm["levels"] = list(range(21))
    arm["remaining"] = [100 * 0.8**level for level in arm["levels"]]
    arm["ticket"] = [[float(level) for level in arm["levels"]]] * 3
    # 21.0, 16.8, 13.4 and 10.7 % remain at levels 7 to 10.
    assert claims.late(arm).tolist() == [8.5] * 3
    few = arm | {"remaining": [100.0, 80.0], "ticket": [[1.0, 2.0]] * 3}
    assert claims.late(few).tolist() == [2.0] * 3


def test_correlations_need_some_variants() -> None:
    found = as_published()
    few = ("k0", "k1", "k2", "easy_320", "noise_10", "noise_50")
    found["variants"] = {name: found["variants"][name] for name in few}
    with pytest.raises(claims_lib.NotMeasured, match="too few variants"):
        claims.correlation(found, "mean_barrier")
    verdict = judged(found)
    assert verdict["barriers predict"] == "not measured"
    assert verdict["more pre-training helps more"] == "reproduced"


@pytest.mark.parametrize("name", ["k0", "k1", "k2", "easy_320", "hard_320", "noise_50"])
def test_what_has_not_ended_is_not_measured(name: str) -> None:
    found = as_published()
    del found["variants"][name]
    verdict = judged(found)
    assert "not measured" in verdict.values()


def test_noise_takes_no_part_and_nested_subsets_move_together() -> None:
    x, y, blocks = claims.of_variants(as_published(), "mean_barrier")
    assert x.shape == y.shape == (3, 8)
    assert blocks == [0, 1, 2, 3, 4, 4, 5, 6]


def by_run(found: dict[str, Any]) -> dict[str, Any]:
    """Names invented findings as the runs of the scale `full` on CIFAR-10."""
    return {n.replace("320", "3200"): m for n, m in found["variants"].items()}


def test_a_page_of_all_variants_has_every_figure_and_ranks() -> None:
    made = report_lib.section("cifar", "full", by_run(as_published()))
    names = {"levels", "sizes", "barrier", "connected", "pretrained", "barriers"}
    assert names <= {name for name, drawn in made.figures.items() if drawn is not None}
    ranks = made.frames["ranks"].set_index("measure")
    table = made.frames["variants"]
    table = table[~table["variant"].str.startswith("noise")]
    each = [
        stats.spearmanr(rows["mean_barrier"], rows["late"]).statistic
        for _, rows in table.groupby("seed")
    ]
    assert ranks.loc["mean_barrier", "spearman"] == pytest.approx(np.mean(each))


def test_a_page_of_few_variants() -> None:
    found = {"k1": as_published()["variants"]["k1"]}
    made = report_lib.section(
        "cifar", "full", found | {"scored": {"scored": (16, 780)}}
    )
    assert any("100.0%" in line for line in made.lines)
    assert any("16 other networks after 780 updates" in line for line in made.lines)
    assert made.frames["ranks"].empty


def test_a_page_says_how_finely_segments_were_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report_lib.figures, "draw", lambda *args: {})
    found = by_run(as_published())
    assert any(
        line.startswith("Errors between copies are measured at 30 points")
        and line.endswith("those of training on all examples.")
        for line in report_lib.section("cifar", "full", found).lines
    )
    next(iter(found.values()))["interpolation"] = [11, 1000]
    assert any(
        " 11 points " in line and "on the first 1,000 examples" in line
        for line in report_lib.section("cifar", "full", found).lines
    )


def test_gains_are_compared_at_the_nearest_published_level() -> None:
    """Our levels of 40 and 16 % stand beside 41.0 and 16.8 %; 30 % beside none."""
    made = {}
    for name, late in (("k0", 88.5), ("k1", 90.0), ("easy_3200", 91.0)):
        made[name] = make_arm(late, barrier=1.0, early=10.0) | {
            "remaining": [100.0, 40.0, 30.0, 16.0],
            "ticket": [[91.4, 80.0, 70.0, late]] * 3,
        }
    found = published.show({"usual": 3200, "variants": made})
    assert list(found.columns)[1:] == [
        "40.0 % remaining (published at 41.0 %)",
        "16.0 % remaining (published at 16.8 %)",
    ]
    gains = found.iloc[:, -1].str.replace(r" ± \S+", "", regex=True)
    assert gains.tolist() == ["1.50 (+1.67)", "2.50 (+2.42)"]
