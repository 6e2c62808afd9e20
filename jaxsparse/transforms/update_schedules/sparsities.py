"""The sparsity after each mask update of gradual pruning."""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from jaxsparse import arguments
from jaxsparse.transforms.update_schedules.steps import UpdateSchedule, update_steps


def _logistic(progress: Fraction) -> Fraction:
    """Computes a logistic curve from -6 to 6, scaled to run from 0 to 1."""
    height = math.tanh(6 * float(progress) - 3) / math.tanh(3)
    return min(max(Fraction((1 + height) / 2), Fraction(0)), Fraction(1))


# From progress in [0, 1] to the fraction of the way from the initial to the final
# sparsity. "exponential" is not here because it also depends on the two sparsities.
SPARSITY_SCHEDULES: dict[str, Callable[[Fraction], Fraction]] = {
    "cubic": lambda progress: 1 - (1 - progress) ** 3,
    "linear": lambda progress: progress,
    "sigmoid": _logistic,
}


@arguments.check(initial=arguments.fraction, final=arguments.fraction)
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
    times: :math:`1 - (1 - s_i)^{1-p} (1 - s_f)^p`. The "sigmoid" schedule goes from
    :math:`s_i` to :math:`s_f` by the logistic function of :math:`6 (2p - 1)`, scaled to
    [0, 1].

    Args:
      update_schedule: the steps of the mask updates; must include its end
        (`include_end`).
      initial: sparsity before the first mask update, in [0, 1).
      final: sparsity after the last mask update, in [0, 1); reached exactly.
      schedule: "cubic", "linear", "exponential" or "sigmoid"; or a function of the
        progress in [0, 1] that returns which fraction of the way from `initial` to
        `final` is done; or a sequence with the sparsity after each mask update.

    Returns:
      Exact fractions, one for each step in `update_steps`; the last one is `final`.

    Raises:
      ValueError: if a sparsity is out of range, the schedule's name is unknown, or its
        values do not fit.

    References:
      Zhu, Gupta. To prune, or not to prune: exploring the efficacy of pruning for model
      compression. 2017. arXiv:1710.01878, equation 1.
      Zhang, Cerretti, Zhao, Wu, Liao, Michieli, Cannistraci. Brain network science
      modelling of sparse neural networks enables Transformers and LLMs to perform as
      fully connected. 2025. arXiv:2501.19107 ("sigmoid"; the constant 6 is from the
      authors' code).
    """
    check_sparsity_schedule("schedule", schedule)
    steps = update_steps(update_schedule)
    # Through `str`, so that 0.9 means nine tenths and not the nearest binary number.
    first, last = Fraction(str(initial)), Fraction(str(final))
    if not (isinstance(schedule, str) or callable(schedule)):
        return _read_table(schedule, steps, last)
    sparsity_at = _make_course(schedule, first, last)
    begin, length = update_schedule.begin, update_schedule.end - update_schedule.begin
    return [*(sparsity_at(Fraction(s - begin, length)) for s in steps[:-1]), last]


def _make_course(
    schedule: str | Callable[[float], float], first: Fraction, last: Fraction
) -> Callable[[Fraction], Fraction]:
    """Returns the sparsity as a function of the progress.

    Args:
      schedule: name of a schedule, or a function of the progress.
      first: sparsity before the first mask update.
      last: sparsity after the last mask update.
    """
    if schedule == "exponential":
        return functools.partial(_exponential, first, last)
    if isinstance(schedule, str):
        completed = SPARSITY_SCHEDULES[schedule]
    else:
        completed = functools.partial(_read_schedule, schedule)
    return lambda progress: first + (last - first) * completed(progress)


def _exponential(first: Fraction, last: Fraction, progress: Fraction) -> Fraction:
    """Removes the same fraction of the remaining weights in equal times."""
    kept = float(1 - first) ** float(1 - progress) * float(1 - last) ** float(progress)
    # Floating-point rounding may step slightly outside the two end points.
    low, high = min(first, last), max(first, last)
    return min(max(1 - Fraction(kept), low), high)


def check_sparsity_schedule(name: str, value: Any) -> None:
    """Checks that a value is a course of sparsity: a known name, a function or a table.

    Args:
      name: name of the argument for error messages.
      value: the value. The elements of a table are not checked.

    Raises:
      TypeError: if the value is none of these.
      ValueError: if the name is unknown.
    """
    arguments.name_function_or_table(name, value)
    known = [*SPARSITY_SCHEDULES, "exponential"]
    if isinstance(value, str) and value not in known:
        raise ValueError(
            f"{name}: expected one of {known}, a function of the progress, or a "
            f"sequence of sparsities, got {value!r}"
        )


def _read_schedule(schedule: Callable[[float], float], progress: Fraction) -> Fraction:
    """Evaluates a schedule function and checks its value.

    Args:
      schedule: function of the progress.
      progress: in [0, 1].

    Returns:
      Which fraction of the way from the initial to the final sparsity is done.

    Raises:
      ValueError: if the value is not finite.
    """
    completed = float(schedule(float(progress)))
    if not math.isfinite(completed):
        raise ValueError(
            f"schedule: expected a function with finite values, got {completed} at "
            f"progress {float(progress)}"
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
