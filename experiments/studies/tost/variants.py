"""The runs of the study: every aid with every mask at every sparsity.

A cell is a network, a mask and a sparsity. It has an arm without aids (`none`), one for
each aid alone, one with all of them, and at one sparsity some with other forms of an
aid. Within a cell weights, masks and the order of the data are the same, seed by seed.
Masks are of all layers but the last; those called `tickets` are found by iterative
magnitude pruning, about 20 % a level, of a network trained without aids. `dense` is the
network without masks.

`quick` trains 300 updates with 2 seeds. `cpu` has 5 seeds on MNIST: LeNet-300-100 for
4,690 updates (10 epochs) and LeNet-5, where skips can act, for 2,345; the paper trains
on no such data. `full` has LeNet-5 for 4,690 too, and ResNet-32 on CIFAR-10 for the
published 182 epochs with 3 seeds: for a GPU.
"""

from typing import Any, NamedTuple

from experiments.studies.runs import Run

SCALES = ("quick", "cpu", "full")
NETWORKS = ("mlp", "lenet", "resnet")
END = "level_00/ticket/last"


class Grid(NamedTuple):
    """What is combined for a network.

    Attributes:
      recipe: the recipe without aids.
      masks: how masks are found: of `MASKS`, or "tickets".
      sparsities: in percent, growing.
      aids: of `AIDS`.
      forms: of `FORMS`, tried besides.
      formed: sparsity at which these are, with random and SNIP masks.
      dense: whether the network without masks is trained with every aid too.
      shorter: fields that all runs have, such as a length.
      ghosts: fields that all arms have whose ghosts fade.
    """

    recipe: str
    masks: tuple[str, ...]
    sparsities: tuple[int, ...]
    aids: tuple[str, ...]
    forms: tuple[str, ...] = ()
    formed: int = 0
    dense: bool = False
    shorter: dict[str, Any] = {}  # noqa: RUF012 -- of an immutable tuple
    ghosts: dict[str, Any] = {}  # noqa: RUF012 -- of an immutable tuple


# How masks are chosen, by fields of the section "sparse".
MASKS: dict[str, dict[str, Any]] = {
    "random": {"pai_score": "random"},
    "snip": {"pai_score": "snip", "score_batches": 40, "score_batch_size": 125},
    "synflow": {"pai_score": "synflow", "score_iterations": 100},
}
# What switches each aid on.
AIDS: dict[str, dict[str, Any]] = {
    "activation": {"tost.activation": "swish"},
    "skips": {"tost.skips": "convolution"},
    "rescaling": {"gradinit.steps": 180},
    "smoothing": {
        "training.label_smoothing": 0.1,
        "training.smoothing_target": "others",
    },
}
# Other forms of one aid alone. What is as released never leaves the network, or is of
# the gradients of the dense one.
FORMS: dict[str, dict[str, Any]] = {
    "activation_released": AIDS["activation"] | {"tost.schedule": "constant"},
    "activation_sharpen": {
        "tost.activation": "p_swish",
        "tost.mode": "sharpen",
    },
    "skips_released": AIDS["skips"] | {"tost.schedule": "constant"},
    "skips_identity": {"tost.skips": "identity"},
    "rescaling_released": AIDS["rescaling"] | {"gradinit.mask_gradients": False},
}
# Levels of pruning that leave so much, at about 20 % a level as published.
LEVELS = {90: 10, 95: 13, 98: 18, 99: 21}
QUICK_LEVELS = 2

_DENSELY = ("activation", "rescaling", "smoothing")
_EVERYWHERE = ("activation", "skips", "rescaling", "smoothing")
_MLP_FORMS = ("activation_released", "activation_sharpen", "rescaling_released")
_MLP = Grid(
    "configs/tost_mnist.py:baseline",
    ("random", "snip", "synflow", "tickets"),
    (95, 98, 99),
    _DENSELY,
    _MLP_FORMS,
    98,
    dense=True,
)
_LENET = Grid(
    "configs/tost_mnist.py:lenet_5_baseline",
    ("random", "snip"),
    (95,),
    _EVERYWHERE,
    ("skips_released", "skips_identity"),
    95,
)
_RESNET = Grid(
    "configs/tost_cifar.py:baseline",
    ("random", "snip"),
    (90, 95, 98),
    _EVERYWHERE,
    ("skips_released", "skips_identity"),
    98,
    ghosts={"tost.end": "90ep"},
)
_SHORT = {
    "replicates": 2,
    "training.duration": "300step",
    "evaluation.every": "100step",
}
_HALF = {"training.duration": "2345step"}
GRIDS: dict[str, dict[str, Grid]] = {
    "quick": {
        "mlp": _MLP._replace(
            masks=("random", "tickets"), sparsities=(98,), forms=(), shorter=_SHORT
        ),
        "lenet": _LENET._replace(
            masks=("random",), aids=("skips",), forms=(), shorter=_SHORT
        ),
    },
    "cpu": {"mlp": _MLP, "lenet": _LENET._replace(shorter=_HALF)},
    "full": {"mlp": _MLP, "lenet": _LENET, "resnet": _RESNET},
}


