"""Registers the methods, reparameterizations and datasets of the package.

Functions are registered by name, as "module:function", and imported on use, so that
this module does not import JAX.
"""

from typing import Any

from jaxsparse.config.registering import (
    register_dataset,
    register_method,
    register_reparameterization,
)

_TRANSFORMS = "jaxsparse.transforms:"

# Fields of the section "sparse" that several methods read.
_WHERE = ("sparsity", "distribution", "prunable", "dense")
_STORED = (*_WHERE, "pack_masks")  # by methods that store sparse weights
_AROUND = ("layer_sparsity", "first_layer_dense", "last_layer_dense")
_WHEN = ("begin_step", "end_step", "update_every")
_DROP = ("drop_fraction", "drop_schedule", "allow_regrow", "zero_regrown")
_GROWTH = ("grow_batch_size", "grow_batch_start")
_GRADUAL = ("schedule", "initial_sparsity", "min_layer_density", "structure")
_CHOSEN = (
    "pai_score",
    "score_iterations",
    "regrow",
    "score_batches",
    "score_batch_size",
)
_CHOSEN += ("ablation", "prune_disconnected", "min_layer_density")
# Records of options that the arguments of several methods are passed in.
_LAYERS = {"layers": f"{_TRANSFORMS}LayerOptions"}
_RAMP = _LAYERS | {"ramp": f"{_TRANSFORMS}SparsityRamp"}
_DYNAMIC: dict[str, Any] = {
    "receives": ("key", "axes"),
    "keeps_counts": True,
    "grows": True,
    "first_update": "one_interval",
}

