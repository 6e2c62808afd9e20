"""Calendars: when masks change, and by how much.

A calendar is a few integers. What happens at its changes is listed once, on the host
and in exact arithmetic: the sparsity after each change of gradual pruning, the part of
the weights that a change drops. Traced code looks the lists up, so that no count is a
float's rounding.
"""

import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxsparse import arguments

STEPS = 2**31 - 1  # counters of steps are int32
CHANGES = 10**6  # most that a table is made for


class Calendar(NamedTuple):
    """When masks change, in updates counted from 0.

    Attributes:
      begin: the first change.
      every: updates between changes.
      end: no change comes after this; None for none.
      closes: whether `end` itself is a change, whatever `every` is. Otherwise changes
        lie strictly before it.
    """

    begin: int
    every: int
    end: int | None
    closes: bool = False


def make_calendar(
    *, begin_step: int, update_every: int, end_step: int | None, closes: bool = False
) -> Calendar:
    """Makes a calendar, and refuses one that cannot be.

    Raises:
      ValueError: naming the argument that is out of range.
      TypeError: naming the argument that is no integer.
    """
    update_every = check_steps(update_every, field="update_every", least=1)
    begin_step = check_steps(begin_step, field="begin_step")
    if end_step is not None:
        end_step = check_steps(end_step, field="end_step")
    if end_step is None and closes:
        raise ValueError(
            "end_step: got None; wanted the step of the last change, an integer"
        )
    if end_step is not None and end_step < begin_step + (not closes):
        raise ValueError(
            f"end_step: got {end_step} with begin_step {begin_step}; wanted a later one"
        )
    return Calendar(begin_step, update_every, end_step, closes)


def check_steps(value: Any, *, field: str, least: int = 0) -> int:
    """Returns a number of updates as a Python integer.

    Args:
      value: an integer of Python or NumPy.
      field: what to call it in messages.
      least: the smallest it may be.

    Raises:
      TypeError: if it is no integer, such as 1.0, NaN, or an array of JAX.
      ValueError: if it is smaller, or above 2**31 - 1.
    """
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{field}: got a JAX array; expected an integer, as counts must be known "
            "before anything is traced. If optax.inject_hyperparams made it one, have "
            "that inside: transforms.rigl(optax.inject_hyperparams(optax.adamw)(...))"
        )
    try:
        steps = None if isinstance(value, bool | np.bool) else operator.index(value)
    except TypeError:
        steps = None
    if steps is None:
        raise TypeError(
            f"{field}: got {value!r}; expected an integer, a number of updates"
        )
    if not least <= steps <= STEPS:
        raise ValueError(
            f"{field}: got {steps}; expected updates from {least} to 2**31 - 1, as "
            "steps are counted in int32"
        )
    return steps


def change_steps(calendar: Calendar) -> list[int]:
    """Lists the steps at which masks change.

    Args:
      calendar: one that ends.

    Returns:
      Steps, strictly growing; never empty.

    Raises:
      ValueError: if there are more than 1,000,000.

    Examples:
      >>> change_steps(Calendar(begin=0, every=4, end=10, closes=True))
      [0, 4, 8, 10]
    """
    changes = range(calendar.begin, calendar.end, calendar.every)
    if len(changes) > CHANGES:
        raise ValueError(
            f"update_every: expected at most {CHANGES:,} changes of masks up to "
            f"end_step={calendar.end}, got {len(changes):,} with every "
            f"{calendar.every} updates; change masks less often or end earlier"
        )
    steps = list(changes)
    return [*steps, calendar.end] if calendar.closes else steps


def is_due(calendar: Calendar, step: Int[Array, ""]) -> Bool[Array, ""]:
    """Says whether masks change at a step; usable under `jit`."""
    due = (step >= calendar.begin) & ((step - calendar.begin) % calendar.every == 0)
    if calendar.end is None:
        return due
    if calendar.closes:
        return (due & (step < calendar.end)) | (step == calendar.end)
    return due & (step < calendar.end)


def change_index(calendar: Calendar, step: Int[Array, ""]) -> Int[Array, ""]:
    """Counts the changes before a step at which one is due; usable under `jit`."""
    return (step - calendar.begin + calendar.every - 1) // calendar.every


# Of the way from the initial sparsity to the final one, what is done at a progress.
WAYS: dict[str, Callable[[Fraction], Fraction]] = {
    "cubic": lambda progress: 1 - (1 - progress) ** 3,
    "linear": lambda progress: progress,
}


def gradual_sparsities(
    calendar: Calendar,
    *,
    initial: float,
    final: float,
    schedule: str | Callable[[float], float] | Sequence[float] = "cubic",
) -> list[Fraction]:
    r"""Lists the sparsity after each change of gradual pruning.

    With :math:`p` the progress from `begin` (0) to `end` (1), "cubic" is
    :math:`s_f + (s_i - s_f)(1 - p)^3`, "linear" is :math:`s_i + (s_f - s_i) p`, and
    "exponential" removes the same fraction of what is left in equal times,
    :math:`1 - (1 - s_i)^{1-p} (1 - s_f)^p`.

    Args:
      calendar: when masks change; one that closes.
      initial: sparsity before the first change, in [0, 1).
      final: sparsity after the last change, exactly, in [0, 1).
      schedule: one of these names; a function of the progress, to the part of the way
        that is done (1 at 1); or a table, the sparsity after each change.

    Returns:
      Exact fractions, one for each of `change_steps`, the last of them `final`.

    Raises:
      ValueError: for an unknown name, or a table that does not fit.

    References:
      Zhu and Gupta. To prune, or not to prune: exploring the efficacy of pruning for
      model compression. 2017. arXiv:1710.01878, equation 1.
    """
    for field, value in (("initial_sparsity", initial), ("sparsity", final)):
        if not 0 <= value < 1:
            raise ValueError(f"{field}: got {value}; expected a fraction in [0, 1)")
    steps = change_steps(calendar)
    first, last = Fraction(str(initial)), Fraction(str(final))
    if not (isinstance(schedule, str) or callable(schedule)):
        return _read_table(schedule, steps, last)
    if isinstance(schedule, str) and schedule not in (*WAYS, "exponential"):
        raise ValueError(
            f"schedule: unknown {schedule!r}; wanted one of "
            f"{[*WAYS, 'exponential']}, a function of the progress, or a table of "
            "sparsities"
        )
    result = []
    for step in steps[:-1]:
        progress = Fraction(step - calendar.begin, calendar.end - calendar.begin)
        if schedule == "exponential":
            kept = float(1 - first) ** float(1 - progress) * float(1 - last) ** float(
                progress
            )
            # A float may lie a little outside of what it lies between.
            low, high = min(first, last), max(first, last)
            result.append(min(max(1 - Fraction(kept), low), high))
        else:
            way = WAYS[schedule](progress) if isinstance(schedule, str) else None
            way = _read_way(schedule, float(progress)) if way is None else way
            result.append(first + (last - first) * way)
    return [*result, last]


