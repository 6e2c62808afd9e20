"""Vision transformers: images as sequences of patches.

Their attention and blocks are also those of `decoder`. Each linear map of an attention
layer has its own kernel with two axes, inputs by outputs: query, key, value and out,
with the heads side by side along the columns. Methods that assign each layer a sparsity
(ERK) or a threshold then treat each of them as one matrix. A joint kernel of query, key
and value would count as one layer with three times the outputs. ERK would make it two
thirds as dense, and the three maps would compete for weights. The three-axis kernels of
linen's attention would be taken for convolutions.
"""

import functools
import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers
from jaxsparse.models.layers import ModuleFactory

gelu = functools.partial(nn.gelu, approximate=False)
NORM = functools.partial(nn.LayerNorm, epsilon=1e-6)
INIT_STD = 0.02  # initial standard deviation of positions and class token


def attend(
    query: Float[Array, "b q h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h d"],
    *,
    causal: bool = False,
) -> Float[Array, "b q h d"]:
    """Computes scaled dot-product attention for each head.

    The attention weights are the softmax over t of the inner products of query and key,
    divided by the square root of d, in float32 or wider.

    Args:
      query: queries, [b, q, h, d] for h heads of d channels.
      key: keys, [b, t, h, d].
      value: values, [b, t, h, d].
      causal: whether each position attends to itself and earlier positions only.

    Returns:
      Averages of the values, [b, q, h, d], in the dtype of `value`.

    References:
      Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, equation 1.
    """
    match = jnp.einsum("bqhd,bthd->bhqt", query, key)
    wide = jnp.promote_types(match.dtype, jnp.float32)
    # Scaled in float32: a softmax in bfloat16 has 8 significant bits.
    match = match.astype(wide) / math.sqrt(query.shape[-1])
    if causal:
        is_earlier = jnp.tri(*match.shape[-2:], dtype=bool)[None, None]
        match = jnp.where(is_earlier, match, -jnp.inf)
    weights = nn.softmax(match)
    return jnp.einsum("bhqt,bthd->bqhd", weights.astype(value.dtype), value)


class Attention(nn.Module):
    """Multi-head self-attention with the layers query, key, value and out.

    Attributes:
      size: channels of a head.
      width: channels of all heads.
      widths: channels of the layers by name, in place of `width`.
      dense: creates the layers; already bound to its dtype.
      attend: function of queries, keys and values to averages of the values.
    """

    size: int
    width: int
    widths: Mapping[str, int]
    dense: ModuleFactory
    attend: Callable[..., Array] = attend

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """Computes self-attention; returns a sequence of the same shape."""
        b, t, c = x.shape
        query, key, value = (
            self.dense(layers.width_of(self.widths, name, self.width), name=name)(
                x
            ).reshape(b, t, -1, self.size)
            for name in ("query", "key", "value")
        )
        heads = self.attend(query, key, value).reshape(b, t, -1)
        return self.dense(layers.width_of(self.widths, "out", c), name="out")(heads)


class Block(nn.Module):
    """A pre-normalized transformer block: self-attention and a two-layer MLP.

    Attention and MLP are each added to their input. Layers are named norm1,
    attention/query, ..., norm2, mlp1 and mlp2; a gated MLP has a layer `gate` too.

    Attributes:
      width: channels of all heads of the attention.
      size: channels of a head.
      widths: units of the layers by name, in place of those that `width` defines.
      act: activation function of one array.
      norm: creates the normalization layers; already bound to its dtype.
      dense: creates the dense layers; already bound to its dtype.
      attend: function of queries, keys and values to averages of the values.
      hidden: channels between the two layers of the MLP; None for four times `width`.
      gated: whether the output of `mlp1` is multiplied by the activation of another
        layer of the same inputs, `gate`, in place of its own activation.
    """

    width: int
    size: int
    widths: Mapping[str, int]
    act: Callable[[Array], Array]
    norm: ModuleFactory
    dense: ModuleFactory
    attend: Callable[..., Array] = attend
    hidden: int | None = None
    gated: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """Computes the block; returns a sequence of the same shape."""
        own = layers.widths_within(self.widths, "attention")
        attention = Attention(
            self.size, self.width, own, self.dense, self.attend, name="attention"
        )
        x = x + attention(self.norm(name="norm1")(x))
        hidden = self.hidden or 4 * self.width
        wide = layers.width_of(self.widths, "mlp1", hidden)
        normed = self.norm(name="norm2")(x)
        y = self.dense(wide, name="mlp1")(normed)
        if self.gated:
            wide = layers.width_of(self.widths, "gate", hidden)
            y = y * self.act(self.dense(wide, name="gate")(normed))
        else:
            y = self.act(y)
        return x + self.dense(
            layers.width_of(self.widths, "mlp2", x.shape[-1]), name="mlp2"
        )(y)


