"""One-shot pruning of trained networks, without training afterward."""

from configs import dense_python_docs
from experiments import one_shot_pruning
from experiments.studies.run_reader import Reader
from jaxsparse import prune, select

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
CALIBRATION = 128  # training windows for the inputs of layers, as many as in the paper


def losses(reader: Reader) -> dict[str, list[list[float]]]:
    """Prunes the networks of a dense run by each method at once, and evaluates them.

    The kernels of all blocks are pruned, each to the same sparsity. Of all methods,
    the weights into one output compete with each other, as in Wanda's paper. All but
    magnitude pruning read the first training windows.

    Args:
      reader: a dense run that has ended.

    Returns:
      Test losses in nats [seeds sparsities] by method.
    """
    found = one_shot_pruning.measure(
        reader.run,
        reader.state(reader.end()),
        SPARSITIES,
        examples=CALIBRATION,
        layers=prune.LayerOptions(
            distribution="uniform",
            structure=select.fan_in(),
            prunable=dense_python_docs.PRUNED,
        ),
    )
    return {name: tested.loss.tolist() for name, tested in found.items()}
