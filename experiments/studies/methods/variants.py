"""Variants: every method of sparse training at several sparsities.

Scales `quick` and `cpu` train LeNet-300-100 on MNIST at 95 % and 98 %, all methods as
in `configs/random_mnist.py`: `quick` for 300 updates with 2 seeds; `cpu` with 5 seeds
for 4,690 updates, 10 epochs, two fifths of the published length, with as many mask
updates. `cifar16` trains ResNet-8 on CIFAR-10 at 16x16 pixels as in
`configs/dense_cifar16.py`: at 95 %, where claims are judged, with 10 seeds in part 1,
and at 90 % and 98 % with 3 seeds in part 2. `full` trains LeNet-300-100 for the
published 11,719 updates, and ResNet-20 on CIFAR-10 at 90 % and 95 % for 160 epochs with
3 seeds, as in `configs/random_cifar.py`: for a GPU.

Settings without a recipe in `configs/` are ours: SNFS, GraNet, MEST and AC/DC update
masks after every twentieth of training, up to three quarters of it (AC/DC after a dense
tenth, and for ResNet-8 up to four fifths); GraNet starts at 50 %, as in its paper; Top-
KAST trains twice as many weights as it computes with, chosen every 100 updates;
straight-through masks are chosen at every update. Tickets end at the sparsity of the
other methods: after 7 levels, rewound to initialization, or for ResNet-8 after 3 or 4
levels, rewound to step 150. SWAMP, at 95 % only, has the same levels, with four
particles in each of five groups.

For ResNet-8, SET and CHTs update masks as long as RigL, replace as many weights by the
same cosine and skip the optimizer's step as often, so that only the rules of removal
and growth differ; SET removes by magnitude like RigL, and not by sign like its authors,
and CHTs updates masks also at the first step. CHTs has layers by ERK as the other
methods, in place of the uniform ones and the dense last layer of its authors. SRigL
rounds its layers to a whole number of inputs: at 95 % to 958 of 980 weights. The FLOPs
of AC/DC are counted at every change of phase, which takes an evaluation at each.

Methods whose training decides how many weights stay are left out (STR, continuous
sparsification, proximal L1): a given sparsity would take a search.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from experiments.studies.runs import Run

Fields = dict[str, Any]


class Method(NamedTuple):
    """A method at one sparsity.

    Attributes:
      name: as in names of runs.
      recipe: FILE or FILE:PRESET of `configs/`, without its directory and ".py".
      fields: fields that differ from the recipe.
    """

    name: str
    recipe: str
    fields: Fields


SPARSITIES = {
    "mnist": (0.95, 0.98),
    "resnet8": (0.95, 0.9, 0.98),
    "cifar": (0.9, 0.95),
}
SETTINGS = tuple(SPARSITIES)
TITLES = {
    "mnist": "LeNet-300-100 on MNIST",
    "resnet8": "ResNet-8 on CIFAR-10 at 16x16 pixels",
    "cifar": "ResNet-20 on CIFAR-10",
}
SCALES = {
    "mnist": ("quick", "cpu", "full"),
    "resnet8": ("cifar16",),
    "cifar": ("full",),
}
LEVELS = 7  # of iterative pruning, to exactly the sparsity of the other methods
GROUPS, PARTICLES = 5, 4  # of SWAMP; each group ends in one network
LEVELS_RESNET8 = {0.9: 3, 0.95: 3, 0.98: 4}
# Dense networks with about as many weights: hidden sizes of 784-a-b-10, and channels of
# ResNet-8, which has 8. Their numbers of weights are in the table of methods.
SMALL = {0.95: (16, 29), 0.98: (6, 39)}
SMALL_RESNET8 = {0.95: 2, 0.98: 1}  # none is close at 90 %
# Prunable weights of the one with 2 channels, and of the one with 8.
SMALL_WEIGHTS, RESNET8_WEIGHTS = 1_326, 19_608
# As in `configs/ntk_sap_mnist.py`.
NTK_SAP = {
    "sparse.pai_score": "ntk_sap",
    "sparse.score_iterations": 20,
    "sparse.score_batches": 5,
}
MANY, FEW = {"replicates": 10}, {"replicates": 3}
# Removes the sparse training of the recipe `random`.
DENSE = {"sparse.method": "none", "sparse.sparsity": 0.9}


def of_setting(setting: str, scale: str) -> list[Run]:
    """Lists the runs of a setting, by sparsity.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
    """
    if scale not in SCALES[setting]:
        return []
    return list(_resnet8() if setting == "resnet8" else _at_length(setting, scale))


def _resnet8() -> Iterator[Run]:
    """Lists the runs of ResNet-8; tickets of 95 % start from the dense networks."""
    # Orders of the data are those of level 0 in all runs but the later levels.
    order = {"data.reshuffle_each_level": True}
    saved = order | {"analysis.save_at": ("150step",)}
    yield Run("resnet8_dense", "configs/dense_cifar16.py", MANY | saved)
    for sparsity in SPARSITIES["resnet8"]:
        part, seeds = (1, MANY) if sparsity == 0.95 else (2, FEW)
        for name, recipe, fields in _methods_resnet8(sparsity):
            yield Run(
                f"resnet8_{name}_{round(100 * sparsity)}",
                f"configs/{recipe}_cifar16.py",
                order | seeds | fields,
                part=part,
            )


def _methods_resnet8(sparsity: float) -> Iterator[Method]:
    """Lists the methods for ResNet-8."""
    at = {"sparse.sparsity": sparsity, "sparse.distribution": "erk"}
    static = {"sparse.method": "static", "sparse.sparsity": sparsity}
    scored = static | {"sparse.score_batches": 40, "sparse.score_batch_size": 125}
    synflow = static | {"sparse.pai_score": "synflow", "sparse.score_iterations": 100}
    levels = LEVELS_RESNET8[sparsity]
    tickets = {
        "lottery.levels": levels,
        "lottery.fraction": 1 - (1 - sparsity) ** (1 / levels),
        "lottery.controls": (),
    }
    if sparsity == 0.95:  # of as many seeds
        tickets["lottery.dense_run"] = "../resnet8_dense"
    phases = {"sparse.update_every": "5%", "sparse.end_step": "80%"}
    if sparsity in SMALL_RESNET8:
        yield Method("small_dense", "dense", {"model.width": SMALL_RESNET8[sparsity]})
    uniform = static | {"sparse.distribution": "uniform"}
    yield Method("random_uniform", "dense", uniform)
    yield Method("random", "dense", static | {"sparse.distribution": "erk"})
    yield Method("snip", "dense", scored | {"sparse.pai_score": "snip"})
    yield Method("synflow", "dense", synflow)
    yield Method("ntk_sap", "dense", static | NTK_SAP)
    as_rigl = {
        "sparse.end_step": "75%",
        "sparse.drop_schedule": "cosine",
        "sparse.drop_by_sign": False,
        "sparse.skip_update": True,
    }
    yield Method("set", "set", at | as_rigl)
    yield Method("rigl", "rigl", at)
    srigl = {"sparse.method": "srigl", "sparse.keep_neurons": ("head/*",)}
    yield Method("srigl", "rigl", at | srigl)
    chts = {"sparse.method": "chts", "sparse.skip_update": True}
    yield Method("chts", "rigl", at | chts)
    yield Method("gmp", "gmp", at)
    if sparsity == 0.95:  # as many weights as the small dense network
        same = 1 - SMALL_WEIGHTS / RESNET8_WEIGHTS
        yield Method("gmp_small", "gmp", at | {"sparse.sparsity": same})
    yield Method(
        "ac_dc",
        "dense",
        phases
        | {
            "sparse.method": "ac_dc",
            "sparse.sparsity": sparsity,
            "sparse.begin_step": "10%",
            "evaluation.every": phases["sparse.update_every"],
        },
    )
    yield Method("tickets", "lth", tickets)
    yield Method(
        "tickets_rate_rewound",
        "lth",
        tickets | {"lottery.retrain": "learning_rate_rewind"},
    )
    particles = {
        "replicates": GROUPS * PARTICLES,
        "lottery.particles": PARTICLES,
        "lottery.dense_run": None,  # particles have their own orders of examples
    }
    if sparsity == 0.95:
        yield Method("swamp", "lth", tickets | particles)


def _at_length(data: str, scale: str) -> Iterator[Run]:
    """Lists the runs of LeNet-300-100 or ResNet-20 at the length of a scale."""
    preset = ":quick" if scale == "quick" else ""
    short = {"training.duration": "4690step"} if scale == "cpu" else {}
    yield Run(f"{data}_dense", f"configs/random_{data}.py{preset}", DENSE | short)
    for sparsity in SPARSITIES[data]:
        for name, recipe, fields in _methods(sparsity, data):
            if scale == "cpu" and recipe in ("set", "rigl", "rigl_erk"):
                fields = fields | {"sparse.update_every": "200step"}
            yield Run(
                f"{data}_{name}_{round(100 * sparsity)}",
                f"configs/{recipe}_{data}.py{preset}",
                fields | short,
            )


def _methods(sparsity: float, data: str) -> list[Method]:
    """Lists the methods for LeNet-300-100 or ResNet-20."""
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
        Method("random_uniform", "random", {"sparse.distribution": "uniform"}),
        Method("random", "random", {"sparse.distribution": "erk"}),
        Method("magnitude", "random", {"sparse.pai_score": "magnitude"}),
        Method("snip", "snip", {}),
        Method("grasp", "grasp", {}),
        Method("grasp_absolute", "grasp", {"sparse.pai_score": "grasp_absolute"}),
        Method("synflow", "synflow", {}),
        Method("set", "set", {}),
        Method("rigl", "rigl", {}),
        Method("rigl_erk", "rigl_erk", {}),
        *(
            Method(name, "random", {"sparse.method": name} | own)
            for name, own in more.items()
        ),
        Method("gmp", "gmp", {}),
    ]
    listed = [method._replace(fields=at | method.fields) for method in methods]
    listed.append(Method("tickets", "random", DENSE | tickets))
    if data == "mnist":
        sizes = {"model.features": SMALL[sparsity]}
        listed.append(Method("small_dense", "random", DENSE | sizes))
    return listed
