"""Masks: which weights exist.

This module makes masks, joins them to parameters, and counts them. It does not
decide which weights to keep: `scores` says what each weight is worth, `select`
keeps the best, and `transforms` does so while training.

The one convention to know is None. A leaf that may never be pruned has the mask
None, so `jax.tree.leaves(masks)` visits prunable weights only, and every sparsity
below is a fraction of *those* weights, not of all parameters.
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
_SHAPE = ":shape"  # behind the name of a packed leaf


class LayerCount(NamedTuple):
    """How many weights of one layer exist.

    Attributes:
      kept: weights the mask keeps.
      total: weights the layer has.
    """

    kept: int
    total: int


def is_kernel(name: str, leaf: Any = None) -> bool:
    """Says whether a leaf is a weight that methods of pruning consider.

    Args:
      name: slash-joined path of the leaf, such as "stage1/block0/conv/kernel".
      leaf: the parameter; only its rank and dtype are looked at.

    Returns:
      True for floating leaves of two or more axes whose last name is kernel,
      weight, w or embedding.

    Raises:
      TypeError: if `name` is none, as where `optax.inject_hyperparams` takes this
        function for a schedule.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name: expected the name of a leaf, got {name!r}; if this comes from "
            "optax.inject_hyperparams around a sparse method, have it inside: "
            "transforms.rigl(optax.inject_hyperparams(optax.adamw)(...), ...)"
        )
    return (
        name.rpartition("/")[2] in KERNEL_NAMES
        and len(leaf.shape) >= 2
        and jnp.issubdtype(leaf.dtype, jnp.floating)
    )


@arguments.check(globs=arguments.patterns)
def by_globs(globs: tuple[str, ...]) -> Callable[[str, Any], bool]:
    """Makes a predicate for `dense` of shell patterns; see there."""
    left_out = tuple(glob[1:] for glob in globs if glob.startswith("!"))
    taken = tuple(glob for glob in globs if not glob.startswith("!"))

    def wanted(name: str, leaf: Any) -> bool:
        chosen = matches(name, taken) if taken else is_kernel(name, leaf)
        return chosen and not matches(name, left_out)

    return wanted


def dense(
    params: Params | PyTree[jax.ShapeDtypeStruct],
    *,
    prunable: Callable[[str, Any], bool] | tuple[str, ...] = is_kernel,
) -> Masks:
    """Makes the mask that keeps everything.

    Args:
      params: parameters to follow; only names, shapes and dtypes are used, so
        the result of `jax.eval_shape` will do.
      prunable: called with each leaf's name and leaf; False gives the mask None. Or
        shell patterns over names: `("*/kernel", "!head/*")` takes what matches one and
        none of those that begin with "!"; `("!head/*",)` all kernels but these.

    Returns:
      All-True masks at prunable leaves, None elsewhere.

    Raises:
      ValueError: if no leaf is prunable, or a pattern matches none; the message lists
        the names it saw.
      TypeError: if `prunable` is neither a function nor a tuple of patterns.
    """
    if not any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(params)):
        raise ValueError("params: no array is there; wanted a tree of parameters")
    if not callable(prunable):
        check_globs(prunable, field="prunable")
        globs = tuple(glob.removeprefix("!") for glob in prunable)
        check_globs(globs, names(params), field="prunable")
    wanted = prunable if callable(prunable) else by_globs(prunable)

    def make(name: str, leaf: Any) -> Bool[Array, "..."] | None:
        return jnp.ones(leaf.shape, bool) if wanted(name, leaf) else None

    result = tree.map_with_names(make, params)
    if not jax.tree.leaves(result):
        raise ValueError(
            f"params: no leaf is prunable among {names(params)}; wanted at least one "
            f"floating leaf of two or more axes named {', '.join(KERNEL_NAMES)}; pass "
            "`prunable=` to choose others"
        )
    return result


