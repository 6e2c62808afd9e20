"""A graph of ONNX under construction, and the values that flow through it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import rng

# In this version reductions take their axes as an input; ONNX 1.13 introduced both.
OPSET, IR_VERSION = 18, 8


class Tensor(NamedTuple):
    """A value that is computed by the graph.

    Attributes:
      name: its name in the graph.
    """

    name: str


# Arrays are known when the graph is made; random keys are arrays of JAX.
Value = Tensor | np.ndarray | jax.Array


class Graph:
    """Nodes and constants of a graph, in the order in which they are added.

    Attributes:
      batch: the symbolic size of the batch; None if all shapes are known.
      source: name of an input whose first axis is the batch.
    """

    def __init__(self, batch: Any, source: str) -> None:
        """Makes an empty graph.

        Args:
          batch: the symbolic size of the batch; None if all shapes are known.
          source: name of an input whose first axis is the batch.
        """
        self.batch, self.source = batch, source
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def new_name(self, kind: str) -> str:
        """Returns a name that no other value has.

        Args:
          kind: what the value is, the beginning of its name.
        """
        self._count += 1
        return f"{kind}_{self._count}"

    def constant(self, array: Any) -> str:
        """Adds a constant, once for equal small arrays, and returns its name.

        Args:
          array: its value. The constant has the same dtype; shapes, axes and indices
            of slices must be int64.
        """
        from onnx import numpy_helper

        values = np.asarray(array)
        key = (values.dtype.str, values.shape, values.tobytes())
        if values.size <= 64 and key in self._names:
            return self._names[key]
        name = self.new_name("constant")
        self.constants.append(
            numpy_helper.from_array(
                np.ascontiguousarray(values).reshape(values.shape), name
            )
        )
        if values.size <= 64:
            self._names[key] = name
        return name

    def name_of(self, value: Value) -> str:
        """Returns the name of a value; known arrays become constants.

        Args:
          value: a tensor or an array.
        """
        return value.name if isinstance(value, Tensor) else self.constant(value)

    def add(self, kind: str, *inputs: Value, **attributes: Any) -> Tensor:
        """Adds a node with one output.

        Args:
          kind: the operator.
          *inputs: its inputs.
          **attributes: its attributes.

        Returns:
          Its output.
        """
        from onnx import helper

        name = self.new_name(kind.lower())
        names = [self.name_of(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return Tensor(name)

    def cast(self, value: Value, dtype: Any) -> Tensor:
        """Adds a conversion to another dtype.

        Args:
          value: what is converted.
          dtype: the dtype of the result.
        """
        from onnx import helper

        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", value, to=to)

    def shape(self, sizes: Sequence[Any], *, infer: bool) -> Value:
        """Makes the shape operand of a node.

        Args:
          sizes: sizes of the axes, integers or symbolic.
          infer: whether the operator computes the size marked by -1 itself.

        Raises:
          ValueError: if a size is computed from the batch in a way that has no rule.
        """
        symbolic = [size for size in sizes if not _is_integer(size)]
        if not symbolic:
            return np.array(sizes, np.int64)
        if infer and len(symbolic) == 1:
            known = [size if _is_integer(size) else -1 for size in sizes]
            return np.array(known, np.int64)
        if any(size != self.batch for size in symbolic):
            _refuse(sizes)
        whole = self.add("Shape", Tensor(self.source))
        batch = self.add("Slice", whole, np.array([0]), np.array([1]))
        parts: list[Value] = [
            np.array([size], np.int64) if _is_integer(size) else batch for size in sizes
        ]
        return self.add("Concat", *parts, axis=0)


def integers(values: Sequence[Any]) -> np.ndarray:
    """Makes the operand of a node that is known, such as the places of a slice.

    Args:
      values: integers, none of them computed from a symbolic size.

    Returns:
      An array of int64.

    Raises:
      ValueError: if a value is computed from the size of the batch.
    """
    if not all(map(_is_integer, values)):
        _refuse(values)
    return np.array(values, np.int64)


def _is_integer(size: Any) -> bool:
    return isinstance(size, int | np.integer)


def _refuse(sizes: Sequence[Any]) -> NoReturn:
    raise ValueError(
        "apply: expected shapes in which the batch is an axis of its own, got "
        f"{tuple(sizes)}; export for one batch size, dynamic_batch=False"
    )


def to_numpy(array: Any) -> Any:
    """Returns an array of NumPy; random keys, which NumPy lacks, stay as they are.

    Args:
      array: an array.
    """
    return array if rng.is_key(array) else np.asarray(array)


def evaluate(eqn: Any, operands: Sequence[Value]) -> list[Value]:
    """Computes an equation of a program whose operands are known.

    Args:
      eqn: the equation.
      operands: their values; random keys are arrays of JAX.
    """
    results = eqn.primitive.bind(*map(jnp.asarray, operands), **eqn.params)
    results = results if eqn.primitive.multiple_results else [results]
    return [to_numpy(result) for result in results]
