"""Verdicts on claims: what shows, refutes and removes them."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments import studies
from experiments.studies import claims, effects
from experiments.studies.claims import Claim, NotMeasured, Premise
from experiments.studies.effects import Effect


def claim(name: str, evaluate: Any, *premises: Any) -> Claim:
    made = (Premise(f"premise {i}", one) for i, one in enumerate(premises))
    return Claim(name, "", "", "", evaluate, tuple(made))


def of(p: float, against: float, n: int = 5) -> Any:
    return lambda found: Effect(1.0, (0.0, 2.0), p, against, n, "words")


def verdicts(*made: Claim, length: float = 1.0) -> list[str]:
    return [one.verdict for one in claims.judge(made, {}, length=length)]


def test_both_directions_need_the_same_evidence() -> None:
    made = claim("shown", of(0.01, 0.99)), claim("refuted", of(0.99, 0.01))
    assert verdicts(*made) == ["reproduced", "contradicted"]
    assert verdicts(claim("open", of(0.3, 0.7))) == ["unclear"]


def test_p_values_are_corrected_over_the_page_by_holms_method() -> None:
    each = [0.01, 0.02, 0.04]
    judged = claims.judge([claim(str(p), of(p, 1 - p)) for p in each], {}, length=1)
    # By hand: 3 * 0.01, then 2 * 0.02, then 1 * 0.04, never falling.
    assert [one.holm[0] for one in judged] == pytest.approx([0.03, 0.04, 0.04])
    assert verdicts(claim("", of(0.04, 0.96)), claim("", of(0.04, 0.96))) == [
        "unclear",
        "unclear",
    ]


def test_an_absent_premise_removes_a_claim_from_the_correction() -> None:
    absent = claim("a", of(0.01, 0.99), of(0.99, 0.01))
    tested = claim("b", of(0.04, 0.96), of(0.01, 0.99))
    first, second = claims.judge([absent, tested], {}, length=1)
    assert (first.verdict, first.holm) == ("premise absent", None)
    assert (second.verdict, second.holm[0]) == ("reproduced", pytest.approx(0.04))
    assert "premise 0: no (words)" in first.premises


def test_an_unclear_premise_leaves_a_claim_unclear() -> None:
    assert verdicts(claim("a", of(0.001, 0.999), of(0.3, 0.7))) == ["unclear"]


def test_what_has_not_ended_is_not_measured() -> None:
    def missing(found: Any) -> Effect:
        raise NotMeasured

    assert verdicts(claim("a", missing)) == ["not measured"]
    assert verdicts(claim("a", of(0.01, 0.99), missing)) == ["not measured"]


def test_a_fault_in_a_claim_is_no_missing_run() -> None:
    with pytest.raises(ZeroDivisionError):
        verdicts(claim("a", lambda found: 1 / 0))


def test_two_units_are_unclear() -> None:
    assert verdicts(claim("a", of(0.001, 0.999, n=2))) == ["unclear"]


def test_short_runs_are_marked() -> None:
    (judged,) = claims.judge([claim("a", of(0.01, 0.99))], {}, length=0.3)
    assert claims.row(judged)["verdict"] == "reproduced (short)"


def test_thresholds_are_amended_where_runs_had_been_seen() -> None:
    first = claim("first", of(0.5, 0.5))
    late = first._replace(written=claims.AFTER)
    for scale in studies.SCALES:
        words = [one.written for one in claims.at_scale([first, late], scale)]
        about = claims.about_thresholds([first, late], scale)
        if scale in ("quick", "cpu"):
            assert words == ["amended", "after"]
            assert "amended" in about and "after the first measurement" in about
            assert "after" not in claims.about_thresholds([first], scale)
        else:
            assert words == ["before", "before"]
            assert about == "All thresholds were written before any run of this scale."


def test_thresholds_that_changed_later_at_a_scale_are_said_to() -> None:
    changed = claim("changed", of(0.5, 0.5))._replace(seen=("cifar16",))
    both = [claim("first", of(0.5, 0.5)), changed]
    words = [one.written for one in claims.at_scale(both, "cifar16")]
    assert words == ["before", "after"]
    assert "changed when some had been seen" in claims.about_thresholds(both, "cifar16")
    assert [one.written for one in claims.at_scale(both, "full")] == ["before"] * 2
    assert "All thresholds" in claims.about_thresholds(both, "full")


@pytest.mark.parametrize(("holds", "word"), [(True, "reproduced"), (False, "absent")])
def test_facts_are_premises(holds: bool, word: str) -> None:
    known = claim("a", of(0.01, 0.99), lambda found: claims.fact(holds, "BatchNorm"))
    (judged,) = claims.judge([known], {}, length=1)
    assert word in judged.verdict
    assert "(BatchNorm)" in judged.premises


def test_a_page_of_effects_has_the_power_of_holms_method() -> None:
    """Planted effects are found by slow Holm, more often than by Bonferroni."""
    random, pages, size = np.random.default_rng(1), 100, 10
    mean, n = 3.0, 5
    found = slow = bonferroni = 0
    for _ in range(pages):
        values = mean + random.normal(size=(size, n))
        made = [claim("", lambda f, v=v: effects.above(v)) for v in values]
        found += verdicts(*made).count("reproduced")
        p = sorted(stats.ttest_1samp(values, 0, axis=1, alternative="greater").pvalue)
        # Reject from the smallest on, until one is above 0.05 over the number left.
        for rank, one in enumerate(p):
            if one >= 0.05 / (size - rank):
                break
            slow += 1
        bonferroni += sum(one < 0.05 / size for one in p)
    assert found == slow > bonferroni
    assert bonferroni > 0.7 * pages * size


def test_a_premise_that_is_absent_gates_at_its_level() -> None:
    """Where a premise is false, it is taken for present in one of twenty settings."""
    random, draws = np.random.default_rng(2), 2000
    made = []
    for values in random.normal(size=(draws, 5)):
        premise = Premise("", lambda found, v=values: effects.above(v))
        made.append(Claim("", "", "", "", of(0.001, 0.999), (premise,)))
    judged = [claims.judge([one], {}, length=1)[0] for one in made]
    shown = np.mean([one.verdict == "reproduced" for one in judged])
    assert shown <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_on_a_page_without_effects_few_pages_have_a_verdict() -> None:
    """Of pages of ten claims on noise, one in twenty has a false one on either side."""
    random, pages = np.random.default_rng(0), 200
    wrong = {"reproduced": 0, "contradicted": 0}
    for _ in range(pages):
        values = random.normal(size=(10, 5))
        made = [claim("", lambda f, v=v: effects.above(v)) for v in values]
        found = set(verdicts(*made))
        for word in wrong:
            wrong[word] += word in found
    most = pages * (0.05 + 3 * np.sqrt(0.05 * 0.95 / pages))
    assert max(wrong.values()) <= most


def test_dead_networks_are_those_near_chance() -> None:
    assert claims.are_dead([60.0, 14.0])
    assert not claims.are_dead([60.0, 16.0])
