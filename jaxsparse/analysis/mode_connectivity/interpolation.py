"""Linear interpolation between two solutions."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from jaxsparse import rng, tree

# Quotients of integers make 0 and 1 exact, which repeated addition would not.
EVCI_ALPHAS = tuple(i / 20 for i in range(-4, 25))
UNIT_ALPHAS = tuple(i / 29 for i in range(30))
Alphas = Sequence[float | int] | Float[np.ndarray, "a"]


def interpolate(start: PyTree, end: PyTree, alpha: ArrayLike) -> PyTree:
    r"""Computes :math:`(1 - \alpha) \, s + \alpha \, e` for each leaf.

    At 0 and 1 the result is exactly the start and the end where both are finite.
    Computed in float32 or wider, then rounded to the dtype of the leaf.

    Args:
      start: any pytree of arrays, :math:`s`.
      end: pytree with the same structure, shapes and dtypes, :math:`e`.
      alpha: position on the line, any real number; outside [0, 1] it extrapolates.

    Returns:
      A tree like `start`. Leaves that are not floating, such as counters, are those of
      `start`.

    Raises:
      ValueError: if the trees differ in names, shapes or dtypes, or in the values of a
        leaf that is not floating. Values cannot be compared under `jit`, where
        different ones are accepted.

    Examples:
      >>> interpolate({"w": jnp.array([0.0, 4.0])}, {"w": jnp.array([2.0, 4.0])}, 0.25)
      {'w': Array([0.5, 4. ], dtype=float32)}
    """
    end = tree.match_structure(end, start, fields=("end", "start"), same_leaves=True)

    def point(name: str, a: Any, b: Any) -> Any:
        a, b = jnp.asarray(a), jnp.asarray(b)
        if a.dtype != b.dtype:
            raise ValueError(
                f"end: {name}: expected dtype {a.dtype}, as in start, got {b.dtype}; "
                "cast one of them"
            )
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            _check_equal(name, a, b)
            return a
        # In bfloat16, `alpha` itself would be rounded to 8 significant bits.
        wide = jnp.promote_types(a.dtype, jnp.float32)
        weight = jnp.asarray(alpha, wide)
        return ((1 - weight) * a.astype(wide) + weight * b.astype(wide)).astype(a.dtype)

    return tree.map_with_names(point, start, end)


def _check_equal(name: str, a: Array, b: Array) -> None:
    """Raises ValueError if two concrete leaves that are not floating differ."""
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return
    dtype = a.dtype
    if rng.is_key(a):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    if not np.array_equal(np.asarray(a), np.asarray(b)):
        raise ValueError(
            f"end: {name}: expected the values of start, since {dtype} cannot be "
            "interpolated, got others; remove the leaf from both trees"
        )


def check_alphas(alphas: Alphas) -> Float[np.ndarray, "a"]:
    """Validates positions on the line and rounds them so that 0 and 1 are exact.

    Args:
      alphas: positions on the line, [a].

    Returns:
      The positions in float64, rounded to 12 decimals.

    Raises:
      ValueError: if there are no positions, or one is not finite.
    """
    positions = np.round(np.asarray(alphas, np.float64), 12)
    if positions.ndim != 1 or not positions.size or not np.all(np.isfinite(positions)):
        raise ValueError(f"alphas: expected one or more finite numbers, got {alphas}")
    return positions
