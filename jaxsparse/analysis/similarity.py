"""Similarity of weights: distances and angles between two solutions.

A solution consists of parameters and their masks. Weights outside the masks of their
own solution count as zero, whatever values are stored there. Solutions are compared in
one of these subspaces:

- "union": prunable weights that are active in either solution;
- "intersection": prunable weights that are active in both;
- "first", "second": prunable weights that are active in this solution;
- "all": every floating leaf, including biases and normalization parameters.

All functions work under `jit` and `vmap` and compute in float32 or wider. They neither
overflow nor lose small values where a plain sum of squares would. `pairwise` computes
matrices over a stack of solutions; `mask_overlap` compares the masks alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsparse import arguments, tree
from jaxsparse.types import Masks

SUBSPACES = ("union", "intersection", "first", "second", "all")
Leaves = list[Float[Array, "..."]]


class Solution(NamedTuple):
    """Parameters and masks of a network.

    Attributes:
      params: any pytree of parameters.
      masks: boolean masks of the active weights, None at leaves that are not prunable.
        If `masks` itself is None, only the subspace "all" is available.
    """

    params: Any
    masks: Any = None


@arguments.check(first=arguments.masks, second=arguments.masks)
def join(first: Masks, second: Masks, *, subspace: str) -> Masks:
    """Combines two trees of masks to the subspace in which solutions are compared.

    Args:
      first: masks of one solution.
      second: masks of the other solution, with the same structure and shapes.
      subspace: "union", "intersection", "first" or "second".

    Returns:
      Masks with the same structure, true inside the subspace.

    Raises:
      ValueError: if the masks differ in structure or shapes, or `subspace` is unknown.
    """
    second = tree.match_structure(
        second, first, fields=("second", "first"), same_leaves=True
    )
    rules = {
        "union": jnp.logical_or,
        "intersection": jnp.logical_and,
        "first": lambda a, _: jnp.asarray(a),
        "second": lambda _, b: jnp.asarray(b),
    }
    if subspace not in rules:
        raise ValueError(f"subspace: expected one of {list(rules)}, got {subspace!r}")
    return jax.tree.map(rules[subspace], first, second)


@arguments.check(solution=arguments.instance(Solution))
def flatten(solution: Solution, *, subspace: str = "all") -> Float[Array, "n"]:
    """Flattens a solution to one vector, for example for `embedding.pca`.

    Weights outside the masks are zero in the vector and keep their positions, so
    vectors of solutions with different masks can be compared. Use `jax.vmap` for a
    stack of solutions.

    Args:
      solution: parameters and masks.
      subspace: "first" for prunable leaves only, "all" for every floating leaf.

    Returns:
      The leaves concatenated in the order of the tree, [n], in float32 or wider.

    Raises:
      ValueError: if `masks` and `params` do not match (the message names the leaf), if
        `subspace` is unknown, if masks are missing for a subspace other than "all", or
        if there is no floating leaf.
    """
    leaves, _ = _vectors(solution, solution, subspace)
    return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])


@arguments.check(
    first=arguments.instance(Solution), second=arguments.instance(Solution)
)
def l2_distance(
    first: Solution, second: Solution, *, subspace: str = "all"
) -> Float[Array, ""]:
    """Computes the Euclidean distance between two solutions.

    Args:
      first: parameters and masks of one solution.
      second: parameters and masks of the other, with the same structure and shapes.
      subspace: where the solutions are compared: "union", "intersection", "first" or
        "second" for prunable weights active in either, both, the first or the second
        solution; "all" for every floating leaf.

    Returns:
      A distance of 0 or more; exactly 0 between a solution and itself.

    Raises:
      ValueError: if structures or shapes differ (the message names the leaf), if
        `subspace` is unknown, if masks are missing for a subspace other than "all", or
        if there is no floating leaf.

    Examples:
      >>> a, b = ({"w": jnp.array([[x]])} for x in (1.0, 3.0))
      >>> l2_distance(Solution(a), Solution(b))
      Array(2., dtype=float32)

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533: full vectors, biases included.
    """
    a, b = _vectors(first, second, subspace)
    return _norm([x - y for x, y in zip(a, b, strict=True)])


@arguments.check(
    first=arguments.instance(Solution), second=arguments.instance(Solution)
)
def cosine_similarity(
    first: Solution, second: Solution, *, subspace: str = "intersection"
) -> Float[Array, ""]:
    """Computes the cosine of the angle between two solutions.

    Args:
      first: parameters and masks of one solution.
      second: parameters and masks of the other, with the same structure and shapes.
      subspace: where the solutions are compared: "union", "intersection", "first" or
        "second" for prunable weights active in either, both, the first or the second
        solution; "all" for every floating leaf.

    Returns:
      A cosine in [-1, 1]; NaN if one of the solutions is zero in the subspace.

    Raises:
      ValueError: if structures or shapes differ (the message names the leaf), if
        `subspace` is unknown, if masks are missing for a subspace other than "all", or
        if there is no floating leaf.

    Examples:
      >>> a, b = ({"w": jnp.array([[x, 1.0]])} for x in (1.0, -1.0))
      >>> cosine_similarity(Solution(a), Solution(b), subspace="all")
      Array(0., dtype=float32)
    """
    a, b = (_unit(leaves) for leaves in _vectors(first, second, subspace))
    product = sum(jnp.sum(x * y) for x, y in zip(a, b, strict=True))
    return jnp.clip(product, -1.0, 1.0)


@arguments.check(
    first=arguments.instance(Solution), second=arguments.instance(Solution)
)
def angular_distance(
    first: Solution, second: Solution, *, subspace: str = "intersection"
) -> Float[Array, ""]:
    r"""Computes the angle between two solutions, in radians.

    The angle is the arc cosine of the cosine similarity, computed from the unit vectors
    :math:`u` and :math:`v` as :math:`2 \operatorname{atan2}(\|u - v\|, \|u + v\|)`. The
    arc cosine itself would turn a rounding error of 1e-7 near the angles 0 and pi into
    an error of 5e-4.

    Args:
      first: parameters and masks of one solution.
      second: parameters and masks of the other, with the same structure and shapes.
      subspace: where the solutions are compared: "union", "intersection", "first" or
        "second" for prunable weights active in either, both, the first or the second
        solution; "all" for every floating leaf.

    Returns:
      An angle in [0, pi]; exactly 0 between a solution and itself; NaN if one of the
      solutions is zero in the subspace.

    Raises:
      ValueError: if structures or shapes differ (the message names the leaf), if
        `subspace` is unknown, if masks are missing for a subspace other than "all", or
        if there is no floating leaf.

    Deviations:
      The paper gives angles in units of a right angle; multiply by 2 / pi to compare.

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955: weights in the product of both masks.

      Kahan. How Futile are Mindless Assessments of Roundoff in Floating-Point
      Computation? 2006, section 12.
    """
    a, b = _vectors(first, second, subspace)
    equal = jnp.stack([jnp.all(x == y) for x, y in zip(a, b, strict=True)])
    a, b = _unit(a), _unit(b)
    difference = _norm([x - y for x, y in zip(a, b, strict=True)])
    total = _norm([x + y for x, y in zip(a, b, strict=True)])
    angle = 2 * jnp.arctan2(difference, total)
    # Two equal vectors may be normalized with differently rounded norms, as a compiler
    # may sum each in another order. `0 * angle` keeps the NaN of zero vectors.
    return jnp.where(jnp.all(equal), 0 * angle, angle)


def _masks_by_name(solution: Solution) -> dict[str, Any]:
    """Returns the masks by name, and validates that they match the parameters."""
    shapes = {n: jnp.shape(x) for n, x in tree.named_leaves(solution.params).items()}
    masks = tree.named_leaves(solution.masks)
    for name, leaf in masks.items():
        if shapes.get(name) != jnp.shape(leaf):
            raise ValueError(
                f"masks: {name}: expected shape {shapes.get(name)}, as in params, got "
                f"{jnp.shape(leaf)}; pass masks of the same network"
            )
    return masks


def _vectors(first: Solution, second: Solution, subspace: str) -> tuple[Leaves, Leaves]:
    """Returns the leaves of both solutions in one dtype, zero outside the subspace."""
    if subspace not in SUBSPACES:
        raise ValueError(f"subspace: expected one of {SUBSPACES}, got {subspace!r}")
    params = tree.match_structure(
        second.params,
        first.params,
        fields=("params of the second", "params"),
        same_leaves=True,
    )
    second = second._replace(params=params)
    subspace_masks = None
    if subspace != "all":
        if first.masks is None or second.masks is None:
            raise ValueError(
                f"masks: expected masks of both solutions for the subspace "
                f"{subspace!r}, got None; pass `masks.ones(params)`, or use the "
                "subspace 'all'"
            )
        subspace_tree = join(first.masks, second.masks, subspace=subspace)
        subspace_masks = tree.named_leaves(subspace_tree)
    a, b = _select(first, subspace_masks), _select(second, subspace_masks)
    if not a:
        raise ValueError("params: expected at least one floating-point leaf, got none")
    wide = jnp.result_type(jnp.float32, *a, *b)
    return [leaf.astype(wide) for leaf in a], [leaf.astype(wide) for leaf in b]


def _select(solution: Solution, subspace_masks: dict[str, Any] | None) -> Leaves:
    """Lists the floating leaves in a region.

    Args:
      solution: parameters and masks; elements outside these masks are zero in the
        result.
      subspace_masks: masks of the subspace by name of the leaf; None for all floating
        leaves.
    """
    masks_by_name, leaves = _masks_by_name(solution), []
    for name, leaf in tree.named_leaves(solution.params).items():
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        if subspace_masks is not None and name not in subspace_masks:
            continue
        if name in masks_by_name:
            mask = (
                masks_by_name[name]
                if subspace_masks is None
                else masks_by_name[name] & subspace_masks[name]
            )
            leaf = jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))
        leaves.append(leaf)
    return leaves


def _scaled(leaves: Leaves) -> tuple[Leaves, Float[Array, ""]]:
    """Divides leaves by their common largest magnitude; returns both."""
    # Squares of numbers above 1.8e19 overflow float32.
    largest = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in leaves]
    scale = jnp.max(jnp.stack(largest))
    scale = jnp.where(scale == 0, jnp.ones_like(scale), scale)
    return [leaf / scale for leaf in leaves], scale


def _norm(leaves: Leaves) -> Float[Array, ""]:
    """Computes the Euclidean norm of all leaves together, without overflow."""
    scaled, scale = _scaled(leaves)
    return scale * jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in scaled))


def _unit(leaves: Leaves) -> Leaves:
    """Divides leaves by their common norm; NaN if the norm is 0."""
    scaled, _ = _scaled(leaves)
    norm = jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in scaled))
    return [leaf / norm for leaf in scaled]
