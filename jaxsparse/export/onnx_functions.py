"""Rules for elementwise functions that ONNX has under no name of its own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsparse.export.onnx_graph import Graph, Value

# Adds the nodes of an equation to a graph, given the values of its inputs.
Rule = Callable[[Graph, Any, list[Value]], Value]


def _typed(number: int | float, eqn: Any) -> np.ndarray:
    """Makes a scalar of the dtype of an equation's first operand."""
    return np.asarray(number, eqn.invars[0].aval.dtype)


def _is_finite(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    infinite, undefined = (graph.add(kind, *values) for kind in ("IsInf", "IsNaN"))
    return graph.add("Not", graph.add("Or", infinite, undefined))


def _expm1(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    """Computes tanh(x / 2) (exp(x) + 1), which is precise for small x."""
    half = graph.add("Tanh", graph.add("Mul", values[0], _typed(0.5, eqn)))
    more = graph.add("Add", graph.add("Exp", values[0]), _typed(1, eqn))
    return graph.add("Mul", half, more)


RULES: dict[str, Rule] = {
    "ne": lambda graph, eqn, values: graph.add("Not", graph.add("Equal", *values)),
    "is_finite": _is_finite,
    "expm1": _expm1,
    "clamp": lambda graph, eqn, values: graph.add(
        "Min", graph.add("Max", values[1], values[0]), values[2]
    ),
    "erfc": lambda graph, eqn, values: graph.add(
        "Sub", _typed(1, eqn), graph.add("Erf", values[0])
    ),
    "rsqrt": lambda graph, eqn, values: graph.add(
        "Reciprocal", graph.add("Sqrt", values[0])
    ),
    "square": lambda graph, eqn, values: graph.add("Mul", values[0], values[0]),
    "integer_pow": lambda graph, eqn, values: graph.add(
        "Pow", values[0], _typed(eqn.params["y"], eqn)
    ),
    "log1p": lambda graph, eqn, values: graph.add(
        "Log", graph.add("Add", values[0], _typed(1, eqn))
    ),
}
