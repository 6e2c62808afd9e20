"""Masks: trees of booleans that mark the active weights.

This module makes masks, applies them to parameters, and counts their weights. It does
not select weights: `scores` computes a score for each weight, `select` keeps the
weights with the highest scores, and `transforms` does both during training.

A leaf that is never pruned has the mask None. `jax.tree.leaves(masks)` therefore
returns the masks of prunable leaves only, and every sparsity in this package is a
fraction of the *prunable* weights, not of all parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from jaxsparse import arguments, tree
from jaxsparse.tree import check_globs, matches, names
from jaxsparse.types import Masks, Params

KERNEL_NAMES = ("kernel", "weight", "w", "embedding")
_SHAPE = ":shape"  # suffix of the entry with the shape of a packed leaf


class LayerCount(NamedTuple):
    """Number of active weights of one layer.

    Attributes:
      num_active: number of weights inside the mask.
      size: number of weights of the layer.
    """

    num_active: int
    size: int


def is_kernel(name: str, leaf: Any = None) -> bool:
    """Returns whether a leaf is a weight that pruning methods consider.

    Args:
      name: path of the leaf joined by slashes, such as "stage1/block0/conv/kernel".
      leaf: the parameter; only its rank and dtype are used.

    Returns:
      True for floating-point leaves with at least two axes whose last name is kernel,
      weight, w or embedding.

    Raises:
      TypeError: if `name` is not a string. This happens if `optax.inject_hyperparams`
        wraps a sparse method, because it calls function arguments as schedules.
    """
    # This function is a default argument of every sparse method.
    # `optax.inject_hyperparams` takes each callable argument for a schedule, and calls
    # it with the step count.
    if not isinstance(name, str):
        raise TypeError(
            f"name: expected the name of a leaf, got {name!r}; if the cause is "
            "optax.inject_hyperparams around a sparse method, move it inside: "
            "transforms.rigl(optax.inject_hyperparams(optax.adamw)(...), ...)"
        )
    return (
        name.rpartition("/")[2] in KERNEL_NAMES
        and len(leaf.shape) >= 2
        and jnp.issubdtype(leaf.dtype, jnp.floating)
    )


@arguments.check(globs=arguments.patterns)
def glob_filter(globs: tuple[str, ...]) -> Callable[[str, Any], bool]:
    """Makes a function that selects leaves by shell patterns, for `prunable` of `ones`.

    Args:
      globs: shell patterns of leaf names; patterns that begin with "!" exclude leaves.
        If all patterns exclude, all other leaves that `is_kernel` accepts are selected.

    Returns:
      A function of a leaf's name and the leaf that returns whether the leaf is
      selected.
    """
    excluded = tuple(glob[1:] for glob in globs if glob.startswith("!"))
    included = tuple(glob for glob in globs if not glob.startswith("!"))

    def is_selected(name: str, leaf: Any) -> bool:
        matched = matches(name, included) if included else is_kernel(name, leaf)
        return matched and not matches(name, excluded)

    return is_selected


def ones(
    params: Params | PyTree[jax.ShapeDtypeStruct],
    *,
    prunable: Callable[[str, Any], bool] | tuple[str, ...] = is_kernel,
) -> Masks:
    """Makes the dense masks, which keep every weight.

    Args:
      params: any tree of parameters or, since only names, shapes and dtypes are used,
        the result of `jax.eval_shape`.
      prunable: a function of a leaf's name and the leaf that returns False if the leaf
        gets the mask None; or shell patterns of leaf names. `("*/kernel", "!head/*")`
        selects leaves that match a pattern, except those that match one after "!".
        `("!head/*",)` selects all leaves that `is_kernel` accepts, with the same
        exception.

    Returns:
      Boolean masks with the shapes of the parameters, True everywhere; None at leaves
      that are not prunable.

    Raises:
      ValueError: if there are no parameters, no leaf is prunable, or a pattern matches
        no leaf; the message lists the names of the leaves.
      TypeError: if `prunable` is neither a function nor a tuple of patterns.

    Examples:
      >>> ones({"dense": {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}})
      {'dense': {'bias': None, 'kernel': Array([[ True,  True]], dtype=bool)}}
    """
    if not any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(params)):
        raise ValueError("params: expected a tree of parameters, got no array")
    if not callable(prunable):
        check_globs(prunable, field="prunable")
        # Excluding patterns must match a leaf as well, or they are misspelled.
        globs = tuple(glob.removeprefix("!") for glob in prunable)
        check_globs(globs, names(params), field="prunable")
    is_prunable = prunable if callable(prunable) else glob_filter(prunable)

    def make(name: str, leaf: Any) -> Bool[Array, "..."] | None:
        return jnp.ones(leaf.shape, bool) if is_prunable(name, leaf) else None

    result = tree.map_with_names(make, params)
    if not jax.tree.leaves(result):
        raise ValueError(
            "params: expected at least one prunable leaf, a floating-point leaf of two "
            f"or more axes named {', '.join(KERNEL_NAMES)}, got the leaves "
            f"{names(params)}; pass `prunable=` to choose others"
        )
    return result


@arguments.check(fn=arguments.function)
def tree_map(fn: Callable[..., Any], masks: Masks, *trees: Any) -> Any:
    """Maps a function over prunable leaves; None stays None.

    Leaves are matched by name, so the node types of the trees may differ, such as dict
    and FrozenDict. Masks of a part of a network use only that part of the other trees.

    Args:
      fn: called as `fn(mask, *leaves)` for each leaf with a mask.
      masks: boolean masks; None where a leaf is not visited.
      *trees: trees with the leaves of `masks`. A leaf may be None, and there may be
        more leaves where `masks` has None.

    Returns:
      A tree of results with the nesting of `masks`.

    Raises:
      ValueError: if a leaf is missing from a tree or unexpected; the message names it.
    """
    fitted = [
        tree.match_structure(
            other, masks, fields=(f"trees[{i}]", "masks"), shapes=False
        )
        for i, other in enumerate(trees)
    ]
    # Without `is_leaf`, JAX treats None as an empty subtree, which does not match a
    # leaf of another tree.
    return jax.tree.map(
        lambda mask, *leaves: mask if tree.is_absent(mask) else fn(mask, *leaves),
        masks,
        *fitted,
        is_leaf=tree.is_absent,
    )


def apply(masks: Masks, params: Params) -> Params:
    """Sets the weights outside the masks to exactly zero.

    This is a selection and not a product, so infinities and NaN outside the masks
    become zero, too. Leaves with the mask None are returned unchanged.

    Args:
      masks: boolean masks; None where a leaf is not prunable.
      params: parameters with the leaf names and shapes of the masks; the types of nodes
        may differ, such as dict and FrozenDict. Masks from `optax.partition` or
        `optax.masked` cover only a part of the parameters, and the rest is returned
        unchanged.

    Returns:
      Parameters with the nesting, dtypes and sharding of `params`.

    Raises:
      ValueError: if a leaf is missing, unexpected or has another shape, or if a mask is
        not boolean, as is the case if the two arguments are swapped; the message names
        the leaf.

    Examples:
      >>> masks = {"kernel": jnp.array([True, False]), "bias": None}
      >>> apply(masks, {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([5.0])})
      {'bias': Array([5.], dtype=float32), 'kernel': Array([3., 0.], dtype=float32)}
    """
    check_boolean(masks, remedy="masks.apply takes masks first, then parameters")
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))
    return jax.tree.map(
        lambda mask, leaf: (
            leaf
            if tree.is_absent(mask)
            else jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))
        ),
        fitted,
        params,
        is_leaf=tree.is_absent,
    )


def check_boolean(masks: Masks, *, remedy: str) -> None:
    """Checks that all masks are boolean.

    Args:
      masks: the tree to check; only dtypes are used.
      remedy: what the user can do; the end of the error message.

    Raises:
      ValueError: if a leaf has another dtype; the message names the first such leaf.
    """
    for name, leaf in tree.named_leaves(masks).items():
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        # Compared as text, so that leaves without a dtype are checked by their type.
        if str(kind) != "bool":
            raise ValueError(
                f"masks: {name}: expected a boolean array, got {kind}; {remedy}"
            )


def _count(leaf: Bool[Array, "..."]) -> int:
    return int(np.count_nonzero(np.asarray(leaf)))


def num_active(masks: Masks) -> int:
    """Counts the active weights.

    Runs on the host and returns a Python integer: integers above 2**24 are not exact in
    float32, so a float32 count is already wrong for a network of 25 million weights.

    Args:
      masks: concrete masks; this function cannot be used under `jit`.

    Returns:
      Number of True entries over all prunable leaves.

    Raises:
      ValueError: if a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    return sum(_count(leaf) for leaf in jax.tree.leaves(masks))


