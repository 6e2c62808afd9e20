"""The straight line through two solutions, and points on it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from jaxsparse import tree

# Written as quotients, both ends are exactly 0 and 1.
EVCI_ALPHAS = tuple(i / 20 for i in range(-4, 25))
UNIT_ALPHAS = tuple(i / 29 for i in range(30))
Alphas = Sequence[float | int] | Float[np.ndarray, "a"]


def interpolate(start: PyTree, end: PyTree, alpha: ArrayLike) -> PyTree:
    r"""Returns the point :math:`(1 - \alpha) \, s + \alpha \, e` of every leaf.

    At 0 and 1 that is the start and the end, exactly where both are finite. Computed
    in float32 at least, then rounded to the leaf's dtype.

    Args:
      start: any pytree of arrays.
      end: the same nesting, shapes and dtypes.
      alpha: any real number; beyond [0, 1] the line goes on.

    Returns:
      A tree like `start`. Leaves that are not floating, such as counters, are those of
      `start`.

    Raises:
      ValueError: if the trees differ in names, shapes or dtypes, or in the value of a
        leaf that is not floating. Under `jit` values cannot be seen, and pass.

    Examples:
      >>> interpolate({"w": jnp.array([0.0, 4.0])}, {"w": jnp.array([2.0, 4.0])}, 0.25)
      {'w': Array([0.5, 4. ], dtype=float32)}
    """
    end = tree.match_structure(end, start, fields=("end", "start"), same_leaves=True)

    def point(name: str, a: Any, b: Any) -> Any:
        a, b = jnp.asarray(a), jnp.asarray(b)
        if a.dtype != b.dtype:
            raise ValueError(
                f"end: {name} has dtype {b.dtype}; wanted {a.dtype}, as in start; cast "
                "one of them"
            )
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            _check_equal(name, a, b)
            return a
        wide = jnp.promote_types(a.dtype, jnp.float32)
        weight = jnp.asarray(alpha, wide)
        return ((1 - weight) * a.astype(wide) + weight * b.astype(wide)).astype(a.dtype)

    return tree.map_with_names(point, start, end)


def _check_equal(name: str, a: Array, b: Array) -> None:
    """Refuses leaves between which there is nothing, where they can be seen."""
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return
    dtype = a.dtype
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    if not np.array_equal(np.asarray(a), np.asarray(b)):
        raise ValueError(
            f"end: {name} is of {dtype} and differs from start; wanted equal values, "
            "as there are none in between; take the leaf out of both trees"
        )


def check_alphas(alphas: Alphas) -> Float[np.ndarray, "a"]:
    """Returns points in float64, rounded such that the ends are exactly 0 and 1.

    Args:
      alphas: points on the line.

    Returns:
      The points, rounded to 12 decimals.

    Raises:
      ValueError: if there are none, or not only finite numbers.
    """
    places = np.round(np.asarray(alphas, np.float64), 12)
    if places.ndim != 1 or not places.size or not np.all(np.isfinite(places)):
        raise ValueError(f"alphas: got {alphas}; wanted one or more finite numbers")
    return places
