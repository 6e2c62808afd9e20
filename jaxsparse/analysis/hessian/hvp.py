"""Hessian-vector products of a loss, without building the Hessian.

The loss is the mean over examples. It is computed in microbatches, so that memory is
that of one microbatch; a smaller last one is weighted by its size.
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
    """Examples divided into microbatches.

    Attributes:
      full: a tree of arrays [number, batch_size, ...].
      remainder: a tree of arrays [fewer than batch_size, ...] with the remaining
        examples; None if there are none.
    """

    full: Any
    remainder: Any


@arguments.check(batch_size=arguments.optional(arguments.integer(1)))
def microbatches(batches: PyTree, batch_size: int | None = None) -> Microbatches:
    """Divides examples into microbatches of one size, and a smaller last one.

    Args:
      batches: a tree whose leaves all begin with the axis of examples.
      batch_size: examples per microbatch, 1 or more; None for one microbatch.

    Returns:
      All examples, in order.

    Raises:
      ValueError: if the leaves do not begin with one axis of 1 or more examples, or
        `batch_size` is less than 1.
    """
    count = tree.leading_axis(batches, field="batches")
    length = min(batch_size or count, count)
    end = count - count % length
    batches = jax.tree.map(jnp.asarray, batches)
    full = jax.tree.map(lambda x: x[:end].reshape(-1, length, *x.shape[1:]), batches)
    return Microbatches(
        full, jax.tree.map(lambda x: x[end:], batches) if end < count else None
    )


def count(data: Microbatches) -> int:
    """Returns the number of examples in all microbatches.

    Args:
      data: microbatches of examples.
    """
    number, length = jax.tree.leaves(data.full)[0].shape[:2]
    remainder = jax.tree.leaves(data.remainder)
    return number * length + (remainder[0].shape[0] if remainder else 0)


def mean(fn: Callable[[Any], Array], data: Microbatches) -> Float[Array, "..."]:
    """Averages an array over all examples, given its mean over each microbatch.

    Args:
      fn: called with the examples of a microbatch; returns the mean over them.
      data: the examples.

    Returns:
      The mean over all examples, in float32 or wider.
    """
    number, length = jax.tree.leaves(data.full)[0].shape[:2]
    share = length / count(data)
    first = jax.tree.map(lambda x: x[0], data.full)
    template = jax.eval_shape(fn, first)
    wide = jnp.promote_types(template.dtype, jnp.float32)

    def add(total: Array, block: Any) -> tuple[Array, None]:
        return total + share * fn(block).astype(wide), None

    total = jnp.zeros(template.shape, wide)
    # One microbatch needs no loop; on CPUs, XLA runs convolutions in loops slowly.
    if number == 1:
        total, _ = add(total, first)
    else:
        total, _ = lax.scan(add, total, data.full)
    if data.remainder is None:
        return total
    return total + (1 - number * share) * fn(data.remainder).astype(wide)


def hvp(
    loss: Loss,
    space: param_subspace.Subspace,
    batches: PyTree,
    vector: Float[Array, "n"],
    *,
    batch_size: int | None = None,
) -> Float[Array, "n"]:
    r"""Multiplies a vector by the Hessian of a loss in a subspace.

    For the mean loss :math:`L` over the examples this is
    :math:`\nabla^2 L(\theta) \, v` in the coordinates of the subspace: the derivative
    of the gradient in the direction :math:`v` (forward-mode over reverse-mode
    differentiation).

    Args:
      loss: called as `loss(params, batch)`; returns the mean over the batch of a twice
        differentiable function of each example. Include weight decay only to
        include its curvature.
      space: coordinates and the point at which to differentiate, from
        `param_subspace.make`.
      batches: examples, a tree whose leaves all begin with the axis of examples.
      vector: vector to multiply, [n] with n coordinates.
      batch_size: examples per microbatch, 1 or more; None for all examples at once.

    Returns:
      The product, [n], in the dtype of `vector`.

    Raises:
      ValueError: if the leaves of `batches` do not begin with one axis of 1 or more
        examples, or `batch_size` is less than 1.

    Examples:
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> space = param_subspace.make(params, {"w": jnp.array([True, False])})
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
    """Creates the Hessian-vector product as a function of the vector alone.

    Args:
      loss: called as `loss(params, batch)`; returns the mean over the batch of a twice
        differentiable function of each example.
      space: coordinates and the point at which to differentiate, from
        `param_subspace.make`.
      batches: examples, a tree whose leaves all begin with the axis of examples.
      batch_size: examples per microbatch, 1 or more; None for all examples at once.

    Returns:
      A function that maps a vector [n] to the product [n]. It is also a pytree, so that
      it can be an argument under `jit` without its data becoming constants of the
      program.

    Raises:
      ValueError: if the leaves of `batches` do not begin with one axis of 1 or more
        examples, or `batch_size` is less than 1.
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

    def product_of_batch(batch: Any) -> Float[Array, "n"]:
        def gradient(at: Float[Array, "n"]) -> Float[Array, "n"]:
            return jax.grad(lambda x: loss(param_subspace.unflatten(space, x), batch))(
                at
            )

        return jax.jvp(gradient, (point,), (vector.astype(point.dtype),))[1]

    return mean(product_of_batch, data).astype(vector.dtype)
