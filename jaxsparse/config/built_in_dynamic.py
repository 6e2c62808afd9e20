"""Registers the methods of the package that drop and grow weights during training.

As in `built_in`, functions are registered by name and imported on use.
"""

from jaxsparse.config.method_fields import (
    AROUND,
    DROP,
    DYNAMIC,
    GROWTH,
    LAYERS,
    STORED,
    TRANSFORMS,
    WHEN,
)
from jaxsparse.config.registering import register_method

register_method(
    "set",
    f"{TRANSFORMS}sparse_evolution",
    arguments=(*STORED, *WHEN, *DROP, "drop_by_sign", "skip_update"),
    records=LAYERS | {"updates": f"{TRANSFORMS}SparseEvolutionOptions"},
    reads=AROUND,
    gradient="active",
    label="SET",
    distribution="er",
    **DYNAMIC,
)
register_method(
    "rigl",
    f"{TRANSFORMS}rigl",
    arguments=(*STORED, *WHEN, *DROP, "structure", "grow", "skip_update"),
    records=LAYERS | {"updates": f"{TRANSFORMS}RigLOptions"},
    reads=(*AROUND, *GROWTH),
    gradient="updates",
    label="RigL",
    distribution="erk",
    **DYNAMIC,
)
register_method(
    "srigl",
    f"{TRANSFORMS}srigl",
    arguments=(
        *(*STORED, *WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("skip_update", "min_salient", "keep_neurons"),
    ),
    records=LAYERS | {"updates": f"{TRANSFORMS}SRigLOptions"},
    reads=(*AROUND, *GROWTH),
    gradient="updates",
    label="SRigL",
    distribution="erk",
    **(DYNAMIC | {"keeps_counts": False}),
)
register_method(
    "mest",
    f"{TRANSFORMS}mest",
    arguments=(*STORED, *WHEN, *DROP, "structure", "soft_bound"),
    records=LAYERS | {"updates": f"{TRANSFORMS}MESTOptions"},
    reads=AROUND,
    gradient="active",
    label="MEST",
    distribution="uniform",
    include_end="soft_bound",
    **DYNAMIC,
)
register_method(
    "neurrev",
    f"{TRANSFORMS}neurrev",
    arguments=(*STORED, *WHEN, *DROP, "skip_update", "grow", "negative_drop_fraction"),
    records=LAYERS | {"updates": f"{TRANSFORMS}NeurRevOptions"},
    reads=(*AROUND, *GROWTH),
    gradient="updates",
    label="NeurRev",
    distribution="erk",
    **DYNAMIC,
)
register_method(
    "snfs",
    f"{TRANSFORMS}snfs",
    arguments=(*STORED, *WHEN, *DROP, "skip_update"),
    records=LAYERS | {"updates": f"{TRANSFORMS}SNFSOptions"},
    reads=AROUND,
    gradient="always",
    label="SNFS",
    distribution="uniform",
    **DYNAMIC,
)
register_method(
    "granet",
    f"{TRANSFORMS}granet",
    arguments=(
        *(*STORED, *WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("schedule", "initial_sparsity", "min_layer_density"),
    ),
    records=LAYERS | {"updates": f"{TRANSFORMS}GraNetOptions"},
    reads=(*AROUND, *GROWTH),
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
    f"{TRANSFORMS}chts",
    arguments=(
        *(*STORED, *WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("skip_update", "initial_sparsity", "schedule"),
        *("first_exponent", "last_exponent"),
    ),
    records=LAYERS | {"updates": f"{TRANSFORMS}CHTsOptions"},
    reads=AROUND,
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
    "east",
    f"{TRANSFORMS}east",
    arguments=(
        *(*STORED, *WHEN, "drop_fraction", "drop_schedule", "zero_regrown"),
        *("skip_update", "grow", "density_factor", "cycles", "cycle_part"),
    ),
    records=LAYERS | {"updates": f"{TRANSFORMS}EASTOptions"},
    reads=(*AROUND, *GROWTH),
    receives=("key", "axes"),
    requires=("end_step",),
    gradient="updates",
    label="EAST",
    grows=True,
    distribution="erk",
    first_update="one_interval",
    include_end=True,
    finishes_at="end_step",
)
