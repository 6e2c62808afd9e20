"""Sparsities that go down and up again in cycles, early in training."""

import math
from fractions import Fraction

from jaxsparse import arguments
from jaxsparse.transforms.update_schedules.steps import UpdateSchedule, update_steps


@arguments.check(
    final=arguments.fraction,
    density_factor=arguments.number(1),
    cycles=arguments.integer(0),
    cycle_part=arguments.number(0, 1),
)
def cyclic_sparsities(
    update_schedule: UpdateSchedule,
    *,
    final: float,
    density_factor: float = 3.0,
    cycles: int = 2,
    cycle_part: float = 0.4,
) -> list[Fraction]:
    r"""Lists the sparsity after each mask update of cyclic sparsity.

    For the steps from 0 to :math:`t_c`, which is `cycle_part` of the `end`, the density
    is

    .. math:: d_f + (d_{max} - d_f) \frac{1 - \cos(2 \pi n t / t_c)}{2}

    with the final density :math:`d_f`, the number of cycles n, and
    :math:`d_{max} = \min(c \, d_f, 1)` with the factor c. Afterward it is :math:`d_f`.

    Args:
      update_schedule: the steps of the mask updates; with an end, and a last mask
        update that is not before the end of the last cycle, as with `include_end`.
      final: sparsity at the ends of all cycles and after them, in [0, 1).
      density_factor: the density in the middle of a cycle, in multiples of the final
        density, finite and at least 1; limited to 1 in all.
      cycles: number of cycles, at least 0.
      cycle_part: the part of the time until `end` in which there are cycles, in [0, 1].

    Returns:
      Fractions, one for each step in `update_steps`; the last one is exactly `final`.

    Raises:
      ValueError: if an argument is out of range, or the last mask update is before the
        end of the last cycle.

    Examples:
      >>> schedule = UpdateSchedule(begin=10, every=10, end=80, include_end=True)
      >>> table = cyclic_sparsities(schedule, final=0.75, cycles=1, cycle_part=0.5)
      >>> [round(float(sparsity), 3) for sparsity in table]
      [0.5, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75]
      >>> tx = transforms.straight_through(  # a method that accepts a table
      ...     optax.sgd(0.1),
      ...     sparsity=0.75,
      ...     begin_step=10,
      ...     end_step=80,
      ...     update_every=10,
      ...     ramp=transforms.SparsityRamp(schedule=[float(s) for s in table]),
      ... )

    References:
      Li, Durrant, Markovic, Huang, Kundu, Chen, Yin, Leontidis. Pushing the Limits of
      Sparsity: A Bag of Tricks for Extreme Pruning. 2024. arXiv:2411.13545; formula and
      default values are those of the authors' code.
    """
    if update_schedule.end is None:
        raise ValueError("update_schedule: expected one with an end, got end=None")
    cycles_end = end_of_cycles(update_schedule, cycles, cycle_part)
    steps = update_steps(update_schedule)
    if max(steps, default=0) < cycles_end:
        raise ValueError(
            "update_schedule: expected a last mask update at the end of the last "
            f"cycle, step {float(cycles_end):g}, or later, got mask updates up to step "
            f"{max(steps, default=None)}; set include_end=True or a smaller cycle_part"
        )
    last = Fraction(str(final))
    most = min(Fraction(str(density_factor)) * (1 - last), Fraction(1))
    result = []
    for step in steps:
        height = Fraction(0)
        if step < cycles_end:
            phase = float(step * cycles / cycles_end)
            height = Fraction((1 - math.cos(2 * math.pi * phase)) / 2)
        result.append(last - (most - (1 - last)) * height)
    return result


def end_of_cycles(
    update_schedule: UpdateSchedule, cycles: int, cycle_part: float
) -> Fraction:
    """Returns the time in steps at which the last cycle ends; 0 without cycles.

    Args:
      update_schedule: the steps of the mask updates; with an end.
      cycles: number of cycles, at least 0.
      cycle_part: the part of the time until its end in which there are cycles.
    """
    if not cycles:
        return Fraction(0)
    return Fraction(str(cycle_part)) * update_schedule.end
