"""Variants: tickets after pre-training on all data and on parts of it.

- `NET_scored`: dense networks, from which every training example gets its EL2N score.
- `NET_k0`, `NET_k1`, `NET_k2`: tickets from 0, k and 2k updates of all data.
- `NET_easy_S`, `NET_random_S`, `NET_hard_S`: from k updates on S examples.
- `NET_noise_P`, but for `quick`: from k updates with P % of the labels wrong.

Two copies of every dense network also train from the rewind step: with the network they
determine how many examples are linearly mode connected.

`quick` has two sizes and one level. `cpu` has LeNet-300-100 on MNIST for 5 epochs and
10 levels, and LeNet-5 on 5,000 images of CIFAR-10 for 8 epochs and 8 levels, 3 seeds,
and half an epoch for k, and the sizes are as large parts of it, as published. `full` is
MNIST for 10 epochs and ResNet-20 on CIFAR-10 as published: for a GPU. Subsets of
CIFAR-10 are balanced by class, as in the authors' code. `cifar16` has ResNet-8 on
CIFAR-10 at 16x16 pixels: in part 1 five variants with one copy each, in part 2 other
sizes, updates and wrong labels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.studies.runs import Run, Scoring

SETTINGS = ("mnist", "cifar", "resnet8")
KINDS = {"easy": "easiest", "random": "random", "hard": "hardest"}


# Networks with BatchNorm score with the statistics of each batch, as the authors do.
BATCH_NORM = {"batch_norm": "batch"}


class Sizes(NamedTuple):
    """Numbers of updates and examples for a setting.

    Attributes:
      k: updates of pre-training.
      subsets: numbers of examples, rising.
      usual: the main one of them, 6.4 % of the data as published.
      noise: fractions of wrong labels.
    """

    k: int
    subsets: tuple[int, ...]
    usual: int
    noise: tuple[float, ...] = ()


NOISE = (0.1, 0.5)
_PUBLISHED = (256, 512, 1024, 2048, 3200, 6400, 12800, 25600)
SIZES = {
    "quick": {"mnist": Sizes(20, (256, 512), 256), "cifar": Sizes(10, (64, 128), 64)},
    "cpu": {
        "mnist": Sizes(240, (1920, 3840, 7680, 15360), 3840, NOISE),
        "cifar": Sizes(80, (160, 320, 640, 1280), 320, NOISE),
    },
    "cifar16": {"resnet8": Sizes(150, (800, 3200, 12_800), 3200, NOISE)},
    "full": {
        "mnist": Sizes(240, (1920, 3840, 7680, 15360), 3840, NOISE),
        "cifar": Sizes(200, _PUBLISHED, 3200, NOISE),
    },
}
_FIRST = ("k0", "k1", "easy_3200", "random_3200", "hard_3200")  # part 1 of cifar16
# Recipes of tickets and of the networks that score, by scale.
RECIPES: dict[str, dict[str, tuple[str, str]]] = {
    "quick": {
        "mnist": ("diet_mnist.py:quick", "diet_mnist.py:quick"),
        "cifar": ("diet_cifar.py:small", "diet_cifar.py:small"),
    },
    "cpu": {
        "mnist": ("diet_mnist.py:all", "diet_mnist.py:all"),
        "cifar": ("diet_cifar.py:small", "diet_cifar.py:small"),
    },
    "cifar16": {"resnet8": ("diet_cifar16.py:all", "diet_cifar16.py:scores")},
    "full": {
        "mnist": ("diet_mnist.py:all", "diet_mnist.py:all"),
        "cifar": ("diet_cifar.py:all", "diet_cifar.py:scores"),
    },
}
# Fields of the recipes of tickets that a scale changes.
CHANGED: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "mnist": {"lottery.levels": 1, "instability.points": 3},
        "cifar": {
            "replicates": 2,
            "data.train_examples": 1000,
            "data.test_examples": 500,
            "training.duration": "2ep",
            "evaluation.every": "2ep",
            "lottery.levels": 1,
            "instability.points": 3,
            "instability.examples": 500,
        },
    },
    "cpu": {
        "mnist": {
            "training.duration": "5ep",
            "evaluation.every": "5ep",
            "lottery.levels": 10,
        },
        "cifar": {"evaluation.every": "8ep"},
    },
    "cifar16": {
        "resnet8": {"instability.copies": 1, "instability.pairs": "parent"},
    },
    "full": {"mnist": {"lottery.levels": 10}, "cifar": {}},
}
# Fields of dense networks that score. They train for an eighth of the updates, as
# published, but a fifth or a tenth on MNIST, with other seeds than the tickets.
SCORED: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "mnist": {"replicates": 2, "training.duration": "40step"},
        "cifar": {
            "replicates": 2,
            "data.train_examples": 1000,
            "data.test_examples": 500,
            "training.duration": "1ep",
            "evaluation.every": "1ep",
            "schedule.name": "constant",
        },
    },
    "cpu": {
        "mnist": {"replicates": 10, "training.duration": "1ep"},
        "cifar": {
            "replicates": 10,
            "training.duration": "1ep",
            "evaluation.every": "1ep",
            "schedule.name": "constant",  # as it nearly is in the first eighth
        },
    },
    "cifar16": {
        "resnet8": {
            "replicates": 10,
            "training.duration": "195step",  # an eighth, as published
            "evaluation.every": "195step",
            "schedule.name": "constant",
        },
    },
    "full": {
        "mnist": {"replicates": 10, "training.duration": "1ep"},
        "cifar": {},
    },
}
_DENSE = {
    "seeds.init": 1000,
    "seeds.data": 1000,
    "lottery.levels": 0,
    "lottery.rewind": "0step",
    "lottery.controls": (),
    "instability.copies": 0,
    "instability.start_steps": ("0step",),
    "instability.compare_levels": False,
    "instability.points": 30,
    "instability.examples": 10_000,
    "pretraining.subset": None,
    "pretraining.size": 0,
}


def of_setting(setting: str, scale: str) -> list[Run]:
    """Lists the runs of a setting, the one that scores first.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
    """
    if setting not in RECIPES[scale]:
        return []
    tickets, dense = (f"configs/{name}" for name in RECIPES[scale][setting])
    scores = f"scores/{setting}_el2n.npz"
    fields = _DENSE | SCORED[scale][setting]
    has_norm = setting == "resnet8" or (setting, scale) == ("cifar", "full")
    scoring = Scoring("el2n", scores, BATCH_NORM if has_norm else {})
    scored = Run(f"{setting}_scored", dense, fields, (scoring,))
    later = scale == "cifar16"
    listed = [
        Run(
            f"{setting}_{name}",
            tickets,
            own,
            part=2 if later and name not in _FIRST else 1,
        )
        for name, own in of_tickets(setting, scale, scores).items()
    ]
    return [scored, *listed]


def of_tickets(setting: str, scale: str, scores: str) -> dict[str, dict[str, Any]]:
    """Lists the variants that prune, and the fields that differ from the recipe.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
      scores: file of scores, relative to the directory of the study.
    """
    sizes = SIZES[scale][setting]
    plain = {"pretraining.subset": None, "pretraining.size": 0, "instability.copies": 2}
    plain |= {"instability.levels": (0,), "instability.compare_levels": False}
    plain |= CHANGED[scale][setting]

    def at(step: int, **more: Any) -> dict[str, Any]:
        own = {f"pretraining.{name}": value for name, value in more.items()}
        steps = {
            "lottery.rewind": f"{step}step",
            "instability.start_steps": (f"{step}step",),
        }
        return plain | steps | own

    times = (0, 1, 2, 4) if scale == "cifar16" else (0, 1, 2)
    found = {f"k{time}": at(time * sizes.k) for time in times}
    for name, subset in KINDS.items():
        of: dict[str, Any] = {"balanced": setting != "mnist"}
        if name != "random":
            of["scores"] = f"../{scores}"
        for size in sizes.subsets:
            found[f"{name}_{size}"] = at(sizes.k, subset=subset, size=size, **of)
    for fraction in sizes.noise:
        found[f"noise_{round(100 * fraction)}"] = at(sizes.k, label_noise=fraction)
    return found


def arrange(setting: str, scale: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Arranges the measurements of runs for claims and figures.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.

    Returns:
      "variants", the runs that prune; "usual", the main size of subsets; and "scored",
      how many networks scored the examples, and after how many updates.
    """
    pruned = {name: found for name, found in measured.items() if name != "scored"}
    usual = SIZES[scale][setting].usual
    return {"variants": pruned, "usual": usual} | dict(measured.get("scored", {}))


def label(variant: str) -> str:
    """Returns the label of a variant.

    Args:
      variant: its name, without that of the setting.
    """
    names = {"k0": "all data, 0", "k1": "all data, k"}
    names |= {f"k{times}": f"all data, {times}k" for times in (2, 4)}
    kind, _, size = variant.partition("_")
    if kind == "noise":
        return f"{size} % wrong labels, k"
    return names.get(variant, f"{KINDS.get(kind, kind)} {size}, k")
