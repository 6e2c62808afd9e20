"""Fan axes: which axes of a weight are inputs, outputs, positions and stacked layers.

Distributions, structures and initializers need the fan-in and fan-out of a layer, and
its shape is not enough to know them: (8, 64, 64) is a convolution with 8 positions, the
output projection of an attention with 8 heads, or 8 stacked layers. Only this module
decides which it is. Functions that need the layout take an argument `axes`, which may
be

    None               layouts are inferred from names and shapes, by `of_tree`
    a layout           for all leaves, such as `EQUINOX` or "oi..."
    {pattern: layout}  for leaves whose names match; the others are inferred
    TreeAxes           the result of `of_tree` or `of_linen`

A layout is a `FanAxes` or a string with one letter per axis, which `parse` reads:

    ...io    Flax and Haiku: dense layers and convolutions
    oi...    Equinox and PyTorch (`EQUINOX`, `TORCH`)
    ioo      query, key, value of Flax's attention: (features, heads, head size)
    iio      its output projection: (heads, head size, features)
    sio      dense layers stacked by `nn.scan`
    ...io/4  a convolution with 4 groups
    ...is    a depthwise convolution, with one channel per group (`DEPTHWISE`)
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
