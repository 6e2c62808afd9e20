"""Products of a vector with the Hessian of a loss, without the Hessian.

The loss is the mean over examples. It is taken block of examples by block, so that
memory is that of one block, and a last block that is smaller counts by its size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from jaxsparse import arguments, tree
from jaxsparse.analysis.hessian import param_subspace

Loss = Callable[[Any, Any], Float[Array, ""]]
Product = Callable[[Float[Array, "n"]], Float[Array, "n"]]


class Microbatches(NamedTuple):
    """Examples in blocks.

    Attributes:
      whole: a tree of arrays [blocks, size, ...].
      rest: the same of what is left over, [fewer than size, ...], or None.
    """

    whole: Any
    rest: Any


@arguments.check(batch_size=arguments.optional(arguments.integer(1)))
def microbatches(batches: PyTree, batch_size: int | None = None) -> Microbatches:
    """Divides examples into blocks of one size, and a smaller last one.

    Args:
      batches: a tree whose leaves all begin with the axis of examples.
      batch_size: examples of a block, 1 or more; None for all in one.

    Returns:
      All examples in order.

    Raises:
      ValueError: if the leaves do not begin with one axis of 1 or more, or for a size
        below 1.
    """
    count = tree.leading_axis(batches, field="batches")
    length = min(batch_size or count, count)
    end = count - count % length
    batches = jax.tree.map(jnp.asarray, batches)
    whole = jax.tree.map(lambda x: x[:end].reshape(-1, length, *x.shape[1:]), batches)
    return Microbatches(
        whole, jax.tree.map(lambda x: x[end:], batches) if end < count else None
    )


def count(data: Microbatches) -> int:
    """Counts the examples in blocks."""
    number, length = jax.tree.leaves(data.whole)[0].shape[:2]
    rest = jax.tree.leaves(data.rest)
    return number * length + (rest[0].shape[0] if rest else 0)


def mean(fn: Callable[[Any], Array], data: Microbatches) -> Float[Array, "..."]:
    """Averages an array over examples, given its average over each block.

    Args:
      fn: called with a block of examples; returns the mean over them.
      data: the examples.

    Returns:
      The mean over all examples, in float32 or wider.
    """
    number, length = jax.tree.leaves(data.whole)[0].shape[:2]
    share = length / count(data)
    first = jax.tree.map(lambda x: x[0], data.whole)
    like = jax.eval_shape(fn, first)
    wide = jnp.promote_types(like.dtype, jnp.float32)

    def add(total: Array, block: Any) -> tuple[Array, None]:
        return total + share * fn(block).astype(wide), None

    total = jnp.zeros(like.shape, wide)
    if number == 1:
        total, _ = add(total, first)
    else:
        total, _ = lax.scan(add, total, data.whole)
    if data.rest is None:
        return total
    return total + (1 - number * share) * fn(data.rest).astype(wide)


def hvp(
    loss: Loss,
    space: param_subspace.Subspace,
    batches: PyTree,
    vector: Float[Array, "n"],
    *,
    batch_size: int | None = None,
) -> Float[Array, "n"]:
    r"""Multiplies a vector by the Hessian of a loss in a subspace.

    With the mean loss :math:`L` over the examples this is
    :math:`\nabla^2 L(\theta) \, v` in the coordinates of the subspace: the derivative
    of the gradient along :math:`v` (forward over reverse).

    Args:
      loss: called as `loss(params, batch)`; the mean over the batch of something of
        each example alone, twice differentiable. Do not add weight decay unless its
        curvature is wanted too.
      space: coordinates and point, see `subspace.make`.
      batches: a tree whose leaves all begin with the axis of examples.
      vector: what to multiply.
      batch_size: examples to take at once; None for all.

    Returns:
      The product, in the type of `vector`.

    Raises:
      ValueError: as `blocks`.

    Examples:
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> space = subspace.make(params, {"w": jnp.array([True, False])})
      >>> loss = lambda params, x: jnp.mean(x * jnp.sum(params["w"] ** 2))
      >>> hvp(loss, space, jnp.array([1.0, 2.0, 6.0]), jnp.ones(1), batch_size=2)
      Array([6.], dtype=float32)
    """
    return operator(loss, space, batches, batch_size=batch_size)(vector)


@arguments.check(
    loss=arguments.function, space=arguments.instance(param_subspace.Subspace)
)
def operator(
    loss: Loss,
    space: param_subspace.Subspace,
    batches: PyTree,
    *,
    batch_size: int | None = None,
) -> Product:
    """Makes the product with the Hessian a function of the vector alone.

    Args:
      loss: as in `hvp`.
      space: as in `hvp`.
      batches: as in `hvp`.
      batch_size: as in `hvp`.

    Returns:
      A function that is also a tree of arrays, so that it can be an argument under
      `jit` without the data becoming a constant of the program.

    Raises:
      ValueError: as `blocks`.
    """
    data = microbatches(batches, batch_size)
    return jax.tree_util.Partial(_product, jax.tree_util.Partial(loss), space, data)


@jax.jit
def _product(
    loss: Loss,
    space: param_subspace.Subspace,
    data: Microbatches,
    vector: Float[Array, "n"],
) -> Float[Array, "n"]:
    point = param_subspace.flatten(space, space.params)

    def along(batch: Any) -> Float[Array, "n"]:
        def gradient(at: Float[Array, "n"]) -> Float[Array, "n"]:
            return jax.grad(lambda x: loss(param_subspace.unflatten(space, x), batch))(
                at
            )

        return jax.jvp(gradient, (point,), (vector.astype(point.dtype),))[1]

    return mean(along, data).astype(vector.dtype)