def size(masks: Masks) -> int:
    """Counts the prunable weights, active or not.

    Args:
      masks: masks, or shapes from `jax.eval_shape`; only shapes are used.

    Raises:
      TypeError: if a leaf is neither an array nor a shape.
    """
    leaves = jax.tree.leaves(masks)
    for leaf in leaves:
        if not hasattr(leaf, "size"):
            raise TypeError(
                "masks: expected boolean arrays, such as from masks.ones, or their "
                f"shapes, got the leaf {leaf!r}"
            )
    return sum(leaf.size for leaf in leaves)


def sparsity(masks: Masks) -> float:
    """Computes the fraction of prunable weights that the masks remove.

    Args:
      masks: concrete masks.

    Returns:
      The sparsity, in [0, 1].

    Raises:
      ValueError: if there are no prunable weights, or a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    total = size(masks)
    if not total:
        raise ValueError(
            f"masks: expected prunable weights, got none in the leaves {names(masks)}; "
            "make masks with `masks.ones(params)`"
        )
    return 1.0 - num_active(masks) / total


def layer_counts(masks: Masks) -> dict[str, LayerCount]:
    """Counts the active weights of each prunable leaf.

    Args:
      masks: concrete masks.

    Returns:
      The counts by leaf name, in the order of the tree's leaves.

    Raises:
      ValueError: if a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    leaves = jax.tree.leaves(masks)
    return {
        name: LayerCount(_count(leaf), leaf.size)
        for name, leaf in zip(names(masks), leaves, strict=True)
    }


