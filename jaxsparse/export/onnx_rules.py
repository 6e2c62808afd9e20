"""One rule for each JAX primitive, which adds nodes of ONNX to a graph."""

from typing import Any

import numpy as np
from jax.extend import core

from jaxsparse.connectivity.jaxpr_rules import BODIES
from jaxsparse.export import onnx_functions, onnx_lookup
from jaxsparse.export.onnx_functions import Rule
from jaxsparse.export.onnx_graph import (
    Graph,
    Tensor,
    Value,
    evaluate,
    integers,
    to_numpy,
)

# Primitives whose ONNX operator takes the same operands.
SAME = {
    "abs": "Abs", "add": "Add", "add_any": "Add", "and": "And", "ceil": "Ceil",
    "cos": "Cos", "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual",
    "log": "Log", "logistic": "Sigmoid", "lt": "Less", "max": "Max", "min": "Min",
    "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "pow": "Pow", "sign": "Sign",
    "sin": "Sin", "sqrt": "Sqrt", "sub": "Sub", "tan": "Tan", "tanh": "Tanh",
    "xor": "Xor",
}  # fmt: skip
PASSES = ("stop_gradient", "copy", "optimization_barrier", "name")
REDUCES = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"}
REDUCES |= {"reduce_min": "ReduceMin"}


def run(
    graph: Graph, jaxpr: core.Jaxpr, consts: list[Any], inputs: list[Value]
) -> list[Value]:
    """Adds a program to a graph. What is known is computed and becomes constants.

    Args:
      graph: the graph.
      jaxpr: the program.
      consts: arrays of its constants.
      inputs: values of its arguments.

    Returns:
      The values of its outputs.

    Raises:
      ValueError: if a primitive has no rule; the message names it.
    """
    known: dict[Any, Value] = dict(
        zip(jaxpr.constvars, map(to_numpy, consts), strict=True)
    )
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return (
            np.asarray(atom.val, atom.aval.dtype)
            if isinstance(atom, core.Literal)
            else known[atom]
        )

    for eqn in jaxpr.eqns:
        results = _step(graph, eqn, [read(atom) for atom in eqn.invars])
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    """Adds one equation."""
    name, shapes = eqn.primitive.name, [atom.aval.shape for atom in eqn.outvars]
    body = next((eqn.params[key] for key in BODIES if key in eqn.params), None)
    if body is not None and name not in ("scan", "while"):
        consts = list(getattr(body, "consts", ()))
        return run(graph, getattr(body, "jaxpr", body), consts, values)
    fixed = all(isinstance(size, int) for shape in shapes for size in shape)
    if fixed and not any(isinstance(value, Tensor) for value in values):
        return evaluate(eqn, values)
    if name in PASSES:
        return values
    if name == "split":
        return _split(graph, eqn, values)
    if name in SAME:
        return [_same(graph, eqn, values)]
    if name not in RULES:
        raise ValueError(
            "apply: expected layers, elementwise functions, reductions and pooling, "
            f"got the primitive {name!r}, which has no rule for ONNX; write it in "
            "another form in `apply`, end `apply` before it, or export for one batch "
            "size (dynamic_batch=False), with which indexing becomes slicing"
        )
    return [RULES[name](graph, eqn, values)]


