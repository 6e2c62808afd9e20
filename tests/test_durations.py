from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxsparse import durations

LENET = [266200, 212959, 170366, 136291, 109031, 87223, 69777, 55820, 44655, 35723]
LENET += [28577, 22860, 18287]
RESNET_20 = [0.7999933, 0.6399910, 0.5119861, 0.4095852, 0.3276645]


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("500step", 500),
        ("500steps", 500),
        ("1step", 1),
        ("0it", 0),
        ("500it", 500),
        ("2ep", 782),
        ("0.5ep", 196),  # 195.5, halves up
        ("3ep200it", 1373),
        ("0.5ep1step", 197),  # rounded once, at the end
        ("10%", 6256),
        ("12.5%", 7820),
        ("100%", 62560),
    ],
)
def test_durations(duration: str, steps: int) -> None:
    got = durations.to_steps(duration, steps_per_epoch=391, total=62_560)
    assert (got, type(got)) == (steps, int)


@pytest.mark.parametrize(
    "duration",
    ["", "500", "-1it", "0.5it", "ep", "2 ep", "200it3ep", "1e3it", "10%2ep", "½ep"],
)
def test_malformed_durations_list_the_forms(duration: str) -> None:
    with pytest.raises(ValueError, match="3ep200it"):
        durations.to_steps(duration, steps_per_epoch=391, total=100)


def test_a_fraction_needs_a_total() -> None:
    with pytest.raises(ValueError, match="pass `total`"):
        durations.to_steps("10%", steps_per_epoch=391)
    with pytest.raises(ValueError, match="steps_per_epoch: expected .*got 0"):
        durations.to_steps("1ep", steps_per_epoch=0)


@hypothesis.given(st.integers(0, 200_000_000), st.integers(0, 999), st.integers(0, 40))
def test_levels_do_not_drift(total: int, thousandths: int, levels: int) -> None:
    fraction = thousandths / 1000
    kept = durations.kept_per_level(total, fraction=fraction, levels=levels)
    left = 1 - Fraction(thousandths, 1000)
    assert kept[0] == total and len(kept) == levels + 1
    assert kept == sorted(kept, reverse=True)
    for level, count in enumerate(kept):
        assert Fraction(-1, 2) < count - total * left**level <= Fraction(1, 2)


def test_open_lth_reproduces_its_published_counts() -> None:
    kept = [266200]
    for _ in LENET[1:]:
        kept.append(durations.open_lth_kept(kept[-1], fraction=0.2))
    assert kept == LENET
    count = 270896
    for density in RESNET_20:
        count = durations.open_lth_kept(count, fraction=0.2)
        assert count == round(density * 270896)


def test_impossible_fractions_are_refused() -> None:
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="fraction: expected .*got"):
            durations.kept_per_level(10, fraction=fraction, levels=1)
        with pytest.raises(ValueError, match="fraction: expected .*got"):
            durations.open_lth_kept(10, fraction=fraction)
    with pytest.raises(ValueError, match="levels: expected .*got -1"):
        durations.kept_per_level(10, fraction=0.2, levels=-1)
    with pytest.raises(ValueError, match="kept: expected .*got 0"):
        durations.open_lth_kept(0, fraction=0.2)
