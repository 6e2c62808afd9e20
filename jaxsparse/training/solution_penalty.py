r"""Repelling and attracting: a penalty on the angles to earlier solutions.

`penalty` is added to the loss of training. With a positive strength a network is driven
out of the directions in which earlier rounds of pruning ended, with a negative one
towards them. `allocate` and `store` keep the solutions in arrays of a fixed size, of
which a count says how much is filled, so that one compiled program serves all rounds:

    stored, count = repelling.allocate(masks, rounds), jnp.int32(0)
    for each round:
        train on loss(params) + repelling.penalty(
            params, masks, stored, strength=repelling.REPEL, count=count
        )
        stored, count = repelling.store(stored, params, count), count + 1

When rounds end and with what masks the next begins is up to the caller. A buffer for
one, always stored at 0, repels from the last solution only.
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

# Maene et al., for CIFAR-10: just strong enough to repel; and to attract.
REPEL = 2.0
ATTRACT = -1.0

Leaves = list[Any]


class PastSolutions(NamedTuple):
    """Solutions that a network is repelled from, or attracted to.

    Attributes:
      solutions: what `allocate` made and `store` filled.
      count: how many of them are valid.
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
    r"""Computes how well the weights align with stored solutions.

    With the weights :math:`\theta`, masks :math:`m`, solutions
    :math:`\theta_1, \dots, \theta_s` and the strength :math:`\lambda` it is

    .. math:: \frac{\lambda}{s} \sum_{r=1}^{s} \cos^2(m\theta, m\theta_r)

    with one angle for all layers together. A solution and its negative count alike.
    Solutions are widened one at a time, also for the gradient, which is in closed form:
    memory beyond the arguments is that of a few copies of the weights, for any number
    of solutions. Weights outside the masks have no influence, whatever they are.

    Args:
      params: the weights; masked or not makes no difference.
      masks: which weights exist now. Leaves that are not prunable take no part.
      stored: solutions by the names of the leaves, with an axis of solutions before
        the weights' own, [s ...]; of any floating dtype. May lack leaves that are not
        prunable. Constant: it has no gradient.
      strength: any number; above 0 repels, below attracts.
      count: how many solutions are valid, from the first on; None for all. Traced
        numbers are cut to [0, s]. The others are never read, and cost no time.

    Returns:
      The penalty in float32, or float64 for such weights; between 0 and the strength up
      to rounding. Exactly 0 and without a gradient if no solution is valid. Weights or
      solutions that are zero in the mask have no direction: they add 0 and no gradient.

    Raises:
      ValueError: if no leaf is prunable, a leaf is missing or of another shape, is not
        floating or holds another number of solutions; or for a count out of range.

    Examples:
      >>> params = {"w": jnp.array([[1.0, 0.0]])}
      >>> stored = {"w": jnp.array([[[3.0, 0.0]], [[0.0, 1.0]]])}
      >>> penalty(params, masks.dense(params), stored, strength=2.0)
      Array(1., dtype=float32)

    Deviations:
      Biases and normalisations are left out: the paper prunes weights only, and
      whether the rest counts as well is unknown. To count a leaf, give it a mask of
      ones here. Reverse mode over reverse mode needs `count=None`; forward over reverse
      works with any.

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
    """Makes room for solutions.

    Args:
      masks: masks of the network, of which only names and shapes are used.
      capacity: solutions to hold, 0 or more.
      dtype: a floating dtype. The angle to a solution is rounded with its weights: in
        bfloat16 by about 2e-3 radians.

    Returns:
      Zeros [capacity ...] at prunable leaves, None elsewhere.

    Raises:
      ValueError: if the capacity is negative or the dtype not floating.

    Deviations:
      In what precision the paper stores solutions is unknown; pass `dtype=jnp.float32`
      to round nothing.
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype: got {jnp.dtype(dtype)}; wanted a floating one")
    return masks_lib.tree_map(
        lambda mask: jnp.zeros((capacity, *mask.shape), dtype), masks
    )


