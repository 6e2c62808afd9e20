"""Masks: which weights exist.

This module makes masks, joins them to parameters, and counts them. It does not
decide which weights to keep: `scores` says what each weight is worth, `select`
keeps the best, and `transforms` does so while training.

The one convention to know is None. A leaf that may never be pruned has the mask
None, so `jax.tree.leaves(masks)` visits prunable weights only, and every sparsity
below is a fraction of *those* weights, not of all parameters.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree, UInt8

from jaxsparse.types import Masks, Params

KERNEL_NAMES = ("kernel", "weight", "w", "embedding")


class LayerCount(NamedTuple):
    """How many weights of one layer exist.

    Attributes:
      kept: weights the mask keeps.
      total: weights the layer has.
    """

    kept: int
    total: int


def name_of(path: tuple[Any, ...]) -> str:
    """Joins a key path of JAX to a name such as "stage1/block0/conv/kernel".

    The trailing ".value" that `nnx.State` adds to its paths is dropped, so that the
    same network has the same names in every library.
    """
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return name.removesuffix("/value").removesuffix(".value")


def names(tree: Any) -> list[str]:
    """Lists the names of a tree's leaves, in the order of `jax.tree.leaves`."""
    return [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def matches(name: str, globs: tuple[str, ...]) -> bool:
    """Says whether a leaf's name matches any of the shell patterns in `globs`."""
    return any(fnmatchcase(name, glob) for glob in globs)


def check_globs(globs: tuple[str, ...], known: list[str], *, field: str) -> None:
    """Refuses a pattern that matches no leaf: it is a misspelling.

    Args:
      globs: shell patterns such as "head/*".
      known: names of the leaves there are.
      field: what to call the patterns in the message.

    Raises:
      ValueError: if a pattern matches none of `known`.
    """
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            raise ValueError(
                f"{field}: the pattern {glob!r} matches no prunable leaf; wanted one "
                f"of, or a pattern over, {known}"
            )


def is_kernel(name: str, leaf: Any) -> bool:
    """Says whether a leaf is a weight that methods of pruning consider.

    Args:
      name: slash-joined path of the leaf, such as "stage1/block0/conv/kernel".
      leaf: the parameter; only its rank and dtype are looked at.

    Returns:
      True for floating leaves of two or more axes whose last name is kernel,
      weight, w or embedding.
    """
    return (
        name.rpartition("/")[2] in KERNEL_NAMES
        and len(leaf.shape) >= 2
        and jnp.issubdtype(leaf.dtype, jnp.floating)
    )


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
    """
    if not callable(prunable):
        globs = tuple(glob.removeprefix("!") for glob in prunable)
        check_globs(globs, names(params), field="prunable")
    wanted = prunable if callable(prunable) else by_globs(prunable)

    def make(path: tuple[Any, ...], leaf: Any) -> Bool[Array, "..."] | None:
        return jnp.ones(leaf.shape, bool) if wanted(name_of(path), leaf) else None

    result = jax.tree_util.tree_map_with_path(make, params)
    if not jax.tree.leaves(result):
        raise ValueError(
            f"params: no leaf is prunable among {names(params)}; wanted at least one "
            f"floating leaf of two or more axes named {', '.join(KERNEL_NAMES)}; pass "
            "`prunable=` to choose others"
        )
    return result


def tree_map(fn: Callable[..., Any], masks: Masks, *trees: Any) -> Any:
    """Maps `fn` over prunable leaves; None stays None.

    `jax.tree.map(fn, masks, params)` refuses a tree with None where `params` has
    an array. This is the only place that works around it.

    Args:
      fn: called as `fn(mask, *leaves)`.
      masks: which leaves to visit.
      *trees: trees with the nesting of `masks`, None allowed.

    Returns:
      A tree with the nesting of `masks`.

    Raises:
      ValueError: if a tree's nesting is not that of `masks`.
    """
    return jax.tree.map(
        lambda mask, *leaves: None if mask is None else fn(mask, *leaves),
        masks,
        *trees,
        is_leaf=lambda leaf: leaf is None,
    )


def apply(masks: Masks, params: Params) -> Params:
    """Sets the weights outside the mask to exactly zero.

    Uses a select and not a product, so an infinity or NaN outside the mask does
    not survive. Leaves whose mask is None are returned as they came.

    Args:
      masks: which weights exist.
      params: same nesting as `masks`.

    Returns:
      Parameters with the dtype and sharding of `params`.

    Examples:
      >>> kept = {"kernel": jnp.array([True, False]), "bias": None}
      >>> apply(kept, {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([5.0])})
      {'bias': Array([5.], dtype=float32), 'kernel': Array([3., 0.], dtype=float32)}
    """
    return jax.tree.map(
        lambda mask, leaf: (
            leaf if mask is None else jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))
        ),
        masks,
        params,
        is_leaf=lambda leaf: leaf is None,
    )


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
    return sum(_count(leaf) for leaf in jax.tree.leaves(masks))


def total(masks: Masks) -> int:
    """Counts the prunable weights, kept or not; shapes suffice."""
    return sum(leaf.size for leaf in jax.tree.leaves(masks))


def sparsity(masks: Masks) -> float:
    """Returns the fraction of prunable weights that the masks remove, in [0, 1]."""
    return 1.0 - kept(masks) / total(masks)


def by_layer(masks: Masks) -> dict[str, LayerCount]:
    """Counts each prunable leaf by name, in the order of the tree's leaves."""
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
      outer: the denser masks, same nesting.

    Returns:
      A boolean scalar; usable under `jit`.
    """
    inside = jax.tree.map(lambda a, b: jnp.all(~a | b), inner, outer)
    return jnp.all(jnp.stack(jax.tree.leaves(inside)))


def pack(masks: Masks) -> dict[str, UInt8[np.ndarray, "_"]]:
    """Packs masks to one bit a weight, by name, for a file of tickets.

    Args:
      masks: concrete masks.

    Returns:
      For each prunable leaf its name and ceil(size / 8) bytes, weights in row-major
      order with the first in the highest bit.
    """
    leaves = jax.tree.leaves(masks)
    return {
        name: np.packbits(np.asarray(leaf).reshape(-1))
        for name, leaf in zip(names(masks), leaves, strict=True)
    }


def unpack(packed: Mapping[str, UInt8[np.ndarray, "_"]], like: Masks) -> Masks:
    """Undoes `pack`.

    Args:
      packed: what `pack` returned.
      like: masks of the wanted nesting and shapes; `dense(params)` will do.

    Returns:
      Masks equal to those packed.

    Raises:
      ValueError: if names differ, naming those missing and those unexpected, or if a
        leaf has another number of bytes than its shape needs.
    """
    leaves, treedef = jax.tree.flatten(like)
    wanted = names(like)
    missing = sorted(set(wanted) - set(packed))
    unexpected = sorted(set(packed) - set(wanted))
    if missing or unexpected:
        raise ValueError(
            f"packed masks: missing {missing}, unexpected {unexpected}; wanted exactly "
            "the prunable leaves of the network they are loaded for"
        )
    unpacked = []
    for name, leaf in zip(wanted, leaves, strict=True):
        if packed[name].size != -(-leaf.size // 8):
            raise ValueError(
                f"packed masks: {name} has {packed[name].size} bytes; wanted "
                f"{-(-leaf.size // 8)} for shape {leaf.shape}; is it another network?"
            )
        bits = np.unpackbits(packed[name], count=leaf.size)
        unpacked.append(jnp.asarray(bits.astype(bool).reshape(leaf.shape)))
    return jax.tree.unflatten(treedef, unpacked)
