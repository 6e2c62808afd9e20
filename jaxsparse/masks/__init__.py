"""Masks: trees of booleans that mark the active weights.

This package makes masks, applies them to parameters, counts their weights and packs
them to bits. It does not select weights: `scores` computes a score for each weight,
`select` keeps the weights with the highest scores, and `transforms` does both during
training.

A leaf that is never pruned has the mask None. `jax.tree.leaves(masks)` therefore
returns the masks of prunable leaves only, and every sparsity in this package is a
fraction of the *prunable* weights, not of all parameters.
"""

from jaxsparse.masks.counts import (
    LayerCount,
    is_nested,
    layer_counts,
    num_active,
    size,
    sparsity,
)
from jaxsparse.masks.leaves import KERNEL_NAMES, glob_filter, is_kernel, ones
from jaxsparse.masks.mapping import apply, by_name, check_boolean, tree_map
from jaxsparse.masks.packing import pack, unpack
from jaxsparse.tree import check_globs, matches, names

__all__ = (
    "KERNEL_NAMES",
    "LayerCount",
    "apply",
    "by_name",
    "check_boolean",
    "check_globs",
    "glob_filter",
    "is_kernel",
    "is_nested",
    "layer_counts",
    "matches",
    "names",
    "num_active",
    "ones",
    "pack",
    "size",
    "sparsity",
    "tree_map",
    "unpack",
)