@arguments.check(fn=arguments.function)
def tree_map(fn: Callable[..., Any], masks: Masks, *trees: Any) -> Any:
    """Maps `fn` over prunable leaves; None stays None.

    Trees fit by the names of their leaves, see `tree`, so masks of a part of a network
    visit that part of the others.

    Args:
      fn: called as `fn(mask, *leaves)`.
      masks: which leaves to visit.
      *trees: trees with the leaves of `masks`, None allowed, and perhaps others where
        `masks` has None.

    Returns:
      A tree with the nesting of `masks`.

    Raises:
      ValueError: if a tree has other leaves, naming the first.
    """
    fitted = [
        tree.match_structure(
            other, masks, fields=(f"trees[{i}]", "masks"), shapes=False
        )
        for i, other in enumerate(trees)
    ]
    return jax.tree.map(
        lambda mask, *leaves: mask if tree.is_absent(mask) else fn(mask, *leaves),
        masks,
        *fitted,
        is_leaf=tree.is_absent,
    )


def apply(masks: Masks, params: Params) -> Params:
    """Sets the weights outside the mask to exactly zero.

    Uses a select and not a product, so an infinity or NaN outside the mask does
    not survive. Leaves whose mask is None are returned as they came.

    Args:
      masks: which weights exist.
      params: parameters with leaves of the same names and shapes; the types of nodes
        may differ, see `tree`. Masks out of `optax.partition` or `optax.masked` are
        those of a part, and the rest stays as it is.

    Returns:
      Parameters with the nesting, dtype and sharding of `params`.

    Raises:
      ValueError: if a leaf is missing, unexpected or of another shape, or a mask is not
        boolean, as where the two arguments are exchanged; the message names the leaf.

    Examples:
      >>> kept = {"kernel": jnp.array([True, False]), "bias": None}
      >>> apply(kept, {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([5.0])})
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
    """Refuses masks that are not boolean.

    Args:
      masks: to look at; only dtypes are.
      remedy: what the message ends with.

    Raises:
      ValueError: naming the first leaf that is of another type.
    """
    for name, leaf in tree.named_leaves(masks).items():
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        if str(kind) != "bool":
            raise ValueError(f"masks: {name} is of {kind}; wanted bool; {remedy}")


def _count(leaf: Bool[Array, "..."]) -> int:
    return int(np.count_nonzero(np.asarray(leaf)))


def kept(masks: Masks) -> int:
    """Counts the weights the masks keep.

    Runs on the host and returns a Python integer, because a float32 count is
    already wrong for a network of 25 million weights.

    Args:
      masks: concrete masks; not for use under `jit`.

    Returns:
      Number of True entries over all prunable leaves.
    """
    check_boolean(masks, remedy="see masks.dense")
    return sum(_count(leaf) for leaf in jax.tree.leaves(masks))


def total(masks: Masks) -> int:
    """Counts the prunable weights, kept or not; shapes suffice."""
    return sum(leaf.size for leaf in jax.tree.leaves(masks))


def sparsity(masks: Masks) -> float:
    """Returns the fraction of prunable weights that the masks remove, in [0, 1].

    Raises:
      ValueError: if there are no prunable weights.
    """
    check_boolean(masks, remedy="see masks.dense")
    weights = total(masks)
    if not weights:
        raise ValueError(
            f"masks: expected prunable weights, got none in the leaves {names(masks)}; "
            "make masks with `masks.dense(params)`"
        )
    return 1.0 - kept(masks) / weights


def by_layer(masks: Masks) -> dict[str, LayerCount]:
    """Counts each prunable leaf by name, in the order of the tree's leaves."""
    check_boolean(masks, remedy="see masks.dense")
    leaves = jax.tree.leaves(masks)
    return {
        name: LayerCount(_count(leaf), leaf.size)
        for name, leaf in zip(names(masks), leaves, strict=True)
    }


