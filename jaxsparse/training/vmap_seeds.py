"""Maps a function over replicates, in one of three ways.

A function of one replicate becomes a function of all. The ways differ in speed and in
the last bits of results, not in meaning:

- "vmap" batches every operation. A small network leaves an accelerator mostly idle, so
  many replicates take about the time of one.
- "map" runs one replicate after the other in a loop inside the program. On CPUs a
  batched matrix product is slower than separate ones, and each replicate gets the same
  bits as if trained alone.
- "unroll" repeats the operations for each replicate without a loop, which takes longer
  to compile. On CPUs JAX's gradients of convolutions are slow inside loops, and slower
  still batched.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

How = Literal["vmap", "map", "unroll"]


def over_replicates(
    fn: Callable[..., Any],
    *,
    how: How,
    replicates: int,
    in_axes: tuple[Any, ...],
    out_axes: Any,
    axis: str | None = None,
) -> Callable[..., Any]:
    """Maps a function over the leading replicate axis.

    Args:
      fn: function of one replicate.
      how: "vmap" batches the replicates, "map" loops over them, "unroll" repeats the
        operations for each. A single replicate is never batched, because the additional
        axis would cost time.
      replicates: length of the axis.
      in_axes: for each argument 0 or None, or a tree of them as in `jax.vmap`.
      out_axes: 0 or None for the result, or a tree of them as in `jax.vmap`. A result
        with None must not depend on the replicate.
      axis: for "vmap", the mesh axis over which sharding constraints inside `fn` split
        the replicates; None leaves it to the compiler.

    Returns:
      A function of all replicates.
    """
    if how == "vmap" and replicates > 1:
        return jax.vmap(fn, in_axes=in_axes, out_axes=out_axes, spmd_axis_name=axis)

    def one(number: Any, args: tuple[Any, ...]) -> Any:
        return fn(*_where_batched(lambda leaf: leaf[number], in_axes, args))

    def every(*args: Any) -> Any:
        # No loop around a single replicate either; the axis is added to the results.
        if replicates == 1:
            return _where_batched(lambda leaf: leaf[None], out_axes, one(0, args))
        # `unroll=True` unrolls the loop completely.
        _, results = jax.lax.scan(
            lambda _, number: (None, one(number, args)),
            None,
            jnp.arange(replicates, dtype=jnp.int32),
            unroll=how == "unroll",
        )
        # Results without an axis are equal for all replicates; scan has stacked them.
        return _where_batched(
            lambda leaf: leaf, out_axes, results, otherwise=lambda leaf: leaf[0]
        )

    return every


def _where_batched(
    change: Callable[[Any], Any],
    axes: Any,
    tree: Any,
    *,
    otherwise: Callable[[Any], Any] = lambda leaf: leaf,
) -> Any:
    """Applies one function to leaves with a replicate axis and another to the rest.

    Args:
      change: function of a leaf with a replicate axis.
      axes: 0 or None for each subtree.
      tree: the arrays.
      otherwise: function of a leaf without a replicate axis; by default the identity.
    """
    return jax.tree.map(
        lambda axis, part: jax.tree.map(otherwise if axis is None else change, part),
        axes,
        tree,
        is_leaf=lambda axis: axis is None,
    )
