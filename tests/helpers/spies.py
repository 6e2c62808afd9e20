"""An optimizer that remembers what it was handed."""

from typing import Any, NamedTuple

import optax


class Spy(NamedTuple):
    """State of an optimizer, and the state it was handed last."""

    state: Any
    handed: Any


def spied(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Wraps an optimizer so that its state holds the state of the step before."""
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> Spy:
        return Spy(inner.init(params), inner.init(params))

    def update(grads: Any, spy: Spy, params: Any, **extra: Any) -> Any:
        updates, state = inner.update(grads, spy.state, params, **extra)
        return updates, Spy(state, spy.state)

    return optax.GradientTransformationExtraArgs(init, update)
