"""Decoder-only transformers: language models that predict the next token."""

import functools
import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxsparse.models import layers, vit
from jaxsparse.models.layers import ModuleFactory

NORM = functools.partial(nn.RMSNorm, epsilon=1e-6)
BASE = 10_000.0  # of the wavelengths of rotary positions


def rotate(
    x: Float[Array, "b t h d"], *, base: float = BASE
) -> Float[Array, "b t h d"]:
    r"""Rotates the channels of queries or keys by angles that grow with their position.

    Channels i and i + d/2 are the coordinates of a plane, for i below d/2. At position
    t, which counts from 0, the plane is rotated by the angle
    :math:`t \cdot base^{-2i/d}`. The inner product of a rotated query and a rotated
    key then depends on their positions by the difference only.

    Args:
      x: queries or keys of all positions, [b, t, h, d]; d is even.
      base: the wavelengths of the planes are from 2 pi to almost 2 pi times this
        number.

    Returns:
      Rotated queries or keys, of the same shape and dtype. Angles are float32.

    Deviations:
      The paper pairs channels 2i and 2i + 1, which is a permutation of the channels.

    References:
      Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021,
      arXiv:2104.09864, equations 14 and 15.
    """
    _, length, _, channels = x.shape
    frequencies = base ** (-jnp.arange(0, channels, 2, dtype=jnp.float32) / channels)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies[None]
    cos, sin = (f(angles)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )


def attend(
    query: Float[Array, "b t h d"],
    key: Float[Array, "b t h d"],
    value: Float[Array, "b t h d"],
) -> Float[Array, "b t h d"]:
    """Computes causal attention with rotary positions.

    Args:
      query: queries, [b, t, h, d].
      key: keys, [b, t, h, d].
      value: values, [b, t, h, d].

    Returns:
      For each position, averages of the values of it and of earlier positions.
    """
    return vit.attend(rotate(query), rotate(key), value, causal=True)


class TiedEmbedding(nn.Module):
    """A vector for each token, used as input and as weights of the output layer.

    The leaf is called tied_embedding. It is not called a kernel or embedding, so that
    it is not pruned unless patterns name it.

    Attributes:
      classes: number of tokens.
      width: channels of a token.
    """

    classes: int
    width: int

    def setup(self) -> None:
        """Makes the parameter."""
        shape = (self.classes, self.width)
        draw = initializers.normal(vit.INIT_STD)
        self.table = self.param("tied_embedding", draw, shape)

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t c"]:
        """Looks up the vectors of tokens."""
        return jnp.take(self.table, tokens, axis=0)

    def logits(self, x: Float[Array, "b t c"]) -> Float[Array, "b t k"]:
        """Computes the inner products with the vectors of all tokens.

        Args:
          x: what the network makes of each position, [b, t, c].
        """
        return x @ self.table.T.astype(x.dtype)


class DecoderLM(nn.Module):
    """A decoder-only transformer with RMSNorm, rotary positions and no biases.

    Each block adds causal self-attention and an MLP to its input, after RMSNorm. Layers
    are named embed, block1, ..., norm and head, and those of a block norm1,
    attention/query, attention/key, attention/value, attention/out, norm2, mlp1, gate
    and mlp2.

    Attributes:
      width: channels of a token, a multiple of twice `heads`.
      heads: number of heads of each attention layer.
      depth: number of blocks.
      classes: number of tokens.
      gated: whether the MLP is gated, with 8/3 `width` channels, rounded up to a
        multiple of 8; otherwise it has 4 `width`. With the default `act` a gated MLP is
        SwiGLU.
      tied: whether the output layer has the weights of the embedding. If so, there is
        no head, and the weights, embed/tied_embedding, are pruned only if a pattern of
        prunable leaves names them. If not, the embedding is prunable like the kernels.
      act: activation function of one array.
      norm: creates the normalization layers, which act on each token separately.
      dense: creates the dense layers, with `use_bias=False`.
      dtype: dtype in which the layers compute; None for that of the parameters. Softmax
        and logits are float32 or wider.
      widths: units of layers by name, such as {"block1/mlp2": 5}, where they differ
        from those that the other fields define; None for no differences. Layers whose
        outputs are added or multiplied need equal numbers, and so do the query, key and
        value of a block, a multiple of the channels of a head, `width` / `heads`.

    Deviations:
      There is no dropout.

    References:
      Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762.
      Zhang, Sennrich, Root Mean Square Layer Normalization, 2019, arXiv:1910.07467.
      Shazeer, GLU Variants Improve Transformer, 2020, arXiv:2002.05202, equation 6.
      Su et al., RoFormer, 2021, arXiv:2104.09864.
    """

    width: int = 64
    heads: int = 4
    depth: int = 4
    classes: int = 256
    gated: bool = True
    tied: bool = False
    act: Callable[[Array], Array] = nn.silu
    norm: ModuleFactory = NORM
    dense: ModuleFactory = nn.Dense
    dtype: DTypeLike | None = None
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if a head does not have an even number of channels."""
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width: expected a multiple of {2 * self.heads}, twice the number of "
                f"heads, because rotary positions pair channels, got {self.width}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b t"], *, train: bool
    ) -> Float[Array, "b t k"]:
        """Computes the logits of the token after each; `train` has no effect."""
        del train
        dense = functools.partial(self.dense, use_bias=False, dtype=self.dtype)
        norm = functools.partial(self.norm, dtype=self.dtype)
        width = layers.width_of(self.widths, "embed", self.width)
        make = TiedEmbedding if self.tied else nn.Embed
        embed = make(self.classes, width, name="embed")
        x = embed(tokens)
        x = x if self.dtype is None else x.astype(self.dtype)
        hidden = 8 * math.ceil(self.width / 3) if self.gated else 4 * self.width
        for i in range(self.depth):
            name = f"block{i + 1}"
            x = vit.Block(
                self.width,
                self.width // self.heads,
                layers.widths_within(self.widths, name),
                self.act,
                norm,
                dense,
                attend,
                hidden,
                self.gated,
                name=name,
            )(x)
        x = norm(name="norm")(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.tied:
            logits = embed.logits(x)
        else:
            head = self.dense(self.classes, use_bias=False, dtype=x.dtype, name="head")
            logits = head(x)
        layers.check_widths(self)
        return logits
