"""Chooses the form of every layer by measuring."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsparse import arguments, compaction, extras
from jaxsparse.compaction import checks, compacted
from jaxsparse.coupling.program import trace
from jaxsparse.predict import layer_trials, layers, segments, steps, timing
from jaxsparse.predict.layers import Folded
from jaxsparse.predict.predictor import Predictor, Trial
from jaxsparse.predict.segments import Compiled
from jaxsparse.predict.timing import Time
from jaxsparse.types import Masks

Apply = Callable[..., Any]
Choice = dict[int, str]
FORMS = ("csr", "direct", "condensed")
ON_HOST = ("csr", "direct")
MOST_MIXED = 2  # mixed programs that are compared with the dense one in turns
NOT_MEASURED = Time(float("nan"), float("nan"), float("nan"))


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


@arguments.check(
    apply=arguments.function, params=arguments.weights, seconds=arguments.number(1e-4)
)
def auto(
    apply: Apply, params: Any, masks: Masks, example: Any, *, seconds: float = 0.05
) -> Predictor:
    """Makes the fastest predictor of a pruned network for one shape of inputs.

    Dead units are removed first (`compaction.compact`). Then the forms of each layer
    are measured alone: the product or convolution of XLA, a condensed matrix in XLA,
    compressed sparse rows in SciPy, and a direct sparse product in Numba if the extra
    `predict` is installed. The last two use one core. Parts of few operations between
    layers outside of XLA are measured in NumPy too. From these times follow up to five
    mixed programs, some with one form for all layers. The two that are fastest in a
    first call are measured against the dense and the compacted program compiled by XLA
    as a whole. The fastest one is returned, so that the predictor is mixed only if that
    is faster.

    Outputs are those of `apply(params, *inputs)` with zeros outside the masks, up to
    rounding: 256 units in the last place of the largest output (3e-5 times), verified
    on the example and on random inputs. They can differ otherwise where an input of a
    layer is infinite or NaN, since pruned weights are not multiplied. Only layers in
    float32 leave their dense form.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode; any tree of outputs.
      params: concrete parameters, with all that `apply` reads. For a module whose
        widths are fields, pass the result of `compaction.compact_linen`, since only
        functions that read all widths from the leaves can get smaller here.
      masks: masks of the active weights; None or missing at other leaves.
      example: an input, or a tuple of all inputs, of the batch size that the predictor
        is for. Arrays: they are used to compare outputs.
      seconds: time for the measurement of each form, at least 1e-4. Noise of a few
        percent does not change which form is fastest where the gain is large.

    Returns:
      The predictor, with the table of all measurements.

    Raises:
      TypeError: if an argument has the wrong type, or is traced by `jax.jit`.
      ValueError: if `params` has no leaves, `example` has none, or `masks` are not
        boolean or do not fit.

    Examples:
      >>> params = {"a": jnp.eye(64), "b": jnp.ones((64, 2))}
      >>> masks = {"a": params["a"] > 0, "b": None}
      >>> apply = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"]
      >>> predictor = auto(apply, params, masks, jnp.ones((1, 64)), seconds=1e-3)
      >>> predictor(np.ones((1, 64), np.float32))
      array([[64., 64.]], dtype=float32)

    References:
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299, for condensed matrices; there, one form is used
      for all layers. Park, Li, Wen, Tang, Li, Chen, Dubey. Faster CNNs with Direct
      Sparse Convolutions and Guided Pruning. 2016. arXiv:1608.01409, for convolutions
      without patches; here, strided ones are divided by remainders of positions.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    _check_concrete(params=params, example=inputs)
    small = compaction.compact(apply, params, masks, _short(apply, params, inputs))
    active = compacted.masked(params, masks)
    wholes = {"dense": Whole(_jitted(apply, active), {})}
    if small.report.removed:
        wholes["compacted"] = Whole(_jitted(small.apply, small.params), {})
    program = trace(small.apply, small.params, *inputs)
    folded = layers.fold(program, small.params)
    times = layer_trials.measure(folded, seconds=seconds)
    start = layer_trials.start_time(seconds=seconds).median
    structure = jax.tree.structure(jax.eval_shape(apply, active, *inputs))
    for choice in _choices(times, start):
        name = _describe(choice)
        name += f" ({len(wholes)})" if name in wholes else ""
        wholes[name] = _mixed(folded, choice, structure, inputs, seconds)
    wrong = _wrong(wholes, inputs, checks.tolerance(program))
    jobs = {
        name: _job(whole.run, inputs)
        for name, whole in wholes.items()
        if name not in wrong
    }
    once = {name: timing.once(job) for name, job in jobs.items() if wholes[name].choice}
    slow = sorted(once, key=lambda name: once[name].median)[MOST_MIXED:]
    jobs = {name: job for name, job in jobs.items() if name not in slow}
    measured = timing.interleave(jobs, seconds=4 * seconds)
    best = min(measured, key=lambda name: measured[name].median)
    chosen = wholes[best]
    names = _names(folded)
    trials = [
        *_layer_rows(times, names, chosen.choice),
        *_part_rows(wholes, best),
        *(Trial("whole", name, *each, name == best) for name, each in measured.items()),
        *(Trial("whole", n, *once[n], False, "slower in the first call") for n in slow),
        *(Trial("whole", n, *NOT_MEASURED, False, "outputs differ") for n in wrong),
    ]
    named = {names[n]: chosen.choice.get(n, "dense") for n in folded.layers}
    return Predictor(chosen.run, inputs, named, tuple(trials))


