"""The runs of the study: instability, pruning at several batch sizes, repelling.

- `NET_onset`: children of several steps of dense training, and of a sparse round.
  On MNIST at cpu scale of dense training alone, at the small batches.
- `NET_batch_B`: iterative pruning from initialisation at batches of B, with
  reinitialised controls and children of some rounds; `_warmup` with warm-up.
- `NET_repelled`: at large batches, repelled from the solutions of all rounds before.
- `NET_attracted`: at small batches, drawn to them.
- `NET_repelled_published`, `NET_attracted_published`: with the published strengths,
  where the two above have others (`STRENGTHS`).

`quick` is two rounds of everything on a part of the data. `cpu` has LeNet-300-100 on
MNIST for 5 of 25 epochs and 15 of 25 rounds, and LeNet-5 on 5,000 images of CIFAR-10
for 8 epochs and 8 rounds; 3 seeds. `full` is what was published: six batch sizes, with
and without warm-up, 25 rounds, LeNet-300-100 and ResNet-20 on all of CIFAR-10: for a
GPU.

Which batches count as small and large was chosen by the instability of dense networks
alone, before any pruning: see `BATCHES`.

Changed after a first series of all runs at cpu scale had been seen, in which the rounds
of a run shared one order of examples: each round has an order of its own, as rounds
that share one share the noise of SGD; and strengths on CIFAR-10 are ten times those
published, which had moved the angles between rounds by 0.01 right angles.
"""

from typing import Any, NamedTuple

from experiments.studies.runs import Run
from jaxsparse.training import solution_penalty

SCALES = ("quick", "cpu", "full")
NETWORKS = ("mnist", "cifar")


class Batches(NamedTuple):
    """Batch sizes of a network.

    Attributes:
      small: where dense training from initialisation is least stable.
      large: where it is most stable.
      between: others.
      warmup: those that are trained with warm-up too.
    """

    small: int
    large: int
    between: tuple[int, ...] = ()
    warmup: tuple[int, ...] = ()


# Of cpu, dense networks trained from two or three batch sizes for 9 (MNIST) or 8
# epochs had, between 2 children of 3 seeds each, an instability in points of test error
# of 3.2 at 16, 0.3 at 60 and 0.1 at 1,024 on MNIST, and of 21 at 16 and 2.8 at 128 on
# CIFAR-10.
# At full scale batches are the paper's, as far as they are known; 256 and 4,096 ours.
_PUBLISHED = (128, 256, 512, 1024, 2048, 4096)
BATCHES = {
    "quick": {"mnist": Batches(20, 200), "cifar": Batches(20, 200)},
    "cpu": {"mnist": Batches(16, 1024), "cifar": Batches(16, 128, (), (128,))},
    "full": {
        "mnist": Batches(60, 1024, (256,)),
        "cifar": Batches(128, 1024, (256, 512, 2048, 4096), _PUBLISHED),
    },
}
RECIPES = {
    "quick": {"mnist": ":quick", "cifar": ":small"},
    "cpu": {"mnist": "", "cifar": ":small"},
    "full": {"mnist": "", "cifar": ""},
}
_TINY = {
    "replicates": 2,
    "data.train_examples": 1000,
    "data.test_examples": 500,
    "training.duration": "2ep",
    "evaluation.every": "2ep",
    "lottery.levels": 2,
    "instability.copies": 2,
    "instability.levels": (0, 2),
    "instability.points": 5,
    "instability.examples": 500,
}
# Batches between stable and unstable, where warm-up is to help: 512 as published; of
# cpu those whose dense networks had an instability of 2.8 points.
HALF_STABLE = {("cifar", "cpu"): 128, ("cifar", "full"): 512}
# What a scale changes of the recipes: of the onset of stability, and of pruning.
ONSET: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "mnist": {},
        "cifar": {**_TINY, "instability.start_steps": ("0step", "20step")},
    },
    "cpu": {
        "mnist": {
            "data.batch_size": 16,
            "training.duration": "5ep",
            "evaluation.every": "5ep",
            "lottery.levels": 0,
            "instability.copies": 2,
            "instability.start_steps": (
                "0step",
                "100step",
                "500step",
                "2000step",
                "8000step",
            ),
            "instability.levels": (0,),
            "instability.compare_levels": False,
        },
        "cifar": {"instability.copies": 2, "instability.levels": (0, 8)},
    },
    "full": {"mnist": {}, "cifar": {}},
}
PRUNING: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {"mnist": {}, "cifar": _TINY},
    "cpu": {
        "mnist": {
            "training.duration": "5ep",
            "evaluation.every": "5ep",
            "lottery.levels": 15,
        },
        "cifar": {},
    },
    "full": {"mnist": {}, "cifar": {}},
}
# Of repelling and attracting: the published ones, and where there are others. A
# twentieth of the updates or fewer needs stronger ones to do anything.
PUBLISHED_STRENGTHS = (solution_penalty.REPEL, solution_penalty.ATTRACT)
STRENGTHS = {("cifar", "cpu"): (20.0, -10.0)}
WARMUP = {"cpu": "1ep", "full": "10ep"}  # an eighth of training, as published


