"""Variants: instability, pruning at several batch sizes, repulsion and attraction.

- `NET_onset`: copies from several steps of dense training, and of a sparse level. On
  MNIST at cpu scale of dense training only, at the small batch size.
- `NET_batch_B`: iterative pruning from initialization at batches of B, with
  reinitialized controls and copies of some levels; `_warmup` with warm-up.
- `NET_repelled`: at large batches, repelled from the solutions of all levels before.
- `NET_attracted`: at small batches, attracted to them.
- `NET_repelled_published`, `NET_attracted_published`: with the published strengths,
  if the two above have others (`STRENGTHS`).

`quick` is two levels of everything on a part of the data. `cpu` has LeNet-300-100 on
MNIST for 5 of 25 epochs and 15 of 25 levels, and LeNet-5 on 5,000 images of CIFAR-10
for 8 epochs and 8 levels; 3 seeds. `full` is what was published: six batch sizes, with
and without warm-up, 25 levels, LeNet-300-100 and ResNet-20 on all of CIFAR-10: for a
GPU. `cifar16` is in a module of its own.

Which batches count as small and large was chosen by the instability of dense networks
alone, before any pruning: see `BATCHES`.

Changed after a first series of all runs at cpu scale had been seen, in which the levels
of a run shared one order of examples: each level has an order of its own, as levels
that share one share the noise of SGD; and strengths on CIFAR-10 are ten times those
published, which had moved the angles between levels by 0.01 right angles.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.studies.runs import Run
from experiments.studies.stable_imp import cifar16
from jaxsparse.training import solution_penalty

SETTINGS = ("mnist", "cifar", cifar16.SETTING)


class Batches(NamedTuple):
    """Batch sizes for a setting.

    Attributes:
      small: the one at which dense training from initialization is least stable.
      large: the one at which it is most stable.
      between: others.
      warmup: those that are also trained with warm-up.
    """

    small: int
    large: int
    between: tuple[int, ...] = ()
    warmup: tuple[int, ...] = ()


# At cpu scale, dense networks trained for 9 (MNIST) or 8 epochs had, between 2 copies
# of 3 seeds each, an instability in points of test error of 3.2 at 16, 0.3 at 60 and
# 0.1 at 1,024 on MNIST, and of 21 at 16 and 2.8 at 128 on CIFAR-10. At full scale the
# sizes are the paper's, as far as they are known; 256 and 4,096 are ours.
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
# Batch size between stable and unstable, at which warm-up should help: 512 as
# published; at cpu scale the one whose dense networks had an instability of 2.8 points.
HALF_STABLE = {("cifar", "cpu"): 128, ("cifar", "full"): 512}
# Fields of the recipes that a scale changes: of the onset of stability, and of pruning.
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
# Strengths of repulsion and attraction: the published ones, and others where training
# has a twentieth of the published updates or fewer, on which those have no effect.
PUBLISHED_STRENGTHS = (solution_penalty.REPEL, solution_penalty.ATTRACT)
STRENGTHS = {("cifar", "cpu"): (20.0, -10.0)}
WARMUP = {"cpu": "1ep", "full": "10ep"}  # an eighth of training, as published


def of_setting(setting: str, scale: str) -> list[Run]:
    """Lists the runs of a setting, those with which others are compared first.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
    """
    if scale == "cifar16" or setting == cifar16.SETTING:
        both = (setting, scale) == (cifar16.SETTING, "cifar16")
        return cifar16.runs() if both else []
    suffix = RECIPES[scale][setting]
    listed = []
    for name, fields in _pruning(setting, scale).items():
        recipe = f"configs/stable_imp_{setting}.py{suffix}"
        listed.append(Run(f"{setting}_{name}", recipe, fields))
    recipe = f"configs/stability_{setting}.py{suffix}"
    onset = Run(f"{setting}_onset", recipe, ONSET[scale][setting])
    return [*listed[:2], onset, *listed[2:]]


def strengths(setting: str, scale: str) -> dict[str, tuple[float, float]]:
    """Lists strengths of repulsion and attraction, by the suffix of variants.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
    """
    others = STRENGTHS.get((setting, scale))
    if others is None:
        return {"": PUBLISHED_STRENGTHS}
    return {"": others, "_published": PUBLISHED_STRENGTHS}


def _pruning(setting: str, scale: str) -> dict[str, dict[str, Any]]:
    """Lists the variants that prune, and the fields that differ from the recipe."""
    batches, plain = BATCHES[scale][setting], PRUNING[scale][setting]

    def at(size: int, **more: Any) -> dict[str, Any]:
        fields = {name.replace("__", "."): value for name, value in more.items()}
        return plain | {"data.batch_size": size} | fields

    small, large = batches.small, batches.large
    found = {f"batch_{small}": at(small), f"batch_{large}": at(large)}
    alone = {"instability__copies": 0}  # compared by accuracy and angle only
    for name, pair in strengths(setting, scale).items():
        repel, attract = pair
        found[f"repelled{name}"] = at(large, solution_penalty__strength=repel, **alone)
        found[f"attracted{name}"] = at(
            small, solution_penalty__strength=attract, **alone
        )
    found |= {f"batch_{size}": at(size) for size in batches.between}
    for size in batches.warmup:
        found[f"batch_{size}_warmup"] = at(size, schedule__warmup=WARMUP[scale])
    return found


def arrange(setting: str, scale: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Arranges the measurements of runs by their role in the claims.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.

    Returns:
      "variants": the runs that prune iteratively, "unstable" and "stable" among them;
      "penalty": these two with "repelled" and "attracted", whose levels are the same;
      "warmup": runs that differ in warm-up only, "plain" and "warm"; "batches": runs
      with copies of dense networks that differ in the batch size only, "small" and
      "large"; "onset": lines of instability by start; "rewound": runs of two levels by
      rewinding step; "settings": runs of the same kinds by setting, see
      `cifar16.of_settings`.
    """
    found: dict[str, Any] = {"warmup": {}, "rewound": {}, "settings": {}, "batches": {}}
    if setting == cifar16.SETTING:
        rewound = {f"k_{step}": step for step in cifar16.STARTS}
        pruned = {
            name: measured[name]
            for name in measured
            if not name.startswith(("k_", "dense"))
        }
        found["rewound"] = {
            step: measured[name] for name, step in rewound.items() if name in measured
        }
        found["settings"] = cifar16.of_settings(measured)
        chosen = ("dense", *rewound)
        found["batches"] = cifar16.batches(measured)
        penalty = cifar16.penalized(pruned)
        pruned = {_role(name): pruned[name] for name in pruned}
        pair = {"unstable": "plain", "stable_warmup": "warm"}
        found["warmup"] = {pair[n]: pruned[n] for n in pair if n in pruned}
    else:
        batches = BATCHES[scale][setting]
        roles = {f"batch_{batches.small}": "unstable"}
        roles |= {f"batch_{batches.large}": "stable"}
        pruned = {roles.get(n, n): m for n, m in measured.items() if n != "onset"}
        penalty, chosen = pruned, ("onset",)
        half = HALF_STABLE.get((setting, scale))
        pair = {f"batch_{half}": "plain", f"batch_{half}_warmup": "warm"}
        found["warmup"] = {pair[n]: measured[n] for n in pair if n in measured}
        if len(found["warmup"]) < len(pair):
            found["warmup"] = {}
        pair = {"unstable": "small", "stable": "large"}
        found["batches"] = {pair[n]: pruned[n] for n in pair if n in pruned}
    found["onset"] = [
        line for name in chosen for line in measured.get(name, {}).get("onset", [])
    ]
    return found | {"variants": pruned, "penalty": penalty}


def _role(name: str) -> str:
    """Returns "stable" for the run of `cifar16` with the stabilizer."""
    return "stable" if name == f"stable_{cifar16.STABILIZER}" else name


def label(variant: str, setting: str, scale: str) -> str:
    """Returns the label of a variant.

    Args:
      variant: its name, without that of the setting, or "unstable" or "stable".
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
    """
    if setting == cifar16.SETTING:
        return cifar16.label(variant)
    sizes = BATCHES[scale][setting]
    small, large = f"batches of {sizes.small:,}", f"batches of {sizes.large:,}"
    names = {"unstable": small, "stable": large}
    for ending, (repel, attract) in strengths(setting, scale).items():
        names[f"repelled{ending}"] = f"{large}, repelled by {repel:g}"
        names[f"attracted{ending}"] = f"{small}, attracted by {-attract:g}"
    if variant in names:
        return names[variant]
    size, _, warm = variant.removeprefix("batch_").partition("_")
    return f"batches of {int(size):,}{', warm-up' if warm else ''}"
