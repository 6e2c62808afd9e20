"""A forward function as one flat list of equations.

Calls of other programs (`jit`, custom gradients, `remat`) are replaced by their
equations. So are loops of known length (`scan`), once for each iteration, and branches
(`cond`) whose index is known. Values are numbered, so that analyses keep them in lists.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from jaxsparse import tree
from jaxsparse.connectivity.jaxpr_rules import BODIES, CALLS

# Loops are replaced up to this number of equations of a program; beyond it, a loop is
# an equation that no analysis follows.
MOST_EQUATIONS = 20_000


class Equation(NamedTuple):
    """One operation of a program.

    Attributes:
      name: name of the JAX primitive.
      primitive: the primitive.
      params: its parameters.
      inputs: numbers of the operands.
      outputs: numbers of the results.
    """

    name: str
    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Program(NamedTuple):
    """A forward function.

    Attributes:
      equations: the operations, in the order in which they run.
      avals: shape and dtype of each value, by number.
      constants: arrays that are neither parameters nor inputs, by number.
      leaves: numbers of the parameters, by name of the leaf, in the order of the tree.
      inputs: numbers of the leaves of the inputs.
      outputs: numbers of the leaves of the outputs.
    """

    equations: list[Equation]
    avals: list[Any]
    constants: dict[int, Any]
    leaves: dict[str, int]
    inputs: list[int]
    outputs: list[int]


def trace(apply: Callable[..., Any], params: Any, *inputs: Any) -> Program:
    """Traces a forward function.

    Args:
      apply: called as `apply(params, *inputs)`.
      params: parameters or their shapes; any tree.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      The program; nothing is evaluated.

    Raises:
      ValueError: if two leaves of `params` have the same name.
    """
    names = tree.names(params)
    traced = jax.make_jaxpr(apply)(params, *inputs)
    program = Program([], [], {}, {}, [], [])
    numbers = [_new(program, aval) for aval in traced.in_avals]
    program.leaves.update(zip(names, numbers, strict=False))
    program.inputs.extend(numbers[len(names) :])
    program.outputs.extend(_inline(program, traced.jaxpr, traced.consts, numbers))
    return program


def readers(program: Program) -> dict[int, list[Equation]]:
    """Lists the equations that read each value.

    Args:
      program: the program.
    """
    found: dict[int, list[Equation]] = {}
    for eqn in program.equations:
        for number in eqn.inputs:
            found.setdefault(number, []).append(eqn)
    return found


def given_values(program: Program, inputs: Any) -> dict[int, Any]:
    """Returns the values of a program that it neither computes nor has as parameters.

    Args:
      program: the program.
      inputs: a tree with the leaves of all inputs, such as the tuple of them.

    Returns:
      Constants and leaves of the inputs, by number.
    """
    values = {n: jnp.asarray(value) for n, value in program.constants.items()}
    return values | dict(zip(program.inputs, jax.tree.leaves(inputs), strict=True))


def compute(eqn: Equation, given: Sequence[Any]) -> list[Any]:
    """Computes an equation.

    Args:
      eqn: the equation.
      given: its operands.

    Returns:
      Its results.
    """
    found = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(eqn.params))
    return list(found) if eqn.primitive.multiple_results else [found]


def _new(program: Program, aval: Any) -> int:
    """Numbers a new value."""
    program.avals.append(aval)
    return len(program.avals) - 1


def _constant(program: Program, value: Any, aval: Any) -> int:
    """Numbers a constant."""
    number = _new(program, aval)
    program.constants[number] = value
    return number


def _inline(
    program: Program, jaxpr: Any, consts: Sequence[Any], numbers: Sequence[int]
) -> list[int]:
    """Appends the equations of a jaxpr.

    Args:
      program: the program to append to.
      jaxpr: what to append.
      consts: arrays of its constants.
      numbers: numbers of its arguments.

    Returns:
      Numbers of its outputs.
    """
    known = {
        var: _constant(program, value, var.aval)
        for var, value in zip(jaxpr.constvars, consts, strict=True)
    }
    known |= dict(zip(jaxpr.invars, numbers, strict=True))

    def read(atom: Any) -> int:
        if isinstance(atom, core.Literal):
            return _constant(program, atom.val, atom.aval)
        return known[atom]

    for eqn in jaxpr.eqns:
        results = _step(program, eqn, [read(atom) for atom in eqn.invars])
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(program: Program, eqn: Any, numbers: list[int]) -> list[int]:
    """Appends one equation, or what it calls; returns the numbers of its results."""
    name = eqn.primitive.name
    if name in CALLS:
        return _inline_closed(program, _body(eqn), numbers)
    if name == "scan" and _is_short(program, eqn):
        return _unroll(program, eqn, numbers)
    if name == "cond" and numbers[0] in program.constants:
        branches = eqn.params["branches"]
        index = int(np.clip(program.constants[numbers[0]], 0, len(branches) - 1))
        return _inline_closed(program, branches[index], numbers[1:])
    results = tuple(_new(program, var.aval) for var in eqn.outvars)
    program.equations.append(
        Equation(name, eqn.primitive, dict(eqn.params), tuple(numbers), results)
    )
    return list(results)


def _body(eqn: Any) -> Any:
    return next(eqn.params[key] for key in BODIES if key in eqn.params)


def _inline_closed(program: Program, body: Any, numbers: Sequence[int]) -> list[int]:
    """Appends the equations of a jaxpr with or without its constants."""
    jaxpr = getattr(body, "jaxpr", body)
    return _inline(program, jaxpr, list(getattr(body, "consts", ())), numbers)


def _is_short(program: Program, eqn: Any) -> bool:
    """Says whether a loop may be replaced by its iterations."""
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    size = eqn.params["length"] * (_size(body) + 1)
    return size + len(program.equations) <= MOST_EQUATIONS


def _size(jaxpr: Any) -> int:
    """Counts the equations of a jaxpr after replacing calls and loops."""
    total = 0
    for eqn in jaxpr.eqns:
        body = next((eqn.params[key] for key in BODIES if key in eqn.params), None)
        inner = 0 if body is None else _size(getattr(body, "jaxpr", body))
        total += 1 + inner * eqn.params.get("length", 1)
    return total


def _unroll(program: Program, eqn: Any, numbers: list[int]) -> list[int]:
    """Appends the iterations of a loop one after the other."""
    params, length = eqn.params, eqn.params["length"]
    num_consts, num_carry = scan_parts(eqn)
    consts, rest = numbers[:num_consts], numbers[num_consts:]
    carry, stacked = rest[:num_carry], rest[num_carry:]
    order = range(length)[::-1] if params["reverse"] else range(length)
    rows: dict[int, list[int]] = {}
    for i in order:
        slices = [_row(program, number, i) for number in stacked]
        results = _inline_closed(program, params["jaxpr"], [*consts, *carry, *slices])
        carry, rows[i] = results[:num_carry], results[num_carry:]
    avals = [var.aval for var in eqn.outvars[num_carry:]]
    columns = [[rows[i][j] for i in range(length)] for j in range(len(avals))]
    return carry + [
        _stack(program, column, aval)
        for column, aval in zip(columns, avals, strict=True)
    ]


def scan_parts(eqn: Any) -> tuple[int, int]:
    """Counts the constants and the carried values of a loop.

    JAX versions differ in the parameters that count them. What is stacked has one axis
    more than in the body.

    Args:
      eqn: an equation of a jaxpr, of the primitive `scan`.
    """
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    stacked, carried = (
        [
            outer.aval.ndim != inner.aval.ndim
            for outer, inner in zip(outside, inside, strict=True)
        ]
        for outside, inside in (
            (eqn.invars, body.invars),
            (eqn.outvars, body.outvars),
        )
    )
    num_carry = carried.count(False)
    return stacked.count(False) - num_carry, num_carry


def _row(program: Program, number: int, i: int) -> int:
    """Appends the equations for one index of the first axis of a value."""

    def row(x: Any) -> Any:
        return lax.squeeze(lax.slice_in_dim(x, i, i + 1), (0,))

    return _append(program, row, [number])


def _stack(program: Program, numbers: list[int], aval: Any) -> int:
    """Appends the equations that stack values along a new first axis."""
    if not numbers:  # a loop without iterations
        return _append(program, lambda: lax.full(aval.shape, 0, aval.dtype), [])
    return _append(
        program,
        lambda *rows: lax.concatenate([lax.expand_dims(x, (0,)) for x in rows], 0),
        numbers,
    )


def _append(program: Program, fn: Callable[..., Any], numbers: list[int]) -> int:
    """Appends the equations of a function of values with one result."""
    shapes = [
        jax.ShapeDtypeStruct(program.avals[n].shape, program.avals[n].dtype)
        for n in numbers
    ]
    traced = jax.make_jaxpr(fn)(*shapes)
    (result,) = _inline(program, traced.jaxpr, traced.consts, numbers)
    return result
