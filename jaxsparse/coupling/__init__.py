"""Coupling: which axes of which leaves are the same neurons or channels.

`coupled_axes` finds the groups of coupled axes of any forward function from its JAX
trace. `compaction` removes units by them, `select` prunes channels by them, also
through shortcuts. Permuting the units of a group in all its axes gives another network
with the same outputs (`permute`), unless a slice cuts through units; `align` finds the
permutation that best matches the weights of another network, `align_activations` the
one that best matches its activations.

    coupling = coupled_axes(apply, params, jnp.ones((1, 28, 28, 1)))
    for group in coupling.groups:
        print(group.num_units, list(group.axes))
"""

from jaxsparse.coupling.activations import align_activations
from jaxsparse.coupling.alignment import Aligned, align, permute
from jaxsparse.coupling.groups import Coupling, Group, coupled_axes

__all__ = (
    "Aligned",
    "Coupling",
    "Group",
    "align",
    "align_activations",
    "coupled_axes",
    "permute",
)
