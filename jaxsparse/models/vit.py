"""Vision transformers: images as sequences of patches.

Every linear map of an attention is a kernel of its own with two axes, inputs by
outputs: query, key, value and out, heads side by side along the columns. Methods that
give layers their sparsities (ERK) or thresholds then treat each as the map that it is.
One kernel of query, key and value together would count as one layer of three times the
outputs, which ERK keeps two thirds as dense, and let the three compete for weights;
linen's kernels of three axes would be read as convolutions.
"""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers
from jaxsparse.models.layers import ModuleFactory

gelu = functools.partial(nn.gelu, approximate=False)
NORM = functools.partial(nn.LayerNorm, epsilon=1e-6)
SPREAD = 0.02  # deviation of positions and class token in the beginning


def attend(
    query: Float[Array, "b q h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h d"],
) -> Float[Array, "b q h d"]:
    """Averages values by how their keys match queries, head by head.

    Weights are the softmax over t of the products of query and key, divided by the root
    of their d channels, in float32 or wider.

    References:
      Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, equation 1.
    """
    match = jnp.einsum("bqhd,bthd->bhqt", query, key)
    wide = jnp.promote_types(match.dtype, jnp.float32)
    weights = nn.softmax(match.astype(wide) / math.sqrt(query.shape[-1]))
    return jnp.einsum("bhqt,bthd->bqhd", weights.astype(value.dtype), value)


class Attention(nn.Module):
    """Attention of a sequence to itself: layers query, key, value and out.

    Attributes:
      heads: how many share the channels equally.
      dense: makes the layers, already given its dtype.
    """

    heads: int
    dense: ModuleFactory

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """Returns a sequence of the same shape."""
        b, t, c = x.shape
        query, key, value = (
            self.dense(c, name=name)(x).reshape(b, t, self.heads, c // self.heads)
            for name in ("query", "key", "value")
        )
        return self.dense(c, name="out")(attend(query, key, value).reshape(b, t, c))


class Block(nn.Module):
    """Attention and a network of two layers, normalised before, added to their input.

    Layers are called norm1, attention/query, ..., norm2, mlp1 and mlp2.

    Attributes:
      heads: of the attention.
      act: any function of one array.
      norm: makes the normalisations, already given its dtype.
      dense: makes the layers, likewise.
    """

    heads: int
    act: Callable[[Array], Array]
    norm: ModuleFactory
    dense: ModuleFactory

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """Returns a sequence of the same shape."""
        attention = Attention(self.heads, self.dense, name="attention")
        x = x + attention(self.norm(name="norm1")(x))
        y = self.dense(4 * x.shape[-1], name="mlp1")(self.norm(name="norm2")(x))
        return x + self.dense(x.shape[-1], name="mlp2")(self.act(y))


class ViT(nn.Module):
    """Patches as tokens, a class token, learned positions, blocks, a linear head.

    Layers are called patches, block1, ..., norm and head; beside them lie the leaves
    class_token and positions, which are no kernels: nothing prunes or decays them. The
    usual networks, all of 16x16 patches and 12 blocks, and how many parameters they
    have on images of 224x224x3 with 1000 classes:

        width  heads
        192    3      ViT-Ti/16, DeiT-Ti    5,717,416
        384    6      ViT-S/16,  DeiT-S    22,050,664
        768    12     ViT-B/16,  DeiT-B    86,567,656

    Attributes:
      width: channels of a token.
      heads: of each attention; a divisor of the width.
      depth: blocks.
      patch: pixels along a side of a patch.
      classes: number of outputs.
      act: any function of one array; the published networks have GELU, computed
        exactly.
      conv: makes the convolution of stride `patch` that turns patches into tokens.
      norm: makes the normalisations, of each token by itself.
      dense: makes the layers.
      dtype: what the layers compute in; None for that of images and parameters
        together. Softmax and head compute in float32 or wider.

    Deviations:
      As in DeiT, the head is one layer, of which the paper has two in pre-training, and
      there is no dropout. Neither is there stochastic depth, which DeiT has.

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

    def __post_init__(self) -> None:
        """Refuses heads that do not share the channels equally."""
        if self.width % self.heads:
            raise ValueError(
                f"width: got {self.width} for {self.heads} heads; wanted a multiple of "
                f"{self.heads}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Returns logits; training and evaluation are the same here."""
        del train
        dense, norm, conv = (
            functools.partial(make, dtype=self.dtype)
            for make in (self.dense, self.norm, self.conv)
        )
        sides = (self.patch, self.patch)
        if any(side % self.patch or not side for side in images.shape[1:3]):
            raise ValueError(
                f"images: got {images.shape[1]} by {images.shape[2]} pixels; wanted "
                f"multiples of {self.patch}, the side of a patch"
            )
        x = conv(self.width, sides, strides=sides, padding="VALID", name="patches")(
            images
        )
        x = x.reshape(len(x), -1, self.width)
        token = self._leaf("class_token", (1, 1, self.width), x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], 1)
        x = x + self._leaf("positions", (1, *x.shape[1:]), x.dtype)
        for i in range(self.depth):
            x = Block(self.heads, self.act, norm, dense, name=f"block{i + 1}")(x)
        x = norm(name="norm")(x)[:, :1, None]
        return layers.classify(x, self.classes, dense=self.dense)

    def _leaf(
        self, name: str, shape: tuple[int, ...], dtype: DTypeLike
    ) -> Float[Array, "..."]:
        leaf = self.param(name, initializers.normal(SPREAD), shape)
        return leaf.astype(dtype)
