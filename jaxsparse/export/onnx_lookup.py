"""Lookups along one axis, such as the embeddings of tokens, in ONNX."""

from typing import Any

import jax
import numpy as np

from jaxsparse.export.onnx_graph import Graph, Value, integers


def gather(graph: Graph, eqn: Any, values: list[Value]) -> Value:
    """Adds a lookup of whole slices along one axis, as `jnp.take` computes.

    Indices outside the axis are an error of ONNX Runtime, where JAX returns NaN.

    Args:
      graph: the graph.
      eqn: the equation, of the primitive "gather".
      values: the array, and the indices, whose last axis has size 1.

    Returns:
      The slices.

    Raises:
      ValueError: if the lookup is along several axes, of parts of slices, or clipped to
        a number of examples that is not known.
    """
    p, (operand, indices) = eqn.params, (atom.aval for atom in eqn.invars)
    numbers, mapped = p["dimension_numbers"], p["dimension_numbers"].start_index_map
    axis = mapped[0] if len(mapped) == 1 else -1
    whole = [i for i in range(operand.ndim) if i != axis]
    # In the result, the axes of the indices, without the last, replace the axis.
    after = [i if i < axis else i + indices.ndim - 2 for i in whole]
    if (
        tuple(numbers.collapsed_slice_dims) != (axis,)
        or numbers.operand_batching_dims
        or tuple(numbers.offset_dims) != tuple(after)
        or any(p["slice_sizes"][i] != operand.shape[i] for i in whole)
    ):
        raise ValueError(
            f"apply: expected a lookup of whole slices along one axis, got {numbers}; "
            "use `jnp.take`, or export for one batch size (dynamic_batch=False), with "
            "which indexing by constants becomes slicing"
        )
    shape = graph.shape(indices.shape[:-1], infer=True)
    places = graph.cast(graph.add("Reshape", values[1], shape), np.int64)
    if p["mode"] == jax.lax.GatherScatterMode.CLIP:
        last = integers([operand.shape[axis] - 1]).reshape(())
        places = graph.add("Max", places, np.array(0))
        places = graph.add("Min", places, last)
    return graph.add("Gather", values[0], places, axis=axis)
