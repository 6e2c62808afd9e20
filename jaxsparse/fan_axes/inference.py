"""Layouts of all leaves of a tree, inferred from names and shapes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxsparse import masks
from jaxsparse.fan_axes.layouts import EQUINOX, FLAX, FanAxes, Layout, parse


@dataclasses.dataclass(frozen=True)
class TreeAxes:
    """Layouts of the leaves of a tree, by leaf name; hashable.

    Attributes:
      leaves: pairs of a leaf's name and its layout.
    """

    leaves: tuple[tuple[str, FanAxes], ...]

    def __getitem__(self, name: str) -> FanAxes:
        """Returns the layout of the leaf with this name.

        Raises:
          ValueError: if there is no leaf of that name.
        """
        for known, axes in self.leaves:
            if known == name:
                return axes
        raise ValueError(
            f"axes: expected a layout for {name!r}, got those of "
            f"{[known for known, _ in self.leaves]}; pass the layouts of this tree"
        )


Axes = Layout | Mapping[str, Layout] | TreeAxes | None


def of_tree(tree: Any, axes: Axes = None) -> TreeAxes:
    """Finds the layout of every leaf of a tree.

    Layouts that `axes` does not contain are inferred from names and shapes:

    - Sibling leaves called query, key, value and out (Flax's attention in linen and
      nnx) are (features, heads, head size), and (heads, head size, features) for out,
      if their heads agree. Axes before these are stacked.
    - The bias next to a kernel shows which of the kernel's axes are outputs, and which
      leading axes are stacked: (12, 64, 256) with a bias of (12, 256) is a stack of 12
      dense layers; with a bias of (64, 256) it is a `DenseGeneral`.
    - An embedding is (entries, features). Axes before these are stacked.
    - An attribute called weight belongs to an Equinox layer: (outputs, inputs,
      *window).
    - All other leaves are (*window, inputs, outputs), as in Flax and Haiku.

    The last rule misreads three cases, which cannot be told apart by names and shapes:
    stacked dense layers without biases, a `DenseGeneral` with several input axes, and a
    depthwise convolution, which looks like a convolution of an image with one channel.
    Give their layout in `axes`, or use `of_linen`. `axes` is also needed for an Equinox
    embedding ("io"), for `ConvTranspose` with `transpose_kernel=True` ("...oi"), and
    for PyTorch weights in dictionaries (`TORCH`).

    Args:
      tree: parameters, their shapes or masks. Parameters are better than masks, which
        lack the biases.
      axes: known layouts: None to infer all; a layout (`FanAxes` or a string such as
        "oi...") for all leaves; a mapping from shell patterns of leaf names to layouts,
        of which the first matching pattern applies; or a `TreeAxes`, which is returned
        unchanged.

    Returns:
      The layout of each leaf, whether or not it is a kernel.

    Raises:
      ValueError: if a layout is malformed, or a pattern matches no leaf.
      TypeError: if `axes` has none of these forms.

    Examples:
      >>> of_tree({"attn": {"query": {"kernel": jnp.ones((64, 8, 8))}}}, {"*": "ioo"})
      TreeAxes(leaves=(('attn/query/kernel', FanAxes(inputs=(0,), outputs=(1, 2), \
positions=(), stack=(), groups=1)),))
    """
    if isinstance(axes, TreeAxes):
        return axes
    if axes is not None and not isinstance(axes, FanAxes | str | Mapping):
        raise TypeError(
            "axes: expected None, a layout such as 'oi...', a mapping from patterns of "
            f"leaf names to layouts, or a TreeAxes, got {type(axes).__name__}"
        )
    table = axes if isinstance(axes, Mapping) else {} if axes is None else {"*": axes}
    known = {glob: parse(layout) for glob, layout in table.items()}
    names, leaves = masks.names(tree), jax.tree_util.tree_leaves_with_path(tree)
    paths = {name: path for name, (path, _) in zip(names, leaves, strict=True)}
    shapes = {
        name: np.shape(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)
    }
    if isinstance(axes, Mapping):
        masks.check_globs(tuple(known), list(shapes), field="axes")
    result = []
    for name, path in paths.items():
        matching = [known[glob] for glob in known if masks.matches(name, (glob,))]
        result.append((name, matching[0] if matching else _infer(path, name, shapes)))
    return TreeAxes(tuple(result))


def _infer(
    path: tuple[Any, ...], name: str, shapes: Mapping[str, tuple[int, ...]]
) -> FanAxes:
    """Infers the layout of a leaf from its name, its shape and its sibling leaves.

    Args:
      path: key path of the leaf in the tree, as `jax.tree_util` gives it.
      name: slash-joined path of the leaf.
      shapes: shapes of all leaves by name.
    """
    layer, _, last = name.rpartition("/")
    shape, rank = shapes[name], len(shapes[name])
    # Equinox modules have `weight` as an attribute. As a dictionary key, the name does
    # not determine the layout.
    if last == "weight" and isinstance(path[-1], jax.tree_util.GetAttrKey):
        return EQUINOX
    if last == "embedding" and rank > 2:
        return FanAxes((-2,), (-1,), stack=tuple(range(rank - 2)))
    if rank > 2 and _in_attention(layer, last, shapes):
        stack = tuple(range(rank - 3))
        if layer.rpartition("/")[2] == "out":
            return FanAxes((-3, -2), (-1,), stack=stack)
        return FanAxes((-3,), (-2, -1), stack=stack)
    bias = shapes.get(f"{layer}/bias" if layer else "bias", ())
    return _beside_bias(shape, bias) if last == "kernel" else FLAX


def _in_attention(layer: str, last: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Returns whether a layer and its siblings look like a Flax attention."""
    parent, _, role_name = layer.rpartition("/")
    heads = []
    for role in ("query", "key", "value", "out"):
        sibling = f"{parent}/{role}" if parent else role
        shape = shapes.get(f"{sibling}/{last}", ())
        bias = shapes.get(f"{sibling}/bias", ())
        if len(shape) > 2 and role == "out":
            heads.append(shape[-3:-1])
        elif len(shape) > 2:
            heads.append(shape[-2:])
            # The bias of a projection is (heads, head size). Any other bias means a
            # convolution that happens to have this name.
            if bias and bias[-2:] != shape[-2:]:
                return False
    # One leaf with such a name proves nothing. Two with the same heads are attention.
    known = role_name in ("query", "key", "value", "out")
    return known and len(heads) > 1 and len(set(heads)) == 1


def _beside_bias(shape: tuple[int, ...], bias: tuple[int, ...]) -> FanAxes:
    """Infers a kernel's layout from its bias, which has the stacked and output axes."""
    for stack in range(len(bias)):
        outputs = len(bias) - stack
        is_match = bias == (*shape[:stack], *shape[len(shape) - outputs :])
        # A bias with one axis belongs to an ordinary layer, which the default covers.
        if len(bias) == 1 or not is_match or len(shape) <= len(bias):
            continue
        # Only `DenseGeneral` has several output axes, and it has no kernel window.
        first = stack if outputs > 1 else len(shape) - 2
        return FanAxes(
            tuple(axis - len(shape) for axis in range(first, len(shape) - outputs)),
            tuple(range(-outputs, 0)),
            stack=tuple(range(stack)),
        )
    return FLAX
