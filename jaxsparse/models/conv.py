"""Conv-2, Conv-4 and Conv-6: small VGG-like networks for CIFAR-10."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers, pooling


class ConvNet(nn.Module):
    """Pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then an MLP.

    Layers are named conv1, conv2, ..., dense1, dense2 and head; all have biases. On
    32x32x3 images Conv-2, Conv-4 and Conv-6 have 4,301,642, 2,425,930 and 2,262,602
    parameters.

    Attributes:
      depth: number of convolutions, even, 2 or more.
      width: channels of the first pair; each further pair has twice as many as the one
        before.
      features: sizes of the hidden dense layers.
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions.
      pool: pooling function that halves height and width.
      dense: creates the dense layers.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters.
      widths: units of layers by name, in place of those that other fields define, such
        as {"dense1": 5}; None for none.

    Deviations:
      None known. Figure 2 of the paper gives 1.7M weights for Conv-6, including 1.1M in
      convolutions; the layers that it lists have 2.26M, including 1.14M in
      convolutions.

    References:
      Frankle and Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable
      Neural Networks, 2019, arXiv:1803.03635, figure 2.
    """

    depth: int = 4
    width: int = 64
    features: tuple[int, ...] = (256, 256)
    classes: int = 10
    act: Callable[[Array], Array] = nn.relu
    conv: Callable[..., nn.Module] = nn.Conv
    pool: Callable[[Array], Array] = pooling.pool_windows
    dense: Callable[..., nn.Module] = nn.Dense
    dtype: DTypeLike | None = None
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if the depth is not a positive even number."""
        if self.depth < 2 or self.depth % 2:
            raise ValueError(
                "depth: expected an even number of convolutions, such as 2, 4 or 6, "
                f"got {self.depth}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; `train` has no effect."""
        del train
        x = images
        for i in range(self.depth):
            size = self.width * 2 ** (i // 2)
            size = layers.width_of(self.widths, f"conv{i + 1}", size)
            layer = self.conv(size, (3, 3), dtype=self.dtype, name=f"conv{i + 1}")
            x = self.act(layer(x))
            if i % 2:
                x = self.pool(x)
        x = x.reshape(x.shape[0], -1)
        for i, size in enumerate(self.features, start=1):
            size = layers.width_of(self.widths, f"dense{i}", size)
            x = self.act(self.dense(size, dtype=self.dtype, name=f"dense{i}")(x))
        layers.check_widths(self)
        # The loss needs logits in float32 even if the layers compute in bfloat16.
        precise = jnp.promote_types(x.dtype, jnp.float32)
        return self.dense(self.classes, dtype=precise, name="head")(x)
