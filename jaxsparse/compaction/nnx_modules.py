"""Compaction of nnx modules: the same class, with the widths of its layers updated."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxsparse import arguments
from jaxsparse.compaction import compacted
from jaxsparse.compaction.compacted import Compacted
from jaxsparse.types import Masks

# nnx is imported in functions: it takes a while, and users of linen do not need it.
if TYPE_CHECKING:
    from flax import nnx

# Attributes of flax's layers that repeat a length of one of their leaves: name of the
# attribute, of the leaf, and the axis.
WIDTHS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "Linear": (("in_features", "kernel", 0), ("out_features", "kernel", 1)),
    "Conv": (("out_features", "kernel", -1),),
    "ConvTranspose": (("in_features", "kernel", -2), ("out_features", "kernel", -1)),
    "Embed": (("features", "embedding", 1),),
    "BatchNorm": (("num_features", "mean", 0),),
    "LayerNorm": (("num_features", "scale", 0),),
    "RMSNorm": (("num_features", "scale", 0),),
}


@arguments.check(round_to=arguments.integer(1))
def compact_nnx(
    module: "nnx.Module", masks: Masks, example: Any, *, round_to: int = 1
) -> Compacted:
    """Removes dead neurons and channels of an nnx module; see `compact`.

    nnx layers read most widths from their arrays. The smaller module is a copy with
    smaller arrays, in which the attributes of flax's own layers that repeat a width
    (`in_features`, `feature_group_count`) are updated too. Units whose removal the
    module does not allow stay, and the report says so.

    Args:
      module: the module, in inference mode (`module.eval()`); it is not changed.
      masks: masks of the active weights, with the nesting of `nnx.state(module)` or of
        `nnx.state(module, nnx.Param)`.
      example: an input, or a tuple of all inputs; see `compact`.
      round_to: numbers of remaining units are multiples of this; 1 or more.

    Returns:
      The smaller network: its state as `params`, and the `module`.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if `masks` do not fit the module.
    """
    from flax import nnx

    arguments.instance(nnx.Module)("module", module)
    inputs = example if isinstance(example, tuple) else (example,)
    graph, state = nnx.split(module)

    def apply(state: Any, *inputs: Any) -> Any:
        return nnx.merge(graph, state)(*inputs)

    def smaller(small: Any) -> Any:
        result = nnx.merge(graph, small)
        _update_widths(result)
        return result

    def rebuild(small: Any) -> Callable[..., Any]:
        new_graph, _ = nnx.split(smaller(small))
        return lambda state, *inputs: nnx.merge(new_graph, state)(*inputs)

    found = compacted.run(apply, state, masks, inputs, rebuild=rebuild, to=round_to)
    return found._replace(module=smaller(found.params))


def _update_widths(module: "nnx.Module") -> None:
    """Sets the attributes of layers that repeat a width of their arrays."""
    from flax import nnx

    for _, layer in nnx.iter_graph(module):
        if not isinstance(layer, nnx.Module):
            continue
        for attribute, leaf, axis in WIDTHS.get(type(layer).__name__, ()):
            array = getattr(layer, leaf, None)
            if array is not None and hasattr(layer, attribute):
                setattr(layer, attribute, array.shape[axis])
        if type(layer) is nnx.Conv:
            _update_groups(layer)
        if type(layer) is nnx.MultiHeadAttention:
            layer.num_heads = layer.query.kernel.shape[-2]
            layer.qkv_features = layer.num_heads * layer.head_dim


def _update_groups(layer: Any) -> None:
    """Has a convolution with groups keep the size of a group."""
    shape = layer.kernel.shape
    groups = layer.feature_group_count
    if groups > 1:
        per_group = layer.kernel_shape[-1] // groups
        layer.feature_group_count = shape[-1] // per_group
    layer.in_features = shape[-2] * layer.feature_group_count
    layer.kernel_shape = shape