@arguments.check(slot=arguments.integer())
def store(stored: PyTree, params: Params, slot: ArrayLike) -> PyTree:
    """Writes a solution over the one in a slot.

    Args:
      stored: what `allocate` returned.
      params: the solution, masked or not. Leaves without room in `stored` are left out.
      slot: where, from 0. If traced and out of range, nothing is written.

    Returns:
      The solutions with this one, cast to their dtype.

    Raises:
      ValueError: if a leaf is missing or of another shape, or the slot out of range.
    """
    given = tree.named_leaves(params)
    number = jnp.asarray(slot, jnp.int32)

    def write(name: str, leaf: Any) -> Array:
        _check_leaf(given, name, leaf.shape[1:], field="params")
        _check_number(slot, 0, leaf.shape[0] - 1, field="slot")
        if not leaf.shape[0]:
            return leaf
        solution = jnp.asarray(given[name]).astype(leaf.dtype)
        # A scatter would do, but widens all solutions on CPUs.
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
    """Takes the gradient in closed form, and the solutions for constants."""
    value, gradient = _value_and_gradient(*primals)
    return value, _product(gradient, _cast(tangents[0], value.dtype))


def _value_and_gradient(
    weights: Leaves, masks: Leaves, stored: Leaves, count: Array | None
) -> tuple[Array, Leaves]:
    r"""Sums squares of cosines, and what the gradient is made of, in one loop.

    With unit vectors :math:`u` of the weights and :math:`v_r` of the solutions and
    :math:`c_r = u v_r`, the gradient is
    :math:`2 / (s \|\theta\|) \, (\sum_r c_r v_r - u \sum_r c_r^2)`.
    """
    wide = jnp.result_type(jnp.float32, *weights)
    small, size, scale = _scaled(_within(masks, _cast(weights, wide)))
    unit = [leaf / size for leaf in small]

    def add(slot: Array, sums: tuple[Array, Leaves]) -> tuple[Array, Leaves]:
        # Or else XLA widens all solutions before the loop, on CPUs.
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
    some = jnp.maximum(number, 1).astype(wide)
    share = 2 / some / (size * scale)
    gradient = [share * (a - total * u) for a, u in zip(along, unit, strict=True)]
    valid = [mask & (number > 0) for mask in masks]
    return total / some, _within(valid, gradient)


def _cast(leaves: Leaves, dtype: Any) -> Leaves:
    return [leaf.astype(dtype) for leaf in leaves]


def _within(masks: Leaves, leaves: Leaves) -> Leaves:
    """Sets what is outside the masks to zero, finite or not."""
    return [
        jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))
        for mask, leaf in zip(masks, leaves, strict=True)
    ]


def _product(first: Leaves, second: Leaves) -> Float[Array, ""]:
    """Computes the inner product of two vectors given by leaves."""
    return sum(jnp.sum(a * b) for a, b in zip(first, second, strict=True))


def _scaled(leaves: Leaves) -> tuple[Leaves, Array, Array]:
    """Divides a vector by its largest element; returns it, its norm and the divisor.

    Squares of what is returned neither overflow nor vanish. Both numbers are 1 for a
    vector of zeros, so that it can be divided by them.
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
    """Lists weights, masks and solutions of the prunable leaves."""
    weights, solutions = tree.named_leaves(params), tree.named_leaves(stored)
    kept = tree.named_leaves(masks)
    if not kept:
        raise ValueError("masks: no leaf is prunable; wanted one mask at least")
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
    """Refuses a leaf that is missing, of another shape or not floating."""
    if name not in leaves:
        raise ValueError(
            f"{field}: {name} is missing among {list(leaves)}; wanted every leaf that "
            "has a mask; are they of one network?"
        )
    found = leaves[name]
    floats = jnp.issubdtype(found.dtype, jnp.floating)
    if found.shape != shape or not floats:
        raise ValueError(
            f"{field}: {name} is {found.dtype}{list(found.shape)}; wanted floats of "
            f"shape {list(shape)}; are they of one network?"
        )


def _check_number(value: Any, least: int, most: int, *, field: str) -> None:
    """Refuses a number out of range, where it can be seen."""
    if value is None or isinstance(value, jax.core.Tracer):
        return
    if not least <= int(value) <= most:
        raise ValueError(
            f"{field}: got {value}; wanted a number from {least} to {most}, as there "
            "is room for; allocate more"
        )