@arguments.check(
    apply=arguments.function,
    params=arguments.weights,
    form=arguments.one_of(("condensed", "csr", "direct")),
)
def fixed(
    apply: Apply, params: Any, masks: Masks, example: Any, *, form: str
) -> Predictor:
    """Makes a predictor whose sparse layers all have one form; measures nothing.

    Layers with more than half of their weights stay dense, and so do convolutions in
    the form "condensed" and layers that have no condensed form.

    Args:
      apply: called as `apply(params, *inputs)`, in inference mode.
      params: concrete parameters, with all that `apply` reads.
      masks: masks of the active weights; None or missing at other leaves.
      example: an input, or a tuple of all inputs, of the batch size that the predictor
        is for.
      form: "condensed", "csr" or "direct".

    Returns:
      The predictor; its `trials` are empty.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if `params` or `example` have no leaves, `masks` do not fit, or `form`
        is unknown.
      ModuleNotFoundError: if Numba is not installed, for "direct".

    Examples:
      >>> params, masks = {"a": jnp.eye(64)}, {"a": jnp.eye(64) > 0}
      >>> apply = lambda p, x: x @ p["a"]
      >>> fixed(apply, params, masks, jnp.ones((1, 64)), form="csr").forms
      {'a': 'csr'}
    """
    if form == "direct":
        extras.require("numba", purpose="form='direct'", extra="predict")
    inputs = example if isinstance(example, tuple) else (example,)
    _check_concrete(params=params, example=inputs)
    active = compacted.masked(params, masks)
    folded = layers.fold(trace(apply, active, *inputs), active)
    choice = {
        number: form
        for number, layer in folded.layers.items()
        if layer_trials.is_possible(layer, form)
    }
    structure = jax.tree.structure(jax.eval_shape(apply, active, *inputs))
    plan = segments.build(steps.make(folded, choice))
    names = _names(folded)
    forms = {names[n]: choice.get(n, "dense") for n in folded.layers}
    return Predictor(_runner(plan, structure), inputs, forms, ())


def _runner(compiled: Compiled, structure: Any) -> Callable[..., Any]:
    """Returns the function of inputs that runs a compiled plan."""

    def run(*inputs: Any) -> Any:
        return structure.unflatten(segments.run(compiled, jax.tree.leaves(inputs)))

    return run


