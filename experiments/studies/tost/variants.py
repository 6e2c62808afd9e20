"""Variants: every technique with every mask at every sparsity.

A cell is a mask and a sparsity of one setting. It has a variant without techniques
(`none`), one for each single technique, one with all of them, and at one sparsity some
with other forms of a technique. Within a cell, initial weights, masks and the order of
the data are the same, seed by seed. Masks cover all layers but the last. The masks
`tickets` are found by iterative magnitude pruning, about 20 % a level, of a network
trained without techniques. `dense` is the network without masks.

Scale `quick` trains 300 updates with 2 seeds. `cpu` has 5 seeds on MNIST: LeNet-300-100
for 4,690 updates (10 epochs) and LeNet-5, which has convolutions and so ghost skips,
for 2,345; the paper does not train on MNIST. `full` has LeNet-5 for 4,690 updates too,
and ResNet-32 on CIFAR-10 for the published 182 epochs with 3 seeds: for a GPU.
`cifar16` has ResNet-8 on CIFAR-10 at 16x16 pixels with 5 seeds, where random masks have
Erdos-Renyi-Kernel layers, and scores compete over all layers: no technique and all of
them in part 1, single techniques of random masks and tickets in part 2; the levels of
its tickets prune more at once, from one dense network. GradInit's 180 updates are not
part of the 1,560.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.studies.runs import Run
from jaxsparse import stages

SETTINGS = ("mlp", "lenet", "resnet8", "resnet")
LABELS = {
    "none": "no technique",
    "activation": "soft activations",
    "skips": "ghost skips",
    "rescaling": "GradInit",
    "smoothing": "label smoothing",
    "all": "all",
    "activation_released": "swish, not removed",
    "activation_sharpen": "p-swish, sharpened",
    "skips_released": "ghost skips, not removed",
    "skips_identity": "identity skips",
    "rescaling_released": "GradInit, dense gradients",
}
MASK_LABELS = {
    "dense": "dense",
    "random": "random",
    "snip": "SNIP",
    "synflow": "SynFlow",
    "tickets": "tickets",
}


class Cell(NamedTuple):
    """A mask at a sparsity in percent; 0 for the dense network."""

    mask: str
    sparsity: int

    def named(self, setting: str, variant: str) -> str:
        """Names the run of a variant.

        Args:
          setting: one of `SETTINGS`.
          variant: a variant of the cell.
        """
        return f"{setting}_{self.mask}_{self.sparsity}_{variant}"


class Limit(NamedTuple):
    """Variants that are trained with some masks at some sparsities only.

    Attributes:
      variants: keys of `TECHNIQUES`, which are then trained in part 2, or of `FORMS`.
      masks: keys of `MASKS`, or "tickets".
      sparsities: in percent.
    """

    variants: tuple[str, ...]
    masks: tuple[str, ...]
    sparsities: tuple[int, ...]


class Grid(NamedTuple):
    """The combinations for one setting.

    Attributes:
      recipe: the recipe without techniques.
      masks: keys of `MASKS`, or "tickets".
      sparsities: in percent, rising.
      techniques: keys of `TECHNIQUES`. They are trained everywhere, but for `limited`.
      limited: at most one limit for each technique, and those of other forms.
      dense: whether the network without masks is trained with every technique too.
      common: fields of all runs, such as a duration.
      annealed: fields of all variants with annealed ghosts.
      levels: levels of pruning to each sparsity; None for `LEVELS`.
    """

    recipe: str
    masks: tuple[str, ...]
    sparsities: tuple[int, ...]
    techniques: tuple[str, ...]
    limited: tuple[Limit, ...] = ()
    dense: bool = False
    common: dict[str, Any] = {}  # noqa: RUF012 -- of an immutable tuple
    annealed: dict[str, Any] = {}  # noqa: RUF012 -- of an immutable tuple
    levels: dict[int, int] | None = None


# Fields of the section "sparse" that choose each mask.
MASKS: dict[str, dict[str, Any]] = {
    "random": {"pai_score": "random"},
    "snip": {"pai_score": "snip", "score_batches": 40, "score_batch_size": 125},
    "synflow": {"pai_score": "synflow", "score_iterations": 100},
}
# Fields that enable each technique.
TECHNIQUES: dict[str, dict[str, Any]] = {
    "activation": {"tost.activation": "swish"},
    "skips": {"tost.skips": "convolution"},
    "rescaling": {"gradinit.steps": 180},
    "smoothing": {
        "training.label_smoothing": 0.1,
        "training.smoothing_target": "others",
    },
}
# Other forms of a single technique. "released" is as in the authors' code: activations
# and skips are never removed, and GradInit uses the gradients of the dense network.
FORMS: dict[str, dict[str, Any]] = {
    "activation_released": TECHNIQUES["activation"] | {"tost.schedule": "constant"},
    "activation_sharpen": {
        "tost.activation": "p_swish",
        "tost.mode": "sharpen",
    },
    "skips_released": TECHNIQUES["skips"] | {"tost.schedule": "constant"},
    "skips_identity": {"tost.skips": "identity"},
    "rescaling_released": TECHNIQUES["rescaling"] | {"gradinit.mask_gradients": False},
}
# Levels of pruning to each sparsity, at about 20 % a level as published.
LEVELS = {90: 10, 95: 13, 98: 18, 99: 21}
QUICK_LEVELS = 2

_DENSELY = ("activation", "rescaling", "smoothing")
_EVERYWHERE = ("activation", "skips", "rescaling", "smoothing")
_MLP_FORMS = ("activation_released", "activation_sharpen", "rescaling_released")
_SKIP_FORMS = ("skips_released", "skips_identity")
_MLP = Grid(
    "configs/tost_mnist.py:baseline",
    ("random", "snip", "synflow", "tickets"),
    (95, 98, 99),
    _DENSELY,
    (Limit(_MLP_FORMS, ("random", "snip"), (98,)),),
    dense=True,
)
_LENET = Grid(
    "configs/tost_mnist.py:lenet_5_baseline",
    ("random", "snip"),
    (95,),
    _EVERYWHERE,
    (Limit(_SKIP_FORMS, ("random", "snip"), (95,)),),
)
_RESNET = Grid(
    "configs/tost_cifar.py:baseline",
    ("random", "snip"),
    (90, 95, 98),
    _EVERYWHERE,
    (Limit(_SKIP_FORMS, ("random", "snip"), (98,)),),
    annealed={"tost.end": "90ep"},
)
_RESNET8 = Grid(
    "configs/tost_cifar16.py:baseline",
    ("random", "snip", "synflow", "tickets"),
    (90, 95, 98),
    _EVERYWHERE,
    (Limit(_EVERYWHERE, ("random", "tickets"), (90, 95, 98)),),
    dense=True,
    levels={90: 3, 95: 3, 98: 4},
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
            masks=("random", "tickets"), sparsities=(98,), limited=(), common=_SHORT
        ),
        "lenet": _LENET._replace(
            masks=("random",), techniques=("skips",), limited=(), common=_SHORT
        ),
    },
    "cpu": {"mlp": _MLP, "lenet": _LENET._replace(common=_HALF)},
    "cifar16": {"resnet8": _RESNET8},
    "full": {"mlp": _MLP, "lenet": _LENET, "resnet": _RESNET},
}


def of_setting(setting: str, scale: str) -> list[Run]:
    """Lists the runs of a setting, those that find tickets first.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
    """
    grid = GRIDS[scale].get(setting)
    if grid is None:
        return []
    listed = []
    for cell in cells(grid):
        common = grid.common | _mask(grid, cell, setting, scale)
        if cell.mask == "tickets":
            listed.append(_pruning(grid, cell, setting, scale))
        for variant, fields in of_cell(grid, cell).items():
            short = scale == "quick" and "gradinit.steps" in fields
            own = {"gradinit.steps": 20} if short else {}
            name = cell.named(setting, variant)
            part = 2 if variant in TECHNIQUES and variant in _limits(grid) else 1
            listed.append(Run(name, grid.recipe, common | fields | own, part=part))
    return listed


def cells(grid: Grid) -> list[Cell]:
    """Lists the cells of a grid, the dense network first.

    Args:
      grid: combinations for one setting.
    """
    dense = [Cell("dense", 0)] if grid.dense else []
    return dense + [Cell(mask, at) for mask in grid.masks for at in grid.sparsities]


def of_cell(grid: Grid, cell: Cell) -> dict[str, dict[str, Any]]:
    """Lists the variants of a cell by name, each with the fields of its techniques.

    Args:
      grid: combinations for one setting.
      cell: one of its cells.
    """
    limits = _limits(grid)
    absent = {
        name
        for name, limit in limits.items()
        if cell.mask not in limit.masks or cell.sparsity not in limit.sparsities
    }
    found: dict[str, dict[str, Any]] = {"none": {}}
    found |= {name: TECHNIQUES[name] for name in grid.techniques if name not in absent}
    if len(grid.techniques) > 1:
        each = [TECHNIQUES[name].items() for name in grid.techniques]
        found["all"] = {field: value for items in each for field, value in items}
    found |= {n: FORMS[n] for n in limits if n in FORMS and n not in absent}
    return {name: fields | _annealed(grid, fields) for name, fields in found.items()}


def _limits(grid: Grid) -> dict[str, Limit]:
    """Returns the limits of a grid by variant."""
    return {name: limit for limit in grid.limited for name in limit.variants}


def _annealed(grid: Grid, fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of annealing, if the variant has ghosts that are removed."""
    some = any(name.startswith("tost.") for name in fields)
    return grid.annealed if some and fields.get("tost.schedule") != "constant" else {}