register_method(
    "none", f"{_TRANSFORMS}fixed", label="dense", updates_masks=False, distribution=""
)
register_method(
    "static",
    f"{_TRANSFORMS}fixed",
    reads=(*_STORED, *_AROUND, *_CHOSEN, "structure"),
    updates_masks=False,
    keeps_counts=True,
    chooses=(
        *("pai_score", "distribution", "layer_sparsity", "structure"),
        *("score_iterations", "regrow"),
        *("ablation", "prune_disconnected", "dense"),
    ),
)
register_method(
    "gmp",
    f"{_TRANSFORMS}gradual_magnitude",
    arguments=(*_STORED, *_WHEN, *_GRADUAL),
    records=_RAMP,
    reads=_AROUND,
    receives=("axes",),
    requires=("end_step", "begin_step"),
    gradient="active",
    label="GMP",
    distribution="uniform",
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
register_method(
    "one_shot",
    f"{_TRANSFORMS}one_shot_magnitude",
    arguments={field: field for field in (*_STORED, "structure", "min_layer_density")}
    | {"begin_step": "step"},
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    requires=("begin_step",),
    gradient="active",
    label="one-shot magnitude",
    first_update="start",
    include_end=True,
    finishes_at="begin_step",
)
register_method(
    "set",
    f"{_TRANSFORMS}sparse_evolution",
    arguments=(*_STORED, *_WHEN, *_DROP, "drop_by_sign", "skip_update"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}SparseEvolutionOptions"},
    reads=_AROUND,
    gradient="active",
    label="SET",
    distribution="er",
    **_DYNAMIC,
)
register_method(
    "rigl",
    f"{_TRANSFORMS}rigl",
    arguments=(*_STORED, *_WHEN, *_DROP, "structure", "grow", "skip_update"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}RigLOptions"},
    reads=(*_AROUND, *_GROWTH),
    gradient="updates",
    label="RigL",
    distribution="erk",
    **_DYNAMIC,
)
register_method(
    "srigl",
    f"{_TRANSFORMS}srigl",
    arguments=(
        *(*_STORED, *_WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("skip_update", "min_salient", "keep_neurons"),
    ),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}SRigLOptions"},
    reads=(*_AROUND, *_GROWTH),
    gradient="updates",
    label="SRigL",
    distribution="erk",
    **(_DYNAMIC | {"keeps_counts": False}),
)
register_method(
    "mest",
    f"{_TRANSFORMS}mest",
    arguments=(*_STORED, *_WHEN, *_DROP, "structure", "soft_bound"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}MESTOptions"},
    reads=_AROUND,
    gradient="active",
    label="MEST",
    distribution="uniform",
    include_end="soft_bound",
    **_DYNAMIC,
)
register_method(
    "snfs",
    f"{_TRANSFORMS}snfs",
    arguments=(*_STORED, *_WHEN, *_DROP, "skip_update"),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}SNFSOptions"},
    reads=_AROUND,
    gradient="always",
    label="SNFS",
    distribution="uniform",
    **_DYNAMIC,
)
register_method(
    "granet",
    f"{_TRANSFORMS}granet",
    arguments=(
        *(*_STORED, *_WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("schedule", "initial_sparsity", "min_layer_density"),
    ),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}GraNetOptions"},
    reads=(*_AROUND, *_GROWTH),
    receives=("key", "axes"),
    requires=("end_step",),
    gradient="updates",
    label="GraNet",
    grows=True,
    distribution="erk",
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
register_method(
    "chts",
    f"{_TRANSFORMS}chts",
    arguments=(
        *(*_STORED, *_WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("skip_update", "initial_sparsity", "schedule"),
        *("first_exponent", "last_exponent"),
    ),
    records=_LAYERS | {"updates": f"{_TRANSFORMS}CHTsOptions"},
    reads=_AROUND,
    receives=("key", "axes"),
    requires=("end_step",),
    gradient="active",
    label="CHTs",
    grows=True,
    distribution="uniform",
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
register_method(
    "ac_dc",
    f"{_TRANSFORMS}ac_dc",
    arguments=(*_STORED, *_WHEN, "structure", "min_layer_density"),
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    requires=("end_step", "begin_step"),
    gradient="active",
    label="AC/DC",
    grows=True,
    first_update="start",
    include_end=True,
    finishes_at="end_step",
)
register_method(
    "ste",
    f"{_TRANSFORMS}straight_through",
    arguments=(*_WHERE, *_WHEN, *_GRADUAL),
    records=_RAMP,
    reads=_AROUND,
    receives=("axes",),
    gradient="always",
    label="straight-through",
    distribution="uniform",
    finishes_at="end_step",
)
register_method(
    "top_kast",
    f"{_TRANSFORMS}top_kast",
    arguments={
        field: field
        for field in (*_WHERE, "update_every", "backward_sparsity", "min_layer_density")
    }
    | {"outside_regularization": "regularization"},
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    gradient="backward",
    label="Top-KAST",
    distribution="uniform",
)
register_method(
    "sr_ste",
    "jaxsparse.factory.methods:sr_ste",
    arguments={field: field for field in ("prunable", "dense", "structure", "sparsity")}
    | {"outside_regularization": "decay"},
    records=_LAYERS,
    receives=("axes",),
    gradient="always",
    label="SR-STE",
)
register_method(
    "weight_sparse",
    f"{_TRANSFORMS}weight_sparse",
    arguments=(
        *(*_WHERE, *_WHEN, "schedule", "initial_sparsity", "min_layer_density"),
    ),
    records=_RAMP,
    reads=_AROUND,
    receives=("axes",),
    requires=("end_step",),
    gradient="always",
    label="weight-sparse",
    distribution="uniform",
    finishes_at="end_step",
)
register_method(
    "proximal_l1",
    f"{_TRANSFORMS}proximal_l1",
    arguments=("prunable", "dense", "l1_penalty"),
    records=_LAYERS,
    reads=("first_layer_dense", "last_layer_dense"),
    receives=("learning_rate",),
    gradient="always",
    label="proximal L1",
)
register_method(
    "s_ste",
    "jaxsparse.factory.methods:s_ste",
    arguments=("prunable", "dense", "structure", "sparsity"),
    records=_LAYERS,
    receives=("axes",),
    gradient="always",
    label="S-STE",
)
register_method(
    "str",
    f"{_TRANSFORMS}learned_threshold",
    arguments=("prunable", "dense", "threshold_logit"),
    records=_LAYERS,
    reads=("first_layer_dense", "last_layer_dense"),
    gradient="active",
    label="STR",
)
register_method(
    "continuous_sparsification",
    f"{_TRANSFORMS}continuous_sparsification",
    arguments=(
        *("prunable", "dense", "end_step"),
        *("mask_logit", "mask_penalty", "final_temperature"),
    ),
    records=_LAYERS,
    reads=("first_layer_dense", "last_layer_dense"),
    requires=("end_step",),
    gradient="active",
    label="continuous sparsification",
    finishes_at="end_step",
    finishes_after=True,
)
register_method(
    "edge_popup",
    f"{_TRANSFORMS}edge_popup",
    arguments=(*_WHERE, "train_others"),
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    gradient="always",
    label="edge-popup",
    distribution="uniform",
)
register_method(
    "gem_miner",
    f"{_TRANSFORMS}gem_miner",
    arguments=(
        *(*_WHERE, "end_step", "update_every", "score_penalty", "min_layer_density"),
    ),
    records=_LAYERS,
    reads=_AROUND,
    receives=("axes",),
    requires=("end_step",),
    gradient="active",
    label="Gem-Miner",
    first_update="one_interval",
    include_end=True,
    finishes_at="end_step",
)
register_reparameterization(
    "powerpropagation",
    f"{_TRANSFORMS}powerpropagation",
    arguments={"weight_power": "power"},
    label="powerpropagation",
    grows_from_zero=False,
)
register_reparameterization(
    "sign_in",
    f"{_TRANSFORMS}sign_in",
    arguments={
        field: field for field in ("inner_scaling", "rescale_every", "rescale_until")
    }
    | {"factor_decay": "decay"},
    label="Sign-In",
)

_DATASETS = "jaxsparse.data.datasets:"
register_dataset("digits", "jaxsparse.data.digits:read")
register_dataset(
    "python_docs",
    "jaxsparse.data.text:read_python_docs",
    label="Python documentation",
    predicts="next_token",
)
register_dataset("cinic10", f"{_DATASETS}read_cinic10")
register_dataset("tiny_imagenet", f"{_DATASETS}read_tiny_imagenet")
