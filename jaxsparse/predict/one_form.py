"""Predictors with one form for all sparse layers."""

from collections.abc import Callable
from typing import Any

import jax

from jaxsparse import arguments, extras
from jaxsparse.compaction import compacted
from jaxsparse.coupling.program import trace
from jaxsparse.predict import layer_trials, layers, segments, steps, wholes
from jaxsparse.predict.predictor import Predictor
from jaxsparse.types import Masks

Apply = Callable[..., Any]


@arguments.check(
    apply=arguments.function,
    params=arguments.weights,
    form=arguments.one_of(wholes.FORMS),
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
    wholes.check_concrete(params=params, example=inputs)
    active = compacted.masked(params, masks)
    folded = layers.fold(trace(apply, active, *inputs), active)
    choice = {
        number: form
        for number, layer in folded.layers.items()
        if layer_trials.is_possible(layer, form)
    }
    structure = jax.tree.structure(jax.eval_shape(apply, active, *inputs))
    plan = segments.build(steps.make(folded, choice))
    names = layers.names_of(folded)
    forms = {names[n]: choice.get(n, "dense") for n in folded.layers}
    return Predictor(wholes.runner(plan, structure), inputs, forms, ())
