"""Groups of coupled axes: the units of a network and all their weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxsparse import arguments
from jaxsparse.coupling import axis_rules
from jaxsparse.coupling.axis_labels import Labels
from jaxsparse.coupling.axis_rules import Axes
from jaxsparse.coupling.program import Program, trace

LeafAxis = tuple[str, int]


class Group(NamedTuple):
    """Units (neurons, channels or attention heads) with the same axes.

    Attributes:
      num_units: number of units, 1 or more.
      axes: for each leaf and axis an int array with one entry per index of the axis:
        the number of the unit that owns the index, -1 if it belongs to no unit of this
        group. A unit can own several indices of an axis, such as the pixels of a
        flattened channel.
      reductions: operations that reduce over the units, such as the "reduce_sum" of
        the mean in LayerNorm. Most of their results change with the number of units,
        so that `compaction` has to keep them.
    """

    num_units: int
    axes: dict[LeafAxis, Int[np.ndarray, " _"]]
    reductions: tuple[str, ...] = ()


class Coupling(NamedTuple):
    """The coupled axes of a network.

    Attributes:
      groups: the groups, in the order of their first leaves. Units can be removed one
        by one, each with all its indices.
      whole: why an axis cannot get shorter, by leaf and axis, for axes without any
        unit.
    """

    groups: tuple[Group, ...]
    whole: dict[LeafAxis, str]


@arguments.check(apply=arguments.function)
def coupled_axes(apply: Callable[..., Any], params: Any, *inputs: Any) -> Coupling:
    """Finds which axes of which leaves are the same neurons or channels.

    Removing an output of one layer also removes an input of the next, an entry of the
    bias, a scale of the normalization, and through a residual sum the outputs of other
    layers. The groups are found from the JAX trace of the function: through dense
    layers, convolutions (grouped and depthwise ones by whole groups), normalization,
    residual sums, concatenation, attention heads, reshapes, pooling and loops. Axes of
    inputs and outputs stay whole. So do axes that are read by an operation without a
    rule here, and axes whose order matters to an operation, such as a sort; `whole`
    names the operation. Where a reshape splits an axis into several, one of these has
    the units: the first one that can get shorter, such as the heads and not their
    features.

    Whether a unit may be removed without changing the outputs is another question,
    which `compaction` answers. A statistic over units, as in LayerNorm, changes with
    them.

    Args:
      apply: called as `apply(params, *inputs)`; returns any tree of outputs.
      params: parameters, or their shapes from `jax.eval_shape`.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`, such as a single example.

    Returns:
      The groups, and the axes that stay whole.

    Raises:
      TypeError: if `apply` is not a function.
      ValueError: if two leaves of `params` have the same name.

    Examples:
      >>> params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 2)), "c": jnp.ones(3)}
      >>> apply = lambda p, x: jax.nn.relu(x @ p["a"] + p["c"][None]) @ p["b"]
      >>> coupling = coupled_axes(apply, params, jnp.ones((1, 4)))
      >>> sorted(coupling.groups[0].axes)
      [('a', 1), ('b', 0), ('c', 0)]
      >>> coupling.whole
      {('a', 0): 'an axis of an input', ('b', 1): 'an axis of an output'}

    References:
      Fang, Ma, Song, Bi Mi, Wang. DepGraph: Towards Any Structural Pruning. 2023.
      arXiv:2301.12900, section 3.2. There, the dependencies between layers are
      declared for each type of layer; here they follow from the primitives of JAX.
    """
    program = trace(apply, params, *inputs)
    axes, labels = axis_rules.label(program)
    return groups_of(program, axes, labels)


def groups_of(program: Program, axes: list[Axes], labels: Labels) -> Coupling:
    """Collects the units of the leaves of a labeled program.

    Args:
      program: the program.
      axes: labels of the axes of its values.
      labels: the sets of labels.
    """
    whole: dict[LeafAxis, str] = {}
    places: dict[int, dict[LeafAxis, list[int]]] = {}
    for leaf, number in program.leaves.items():
        for i, axis in enumerate(axes[number]):
            sets, fixed = labels.sets(axis[0]), labels.is_fixed(axis[0])
            if fixed.all():
                reason = labels.reason(int(axis[0][0])) if len(fixed) else "empty"
                whole[leaf, i] = reason
            for index in np.flatnonzero(~fixed):
                unit = places.setdefault(int(sets[index]), {})
                unit.setdefault((leaf, i), []).append(int(index))
    reductions = _reductions(program, axes, labels)
    by_axes: dict[tuple, list[dict[LeafAxis, list[int]]]] = {}
    for label, unit in places.items():
        signature = tuple((where, len(indices)) for where, indices in unit.items())
        reduced = tuple(sorted(reductions.get(label, ())))
        by_axes.setdefault((signature, reduced), []).append(unit)
    groups = []
    for (_, reduced), units in by_axes.items():
        owners = {}
        for leaf, i in units[0]:
            owner = np.full(program.avals[program.leaves[leaf]].shape[i], -1)
            for k, unit in enumerate(units):
                owner[unit[leaf, i]] = k
            owners[leaf, i] = owner
        groups.append(Group(len(units), owners, reduced))
    return Coupling(tuple(groups), whole)


def _reductions(
    program: Program, axes: list[Axes], labels: Labels
) -> dict[int, set[str]]:
    """Lists the operations that reduce over the units of each set of labels."""
    found: dict[int, set[str]] = {}
    for eqn in program.equations:
        if eqn.name not in axis_rules.REDUCES:
            continue
        for i in eqn.params["axes"]:
            for factor in axes[eqn.inputs[0]][i]:
                for label in np.unique(labels.sets(factor)).tolist():
                    found.setdefault(label, set()).add(eqn.name)
    return found