def _read_way(schedule: Callable[[float], float], progress: float) -> Fraction:
    way = float(schedule(progress))
    if not math.isfinite(way):
        raise ValueError(
            f"schedule: expected finite parts of the way, got {way} at the progress "
            f"{progress}"
        )
    return Fraction(way)


def _read_table(
    table: Sequence[float], steps: list[int], last: Fraction
) -> list[Fraction]:
    if not all(0 <= value < 1 for value in table):
        raise ValueError(f"schedule: expected sparsities in [0, 1), got {list(table)}")
    read = [Fraction(str(value)) for value in table]
    if len(read) != len(steps) or read[-1] != last:
        raise ValueError(
            f"schedule: got a table of {len(read)} sparsities ending in "
            f"{table[-1] if len(read) else None}; wanted {len(steps)}, one for each of "
            f"the steps {steps[0]} to {steps[-1]} at which masks change, the last of "
            f"them the final sparsity {float(last)}"
        )
    return read


@arguments.check(fraction=arguments.real, schedule=arguments.name_or_function)
def drop_fractions(
    calendar: Calendar,
    *,
    fraction: float,
    schedule: str | Callable[[int], float] = "cosine",
) -> list[tuple[int, int]]:
    r"""Lists which part of a layer's weights is dropped at each change.

    Args:
      calendar: when masks change.
      fraction: the part dropped in the beginning, in [0, 1].
      schedule: "cosine" for :math:`f (1 + \cos(\pi t / t_{end})) / 2`; "constant"; or a
        function of the step, such as a learning-rate schedule, whose ratio to its
        largest value at step 0 and at changes multiplies the fraction.

    Returns:
      For each of `change_steps` a numerator and a denominator, both below 2**30; a
      single pair for a constant fraction.

    Raises:
      ValueError: if the fraction is not in [0, 1], the schedule is unknown, or it needs
        an end that the calendar does not have.

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, section 3 (cosine).
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"drop_fraction: got {fraction}; wanted a part in [0, 1]")
    exact = Fraction(str(fraction))
    if schedule == "constant":
        return [_small(exact)]
    if isinstance(schedule, str) and schedule != "cosine":
        raise ValueError(
            f"drop_schedule: unknown {schedule!r}; wanted 'cosine', 'constant' or a "
            "function of the step such as a learning-rate schedule"
        )
    if calendar.end is None:
        raise ValueError(
            "end_step: got None; wanted the step at which the drop fraction ends, or "
            "drop_schedule='constant'"
        )
    if schedule == "cosine":
        ways = [
            (1 + math.cos(math.pi * step / calendar.end)) / 2
            for step in change_steps(calendar)
        ]
    else:
        with jax.ensure_compile_time_eval():  # also where an optimiser is made in a jit
            rates = [float(schedule(step)) for step in (0, *change_steps(calendar))]
        peak = max(rates)
        if not all(0 <= rate < math.inf for rate in rates) or not peak:
            raise ValueError(
                f"drop_schedule: its values run from {min(rates)} to {peak}; wanted "
                "finite ones, none negative and not all 0"
            )
        ways = [rate / peak for rate in rates[1:]]
    return [_small(min(max(exact * Fraction(way), 0), 1)) for way in ways]


def _small(exact: Fraction | int) -> tuple[int, int]:
    small = Fraction(exact).limit_denominator(10**9)
    return small.numerator, small.denominator


def part_of(
    count: Int[Array, "*#n"],
    numerator: Int[Array, "*#n"],
    denominator: Int[Array, "*#n"],
) -> Int[Array, "*n"]:
    """Returns floor(count numerator / denominator), exactly, in 32-bit integers.

    The product would overflow, and a float would round it: this multiplies bit by bit,
    and divides as it goes.

    Args:
      count: what to take a part of, at least 0; int32.
      numerator: at most the denominator; int32.
      denominator: at least 1 and below 2**30; int32.

    Returns:
      int32, of the shapes broadcast together.
    """
    top, bottom = numerator.astype(jnp.uint32), denominator.astype(jnp.uint32)

    def take(place: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        quotient, rest = state
        bit = (count >> (30 - place)) & 1
        rest = 2 * rest + bit.astype(jnp.uint32) * top
        return 2 * quotient + rest // bottom, rest % bottom

    shape = jnp.broadcast_shapes(count.shape, top.shape, bottom.shape)
    zero = jnp.zeros(shape, jnp.uint32)
    return jax.lax.fori_loop(0, 31, take, (zero, zero))[0].astype(jnp.int32)
