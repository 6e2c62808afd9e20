"""Schedules of mask updates: at which steps masks change, and by how much.

A schedule consists of a few integers. The quantities that depend on it, such as the
sparsity after each update of gradual pruning or the fraction of weights that an update
drops, are computed once on the host in exact arithmetic. Traced code looks them up in a
table, so no count depends on floating-point rounding.
"""

from jaxsparse.transforms.update_schedules.cycles import (
    cyclic_sparsities,
    end_of_cycles,
)
from jaxsparse.transforms.update_schedules.drops import (
    check_drop_schedule,
    drop_fractions,
)
from jaxsparse.transforms.update_schedules.long_division import floor_mul_div
from jaxsparse.transforms.update_schedules.sparsities import (
    SPARSITY_SCHEDULES,
    check_sparsity_schedule,
    gradual_sparsities,
)
from jaxsparse.transforms.update_schedules.steps import (
    MAX_STEP,
    MAX_UPDATES,
    UpdateSchedule,
    check_steps,
    due,
    make_update_schedule,
    row_at,
    should_update,
    update_index,
    update_steps,
)

__all__ = (
    "MAX_STEP",
    "MAX_UPDATES",
    "SPARSITY_SCHEDULES",
    "UpdateSchedule",
    "check_drop_schedule",
    "check_sparsity_schedule",
    "check_steps",
    "cyclic_sparsities",
    "drop_fractions",
    "due",
    "end_of_cycles",
    "floor_mul_div",
    "gradual_sparsities",
    "make_update_schedule",
    "row_at",
    "should_update",
    "update_index",
    "update_steps",
)
