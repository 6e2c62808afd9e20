"""Sparse training methods as optax gradient transformations.

Each method wraps an optax optimizer and returns an
`optax.GradientTransformationExtraArgs`, so it works in any training loop. After
`optax.apply_updates`, the weights outside the masks are exactly zero. If other
transformations are chained after the wrapper or placed around it, use `apply_updates`
of this package instead: such transformations may change the updates that set pruned
weights to zero.

Most methods call `sparsify`. Methods that train dense weights but compute with a sparse
subset of them call `latent`. The modules:

    pruning       fixed, gradual_magnitude, one_shot_magnitude, granet
    dynamic       sparse_evolution, rigl, mest
    snfs          snfs
    ac_dc         ac_dc
    dense_latent  straight_through, top_kast, sr_ste
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
from jaxsparse.transforms.sharding import MIN_SIZE, Rules, state_specs, weight_specs
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
    "MIN_SIZE",
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
