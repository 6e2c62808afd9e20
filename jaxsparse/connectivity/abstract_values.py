"""What a traced program computes on when only its connections matter.

Every array of the program becomes one of three kinds. A pattern is a float32 array
with the shape of the array that it stands for; it holds 1 where something is and 0
where nothing is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pattern = Float[Array, "..."]


class Constant(NamedTuple):
    """What depends on neither inputs nor prunable weights.

    Attributes:
      value: the array, or None if it is not known, as that of a bias.
    """

    value: Any


class Weight(NamedTuple):
    """What depends on prunable weights only, one entry on one connection.

    Attributes:
      pattern: 1 where the connection exists.
      leaves: names of the leaves it was made of.
    """

    pattern: Pattern
    leaves: tuple[str, ...]


class Signal(NamedTuple):
    """What depends on an input.

    Attributes:
      pattern: 1 where a path from an input arrives.
    """

    pattern: Pattern


Value = Constant | Weight | Signal


class Walk(NamedTuple):
    """One pass over a program.

    Attributes:
      question: "live", "reached" or "used"; see `connectivity`.
      order: names of the leaves that have met a signal, as they did.
      meetings: for "reached", a sum of what each weight lets pass of its signal.
    """

    question: str
    order: list[str]
    meetings: list[Float[Array, ""]]


@jax.custom_vjp
def saturate(x: Pattern) -> Pattern:
    """Returns 1 where `x` is positive, and sends 1 back where a cotangent is.

    So neither the number of paths nor that of the layers can overflow.
    """
    return (x > 0).astype(x.dtype)


def _saturate_forward(x: Pattern) -> tuple[Pattern, None]:
    return saturate(x), None


def _saturate_backward(residual: None, cotangent: Pattern) -> tuple[Pattern]:
    del residual
    return (saturate(cotangent),)


saturate.defvjp(_saturate_forward, _saturate_backward)


def present(value: Value, aval: Any) -> Pattern:
    """Returns where a value is not known to be zero."""
    if not isinstance(value, Constant):
        return value.pattern
    if value.value is None:
        return jnp.ones(aval.shape, jnp.float32)
    return (jnp.asarray(value.value) != 0).astype(jnp.float32)


def arriving(value: Value, aval: Any, walk: Walk) -> Pattern:
    """Returns where a path arrives by what is added to, or put beside, a signal.

    None does by a constant or by a weight that met no signal. To ask what is used,
    such a weight is followed nevertheless.
    """
    follows = isinstance(value, Weight) and walk.question == "used"
    if isinstance(value, Signal) or follows:
        return value.pattern
    return jnp.zeros(aval.shape, jnp.float32)


def joined(patterns: list[Pattern], shape: tuple[int, ...]) -> Pattern:
    """Returns where any of the patterns is, scalars standing for all of `shape`."""
    if len(patterns) == 1:
        return jnp.broadcast_to(patterns[0], shape)
    return saturate(sum(jnp.broadcast_to(pattern, shape) for pattern in patterns))


def leaves_of(values: list[Value]) -> tuple[str, ...]:
    """Lists the names of the leaves that weights among the values are made of."""
    found = [value.leaves for value in values if isinstance(value, Weight)]
    return sum(found, ())


def multiply(
    op: Callable[[Pattern, Pattern], Pattern],
    values: list[Value],
    avals: list[Any],
    walk: Walk,
) -> Value:
    """Joins two values by what is linear in each: a product of any kind."""
    a, b = (present(value, aval) for value, aval in zip(values, avals, strict=True))
    signals = [isinstance(value, Signal) for value in values]
    if all(signals):
        # Either may be moved by a bias from zero, and then lets the other pass.
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
        walk.meetings.append(jnp.sum(passed))
        passed = lax.stop_gradient(passed)
    return Signal(saturate(passed))


def _meeting(pattern: Pattern, walk: Walk) -> Pattern:
    """Returns what a weight sees of a signal, by what is asked.

    To be reached, nothing behind the weight matters, so that nothing is sent back; to
    be used, nothing before it, so that it sees a signal everywhere.
    """
    if walk.question == "reached":
        return lax.stop_gradient(pattern)
    if walk.question == "used":
        return pattern + lax.stop_gradient(1.0 - pattern)
    return pattern
