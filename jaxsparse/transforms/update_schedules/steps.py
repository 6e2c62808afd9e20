"""At which steps masks are updated."""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

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
    begin_step: int | None,
    update_every: int,
    end_step: int | None,
    include_end: bool = False,
) -> UpdateSchedule:
    """Makes a schedule after checking that it is possible.

    Args:
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
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
    begin = f"begin_step={begin_step}"
    if begin_step is None:
        begin, begin_step = (
            f"update_every={update_every} and no begin_step",
            update_every,
        )
    begin_step = check_steps(begin_step, field="begin_step")
    if end_step is not None:
        end_step = check_steps(end_step, field="end_step")
    if end_step is None and include_end:
        raise ValueError(
            "end_step: expected the step of the last mask update, an integer, got None"
        )
    if end_step is not None and end_step < begin_step + (not include_end):
        raise ValueError(
            f"end_step: expected a step of at least {begin_step + (not include_end)}, "
            f"with {begin}, got {end_step}"
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


def due(schedule: UpdateSchedule) -> Callable[[Int[Array, ""]], Bool[Array, ""]]:
    """Makes the argument `update_at` of `sparsify`: `should_update` of a schedule.

    Args:
      schedule: the steps of the mask updates.
    """
    return functools.partial(should_update, schedule)


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


def row_at(schedule: UpdateSchedule, step: Int[Array, ""], rows: int) -> Int[Array, ""]:
    """Returns how many mask updates take place up to a step; usable under `jit`.

    Args:
      schedule: the steps of the mask updates, with an end that is one of them.
      step: int32 scalar; may be traced.
      rows: number of mask updates, plus 1.

    Returns:
      An int32 scalar: the row of a table that begins with the value before the first
      mask update.
    """
    row = jnp.clip(update_index(schedule, step + 1), 0, rows - 1)
    # The index does not count the update at the end unless it lies a multiple of
    # `every` after `begin`.
    return jnp.where(step >= schedule.end, rows - 1, row)
