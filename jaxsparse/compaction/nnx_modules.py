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


@arguments.check(round_to=arguments.integer(1))
def compact_nnx(
    module: "nnx.Module", masks: Masks, example: Any, *, round_to: int = 1
) -> Compacted:
    """Removes dead neurons and channels of an nnx module; see `compact`.

    nnx layers read most widths from their arrays. The smaller module is a copy with
    smaller arrays, in which the attributes of flax's own layers that repeat a width are
    updated too, also in classes derived from them: `Linear`, `LinearGeneral`, `Einsum`,
    `Conv`, `ConvTranspose`, `Embed`, `LoRA`, `MultiHeadAttention`, the normalizations,
    and the cells of recurrent networks. Attributes of other modules stay as they are.
    Units whose removal the module does not allow stay, and the report says so.

    Args:
      module: the module, in inference mode (`module.eval()`); it is not changed.
      masks: masks of the active weights, with the nesting of `nnx.state(module)` or of
        `nnx.state(module, nnx.Param)`.
      example: an input, or a tuple of all inputs; see `compact`.
      round_to: the number of units of a layer that stay is rounded up to a multiple of
        this; a layer with fewer units than that multiple keeps all. 1 or more.

    Returns:
      The smaller network: its state as `params`, and the `module`.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if `masks` are not boolean or do not fit the module.

    Examples:
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> layers = nnx.Linear(4, 3, rngs=rngs), nnx.relu, nnx.Linear(3, 2, rngs=rngs)
      >>> module = nnx.Sequential(*layers)
      >>> ticket = masks.ones(nnx.state(module, nnx.Param))
      >>> kernel = ticket["layers"][2]["kernel"]
      >>> kernel.set_value(kernel.get_value().at[1].set(False))
      >>> small = compact_nnx(module, ticket, jnp.ones((1, 4)))
      >>> small.module.layers[0].out_features, small.report.parameters
      (2, (23, 16))
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
        for kinds, update in _updates().items():
            if isinstance(layer, kinds):
                update(layer)


def _updates() -> dict[tuple[type, ...], Callable[[Any], None]]:
    """Lists the layers that repeat widths, with what updates them."""
    from flax import nnx

    plain = nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.InstanceNorm
    cells = nnx.SimpleCell, nnx.GRUCell, nnx.OptimizedLSTMCell, nnx.LSTMCell
    return {
        (nnx.Linear,): _linear,
        (nnx.LinearGeneral,): _linear_general,
        (nnx.Einsum,): _einsum,
        (nnx.Conv,): _convolution,
        (nnx.ConvTranspose,): _transposed_convolution,
        (nnx.Embed,): _embedding,
        (nnx.LoRA,): _low_rank,
        (nnx.MultiHeadAttention,): _attention,
        plain: _normalization,
        (nnx.GroupNorm,): _group_normalization,
        cells: _cell,
    }


def _linear(layer: Any) -> None:
    layer.in_features, layer.out_features = layer.kernel.shape[-2:]


def _linear_general(layer: Any) -> None:
    shape = layer.kernel.shape[len(layer.batch_axis) :]
    layer.in_features = shape[: len(layer.axis)]
    layer.out_features = shape[len(layer.axis) :]


def _einsum(layer: Any) -> None:
    layer.kernel_shape = layer.kernel.shape
    layer.bias_shape = None if layer.bias is None else layer.bias.shape


def _convolution(layer: Any) -> None:
    """Has a convolution with groups keep the size of a group."""
    shape = layer.kernel.shape
    groups = layer.feature_group_count
    if groups > 1:
        per_group = layer.kernel_shape[-1] // groups
        layer.feature_group_count = shape[-1] // per_group
    layer.in_features = shape[-2] * layer.feature_group_count
    layer.out_features = shape[-1]
    layer.kernel_shape = shape


def _transposed_convolution(layer: Any) -> None:
    layer.kernel_shape = layer.kernel.shape
    ends = layer.kernel.shape[-2:]
    ends = ends[::-1] if layer.transpose_kernel else ends
    layer.in_features, layer.out_features = ends


def _embedding(layer: Any) -> None:
    layer.num_embeddings, layer.features = layer.embedding.shape[-2:]


def _low_rank(layer: Any) -> None:
    layer.in_features = layer.lora_a.shape[-2]
    layer.out_features = layer.lora_b.shape[-1]


def _attention(layer: Any) -> None:
    layer.num_heads, layer.head_dim = layer.query.kernel.shape[-2:]
    layer.qkv_features = layer.num_heads * layer.head_dim
    if hasattr(layer, "num_kv_heads"):
        layer.num_kv_heads = layer.key.kernel.shape[-2]
    layer.in_features = layer.query.kernel.shape[-3]
    layer.in_kv_features = layer.key.kernel.shape[-3]
    layer.out_features = layer.out.kernel.shape[-1]


def _normalization(layer: Any) -> None:
    for name in ("mean", "scale", "bias"):
        array = getattr(layer, name, None)
        if array is not None:
            layer.num_features = array.shape[-1]
            return


def _group_normalization(layer: Any) -> None:
    """Keeps the size of a group."""
    array = layer.bias if layer.scale is None else layer.scale
    if array is not None:
        layer.num_features = array.shape[-1]
        layer.num_groups = layer.num_features // layer.group_size


def _cell(layer: Any) -> None:
    of_state = layer.hf if hasattr(layer, "hf") else layer.dense_h
    layer.hidden_features = of_state.kernel.shape[-2]
    of_input = layer.ii if hasattr(layer, "ii") else layer.dense_i
    layer.in_features = of_input.kernel.shape[-2]
