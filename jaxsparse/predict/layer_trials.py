"""Times of the forms of single layers."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxsparse.predict import direct, forms, host_layers, layers, timing
from jaxsparse.predict.geometry import Convolution
from jaxsparse.predict.layers import Folded, Layer
from jaxsparse.predict.timing import Time

Job = Callable[[], Any]
# Programs by operation, parameters and shapes: networks repeat their layers.
Programs = dict[Any, Callable[..., Any]]


def measure(folded: Folded, *, seconds: float) -> dict[int, dict[str, Time | str]]:
    """Measures the forms of every layer alone, on random inputs.

    Layers of the same shapes, whose numbers of active weights differ by less than about
    5 %, are measured once.

    Args:
      folded: the program.
      seconds: time for each form of each layer.

    Returns:
      For each layer, by number of its result, the time of each form by name, or the
      reason why it was not measured.
    """
    programs: Programs = {}
    known: dict[Any, dict[str, Time | str]] = {}
    generator = np.random.default_rng(0)
    found: dict[int, dict[str, Time | str]] = {}
    for number, layer in folded.layers.items():
        share = forms.density(layer.matrix)
        if share > forms.MOST_DENSITY:
            found[number] = {"dense": f"{share:.0%} of the weights are active"}
            continue
        # Networks repeat their blocks.
        size = round(20 * math.log(max(1, np.count_nonzero(layer.matrix))))
        key = layer.geometry, layer.matrix.shape, size
        if key in known and is_possible(layer, "condensed") == _has_condensed(
            known[key]
        ):
            found[number] = known[key]
            continue
        aval = folded.program.avals[layer.signal]
        x = generator.normal(size=aval.shape).astype(np.float32)
        weight = jax.device_put(folded.constants[layer.weight])
        jobs = {"dense": _dense(programs, layer, x, weight)}
        absent: dict[str, Time | str] = {}
        jobs["csr"] = _on_host(programs, layer, x, "csr")
        if direct.is_available():
            jobs["direct"] = _on_host(programs, layer, x, "direct")
        else:
            absent["direct"] = "needs Numba, of the extra predict"
        stored = forms.condense(layer.matrix)
        if isinstance(layer.geometry, Convolution):
            absent["condensed"] = "only for dense layers: gathers all patches"
        elif stored is None:
            absent["condensed"] = "numbers of inputs differ too much between outputs"
        else:
            jobs["condensed"] = _condensed(programs, layer, x, stored)
        found[number] = known[key] = timing.interleave(jobs, seconds=seconds) | absent
    return found


def _has_condensed(times: dict[str, Time | str]) -> bool:
    return isinstance(times["condensed"], Time)


def is_possible(layer: Layer, form: str) -> bool:
    """Says whether a layer can have a sparse form.

    Args:
      layer: the layer.
      form: "condensed", "csr" or "direct".
    """
    if forms.density(layer.matrix) > forms.MOST_DENSITY:
        return False
    if form != "condensed":
        return True
    is_product = not isinstance(layer.geometry, Convolution)
    return is_product and forms.condense(layer.matrix) is not None


def start_time(*, seconds: float) -> Time:
    """Measures the time that it takes to start a compiled program that does nothing.

    Args:
      seconds: time for the measurement.
    """
    program, x = jax.jit(lambda x: x + 1), np.zeros((8,), np.float32)
    jobs = {"start": lambda: np.asarray(program(x))}
    return timing.interleave(jobs, seconds=seconds)["start"]


def _program(programs: Programs, key: Any, fn: Callable[..., Any]) -> Any:
    """Compiles a function once for each key."""
    return programs.setdefault(key, jax.jit(fn))


def _dense(programs: Programs, layer: Layer, x: Any, weight: Any) -> Job:
    """The layer as XLA computes it."""
    eqn = layer.equation
    is_first = eqn.inputs[0] == layer.weight

    def compute(x: Any, weight: Any) -> Any:
        given = (weight, x) if is_first else (x, weight)
        return layers.evaluate(eqn, *given)[0]

    key = "dense", eqn.name, repr(eqn.params), x.shape, weight.shape, is_first
    program = _program(programs, key, compute)
    return lambda: np.asarray(program(x, weight))


def _condensed(programs: Programs, layer: Layer, x: Any, stored: Any) -> Job:
    """The layer as XLA computes it from condensed weights."""
    geometry = layer.geometry

    def compute(x: Any, values: Any, indices: Any) -> Any:
        columns = geometry.columns(x)
        return geometry.restore(forms.multiply_condensed(values, indices, columns))

    key = "condensed", geometry, x.shape, stored.values.shape
    program = _program(programs, key, compute)
    weights = jax.device_put(tuple(stored))
    return lambda: np.asarray(program(x, *weights))


def _on_host(programs: Programs, layer: Layer, x: Any, form: str) -> Job:
    """The layer outside of XLA; what comes before and after is compiled for images."""
    host = host_layers.make(layer, form)
    if host.is_view:
        return lambda: host.after(host.multiply(host.before(x)))
    key = form, layer.geometry, x.shape
    before = _program(programs, ("before", *key), host.before)
    after = _program(programs, ("after", *key, len(layer.matrix)), host.after)
    return lambda: np.asarray(after(host.multiply(before(x))))
