"""When masks change, how many weights are kept then, and how snfs divides them."""

import math
from fractions import Fraction
from typing import Any

import hypothesis
import jax
import numpy as np
import optax
import pytest
from helpers import methods
from hypothesis import strategies as st

from jaxsparse.transforms import update_schedules
from jaxsparse.transforms.snfs import apportion as apportion_by_shares

LARGE = st.integers(0, 2**31 - 1)
part_of = jax.jit(update_schedules.floor_mul_div)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(LARGE, st.integers(1, 2**30 - 1), st.data())
def test_part_of_is_exact(count: int, bottom: int, data: Any) -> None:
    top = data.draw(st.integers(0, bottom))
    got = part_of(np.int32(count), np.int32(top), np.int32(bottom))
    assert int(got) == count * top // bottom


SPARSITIES = st.integers(0, 999).map(lambda part: part / 1000)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    st.integers(0, 50),
    st.integers(0, 200),
    st.integers(1, 70),
    st.tuples(SPARSITIES, SPARSITIES).map(sorted),
    st.sampled_from(["cubic", "linear", "exponential", math.sqrt]),
)
def test_gradual_schedules_end_exactly(
    begin: int, length: int, every: int, ends: list[float], schedule: Any
) -> None:
    calendar = update_schedules.make_update_schedule(
        begin_step=begin, update_every=every, end_step=begin + length, include_end=True
    )
    table = update_schedules.gradual_sparsities(
        calendar, initial=ends[0], final=ends[1], schedule=schedule
    )
    steps = update_schedules.update_steps(calendar)
    assert len(table) == len(steps) and steps[-1] == begin + length
    assert table[-1] == Fraction(str(ends[1]))
    assert all(a <= b + 1e-12 for a, b in zip(table, table[1:], strict=False))


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
    st.integers(0, 20), st.integers(1, 60), st.integers(1, 30), st.booleans()
)
def test_traced_calendars_agree_with_the_list(
    begin: int, length: int, every: int, closes: bool
) -> None:
    calendar = update_schedules.UpdateSchedule(begin, every, begin + length, closes)
    steps = update_schedules.update_steps(calendar)
    every_step = np.arange(128)  # of one shape, beyond all ends
    index = jax.vmap(lambda step: update_schedules.update_index(calendar, step))
    assert index(every_step)[np.array(steps)].tolist() == list(range(len(steps)))
    due = jax.vmap(lambda step: update_schedules.should_update(calendar, step))
    assert np.flatnonzero(due(every_step)).tolist() == steps


def test_counts_of_an_exponential_schedule_and_of_a_table() -> None:
    calendar = update_schedules.UpdateSchedule(1, 3, 9, include_end=True)
    found = {
        name: update_schedules.gradual_sparsities(
            calendar, initial=0.0, final=0.75, schedule=schedule
        )
        for name, schedule in (
            ("exponential", "exponential"),
            ("table", [0.25, 0.5, 0.6, 0.75]),
            ("cubic", "cubic"),
        )
    }
    counts = {name: [methods.kept(each) for each in found[name]] for name in found}
    steps = methods.PRUNES
    exponential = [round(methods.TOTAL / 4 ** ((step - 1) / 8)) for step in steps]
    assert counts["exponential"] == exponential
    assert counts["table"] == [108, 72, 58, 36]
    assert counts["cubic"] == methods.CUBIC[1:]


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    st.integers(1, 40),
    st.integers(40, 400),
    st.integers(0, 4),
    st.fractions(0, 1, max_denominator=20),
    st.floats(1, 50),
)
def test_cyclic_sparsities(
    every: int, end: int, cycles: int, part: Fraction, factor: float
) -> None:
    """A cosine from the final density to its multiple, then exactly the final one."""
    calendar = update_schedules.make_update_schedule(
        begin_step=every, update_every=every, end_step=end, include_end=True
    )
    table = update_schedules.cyclic_sparsities(
        *(calendar,),
        final=0.9,
        density_factor=factor,
        cycles=cycles,
        cycle_part=float(part),
    )
    stop, most = float(part) * end, min(0.1 * factor, 1)
    steps = update_schedules.update_steps(calendar)
    for step, sparsity in zip(steps, table, strict=True):
        assert 0 <= sparsity <= Fraction(9, 10)
        if not cycles or step > stop * (1 + 1e-9):
            assert sparsity == Fraction(9, 10)
        else:
            angle = 2 * math.pi * cycles * step / stop
            density = 0.1 + (most - 0.1) * (1 - math.cos(angle)) / 2
            assert abs(1 - sparsity - density) < 1e-6
    assert table[-1] == Fraction(9, 10)


