"""The layers of a program: products of a signal with a weight that is known."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse.coupling.program import Equation, Program
from jaxsparse.predict import geometry
from jaxsparse.predict.geometry import Geometry


class Layer(NamedTuple):
    """A matrix product or convolution with a known weight.

    Attributes:
      name: the largest leaf that the weight is computed from.
      equation: its equation.
      signal: number of the value that is multiplied.
      weight: number of the weight.
      geometry: how signal and weight are one matrix product.
      matrix: the weight, [out, in], float32.
    """

    name: str
    equation: Equation
    signal: int
    weight: int
    geometry: Geometry
    matrix: np.ndarray


class Folded(NamedTuple):
    """A program whose values without inputs are computed.

    Attributes:
      program: the program; its equations all depend on an input.
      constants: all values that they read and that depend on no input, by number.
      layers: the layers, by number of their result.
    """

    program: Program
    constants: dict[int, Any]
    layers: dict[int, Layer]


def evaluate(eqn: Equation, *given: Any) -> list[Any]:
    """Computes an equation with JAX; may be traced.

    Args:
      eqn: the equation.
      *given: its operands.
    """
    results = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


def fold(program: Program, params: Any) -> Folded:
    """Computes what depends on no input, and finds the layers.

    Args:
      program: the program.
      params: its concrete parameters.
    """
    leaves = dict(zip(program.leaves.values(), jax.tree.leaves(params), strict=True))
    sources: dict[int, set[str]] = {number: set() for number in program.constants}
    sources |= {number: {name} for name, number in program.leaves.items()}
    fixed, rest = [], []
    for eqn in program.equations:
        if all(number in sources for number in eqn.inputs):
            joined = set().union(*(sources[number] for number in eqn.inputs))
            sources |= dict.fromkeys(eqn.outputs, joined)
            fixed.append(eqn)
        else:
            rest.append(eqn)
    rest = _needed(rest, program.outputs)
    read = {number for eqn in rest for number in eqn.inputs} | set(program.outputs)
    known = {n: _typed(v, program.avals[n]) for n, v in program.constants.items()}
    wanted = sorted((read & set(sources)) - set(known) - set(leaves))
    if wanted:
        fixed = _needed(fixed, wanted)

        def compute(leaves: dict[int, Any]) -> list[Any]:
            values = known | leaves
            for eqn in fixed:
                results = evaluate(eqn, *(values[number] for number in eqn.inputs))
                values.update(zip(eqn.outputs, results, strict=True))
            return [values[number] for number in wanted]

        known.update(zip(wanted, jax.jit(compute)(leaves), strict=True))
    known |= leaves
    constants = {number: known[number] for number in sorted(read & set(known))}
    folded = Folded(program._replace(equations=rest), constants, {})
    sizes = {n: program.avals[number].size for n, number in program.leaves.items()}
    for eqn in rest:
        layer = _layer(folded, eqn)
        if layer is not None:
            name = max(sources[layer.weight], key=lambda leaf: sizes[leaf])
            folded.layers[eqn.outputs[0]] = layer._replace(name=name)
    return folded


def names_of(folded: Folded) -> dict[int, str]:
    """Names the layers by their weights; a weight that is read again has a number.

    Args:
      folded: the program.
    """
    names, seen = {}, {}
    for number, layer in folded.layers.items():
        seen[layer.name] = count = seen.get(layer.name, 0) + 1
        names[number] = layer.name if count == 1 else f"{layer.name} ({count})"
    return names


def _typed(value: Any, aval: Any) -> Any:
    """Gives a Python number the dtype that it has in the program."""
    return value if hasattr(value, "dtype") else np.asarray(value, aval.dtype)


def _needed(equations: Sequence[Equation], outputs: Sequence[int]) -> list[Equation]:
    """Leaves out the equations that no output depends on."""
    needed, kept = set(outputs), []
    for eqn in reversed(equations):
        if needed.intersection(eqn.outputs):
            needed.update(eqn.inputs)
            kept.append(eqn)
    return kept[::-1]


def _layer(folded: Folded, eqn: Equation) -> Layer | None:
    """Describes an equation as a layer; None if it is none."""
    if eqn.name not in ("dot_general", "conv_general_dilated"):
        return None
    weights = [i for i in (0, 1) if eqn.inputs[i] in folded.constants]
    avals = [folded.program.avals[n] for n in (*eqn.inputs, eqn.outputs[0])]
    if len(weights) != 1 or any(aval.dtype != np.float32 for aval in avals):
        return None
    (which,) = weights
    signal, number = eqn.inputs[1 - which], eqn.inputs[which]
    weight = np.asarray(folded.constants[number])
    shape = avals[1 - which].shape
    if eqn.name == "dot_general":
        found = geometry.of_product(eqn.params, shape, weight, first=which == 0)
    elif which == 1:
        found = geometry.of_convolution(eqn.params, shape, weight, avals[2].shape)
    else:
        found = None
    return found and Layer("", eqn, signal, number, *found)
