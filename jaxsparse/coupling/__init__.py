"""Coupling: which axes of which leaves are the same neurons or channels.

`coupled_axes` finds the groups of coupled axes of any forward function from its JAX
trace. `compaction` removes units by them, `select` prunes channels by them, also
through shortcuts. Permuting the units of a group in all its axes gives another network
with the same outputs, unless a slice cuts through units. `multiply_adds` counts the
cost of the network.

    coupling = coupled_axes(apply, params, jnp.ones((1, 28, 28, 1)))
    for group in coupling.groups:
        print(group.num_units, list(group.axes))
"""

from jaxsparse.coupling.groups import Coupling, Group, coupled_axes
from jaxsparse.coupling.multiply_adds import multiply_adds

__all__ = ("Coupling", "Group", "coupled_axes", "multiply_adds")
