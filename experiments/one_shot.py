"""Prunes the trained networks of a run at once, without training, and tests them.

    python experiments/one_shot.py RUNDIR --data_dir=DIR
    python experiments/one_shot.py RUNDIR --methods=wanda,alps --sparsities=0.6,0.8

RUNDIR is a run directory of train.py, such as one of `configs/dense_mnist.py`. Its
dense network is pruned: that at the end of training, or that of level 0 of a
lottery-ticket run. A network that is already sparse is refused. The methods are:

    magnitude  removes the weights of smallest magnitude, of each output or each layer
               (`--compete`)
    wanda      weights times the norms of their inputs (`prune.wanda`)
    obs        SparseGPT, which also updates the other weights (`prune.obs`)
    alps       ADMM and conjugate gradients, which also update them (`prune.alps`)

All layers get the same sparsity. Nothing is written; the table of test accuracies and
losses, mean and standard deviation over the replicates, is printed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402

_DATA_DIR = command_line.data_dir()
_METHODS = flags.DEFINE_list(
    "methods", ["magnitude", "wanda", "obs", "alps"], "methods, separated by commas"
)
_SPARSITIES = flags.DEFINE_list(
    "sparsities", ["0.5", "0.7", "0.9"], "sparsities, each at least 0 and below 1"
)
_EXAMPLES = flags.DEFINE_integer(
    "examples", 1000, "training examples for the inputs of layers", lower_bound=1
)
_COMPETE = flags.DEFINE_enum(
    "compete", "output", ["output", "layer"], "weights that compete with each other"
)


def main(argv: Sequence[str]) -> None:
    """Checks the command, prunes, and prints the table.

    Args:
      argv: the name of the program and the run directory.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        folder, sparsities = _arguments(argv[1:])
        data_dir = command_line.folder_of_data(_DATA_DIR)
    except ValueError as error:
        command_line.fail(str(error))
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments import one_shot_pruning
    from experiments.studies.effects import spread
    from jaxsparse import factory, prune, select, tree

    try:
        run = factory.open_run(folder, data_dir=data_dir or None)
        names = set(tree.names(run.network.masks))
        found = one_shot_pruning.measure(
            run,
            factory.load_dense(run),
            sparsities,
            methods=_METHODS.value,
            examples=_EXAMPLES.value,
            layers=prune.LayerOptions(
                distribution="uniform",
                structure=select.fan_in() if _COMPETE.value == "output" else None,
                prunable=lambda name, _: name in names,
            ),
        )
    except ValueError as error:
        command_line.fail(str(error))
    print(f"{'method':<10} {'sparsity':>8} {'accuracy (%)':>16} {'loss':>16}")
    for name, tested in found.items():
        for i, sparsity in enumerate(sparsities):
            accuracy, loss = 100 * tested.accuracy[:, i], tested.loss[:, i]
            print(
                f"{name:<10} {sparsity:>8g} {spread(accuracy, 2):>16} "
                f"{spread(loss, 4):>16}"
            )
    print(f"n = {run.config.replicates} replicates of {folder}")


def _arguments(words: Sequence[str]) -> tuple[Path, list[float]]:
    """Reads the command line: the run directory, and the sparsities."""
    known = _METHODS.default
    if not _METHODS.value or not set(_METHODS.value) <= set(known):
        raise ValueError(f"--methods: expected some of {known}, got {_METHODS.value}")
    sparsities = command_line.numbers(
        _SPARSITIES, float, lambda s: 0 <= s < 1, "numbers from 0 on and below 1"
    )
    return command_line.run_folder(words), sparsities


if __name__ == "__main__":
    command_line.run(main, words="the folder of a run")
