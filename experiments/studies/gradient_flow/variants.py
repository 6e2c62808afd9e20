"""Variants: a run that prunes, and runs that train with its masks.

Scale `quick` trains 300 updates with 2 seeds; `cpu` the published 11,719 with 5 seeds
of LeNet-5 at 95 % and 3 of the MLP at 98 %; `full` both with 5 seeds, and ResNet-20 on
CIFAR-10 at 95 %, in place of the paper's ImageNet networks: for a GPU.

Every variant but the dense ones trains with the mask of the first seed of the pruning
run, so the seeds of a variant differ in the order of the data and, in some variants, in
the initial weights. Their seeds are not those of the pruning run: a ticket is trained
in another order of the data than the run of its mask.

`cifar16` has ResNet-8 on CIFAR-10 at 16x16 pixels, at 95 %. There every seed of a
variant trains the mask of the same seed of the pruning run, so that masks are
independent; `mask_M` runs, of three masks, have seeds that differ in the order of the
data, for ensembles; and runs that end in `_90` are at 90 %. Tickets are rewound to
initialization and to update 150, and train the whole length of training from there.
"""

from collections.abc import Mapping
from typing import Any

from experiments.studies.runs import Run
from jaxsparse.stages import saved_state_name

# Final checkpoint of the pruning run by its older name, which configs keep: hashes of
# configs are part of the recipes that records must fit.
_STAGE = "level_00/ticket"
END = f"{_STAGE}/last"

SETTINGS = ("lenet", "mlp", "resnet8", "resnet")
# Moments of variants that are interpolated to the pruned solution.
INTERPOLATED = {
    "lt": ("start", "end"),
    "lt_150": ("start", "end"),
    "scratch": ("start", "end"),
    "scratch_plus": ("end",),
    "rigl": ("end",),
    "rigl_plus": ("end",),
    "prune_restart": ("end",),
}
# Number of seeds by scale, and the interval of mask updates.
SEEDS = {"lenet": {"cpu": 5, "full": 5}, "mlp": {"cpu": 3, "full": 5}}
SEEDS["resnet"] = {"full": 5}
EVERY = {"lenet": "100step", "mlp": "500step", "resnet": "100step"}
# Dense networks of about as many weights as the sparse ones keep; for ResNet-20, whose
# widths are whole numbers, a quarter more.
SMALL = {
    "resnet8": {"model.width": 2},
    "lenet": {"model.conv_channels": (3, 3), "model.features": (27, 20)},
    "mlp": {"model.features": (8, 8)},
    "resnet": {"model.width": 4},
}

WITH_NORM = ("resnet8", "resnet")  # networks with BatchNorm
# Networks whose Hessians are measured.
CURVED = ("lenet", "resnet8")
# Steps at which states are saved for Hessians, by scale: also after mask updates.
SAVED = {"quick": (0, 100, 101, 300)}
SAVED["cpu"] = (0, 500, 501, 1000, 1001, 2000, 2001, 5000, 5001, 11719)
SAVED["full"] = SAVED["cpu"]


def of_setting(setting: str, scale: str) -> list[Run]:
    """Lists the runs of a setting, the one that prunes first.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
    """
    if scale == "cifar16" or setting == "resnet8":
        return _cifar16() if (setting, scale) == ("resnet8", "cifar16") else []
    if setting == "resnet" and scale != "full":
        return []
    quick = scale == "quick"
    variant = {"lenet": ":quick", "mlp": ":mlp_quick"} if quick else {"mlp": ":mlp"}
    data = "cifar" if setting == "resnet" else "mnist"
    recipe = f"configs/gradient_flow_{data}.py{variant.get(setting, '')}"
    seeds = {} if quick else {"replicates": SEEDS[setting][scale]}
    every = "20step" if quick else EVERY[setting]
    listed = []
    for name, fields in fields_of(setting, every).items():
        steps = SAVED[scale] if setting in CURVED else (0,)
        kept = tuple(f"{step}step" for step in steps)
        own = {"analysis.save_at": kept, **seeds, **fields}
        listed.append(Run(f"{setting}_{name}", recipe, own))
    return listed


# Removes the gradual pruning of the recipe.
PLAIN = {
    "sparse.begin_step": None,
    "sparse.end_step": None,
    "sparse.update_every": "100step",
}
STATIC = PLAIN | {"sparse.method": "static", "sparse.distribution": None}
DENSE = STATIC | {"sparse.method": "none", "sparse.sparsity": 0.9}


def fields_of(setting: str, every: str) -> dict[str, dict[str, Any]]:
    """Lists the variants of a setting with the fields that differ from the recipe.

    Args:
      setting: one of `SETTINGS`.
      every: interval of mask updates, of methods that have them.
    """
    pruned = {
        "warm_start.run": f"../{setting}_prune",
        "warm_start.masks": END,
        "warm_start.replicate": 0,
        "seeds.init": 1,
        "seeds.data": 1,
    }
    changing = {
        "sparse.begin_step": None,
        "sparse.end_step": "100%",
        "sparse.update_every": every,
        "sparse.drop_fraction": 0.3,
        "sparse.drop_schedule": "learning_rate",
        "analysis.at_mask_updates": True,
    }
    rigl = pruned | changing | {"sparse.method": "rigl"}
    # Other examples than those on which the norm of the gradient is measured.
    rigl |= {"sparse.grow_batch_size": 1000, "sparse.grow_batch_start": 1000}
    rigl |= {"sparse.skip_update": False}
    set_ = pruned | changing | {"sparse.method": "set", "sparse.drop_by_sign": False}
    static = pruned | STATIC
    ours, liu = {"init.sparse_init": "fan_in"}, {"init.sparse_init": "layer"}
    return {
        "prune": {},
        "lt": static | {"warm_start.weights": "init"},
        "scratch": static,
        "scratch_plus": static | ours,
        "rigl": rigl,
        "rigl_plus": rigl | ours,
        "set": set_,
        "set_plus": set_ | ours,
        "scratch_same": static | {"init.shared": True},
        "liu": static | liu,
        "rigl_liu": rigl | liu,
        "rigl_inverted": rigl | {"sparse.grow": "inverted"},
        "prune_restart": static | {"warm_start.weights": END},
        "small_dense": DENSE | SMALL[setting],
        "dense": DENSE,
    }


