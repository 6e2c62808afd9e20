"""One-shot pruning of trained networks, without training afterward."""

from typing import Any

from configs import dense_python_docs
from experiments import one_shot_pruning
from experiments.studies.run_reader import Reader
from jaxsparse import prune, select

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
CALIBRATION = 128  # training windows for the inputs of layers, as many as in the paper
# Which weights compete with each other: those into one output, or all of a layer.
COMPETE = {"output": select.fan_in(), "layer": None}
# Pairs of a method and its label.
METHODS = {
    "magnitude": "magnitude",
    "wanda": "Wanda",
    "obs": "SparseGPT",
    "alps": "ALPS",
}
LABELS = {
    f"{method}_{group}": f"{label} by {group}"
    for method, label in METHODS.items()
    for group in COMPETE
}


def measure(reader: Reader) -> dict[str, Any]:
    """Prunes the networks of a dense run by each method at once, and evaluates them.

    The kernels of all blocks are pruned, each to the same sparsity but for rounding.
    All methods but magnitude pruning read `CALIBRATION` training windows.

    Args:
      reader: a dense run that has ended.

    Returns:
      By the names in `LABELS`, a method and which weights compete: "loss", test losses
      in nats [seeds sparsities], and "sparsity", that of the blocks in percent
      [sparsities].
    """
    found = {}
    for group, structure in COMPETE.items():
        tested = one_shot_pruning.measure(
            reader.run,
            reader.state(reader.end()),
            SPARSITIES,
            examples=CALIBRATION,
            layers=prune.LayerOptions(
                distribution="uniform",
                structure=structure,
                prunable=dense_python_docs.PRUNED,
            ),
        )
        for method, of in tested.items():
            found[f"{method}_{group}"] = {
                "loss": of.loss.tolist(),
                "sparsity": (100 * of.sparsity.mean(axis=0)).tolist(),
            }
    return found