class ViT(nn.Module):
    """Patches as tokens, a class token, learned positions, blocks, and a linear head.

    Layers are named patches, block1, ..., norm and head. The other leaves, class_token
    and positions, are not kernels: they are neither pruned nor decayed. The usual
    networks, all with 16x16 patches and 12 blocks, and their numbers of parameters for
    images of 224x224x3 with 1000 classes:

        width  heads
        192    3      ViT-Ti/16, DeiT-Ti    5,717,416
        384    6      ViT-S/16,  DeiT-S    22,050,664
        768    12     ViT-B/16,  DeiT-B    86,567,656

    Attributes:
      width: channels of a token, a multiple of `heads`.
      heads: number of heads of each attention layer.
      depth: number of blocks.
      patch: side of a patch in pixels; height and width of the images must be
        multiples.
      classes: number of outputs.
      act: activation function of one array; the published networks use GELU, computed
        exactly.
      conv: creates the convolution with stride `patch` that converts patches to tokens.
      norm: creates the normalization layers, which act on each token separately.
      dense: creates the dense layers.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. Softmax and head compute in float32 or wider.
      widths: units of layers by name, such as {"block1/mlp1": 5}, where they differ
        from those that the other fields define; None for no differences. Layers whose
        outputs are added need equal numbers, and so do the query, key and value of a
        block, a multiple of the channels of a head, which are `width` / `heads`.

    Deviations:
      As in DeiT, the head is one layer, while the paper uses two in pre-training, and
      there is no dropout. In contrast to DeiT, there is no stochastic depth.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words, 2020, arXiv:2010.11929.
      Touvron et al., Training data-efficient image transformers & distillation through
      attention, 2020, arXiv:2012.12877, table 1.
    """

    width: int = 384
    heads: int = 6
    depth: int = 12
    patch: int = 16
    classes: int = 1000
    act: Callable[[Array], Array] = gelu
    conv: ModuleFactory = nn.Conv
    norm: ModuleFactory = NORM
    dense: ModuleFactory = nn.Dense
    dtype: DTypeLike | None = None
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if the width is not a multiple of the number of heads."""
        if self.width % self.heads:
            raise ValueError(
                f"width: expected a multiple of {self.heads}, the number of heads, got "
                f"{self.width}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; `train` has no effect."""
        del train
        dense, norm, conv = (
            functools.partial(make, dtype=self.dtype)
            for make in (self.dense, self.norm, self.conv)
        )
        sides = (self.patch, self.patch)
        if any(side % self.patch or not side for side in images.shape[1:3]):
            raise ValueError(
                f"images: expected sides that are multiples of {self.patch}, the side "
                f"of a patch, got {images.shape[1]} by {images.shape[2]} pixels"
            )
        width = layers.width_of(self.widths, "patches", self.width)
        x = conv(width, sides, strides=sides, padding="VALID", name="patches")(images)
        x = x.reshape(x.shape[0], -1, width)
        token = self._leaf("class_token", (1, 1, width), x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, width)), x], 1)
        x = x + self._leaf("positions", (1, *x.shape[1:]), x.dtype)
        for i in range(self.depth):
            name, size = f"block{i + 1}", self.width // self.heads
            own = layers.widths_within(self.widths, name)
            x = Block(self.width, size, own, self.act, norm, dense, name=name)(x)
        # Only the class token is passed on, so `classify` averages over one position.
        x = lax.slice_in_dim(norm(name="norm")(x), 0, 1, axis=1)[:, :, None]
        layers.check_widths(self)
        return layers.classify(x, self.classes, dense=self.dense)

    def _leaf(
        self, name: str, shape: tuple[int, ...], dtype: DTypeLike
    ) -> Float[Array, "..."]:
        leaf = self.param(name, initializers.normal(INIT_STD), shape)
        return leaf.astype(dtype)
