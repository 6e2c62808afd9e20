"""The active subspace: the coordinates in which a sparse network can change.

These are the active weights and, by default, all parameters without a mask, such as
biases. Coordinates are in the order of the leaves of the tree, and in row-major order
within a leaf.

A subspace is a tree of arrays and can be an argument under `jit`. Two subspaces with
the same number of coordinates in every leaf share one compiled program. This holds for
the subspaces of a run of dynamic sparse training that preserves the density of every
layer.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsparse import masks as masks_lib
from jaxsparse import tree
from jaxsparse.types import Masks, Params

Indices = Int[Array, "_"] | None


class Subspace(NamedTuple):
    """Coordinates of parameters, and the point at which they are taken.

    Attributes:
      params: the masked parameters. Elements that are not coordinates stay as they are
        here.
      indices: for each leaf of `params` the flat positions of its coordinates, int32,
        ascending; None if all elements are coordinates.
    """

    params: Any
    indices: tuple[Any, ...]


def make(
    params: Params, masks: Masks, *, include: tuple[str, ...] = ("*",)
) -> Subspace:
    """Creates the active subspace of masked parameters.

    Args:
      params: any pytree of parameters.
      masks: concrete boolean masks with the structure of `params`, None where a leaf is
        not prunable; not for use under `jit`.
      include: shell patterns for the names of leaves without a mask to include; all by
        default, none with `()`.

    Returns:
      The subspace at the masked parameters.

    Raises:
      ValueError: if structures or shapes differ, a pattern matches no leaf, or there
        are no coordinates.

    Examples:
      >>> params = {"bias": jnp.ones(2), "kernel": jnp.arange(4.0).reshape(2, 2)}
      >>> masks = {"bias": None, "kernel": jnp.array([[True, False], [False, True]])}
      >>> space = make(params, masks)
      >>> size(space), flatten(space, params)
      (4, Array([1., 1., 0., 3.], dtype=float32))
    """
    treedef = jax.tree.structure(params)
    names = masks_lib.names(params)
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))
    leaf_masks = treedef.flatten_up_to(fitted)
    unmasked = [
        name for name, mask in zip(names, leaf_masks, strict=True) if mask is None
    ]
    # The default must also pass where every leaf has a mask, and "*" matches none.
    if include != ("*",):
        masks_lib.check_globs(include, unmasked, field="include")
    included = {name for name in unmasked if masks_lib.matches(name, include)}
    indices = tuple(
        _indices(mask, name in included)
        for name, mask in zip(names, leaf_masks, strict=True)
    )
    space = Subspace(masks_lib.apply(masks, params), indices)
    if size(space) == 0:
        raise ValueError(
            f"masks: expected one or more active weights or included parameters, got "
            f"none in {names}"
        )
    return space


def _indices(mask: Bool[Array, "..."] | None, is_included: bool) -> Indices:
    if mask is None:
        return None if is_included else jnp.zeros(0, jnp.int32)
    active = np.flatnonzero(np.asarray(mask)).astype(np.int32)
    # None saves gather and scatter where all weights are active.
    return None if active.size == mask.size else jnp.asarray(active)


def sizes(space: Subspace) -> tuple[int, ...]:
    """Returns the number of coordinates in each leaf, in the order of the leaves.

    Args:
      space: a subspace from `make`.
    """
    leaves = jax.tree.leaves(space.params)
    return tuple(
        math.prod(jnp.shape(leaf)) if index is None else index.shape[0]
        for leaf, index in zip(leaves, space.indices, strict=True)
    )


def size(space: Subspace) -> int:
    """Returns the total number of coordinates.

    Args:
      space: a subspace from `make`.
    """
    return sum(sizes(space))


def dtype(space: Subspace) -> np.dtype:
    """Returns the widest dtype among the leaves with coordinates.

    Args:
      space: a subspace from `make`.
    """
    leaves = jax.tree.leaves(space.params)
    leaves_with_coordinates = [
        leaf for leaf, n in zip(leaves, sizes(space), strict=True) if n
    ]
    return np.dtype(jnp.result_type(*leaves_with_coordinates))


def pieces(space: Subspace, params: Params) -> list[Float[Array, "_"]]:
    """Gathers the coordinates of parameters, one vector per leaf.

    Args:
      space: the subspace.
      params: parameters with the structure and shapes of `space.params`.

    Returns:
      A vector for each leaf, empty where the leaf has no coordinates; all in the widest
      dtype among them.
    """
    wide = dtype(space)
    return [
        (leaf.reshape(-1) if index is None else leaf.reshape(-1)[index]).astype(wide)
        if count
        else jnp.zeros(0, wide)
        for leaf, index, count in zip(
            jax.tree.leaves(params), space.indices, sizes(space), strict=True
        )
    ]


def split(space: Subspace, vector: Float[Array, "n"]) -> list[Float[Array, "_"]]:
    """Splits a vector of coordinates [n] into one vector per leaf.

    Args:
      space: a subspace from `make`.
      vector: coordinates in it, [n].
    """
    ends = np.cumsum(sizes(space))
    return [vector[end - n : end] for end, n in zip(ends, sizes(space), strict=True)]


def join(space: Subspace, replacements: dict[int, Float[Array, "_"]]) -> Any:
    """Sets the coordinates of some leaves in the parameters of a subspace.

    Args:
      space: the subspace.
      replacements: vectors of coordinates by the position of their leaf; the other
        leaves are those of `space.params`.

    Returns:
      Parameters in the dtypes of `space.params`.
    """
    leaves, treedef = jax.tree.flatten(space.params)
    for position, values in replacements.items():
        leaf, index = leaves[position], space.indices[position]
        values = values.astype(leaf.dtype)
        if index is not None:
            # The indices are from `flatnonzero`, hence sorted and unique; the hints
            # allow XLA a faster scatter.
            values = (
                leaf.reshape(-1)
                .at[index]
                .set(values, indices_are_sorted=True, unique_indices=True)
            )
        leaves[position] = values.reshape(leaf.shape)
    return jax.tree.unflatten(treedef, leaves)


def flatten(space: Subspace, params: Params) -> Float[Array, "n"]:
    """Gathers the coordinates of parameters into one vector.

    Args:
      space: the subspace.
      params: parameters with the structure and shapes of `space.params`.

    Returns:
      The coordinates, [n], in the widest dtype among the leaves with coordinates.
    """
    return jnp.concatenate(pieces(space, params))


def unflatten(space: Subspace, vector: Float[Array, "n"]) -> Any:
    """Sets all coordinates of a subspace; the inverse of `flatten`.

    Args:
      space: the subspace.
      vector: the coordinates, [n].

    Returns:
      Parameters that are exactly zero outside the masks. Leaves without coordinates are
      those of `space.params`.
    """
    replacements = split(space, vector)
    return join(space, {i: m for i, m in enumerate(replacements) if m.shape[0]})
