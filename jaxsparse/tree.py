"""Pytrees: names of their leaves, and matching of trees by these names.

A leaf's name is its path joined by slashes, such as "stage1/block0/conv/kernel". It is
the same in every library: the boxes that Flax puts around arrays (`nnx.Param`, the
`OptVariable` of `nnx.Optimizer`, `nn.Partitioned`) add nothing to the name.

Two trees match if their leaves have equal names and shapes, whatever the types of their
nodes: dict and FrozenDict, list and dict with integer keys, `nnx.State` of `Param` and
of `OptVariable`, boxed and bare arrays.

None marks a place where a tree has no leaf but another tree may have one, as masks have
none for a bias. So does `MaskedNode` of optax, which `optax.partition` and
`optax.masked` put in place of the parts of a network that belong to another optimizer.
Such an absent node may stand for a whole subtree.
"""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.core import meta

Path = tuple[Any, ...]

_VALUE = jax.tree_util.GetAttrKey("value")


def is_absent(node: Any) -> bool:
    """Returns whether a node marks leaves that this tree does not have.

    Args:
      node: a node of a pytree.
    """
    return node is None or isinstance(node, optax.MaskedNode)


def _is_box(node: Any) -> bool:
    """Returns whether a node is a Flax box around an array or a subtree."""
    return isinstance(node, nnx.Variable | meta.AxisMetadata)


