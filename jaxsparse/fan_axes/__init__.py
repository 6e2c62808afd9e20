"""Fan axes: which axes of a weight are inputs, outputs, positions and stacked layers.

Distributions, structures and initializers need the fan-in and fan-out of a layer, and
a shape alone does not tell them: (8, 64, 64) is a convolution over 8 positions, the
output map of an attention with 8 heads, or 8 stacked layers. This module is the only
place that decides. Everything that asks takes `axes=`, which may be

    None               inferred from names and shapes, see `of_tree`
    a layout           for all leaves, such as `EQUINOX` or "oi..."
    {pattern: layout}  for the leaves whose name matches; the others are inferred
    TreeAxes           what `of_tree` or `of_linen` returned

A layout is a `FanAxes` or a string with one letter an axis, see `parse`:

    ...io    Flax and Haiku: dense layers and convolutions
    oi...    Equinox and PyTorch (`EQUINOX`, `TORCH`)
    ioo      query, key, value of Flax's attention: (features, heads, head size)
    iio      its output map: (heads, head size, features)
    sio      dense layers stacked by `nn.scan`
    ...io/4  a convolution of 4 groups
    ...is    a depthwise convolution, one channel a group (`DEPTHWISE`)
"""

from jaxsparse.fan_axes.inference import Axes, TreeAxes, of_tree
from jaxsparse.fan_axes.layouts import (
    DEPTHWISE,
    EQUINOX,
    FLAX,
    TORCH,
    FanAxes,
    Fans,
    Layout,
    fans,
    from_matrices,
    parse,
    to_matrices,
)
from jaxsparse.fan_axes.linen import of_linen

__all__ = (
    "DEPTHWISE",
    "EQUINOX",
    "FLAX",
    "TORCH",
    "Axes",
    "FanAxes",
    "Fans",
    "Layout",
    "TreeAxes",
    "fans",
    "from_matrices",
    "of_linen",
    "of_tree",
    "parse",
    "to_matrices",
)