def is_nested(inner: Masks, outer: Masks) -> Bool[Array, ""]:
    """Returns whether every active weight of `inner` is also active in `outer`.

    In iterative magnitude pruning, `is_nested(level[n + 1], level[n])` holds for every
    n.

    Args:
      inner: the sparser masks.
      outer: the denser masks, with the same leaf names and shapes.

    Returns:
      A boolean scalar; this function can be used under `jit`.

    Raises:
      ValueError: if the leaves differ; the message names the first one that does.
    """
    inner = tree.match_structure(
        inner, outer, fields=("inner", "outer"), same_leaves=True
    )
    inside = jax.tree.map(lambda a, b: jnp.all(~a | b), inner, outer)
    # `True` makes the stack non-empty for trees without prunable leaves.
    return jnp.all(jnp.stack([*jax.tree.leaves(inside), jnp.array(True)]))


def pack(masks: Masks) -> dict[str, np.ndarray]:
    """Packs masks to one bit per weight, for the file of a ticket.

    Args:
      masks: concrete masks.

    Returns:
      Two entries for each prunable leaf. Under its name, the ceil(size / 8) bytes
      (uint8) of its mask, with weights in row-major order and the first in the highest
      bit. Under its name followed by ":shape", its shape (int64).

    Raises:
      ValueError: if a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    packed = {}
    for name, leaf in tree.named_leaves(masks).items():
        packed[name] = np.packbits(np.asarray(leaf).reshape(-1))
        packed[name + _SHAPE] = np.array(leaf.shape, np.int64)
    return packed


def unpack(packed: Mapping[str, np.ndarray], template: Masks) -> Masks:
    """Unpacks masks that `pack` has packed.

    Args:
      packed: return value of `pack`. The shapes may be missing, as in files of earlier
        versions; only the number of bytes is then checked.
      template: masks with the nesting and shapes of the result, such as
        `ones(params)`.

    Returns:
      Masks equal to those packed.

    Raises:
      ValueError: if the names differ, listing those missing and those unexpected; or if
        a leaf has another shape, is not bytes on one axis, or has a number of bytes
        that does not fit its shape, naming the leaf.
      TypeError: if `packed` is not a mapping.
    """
    if not isinstance(packed, Mapping):
        raise TypeError(
            f"packed: expected a mapping from leaf names to bytes, got {packed!r}"
        )
    packed = {name: np.asarray(packed[name]) for name in packed}
    leaves, treedef = jax.tree.flatten(template)
    leaf_names = names(template)
    present = {name for name in packed if not _is_shape(name, packed)}
    missing = sorted(set(leaf_names) - present)
    unexpected = sorted(present - set(leaf_names))
    if missing or unexpected:
        raise ValueError(
            "packed masks: expected exactly the prunable leaves of the network they "
            f"are loaded for, got {sorted(present)}: missing {missing}, unexpected "
            f"{unexpected}; load them for the network they were made for"
        )
    unpacked = []
    for name, leaf in zip(leaf_names, leaves, strict=True):
        _check_packed(name, packed, leaf)
        # `count` drops the bits that fill up the last byte.
        bits = np.unpackbits(packed[name], count=leaf.size)
        unpacked.append(jnp.asarray(bits.astype(bool).reshape(leaf.shape)))
    return jax.tree.unflatten(treedef, unpacked)


def _is_shape(name: str, packed: Mapping[str, np.ndarray]) -> bool:
    """Returns whether an entry of packed masks is the shape of another entry."""
    return name.endswith(_SHAPE) and name.removesuffix(_SHAPE) in packed


def _check_packed(name: str, packed: Mapping[str, np.ndarray], leaf: Array) -> None:
    """Checks that the bits of a leaf fit its shape.

    Args:
      name: name of the leaf.
      packed: bytes and shapes by name.
      leaf: the mask that the bits are unpacked for.

    Raises:
      ValueError: if the shape, the dtype or the number of bytes differs.
    """
    bits, shape = packed[name], packed.get(name + _SHAPE)
    if shape is not None and tuple(shape.tolist()) != leaf.shape:
        raise ValueError(
            f"packed masks: {name}: expected shape {leaf.shape}, got "
            f"{tuple(shape.tolist())}; load them for the network they were made for"
        )
    if bits.dtype != np.uint8 or bits.ndim != 1:
        raise ValueError(
            f"packed masks: {name}: expected bytes (uint8) on one axis, as "
            f"`masks.pack` returns, got {bits.dtype} of shape {bits.shape}"
        )
    if bits.size != -(-leaf.size // 8):
        raise ValueError(
            f"packed masks: {name}: expected {-(-leaf.size // 8)} bytes for shape "
            f"{leaf.shape}, got {bits.size}; load them for the network they were made "
            "for"
        )
