"""Penalizes the alignment of weights with the solutions of earlier pruning rounds.

`penalty` is added to the training loss. A positive strength repels the network from the
directions in which earlier rounds of pruning ended; a negative one attracts it.
`allocate` and `store` keep the solutions in arrays of a fixed size, together with the
number of valid entries, so that one compiled program serves all rounds:

    stored, count = solution_penalty.allocate(masks, rounds), jnp.int32(0)
    for each round:
        train on loss(params) + solution_penalty.penalty(
            params, masks, stored, strength=solution_penalty.REPEL, count=count
        )
        stored, count = solution_penalty.store(stored, params, count), count + 1

The caller decides when rounds end and with which masks the next one starts. A buffer
for one solution, always stored in slot 0, repels from the last solution only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params

# Strengths of Maene et al. for CIFAR-10: the weakest that repels, and one that
# attracts.
REPEL = 2.0
ATTRACT = -1.0

Leaves = list[Any]


class PastSolutions(NamedTuple):
    """Solutions that a network is repelled from or attracted to.

    Attributes:
      solutions: buffer made by `allocate` and filled by `store`.
      count: number of valid solutions in it.
    """

    solutions: PyTree
    count: Int[Array, "..."]


def penalty(
    params: Params,
    masks: Masks,
    stored: PyTree,
    *,
    strength: ArrayLike,
    count: ArrayLike | None = None,
) -> Float[Array, ""]:
    r"""Computes the mean squared cosine between weights and past solutions.

    With the weights :math:`\theta`, masks :math:`m`, solutions
    :math:`\theta_1, \dots, \theta_s` and the strength :math:`\lambda` the penalty is

    .. math:: \frac{\lambda}{s} \sum_{r=1}^{s} \cos^2(m\theta, m\theta_r)

    with one angle for all layers together. A solution and its negative have the same
    penalty. Solutions are converted to float32 (float64 for float64 weights) one at a
    time, also for the gradient, which is in closed form. Memory in addition to the
    arguments is therefore that of a few copies of the weights, for any number of
    solutions. Weights outside the masks have no influence, whatever their values.

    Args:
      params: the weights, masked or dense.
      masks: boolean masks of the active weights. Leaves that are not prunable are
        ignored.
      stored: solutions under the names of the weights, with a leading axis of
        solutions, [s ...], in any floating dtype. Leaves that are not prunable may be
        missing. Treated as constant, without a gradient.
      strength: factor of the penalty; positive repels, negative attracts.
      count: number of valid solutions, from the first on; None for all. Traced values
        are clipped to [0, s]. Invalid solutions are never read and take no time.

    Returns:
      The penalty in float32, or float64 for float64 weights; between 0 and the strength
      up to rounding. Exactly 0 and without a gradient if no solution is valid. Weights
      or solutions that are zero inside the masks have no direction and add 0 to the
      penalty and to the gradient.

    Raises:
      ValueError: if no leaf is prunable, if a leaf is missing, has another shape, is
        not floating or holds another number of solutions, or if the count is out of
        range.

    Examples:
      >>> params = {"w": jnp.array([[1.0, 0.0]])}
      >>> stored = {"w": jnp.array([[[3.0, 0.0]], [[0.0, 1.0]]])}
      >>> penalty(params, masks.ones(params), stored, strength=2.0)
      Array(1., dtype=float32)

    Deviations:
      Biases and normalization parameters are left out: the paper prunes weights only,
      and it is unknown whether the other parameters count. To include a leaf, give it a
      mask of ones here. In runs, the solutions are those of tickets, for controls as
      well; the paper does not say what controls are repelled from. Reverse mode over
      reverse mode needs `count=None`; forward over reverse works with any count.

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955: the repellent and attractive loss, over the
      final weights of all previous rounds.
    """
    weights, kept, solutions = _matched(params, masks, stored)
    capacity = solutions[0].shape[0]
    _check_number(count, 0, capacity, field="count")
    wide = jnp.result_type(jnp.float32, *weights)
    if not capacity:
        return jnp.zeros((), wide)
    if count is not None:
        count = jnp.clip(jnp.asarray(count, jnp.int32), 0, capacity)
    mean = _mean_square_cosine(weights, kept, solutions, count)
    return jnp.asarray(strength, wide) * mean


@arguments.check(masks=arguments.masks, capacity=arguments.integer(0))
def allocate(masks: Masks, capacity: int, *, dtype: Any = jnp.bfloat16) -> PyTree:
    """Allocates a buffer for past solutions.

    Args:
      masks: masks of the network; only names and shapes are used.
      capacity: maximum number of solutions, 0 or more.
      dtype: a floating dtype. Rounding the weights of a solution changes the angle to
        it: in bfloat16 by about 2e-3 radians.

    Returns:
      Zeros [capacity ...] for prunable leaves, None for others.

    Raises:
      ValueError: if the capacity is negative or the dtype is not floating.

    Deviations:
      The precision in which the paper stores solutions is unknown; `dtype=jnp.float32`
      avoids the rounding.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype: expected a floating dtype, got {jnp.dtype(dtype)}")
    return masks_lib.tree_map(
        lambda mask: jnp.zeros((capacity, *mask.shape), dtype), masks
    )


