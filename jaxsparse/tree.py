"""Pytrees: the names of their leaves, and whether two of them fit each other.

A leaf's name is its path, joined by slashes, such as "stage1/block0/conv/kernel". It is
the same in every library: the boxes that Flax puts around arrays (`nnx.Param`, the
`OptVariable` of `nnx.Optimizer`, `nn.Partitioned`) have no name of their own.

Two trees fit each other if their leaves have equal names and shapes, whatever the
types of their nodes: dict and FrozenDict, list and dict of numbers, `nnx.State` of
`Param` and of `OptVariable`, boxed arrays and bare ones.

None stands where a tree has no leaf but another may have one, as masks have none for
a bias. So does optax's `MaskedNode`, which `optax.partition` and `optax.masked` put
where a part of the network is another optimizer's. Either stands for all leaves below.
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
    """Says whether a node stands for leaves that this tree does not have."""
    return node is None or isinstance(node, optax.MaskedNode)


def _is_box(node: Any) -> bool:
    return isinstance(node, nnx.Variable | meta.AxisMetadata)


def _entries(tree: Any, *, inside: bool = False) -> Iterator[tuple[Path, Any]]:
    """Lists paths and leaves, and what is absent, without the keys of boxes.

    Args:
      tree: any pytree.
      inside: whether `tree` is a box to look into.
    """

    def stops(node: Any) -> bool:
        opened = inside and node is tree
        return not opened and (_is_box(node) or is_absent(node))

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=stops):
        if not _is_box(leaf):
            yield path, leaf
            continue
        for inner, held in _entries(leaf, inside=True):
            yield path + (inner[1:] if inner[:1] == (_VALUE,) else inner), held


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Lists names and leaves, and what is absent, in the order of the tree."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in _entries(tree)
    ]


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns a tree's leaves by name, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: if two leaves have one name.

    Examples:
      >>> named_leaves({"dense": {"kernel": 1, "bias": None}})
      {'dense/kernel': 1}
    """
    pairs = [(name, leaf) for name, leaf in _named(tree) if not is_absent(leaf)]
    leaves = dict(pairs)
    if len(leaves) < len(pairs):
        every = [name for name, _ in pairs]
        twice = next(name for name in every if every.count(name) > 1)
        raise ValueError(
            f"tree: two leaves are called {twice!r}; wanted one name a leaf; do keys "
            "contain slashes?"
        )
    return leaves


def names(tree: Any) -> list[str]:
    """Lists the names of a tree's leaves, in the order of `jax.tree.leaves`."""
    return list(named_leaves(tree))


def map_with_names(fn: Callable[..., Any], tree: Any, *trees: Any) -> Any:
    """Maps `fn` over leaves and their names; what is absent stays.

    Args:
      fn: called as `fn(name, leaf, *others)`.
      tree: any pytree.
      *trees: trees that begin with the nesting of `tree`.

    Returns:
      A tree with the nesting of `tree`.
    """
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
    """Gives a tree the nesting of another with leaves of the same names.

    Args:
      tree: any pytree.
      like: the tree to follow, perhaps abstract. What is absent there is absent in the
        result.
      fields: what to call `tree` and `like` in messages.
      shapes: whether leaves must have the shapes of those of `like`.
      same_leaves: whether to refuse None for a leaf of the other. What a `MaskedNode`
        of `like` stands for belongs to another optimizer and is left out all the same.

    Returns:
      The leaves of `tree` in the nesting of `like`, and None where `tree` says that it
      has none.

    Raises:
      ValueError: naming the first leaf that only one of the two has, or whose shapes
        differ.

    Examples:
      >>> ticket = flax.core.freeze({"kernel": jnp.ones(2, bool), "bias": None})
      >>> match_structure(ticket, {"kernel": jnp.zeros(2), "bias": jnp.zeros(1)})
      {'bias': None, 'kernel': Array([ True,  True], dtype=bool)}
    """
    wanted, treedef = _named(like), jax.tree.structure(like, is_leaf=is_absent)
    if jax.tree.structure(tree, is_leaf=is_absent) == treedef:
        found = [leaf for _, leaf in _named(tree)]
    else:
        found = _look_up(tree, wanted, fields)
    matched = []
    for (name, leaf), mine in zip(wanted, found, strict=True):
        here, there = not is_absent(mine), not is_absent(leaf)
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
    """Finds by name what stands in the places of another tree."""
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
    """Says whether a name is one of these places or lies below one of them."""
    parts = name.split("/")
    return any("/".join(parts[:n]) in places for n in range(len(parts) + 1))


def _unexpected(
    name: str, wanted: list[tuple[str, Any]], fields: tuple[str, str]
) -> ValueError:
    return ValueError(
        f"{fields[0]}: the leaf {name} is not in {fields[1]}; wanted the leaves "
        f"{[known for known, leaf in wanted if not is_absent(leaf)]}"
    )


def _missing(
    name: str, wanted: list[tuple[str, Any]], fields: tuple[str, str]
) -> ValueError:
    return ValueError(
        f"{fields[0]}: the leaf {name} of {fields[1]} is missing; wanted the leaves "
        f"{[known for known, leaf in wanted if not is_absent(leaf)]}"
    )


def check_globs(
    globs: Sequence[str], known: Sequence[str] | None = None, *, field: str
) -> None:
    """Refuses what are not patterns, and a pattern that matches no leaf.

    Args:
      globs: shell patterns such as ("head/*",).
      known: names of the leaves there are; None if only the type is to be checked.
      field: what to call the patterns in the message.

    Raises:
      TypeError: if `globs` is not a sequence of strings; a string alone is none, since
        it would be read letter by letter.
      ValueError: if a pattern matches none of `known`: it is a misspelling.
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
    """Says whether a leaf's name matches any of the shell patterns in `globs`.

    Raises:
      TypeError: if `globs` is not a sequence of strings.
    """
    check_globs(globs, field="globs")
    return any(fnmatchcase(name, glob) for glob in globs)


def leading_axis(tree: Any, *, field: str) -> int:
    """Returns the length of the axis that all leaves begin with.

    Args:
      tree: any pytree of arrays [n ...].
      field: what to call it in the message.

    Returns:
      n, 1 or more.

    Raises:
      ValueError: if the leaves do not begin with one such axis.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        raise ValueError(
            f"{field}: got leaves of shapes {shapes}; wanted all to begin with the "
            "same axis, 1 or longer"
        )
    return lengths.pop()[0]
