"""Permutations of units that match two networks with the same coupled axes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from jaxsparse import arguments, tree
from jaxsparse.coupling.groups import Coupling, Group

Permutations = Sequence[Int[np.ndarray, " _"]]
# A sweep that raises the similarity by less than this share of it ends the search.
LEAST_GAIN = 1e-12


class Aligned(NamedTuple):
    """A network whose units are in the order of another network's.

    Attributes:
      params: its parameters, with permuted units.
      masks: its masks, permuted in the same way; None without masks.
      permutations: for each group, which unit is moved to each place, [num_units].
      similarity: how alike both networks are, before and after: by `align` the inner
        product of their parameters, by `align_activations` the mean correlation of
        their units.
    """

    params: Any
    masks: Any
    permutations: tuple[Int[np.ndarray, " _"], ...]
    similarity: tuple[float, float]


@arguments.check(coupled=arguments.instance(Coupling))
def permute(coupled: Coupling, params: Any, permutations: Permutations) -> Any:
    """Permutes the units of each group in all their axes; outputs stay the same.

    Args:
      coupled: the groups of units, from `coupled_axes`.
      params: parameters, or masks of some of them; a tree of arrays. Leaves without
        groups are unchanged.
      permutations: for each group, which unit is moved to each place.

    Returns:
      The tree with permuted leaves.

    Raises:
      ValueError: if the number of permutations is not that of the groups, one of them
        does not contain each unit once, a leaf has another shape, or no leaf has
        coupled axes.

    Examples:
      >>> params = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[3.0], [4.0]])}
      >>> groups = coupling.coupled_axes(
      ...     lambda p, x: x @ p["a"] @ p["b"], params, jnp.ones((1, 1))
      ... )
      >>> permute(groups, params, [np.array([1, 0])])["a"]
      Array([[2., 1.]], dtype=float32)
    """
    if len(permutations) != len(coupled.groups):
        raise ValueError(
            f"permutations: expected one for each of {len(coupled.groups)} groups, got "
            f"{len(permutations)}"
        )
    for i, (group, order) in enumerate(zip(coupled.groups, permutations, strict=True)):
        if sorted(np.asarray(order).tolist()) != list(range(group.num_units)):
            raise ValueError(
                f"permutations: group {i}: expected each of the units 0 to "
                f"{group.num_units - 1} once, got {np.asarray(order)}"
            )
    leaves = tree.named_leaves(params)
    coupled_names = {name for group in coupled.groups for name, _ in group.axes}
    if coupled_names and not coupled_names & leaves.keys():
        raise ValueError(
            f"params: expected leaves such as {min(coupled_names)}, which have coupled "
            f"axes, got {sorted(leaves)[:3]}; use the nesting given to `coupled_axes`"
        )
    _check_shapes(coupled, {n: np.shape(x) for n, x in leaves.items()}, "params")
    moved = dict(leaves)
    for group, order in zip(coupled.groups, permutations, strict=True):
        for (name, axis), owner in group.axes.items():
            if name in moved:
                moved[name] = moved[name].take(_places(owner, order), axis)
    return tree.map_with_names(lambda name, _: moved[name], params)


@arguments.check(
    coupled=arguments.instance(Coupling),
    sweeps=arguments.integer(1),
    seed=arguments.integer(0),
)
def align(
    coupled: Coupling,
    reference: Any,
    params: Any,
    masks: Any = None,
    *,
    sweeps: int = 100,
    seed: int = 0,
) -> Aligned:
    r"""Permutes the units of a network so that its weights match those of another.

    With weights :math:`A` and :math:`B` and permutations :math:`\pi` of the units of
    all groups, it maximizes :math:`\langle A, \pi(B) \rangle` over all leaves, group by
    group in random order, by linear assignment with all other groups fixed. It stops
    when no group changes. The result is a local maximum: where networks are very
    different, other seeds can give others.

    The permuted network has the same outputs. Error barriers between both networks are
    then those of networks that differ by more than a permutation.

    Args:
      coupled: the groups of units, from `coupled_axes`.
      reference: parameters of the network whose order is taken.
      params: parameters of the network to permute, with the same names and shapes.
        All leaves count. If some should not, such as the running means and variances
        of BatchNorm, set them to zero in both networks first.
      masks: masks of `params` to permute in the same way, nested like `params`; None
        for no masks.
      sweeps: most passes over all groups, 1 or more.
      seed: seed of the order of the groups.

    Returns:
      The permuted network.

    Raises:
      ValueError: if the leaves differ, a coupled leaf is missing, a mask is that of no
        leaf or has another shape, or leaves do not have the shapes of the coupled axes.
      TypeError: if `coupled` is not from `coupled_axes`.

    Examples:
      >>> one = {"a": jnp.array([[1.0, 5.0]]), "b": jnp.array([[1.0], [2.0]])}
      >>> groups = coupling.coupled_axes(
      ...     lambda p, x: x @ p["a"] @ p["b"], one, jnp.ones((1, 1))
      ... )
      >>> other = {"a": jnp.array([[5.0, 2.0]]), "b": jnp.array([[2.0], [1.0]])}
      >>> align(groups, one, other).params["a"]
      Array([[2., 5.]], dtype=float32)

    References:
      Ainsworth, Hayase, Srinivasa. Git Re-Basin: Merging Models modulo Permutation
      Symmetries. 2022. arXiv:2209.04836, algorithm 1 (weight matching). There, the
      groups are written down for each architecture.

    Deviations:
      A layer both of whose axes belong to one group makes the problem quadratic. As in
      the authors' code, its other axis has the current permutation; here, a change that
      lowers the inner product is not made.
    """
    known = {n: _wide(leaf) for n, leaf in tree.named_leaves(reference).items()}
    moved = {n: _wide(leaf) for n, leaf in tree.named_leaves(params).items()}
    check_leaves(coupled, known, moved, masks)
    before = _inner(known, moved)
    orders = [np.arange(group.num_units) for group in coupled.groups]
    generator = np.random.default_rng(seed)
    similarity = before
    for _ in range(sweeps):
        start = similarity
        for i in generator.permutation(len(orders)):
            group = coupled.groups[i]
            _, step = linear_sum_assignment(_matches(group, known, moved), True)
            names = {name for name, _ in group.axes}
            tried = {name: moved[name] for name in names}
            for (name, axis), owner in group.axes.items():
                tried[name] = tried[name].take(_places(owner, step), axis)
            gain = _inner(known, tried) - _inner(known, {n: moved[n] for n in names})
            if gain > 0:
                moved |= tried
                orders[i] = orders[i][step]
                similarity += gain
        if similarity - start <= LEAST_GAIN * abs(similarity):
            break
    return Aligned(
        permute(coupled, params, orders),
        None if masks is None else permute(coupled, masks, orders),
        tuple(orders),
        (before, _inner(known, moved)),
    )


def check_leaves(
    coupled: Coupling, known: dict[str, Any], moved: dict[str, Any], masks: Any
) -> None:
    """Raises an error for networks or masks whose leaves do not belong together.

    Args:
      coupled: the groups of units.
      known: leaves of the reference by name.
      moved: leaves of the network to permute by name.
      masks: masks of that network, or None.

    Raises:
      ValueError: naming the leaf.
    """
    for name in sorted(known.keys() | moved.keys()):
        shapes = [np.shape(side[name]) for side in (known, moved) if name in side]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ValueError(
                f"params: {name}: expected a leaf of the same shape in reference, got "
                f"the shapes {shapes}; both networks need the same architecture"
            )
    for name in sorted({name for group in coupled.groups for name, _ in group.axes}):
        if name not in known:
            raise ValueError(
                f"params: {name}: expected a leaf for each coupled axis, got none; "
                "pass all parameters, nested as for `coupled_axes`"
            )
    for name, mask in tree.named_leaves(masks).items():
        if name not in moved or np.shape(mask) != moved[name].shape:
            raise ValueError(
                f"masks: {name}: expected the name and shape of a leaf of params, got "
                f"shape {np.shape(mask)}; nest masks like params, such as "
                '{"params": masks}'
            )
    _check_shapes(coupled, {n: leaf.shape for n, leaf in known.items()}, "reference")


def _wide(leaf: Any) -> np.ndarray:
    """Converts a leaf to float64; what is no number counts as zeros."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.zeros(np.shape(leaf))
    return np.asarray(leaf).astype(np.float64)


