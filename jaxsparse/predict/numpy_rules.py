"""Small operations of JAX in NumPy.

Starting a program of XLA takes about twenty microseconds, in which NumPy computes a few
operations on a thousand numbers. Operations that are absent here run in XLA.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from jaxsparse.coupling.program import Equation

# Results of more numbers are computed faster by XLA.
MOST_NUMBERS = 1 << 15

Rule = Callable[..., list[Any]]


def _broadcast(x: Any, *, shape: Any, broadcast_dimensions: Any, **_: Any) -> Any:
    sizes = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, np.shape(x), strict=True):
        sizes[axis] = size
    return np.broadcast_to(np.reshape(x, sizes), shape)


def _reshape(x: Any, *, new_sizes: Any, **_: Any) -> Any:
    return np.reshape(x, new_sizes)


def _slice(x: Any, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    steps = strides or [1] * np.ndim(x)
    ranges = zip(start_indices, limit_indices, steps, strict=True)
    return x[tuple(slice(*each) for each in ranges)]


def _select(which: Any, *cases: Any) -> Any:
    return np.where(which, cases[1], cases[0])


def _reduced(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axes, **_: fn(x, axis=tuple(axes))


def _plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values, **_: fn(*values)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": _plain(np.add),
    "sub": _plain(np.subtract),
    "mul": _plain(np.multiply),
    "max": _plain(np.maximum),
    "min": _plain(np.minimum),
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "exp": _plain(np.exp),
    "log": _plain(np.log),
    "sqrt": _plain(np.sqrt),
    "square": _plain(np.square),
    "tanh": _plain(np.tanh),
    "erf": _plain(scipy.special.erf),
    "erfc": _plain(scipy.special.erfc),
    "logistic": _plain(scipy.special.expit),
    "stop_gradient": _plain(lambda x: x),
    "copy": _plain(lambda x: x),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "slice": _slice,
    "transpose": lambda x, *, permutation: np.transpose(x, permutation),
    "squeeze": lambda x, *, dimensions: np.squeeze(x, tuple(dimensions)),
    "concatenate": lambda *parts, dimension: np.concatenate(parts, dimension),
    "select_n": _plain(_select),
    "reduce_sum": _reduced(np.sum),
    "reduce_max": _reduced(np.max),
    "reduce_min": _reduced(np.min),
}


def rule(eqn: Equation, avals: Sequence[Any]) -> Rule | None:
    """Returns the function of NumPy that computes an equation.

    Args:
      eqn: the equation.
      avals: shape and dtype of each value, by number.

    Returns:
      A function of the operands that returns a list; None for operations without a
      rule, for other dtypes than float32, and for results of more than `MOST_NUMBERS`.
    """
    operation = OPERATIONS.get(eqn.name)
    kinds = {np.dtype(avals[n].dtype) for n in eqn.inputs} if operation else set()
    if eqn.name == "select_n":
        kinds.discard(np.dtype(bool))
    if any(avals[number].size > MOST_NUMBERS for number in eqn.outputs):
        return None
    if operation is None or kinds != {np.dtype(np.float32)}:
        return None
    if eqn.name in ("reduce_sum", "reshape") and _is_special(eqn):
        return None
    params = eqn.params
    return lambda *values: [operation(*values, **params)]


def _is_special(eqn: Equation) -> bool:
    """Says whether an equation has a parameter that no rule understands."""
    return eqn.params.get("dimensions") is not None