def is_nested(inner: Masks, outer: Masks) -> Bool[Array, ""]:
    """Says whether every weight of `inner` also exists in `outer`.

    Iterative pruning must hold `is_nested(level[n + 1], level[n])` for every n.

    Args:
      inner: the sparser masks.
      outer: the denser masks, leaves of the same names and shapes.

    Returns:
      A boolean scalar; usable under `jit`.

    Raises:
      ValueError: naming the first leaf that differs.
    """
    inner = tree.match_structure(
        inner, outer, fields=("inner", "outer"), same_leaves=True
    )
    inside = jax.tree.map(lambda a, b: jnp.all(~a | b), inner, outer)
    return jnp.all(jnp.stack([*jax.tree.leaves(inside), jnp.array(True)]))


def pack(masks: Masks) -> dict[str, np.ndarray]:
    """Packs masks to one bit a weight, by name, for a file of tickets.

    Args:
      masks: concrete masks.

    Returns:
      For each prunable leaf, by its name, ceil(size / 8) bytes as uint8, weights in
      row-major order with the first in the highest bit; and, by the name with ":shape"
      behind it, its shape as int64.
    """
    check_boolean(masks, remedy="see masks.dense")
    packed = {}
    for name, leaf in tree.named_leaves(masks).items():
        packed[name] = np.packbits(np.asarray(leaf).reshape(-1))
        packed[name + _SHAPE] = np.array(leaf.shape, np.int64)
    return packed


def unpack(packed: Mapping[str, np.ndarray], like: Masks) -> Masks:
    """Undoes `pack`.

    Args:
      packed: what `pack` returned. Bytes without shapes, as earlier versions packed
        them, are read too if their number fits.
      like: masks of the wanted nesting and shapes; `dense(params)` will do.

    Returns:
      Masks equal to those packed.

    Raises:
      ValueError: if names differ, naming those missing and those unexpected; or if a
        leaf has another shape, is not bytes, or not as many as its shape needs, naming
        the leaf.
    """
    if not isinstance(packed, Mapping):
        raise TypeError(
            f"packed: got {packed!r}; wanted a mapping from names of leaves to bytes"
        )
    packed = {name: np.asarray(packed[name]) for name in packed}
    leaves, treedef = jax.tree.flatten(like)
    wanted = names(like)
    present = {name for name in packed if not _is_shape(name, packed)}
    missing = sorted(set(wanted) - present)
    unexpected = sorted(present - set(wanted))
    if missing or unexpected:
        raise ValueError(
            f"packed masks: missing {missing}, unexpected {unexpected}; wanted exactly "
            "the prunable leaves of the network they are loaded for"
        )
    unpacked = []
    for name, leaf in zip(wanted, leaves, strict=True):
        _check_packed(name, packed, leaf)
        bits = np.unpackbits(packed[name], count=leaf.size)
        unpacked.append(jnp.asarray(bits.astype(bool).reshape(leaf.shape)))
    return jax.tree.unflatten(treedef, unpacked)


def _is_shape(name: str, packed: Mapping[str, np.ndarray]) -> bool:
    """Returns whether an entry of packed masks is the shape of another."""
    return name.endswith(_SHAPE) and name.removesuffix(_SHAPE) in packed


def _check_packed(name: str, packed: Mapping[str, np.ndarray], leaf: Array) -> None:
    """Refuses the bits of a leaf of another shape."""
    bits, shape = packed[name], packed.get(name + _SHAPE)
    if shape is not None and tuple(shape.tolist()) != leaf.shape:
        raise ValueError(
            f"packed masks: {name} has shape {tuple(shape.tolist())}; wanted "
            f"{leaf.shape}; is it another network?"
        )
    if bits.dtype != np.uint8 or bits.ndim != 1:
        raise ValueError(
            f"packed masks: {name} is {bits.dtype} of shape {bits.shape}; wanted bytes "
            "(uint8) on one axis, as `masks.pack` makes them"
        )
    if bits.size != -(-leaf.size // 8):
        raise ValueError(
            f"packed masks: {name} has {bits.size} bytes; wanted "
            f"{-(-leaf.size // 8)} for shape {leaf.shape}; is it another network?"
        )