@pytest.mark.parametrize(
    ("schedule", "part", "words"),
    [
        ((2, 3, None), 0.4, "with an end, got end=None"),
        ((2, 3, 10), 1.0, "step 10, or later, got mask updates up to step 8; set"),
        ((2, 3, 10), 0.85, "step 8.5, or later, got mask updates up to step 8; set"),
    ],
)
def test_cycles_end_at_a_mask_update(schedule: tuple, part: float, words: str) -> None:
    made = update_schedules.UpdateSchedule(*schedule)
    with pytest.raises(ValueError, match=f"^update_schedule: expected .*{words}"):
        update_schedules.cyclic_sparsities(made, final=0.9, cycle_part=part)
    if made.end:
        found = update_schedules.cyclic_sparsities(made, final=0.9, cycle_part=0.8)
        assert found[-1] == Fraction(9, 10)


def test_drop_fractions() -> None:
    ends = update_schedules.make_update_schedule(
        begin_step=2, update_every=3, end_step=10
    )
    never = ends._replace(end=None)
    assert update_schedules.drop_fractions(
        never, fraction=0.3, schedule="constant"
    ) == [(3, 10)]
    fading = update_schedules.drop_fractions(ends, fraction=0.3)
    wanted = [0.15 * (1 + math.cos(math.pi * step / 10)) for step in (2, 5, 8)]
    np.testing.assert_allclose([top / bottom for top, bottom in fading], wanted)
    by_rate = update_schedules.drop_fractions(
        ends, fraction=0.4, schedule=lambda step: 8.0 / 2 ** (step // 4)
    )
    assert by_rate == [(2, 5), (1, 5), (1, 10)]
    assert max(max(pair) for pair in fading + by_rate) < 2**30


apportion = jax.jit(apportion_by_shares)
SHARES = st.floats(0, 2.0**99, width=32) | st.sampled_from([0.0, math.nan])


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    st.integers(0, 2**28),
    st.lists(SHARES, min_size=3, max_size=3),
    st.lists(st.integers(0, 2**27) | st.just(0), min_size=3, max_size=3),
)
def test_apportion_gives_all_there_is_room_for(
    total: int, shares: list[float], room: list[int]
) -> None:
    got = apportion(
        np.int32(total), np.array(shares, np.float32), np.array(room, np.int32)
    ).tolist()
    assert sum(got) == min(total, sum(room))
    assert all(0 <= mine <= most for mine, most in zip(got, room, strict=True))


def test_room_of_two_to_the_31_weights_is_room() -> None:
    room = np.full(3, 2**30, np.int32)
    given = apportion(np.int32(10), np.ones(3, np.float32), room)
    assert sorted(given.tolist()) == [3, 3, 4]


def test_rates_that_warm_up_are_compared_with_their_largest() -> None:
    calendar = update_schedules.UpdateSchedule(2, 2, 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.4, 4, 10)
    found = update_schedules.drop_fractions(calendar, fraction=0.5, schedule=rate)
    parts = [top / bottom for top, bottom in found]
    assert parts == pytest.approx([0.5 * float(rate(t)) / 0.4 for t in (2, 4, 6, 8)])
    assert max(parts) == 0.5
    for bad in (lambda step: 0.0, lambda step: float("nan"), lambda step: -1.0):
        with pytest.raises(ValueError, match="drop_schedule: expected finite values"):
            update_schedules.drop_fractions(calendar, fraction=0.5, schedule=bad)


@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.95, 0.99])
def test_an_exponential_schedule_may_stay_where_it_is(sparsity: float) -> None:
    calendar = update_schedules.UpdateSchedule(0, 1, 7, include_end=True)
    found = update_schedules.gradual_sparsities(
        calendar, initial=sparsity, final=sparsity, schedule="exponential"
    )
    assert set(found) == {Fraction(str(sparsity))}
