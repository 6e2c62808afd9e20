"""Mapping a function over replicates: one program, three ways to arrange it.

A function of one replicate becomes a function of all. What differs is speed and last
bits, not meaning:

- "vmap" batches every operation. Accelerators, which one small network leaves idle,
  do many in the time of one.
- "map" runs one replicate after the other in a loop inside the program. On CPUs a
  batched product is slower than as many plain ones, and each replicate comes out with
  the bits it has alone.
- "unroll" writes the replicates out one after the other, which takes longer to compile.
  CPUs run JAX's gradients of convolutions slowly inside loops, and more so batched.
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
    """Maps a function over the leading axis of replicates.

    Args:
      fn: function of one replicate.
      how: see above. A single replicate is never batched: it would pay for the axis.
      replicates: length of the axis.
      in_axes: for each argument 0 or None, or a tree of them as `jax.vmap` takes.
      out_axes: likewise for the result. What is None must not depend on the replicate.
      axis: of the mesh, over which the compiler is to divide replicates wherever `fn`
        says how something is divided; for "vmap".

    Returns:
      A function of all replicates.
    """
    if how == "vmap" and replicates > 1:
        return jax.vmap(fn, in_axes=in_axes, out_axes=out_axes, spmd_axis_name=axis)

    def one(number: Any, args: tuple[Any, ...]) -> Any:
        return fn(*_where_batched(lambda leaf: leaf[number], in_axes, args))

    def every(*args: Any) -> Any:
        if replicates == 1:
            return _where_batched(lambda leaf: leaf[None], out_axes, one(0, args))
        _, results = jax.lax.scan(
            lambda _, number: (None, one(number, args)),
            None,
            jnp.arange(replicates, dtype=jnp.int32),
            unroll=how == "unroll",
        )
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
    """Changes the leaves that lead with replicates, and the others otherwise."""
    return jax.tree.map(
        lambda axis, part: jax.tree.map(otherwise if axis is None else change, part),
        axes,
        tree,
        is_leaf=lambda axis: axis is None,
    )