def _inner(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """Returns the inner product over the leaves of the second tree."""
    return float(sum(np.vdot(first[name], leaf) for name, leaf in second.items()))


def _check_shapes(coupled: Coupling, shapes: dict[str, Any], argument: str) -> None:
    """Raises an error for leaves that do not have the coupled axes."""
    for group in coupled.groups:
        for (name, axis), owner in group.axes.items():
            if name in shapes and shapes[name][axis : axis + 1] != owner.shape:
                raise ValueError(
                    f"{argument}: {name}: expected {len(owner)} entries along axis "
                    f"{axis}, as in the coupled axes, got shape {shapes[name]}; use "
                    "the same network"
                )


def _indices(owner: np.ndarray, num_units: int) -> np.ndarray:
    """Returns the indices of each unit in their order, [num_units, indices]."""
    places = np.flatnonzero(owner >= 0)
    return places[np.argsort(owner[places], kind="stable")].reshape(num_units, -1)


def _places(owner: np.ndarray, order: Any) -> np.ndarray:
    """Returns which index of an axis moves to each index."""
    indices = _indices(owner, len(order))
    places = np.arange(len(owner))
    places[indices] = indices[np.asarray(order)]
    return places


def _matches(
    group: Group, known: dict[str, np.ndarray], moved: dict[str, np.ndarray]
) -> np.ndarray:
    """Returns the inner products of all pairs of units, [num_units, num_units]."""
    total = np.zeros((group.num_units,) * 2)
    for (name, axis), owner in group.axes.items():
        indices = _indices(owner, group.num_units)
        rows = [
            np.moveaxis(side[name], axis, 0)[indices].reshape(group.num_units, -1)
            for side in (known, moved)
        ]
        total += rows[0] @ rows[1].T
    return total