class Cell(NamedTuple):
    """A mask at a sparsity in percent; 0 for the dense network."""

    mask: str
    sparsity: int

    def named(self, network: str, arm: str) -> str:
        """Names the run of an arm."""
        return f"{network}_{self.mask}_{self.sparsity}_{arm}"


def runs(scale: str) -> list[Run]:
    """Lists the runs of a scale, those that others start from first."""
    return [run for network in GRIDS[scale] for run in of_network(network, scale)]


def of_network(network: str, scale: str) -> list[Run]:
    """Lists the runs of a network, those that find tickets first."""
    grid = GRIDS[scale][network]
    listed = []
    for cell in cells(grid):
        if cell.mask == "tickets":
            listed.append(_pruning(grid, cell, network, scale))
    for cell in cells(grid):
        common = grid.shorter | _mask(cell, network, scale)
        for arm, fields in arms(grid, cell).items():
            short = scale == "quick" and "gradinit.steps" in fields
            own = {"gradinit.steps": 20} if short else {}
            name = cell.named(network, arm)
            listed.append(Run(name, grid.recipe, common | fields | own))
    return listed


def cells(grid: Grid) -> list[Cell]:
    """Lists the cells of a grid, the dense network first."""
    dense = [Cell("dense", 0)] if grid.dense else []
    return dense + [Cell(mask, at) for mask in grid.masks for at in grid.sparsities]


def arms(grid: Grid, cell: Cell) -> dict[str, dict[str, Any]]:
    """Lists the arms of a cell by name, each with the fields of its aids."""
    found: dict[str, dict[str, Any]] = {"none": {}}
    found |= {aid: AIDS[aid] for aid in grid.aids}
    if len(grid.aids) > 1:
        found["all"] = {k: v for aid in grid.aids for k, v in AIDS[aid].items()}
    if cell.sparsity == grid.formed and cell.mask in ("random", "snip"):
        found |= {form: FORMS[form] for form in grid.forms}
    return {name: fields | _fading(grid, fields) for name, fields in found.items()}


def _fading(grid: Grid, fields: dict[str, Any]) -> dict[str, Any]:
    """Returns what says when ghosts are gone, where there are some that go."""
    some = any(name.startswith("ghosts.") for name in fields)
    return grid.ghosts if some and fields.get("tost.schedule") != "constant" else {}


# What the recipe has for static masks, undone.
_UNMASKED = {
    "sparse.method": "none",
    "sparse.sparsity": 0.9,
    "sparse.distribution": "",
    "sparse.prunable": (),
}


def source(cell: Cell, network: str) -> str:
    """Names the run that finds the tickets of a cell."""
    return f"{network}_pruning_{cell.sparsity}"


def levels(cell: Cell, scale: str) -> int:
    """Returns how many levels find the tickets of a cell."""
    return QUICK_LEVELS if scale == "quick" else LEVELS[cell.sparsity]


def _pruning(grid: Grid, cell: Cell, network: str, scale: str) -> Run:
    """Makes the run that finds the tickets of a cell."""
    count = levels(cell, scale)
    fields = grid.shorter | _UNMASKED
    fields |= {
        "lottery.levels": count,
        "lottery.fraction": 1 - (1 - cell.sparsity / 100) ** (1 / count),
        "lottery.exclude": ("head/kernel",),
    }
    return Run(source(cell, network), grid.recipe, fields)


def _mask(cell: Cell, network: str, scale: str) -> dict[str, Any]:
    """Returns the fields that give a cell its mask."""
    if cell.mask == "dense":
        return _UNMASKED
    if cell.mask == "tickets":
        return {
            "sparse.distribution": "",
            "sparse.sparsity": cell.sparsity / 100,
            "warm_start.run": f"../{source(cell, network)}",
            "warm_start.weights": "init",
            "warm_start.masks": f"level_{levels(cell, scale):02d}/ticket/last",
        }
    own = {f"sparse.{name}": value for name, value in MASKS[cell.mask].items()}
    return own | {"sparse.sparsity": cell.sparsity / 100}
