"""Permutations of units that match the activations of two networks."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import linear_sum_assignment

from jaxsparse import arguments, tree
from jaxsparse.coupling import axis_rules
from jaxsparse.coupling import program as program_lib
from jaxsparse.coupling.alignment import Aligned, check_leaves, permute
from jaxsparse.coupling.axis_labels import Axis, Labels
from jaxsparse.coupling.groups import Group, groups_of
from jaxsparse.coupling.program import Program


class _Place(NamedTuple):
    """Where the activations of the units of a group are.

    Attributes:
      number: number of the value in the program.
      axis: the axis of the units.
      indices: the indices of each unit along the axis, [num_units, indices].
    """

    number: int
    axis: int
    indices: Int[np.ndarray, "_ _"]


@arguments.check(apply=arguments.function)
def align_activations(
    apply: Callable[..., Any],
    reference: Any,
    params: Any,
    *inputs: Any,
    masks: Any = None,
) -> Aligned:
    r"""Permutes the units of a network so that its activations match those of another.

    For the units of each group of coupled axes, with activations :math:`A` of the
    reference and :math:`B` of the network (examples and positions by units), the
    permutation is

    .. math:: \arg\max_\pi \sum_i \mathrm{corr}(A_{:,i}, B_{:,\pi(i)})

    by linear assignment. Activations are the last ones before the units are multiplied
    away: of all values with an axis of the units and the most entries, the last that is
    computed, such as the outputs of a ReLU, or those of the last block of a residual
    stage. No group depends on another one, unlike in `align`.

    With a ticket of `params`, the permuted masks are those for training from the
    initialization, or an early state, of `reference`.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      reference: trained parameters of the network whose order is taken.
      params: trained parameters of the network to permute, of the same names and
        shapes.
      *inputs: arguments of `apply`, such as a batch of training images.
      masks: masks of `params` to permute in the same way, nested like `params`; None
        for no masks.

    Returns:
      The permuted network, which has the same outputs. Units without activations, and
      constant ones, have the correlation 0.

    Raises:
      ValueError: if the leaves differ, or a mask is that of no leaf or has another
        shape.
      TypeError: if `apply` is not a function.

    Examples:
      >>> def apply(params, x):
      ...     return jax.nn.relu(x @ params["a"]) @ params["b"]
      >>> one = {"a": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "b": jnp.ones((2, 1))}
      >>> other = {"a": jnp.array([[0.1, 2.0], [2.0, 0.0]]), "b": jnp.ones((2, 1))}
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
      >>> align_activations(apply, one, other, x).permutations
      (array([1, 0]),)

    References:
      Ainsworth, Hayase, Srinivasa. Git Re-Basin: Merging Models modulo Permutation
      Symmetries. 2022. arXiv:2209.04836, section 3.1 (activation matching).
      Adnan, Jain, Sharma, Krishnan, Ioannou. Sparse Training from Random
      Initialization: Aligning Lottery Ticket Masks using Weight Symmetry. 2025.
      arXiv:2505.05143: masks that are permuted in this way.

    Deviations:
      Inner products are centered and divided by the standard deviations, as in the code
      of the second paper, not in its equation; that code averages the statistics of
      batches, here there is one batch.
    """
    return make_align(apply, params, *inputs)(reference, params, masks)


def make_align(
    apply: Callable[..., Any], params: Any, *inputs: Any
) -> Callable[[Any, Any, Any], Aligned]:
    """Makes a function that aligns pairs of networks, by programs that they share.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: parameters, or their shapes from `jax.eval_shape`.
      *inputs: arguments of `apply`, such as a batch of training images.

    Returns:
      A function of the arguments `reference`, `params` and `masks` of
      `align_activations`, which returns what that returns. It compiles when it is
      first called.
    """
    program = program_lib.trace(apply, params, *inputs)
    axes, labels = axis_rules.label(program)
    coupled = groups_of(program, axes, labels)
    places = _places(program, axes, labels, coupled.groups)

    @jax.jit
    def correlations(sides: Any, inputs: Any) -> list[Array]:
        found = [_values(program, side, inputs) for side in sides]
        return [
            _correlation(*(_samples(values[place.number], place) for values in found))
            for place in places
            if place
        ]

    def align(reference: Any, params: Any, masks: Any) -> Aligned:
        sides = [tree.named_leaves(side) for side in (reference, params)]
        check_leaves(coupled, *sides, masks)
        with jax.default_matmul_precision("highest"):
            each = iter(correlations(sides, inputs))
        orders, before, after = [], [], []
        for group, place in zip(coupled.groups, places, strict=True):
            units = group.num_units
            matrix = np.eye(units) if place is None else np.asarray(next(each))
            _, order = linear_sum_assignment(matrix, maximize=True)
            orders.append(order)
            before.append(np.diagonal(matrix))
            after.append(matrix[np.arange(units), order])
        return Aligned(
            permute(coupled, params, orders),
            None if masks is None else permute(coupled, masks, orders),
            tuple(orders),
            (_mean(before), _mean(after)),
        )

    return align


def _places(
    program: Program, axes: list[Any], labels: Labels, groups: Sequence[Group]
) -> list[_Place | None]:
    """Finds the activations of each group; None for one that has none.

    Args:
      program: the forward function.
      axes: labels of the axes of its values.
      labels: the sets of labels.
      groups: the groups.
    """
    owners: dict[int, tuple[int, int]] = {}  # group and unit of a set of labels
    for g, group in enumerate(groups):
        (leaf, i), owner = next(iter(group.axes.items()))
        sets = labels.sets(axes[program.leaves[leaf]][i][0])
        owners |= {
            int(sets[j]): (g, int(unit)) for j, unit in enumerate(owner) if unit >= 0
        }
    found: list[_Place | None] = [None] * len(groups)
    sizes = [0] * len(groups)
    for number in _activations(program):
        size = math.prod(program.avals[number].shape)
        for i, axis in enumerate(axes[number]):
            units: dict[int, dict[int, list[int]]] = {}
            for j, label in _labeled(axis, labels):
                if label in owners:
                    g, unit = owners[label]
                    units.setdefault(g, {}).setdefault(unit, []).append(j)
            for g, places in units.items():
                rows = [places.get(k, []) for k in range(groups[g].num_units)]
                if size >= sizes[g] and len({len(row) for row in rows}) == 1:
                    found[g], sizes[g] = _Place(number, i, np.array(rows)), size
    return found


def _labeled(axis: Axis, labels: Labels) -> Iterator[tuple[int, int]]:
    """Yields the indices of an axis with the sets of labels that own them."""
    lengths = [len(factor) for factor in axis]
    for place, factor in enumerate(axis):
        shape = [1] * len(axis)
        shape[place] = len(factor)
        sets = np.broadcast_to(labels.sets(factor).reshape(shape), lengths)
        yield from enumerate(sets.reshape(-1).tolist())


def _activations(program: Program) -> list[int]:
    """Lists the values that depend on the inputs, in the order of computation."""
    depends, found = set(program.inputs), []
    for eqn in program.equations:
        if depends.intersection(eqn.inputs):
            depends.update(eqn.outputs)
            found += eqn.outputs
    return found


def _values(program: Program, leaves: dict[str, Array], inputs: Any) -> dict[int, Any]:
    """Computes all values of a forward function."""
    values = program_lib.given_values(program, inputs)
    values |= {number: leaves[name] for name, number in program.leaves.items()}
    for eqn in program.equations:
        results = program_lib.compute(eqn, [values[n] for n in eqn.inputs])
        values |= zip(eqn.outputs, results, strict=True)
    return values


def _samples(value: Array, place: _Place) -> Float[Array, "samples units"]:
    """Arranges activations: examples and positions by units."""
    rows = jnp.moveaxis(value, place.axis, 0)[place.indices]
    return rows.reshape(len(place.indices), -1).T.astype(jnp.float32)


def _correlation(
    ours: Float[Array, "n units"], theirs: Float[Array, "n units"]
) -> Float[Array, "units units"]:
    """Correlates all pairs of units; 0 for constant ones."""
    ours, theirs = (each - jnp.mean(each, 0, keepdims=True) for each in (ours, theirs))
    lengths = [jnp.linalg.norm(each, axis=0) for each in (ours, theirs)]
    product = lengths[0][:, None] * lengths[1][None]
    return jnp.where(product > 0, ours.T @ theirs / jnp.where(product, product, 1), 0)


def _mean(parts: list[np.ndarray]) -> float:
    return float(np.mean(np.concatenate(parts))) if parts else 0.0
