"""Operations on numpy arrays: values and patterns of a program, equation by equation.

Small networks have many shapes, and JAX would compile every operation for each of them.
Common operations therefore run in numpy; others are passed on to JAX.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool

from jaxsparse import rng
from jaxsparse.connectivity.jaxpr_rules import PRODUCTS, WINDOW
from jaxsparse.coupling.program import Equation, Program

Array = np.ndarray

FUNCTIONS: dict[str, Callable[..., Array]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "neg": np.negative,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "tanh": np.tanh,
}
REDUCTIONS = {
    "reduce_sum": np.sum,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_and": np.all,
    "reduce_or": np.any,
}


def wide(dtype: Any) -> np.dtype:
    """Returns the dtype in which numpy holds values: floats have 32 bits or more.

    Args:
      dtype: dtype of the values in the program, which are no keys.
    """
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return np.dtype(np.float32 if is_float and dtype.itemsize < 4 else dtype)


def to_numpy(value: Any) -> Array:
    """Converts an array to numpy, with floats of 32 bits or more.

    Args:
      value: any array that is not one of keys.
    """
    value = np.asarray(value)
    return value.astype(wide(value.dtype), copy=False)


def evaluate(eqn: Equation, program: Program, operands: list[Any]) -> list[Any]:
    """Computes the results of an equation.

    Args:
      eqn: the equation.
      program: its program.
      operands: values of its operands.
    """
    aval = program.avals[eqn.outputs[0]] if eqn.outputs else None
    with np.errstate(all="ignore"):
        if eqn.name in FUNCTIONS and jnp.issubdtype(aval.dtype, jnp.floating):
            return [np.asarray(FUNCTIONS[eqn.name](*operands))]
        if eqn.name in REDUCTIONS and operands[0].size:
            result = REDUCTIONS[eqn.name](operands[0], tuple(eqn.params["axes"]))
            return [np.asarray(result, operands[0].dtype)]
    if eqn.name == "dot_general" and jnp.issubdtype(aval.dtype, jnp.floating):
        return [dot(eqn, *operands)]
    typed = [
        x if rng.is_key(program.avals[n]) else jnp.asarray(x, program.avals[n].dtype)
        for n, x in zip(eqn.inputs, operands, strict=True)
    ]
    results = eqn.primitive.bind(*typed, **eqn.params)
    results = results if eqn.primitive.multiple_results else [results]
    return [x if rng.is_key(x) else to_numpy(x) for x in results]


class Matrices(NamedTuple):
    """Operands of a matrix product as stacks of matrices.

    Attributes:
      left: [batch, rows, inner].
      right: [batch, inner, columns].
      out: shape of the result.
    """

    left: Array
    right: Array
    out: tuple[int, ...]


def matrices(eqn: Equation, left: Array, right: Array) -> Matrices:
    """Reshapes the operands of a matrix product.

    Args:
      eqn: a "dot_general".
      left: first operand.
      right: second operand.
    """
    (over_l, over_r), (batch_l, batch_r) = eqn.params["dimension_numbers"]
    rows = [i for i in range(left.ndim) if i not in (*over_l, *batch_l)]
    columns = [i for i in range(right.ndim) if i not in (*over_r, *batch_r)]
    batch = [left.shape[i] for i in batch_l]
    inner = int(np.prod([left.shape[i] for i in over_l], dtype=int))
    size = int(np.prod(batch, dtype=int))
    a = left.transpose([*batch_l, *rows, *over_l])
    b = right.transpose([*batch_r, *over_r, *columns])
    out = (
        *batch,
        *(left.shape[i] for i in rows),
        *(right.shape[i] for i in columns),
    )
    num_rows = int(np.prod([left.shape[i] for i in rows], dtype=int))
    num_columns = int(np.prod([right.shape[i] for i in columns], dtype=int))
    return Matrices(
        a.reshape(size, num_rows, inner), b.reshape(size, inner, num_columns), out
    )


def unmatrix(eqn: Equation, stack: Array, shape: tuple[int, ...], side: int) -> Array:
    """Undoes `matrices` for one operand.

    Args:
      eqn: a "dot_general".
      stack: [batch, rows, inner] for the first operand, [batch, inner, columns] for
        the second.
      shape: shape of the operand.
      side: 0 for the first, 1 for the second.
    """
    over, batch = (pair[side] for pair in eqn.params["dimension_numbers"])
    free = [i for i in range(len(shape)) if i not in (*over, *batch)]
    order = [*batch, *over, *free] if side else [*batch, *free, *over]
    moved = stack.reshape([shape[i] for i in order])
    return moved.transpose(np.argsort(order))


def dot(eqn: Equation, left: Array, right: Array) -> Array:
    """Computes a matrix product.

    Args:
      eqn: a "dot_general".
      left: first operand.
      right: second operand.
    """
    pair = matrices(eqn, left, right)
    return np.matmul(pair.left, pair.right).reshape(pair.out)


def convolve(eqn: Equation, images: Array, kernel: Array) -> Array:
    """Computes a convolution in float32, or in float64 if an operand has it.

    Args:
      eqn: a "conv_general_dilated".
      images: first operand.
      kernel: second operand.
    """
    return np.asarray(_convolution(eqn)(*_floats(images, kernel)))


def convolve_back(
    eqn: Equation, result: Array, other: Array, side: int, shape: tuple[int, ...]
) -> Array:
    """Distributes a result of a convolution over one of its operands.

    Args:
      eqn: a "conv_general_dilated".
      result: weights of the result.
      other: the other operand.
      side: 0 for the images, 1 for the kernel.
      shape: shape of that operand.
    """
    op, (result, other) = _convolution(eqn), _floats(result, other)
    template = jax.ShapeDtypeStruct(shape, other.dtype)
    linear = (lambda x: op(x, other)) if side == 0 else (lambda x: op(other, x))
    return np.asarray(jax.linear_transpose(linear, template)(result)[0])


def _convolution(eqn: Equation) -> Callable[..., Any]:
    names = PRODUCTS["conv_general_dilated"][1]
    options = {name: eqn.params[name] for name in names}
    return lambda x, y: lax.conv_general_dilated(x, y, **options)


def _floats(*arrays: Array) -> list[Any]:
    """Converts to JAX's float32, or all to float64 if one of them has it."""
    floats = [x.dtype for x in arrays if np.issubdtype(x.dtype, np.floating)]
    dtype = jax.dtypes.canonicalize_dtype(np.result_type(np.float32, *floats))
    return [jnp.asarray(x, dtype) for x in arrays]


