"""The fraction of weights that each mask update drops."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax

from jaxsparse import arguments
from jaxsparse.transforms.update_schedules.steps import UpdateSchedule, update_steps


@arguments.check(fraction=arguments.number(0, 1), schedule=arguments.name_or_function)
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
    check_drop_schedule("drop_schedule", schedule)
    exact = Fraction(str(fraction))
    if schedule == "constant":
        return [_small(exact)]
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


def check_drop_schedule(name: str, value: Any) -> None:
    """Checks that a value is a schedule of drop fractions: a known name or a function.

    Args:
      name: name of the argument for error messages.
      value: the value.

    Raises:
      TypeError: if the value is neither a string nor callable.
      ValueError: if the name is unknown.
    """
    arguments.name_or_function(name, value)
    if isinstance(value, str) and value not in ("cosine", "constant"):
        raise ValueError(
            f"{name}: expected 'cosine', 'constant', or a function of the step such as "
            f"a learning rate schedule, got {value!r}"
        )


def _small(exact: Fraction | int) -> tuple[int, int]:
    """Approximates a fraction in [0, 1] with a denominator of at most 10**9."""
    # 10**9 is below 2**30, the limit of denominators in `floor_mul_div`.
    small = Fraction(exact).limit_denominator(10**9)
    return small.numerator, small.denominator