def _same(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    name, dtype = eqn.primitive.name, eqn.invars[0].aval.dtype
    # ONNX Runtime has Relu for few integers.
    is_relu = name == "max" and np.issubdtype(dtype, np.floating)
    if is_relu and _is_zero(values[1]):
        return graph.add("Relu", values[0])
    if is_relu and _is_zero(values[0]):
        return graph.add("Relu", values[1])
    # The operators of these names are for booleans only.
    is_bitwise = name in ("and", "or", "not", "xor") and dtype != np.bool
    return graph.add("Bitwise" * is_bitwise + SAME[name], *values)


def _is_zero(value: Value) -> bool:
    return isinstance(value, np.ndarray) and not value.shape and not value.any()


def _dot(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    """Contracts as a matrix product or, with other axes, by Einsum."""
    (lefts, rights), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left, right = (atom.aval for atom in eqn.invars)
    plain = (lefts, rights) == ((left.ndim - 1,), (0,)) and right.ndim == 2
    if plain and not left_batch:
        return graph.add("MatMul", *values)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first = [next(letters) for _ in left.shape]
    second = [next(letters) for _ in right.shape]
    for i, j in zip((*left_batch, *lefts), (*right_batch, *rights), strict=True):
        second[j] = first[i]
    out = [first[i] for i in left_batch]
    out += [c for i, c in enumerate(first) if i not in (*left_batch, *lefts)]
    out += [c for j, c in enumerate(second) if j not in (*right_batch, *rights)]
    equation = f"{''.join(first)},{''.join(second)}->{''.join(out)}"
    return graph.add("Einsum", *values, equation=equation)


def _transpose(graph: Graph, value: Value, order: tuple[int, ...]) -> Value:
    if order == tuple(range(len(order))):
        return value
    if isinstance(value, np.ndarray):
        return value.transpose(order)
    return graph.add("Transpose", value, perm=list(order))


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(order))


def _conv(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    """Convolves with channels first, as ONNX does."""
    p = eqn.params
    if set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1:
        raise ValueError(
            "apply: expected convolutions that are not transposed, got lhs_dilation "
            f"{p['lhs_dilation']}; end `apply` before it"
        )
    numbers = p["dimension_numbers"]
    image, kernel = (
        _transpose(graph, value, tuple(spec))
        for value, spec in zip(
            values, (numbers.lhs_spec, numbers.rhs_spec), strict=True
        )
    )
    found = graph.add(
        "Conv",
        image,
        kernel,
        strides=list(p["window_strides"]),
        pads=[a for a, _ in p["padding"]] + [b for _, b in p["padding"]],
        dilations=list(p["rhs_dilation"]),
        group=p["feature_group_count"],
    )
    return _transpose(graph, found, _inverse(tuple(numbers.out_spec)))


def _pool(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    """Pools over the axes of the window, which are moved last."""
    p, rank = eqn.params, eqn.invars[0].aval.ndim
    plain = [
        size == stride == 1 and not any(pads)
        for size, stride, pads in zip(
            *(p[key] for key in ("window_dimensions", "window_strides", "padding")),
            strict=True,
        )
    ]
    others = [i for i in range(rank) if plain[i]][:2]
    window = [i for i in range(rank) if i not in others]
    dilated = {*p["base_dilation"], *p["window_dilation"]} != {1}
    if dilated or len(others) < 2:
        raise ValueError(
            "apply: expected pooling over all axes but two (batch and channels), got "
            f"windows {p['window_dimensions']}; end `apply` before it"
        )
    order = (*others, *window)
    shared = {
        "kernel_shape": integers([p["window_dimensions"][i] for i in window]).tolist(),
        "strides": [p["window_strides"][i] for i in window],
        "pads": [p["padding"][i][0] for i in window]
        + [p["padding"][i][1] for i in window],
    }
    x = _transpose(graph, values[0], order)
    if eqn.primitive.name == "reduce_window_max":
        found = graph.add("MaxPool", x, **shared)
    else:
        found = graph.add("AveragePool", x, count_include_pad=1, **shared)
        count = np.asarray(np.prod(shared["kernel_shape"]), eqn.outvars[0].aval.dtype)
        found = graph.add("Mul", found, count)
    return _transpose(graph, found, _inverse(order))


def _reduce(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    axes = np.array(eqn.params["axes"], np.int64)
    return graph.add(REDUCES[eqn.primitive.name], values[0], axes, keepdims=0)


def _argmax(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    (axis,) = eqn.params["axes"]
    found = graph.add("ArgMax", values[0], axis=axis, keepdims=0)
    return graph.cast(found, eqn.params["index_dtype"])


def _reshape(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    return graph.add(
        "Reshape", values[0], graph.shape(eqn.outvars[0].aval.shape, infer=True)
    )


def _broadcast(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    """Inserts axes of one, and expands them unless that changes nothing."""
    given, shape = eqn.invars[0].aval.shape, eqn.params["shape"]
    places = eqn.params["broadcast_dimensions"]
    ones = [1] * len(shape)
    for size, place in zip(given, places, strict=True):
        ones[place] = size
    value = values[0]
    if len(given) != len(shape):
        value = graph.add("Reshape", value, graph.shape(ones, infer=True))
    same = all(a is b or a == b for a, b in zip(ones, shape, strict=True))
    return (
        value if same else graph.add("Expand", value, graph.shape(shape, infer=False))
    )


def _pad(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    edges = eqn.params["padding_config"]
    if any(inside for _, _, inside in edges):
        raise ValueError(
            f"apply: expected padding at the edges, got {edges}, which pads between "
            "entries; end `apply` before it"
        )
    pads = [low for low, _, _ in edges] + [high for _, high, _ in edges]
    return graph.add("Pad", values[0], integers(pads), values[1])


def _slice(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    p, value = eqn.params, values[0]
    strides = p["strides"] or (1,) * len(p["start_indices"])
    shape = eqn.invars[0].aval.shape
    rows = zip(p["start_indices"], p["limit_indices"], strides, shape, strict=True)
    cut = [
        (i, start, stop, stride)
        for i, (start, stop, stride, size) in enumerate(rows)
        if (start, stride) != (0, 1) or not (stop is size or stop == size)
    ]
    if not cut:
        return value
    axes, starts, stops, steps = map(integers, zip(*cut, strict=True))
    return graph.add("Slice", value, starts, stops, axes, steps)


def _stack(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    axis = eqn.params["axis"]
    places = np.array([axis], np.int64)
    parts = [graph.add("Unsqueeze", value, places) for value in values]
    return graph.add("Concat", *parts, axis=axis)


def _split(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    axis, found, start = eqn.params["axis"], [], 0
    for size in eqn.params["sizes"]:
        places = map(integers, ([start], [start + size], [axis]))
        found.append(graph.add("Slice", values[0], *places))
        start += size
    return found


def _cast(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    if eqn.invars[0].aval.dtype == eqn.params["new_dtype"]:
        return values[0]
    return graph.cast(values[0], eqn.params["new_dtype"])


def _select(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    condition, *cases = values
    if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
        raise ValueError(
            "apply: expected a choice between two cases by a boolean, got "
            f"{len(cases)} cases; write it as `jnp.where`"
        )
    return graph.add("Where", condition, cases[1], cases[0])


RULES: dict[str, Rule] = {
    **onnx_functions.RULES,
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "reduce_window_max": _pool,
    "reduce_window_sum": _pool,
    **dict.fromkeys(REDUCES, _reduce),
    "argmax": _argmax,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": lambda graph, eqn, values: _transpose(
        graph, values[0], tuple(eqn.params["permutation"])
    ),
    "pad": _pad,
    "slice": _slice,
    "concatenate": lambda graph, eqn, values: graph.add(
        "Concat", *values, axis=eqn.params["dimension"]
    ),
    "convert_element_type": _cast,
    "select_n": _select,
    "stack": _stack,
    "gather": onnx_lookup.gather,
}
