"""Initialization: gradient norms and signals before training."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import factory, initializers, replicates
from jaxsparse import masks as masks_lib
from jaxsparse.analysis import gradient_flow

if TYPE_CHECKING:
    from experiments.studies.gradient_flow.measure import RunFunctions

FLOW_EXAMPLES = 1000  # those on which the gradient norm is recorded in training
# Initial weights of masked networks.
DRAWS = {
    "masked": initializers.masked("glorot_uniform"),
    "layer": initializers.layer_scaled("glorot_uniform"),
    "fan_in": initializers.per_neuron(fan="in", scale=1.0),
    "fan_in_he": initializers.per_neuron(fan="in", scale=2.0),
}


def of_starts(run_fns: "RunFunctions") -> dict[str, list[float]]:
    """Measures the gradient norm at initialization, each seed with its own mask.

    The variants share the mask of one pruning run, and tickets also their weights. Here
    every seed of the pruning run gives a mask: with its own initial weights it is the
    ticket, and with new ones the start of training from scratch.

    Args:
      run_fns: the run that prunes.
    """
    run, loss = run_fns.reader.run, run_fns.functions.loss
    train = run.dataset.train
    batch = (
        jnp.asarray(train.images[:FLOW_EXAMPLES]),
        jnp.asarray(train.labels[:FLOW_EXAMPLES]),
    )

    @jax.jit
    def norm(params: Any, masks: Any) -> Any:
        grads = gradient_flow.gradient(loss, params, masks, batch)
        return gradient_flow.measure(grads, masks).norm

    draws = {"scratch": "masked", "scratch_plus": "fan_in", "liu": "layer"}
    found: dict[str, list[float]] = {name: [] for name in ("lt", *draws)}
    ends = run_fns.reader.solutions(run_fns.reader.end())
    begins = run_fns.reader.solutions("init")
    for r in run_fns.seeds:
        masks, own = ends[r].masks, begins[r].params
        found["lt"].append(float(norm(masks_lib.apply(masks, own), masks)))
        fresh = _fresh(run.network, r)
        for name, draw in draws.items():
            found[name].append(float(norm(_redraw(fresh, masks, draw, r), masks)))
    return found


def _fresh(network: Any, seed: int) -> Any:
    """Draws the weights of a dense network."""
    keys = jax.random.split(jax.random.key(seed), 1)
    return replicates.take(network.initialize(keys)[0], 0)


def _redraw(params: Any, masks: Any, draw: str, seed: int) -> Any:
    """Draws the weights of a masked network, one of `DRAWS`."""
    key = jax.random.key(100 + seed)
    return initializers.redraw(params, masks, DRAWS[draw], key=key)


def of_signals(run_fns: "RunFunctions") -> dict[str, Any]:
    """Measures signals of random inputs in masked networks, by initialization.

    Args:
      run_fns: the run that prunes.
    """
    run = run_fns.reader.run
    masks = run_fns.reader.solutions(run_fns.reader.end())[0].masks
    model = factory.make_model(run.config, classes=run.dataset.classes)
    activations = gradient_flow.captured(model)
    shape = run.dataset.train.images.shape[1:]
    found = {}
    for name in ("dense", *DRAWS):
        signals = []
        for r in range(5):
            params = _fresh(run.network, r)
            if name in DRAWS:
                params = _redraw(params, masks, name, r)
            key = jax.random.key(200 + r)
            signals.append(gradient_flow.propagate(activations, params, shape, key=key))
        found[name] = {
            "output": [float(one.output) for one in signals],
            "layers": {
                layer: [float(one.layers[layer]) for one in signals]
                for layer in signals[0].layers
            },
            "neurons": {
                layer: np.asarray(stds, np.float64).tolist()
                for layer, stds in signals[0].neurons.items()
            },
        }
    return found
