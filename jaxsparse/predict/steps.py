"""A program with chosen forms of its layers, as steps inside and outside of XLA."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsparse.predict import forms, host_layers, layers, numpy_rules
from jaxsparse.predict.layers import Folded, Layer


class Step(NamedTuple):
    """One operation.

    Attributes:
      inputs: numbers of the operands.
      outputs: numbers of the results.
      run: computes the results, as a list, from the operands; with JAX, unless the step
        is on the host.
      numpy: the same with NumPy; None if there is no rule.
      on_host: whether the step runs outside of XLA, on NumPy arrays.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    run: Callable[..., list[Any]]
    numpy: Callable[..., list[Any]] | None = None
    on_host: bool = False


class Plan(NamedTuple):
    """All steps of a program.

    Attributes:
      steps: the steps, in an order in which they can run.
      constants: values that are known, by number.
      inputs: numbers of the inputs.
      outputs: numbers of the outputs.
    """

    steps: list[Step]
    constants: dict[int, Any]
    inputs: list[int]
    outputs: list[int]


def make(folded: Folded, chosen: Mapping[int, str]) -> Plan:
    """Makes the steps of a program.

    Args:
      folded: the program.
      chosen: "condensed", "csr" or "direct" by number of the result of a layer; all
        other layers are dense.
    """
    program = folded.program
    plan = Plan([], dict(folded.constants), program.inputs, program.outputs)
    number = len(program.avals)
    for eqn in program.equations:
        form = chosen.get(eqn.outputs[0]) if eqn.outputs else None
        if form is None:
            run = functools.partial(layers.evaluate, eqn)
            rule = numpy_rules.rule(eqn, program.avals)
            plan.steps.append(Step(eqn.inputs, eqn.outputs, run, rule))
            continue
        layer = folded.layers[eqn.outputs[0]]
        new = _condensed if form == "condensed" else _on_host
        plan.steps.extend(new(layer, number, plan.constants, form))
        number += 2
    return plan


def _on_host(
    layer: Layer, number: int, constants: dict[int, Any], form: str
) -> list[Step]:
    """The steps of a layer outside of XLA; `number` is the first free one."""
    del constants
    host = host_layers.make(layer, form)
    before, after = _listed(host.before), _listed(host.after)
    in_numpy = (before, after) if host.is_view else (None, None)
    return [
        Step((layer.signal,), (number,), before, in_numpy[0]),
        Step((number,), (number + 1,), _listed(host.multiply), on_host=True),
        Step((number + 1,), layer.equation.outputs, after, in_numpy[1]),
    ]


def _condensed(
    layer: Layer, number: int, constants: dict[int, Any], form: str
) -> list[Step]:
    """The step of a condensed layer; its weights become constants."""
    del form
    stored = forms.condense(layer.matrix)
    if stored is None:
        raise ValueError(
            f"{layer.name}: expected about the same number of active inputs for all "
            "outputs in the form 'condensed', got more than twice the mean"
        )
    constants[number] = jnp.asarray(stored.values)
    constants[number + 1] = jnp.asarray(stored.indices)
    geometry = layer.geometry

    def run(x: Any, values: Any, indices: Any) -> list[Any]:
        columns = geometry.columns(x)
        return [geometry.restore(forms.multiply_condensed(values, indices, columns))]

    inputs = (layer.signal, number, number + 1)
    return [Step(inputs, layer.equation.outputs, run)]


def _listed(fn: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda x: [fn(x)]


def levels(plan: Plan) -> list[tuple[list[Step], list[Step]]]:
    """Divides the steps into parts that run one after the other.

    All steps on the host that do not depend on each other belong to the same part, so
    that there are as few parts as possible.

    Args:
      plan: the steps.

    Returns:
      For each part, the steps of XLA and then those on the host.
    """
    level = dict.fromkeys([*plan.constants, *plan.inputs], 0)
    parts: list[tuple[list[Step], list[Step]]] = []
    for step in plan.steps:
        here = max((level[number] for number in step.inputs), default=0)
        level |= dict.fromkeys(step.outputs, here + step.on_host)
        while len(parts) <= here:
            parts.append(([], []))
        parts[here][step.on_host].append(step)
    return parts


def reads(given: list[Step]) -> list[int]:
    """Lists the values that steps read and that none of them computes.

    Args:
      given: the steps.
    """
    made = {number for step in given for number in step.outputs}
    read = dict.fromkeys(number for step in given for number in step.inputs)
    return [number for number in read if number not in made]


def to_numpy(values: list[Any]) -> list[np.ndarray]:
    """Returns values as arrays of NumPy, without copies on a CPU.

    Args:
      values: arrays.
    """
    return [np.asarray(value) for value in values]
