"""Every method of sparse training at equal sparsity.

Scales `quick` and `cpu` train LeNet-300-100 on MNIST at 95 % and 98 %, all methods as
in `configs/random_mnist.py`: `quick` for 300 updates with 2 seeds; `cpu` with 5 seeds
for 4,690 updates, 10 epochs, two fifths of the published length, with as many mask
updates. `full` trains the published 11,719 updates, and ResNet-20 on CIFAR-10 at 90 %
and 95 % for 160 epochs with 3 seeds, all methods as in `configs/random_cifar.py`: for a
GPU.

Settings without a recipe in `configs/` are ours: SNFS, GraNet, MEST and AC/DC update
masks after every twentieth of training, up to three quarters of it (AC/DC after a dense
tenth); GraNet starts at 50 %, as in its paper; Top-KAST trains twice as many weights as
it computes with, chosen every 100 updates; straight-through masks are chosen at every
update; tickets are those of 7 levels, rewound to initialization, that end at the
sparsity of the other methods.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.studies import launcher
from experiments.studies.runs import Run

LEVELS = 7  # of iterative pruning, to exactly the sparsity of the other methods
# Hidden sizes of dense networks with about as many weights: 784-a-b-10.
SMALL = {0.95: (16, 29), 0.98: (6, 39)}


def runs(scale: str) -> list[Run]:
    """Lists the runs of a scale, by network and sparsity.

    Args:
      scale: one of `studies.SCALES`.
    """
    listed = _of_network("mnist", (0.95, 0.98), scale)
    if scale == "full":
        listed += _of_network("cifar", (0.9, 0.95), scale)
    return listed


class _Methods:
    """A study whose report is the general one on several runs; see `study.Study`."""

    description = "every method of sparse training at equal sparsity"
    results: Sequence[str] = ("methods", "exploration", "densities")

    def runs(self, scale: str) -> list[Run]:
        """Lists the runs of a scale."""
        return runs(scale)

    def finish(self, folder: Path, scale: str, data_dir: str) -> Path:
        """Writes the report on all runs that have started, and returns its page."""
        del data_dir
        return launcher.report(runs(scale), folder)


STUDY = _Methods()


def _of_network(data: str, sparsities: tuple[float, ...], scale: str) -> list[Run]:
    preset = ":quick" if scale == "quick" else ""
    short = {"training.duration": "4690step"} if scale == "cpu" else {}
    listed = [Run(f"{data}_dense", f"configs/random_{data}.py{preset}", DENSE | short)]
    for sparsity in sparsities:
        for name, base, fields in _methods(sparsity, data):
            if scale == "cpu" and base in ("set", "rigl", "rigl_erk"):
                fields = fields | {"sparse.update_every": "200step"}
            folder = f"{data}_{name}_{round(100 * sparsity)}"
            recipe = f"configs/{base}_{data}.py{preset}"
            listed.append(Run(folder, recipe, fields | short))
    return listed


# Removes the sparse training of the recipe `random`.
DENSE = {"sparse.method": "none", "sparse.sparsity": 0.9}


def _methods(sparsity: float, data: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Lists name, recipe and differing fields of the methods at a sparsity."""
    at = {"sparse.sparsity": sparsity}
    fraction = 1 - (1 - sparsity) ** (1 / LEVELS)
    tickets = {"lottery.levels": LEVELS, "lottery.fraction": fraction}
    often = {"sparse.update_every": "5%", "sparse.end_step": "75%"}
    more = {
        "snfs": often,
        "granet": often,
        "mest": often,
        "ac_dc": often | {"sparse.begin_step": "10%"},
        "ste": {"sparse.update_every": "1step"},
        "top_kast": {
            "sparse.backward_sparsity": round(1 - 2 * (1 - sparsity), 6),
            # Its own regularization replaces weight decay.
            "sparse.outside_regularization": 2e-4,
            "optimizer.weight_decay": 0.0,
            "optimizer.weight_decay_mask": "all",
        },
    }
    methods = [
        ("random_uniform", "random", {"sparse.distribution": "uniform"}),
        ("random_erk", "random", {"sparse.distribution": "erk"}),
        ("magnitude", "random", {"sparse.pai_score": "magnitude"}),
        ("snip", "snip", {}),
        ("grasp", "grasp", {}),
        ("grasp_absolute", "grasp", {"sparse.pai_score": "grasp_absolute"}),
        ("synflow", "synflow", {}),
        ("set", "set", {}),
        ("rigl", "rigl", {}),
        ("rigl_erk", "rigl_erk", {}),
        *(
            (name, "random", {"sparse.method": name} | own)
            for name, own in more.items()
        ),
        ("gmp", "gmp", {}),
    ]
    listed = [(name, base, at | fields) for name, base, fields in methods]
    listed.append(("tickets", "random", DENSE | tickets))
    if data == "mnist":
        sizes = {"model.features": SMALL[sparsity]}
        listed.append(("small_dense", "random", DENSE | sizes))
    return listed