def _entries(tree: Any, *, inside: bool = False) -> Iterator[tuple[Path, Any]]:
    """Yields the path of each leaf and absent node, without the keys of boxes.

    Args:
      tree: any pytree.
      inside: whether `tree` is a box whose content is to be listed.

    Yields:
      Pairs of a path, which is a tuple of JAX's path keys, and a leaf or absent node.
    """

    def stops(node: Any) -> bool:
        opened = inside and node is tree
        return not opened and (_is_box(node) or is_absent(node))

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=stops):
        if not _is_box(leaf):
            yield path, leaf
            continue
        # A box adds the key `value` to the paths of its content, which no name
        # contains. Other keys belong to a subtree inside the box and are kept.
        for inner, held in _entries(leaf, inside=True):
            yield path + (inner[1:] if inner[:1] == (_VALUE,) else inner), held


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Lists leaves and absent nodes with their names, in the order of the tree."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in _entries(tree)
    ]


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns a tree's leaves by name, in the order of `jax.tree.leaves`.

    Args:
      tree: any pytree. None and `MaskedNode` are not leaves.

    Raises:
      ValueError: if two leaves have the same name.

    Examples:
      >>> named_leaves({"dense": {"kernel": 1, "bias": None}})
      {'dense/kernel': 1}
    """
    pairs = [(name, leaf) for name, leaf in _named(tree) if not is_absent(leaf)]
    leaves = dict(pairs)
    # A key that contains a slash can give the same name as nested keys. The dict then
    # has only one of the leaves.
    if len(leaves) < len(pairs):
        every = [name for name, _ in pairs]
        twice = next(name for name in every if every.count(name) > 1)
        raise ValueError(
            f"tree: two leaves are called {twice!r}; wanted one name a leaf; do keys "
            "contain slashes?"
        )
    return leaves


def names(tree: Any) -> list[str]:
    """Lists the names of a tree's leaves, in the order of `jax.tree.leaves`.

    Args:
      tree: any pytree; None is not a leaf.
    """
    return list(named_leaves(tree))


def map_with_names(fn: Callable[..., Any], tree: Any, *trees: Any) -> Any:
    """Maps a function over leaves and their names; absent nodes are kept.

    Args:
      fn: called as `fn(name, leaf, *others)`.
      tree: any pytree.
      *trees: trees whose upper part has the nesting of `tree`. They may have subtrees
        in place of its leaves, which are passed to `fn` whole.

    Returns:
      A tree of results with the nesting of `tree`.

    Raises:
      TypeError: if `fn` is not a function.
    """
    if not callable(fn):
        raise TypeError(f"fn: got {fn!r}; wanted a function of a name and a leaf")
    treedef = jax.tree.structure(tree, is_leaf=is_absent)
    columns = (_named(tree), *map(treedef.flatten_up_to, trees))
    return treedef.unflatten(
        leaf if is_absent(leaf) else fn(name, leaf, *others)
        for (name, leaf), *others in zip(*columns, strict=True)
    )


def match_structure(
    tree: Any,
    like: Any,
    *,
    fields: tuple[str, str] = ("tree", "like"),
    shapes: bool = True,
    same_leaves: bool = False,
) -> Any:
    """Arranges the leaves of a tree in the nesting of another tree, by their names.

    Args:
      tree: any pytree.
      like: the tree whose nesting the result has; leaves may be abstract, such as from
        `jax.eval_shape`. Where it has None or `MaskedNode`, so has the result.
      fields: names of `tree` and `like` in error messages.
      shapes: whether leaves must have the same shapes as in `like`.
      same_leaves: whether to raise an error if one tree has None in place of a leaf of
        the other. Leaves in place of a `MaskedNode` of `like` belong to another
        optimizer and are dropped in any case.

    Returns:
      The leaves of `tree` in the nesting of `like`, with None for the leaves of `like`
      at which `tree` is absent.

    Raises:
      ValueError: if a leaf exists in only one of the trees or its shapes differ; the
        message names the first such leaf.

    Examples:
      >>> ticket = flax.core.freeze({"kernel": jnp.ones(2, bool), "bias": None})
      >>> match_structure(ticket, {"kernel": jnp.zeros(2), "bias": jnp.zeros(1)})
      {'bias': None, 'kernel': Array([ True,  True], dtype=bool)}
    """
    wanted, treedef = _named(like), jax.tree.structure(like, is_leaf=is_absent)
    # Trees of equal structure have equal names, so no look-up by name is needed.
    if jax.tree.structure(tree, is_leaf=is_absent) == treedef:
        found = [leaf for _, leaf in _named(tree)]
    else:
        found = _look_up(tree, wanted, fields)
    matched = []
    for (name, leaf), mine in zip(wanted, found, strict=True):
        here, there = not is_absent(mine), not is_absent(leaf)
        # Only None counts as a difference: a MaskedNode of `like` says that the leaf
        # belongs to another optimizer.
        if same_leaves and here > there and leaf is None:
            raise _unexpected(name, wanted, fields)
        if same_leaves and there > here:
            raise _missing(name, wanted, fields)
        if shapes and here and there and jnp.shape(mine) != jnp.shape(leaf):
            raise ValueError(
                f"{fields[0]}: {name} has shape {jnp.shape(mine)}; wanted "
                f"{jnp.shape(leaf)}, as in {fields[1]}; are they of one network?"
            )
        matched.append((mine if here else None) if there else leaf)
    return treedef.unflatten(matched)


def _look_up(
    tree: Any, wanted: list[tuple[str, Any]], fields: tuple[str, str]
) -> list[Any]:
    """Finds by name the leaves of a tree that belong at the places of another tree.

    Args:
      tree: any pytree.
      wanted: names of the places, each with a leaf or an absent node.
      fields: names of the two trees in error messages.

    Returns:
      A leaf for each place; None where the tree is absent.

    Raises:
      ValueError: if a leaf is missing or unexpected.
    """
    leaves = named_leaves(tree)
    nothing = {name for name, leaf in _named(tree) if is_absent(leaf)}
    places = {name for name, _ in wanted}
    free = {name for name, leaf in wanted if is_absent(leaf)}
    for name in leaves:
        if name not in places and not _is_within(name, free):
            raise _unexpected(name, wanted, fields)
    for name, leaf in wanted:
        if not (is_absent(leaf) or name in leaves or _is_within(name, nothing)):
            raise _missing(name, wanted, fields)
    return [leaves.get(name) for name, _ in wanted]


def _is_within(name: str, places: set[str]) -> bool:
    """Returns whether a name is one of these places or lies below one of them."""
    parts = name.split("/")
    return any("/".join(parts[:n]) in places for n in range(len(parts) + 1))


def _unexpected(
    name: str, wanted: list[tuple[str, Any]], fields: tuple[str, str]
) -> ValueError:
    """Makes the error for a leaf that the other tree does not have."""
    return ValueError(
        f"{fields[0]}: the leaf {name} is not in {fields[1]}; wanted the leaves "
        f"{[known for known, leaf in wanted if not is_absent(leaf)]}"
    )


def _missing(
    name: str, wanted: list[tuple[str, Any]], fields: tuple[str, str]
) -> ValueError:
    """Makes the error for a leaf that only the other tree has."""
    return ValueError(
        f"{fields[0]}: the leaf {name} of {fields[1]} is missing; wanted the leaves "
        f"{[known for known, leaf in wanted if not is_absent(leaf)]}"
    )


def check_globs(
    globs: Sequence[str], known: Sequence[str] | None = None, *, field: str
) -> None:
    """Checks that patterns are a sequence of strings, and that each matches a leaf.

    Args:
      globs: shell patterns of leaf names, such as ("head/*",).
      known: names of the leaves that the patterns may match; None checks only the type.
      field: name of the patterns in error messages.

    Raises:
      TypeError: if `globs` is not a sequence of strings. A single string is rejected,
        since its characters would be read as patterns.
      ValueError: if a pattern matches none of `known`, which is most likely a
        misspelling.
    """
    if isinstance(globs, str):
        raise TypeError(
            f"{field}: got the string {globs!r}; wanted a tuple of patterns, "
            f"({globs!r},)"
        )
    if not isinstance(globs, Sequence) or not all(isinstance(g, str) for g in globs):
        raise TypeError(
            f"{field}: got {globs!r}; wanted a tuple of shell patterns over names of "
            "leaves, such as ('head/*',)"
        )
    for glob in globs if known is not None else ():
        if not any(fnmatchcase(name, glob) for name in known):
            raise ValueError(
                f"{field}: the pattern {glob!r} matches no prunable leaf; wanted one "
                f"of, or a pattern over, {list(known)}"
            )


def matches(name: str, globs: Sequence[str]) -> bool:
    """Returns whether a leaf's name matches any of some shell patterns.

    Args:
      name: path of the leaf, joined by slashes.
      globs: shell patterns such as ("head/*",); matching is case-sensitive, and * also
        matches slashes.

    Raises:
      TypeError: if `globs` is not a sequence of strings.
    """
    check_globs(globs, field="globs")
    # `fnmatch` would ignore case on some systems.
    return any(fnmatchcase(name, glob) for glob in globs)


def leading_axis(tree: Any, *, field: str) -> int:
    """Returns the length of the first axis, which all leaves must share.

    Args:
      tree: any pytree of arrays [n ...].
      field: name of the tree in error messages.

    Returns:
      n, 1 or more.

    Raises:
      ValueError: if there are no leaves, a leaf has no axes, or the lengths differ or
        are 0.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            f"{field}: got leaves of shapes {shapes}; wanted all to begin with the "
            "same axis, 1 or longer"
        )
    return lengths.pop()[0]