def _check_concrete(**trees: Any) -> None:
    """Raises an error for values that are traced or missing."""
    for name, each in trees.items():
        leaves = jax.tree.leaves(each)
        if not leaves:
            raise ValueError(f"{name}: expected at least one array, got none")
        for leaf in leaves:
            if isinstance(leaf, jax.core.Tracer):
                raise TypeError(
                    f"{name}: expected arrays, got values traced by JAX; call "
                    "predict.auto outside of jax.jit"
                )
            if not isinstance(leaf, jax.Array | np.ndarray) or not leaf.size:
                raise TypeError(
                    f"{name}: expected arrays with entries, got {leaf!r}; pass "
                    "concrete arrays, since outputs are computed"
                )


def _short(apply: Apply, params: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the first example of a batch, if the network takes it alone."""
    if checks.batch_sizes(inputs) == [None]:
        return inputs
    first = jax.tree.map(lambda leaf: leaf[:1], inputs)
    try:
        jax.eval_shape(apply, params, *first)
    except Exception:  # whatever the user's function raises
        return inputs
    return first


def _jitted(apply: Apply, params: Any) -> Callable[..., Any]:
    """Returns the program compiled as a whole."""
    compiled, weights = jax.jit(apply), jax.device_put(params)

    def run(*inputs: Any) -> Any:
        outputs = compiled(weights, *inputs)
        if isinstance(outputs, jax.Array):  # the most frequent case, without a tree
            return np.asarray(outputs)
        return jax.tree.map(np.asarray, outputs)

    return run


def _choices(times: Mapping[int, Any], start: float) -> list[Choice]:
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


def _describe(choice: Choice) -> str:
    counts = {form: [*choice.values()].count(form) for form in FORMS}
    return "mixed: " + ", ".join(f"{n} {form}" for form, n in counts.items() if n)


def _mixed(
    folded: Folded,
    choice: Choice,
    structure: Any,
    inputs: tuple[Any, ...],
    seconds: float,
) -> Whole:
    """Compiles a mixed program, and chooses where its parts run."""
    compiled = segments.build(steps.make(folded, choice))
    given = [np.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
    compiled, parts = _with_fastest_parts(compiled, given, seconds)
    return Whole(_runner(compiled, structure), choice, parts)


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


def _job(run: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[[], Any]:
    given = jax.tree.map(np.asarray, inputs)
    return lambda: run(*given)


def _wrong(
    wholes: Mapping[str, Whole], inputs: tuple[Any, ...], tolerance: float
) -> set[str]:
    """Finds programs whose outputs are not those of the dense one."""
    wrong = set()
    for given in (inputs, checks.random_inputs(inputs, 0, None)):
        expected = wholes["dense"].run(*given)
        for name, whole in wholes.items():
            if not checks.gap_of(expected, whole.run(*given))[1] <= tolerance:
                wrong.add(name)
    return wrong


def _names(folded: Folded) -> dict[int, str]:
    """Names the layers by their weights; a weight that is read again has a number."""
    names, seen = {}, {}
    for number, layer in folded.layers.items():
        seen[layer.name] = count = seen.get(layer.name, 0) + 1
        names[number] = layer.name if count == 1 else f"{layer.name} ({count})"
    return names


def _part_rows(wholes: Mapping[str, Whole], best: str) -> list[Trial]:
    """Makes the rows of the table for the parts of all mixed programs."""
    return [
        trial._replace(
            part=f"{name}, {trial.part}", chosen=trial.chosen and name == best
        )
        for name, whole in wholes.items()
        for trial in whole.parts
    ]


def _layer_rows(
    times: Mapping[int, Any], names: dict[int, str], choice: Choice
) -> list[Trial]:
    """Makes the rows of the table for all layers."""
    rows = []
    for number, by_form in times.items():
        for form, time in by_form.items():
            measured = isinstance(time, Time)
            note = "" if measured else time
            chosen = form == choice.get(number, "dense")
            values = time if measured else NOT_MEASURED
            rows.append(Trial(names[number], form, *values, chosen, note))
    return rows
