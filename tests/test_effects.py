"""Effects of studies: tests by hand, by slow code, and on made-up data."""

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.studies import effects

DRAWS = 2000
FALSE_POSITIVES = 0.05 + 3 * np.sqrt(0.05 * 0.95 / DRAWS)  # with three standard errors


def draws(mean: float, n: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, size=(DRAWS, n))


def test_a_mean_by_the_formula_of_the_t_test() -> None:
    values = [1.0, 2.0, 4.0]
    t = (np.mean(values) - 1) / (np.std(values, ddof=1) / np.sqrt(3))
    effect = effects.above(values, 1.0)
    assert effect.p == pytest.approx(stats.t.sf(t, 2))
    assert effect.p_against == pytest.approx(stats.t.cdf(t, 2))
    half = stats.t.ppf(0.95, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert effect.interval == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert effects.below(values, 1.0).p == effect.p_against
    assert effect.n == 3


def test_signs_are_flipped_in_all_ways() -> None:
    values = np.array([0.5, 1.0, -0.2, 3.0])
    signs = np.array(list(itertools.product([-1, 1], repeat=4)))
    means = np.mean(signs * values, axis=1)
    effect = effects.above(values, exact=True)
    assert effect.p == np.mean(means >= values.mean() - 1e-12)
    assert effect.p_against == np.mean(means <= values.mean() + 1e-12)


def test_units_are_exchanged_in_all_ways() -> None:
    one, other = np.array([3.0, 5.0, 9.0]), np.array([1.0, 2.0])
    both = np.concatenate([one, other])
    gaps = []
    for chosen in itertools.combinations(range(5), 3):
        rest = [i for i in range(5) if i not in chosen]
        gaps.append(both[list(chosen)].mean() - both[rest].mean())
    effect = effects.higher(one, other, exact=True)
    assert effect.p == np.mean(np.array(gaps) >= one.mean() - other.mean() - 1e-12)
    assert effect.n == 2


def test_equal_values_are_not_certain() -> None:
    effect = effects.above([0.1 + 0.2, 0.3, 0.3])  # equal but for rounding
    assert effect.p == 1 / 8


def test_a_single_unit_shows_nothing() -> None:
    for effect in (effects.above([9.0]), effects.higher([9.0], [1.0, 2.0])):
        assert (effect.p, effect.p_against) == (1.0, 1.0)


@pytest.mark.parametrize("by", [0.0, 0.5])
def test_summaries_are_tested_like_the_values(by: float) -> None:
    a, b = draws(1.0, 7)[0], draws(0.0, 5, seed=1)[0]
    whole = effects.higher(a, b, by)
    short = effects.higher_by_summary(
        *((x.mean(), x.std(ddof=1), len(x)) for x in (a, b)), by
    )
    assert short.p == pytest.approx(whole.p)
    assert short.p_against == pytest.approx(whole.p_against)
    assert short.interval == pytest.approx(whole.interval)


def test_where_nothing_is_at_most_one_in_twenty_is_shown_or_refuted() -> None:
    found = [effects.above(values) for values in draws(0.0)]
    assert np.mean([e.p < 0.05 for e in found]) <= FALSE_POSITIVES
    assert np.mean([e.p_against < 0.05 for e in found]) <= FALSE_POSITIVES


@pytest.mark.parametrize("exact", [False, True])
def test_two_groups_that_do_not_differ_are_told_apart_in_one_of_twenty(
    exact: bool,
) -> None:
    count = 100 if exact else 500  # all 252 exchanges each
    pairs = zip(draws(0.0)[:count], draws(0.0, seed=1)[:count], strict=True)
    found = [effects.higher(a, b, exact=exact) for a, b in pairs]
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert np.mean([e.p < 0.05 for e in found]) <= most
    assert np.mean([e.p_against < 0.05 for e in found]) <= most


def test_signs_of_noise_are_shown_in_one_of_twenty() -> None:
    count = 200
    found = [effects.above(values, exact=True) for values in draws(0.0, 8)[:count]]
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert np.mean([e.p < 0.05 for e in found]) <= most
    assert np.mean([e.p_against < 0.05 for e in found]) <= most


def test_groups_are_told_apart_at_the_power_of_the_t_test() -> None:
    mean, n = 2.0, 5
    critical = stats.t.ppf(0.95, 2 * n - 2)
    power = stats.nct.sf(critical, 2 * n - 2, mean * np.sqrt(n / 2))
    count = 500
    pairs = zip(draws(mean)[:count], draws(0.0, seed=1)[:count], strict=True)
    found = np.mean([effects.higher(a, b).p < 0.05 for a, b in pairs])
    # Welch's test has fewer degrees of freedom than the power is computed with.
    error = 3 * np.sqrt(power * (1 - power) / count)
    assert power - 0.05 - error < found < power + error


def test_effects_are_found_at_the_power_of_the_t_test() -> None:
    mean, n = 1.5, 5
    critical = stats.t.ppf(0.95, n - 1)
    power = stats.nct.sf(critical, n - 1, mean * np.sqrt(n))
    assert power > 0.85
    found = np.mean([effects.above(values).p < 0.05 for values in draws(mean)])
    assert found == pytest.approx(power, abs=3 * np.sqrt(power * (1 - power) / DRAWS))


def test_equivalence_at_the_margin_is_shown_in_one_of_twenty() -> None:
    margin = 2.0
    found = [effects.within(values, margin) for values in draws(margin)]
    assert np.mean([e.p < 0.05 for e in found]) <= FALSE_POSITIVES
    inside = [effects.within(values, margin) for values in draws(0.0)]
    assert np.mean([e.p < 0.05 for e in inside]) > 0.8
    assert np.mean([e.p_against < 0.05 for e in inside]) <= 0.05
    outside = [effects.within(values, margin) for values in draws(2 * margin)]
    assert np.mean([e.p_against < 0.05 for e in outside]) > 0.8


def test_two_one_sided_tests_by_hand() -> None:
    values = [0.1, -0.2, 0.3]
    sides = effects.above(values, -1.0).p, effects.below(values, 1.0).p
    assert effects.within(values, 1.0).p == pytest.approx(max(sides))


def test_a_claim_of_several_parts_needs_all_and_falls_with_one() -> None:
    clear, unclear, false = (effects.above(draws(m, 6)[0]) for m in (5.0, 0.0, -5.0))
    both = effects.every(clear, unclear)
    assert (both.p, both.interval) == (unclear.p, unclear.interval)
    broken = effects.every(clear, false)
    assert broken.p == false.p
    assert broken.p_against == pytest.approx(2 * false.p_against)


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    values = np.array([0.3, 1.2, 0.7, 2.2])
    without = [np.delete(values, i).mean() for i in range(4)]
    assert effects.pseudo_values(values.mean(), without) == pytest.approx(values)


def test_a_difference_of_logarithms_reads_as_a_ratio() -> None:
    effect = effects.above(np.log([2.0, 4.0, 8.0]))
    ratio = effect.as_ratio()
    assert ratio.estimate == pytest.approx(4.0)
    assert np.log(ratio.interval) == pytest.approx(effect.interval)
    assert (ratio.p, ratio.p_against) == (effect.p, effect.p_against)
    assert ratio._replace(interval=(1.5, 10.26)).summary == "4 (1.5 to 10.3)"
    assert effects.above([0.25]).as_ratio().summary == f"{np.exp(0.25):.3g}"
    large = ratio._replace(estimate=-1483.2, interval=(-12_345.6, 999.4), of="updates")
    assert large.summary == "updates: -1,483 (-12,346 to 999)"
    assert large._replace(interval=(999.6, 1e4)).summary.endswith("(1,000 to 10,000)")


def test_values_that_are_not_finite_show_nothing() -> None:
    clear = effects.above([1.0, 1.1, 0.9])
    for exact in (False, True):
        lost = effects.above([5.0, np.nan, 5.1], exact=exact)
        assert (lost.p, lost.p_against, lost.interval) == (1.0, 1.0, None)
        for parts in ((clear, lost), (lost, clear)):
            assert effects.every(*parts).p == 1.0
        worse = effects.higher([5.0, np.nan], [1.0, 1.1], exact=exact)
        assert (worse.p, worse.p_against) == (1.0, 1.0)
    for one in ((np.nan, 1.0, 5), (2.0, np.nan, 5)):
        known = effects.higher_by_summary(one, (1.0, 0.1, 5))
        assert (known.p, known.p_against, known.interval) == (1.0, 1.0, None)
