"""Schedules of mask updates: at which steps masks change, and by how much.

A schedule consists of a few integers. The quantities that depend on it, such as the
sparsity after each update of gradual pruning or the fraction of weights that an update
drops, are computed once on the host in exact arithmetic. Traced code looks them up in a
table, so no count depends on floating-point rounding.
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

MAX_STEP = 2**31 - 1  # step counters are int32
MAX_UPDATES = 10**6  # longest table that is computed, one entry for each mask update


class UpdateSchedule(NamedTuple):
    """Steps of the mask updates, counted from 0.

    Attributes:
      begin: step of the first mask update.
      every: steps between mask updates.
      end: no mask update takes place after this step; None for no end.
      include_end: whether `end` itself is a mask update, whatever `every` is. If False,
        mask updates take place strictly before `end`.
    """

    begin: int
    every: int
    end: int | None
    include_end: bool = False


def make_update_schedule(
    *,
    begin_step: int,
    update_every: int,
    end_step: int | None,
    include_end: bool = False,
) -> UpdateSchedule:
    """Makes a schedule after checking that it is possible.

    Args:
      begin_step: step of the first mask update, counted from 0.
      update_every: steps between mask updates, at least 1.
      end_step: mask updates take place before this step, or up to and including it with
        `include_end`; None for no end.
      include_end: whether `end_step` itself is a mask update.

    Returns:
      The schedule.

    Raises:
      ValueError: if an argument is out of range; the message names it.
      TypeError: if an argument is not an integer; the message names it.
    """
    update_every = check_steps(update_every, field="update_every", minimum=1)
    begin_step = check_steps(begin_step, field="begin_step")
    if end_step is not None:
        end_step = check_steps(end_step, field="end_step")
    if end_step is None and include_end:
        raise ValueError(
            "end_step: expected the step of the last mask update, an integer, got None"
        )
    if end_step is not None and end_step < begin_step + (not include_end):
        raise ValueError(
            f"end_step: expected at least {begin_step + (not include_end)}, with "
            f"begin_step={begin_step}, got {end_step}"
        )
    return UpdateSchedule(begin_step, update_every, end_step, include_end)


def check_steps(value: Any, *, field: str, minimum: int = 0) -> int:
    """Checks a number of steps and converts it to a Python integer.

    Args:
      value: a Python or NumPy integer.
      field: name of the argument for error messages.
      minimum: smallest value allowed.

    Returns:
      The value as a Python integer.

    Raises:
      TypeError: if `value` is not an integer, for example 1.0, NaN or a JAX array.
      ValueError: if `value` is less than `minimum` or greater than 2**31 - 1.
    """
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{field}: expected an integer, which must be known before tracing, got a "
            "JAX array; if optax.inject_hyperparams converted it, move that inside: "
            "transforms.rigl(optax.inject_hyperparams(optax.adamw)(...))"
        )
    try:
        # `operator.index` takes True for 1.
        steps = None if isinstance(value, bool | np.bool) else operator.index(value)
    except TypeError:
        steps = None
    if steps is None:
        raise TypeError(
            f"{field}: expected an integer, a number of updates, got {value!r}"
        )
    if not minimum <= steps <= MAX_STEP:
        raise ValueError(
            f"{field}: expected {minimum} to 2**31 - 1 updates, since steps are "
            f"counted in int32, got {steps}"
        )
    return steps


def update_steps(schedule: UpdateSchedule) -> list[int]:
    """Lists the steps at which masks change.

    Args:
      schedule: a schedule whose `end` is not None.

    Returns:
      Steps in strictly increasing order; never empty.

    Raises:
      ValueError: if there are more than 1,000,000.

    Examples:
      >>> update_steps(UpdateSchedule(begin=0, every=4, end=10, include_end=True))
      [0, 4, 8, 10]
    """
    steps_before_end = range(schedule.begin, schedule.end, schedule.every)
    if len(steps_before_end) > MAX_UPDATES:
        raise ValueError(
            f"update_every: expected at most {MAX_UPDATES:,} mask updates up to "
            f"end_step={schedule.end}, got {len(steps_before_end):,} with one every "
            f"{schedule.every} steps; update masks less often or end earlier"
        )
    steps = list(steps_before_end)
    return [*steps, schedule.end] if schedule.include_end else steps


def should_update(schedule: UpdateSchedule, step: Int[Array, ""]) -> Bool[Array, ""]:
    """Returns whether masks change at a step; usable under `jit`.

    Args:
      schedule: the steps of the mask updates.
      step: int32 scalar; may be traced.

    Returns:
      A boolean scalar.
    """
    is_due = (step >= schedule.begin) & ((step - schedule.begin) % schedule.every == 0)
    if schedule.end is None:
        return is_due
    if schedule.include_end:
        return (is_due & (step < schedule.end)) | (step == schedule.end)
    return is_due & (step < schedule.end)


def update_index(schedule: UpdateSchedule, step: Int[Array, ""]) -> Int[Array, ""]:
    """Returns how many mask updates take place before a step; usable under `jit`.

    Args:
      schedule: the steps of the mask updates.
      step: int32 scalar, at least `begin`; may be traced.

    Returns:
      An int32 scalar. For a step at which masks change, its index in `update_steps`.
    """
    # Rounded up, since with `include_end` the end need not lie a multiple of `every`
    # after `begin`.
    return (step - schedule.begin + schedule.every - 1) // schedule.every


# From progress in [0, 1] to the fraction of the way from the initial to the final
# sparsity. "exponential" is not here because it also depends on the two sparsities.
SPARSITY_SCHEDULES: dict[str, Callable[[Fraction], Fraction]] = {
    "cubic": lambda progress: 1 - (1 - progress) ** 3,
    "linear": lambda progress: progress,
}


def gradual_sparsities(
    update_schedule: UpdateSchedule,
    *,
    initial: float,
    final: float,
    schedule: str | Callable[[float], float] | Sequence[float] = "cubic",
) -> list[Fraction]:
    """Lists the sparsity after each mask update of gradual pruning.

    Let :math:`p` be the progress from `begin` (0) to `end` (1). Then "cubic" is
    :math:`s_f + (s_i - s_f)(1 - p)^3` and "linear" is :math:`s_i + (s_f - s_i) p`. The
    "exponential" schedule removes the same fraction of the remaining weights in equal
    times: :math:`1 - (1 - s_i)^{1-p} (1 - s_f)^p`.

    Args:
      update_schedule: the steps of the mask updates; must include its end
        (`include_end`).
      initial: sparsity before the first mask update, in [0, 1).
      final: sparsity after the last mask update, in [0, 1); reached exactly.
      schedule: "cubic", "linear" or "exponential"; or a function of the progress in
        [0, 1] that returns which fraction of the way from `initial` to `final` is done;
        or a sequence with the sparsity after each mask update.

    Returns:
      Exact fractions, one for each step in `update_steps`; the last one is `final`.

    Raises:
      ValueError: if a sparsity is out of range, the schedule's name is unknown, or its
        values do not fit.

    References:
      Zhu, Gupta. To prune, or not to prune: exploring the efficacy of pruning for model
      compression. 2017. arXiv:1710.01878, equation 1.
    """
    for field, value in (("initial_sparsity", initial), ("sparsity", final)):
        if not 0 <= value < 1:
            raise ValueError(f"{field}: expected a fraction in [0, 1), got {value}")
    steps = update_steps(update_schedule)
    # Through `str`, so that 0.9 means nine tenths and not the nearest binary number.
    first, last = Fraction(str(initial)), Fraction(str(final))
    if not (isinstance(schedule, str) or callable(schedule)):
        return _read_table(schedule, steps, last)
    if isinstance(schedule, str) and schedule not in (
        *SPARSITY_SCHEDULES,
        "exponential",
    ):
        raise ValueError(
            f"schedule: expected one of {[*SPARSITY_SCHEDULES, 'exponential']}, a "
            "function of the progress, or a sequence of sparsities, got "
            f"{schedule!r}"
        )
    result = []
    for step in steps[:-1]:
        progress = Fraction(
            step - update_schedule.begin, update_schedule.end - update_schedule.begin
        )
        if schedule == "exponential":
            kept = float(1 - first) ** float(1 - progress) * float(1 - last) ** float(
                progress
            )
            # Floating-point rounding may step slightly outside the two end points.
            low, high = min(first, last), max(first, last)
            result.append(min(max(1 - Fraction(kept), low), high))
        else:
            completed = (
                SPARSITY_SCHEDULES[schedule](progress)
                if isinstance(schedule, str)
                else None
            )
            completed = (
                _read_schedule(schedule, float(progress))
                if completed is None
                else completed
            )
            result.append(first + (last - first) * completed)
    return [*result, last]


def _read_schedule(schedule: Callable[[float], float], progress: float) -> Fraction:
    """Evaluates a schedule function and checks its value.

    Args:
      schedule: function of the progress.
      progress: in [0, 1].

    Returns:
      Which fraction of the way from the initial to the final sparsity is done.

    Raises:
      ValueError: if the value is not finite.
    """
    completed = float(schedule(progress))
    if not math.isfinite(completed):
        raise ValueError(
            f"schedule: expected a function with finite values, got {completed} at "
            f"progress {progress}"
        )
    return Fraction(completed)


def _read_table(
    table: Sequence[float], steps: list[int], last: Fraction
) -> list[Fraction]:
    """Checks a table of sparsities and converts it to exact fractions.

    Args:
      table: sparsity after each mask update, each in [0, 1).
      steps: steps of the mask updates.
      last: the final sparsity, which the table must end with.

    Returns:
      The sparsities as fractions, read as the decimals they print as.

    Raises:
      ValueError: if a sparsity is out of range, or the table does not have one entry
        for each step or ends in another sparsity.
    """
    if not all(0 <= value < 1 for value in table):
        raise ValueError(f"schedule: expected sparsities in [0, 1), got {list(table)}")
    sparsities = [Fraction(str(value)) for value in table]
    if len(sparsities) != len(steps) or sparsities[-1] != last:
        raise ValueError(
            f"schedule: expected {len(steps)} sparsities, one for each mask update "
            f"from step {steps[0]} to step {steps[-1]}, the last of them the final "
            f"sparsity {float(last)}, got {len(sparsities)} ending in "
            f"{table[-1] if len(sparsities) else None}"
        )
    return sparsities


@arguments.check(fraction=arguments.real, schedule=arguments.name_or_function)
def drop_fractions(
    update_schedule: UpdateSchedule,
    *,
    fraction: float,
    schedule: str | Callable[[int], float] = "cosine",
) -> list[tuple[int, int]]:
    r"""Lists the fraction of a layer's active weights that each mask update drops.

    Args:
      update_schedule: the steps of the mask updates.
      fraction: the initial fraction :math:`f`, in [0, 1].
      schedule: "cosine" for :math:`f (1 + \cos(\pi t / t_{end})) / 2`; "constant"; or a
        function of the step, such as a learning rate schedule. Its value, divided by
        its largest value at step 0 and at the mask updates, multiplies `fraction`.

    Returns:
      A numerator and a denominator for each step in `update_steps`, both less than
      2**30; a single pair for a constant fraction.

    Raises:
      ValueError: if the fraction is not in [0, 1], the schedule is unknown or returns
        invalid values, or it needs an end and `update_schedule` has none.

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, section 3 (cosine).
    """
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"drop_fraction: expected a fraction in [0, 1], got {fraction}"
        )
    exact = Fraction(str(fraction))
    if schedule == "constant":
        return [_small(exact)]
    if isinstance(schedule, str) and schedule != "cosine":
        raise ValueError(
            "drop_schedule: expected 'cosine', 'constant', or a function of the step "
            f"such as a learning rate schedule, got {schedule!r}"
        )
    if update_schedule.end is None:
        raise ValueError(
            "end_step: expected the step at which the drop schedule ends, got None; "
            "pass it, or drop_schedule='constant'"
        )
    if schedule == "cosine":
        factors = [
            (1 + math.cos(math.pi * step / update_schedule.end)) / 2
            for step in update_steps(update_schedule)
        ]
    else:
        # The optimizer may be made inside a jit, where optax schedules return tracers.
        with jax.ensure_compile_time_eval():
            values = [
                float(schedule(step)) for step in (0, *update_steps(update_schedule))
            ]
        peak = max(values)
        if not all(0 <= value < math.inf for value in values) or not peak:
            raise ValueError(
                "drop_schedule: expected finite values of at least 0, not all of them "
                f"0, got values from {min(values)} to {peak}"
            )
        factors = [value / peak for value in values[1:]]
    return [_small(min(max(exact * Fraction(factor), 0), 1)) for factor in factors]


def _small(exact: Fraction | int) -> tuple[int, int]:
    """Approximates a fraction in [0, 1] with a denominator of at most 10**9."""
    # 10**9 is below 2**30, the limit of denominators in `floor_mul_div`.
    small = Fraction(exact).limit_denominator(10**9)
    return small.numerator, small.denominator


def floor_mul_div(
    count: Int[Array, "*#n"],
    numerator: Int[Array, "*#n"],
    denominator: Int[Array, "*#n"],
) -> Int[Array, "*n"]:
    """Returns floor(count * numerator / denominator), exactly, in 32-bit integers.

    The product would overflow 32 bits, and a float would round it. The function
    therefore multiplies bit by bit and divides after each bit (long division).

    Args:
      count: the integer to take a fraction of, at least 0; int32.
      numerator: at least 0 and at most the denominator; int32.
      denominator: at least 1 and less than 2**30; int32.

    Returns:
      int32, with the shape of the three arguments after broadcasting.
    """
    top, bottom = numerator.astype(jnp.uint32), denominator.astype(jnp.uint32)

    def take(index: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        quotient, remainder = state
        bit = (count >> (30 - index)) & 1
        # rest < bottom < 2**30 and top <= bottom, so this is less than 3 * 2**30 and
        # fits in uint32.
        remainder = 2 * remainder + bit.astype(jnp.uint32) * top
        return 2 * quotient + remainder // bottom, remainder % bottom

    shape = jnp.broadcast_shapes(count.shape, top.shape, bottom.shape)
    zero = jnp.zeros(shape, jnp.uint32)
    return jax.lax.fori_loop(0, 31, take, (zero, zero))[0].astype(jnp.int32)
