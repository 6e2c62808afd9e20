"""Prunes the trained networks of a run without training afterward, and tests them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxsparse import factory, layer_options, prune, replicates, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.factory import input_data
from jaxsparse.training.state import TrainState
from jaxsparse.types import Params

BATCH = 128  # examples that are tested at once
METHODS = ("magnitude", "wanda", "obs", "alps")


class Tested(NamedTuple):
    """Results on the test set, arrays [replicates sparsities].

    Attributes:
      loss: mean loss in nats.
      accuracy: fraction of correct predictions.
      sparsity: fraction of the prunable weights that is zero, which differs from the
        wanted one where counts are rounded.
    """

    loss: Float[np.ndarray, "r s"]
    accuracy: Float[np.ndarray, "r s"]
    sparsity: Float[np.ndarray, "r s"]


def prune_once(
    method: str,
    apply: Callable[..., Any],
    params: Params,
    sparsity: float,
    inputs: Any,
    layers: prune.LayerOptions,
) -> Params:
    """Prunes a network.

    Args:
      method: one of `METHODS`.
      apply: called as `apply(params, inputs)`, in inference mode.
      params: trained parameters.
      sparsity: fraction of the prunable weights to remove.
      inputs: inputs of training examples.
      layers: which leaves are pruned, and which weights compete.

    Returns:
      The parameters, with zeros for pruned weights; "obs" and "alps" update others.
    """
    if method in ("obs", "alps"):
        function = prune.obs if method == "obs" else prune.alps
        return function(apply, params, sparsity, inputs, layers=layers).params
    if method == "wanda":
        kept = prune.wanda(apply, params, sparsity, inputs, layers=layers)
    else:
        kept = prune.prune(params, sparsity, layers=layers)
    return masks_lib.apply(kept, params)


def measure(
    run: factory.TrainedRun,
    state: TrainState,
    sparsities: Sequence[float],
    *,
    methods: Sequence[str] = METHODS,
    examples: int,
    layers: prune.LayerOptions,
) -> dict[str, Tested]:
    """Prunes the networks of a trained state, each from its weights, and tests them.

    Args:
      run: the run.
      state: trained state of the run [r ...].
      sparsities: fractions of the prunable weights to remove.
      methods: some of `METHODS`.
      examples: number of training examples, evenly spaced, without augmentation.
      layers: which leaves are pruned, and which weights compete.

    Returns:
      The results of each method.

    Raises:
      ValueError: if an option does not fit the network.
    """
    dataset = run.dataset
    params = transforms.forward_params(state.params, state.opt_state)
    networks = replicates.split((params, state.batch_stats))
    functions = factory.make_eval_fns(run.config, dataset, networks[0][1])
    model = factory.make_model(run.config, classes=dataset.classes)
    task = input_data.make_task(run.config, dataset)
    inputs = task.inputs(jnp.asarray(evenly_spaced(dataset.train.images, examples)))

    @jax.jit
    def of_batch(params: Any, stats: Any, images: Any, labels: Any) -> Any:
        loss, correct = functions.evaluate(params, stats, (images, labels))
        return jnp.sum(loss), jnp.sum(correct), loss.size

    def of_test(params: Any, stats: Any) -> tuple[float, float]:
        sums = [
            of_batch(params, stats, *(part[i : i + BATCH] for part in dataset.test))
            for i in range(0, len(dataset.test.labels), BATCH)
        ]
        loss, correct, count = (
            sum(map(float, column)) for column in zip(*sums, strict=True)
        )
        return loss / count, correct / count

    found: dict[str, list[list[tuple[float, ...]]]] = {name: [] for name in methods}
    for params, stats in networks:

        def apply(params: Any, inputs: Any, stats: Any = stats) -> Any:
            variables = {"params": params, "batch_stats": stats}
            return model.apply(variables, inputs, train=False)

        for name, rows in found.items():
            rows.append([])
            for s in sparsities:
                pruned = prune_once(name, apply, params, s, inputs, layers)
                sparsity = sparsity_of(pruned, layers.prunable)
                rows[-1].append((*of_test(pruned, stats), sparsity))
    return {
        name: Tested(*np.moveaxis(np.array(rows), -1, 0))
        for name, rows in found.items()
    }


def evenly_spaced(examples: Any, count: int) -> np.ndarray:
    """Returns some of the examples, from the first on, at equal distances.

    Successive examples may be alike, as windows of one text.

    Args:
      examples: all examples [n ...].
      count: how many are returned, at most n.
    """
    count = min(count, len(examples))
    places = np.arange(count) * len(examples) // count
    return np.asarray(examples[places])


def sparsity_of(params: Params, prunable: layer_options.Prunable) -> float:
    """Returns the fraction of the prunable weights that is zero.

    Args:
      params: parameters with zeros for pruned weights.
      prunable: which leaves can be pruned, see `LayerOptions`.
    """
    selected = masks_lib.ones(params, prunable=prunable)
    kept = masks_lib.tree_map(lambda _, leaf: leaf != 0, selected, params)
    return masks_lib.sparsity(kept)
