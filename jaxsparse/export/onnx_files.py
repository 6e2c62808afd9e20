"""Networks in the format ONNX, converted from the trace of their forward pass.

The converter is the package's own: of jax2onnx, which converts many more operations,
version 0.17 cannot be installed beside Orbax 0.12, version 0.13 cannot be imported with
JAX 0.12, and both convert max pooling with padding wrongly, as in the stem of a ResNet.
Every file is therefore compared with JAX before it is written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from jaxsparse import arguments, extras, metrics_log, rng, tree
from jaxsparse.compaction import checks, compacted
from jaxsparse.export import onnx_rules
from jaxsparse.export.onnx_graph import (
    IR_VERSION,
    OPSET,
    Graph,
    Tensor,
    to_numpy,
)
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
    the order of JAX's trees; images keep JAX's order of axes, [b, h, w, c]. Image
    networks and language models can be converted. A token that is not in the vocabulary
    is an error in ONNX Runtime, where JAX returns NaN.

    The comparison is on random inputs: normal numbers, integers from the smallest to
    the largest of the given arrays (0 or 1 where only shapes are given), and random
    booleans.

    Args:
      path: file to write, usually ending in .onnx.
      apply: called as `apply(params, *inputs)`, in inference mode and in float32;
        returns any tree of arrays. For a linen module,
        `lambda variables, x: model.apply(variables, x, train=False)`.
      params: concrete parameters; any tree that `apply` takes, such as all variables of
        a network, or the state of an nnx module, which may contain random keys.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`, at least one array. Only
        shapes, dtypes and the ranges of integers are used: give an array of tokens that
        contains 0 and the largest token, so that the whole vocabulary is compared. With
        `dynamic_batch`, the first axis of each is the batch, of the same size. The file
        takes the dtypes in which JAX computes, which are float32 and int32 for 64 bits
        unless JAX is told otherwise (`jax_enable_x64`).
      masks: masks of leaves of `params`; weights outside them are written as zeros.
        None or missing where a leaf has no mask. Masks are boolean and have the
        shapes of their leaves.
      dynamic_batch: whether the file works for any batch size; otherwise for that of
        `inputs` only.

    Returns:
      The size of the file in bytes.

    Raises:
      ModuleNotFoundError: if the packages onnx and onnxruntime are not installed.
      TypeError: if an input is not an array of numbers or booleans.
      ValueError: if there are no inputs, one has no batch axis, a mask fits no leaf,
        `apply` uses an operation without a rule (the message names it) or returns
        random keys, ONNX or ONNX Runtime refuses an operator or its dtype (the message
        names the operator), or ONNX Runtime computes something else than JAX: numbers
        within 1e-4 of the largest finite one, infinities, NaN, integers and booleans
        exactly.
      OSError: if the file cannot be written.

    Examples:
      >>> apply = lambda p, x: jax.nn.relu(x @ p["kernel"] + p["bias"])
      >>> weights = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros((1, 4))}
      >>> onnx("net.onnx", apply, weights, jnp.ones((1, 3))) > 0
      True
    """
    extras.require("onnx", "onnxruntime", purpose="ONNX files", extra="export")
    _check_inputs(inputs, dynamic_batch=dynamic_batch)
    params, inputs = jax.tree.map(_canonical, (params, inputs))
    if masks is not None:
        params = compacted.masked(params, masks)
    model = _convert(apply, params, inputs, dynamic_batch=dynamic_batch)
    content = model.SerializeToString()
    for batch in (None, 3) if dynamic_batch else (None,):
        _compare(content, apply, params, inputs, batch)
    metrics_log.write_atomically(Path(path), content)
    return len(content)


def _check_inputs(inputs: Any, *, dynamic_batch: bool) -> None:
    """Raises an error if there is no input, or one has no batch axis."""
    leaves = tree.named_leaves(inputs)
    if not leaves:
        raise ValueError("inputs: expected at least one array, got none")
    for name, leaf in leaves.items():
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise TypeError(
                f"inputs: {name}: expected an array or a `jax.ShapeDtypeStruct`, got "
                f"{leaf!r}"
            )
        kinds = (np.bool_, np.integer, np.floating)
        if not any(jax.dtypes.issubdtype(leaf.dtype, kind) for kind in kinds):
            raise TypeError(
                f"inputs: {name}: expected real numbers or booleans, got "
                f"{leaf.dtype}; use other arrays, such as random keys, inside `apply`"
            )
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    batches = {shape[:1] for shape in shapes.values()}
    if dynamic_batch and (len(batches) > 1 or () in batches):
        raise ValueError(
            "inputs: expected a first axis of the same size in all, the batch, with "
            f"dynamic_batch=True, got shapes {shapes}; pass dynamic_batch=False for "
            "inputs without a batch"
        )


def _canonical(leaf: Any) -> Any:
    """Returns an array of the dtype in which JAX computes, or its shape and dtype."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(
            leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)
        )
    return jnp.asarray(leaf)


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
    weights = [to_numpy(leaf) for leaf in jax.tree.leaves(params)]
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
        if rng.is_key(aval):
            raise ValueError(
                f"apply: expected outputs that are numbers or booleans, got random "
                f"keys in output_{i}; return only what the file shall compute"
            )
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
    model.ir_version = IR_VERSION  # newer ones are refused by older runtimes
    with _refusals("ONNX"):
        onnx_lib.checker.check_model(model)
    return model


@contextmanager
def _refusals(program: str) -> Iterator[None]:
    """Raises a ValueError in place of a program's own errors, which name operators."""
    try:
        yield
    except Exception as error:  # the classes of ONNX Runtime have no common base
        raise ValueError(
            f"apply: expected a network that {program} accepts, got its error "
            f"{' '.join(str(error).split())[:400]!r}; write the operation in another "
            "form or dtype in `apply`, or end `apply` before it"
        ) from error


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

    drawn = checks.random_inputs(inputs, 0, batch)
    given = {f"input_{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(drawn))}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    with _refusals("ONNX Runtime"):
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        theirs = session.run(None, given)
    with jax.default_matmul_precision("highest"):
        ours = apply(params, *drawn)
    for i, (a, b) in enumerate(zip(theirs, jax.tree.leaves(ours), strict=True)):
        expected = np.asarray(b)
        where = f"output_{i}: expected from ONNX Runtime what JAX computes"
        if a.shape != expected.shape or a.dtype != expected.dtype:
            raise ValueError(
                f"{where}, {expected.dtype}{expected.shape}, got {a.dtype}{a.shape}; "
                "please report this network"
            )
        if not jnp.issubdtype(expected.dtype, jnp.inexact):
            if not np.array_equal(a, expected):
                raise ValueError(
                    f"{where}, got other {expected.dtype} values in "
                    f"{np.count_nonzero(a != expected)} places of {a.size}; where they "
                    "depend on rounding, as a largest of nearly equal numbers does, "
                    "return the numbers instead; otherwise please report this network"
                )
            continue
        finite = np.isfinite(expected)
        if not np.array_equal(a[~finite], expected[~finite], equal_nan=True):
            raise ValueError(
                f"{where}, got other values where JAX has infinities or NaN; please "
                "report this network"
            )
        error = np.abs(a[finite] - expected[finite]).max(initial=0)
        largest = np.abs(expected[finite]).max(initial=0)
        if not error <= TOLERANCE * max(largest, 1e-6):
            raise ValueError(
                f"{where}, up to {TOLERANCE} of the largest output {largest:.3g}, got "
                f"an error of {error:.3g}; please report this network"
            )
