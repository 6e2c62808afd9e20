"""Networks in the format ONNX, converted from the trace of their forward pass.

The converter is the package's own: of jax2onnx, which converts many more operations,
version 0.17 cannot be installed beside Orbax 0.12, version 0.13 cannot be imported with
JAX 0.12, and both convert max pooling with padding wrongly, as in the stem of a ResNet.
Every file is therefore compared with JAX before it is written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from jaxsparse import arguments, extras, metrics_log
from jaxsparse import masks as masks_lib
from jaxsparse.export import onnx_rules
from jaxsparse.export.onnx_graph import OPSET, Graph, Tensor
from jaxsparse.types import Masks

TOLERANCE = 1e-4  # of the largest output: sums are in other orders


@arguments.check(
    path=arguments.path,
    apply=arguments.function,
    params=arguments.weights,
    masks=arguments.optional(arguments.masks),
)
def onnx(
    path: str | Path,
    apply: Callable[..., Any],
    params: Any,
    *inputs: Any,
    masks: Masks | None = None,
    dynamic_batch: bool = True,
) -> int:
    """Writes a network to an ONNX file, after comparing ONNX Runtime with JAX.

    Weights and all that is computed from weights alone become constants of the file, so
    BatchNorm in inference mode is a scale and a shift. Sparse weights are stored with
    their zeros. Inputs are named input_0, input_1, ... and outputs output_0, ..., in
    the order of JAX's trees; images keep JAX's order of axes, [b, h, w, c].

    Args:
      path: file to write, usually ending in .onnx.
      apply: called as `apply(params, *inputs)`, in inference mode and in float32;
        returns any tree of arrays. For a linen module,
        `lambda variables, x: model.apply(variables, x, train=False)`.
      params: concrete parameters; any tree that `apply` takes, such as all variables of
        a network.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`, whose first axis is the
        batch.
      masks: masks of leaves of `params`; weights outside them are written as zeros.
        None or missing where a leaf has no mask.
      dynamic_batch: whether the file works for any batch size; otherwise for that of
        `inputs` only.

    Returns:
      The size of the file in bytes.

    Raises:
      ModuleNotFoundError: if the packages onnx and onnxruntime are not installed.
      ValueError: if `apply` uses an operation without a rule (the message names it), or
        if ONNX Runtime computes something else than JAX.
      OSError: if the file cannot be written.

    Examples:
      >>> apply = lambda p, x: jax.nn.relu(x @ p["kernel"] + p["bias"])
      >>> weights = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros((1, 4))}
      >>> onnx("net.onnx", apply, weights, jnp.ones((1, 3))) > 0
      True
    """
    extras.require("onnx", "onnxruntime", purpose="ONNX files", extra="export")
    if masks is not None:
        params = masks_lib.apply(masks, params)
    model = _convert(apply, params, inputs, dynamic_batch=dynamic_batch)
    content = model.SerializeToString()
    for batch in (None, 3) if dynamic_batch else (None,):
        _compare(content, apply, params, inputs, batch)
    metrics_log.write_atomically(Path(path), content)
    return len(content)


def _convert(
    apply: Callable[..., Any], params: Any, inputs: Any, *, dynamic_batch: bool
) -> Any:
    """Converts a traced forward pass to a model of ONNX."""
    import onnx as onnx_lib
    from onnx import helper

    leaves, treedef = jax.tree.flatten(inputs)
    batch = jax_export.symbolic_shape("batch")[0] if dynamic_batch else None
    shapes = [
        jax.ShapeDtypeStruct(
            (batch, *x.shape[1:]) if dynamic_batch else x.shape, x.dtype
        )
        for x in leaves
    ]
    traced = jax.make_jaxpr(apply)(params, *jax.tree.unflatten(treedef, shapes))
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    names = [f"input_{i}" for i in range(len(leaves))]
    graph = Graph(batch, names[0])
    given = [*weights, *map(Tensor, names)]
    found = onnx_rules.run(graph, traced.jaxpr, traced.consts, given)

    def info(name: str, aval: Any) -> Any:
        sizes = [s if isinstance(s, int) else str(s) for s in aval.shape]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
        return helper.make_tensor_value_info(name, kind, sizes)

    outputs = []
    for i, (value, aval) in enumerate(zip(found, traced.out_avals, strict=True)):
        outputs.append(info(f"output_{i}", aval))
        source = graph.name_of(value)
        graph.nodes.append(helper.make_node("Identity", [source], [f"output_{i}"]))
    made = helper.make_graph(
        graph.nodes,
        "jaxsparse",
        [info(name, shape) for name, shape in zip(names, shapes, strict=True)],
        outputs,
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9  # of this opset; newer ones are refused by older runtimes
    onnx_lib.checker.check_model(model)
    return model


def _compare(
    content: bytes, apply: Callable[..., Any], params: Any, inputs: Any, batch: Any
) -> None:
    """Checks that ONNX Runtime computes what JAX does, on random inputs.

    Args:
      content: the file.
      apply: the forward pass.
      params: its parameters.
      inputs: example inputs.
      batch: batch size to use; None for that of the example.

    Raises:
      ValueError: if an output differs.
    """
    import onnxruntime

    leaves, treedef = jax.tree.flatten(inputs)
    generator = np.random.default_rng(0)

    def draw(leaf: Any) -> np.ndarray:
        shape = leaf.shape if batch is None else (batch, *leaf.shape[1:])
        return generator.normal(size=shape).astype(leaf.dtype)

    drawn = [draw(leaf) for leaf in leaves]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )
    theirs = session.run(None, {f"input_{i}": x for i, x in enumerate(drawn)})
    with jax.default_matmul_precision("highest"):
        ours = apply(
            params, *jax.tree.unflatten(treedef, map(jax.numpy.asarray, drawn))
        )
    for i, (a, b) in enumerate(zip(theirs, jax.tree.leaves(ours), strict=True)):
        expected = np.asarray(b)
        error = np.abs(a - expected).max(initial=0)
        largest = np.abs(expected).max(initial=0)
        if a.shape != expected.shape or not error <= TOLERANCE * max(largest, 1e-6):
            raise ValueError(
                f"output_{i}: expected from ONNX Runtime what JAX computes, up to "
                f"{TOLERANCE} of the largest output {largest:.3g}, got an error of "
                f"{error:.3g}; please report this network"
            )