# Removes the static masks of the recipe.
_UNMASKED = {
    "sparse.method": "none",
    "sparse.sparsity": 0.9,
    "sparse.distribution": None,
    "sparse.prunable": None,
}


def source(cell: Cell, setting: str) -> str:
    """Names the run that finds the tickets of a cell.

    Args:
      cell: a cell with the mask "tickets".
      setting: one of `SETTINGS`.
    """
    return f"{setting}_pruning_{cell.sparsity}"


def levels(grid: Grid, cell: Cell, scale: str) -> int:
    """Returns the number of levels that find the tickets of a cell.

    Args:
      grid: combinations for one setting.
      cell: a cell with the mask "tickets".
      scale: one of `studies.SCALES`.
    """
    if scale == "quick":
        return QUICK_LEVELS
    return (grid.levels or LEVELS)[cell.sparsity]


def _pruning(grid: Grid, cell: Cell, setting: str, scale: str) -> Run:
    """Makes the run that finds the tickets of a cell."""
    count = levels(grid, cell, scale)
    fields = grid.common | _UNMASKED
    fields |= {
        "lottery.levels": count,
        "lottery.fraction": 1 - (1 - cell.sparsity / 100) ** (1 / count),
        "lottery.exclude": ("head/kernel",),
    }
    if grid.levels:
        fields["lottery.dense_run"] = f"../{Cell('dense', 0).named(setting, 'none')}"
    return Run(source(cell, setting), grid.recipe, fields)


