"""Chooses the form of every layer by measuring."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxsparse import arguments, compaction
from jaxsparse.compaction import checks, compacted
from jaxsparse.coupling.program import trace
from jaxsparse.predict import layer_trials, layers, timing
from jaxsparse.predict import wholes as wholes_lib
from jaxsparse.predict.predictor import Predictor, Trial
from jaxsparse.predict.timing import Time
from jaxsparse.predict.wholes import Apply, Choice, Whole
from jaxsparse.types import Masks

MOST_MIXED = 2  # mixed programs that are compared with the dense one in turns
NOT_MEASURED = Time(float("nan"), float("nan"), float("nan"))


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
    mixed programs, some with one form for all layers. After calls that compile, each of
    these is called once in each of up to five turns. The two with the shortest medians
    are measured longer, in turns with the dense and the compacted program compiled by
    XLA as a whole. The fastest of these is returned, so that the predictor is mixed
    only if that is faster.

    Outputs are those of `apply(params, *inputs)` with zeros outside the masks, up to
    rounding, verified on the example and on random inputs. Differences are at most 256
    units in the last place of the largest output, which are 3e-5 times this output in
    float32. If any value of the network is less precise than float32, they are at most
    8 units of the least precise dtype: 1/128 of the largest output in float16, 1/16 in
    bfloat16. Outputs can differ otherwise where an input of a layer is infinite or NaN,
    since pruned weights are not multiplied. Only layers in float32 leave their dense
    form.

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
    wholes_lib.check_concrete(params=params, example=inputs)
    small = compaction.compact(apply, params, masks, _short(apply, params, inputs))
    active = compacted.masked(params, masks)
    wholes = {"dense": Whole(wholes_lib.jitted(apply, active), {})}
    if small.report.removed:
        wholes["compacted"] = Whole(wholes_lib.jitted(small.apply, small.params), {})
    program = trace(small.apply, small.params, *inputs)
    folded = layers.fold(program, small.params)
    times = layer_trials.measure(folded, seconds=seconds)
    start = layer_trials.start_time(seconds=seconds).median
    structure = jax.tree.structure(jax.eval_shape(apply, active, *inputs))
    for choice in wholes_lib.choices(times, start):
        name = wholes_lib.describe(choice)
        name += f" ({len(wholes)})" if name in wholes else ""
        wholes[name] = wholes_lib.mixed(folded, choice, structure, inputs, seconds)
    wrong = wholes_lib.find_wrong(wholes, inputs, checks.tolerance(program))
    jobs = {
        name: wholes_lib.job(whole.run, inputs)
        for name, whole in wholes.items()
        if name not in wrong
    }
    mixed = {name: job for name, job in jobs.items() if wholes[name].choice}
    single = timing.singles(mixed, seconds=seconds)
    slow = sorted(mixed, key=lambda name: single[name].median)[MOST_MIXED:]
    jobs = {name: job for name, job in jobs.items() if name not in slow}
    measured = timing.interleave(jobs, seconds=4 * seconds)
    best = min(measured, key=lambda name: measured[name].median)
    chosen = wholes[best]
    names = layers.names_of(folded)
    trials = [
        *_layer_rows(times, names, chosen.choice),
        *_part_rows(wholes, best),
        *(Trial("whole", name, *each, name == best) for name, each in measured.items()),
        *(Trial("whole", n, *single[n], False, "slower in single calls") for n in slow),
        *(Trial("whole", n, *NOT_MEASURED, False, "outputs differ") for n in wrong),
    ]
    named = {names[n]: chosen.choice.get(n, "dense") for n in folded.layers}
    return Predictor(chosen.run, inputs, named, tuple(trials))


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
