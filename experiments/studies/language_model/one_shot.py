"""One-shot pruning of trained networks, without training afterwards."""

from typing import Any

import jax
import numpy as np

from configs import dense_python_docs
from experiments.studies.run_reader import Reader
from jaxsparse import factory, prune, select
from jaxsparse import masks as masks_lib

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
CALIBRATION = 128  # training windows for the inputs of layers, as many as in the paper
BATCH = 128  # windows that are evaluated at once


def losses(reader: Reader) -> dict[str, list[list[float]]]:
    """Prunes the networks of a dense run by Wanda and by magnitude, and evaluates them.

    The kernels of all blocks are pruned, each to the same sparsity. Of both methods,
    the weights into one output compete with each other, as in Wanda's paper. Wanda
    reads the first training windows.

    Args:
      reader: a dense run that has ended.

    Returns:
      Test losses in nats [seeds sparsities] of "wanda" and "magnitude".
    """
    config, dataset = reader.run.config, reader.run.dataset
    model = factory.make_model(config, classes=dataset.classes)
    functions = reader.functions()
    # A network reads all tokens of a window but the last.
    inputs = dataset.train.images[:CALIBRATION, :-1, 0, 0].astype(np.int32)
    layers = prune.LayerOptions(
        distribution="uniform",
        structure=select.fan_in(),
        prunable=dense_python_docs.PRUNED,
    )

    def apply(params: Any, tokens: Any) -> Any:
        return model.apply({"params": params}, tokens, train=False)

    @jax.jit
    def of_batch(params: Any, images: Any, labels: Any) -> Any:
        return functions.evaluate(params, {}, (images, labels))[0].sum()

    def of_test(params: Any) -> float:
        images, labels = dataset.test
        sums = [
            float(of_batch(params, images[i : i + BATCH], labels[i : i + BATCH]))
            for i in range(0, len(labels), BATCH)
        ]
        return sum(sums) / (len(labels) * (images.shape[1] - 1))

    found: dict[str, list[list[float]]] = {"wanda": [], "magnitude": []}
    for solution in reader.solutions(reader.end()):
        params = solution.params
        for name, rows in found.items():
            rows.append([])
            for sparsity in SPARSITIES:
                if name == "wanda":
                    kept = prune.wanda(apply, params, sparsity, inputs, layers=layers)
                else:
                    kept = prune.prune(params, sparsity, layers=layers)
                rows[-1].append(of_test(masks_lib.apply(kept, params)))
    return found