def _mask(grid: Grid, cell: Cell, setting: str, scale: str) -> dict[str, Any]:
    """Returns the fields that choose the mask of a cell."""
    if cell.mask == "dense":
        return _UNMASKED
    if cell.mask == "tickets":
        count = levels(grid, cell, scale)
        return {
            "sparse.distribution": None,
            "sparse.sparsity": cell.sparsity / 100,
            "warm_start.run": f"../{source(cell, setting)}",
            "warm_start.weights": "init",
            "warm_start.masks": stages.level_end(count, levels=count),
        }
    own = {f"sparse.{name}": value for name, value in MASKS[cell.mask].items()}
    if cell.mask != "random":
        own["sparse.distribution"] = "global"  # scores compete over all layers
    return own | {"sparse.sparsity": cell.sparsity / 100}


def arrange(setting: str, scale: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Arranges the measurements of runs by cell and variant.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by run, without the name of the setting.

    Returns:
      "cells", by cell and variant the measurements; and "planned", by cell the names of
      all its variants, measured or not.
    """
    grid, found = GRIDS[scale][setting], {}
    for cell in cells(grid):
        names = {v: cell.named("", v).removeprefix("_") for v in of_cell(grid, cell)}
        there = {v: measured[name] for v, name in names.items() if name in measured}
        if there:
            found[cell] = there
    planned = {cell: tuple(of_cell(grid, cell)) for cell in cells(grid)}
    return {"cells": found, "planned": planned}
