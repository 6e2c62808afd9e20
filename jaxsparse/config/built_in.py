"""Registers methods, reparameterizations and datasets of the package.

Functions are registered by name, as "module:function", and imported on use, so that
this module does not import JAX. Methods that drop and grow weights are in
`built_in_dynamic`.
"""

from jaxsparse.config.method_fields import (
    AROUND,
    CHOSEN,
    GRADUAL,
    LAYERS,
    RAMP,
    STORED,
    TRANSFORMS,
    WHEN,
    WHERE,
)
from jaxsparse.config.registering import (
    register_dataset,
    register_method,
    register_reparameterization,
)

register_method(
    "none", f"{TRANSFORMS}fixed", label="dense", updates_masks=False, distribution=""
)
register_method(
    "static",
    f"{TRANSFORMS}fixed",
    reads=(*STORED, *AROUND, *CHOSEN, "structure"),
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
    f"{TRANSFORMS}gradual_magnitude",
    arguments=(*STORED, *WHEN, *GRADUAL),
    records=RAMP,
    reads=AROUND,
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
    f"{TRANSFORMS}one_shot_magnitude",
    arguments={field: field for field in (*STORED, "structure", "min_layer_density")}
    | {"begin_step": "step"},
    records=LAYERS,
    reads=AROUND,
    receives=("axes",),
    requires=("begin_step",),
    gradient="active",
    label="one-shot magnitude",
    first_update="start",
    include_end=True,
    finishes_at="begin_step",
)
register_method(
    "ac_dc",
    f"{TRANSFORMS}ac_dc",
    arguments=(*STORED, *WHEN, "structure", "min_layer_density"),
    records=LAYERS,
    reads=AROUND,
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
    f"{TRANSFORMS}straight_through",
    arguments=(*WHERE, *WHEN, *GRADUAL),
    records=RAMP,
    reads=AROUND,
    receives=("axes",),
    gradient="always",
    label="straight-through",
    distribution="uniform",
    finishes_at="end_step",
)
register_method(
    "top_kast",
    f"{TRANSFORMS}top_kast",
    arguments={
        field: field
        for field in (*WHERE, "update_every", "backward_sparsity", "min_layer_density")
    }
    | {"outside_regularization": "regularization"},
    records=LAYERS,
    reads=AROUND,
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
    records=LAYERS,
    receives=("axes",),
    gradient="always",
    label="SR-STE",
)
register_method(
    "weight_sparse",
    f"{TRANSFORMS}weight_sparse",
    arguments=(*(*WHERE, *WHEN, "schedule", "initial_sparsity", "min_layer_density"),),
    records=RAMP,
    reads=AROUND,
    receives=("axes",),
    requires=("end_step",),
    gradient="always",
    label="weight-sparse",
    distribution="uniform",
    finishes_at="end_step",
)
register_method(
    "proximal_l1",
    f"{TRANSFORMS}proximal_l1",
    arguments=("prunable", "dense", "l1_penalty"),
    records=LAYERS,
    reads=("first_layer_dense", "last_layer_dense"),
    receives=("learning_rate",),
    gradient="always",
    label="proximal L1",
)
register_method(
    "s_ste",
    "jaxsparse.factory.methods:s_ste",
    arguments=("prunable", "dense", "structure", "sparsity"),
    records=LAYERS,
    receives=("axes",),
    gradient="always",
    label="S-STE",
)
register_method(
    "str",
    f"{TRANSFORMS}learned_threshold",
    arguments=("prunable", "dense", "threshold_logit"),
    records=LAYERS,
    reads=("first_layer_dense", "last_layer_dense"),
    gradient="active",
    label="STR",
)
register_method(
    "continuous_sparsification",
    f"{TRANSFORMS}continuous_sparsification",
    arguments=(
        *("prunable", "dense", "end_step"),
        *("mask_logit", "mask_penalty", "final_temperature"),
    ),
    records=LAYERS,
    reads=("first_layer_dense", "last_layer_dense"),
    requires=("end_step",),
    gradient="active",
    label="continuous sparsification",
    finishes_at="end_step",
    finishes_after=True,
)
register_method(
    "dynadiag",
    f"{TRANSFORMS}dynadiag",
    arguments=(*WHERE, "end_step", "start_temperature", "end_temperature"),
    records=LAYERS,
    reads=AROUND,
    receives=("axes",),
    requires=("end_step",),
    gradient="active",
    label="DynaDiag",
    distribution="uniform",
    finishes_at="end_step",
    finishes_after=True,
)
register_method(
    "edge_popup",
    f"{TRANSFORMS}edge_popup",
    arguments=(*WHERE, "train_others"),
    records=LAYERS,
    reads=AROUND,
    receives=("axes",),
    gradient="always",
    label="edge-popup",
    distribution="uniform",
)
register_method(
    "gem_miner",
    f"{TRANSFORMS}gem_miner",
    arguments=(
        *(*WHERE, "end_step", "update_every", "score_penalty", "min_layer_density"),
    ),
    records=LAYERS,
    reads=AROUND,
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
    f"{TRANSFORMS}powerpropagation",
    arguments={"weight_power": "power"},
    label="powerpropagation",
    grows_from_zero=False,
)
register_reparameterization(
    "sign_in",
    f"{TRANSFORMS}sign_in",
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
