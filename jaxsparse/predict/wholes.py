"""Whole programs with chosen forms of their layers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse.compaction import checks
from jaxsparse.predict import segments, steps, timing
from jaxsparse.predict.layers import Folded
from jaxsparse.predict.predictor import Trial
from jaxsparse.predict.segments import Compiled
from jaxsparse.predict.timing import Time

Apply = Callable[..., Any]
Choice = dict[int, str]
FORMS = ("csr", "direct", "condensed")
ON_HOST = ("csr", "direct")


class Whole(NamedTuple):
    """A whole network that can be run.

    Attributes:
      run: computes outputs as arrays of NumPy.
      choice: the forms of layers; empty if all are dense.
      parts: trials of the parts between layers, of this network alone.
    """

    run: Callable[..., Any]
    choice: Choice
    parts: tuple[Trial, ...] = ()


def check_concrete(**trees: Any) -> None:
    """Raises an error for values that are traced or missing.

    Args:
      **trees: trees of arrays by the name of the argument.
    """
    for name, each in trees.items():
        leaves = jax.tree.leaves(each)
        if not leaves:
            raise ValueError(f"{name}: expected at least one array, got none")
        for leaf in leaves:
            if isinstance(leaf, jax.core.Tracer):
                raise TypeError(
                    f"{name}: expected arrays, got values traced by JAX; make the "
                    "predictor outside of jax.jit"
                )
            if not isinstance(leaf, jax.Array | np.ndarray) or not leaf.size:
                raise TypeError(
                    f"{name}: expected arrays with entries, got {leaf!r}; pass "
                    "concrete arrays, since outputs are computed"
                )


def jitted(apply: Apply, params: Any) -> Callable[..., Any]:
    """Returns the program compiled by XLA as a whole.

    Args:
      apply: called as `apply(params, *inputs)`.
      params: its parameters.
    """
    compiled, weights = jax.jit(apply), jax.device_put(params)

    def run(*inputs: Any) -> Any:
        outputs = compiled(weights, *inputs)
        if isinstance(outputs, jax.Array):  # the most frequent case, without a tree
            return np.asarray(outputs)
        return jax.tree.map(np.asarray, outputs)

    return run


def runner(compiled: Compiled, structure: Any) -> Callable[..., Any]:
    """Returns the function of inputs that runs a compiled plan.

    Args:
      compiled: the plan.
      structure: structure of the tree of outputs.
    """

    def run(*inputs: Any) -> Any:
        return structure.unflatten(segments.run(compiled, jax.tree.leaves(inputs)))

    return run


def choices(times: Mapping[int, Any], start: float) -> list[Choice]:
    """Lists the mixed programs to try.

    The first has the fastest form of every layer. The second expects each layer on the
    host to start one more program. The third stays in XLA. The others have one form for
    all layers.

    Args:
      times: times of the forms of each layer.
      start: time to start a program, in milliseconds.
    """
    found: list[Choice] = []
    for extra in (0.0, start, float("inf")):
        choice = {}
        for number, by_form in times.items():
            costs = {
                form: time.median + (extra if form in ON_HOST else 0)
                for form, time in by_form.items()
                if isinstance(time, Time)
            }
            best = min(costs, key=costs.__getitem__, default="dense")
            if best != "dense":
                choice[number] = best
        if choice and choice not in found:
            found.append(choice)
    for form in ("direct", "condensed"):
        choice = {n: form for n, each in times.items() if _is_measured(each, form)}
        if choice and choice not in found:
            found.append(choice)
    return found


def _is_measured(by_form: Mapping[str, Any], form: str) -> bool:
    return isinstance(by_form.get(form), Time)


def describe(choice: Choice) -> str:
    """Words a choice, as in "mixed: 2 csr, 1 direct".

    Args:
      choice: the forms of layers.
    """
    counts = {form: [*choice.values()].count(form) for form in FORMS}
    return "mixed: " + ", ".join(f"{n} {form}" for form, n in counts.items() if n)


def mixed(
    folded: Folded,
    choice: Choice,
    structure: Any,
    inputs: tuple[Any, ...],
    seconds: float,
) -> Whole:
    """Compiles a mixed program, and chooses where its parts run.

    Args:
      folded: the program.
      choice: the forms of layers.
      structure: structure of the tree of outputs.
      inputs: the example, on which the parts are measured.
      seconds: time for each measurement.
    """
    compiled = segments.build(steps.make(folded, choice))
    given = [np.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
    compiled, parts = _with_fastest_parts(compiled, given, seconds)
    return Whole(runner(compiled, structure), choice, parts)


def _with_fastest_parts(
    compiled: Compiled, given: list[Any], seconds: float
) -> tuple[Compiled, tuple[Trial, ...]]:
    """Measures the parts between layers in XLA and in NumPy, and takes the faster."""
    values = dict(zip(compiled.inputs, given, strict=True)) | compiled.constants
    in_numpy, trials = [], []
    count = len(compiled.segments)
    for i, segment in enumerate(compiled.segments, start=1):
        fast = False
        # A program without layers on the host has one part, which stays in XLA.
        if segment.numpy is not None and segment.writes and count > 1:
            read = steps.to_numpy([values[number] for number in segment.reads])
            jobs = {
                "xla": _part(segment.compiled, read),
                "numpy": _part(segment.numpy, read),
            }
            times = timing.interleave(jobs, seconds=seconds)
            fast = times["numpy"].median < times["xla"].median
            trials += [
                Trial(f"part {i} of {count}", form, *time, (form == "numpy") == fast)
                for form, time in times.items()
            ]
        in_numpy.append(fast)
        segments.run_segment(segment, values, in_numpy=fast)
    return compiled._replace(in_numpy=tuple(in_numpy)), tuple(trials)


def _part(run: Callable[..., Any], read: list[Any]) -> Callable[[], Any]:
    return lambda: steps.to_numpy(run(*read))


def job(run: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[[], Any]:
    """Returns a function without arguments for the timing of a program.

    Args:
      run: the program.
      inputs: its inputs.
    """
    given = jax.tree.map(np.asarray, inputs)
    return lambda: run(*given)


def find_wrong(
    wholes: Mapping[str, Whole], inputs: tuple[Any, ...], tolerance: float
) -> set[str]:
    """Finds programs whose outputs are not those of the dense one.

    Args:
      wholes: programs by name, with "dense" among them.
      inputs: the example; random inputs of the same shapes are tried too.
      tolerance: largest difference, relative to the largest output.
    """
    wrong = set()
    for given in (inputs, checks.random_inputs(inputs, 0, None)):
        expected = wholes["dense"].run(*given)
        for name, whole in wholes.items():
            if not checks.gap_of(expected, whole.run(*given))[1] <= tolerance:
                wrong.add(name)
    return wrong
