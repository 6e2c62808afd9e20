"""Operations that only move entries: from which entry each entry of a result comes."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxsparse.coupling.program import Equation, Program

Sources = Int[np.ndarray, "..."]

# Functions of single entries that return the entry itself, up to its dtype.
COPIES = (
    *("copy", "stop_gradient", "name"),
    *("reduce_precision", "sharding_constraint", "device_put", "optimization_barrier"),
)
# The first operands of these are data, the others indices.
INDEXED = {"dynamic_slice": 1, "dynamic_update_slice": 2, "gather": 1}


def sources(
    eqn: Equation, program: Program, values: dict[int, np.ndarray]
) -> list[Sources] | None:
    """Finds where the entries of the results come from.

    Args:
      eqn: the equation.
      program: its program.
      values: values of the operands that are known and the same for all inputs, by
        number; used for indices.

    Returns:
      For each result an int array of its shape: positions in the operands, flattened
      and one after the other. None if the equation does not only move entries, or by
      indices that are not known.
    """
    rule = MOVES.get(eqn.name)
    if rule is None:
        return None
    count = len(eqn.inputs)
    if eqn.name in INDEXED:
        count = INDEXED[eqn.name]
    places, total = [], 0
    for number in eqn.inputs[:count]:
        shape = program.avals[number].shape
        size = int(np.prod(shape))
        places.append(np.arange(total, total + size).reshape(shape))
        total += size
    indices = [values.get(number) for number in eqn.inputs[count:]]
    if any(index is None for index in indices):
        return None
    return rule(eqn, places, indices)


Rule = Callable[[Equation, list[Sources], list[Any]], list[Sources] | None]


def _copies(eqn: Equation, places: list, indices: list) -> list:
    del eqn, indices
    return places


def _convert(eqn: Equation, places: list, indices: list) -> list | None:
    """Copies what becomes a floating number; other casts round, wrap or compare."""
    del indices
    is_float = jnp.issubdtype(eqn.params["new_dtype"], jnp.floating)
    return places if is_float else None


def _broadcast(eqn: Equation, places: list, indices: list) -> list:
    del indices
    shape = [1] * len(eqn.params["shape"])
    for i, to in enumerate(eqn.params["broadcast_dimensions"]):
        shape[to] = places[0].shape[i]
    return [np.broadcast_to(places[0].reshape(shape), eqn.params["shape"])]


def _reshape(eqn: Equation, places: list, indices: list) -> list | None:
    del indices
    if eqn.params.get("dimensions") is not None:
        return None
    return [places[0].reshape(eqn.params["new_sizes"])]


def _squeeze(eqn: Equation, places: list, indices: list) -> list:
    del indices
    return [places[0].squeeze(tuple(eqn.params["dimensions"]))]


def _transpose(eqn: Equation, places: list, indices: list) -> list:
    del indices
    return [places[0].transpose(eqn.params["permutation"])]


def _reverse(eqn: Equation, places: list, indices: list) -> list:
    del indices
    return [np.flip(places[0], eqn.params["dimensions"])]


def _slice(eqn: Equation, places: list, indices: list) -> list:
    del indices
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(starts)
    return [places[0][tuple(map(slice, starts, limits, strides))]]


def _split(eqn: Equation, places: list, indices: list) -> list:
    del indices
    ends = np.cumsum(eqn.params["sizes"])[:-1]
    return np.split(places[0], ends, eqn.params["axis"])


def _concatenate(eqn: Equation, places: list, indices: list) -> list:
    del indices
    return [np.concatenate(places, eqn.params["dimension"])]


def _stack(eqn: Equation, places: list, indices: list) -> list:
    del indices
    return [np.stack(places, eqn.params["axis"])]


def _unstack(eqn: Equation, places: list, indices: list) -> list:
    del indices
    axis = eqn.params["axis"]
    return [places[0].take(i, axis) for i in range(places[0].shape[axis])]


def _tile(eqn: Equation, places: list, indices: list) -> list:
    del indices
    return [np.tile(places[0], eqn.params["reps"])]


def _pad(eqn: Equation, places: list, indices: list) -> list:
    del indices
    found, fill = places
    for i, (low, high, interior) in enumerate(eqn.params["padding_config"]):
        n = found.shape[i]
        spread = list(found.shape)
        spread[i] = max(n + (n - 1) * interior, 0)
        wide = np.full(spread, int(fill))
        at = [slice(None)] * found.ndim
        at[i] = slice(None, None, interior + 1)
        wide[tuple(at)] = found
        at[i] = slice(max(-low, 0), spread[i] - max(-high, 0))
        sides = [(0, 0)] * found.ndim
        sides[i] = (max(low, 0), max(high, 0))
        found = np.pad(wide[tuple(at)], sides, constant_values=int(fill))
    return [found]


def _window(shape: Any, size: Any, starts: list) -> tuple[slice, ...]:
    """Returns the window of a dynamic slice, which never leaves the array."""
    first = [
        int(np.clip(int(start), 0, n - length))
        for start, n, length in zip(starts, shape, size, strict=True)
    ]
    return tuple(slice(f, f + length) for f, length in zip(first, size, strict=True))


def _dynamic_slice(eqn: Equation, places: list, indices: list) -> list:
    sizes = eqn.params["slice_sizes"]
    return [places[0][_window(places[0].shape, sizes, indices)]]


def _dynamic_update_slice(eqn: Equation, places: list, indices: list) -> list:
    result = places[0].copy()
    result[_window(result.shape, places[1].shape, indices)] = places[1]
    return [result]


def _gather(eqn: Equation, places: list, indices: list) -> list | None:
    """Gathers positions; None if an index may be out of bounds."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    if getattr(numbers, "operand_batching_dims", ()):
        return None
    shape = places[0].shape
    limits = [shape[i] - sizes[i] for i in numbers.start_index_map]
    (index,) = indices
    if ((index < 0) | (index > np.array(limits))).any():
        return None
    params = eqn.params | ({"fill_value": 0} if "fill_value" in eqn.params else {})
    moved = eqn.primitive.bind(places[0].astype(np.int32), index, **params)
    return [np.asarray(moved).astype(np.int64)]


MOVES: dict[str, Rule] = dict.fromkeys(COPIES, _copies) | {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "convert_element_type": _convert,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
