"""Plans as functions on the host: compiled parts, and layers between them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse.predict import steps
from jaxsparse.predict.steps import Plan, Step

# Larger constants are arguments of compiled programs: inside them they would be
# transposed and folded while XLA compiles, which takes long.
MOST_INLINED = 4096
# Parts of more operations than this are never faster in NumPy.
MOST_IN_NUMPY = 40


class Segment(NamedTuple):
    """A part of a program.

    Attributes:
      reads: numbers of the values that it needs.
      writes: numbers of the values that it computes for later parts.
      compiled: the part in XLA; a function of the values, returns a list.
      numpy: the same in NumPy; None if it has an operation without a rule.
      products: the steps on the host that follow.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    compiled: Callable[..., list[Any]]
    numpy: Callable[..., list[Any]] | None
    products: tuple[Step, ...]


class Compiled(NamedTuple):
    """A plan that is ready to run.

    Attributes:
      segments: its parts in order.
      in_numpy: for each part, whether it runs in NumPy.
      inputs: numbers of the inputs.
      outputs: numbers of the outputs.
      constants: outputs that depend on no input, by number.
    """

    segments: tuple[Segment, ...]
    in_numpy: tuple[bool, ...]
    inputs: list[int]
    outputs: list[int]
    constants: dict[int, Any]


def build(plan: Plan) -> Compiled:
    """Makes the parts of a plan; XLA compiles each at its first call.

    Args:
      plan: the plan.
    """
    parts = steps.levels(plan)
    products = [step for part in parts for step in part[1]]
    later = {number for step in products for number in step.inputs}
    later.update(plan.outputs, *(steps.reads(part[0]) for part in parts))
    segments = []
    for inside, outside in parts:
        read = steps.reads(inside)
        made = [number for step in inside for number in step.outputs]
        needed = [number for number in made if number in later]
        small = {n: plan.constants[n] for n in read if _is_small(plan.constants, n)}
        large = {n: plan.constants[n] for n in read if n in plan.constants}
        large = {n: value for n, value in large.items() if n not in small}
        signals = tuple(number for number in read if number not in plan.constants)
        segments.append(
            Segment(
                signals,
                tuple(needed),
                _in_xla(inside, signals, needed, small, large),
                _in_numpy(inside, signals, needed, small | large),
                tuple(outside),
            )
        )
    given = {n: v for n, v in plan.constants.items() if n in plan.outputs}
    in_numpy = (False,) * len(segments)
    return Compiled(tuple(segments), in_numpy, plan.inputs, plan.outputs, given)


def _is_small(constants: dict[int, Any], number: int) -> bool:
    return number in constants and np.size(constants[number]) <= MOST_INLINED


def _in_xla(
    inside: list[Step],
    signals: tuple[int, ...],
    needed: list[int],
    small: dict[int, Any],
    large: dict[int, Any],
) -> Callable[..., list[Any]]:
    """Compiles steps to a function of signals."""

    def run(given: tuple[Any, ...], weights: dict[int, Any]) -> list[Any]:
        values = small | weights | dict(zip(signals, given, strict=True))
        for step in inside:
            results = step.run(*(values[number] for number in step.inputs))
            values.update(zip(step.outputs, results, strict=True))
        return [values[number] for number in needed]

    compiled, weights = jax.jit(run), jax.device_put(large)
    return lambda *given: compiled(given, weights)


def _in_numpy(
    inside: list[Step],
    signals: tuple[int, ...],
    needed: list[int],
    constants: dict[int, Any],
) -> Callable[..., list[Any]] | None:
    """Makes the same function in NumPy; None without a rule for every step."""
    rules = [(step.inputs, step.outputs, step.numpy) for step in inside]
    if len(rules) > MOST_IN_NUMPY or any(rule is None for *_, rule in rules):
        return None
    fixed = {number: np.asarray(value) for number, value in constants.items()}

    def run(*given: Any) -> list[Any]:
        values = dict(fixed)
        values.update(zip(signals, given, strict=True))
        for inputs, outputs, rule in rules:
            results = rule(*(values[number] for number in inputs))
            values.update(zip(outputs, results, strict=True))
        return [values[number] for number in needed]

    return run


def run(compiled: Compiled, given: list[Any]) -> list[Any]:
    """Runs a compiled plan.

    Args:
      compiled: the plan.
      given: the inputs, in order.

    Returns:
      The outputs in order, as arrays of NumPy.
    """
    values = dict(zip(compiled.inputs, given, strict=True))
    values.update(compiled.constants)
    for segment, in_numpy in zip(compiled.segments, compiled.in_numpy, strict=True):
        run_segment(segment, values, in_numpy=in_numpy)
    return steps.to_numpy([values[number] for number in compiled.outputs])


def run_segment(segment: Segment, values: dict[int, Any], *, in_numpy: bool) -> None:
    """Runs a part and adds its results to the values.

    Args:
      segment: the part.
      values: values by number.
      in_numpy: whether the part before the products on the host runs in NumPy.
    """
    if segment.writes:
        given = [values[number] for number in segment.reads]
        if in_numpy:
            results = segment.numpy(*steps.to_numpy(given))
        else:
            results = segment.compiled(*given)
        values.update(zip(segment.writes, results, strict=True))
    for step in segment.products:
        results = step.run(*(values[number] for number in step.inputs))
        values.update(zip(step.outputs, results, strict=True))