@arguments.check(slot=arguments.integer())
def store(stored: PyTree, params: Params, slot: ArrayLike) -> PyTree:
    """Writes a solution to a slot of the buffer, replacing the previous one.

    Args:
      stored: buffer that `allocate` returned.
      params: the solution, masked or dense. Leaves without an entry in `stored` are
        ignored.
      slot: index from 0. If it is traced and out of range, nothing is written.

    Returns:
      The buffer with this solution, cast to the buffer's dtype.

    Raises:
      ValueError: if a leaf is missing or has another shape, or if the slot is out of
        range.
    """
    given = tree.named_leaves(params)
    number = jnp.asarray(slot, jnp.int32)

    def write(name: str, leaf: Any) -> Array:
        _check_leaf(given, name, leaf.shape[1:], field="params")
        _check_number(slot, 0, leaf.shape[0] - 1, field="slot")
        if not leaf.shape[0]:
            return leaf
        solution = jnp.asarray(given[name]).astype(leaf.dtype)
        # A scatter would also work, but on CPUs XLA converts all solutions to float32
        # for it.
        return lax.cond(
            (number >= 0) & (number < leaf.shape[0]),
            lambda: lax.dynamic_update_index_in_dim(leaf, solution, number, 0),
            lambda: leaf,
        )

    return tree.map_with_names(write, stored)


@jax.custom_jvp
def _mean_square_cosine(
    weights: Leaves, masks: Leaves, stored: Leaves, count: Array | None
) -> Float[Array, ""]:
    """Averages the squared cosine over the first `count` solutions."""
    return _value_and_gradient(weights, masks, stored, count)[0]


