r"""Similarity of weights: distance and angle between two solutions.

A solution is parameters with the masks they live in. Weights outside a solution's own
masks count as zero, whatever is stored there. What is compared then lies in one of
these subspaces:

- "union": prunable weights that either keeps;
- "intersection": prunable weights that both keep;
- "first", "second": prunable weights that this one keeps;
- "all": every floating leaf, biases and normalisations too.

All functions work under `jit` and `vmap`, in float32 or wider, and none of them
overflows or loses small values where a plain sum of squares would. For matrices over a
stack see `pairs`; for what the masks themselves share, `overlap`.
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
    """A point in the space of weights.

    Attributes:
      params: any pytree of parameters.
      masks: which weights exist, None at leaves that are not prunable; or None
        altogether, with which only the subspace "all" can be had.
    """

    params: Any
    masks: Any = None


@arguments.check(first=arguments.masks, second=arguments.masks)
def join(first: Masks, second: Masks, *, subspace: str) -> Masks:
    """Returns the masks of the subspace in which two solutions are compared.

    Args:
      first: masks of one solution.
      second: those of the other.
      subspace: "union", "intersection", "first" or "second".

    Returns:
      Masks of the same nesting.

    Raises:
      ValueError: if the masks do not fit each other, or the subspace is none of these.
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
        raise ValueError(f"subspace: got {subspace!r}; wanted one of {list(rules)}")
    return jax.tree.map(rules[subspace], first, second)


@arguments.check(solution=arguments.instance(Solution))
def flatten(solution: Solution, *, subspace: str = "all") -> Float[Array, "n"]:
    """Writes a solution as one vector, for `projection.pca` say.

    Weights outside the masks are zero in it and keep their place, so vectors of
    solutions with other masks can be compared. For a stack use `jax.vmap`.

    Args:
      solution: parameters and masks.
      subspace: "first" for prunable leaves only, "all" for every floating leaf.

    Returns:
      The leaves one after another, in the order of the tree.

    Raises:
      ValueError: as `l2_distance`.
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
      first: parameters and masks of one.
      second: of the other, same nesting and shapes.
      subspace: where they are compared, see above.

    Returns:
      A distance of 0 or more; exactly 0 of a solution from itself.

    Raises:
      ValueError: if nestings or shapes differ, naming the leaf; if the subspace is
        unknown; or if a solution has no masks and the subspace asks for them.

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
      first: as in `l2_distance`.
      second: as in `l2_distance`.
      subspace: as in `l2_distance`.

    Returns:
      A number in [-1, 1]; NaN where one of them is zero and has no direction.

    Raises:
      ValueError: as `l2_distance`.

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

    The angle is the arc cosine of the cosine, computed of the unit vectors as
    :math:`2 \operatorname{atan2}(\|u - v\|, \|u + v\|)`. The arc cosine itself turns a
    rounding error of 1e-7 near 0 and pi into 5e-4.

    Args:
      first: as in `l2_distance`.
      second: as in `l2_distance`.
      subspace: as in `l2_distance`.

    Returns:
      An angle in [0, pi]; exactly 0 of a solution from itself; NaN where one of them
      is zero.

    Raises:
      ValueError: as `l2_distance`.

    Deviations:
      The paper gives angles in units of a right angle: multiply by 2 / pi.

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955: weights in the product of both masks.

      Kahan. How Futile are Mindless Assessments of Roundoff in Floating-Point
      Computation? 2006, section 12.
    """
    a, b = _vectors(first, second, subspace)
    equal = jnp.stack([jnp.all(x == y) for x, y in zip(a, b, strict=True)])
    a, b = _unit(a), _unit(b)
    apart = _norm([x - y for x, y in zip(a, b, strict=True)])
    along = _norm([x + y for x, y in zip(a, b, strict=True)])
    angle = 2 * jnp.arctan2(apart, along)
    # A compiler may sum the two norms in different orders.
    return jnp.where(jnp.all(equal), 0 * angle, angle)


def _masks_by_name(solution: Solution) -> dict[str, Any]:
    """Returns the masks of leaves, and refuses those that are not of these."""
    wanted = {n: jnp.shape(x) for n, x in tree.named_leaves(solution.params).items()}
    found = tree.named_leaves(solution.masks)
    for name, leaf in found.items():
        if wanted.get(name) != jnp.shape(leaf):
            raise ValueError(
                f"masks: {name} has shape {jnp.shape(leaf)}; wanted "
                f"{wanted.get(name)}, as in params; are they of another network?"
            )
    return found


def _vectors(first: Solution, second: Solution, subspace: str) -> tuple[Leaves, Leaves]:
    """Returns the leaves of both, of one dtype and zero outside the subspace."""
    if subspace not in SUBSPACES:
        raise ValueError(f"subspace: got {subspace!r}; wanted one of {SUBSPACES}")
    params = tree.match_structure(
        second.params,
        first.params,
        fields=("params of the second", "params"),
        same_leaves=True,
    )
    second = second._replace(params=params)
    region = None
    if subspace != "all":
        if first.masks is None or second.masks is None:
            raise ValueError(
                f"masks: got None for the subspace {subspace!r}; wanted masks of both "
                "solutions, such as `masks.dense(params)`; or use the subspace 'all'"
            )
        joined = join(first.masks, second.masks, subspace=subspace)
        region = tree.named_leaves(joined)
    a, b = _within(first, region), _within(second, region)
    if not a:
        raise ValueError("params: no floating leaf to compare; wanted at least one")
    wide = jnp.result_type(jnp.float32, *a, *b)
    return [leaf.astype(wide) for leaf in a], [leaf.astype(wide) for leaf in b]


def _within(solution: Solution, region: dict[str, Any] | None) -> Leaves:
    """Lists the floating leaves of a region, zero outside it and the own masks."""
    own, leaves = _masks_by_name(solution), []
    for name, leaf in tree.named_leaves(solution.params).items():
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        if region is not None and name not in region:
            continue
        if name in own:
            kept = own[name] if region is None else own[name] & region[name]
            leaf = jnp.where(kept, leaf, jnp.zeros((), leaf.dtype))
        leaves.append(leaf)
    return leaves


def _scaled(leaves: Leaves) -> tuple[Leaves, Float[Array, ""]]:
    """Divides leaves by the largest absolute value in them, and returns both."""
    largest = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in leaves]
    scale = jnp.max(jnp.stack(largest))
    scale = jnp.where(scale == 0, jnp.ones_like(scale), scale)
    return [leaf / scale for leaf in leaves], scale


def _norm(leaves: Leaves) -> Float[Array, ""]:
    """Computes the Euclidean norm of all leaves together."""
    small, scale = _scaled(leaves)
    return scale * jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in small))


def _unit(leaves: Leaves) -> Leaves:
    """Divides leaves by their common norm; NaN if that is 0."""
    small, _ = _scaled(leaves)
    norm = jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in small))
    return [leaf / norm for leaf in small]
