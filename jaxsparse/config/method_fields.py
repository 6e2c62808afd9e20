"""Groups of config fields and records of options that several methods read."""

from typing import Any

TRANSFORMS = "jaxsparse.transforms:"

# Fields of the section "sparse".
WHERE = ("sparsity", "distribution", "prunable", "dense")
STORED = (*WHERE, "pack_masks")  # by methods that store sparse weights
AROUND = ("layer_sparsity", "first_layer_dense", "last_layer_dense")
WHEN = ("begin_step", "end_step", "update_every")
DROP = ("drop_fraction", "drop_schedule", "allow_regrow", "zero_regrown")
GROWTH = ("grow_batch_size", "grow_batch_start")
GRADUAL = ("schedule", "initial_sparsity", "min_layer_density", "structure")
CHOSEN = (
    "pai_score",
    "score_iterations",
    "regrow",
    "score_batches",
    "score_batch_size",
)
CHOSEN += ("ablation", "prune_disconnected", "min_layer_density")
# Records of options that the arguments of several methods are passed in.
LAYERS = {"layers": f"{TRANSFORMS}LayerOptions"}
RAMP = LAYERS | {"ramp": f"{TRANSFORMS}SparsityRamp"}
DYNAMIC: dict[str, Any] = {
    "receives": ("key", "axes"),
    "keeps_counts": True,
    "grows": True,
    "first_update": "one_interval",
}
