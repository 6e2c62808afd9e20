"""The runs of the study: one that prunes, and all that train on what it kept.

`quick` trains 300 updates with 2 seeds; `cpu` the published 11,719 with 5 seeds of
LeNet-5 at 95 % and 3 of the MLP at 98 %; `full` all with 5 seeds, and ResNet-20 on
CIFAR-10 at 95 % besides, in place of the paper's ImageNet networks: for a GPU.

Every arm but the dense ones trains the mask of the first seed of the pruning run, so
that what differs within an arm is the order of the data and, where an arm says so, the
initial weights. Their seeds are not those of the pruning run: a ticket sees the data in
another order than the run its mask comes from.
"""

from typing import Any

from experiments.studies.runs import Run

SCALES = ("quick", "cpu", "full")
END = "level_00/ticket/last"

# Seeds by scale, and what lies between changes of masks.
NETWORKS = {"quick": ("lenet", "mlp"), "cpu": ("lenet", "mlp")}
NETWORKS["full"] = ("lenet", "mlp", "resnet")
SEEDS = {"lenet": {"cpu": 5, "full": 5}, "mlp": {"cpu": 3, "full": 5}}
SEEDS["resnet"] = {"full": 5}
EVERY = {"lenet": "100step", "mlp": "500step", "resnet": "100step"}
# Dense networks of about as many weights as the sparse ones keep; for ResNet-20, of
# which widths are whole numbers, a quarter more.
SMALL = {
    "lenet": {"model.conv_channels": (3, 3), "model.features": (27, 20)},
    "mlp": {"model.features": (8, 8)},
    "resnet": {"model.width": 4},
}

# Networks small enough for the exact Hessian.
CURVED = ("lenet",)
# By scale, when states are kept for Hessians: also after changes of masks.
KEPT = {"quick": (0, 100, 101, 300)}
KEPT["cpu"] = (0, 500, 501, 1000, 1001, 2000, 2001, 5000, 5001, 11719)
KEPT["full"] = KEPT["cpu"]


def runs(scale: str) -> list[Run]:
    """Lists the runs of a scale, those that others start from first."""
    return [run for network in NETWORKS[scale] for run in _of_network(network, scale)]


def _of_network(network: str, scale: str) -> list[Run]:
    quick = scale == "quick"
    variant = {"lenet": ":quick", "mlp": ":mlp_quick"} if quick else {"mlp": ":mlp"}
    data = "cifar" if network == "resnet" else "mnist"
    recipe = f"configs/gradient_flow_{data}.py{variant.get(network, '')}"
    seeds = {} if quick else {"replicates": SEEDS[network][scale]}
    every = "20step" if quick else EVERY[network]
    listed = []
    for name, fields in arms(network, every).items():
        steps = KEPT[scale] if network in CURVED else (0,)
        kept = tuple(f"{step}step" for step in steps)
        own = {"analysis.save_at": kept, **seeds, **fields}
        listed.append(Run(f"{network}_{name}", recipe, own))
    return listed


# What the recipe has for gradual pruning, undone.
PLAIN = {
    "sparse.begin_step": None,
    "sparse.end_step": None,
    "sparse.update_every": "100step",
}
STATIC = PLAIN | {"sparse.method": "static", "sparse.distribution": None}
DENSE = STATIC | {"sparse.method": "none", "sparse.sparsity": 0.9}


def arms(network: str, every: str) -> dict[str, dict[str, Any]]:
    """Lists the arms of a network by name, each with what differs from the recipe.

    Args:
      network: a name in `NETWORKS`.
      every: length between changes of masks, of methods that change them.
    """
    pruned = {
        "warm_start.run": f"../{network}_prune",
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
    # Not the examples that the norm of the gradient is measured on.
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
        "small_dense": DENSE | SMALL[network],
        "dense": DENSE,
    }