MASKS = 3  # whose tickets are trained in several orders of the data
_FIRST = (
    *("prune", "dense", "small_dense", "lt", "lt_150", "scratch", "scratch_plus"),
    *("set", "set_plus", "rigl", "rigl_plus", "rigl_inverted_plus"),
)


# Variants that are also trained at 90 %, for their accuracy.
AT_90 = ("prune", "lt", "lt_150", "scratch", "scratch_plus", "rigl_plus")


def _cifar16() -> list[Run]:
    """Lists the runs of ResNet-8, those of part 2 last."""
    setting, recipe = "resnet8", "configs/gradient_flow_cifar16.py"
    fields = fields_of(setting, "100step")
    fields["lt_150"] = fields["lt"] | {
        "warm_start.weights": saved_state_name(_STAGE, 150)
    }
    fields["rigl_inverted_plus"] = fields["rigl_plus"] | {"sparse.grow": "inverted"}
    kept = {name: (0, 100, 101, 1000, 1001) for name in ("rigl", "rigl_plus", "set")}
    kept |= {"prune": (0, 150)}
    own_mask = {"warm_start.replicate": None}
    # Weights that are read do not depend on a seed; weights that are drawn must not be
    # those that were pruned.
    read_weights = own_mask | {"seeds.init": 0}
    whole, listed = {}, []
    for name, own in fields.items():
        steps = {"analysis.save_at": tuple(f"{s}step" for s in kept.get(name, (0,)))}
        same = read_weights if "warm_start.weights" in own else own_mask
        started = {} if "warm_start.run" not in own else own | same
        whole[name] = own | started | steps
        part = 1 if name in _FIRST else 2
        listed.append(Run(f"{setting}_{name}", recipe, whole[name], part=part))
    for name in AT_90:
        own = whole[name] | {"sparse.sparsity": 0.9}
        if "warm_start.run" in own:
            own["warm_start.run"] = f"../{setting}_prune_90"
        listed.append(Run(f"{setting}_{name}_90", recipe, own, part=2))
    for mask in range(MASKS):
        few = {
            "replicates": 3,
            "warm_start.replicate": mask,
            "analysis.save_at": ("0step",),
        }
        for name, part in (("lt_150", 1), ("scratch", 1), ("lt", 2)):
            own = fields[name] | few
            listed.append(Run(f"{setting}_{name}_mask_{mask}", recipe, own, part=part))
    return sorted(listed, key=lambda run: run.part)


def setting_of(name: str) -> str:
    """Returns the setting of a run.

    Args:
      name: name of the run.
    """
    return name.partition("_")[0]


def variant_of(name: str) -> str:
    """Returns the variant of a run.

    Args:
      name: name of the run.
    """
    return name.partition("_")[2].partition("_mask_")[0]


# Parts of the measurements, and how each is called in those of a run.
_PARTS = {
    "predictions": "prediction",
    "gradients": "gradient",
    "changes": "change",
    "distances": "distances",
    "curvature": "curvature",
    "map": "sketches",
}


def arrange(setting: str, scale: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Arranges the measurements of runs by kind and variant.

    Args:
      setting: one of `SETTINGS`.
      scale: one of `studies.SCALES`.
      measured: measurements by variant.

    Returns:
      By variant "predictions", "gradients", "changes", "distances", "interpolations"
      (by variant and moment) and "curvature"; of the run that prunes "starts" and
      "signals"; "map" of all solutions; "orders", the predictions of several orders of
      the data by variant, one for each mask; "steps"; and "has_norm", whether the
      network has BatchNorm.
    """
    plain = {name: m for name, m in measured.items() if "_mask_" not in name}
    found: dict[str, Any] = {
        part: {
            name: m[kind]
            for name, m in plain.items()
            # Networks of another sparsity are compared by accuracy only.
            if m.get(kind) and (part == "predictions" or not name.endswith("_90"))
        }
        for part, kind in _PARTS.items()
    }
    found["interpolations"] = {
        f"{name}_{moment}": line | {"variant": name, "moment": moment}
        for name, m in plain.items()
        for moment, line in m.get("interpolations", {}).items()
    }
    pruned = plain.get("prune", {})
    found |= {kind: pruned.get(kind, {}) for kind in ("starts", "signals")}
    found["has_norm"] = setting in WITH_NORM
    found["steps"] = max(m["steps"] for m in plain.values())
    found["orders"] = {}
    for name, entry in measured.items():
        variant, _, mask = name.partition("_mask_")
        if mask:
            found["orders"].setdefault(variant, []).append(entry["prediction"])
    # Ensembles are compared over masks, once all are there.
    found["orders"] = {n: of for n, of in found["orders"].items() if len(of) == MASKS}
    if setting != "resnet8":
        # One mask, in several orders of the data.
        found["orders"] = {n: [entry] for n, entry in found["predictions"].items()}
    return found
