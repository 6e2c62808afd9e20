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

import sys
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import meta

Path = tuple[Any, ...]

_ABSENT = (type(None), optax.MaskedNode)
_VALUE = jax.tree_util.GetAttrKey("value")


def is_absent(node: Any) -> bool:
    """Returns whether a node marks leaves that this tree does not have.

    Args:
      node: a node of a pytree.
    """
    return isinstance(node, _ABSENT)


def _boxes() -> tuple[type, ...]:
    """Returns the types of Flax's boxes around an array or a subtree.

    nnx is not imported for them, which takes a while: without it no box is its own.
    """
    nnx = sys.modules.get("flax.nnx")
    return (meta.AxisMetadata,) if nnx is None else (meta.AxisMetadata, nnx.Variable)


def _entries(tree: Any, *, inside: bool = False) -> Iterator[tuple[Path, Any]]:
    """Yields the path of each leaf and absent node, without the keys of boxes.

    Args:
      tree: any pytree.
      inside: whether `tree` is a box whose content is to be listed.

    Yields:
      Pairs of a path, which is a tuple of JAX's path keys, and a leaf or absent node.
    """
    boxes = _boxes()
    stops = (*_ABSENT, *boxes)
    leaves = jax.tree_util.tree_leaves_with_path(
        tree,
        is_leaf=lambda node: isinstance(node, stops) and not (inside and node is tree),
    )
    for path, leaf in leaves:
        if not isinstance(leaf, boxes):
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
        repeated = next(name for name in every if every.count(name) > 1)
        raise ValueError(
            f"tree: expected a different name for every leaf, got {repeated!r} twice; "
            "do not use slashes in keys"
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
        raise TypeError(f"fn: expected a function of a name and a leaf, got {fn!r}")
    treedef = jax.tree.structure(tree, is_leaf=is_absent)
    columns = (_named(tree), *map(treedef.flatten_up_to, trees))
    return treedef.unflatten(
        leaf if is_absent(leaf) else fn(name, leaf, *others)
        for (name, leaf), *others in zip(*columns, strict=True)
    )


def fill(tree: Any, other: Any) -> Any:
    """Replaces every None of a tree by what another tree has there.

    Args:
      tree: any pytree.
      other: tree with the nesting of `tree`.
    """
    return jax.tree.map(
        lambda a, b: b if a is None else a, tree, other, is_leaf=lambda a: a is None
    )


def match_structure(
    tree: Any,
    template: Any,
    *,
    fields: tuple[str, str] = ("tree", "template"),
    shapes: bool = True,
    same_leaves: bool = False,
    remedy: str = "pass trees of the same network",
) -> Any:
    """Arranges the leaves of a tree in the nesting of another tree, by their names.

    Args:
      tree: any pytree.
      template: the tree whose nesting the result has; leaves may be abstract, such as
        from `jax.eval_shape`. Where it has None or `MaskedNode`, so has the result.
      fields: names of `tree` and `template` in error messages.
      shapes: whether leaves must have the same shapes as in `template`.
      same_leaves: whether to raise an error if one tree has None in place of a leaf of
        the other. Leaves in place of a `MaskedNode` of `template` belong to another
        optimizer and are dropped in any case.
      remedy: what the user can do; the end of error messages.

    Returns:
      The leaves of `tree` in the nesting of `template`, with None for the leaves of
      `template` at which `tree` is absent.

    Raises:
      ValueError: if a leaf exists in only one of the trees or its shapes differ; the
        message names the first such leaf.

    Examples:
      >>> ticket = flax.core.freeze({"kernel": jnp.ones(2, bool), "bias": None})
      >>> match_structure(ticket, {"kernel": jnp.zeros(2), "bias": jnp.zeros(1)})
      {'bias': None, 'kernel': Array([ True,  True], dtype=bool)}
    """
    entries, words = _named(template), (*fields, remedy)
    treedef = jax.tree.structure(template, is_leaf=is_absent)
    # Trees of equal structure have equal names, so no look-up by name is needed.
    if jax.tree.structure(tree, is_leaf=is_absent) == treedef:
        leaves = [leaf for _, leaf in _named(tree)]
    else:
        leaves = _look_up(tree, entries, words)
    matched = []
    for (name, place), leaf in zip(entries, leaves, strict=True):
        has_leaf, has_place = not is_absent(leaf), not is_absent(place)
        # Only None counts as a difference: a MaskedNode of `template` marks a leaf
        # that belongs to another optimizer.
        if same_leaves and has_leaf and place is None:
            raise _unexpected(name, entries, words)
        if same_leaves and has_place and not has_leaf:
            raise _missing(name, entries, words)
        if shapes and has_leaf and has_place and jnp.shape(leaf) != jnp.shape(place):
            raise ValueError(
                f"{fields[0]}: {name}: expected shape {jnp.shape(place)}, as in "
                f"{fields[1]}, got {jnp.shape(leaf)}; {remedy}"
            )
        matched.append((leaf if has_leaf else None) if has_place else place)
    return treedef.unflatten(matched)


def _look_up(
    tree: Any, entries: list[tuple[str, Any]], words: tuple[str, str, str]
) -> list[Any]:
    """Returns the leaves of a tree in the order of the entries of its template.

    Args:
      tree: any pytree.
      entries: names of the template's leaves and absent nodes, each with its node.
      words: for error messages, the names of the two trees and the remedy.

    Returns:
      A leaf for each entry; None where the tree is absent.

    Raises:
      ValueError: if a leaf is missing or unexpected.
    """
    leaves = named_leaves(tree)
    absent = {name for name, leaf in _named(tree) if is_absent(leaf)}
    known = {name for name, _ in entries}
    template_absent = {name for name, place in entries if is_absent(place)}
    for name in leaves:
        if name not in known and not _is_within(name, template_absent):
            raise _unexpected(name, entries, words)
    for name, place in entries:
        if not (is_absent(place) or name in leaves or _is_within(name, absent)):
            raise _missing(name, entries, words)
    return [leaves.get(name) for name, _ in entries]


def _is_within(name: str, places: set[str]) -> bool:
    """Returns whether a name is one of these places or lies below one of them."""
    parts = name.split("/")
    return any("/".join(parts[:n]) in places for n in range(len(parts) + 1))


def _unexpected(
    name: str, entries: list[tuple[str, Any]], words: tuple[str, str, str]
) -> ValueError:
    """Makes the error for a leaf that the template does not have."""
    return ValueError(
        f"{words[0]}: expected only leaves of {words[1]}, which are "
        f"{_names_of(entries)}, got {f'the leaf {name}' if name else 'an array'}; "
        f"{words[2]}"
    )


def _missing(
    name: str, entries: list[tuple[str, Any]], words: tuple[str, str, str]
) -> ValueError:
    """Makes the error for a leaf that only the template has."""
    return ValueError(
        f"{words[0]}: expected all leaves of {words[1]}, which are "
        f"{_names_of(entries)}, got no leaf {name}; {words[2]}"
    )


def _names_of(entries: list[tuple[str, Any]]) -> list[str]:
    return [name for name, leaf in entries if not is_absent(leaf)]


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
            f"{field}: expected a tuple of patterns, got the string {globs!r}; write "
            f"({globs!r},)"
        )
    if not isinstance(globs, Sequence) or not all(isinstance(g, str) for g in globs):
        raise TypeError(
            f"{field}: expected a tuple of shell patterns of leaf names, such as "
            f"('head/*',), got {globs!r}"
        )
    for glob in globs if known is not None else ():
        if not any(fnmatchcase(name, glob) for name in known):
            raise ValueError(
                f"{field}: expected patterns that match a leaf, got {glob!r}, "
                f"which matches none of {list(known)}; correct it"
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
            f"{field}: expected leaves with the same first axis, of length 1 or more, "
            f"got shapes {shapes}; a single element needs an axis of length 1 too"
        )
    return lengths.pop()[0]