def windows(eqn: Equation, x: Array) -> Array:
    """Sums over windows, in float32, or in float64 if the operand has it.

    Args:
      eqn: a "reduce_window_sum" or another reduction of windows.
      x: its operand.
    """
    options = {key: eqn.params[key] for key in WINDOW}
    (x,) = _floats(x)
    return np.asarray(lax.reduce_window(x, np.zeros((), x.dtype), lax.add, **options))


def windows_back(eqn: Equation, result: Array, shape: tuple[int, ...]) -> Array:
    """Distributes weights of the result of a reduction of windows over its operand.

    Args:
      eqn: the equation.
      result: weights of the result.
      shape: shape of the operand.
    """
    options = {key: eqn.params[key] for key in WINDOW}
    (result,) = _floats(result)
    zero, template = (
        np.zeros((), result.dtype),
        jax.ShapeDtypeStruct(shape, result.dtype),
    )
    linear = jax.linear_transpose(
        lambda x: lax.reduce_window(x, zero, lax.add, **options), template
    )
    return np.asarray(linear(result)[0])


def unbroadcast(
    pattern: Bool[Array, "..."], shape: tuple[int, ...]
) -> Bool[Array, "..."]:
    """Joins the entries of a result that come from the same entry of an operand.

    Args:
      pattern: pattern of the result.
      shape: shape of the operand, which is a scalar or has axes of length 1.
    """
    if len(shape) != pattern.ndim:
        return np.broadcast_to(pattern.any(), shape)
    short = tuple(i for i, n in enumerate(shape) if n == 1 and pattern.shape[i] != 1)
    return np.asarray(pattern.any(short, keepdims=True) if short else pattern)
