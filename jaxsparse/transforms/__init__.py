"""Sparsity as optax gradient transformations.

`sparsify` is the engine; every named method is a call of it, or of `latent` where dense
weights are trained and few are computed with. What wraps an optimiser here is an
ordinary `optax.GradientTransformationExtraArgs`: after `optax.apply_updates` the
weights outside the masks are exactly zero, in any loop; where other links stand outside
the wrapper, after `apply_updates` of this package. The modules:

    pruning         fixed, gradual_magnitude, one_shot_magnitude, granet
    dynamic         sparse_evolution, rigl, mest
    redistribution  snfs
    alternating     ac_dc
    latent          straight_through, top_kast, sr_ste
"""

from jaxsparse.transforms.ac_dc import ac_dc
from jaxsparse.transforms.dense_latent import latent, sr_ste, straight_through, top_kast
from jaxsparse.transforms.dynamic import mest, rigl, sparse_evolution
from jaxsparse.transforms.grow import ever_active, tracks_exploration
from jaxsparse.transforms.protocols import (
    InitMasks,
    MaskUpdate,
    Observe,
    UpdateAt,
    UpdateMasks,
)
from jaxsparse.transforms.pruning import (
    fixed,
    gradual_magnitude,
    granet,
    one_shot_magnitude,
)
from jaxsparse.transforms.sharding import LEAST, Rules, state_specs, weight_specs
from jaxsparse.transforms.snfs import snfs
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.transforms.state import (
    LatentState,
    SparsifyState,
    apply_updates,
    forward_params,
    get_masks,
    replace_key,
    replace_masks,
    replicate_axes,
    stored_params,
)

__all__ = (
    "LEAST",
    "InitMasks",
    "LatentState",
    "MaskUpdate",
    "Observe",
    "Rules",
    "SparsifyState",
    "UpdateAt",
    "UpdateMasks",
    "ac_dc",
    "apply_updates",
    "ever_active",
    "fixed",
    "forward_params",
    "get_masks",
    "gradual_magnitude",
    "granet",
    "latent",
    "mest",
    "one_shot_magnitude",
    "tracks_exploration",
    "replace_key",
    "replace_masks",
    "replicate_axes",
    "rigl",
    "snfs",
    "sparse_evolution",
    "sparsify",
    "sr_ste",
    "state_specs",
    "stored_params",
    "straight_through",
    "top_kast",
    "weight_specs",
)
