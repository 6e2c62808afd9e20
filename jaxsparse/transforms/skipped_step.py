"""Leaves out a step of the wrapped optimizer, without a branch.

A conditional around the step would copy updates and optimizer state at every step,
since XLA copies the operands of a conditional that a loop carries. Selects avoid that.
The updates are computed from the selected state, behind a barrier. Otherwise XLA
computes the new state twice, once for itself and once within the updates, and copies
the old one.
"""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend import core
from jaxtyping import Array, Bool

from jaxsparse.types import Grads, Params


def step_unless(
    skip: Bool[Array, ""],
    inner: optax.GradientTransformationExtraArgs,
    grads: Grads,
    state: optax.OptState,
    params: Params,
    extra: dict[str, Any],
) -> tuple[Params, optax.OptState]:
    """Makes a step of an optimizer, or none.

    Args:
      skip: whether to leave the step out.
      inner: the optimizer.
      grads: the gradient.
      state: the state of `inner`.
      params: the weights.
      extra: further keyword arguments for the step.

    Returns:
      Updates and state after the step. If it is left out, the updates are zero, and the
      state is as it was, but for wider dtypes: a step may widen the state, as that of
      bfloat16 weights becomes float32 if the gradient is float32, and a step that is
      left out widens it too.
    """

    def step(grads: Grads, state: optax.OptState, params: Params) -> Any:
        updates, stepped = inner.update(grads, state, params, **extra)
        return stepped, updates

    arguments = (grads, state, params)
    program, shapes = jax.make_jaxpr(step, return_shape=True)(*arguments)
    found = _evaluate(program, jax.tree.leaves(arguments), skip, jax.tree.leaves(state))
    stepped, updates = jax.tree.unflatten(jax.tree.structure(shapes), found)
    updates = jax.tree.map(lambda u: jnp.where(skip, jnp.zeros_like(u), u), updates)
    return updates, stepped


def _evaluate(
    program: core.ClosedJaxpr, inputs: list[Any], skip: Bool[Array, ""], old: list[Any]
) -> list[Any]:
    """Evaluates a program, but with its first outputs replaced where a step is skipped.

    What the program computes from such an output, it computes from the replacement.

    Args:
      program: the program; its first outputs are the leaves of the state.
      inputs: its inputs.
      skip: whether the outputs are replaced.
      old: what they are replaced by.

    Returns:
      The outputs of the program.
    """
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Any:
        is_constant = isinstance(variable, core.Literal)
        return variable.val if is_constant else values[variable]

    def select(before: Any, after: Any) -> Any:
        before, after = jnp.asarray(before), jnp.asarray(after)
        # Random keys, whose dtype no step changes, cannot be cast.
        if before.dtype != after.dtype:
            before = before.astype(after.dtype)
        return jnp.where(skip, before, after)

    outputs = jaxpr.outvars[: len(old)]
    times = Counter(map(id, outputs))
    replaced = {
        variable: before
        for variable, before in zip(outputs, old, strict=True)
        if not isinstance(variable, core.Literal) and times[id(variable)] == 1
    }
    selected = set()
    for equation in jaxpr.eqns:
        primitive = equation.primitive
        results = primitive.bind(
            *map(read, equation.invars), **primitive.get_bind_params(equation.params)
        )
        results = results if primitive.multiple_results else [results]
        for variable, result in zip(equation.outvars, results, strict=True):
            values[variable] = result
            if variable in replaced:
                # Without a barrier, XLA would fuse the select with all that reads it,
                # and compute it several times.
                values[variable] = jax.lax.optimization_barrier(
                    select(replaced[variable], result)
                )
                selected.add(variable)
    found = [read(variable) for variable in jaxpr.outvars]
    # What no equation computed, or what is the state of several leaves.
    rest = [
        value if variable in selected else select(before, value)
        for variable, value, before in zip(outputs, found, old, strict=False)
    ]
    return [*rest, *found[len(old) :]]
