"""The layouts of a whole tree, inferred from names and shapes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxsparse import masks
from jaxsparse.fan_axes.layouts import EQUINOX, FLAX, FanAxes, Layout, parse


@dataclasses.dataclass(frozen=True)
class TreeAxes:
    """The layouts of a tree's leaves, by name; hashable.

    Attributes:
      leaves: pairs of a leaf's name and its layout.
    """

    leaves: tuple[tuple[str, FanAxes], ...]

    def __getitem__(self, name: str) -> FanAxes:
        """Returns the layout of one leaf.

        Raises:
          ValueError: if there is no leaf of that name.
        """
        for known, axes in self.leaves:
            if known == name:
                return axes
        raise ValueError(
            f"axes: expected a layout for {name!r}, got those of "
            f"{[known for known, _ in self.leaves]}; they belong to another tree"
        )


Axes = Layout | Mapping[str, Layout] | TreeAxes | None


def of_tree(tree: Any, axes: Axes = None) -> TreeAxes:
    """Finds the layout of every leaf of a tree.

    What `axes` does not say is inferred from names and shapes:

    - Leaves called query, key, value and out beside one another (Flax's attention, of
      linen and nnx): (features, heads, head size), and (heads, head size, features) for
      out, if their heads agree. Axes before these are stacked.
    - A bias beside a kernel tells the kernel's outputs, and which leading axes are
      stacked: (12, 64, 256) with a bias of (12, 256) are 12 dense layers, with one of
      (64, 256) it is a `DenseGeneral`.
    - An embedding is (entries, features); axes before these are stacked.
    - An attribute called weight is an Equinox layer's, (outputs, inputs, *window).
    - All else is (*window, inputs, outputs), as in Flax and Haiku.

    Three cases look alike and are read by the last rule: stacked dense layers without
    biases, a `DenseGeneral` of several input axes, and a depthwise convolution, which
    could see an image of one channel. `axes` says what they are; so does `of_linen`.
    Other cases to name: an Equinox embedding ("io"), `ConvTranspose` with
    `transpose_kernel=True` ("...oi"), and PyTorch weights in dictionaries (`TORCH`).

    Args:
      tree: parameters, their shapes or masks. Parameters tell more than masks, which
        are None where a bias is.
      axes: what is known, see the top of this module. A pattern that comes first
        counts.

    Returns:
      A layout for each leaf, whether or not it is a kernel.

    Raises:
      ValueError: for a layout that cannot be read, or a pattern that matches no leaf.
      TypeError: if `axes` is none of the forms.

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
        given = [known[glob] for glob in known if masks.matches(name, (glob,))]
        result.append((name, given[0] if given else _infer(path, name, shapes)))
    return TreeAxes(tuple(result))


def _infer(
    path: tuple[Any, ...], name: str, shapes: Mapping[str, tuple[int, ...]]
) -> FanAxes:
    """Reads a leaf's layout from its name, its shape and the leaves beside it."""
    layer, _, last = name.rpartition("/")
    shape, rank = shapes[name], len(shapes[name])
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
    """Says whether a layer is a map of Flax's attention, as those beside it show."""
    above, _, own = layer.rpartition("/")
    heads = []
    for role in ("query", "key", "value", "out"):
        beside = f"{above}/{role}" if above else role
        shape = shapes.get(f"{beside}/{last}", ())
        bias = shapes.get(f"{beside}/bias", ())
        if len(shape) > 2 and role == "out":
            heads.append(shape[-3:-1])
        elif len(shape) > 2:
            heads.append(shape[-2:])
            if bias and bias[-2:] != shape[-2:]:
                return False  # a convolution of that name
    known = own in ("query", "key", "value", "out")
    return known and len(heads) > 1 and len(set(heads)) == 1


def _beside_bias(shape: tuple[int, ...], bias: tuple[int, ...]) -> FanAxes:
    """Reads from a bias, which has the stack's and the outputs' axes."""
    for stack in range(len(bias)):
        outputs = len(bias) - stack
        fits = bias == (*shape[:stack], *shape[len(shape) - outputs :])
        if len(bias) == 1 or not fits or len(shape) <= len(bias):
            continue
        # Only `DenseGeneral` has several axes of outputs, and it has no window.
        first = stack if outputs > 1 else len(shape) - 2
        return FanAxes(
            tuple(axis - len(shape) for axis in range(first, len(shape) - outputs)),
            tuple(range(-outputs, 0)),
            stack=tuple(range(stack)),
        )
    return FLAX
