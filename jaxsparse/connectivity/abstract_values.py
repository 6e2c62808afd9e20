"""Abstract values for running a program on its connections instead of its numbers.

Every array of the traced program is replaced by one of three kinds of value. A pattern
is a float32 array of the same shape as the array that it replaces; it is 1 where the
entry is present, and 0 where it is absent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pattern = Float[Array, "..."]


class Constant(NamedTuple):
    """A value that depends on neither inputs nor prunable weights.

    Attributes:
      value: the array; None if it is unknown, such as a bias.
    """

    value: Any


class Weight(NamedTuple):
    """A value that depends on prunable weights only; each entry is one connection.

    Attributes:
      pattern: 1 where the connection exists.
      leaves: names of the leaves that the value was computed from.
    """

    pattern: Pattern
    leaves: tuple[str, ...]


class Signal(NamedTuple):
    """A value that depends on an input.

    Attributes:
      pattern: 1 where a path from an input arrives.
    """

    pattern: Pattern


Value = Constant | Weight | Signal


class Walk(NamedTuple):
    """State of one pass over a program.

    Attributes:
      question: "live" to follow paths from inputs to outputs, "reached" to find weights
        with a path from an input, or "used" to find weights with a path to an output.
      order: names of the leaves whose weights were multiplied by a signal, in program
        order; the pass appends to it.
      meetings: for "reached", one scalar per product of weights and a signal: the sum
        of what the weights transmit. The pass appends to it.
    """

    question: str
    order: list[str]
    meetings: list[Float[Array, ""]]


@jax.custom_vjp
def saturate(x: Pattern) -> Pattern:
    """Returns 1 where `x` is positive, 0 elsewhere.

    The backward pass treats the cotangent in the same way, so neither many paths nor
    many layers can overflow float32.

    Args:
      x: numbers of paths, 0 or more, of any shape.
    """
    return (x > 0).astype(x.dtype)


def _saturate_forward(x: Pattern) -> tuple[Pattern, None]:
    return saturate(x), None


def _saturate_backward(residual: None, cotangent: Pattern) -> tuple[Pattern]:
    del residual
    return (saturate(cotangent),)


saturate.defvjp(_saturate_forward, _saturate_backward)


def present(value: Value, aval: Any) -> Pattern:
    """Returns the pattern of entries that may be nonzero; all if they are unknown.

    Args:
      value: a value of a program.
      aval: its abstract value, with the shape.
    """
    if not isinstance(value, Constant):
        return value.pattern
    if value.value is None:
        return jnp.ones(aval.shape, jnp.float32)
    return (jnp.asarray(value.value) != 0).astype(jnp.float32)


def arriving(value: Value, aval: Any, walk: Walk) -> Pattern:
    """Returns where a path arrives through an operand that is added to a signal.

    The same holds for an operand that is concatenated with a signal. No path arrives
    through a constant, or through a weight that is not multiplied by a signal. For the
    question "used", such a weight is followed nevertheless, because outputs depend on
    it.

    Args:
      value: the operand.
      aval: its shape and dtype.
      walk: the pass, with its question.
    """
    follows = isinstance(value, Weight) and walk.question == "used"
    if isinstance(value, Signal) or follows:
        return value.pattern
    return jnp.zeros(aval.shape, jnp.float32)


def joined(patterns: list[Pattern], shape: tuple[int, ...]) -> Pattern:
    """Returns the union of patterns, with scalars broadcast to `shape`.

    Args:
      patterns: one or more patterns, each of shape `shape` or a scalar.
      shape: shape of the result.
    """
    if len(patterns) == 1:
        return jnp.broadcast_to(patterns[0], shape)
    return saturate(sum(jnp.broadcast_to(pattern, shape) for pattern in patterns))


def leaves_of(values: list[Value]) -> tuple[str, ...]:
    """Lists the names of the leaves of all weights among the values.

    Args:
      values: values of a program.
    """
    found = [value.leaves for value in values if isinstance(value, Weight)]
    return sum(found, ())


def multiply(
    op: Callable[[Pattern, Pattern], Pattern],
    values: list[Value],
    avals: list[Any],
    walk: Walk,
) -> Value:
    """Combines two values by an operation that is linear in each, such as a product.

    Args:
      op: the operation on patterns: product of entries, contraction or convolution.
      values: the two operands.
      avals: their shapes and dtypes.
      walk: the pass; if a weight is multiplied by a signal, its lists are appended to.

    Returns:
      A signal if an operand is one, otherwise a weight.
    """
    a, b = (present(value, aval) for value, aval in zip(values, avals, strict=True))
    signals = [isinstance(value, Signal) for value in values]
    if all(signals):
        # A bias, which is unknown, may make either factor nonzero where no path
        # arrives, and the product then transmits the other factor.
        return Signal(saturate(op(a, jnp.ones_like(b)) + op(jnp.ones_like(a), b)))
    names = leaves_of(values)
    if not any(signals):
        return Weight(saturate(op(a, b)), names)
    if not names:
        return Signal(saturate(op(a, b)))
    walk.order.extend(names)
    a, b = (
        _meeting(pattern, walk) if is_signal else pattern
        for pattern, is_signal in zip((a, b), signals, strict=True)
    )
    passed = op(a, b)
    if walk.question == "reached":
        # Only this sum depends on the weights. What follows must not, so that a weight
        # counts even if no path leads on to an output.
        walk.meetings.append(jnp.sum(passed))
        passed = lax.stop_gradient(passed)
    return Signal(saturate(passed))


def _meeting(pattern: Pattern, walk: Walk) -> Pattern:
    """Returns the pattern by which a weight is multiplied, for the question asked.

    For "reached", what comes after a weight does not matter. No gradient flows back
    through the signal, so a weight gets a gradient from its own product only. For
    "used", what comes before a weight does not matter. The pattern is 1 everywhere, but
    the gradient still flows back through the signal, to earlier weights.
    """
    if walk.question == "reached":
        return lax.stop_gradient(pattern)
    if walk.question == "used":
        return pattern + lax.stop_gradient(1.0 - pattern)
    return pattern