@_mean_square_cosine.defjvp
def _jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Differentiates in closed form, treating the solutions as constants."""
    value, gradient = _value_and_gradient(*primals)
    return value, _product(gradient, _cast(tangents[0], value.dtype))


def _value_and_gradient(
    weights: Leaves, masks: Leaves, stored: Leaves, count: Array | None
) -> tuple[Array, Leaves]:
    r"""Computes the mean squared cosine and its gradient in one loop over solutions.

    With unit vectors :math:`u` of the weights and :math:`v_r` of the solutions, and
    :math:`c_r = u v_r`, the gradient is
    :math:`2 / (s \|\theta\|) \, (\sum_r c_r v_r - u \sum_r c_r^2)`.
    """
    wide = jnp.result_type(jnp.float32, *weights)
    small, size, scale = _scaled(_within(masks, _cast(weights, wide)))
    unit = [leaf / size for leaf in small]

    def add(slot: Array, sums: tuple[Array, Leaves]) -> tuple[Array, Leaves]:
        # The barrier keeps XLA on CPUs from converting all solutions to float32 before
        # the loop.
        here, at = lax.optimization_barrier((stored, slot))
        taken = [lax.dynamic_index_in_dim(leaf, at, keepdims=False) for leaf in here]
        other, length, _ = _scaled(_within(masks, _cast(taken, wide)))
        cosine = _product(unit, other) / length
        total, along = sums
        along = [a + cosine / length * v for a, v in zip(along, other, strict=True)]
        return total + cosine**2, along

    number = stored[0].shape[0] if count is None else count
    zeros = (jnp.zeros((), wide), [jnp.zeros_like(leaf) for leaf in unit])
    total, along = lax.fori_loop(0, number, add, zeros)
    # Without a valid solution both sums are 0, so any divisor gives 0.
    some = jnp.maximum(number, 1).astype(wide)
    share = 2 / some / (size * scale)
    gradient = [share * (a - total * u) for a, u in zip(along, unit, strict=True)]
    valid = [mask & (number > 0) for mask in masks]
    return total / some, _within(valid, gradient)


def _cast(leaves: Leaves, dtype: Any) -> Leaves:
    return [leaf.astype(dtype) for leaf in leaves]


def _within(masks: Leaves, leaves: Leaves) -> Leaves:
    """Sets elements outside the masks to zero, whether finite or not."""
    return [
        jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))
        for mask, leaf in zip(masks, leaves, strict=True)
    ]


def _product(first: Leaves, second: Leaves) -> Float[Array, ""]:
    """Computes the inner product of two vectors given as lists of leaves."""
    return sum(jnp.sum(a * b) for a, b in zip(first, second, strict=True))


def _scaled(leaves: Leaves) -> tuple[Leaves, Array, Array]:
    """Divides a vector by its largest absolute element.

    The squares of the result neither overflow nor underflow to a zero sum.

    Args:
      leaves: the vector, as a list of arrays.

    Returns:
      The scaled vector, its norm and the divisor. Both numbers are 1 for a vector of
      zeros, so that it can be divided by them.
    """
    largest = jnp.stack([jnp.max(jnp.abs(leaf), initial=0.0) for leaf in leaves])
    scale = _or_one(jnp.max(largest))
    small = [leaf / scale for leaf in leaves]
    return small, _or_one(jnp.sqrt(_product(small, small))), scale


def _or_one(value: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(value == 0, jnp.ones_like(value), value)


def _matched(
    params: Params, masks: Masks, stored: PyTree
) -> tuple[Leaves, Leaves, Leaves]:
    """Lists weights, masks and solutions of the prunable leaves in the same order.

    Raises:
      ValueError: if no leaf is prunable, or if a leaf is missing, has another shape or
        is not floating.
    """
    weights, solutions = tree.named_leaves(params), tree.named_leaves(stored)
    kept = tree.named_leaves(masks)
    if not kept:
        raise ValueError("masks: expected at least one prunable leaf, got none")
    first = next(iter(kept))
    lead = solutions[first].shape[:1] if first in solutions else ()
    for name, mask in kept.items():
        _check_leaf(weights, name, mask.shape, field="params")
        _check_leaf(solutions, name, (*lead, *mask.shape), field="stored")
    return (
        [jnp.asarray(weights[name]) for name in kept],
        list(kept.values()),
        [jnp.asarray(solutions[name]) for name in kept],
    )


def _check_leaf(
    leaves: dict[str, Any], name: str, shape: tuple[int, ...], *, field: str
) -> None:
    """Raises ValueError if a leaf is missing, has another shape or is not floating."""
    if name not in leaves:
        raise ValueError(
            f"{field}: expected every leaf that has a mask, got no {name!r}, only "
            f"{list(leaves)}; are the masks of the same network?"
        )
    found = leaves[name]
    floats = jnp.issubdtype(found.dtype, jnp.floating)
    if found.shape != shape or not floats:
        raise ValueError(
            f"{field}: expected floats of shape {list(shape)} for {name!r}, got "
            f"{found.dtype}{list(found.shape)}; are the masks of the same network?"
        )


def _check_number(value: Any, least: int, most: int, *, field: str) -> None:
    """Raises ValueError if a number is out of range; traced numbers are not checked."""
    if value is None or isinstance(value, jax.core.Tracer):
        return
    if not least <= int(value) <= most:
        raise ValueError(
            f"{field}: expected a number from {least} to {most}, got {value}; allocate "
            "room for more solutions"
        )
