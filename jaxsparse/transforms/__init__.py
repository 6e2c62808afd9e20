"""Sparsity as optax gradient transformations.

`sparsify` is the engine; every named method is a call of it. What wraps an
optimiser here is an ordinary `optax.GradientTransformationExtraArgs`: after
`optax.apply_updates` the weights outside the masks are exactly zero, in any loop.
"""

from jaxsparse.transforms.engine import (
    InitMasks,
    MaskUpdate,
    UpdateAt,
    UpdateMasks,
    sparsify,
)
from jaxsparse.transforms.pruning import fixed
from jaxsparse.transforms.state import (
    SparsifyState,
    get_masks,
    replace_key,
    replace_masks,
    replicate_axes,
)

__all__ = (
    "InitMasks",
    "MaskUpdate",
    "SparsifyState",
    "UpdateAt",
    "UpdateMasks",
    "fixed",
    "get_masks",
    "replace_key",
    "replace_masks",
    "replicate_axes",
    "sparsify",
)