def runs(scale: str) -> list[Run]:
    """Lists the runs of a scale, those of which the others are compared with first."""
    return [run for network in NETWORKS for run in of_network(network, scale)]


def of_network(network: str, scale: str) -> list[Run]:
    """Lists the runs of a network."""
    variant = RECIPES[scale][network]
    listed = []
    for name, fields in _pruning(network, scale).items():
        recipe = f"configs/stable_imp_{network}.py{variant}"
        listed.append(Run(f"{network}_{name}", recipe, fields))
    recipe = f"configs/stability_{network}.py{variant}"
    onset = Run(f"{network}_onset", recipe, ONSET[scale][network])
    return [*listed[:2], onset, *listed[2:]]


def names(network: str, scale: str) -> list[str]:
    """Lists the arms of a network, without its name."""
    return [run.name.removeprefix(f"{network}_") for run in of_network(network, scale)]


def strengths(network: str, scale: str) -> dict[str, tuple[float, float]]:
    """Lists strengths of repelling and attracting, by the ending of the arms' names."""
    others = STRENGTHS.get((network, scale))
    if others is None:
        return {"": PUBLISHED_STRENGTHS}
    return {"": others, "_published": PUBLISHED_STRENGTHS}


def _pruning(network: str, scale: str) -> dict[str, dict[str, Any]]:
    """Lists the arms that prune, and what differs from the recipe."""
    batches, plain = BATCHES[scale][network], PRUNING[scale][network]

    def at(size: int, **more: Any) -> dict[str, Any]:
        fields = {name.replace("__", "."): value for name, value in more.items()}
        return plain | {"data.batch_size": size} | fields

    small, large = batches.small, batches.large
    found = {f"batch_{small}": at(small), f"batch_{large}": at(large)}
    alone = {"instability__copies": 0}  # they are compared by accuracy and angle
    for name, pair in strengths(network, scale).items():
        repel, attract = pair
        found[f"repelled{name}"] = at(large, solution_penalty__strength=repel, **alone)
        found[f"attracted{name}"] = at(small, solution_penalty__strength=attract, **alone)
    found |= {f"batch_{size}": at(size) for size in batches.between}
    for size in batches.warmup:
        found[f"batch_{size}_warmup"] = at(size, schedule__warmup=WARMUP[scale])
    return found


def label(arm: str, network: str, scale: str) -> str:
    """Names an arm for people."""
    sizes = BATCHES[scale][network]
    names = {
        "small": f"batches of {sizes.small}",
        "large": f"batches of {sizes.large}",
    }
    for ending, (repel, attract) in strengths(network, scale).items():
        names[f"repelled{ending}"] = f"{sizes.large}, repelled by {repel:g}"
        names[f"attracted{ending}"] = f"{sizes.small}, attracted by {-attract:g}"
    plain = arm.removeprefix("batch_").replace("_warmup", ", warm-up")
    return names.get(arm, f"batches of {plain}")
