"""Multiply-adds of a forward function, counted in its trace."""

import math
from collections.abc import Callable
from typing import Any

from jaxsparse import arguments
from jaxsparse.coupling.program import Equation, Program, trace


@arguments.check(apply=arguments.function)
def multiply_adds(apply: Callable[..., Any], params: Any, *inputs: Any) -> int:
    """Counts the multiply-adds (MACs) of matrix products and convolutions.

    Products with zeros, such as pruned weights and padding, are counted; additions of
    biases, normalization and activation functions are not. Loops of unknown length
    (`while_loop`) and branches that an input chooses (`cond`) count as nothing.

    Args:
      apply: called as `apply(params, *inputs)`.
      params: parameters or their shapes.
      *inputs: trees of arrays or of `jax.ShapeDtypeStruct`; pass a single example for
        the multiply-adds of one example.

    Returns:
      The number of multiply-adds; the number of floating-point operations (FLOPs) is
      twice as large.

    Raises:
      TypeError: if `apply` is not a function.

    Examples:
      >>> params = {"a": jnp.ones((784, 300)), "b": jnp.ones((300, 10))}
      >>> multiply_adds(lambda p, x: x @ p["a"] @ p["b"], params, jnp.ones((1, 784)))
      238200
    """
    return count(trace(apply, params, *inputs))


def count(program: Program) -> int:
    """Counts the multiply-adds of a program.

    Args:
      program: the program.
    """
    return sum(_of_equation(eqn, program) for eqn in program.equations)


def _of_equation(eqn: Equation, program: Program) -> int:
    shapes = [program.avals[n].shape for n in eqn.inputs]
    size = math.prod(program.avals[eqn.outputs[0]].shape) if eqn.outputs else 0
    if eqn.name == "dot_general":
        (over, _), _ = eqn.params["dimension_numbers"]
        return size * math.prod(shapes[0][i] for i in over)
    if eqn.name == "conv_general_dilated":
        spec = eqn.params["dimension_numbers"].rhs_spec
        return size * math.prod(shapes[1]) // max(shapes[1][spec[0]], 1)
    return 0
