"""LeNet-300-100 and LeNet-5: small networks for digits."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers, pooling


class LeNet300100(nn.Module):
    """The fully connected network 784-300-100-10 on flattened images.

    Layers are named dense1, dense2, ... and head. On 28x28x1 images it has 266,200
    weights and 410 biases.

    Attributes:
      features: sizes of the hidden layers; any number of layers.
      classes: number of outputs.
      act: activation function of one array.
      dense: creates the dense layers.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"dense1": 5}; None for none.

    References:
      LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document
      recognition, 1998, section III.
    """

    features: tuple[int, ...] = (300, 100)
    classes: int = 10
    act: Callable[[Array], Array] = nn.relu
    dense: Callable[..., nn.Module] = nn.Dense
    dtype: DTypeLike | None = None
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; `train` has no effect."""
        del train
        x = images.reshape(images.shape[0], -1)
        for i, size in enumerate(self.features, start=1):
            size = layers.width_of(self.widths, f"dense{i}", size)
            x = self.act(self.dense(size, dtype=self.dtype, name=f"dense{i}")(x))
        layers.check_widths(self)
        # The loss needs logits in float32 even if the layers compute in bfloat16.
        precise = jnp.promote_types(x.dtype, jnp.float32)
        return self.dense(self.classes, dtype=precise, name="head")(x)


def _middle(
    x: Float[Array, "b h w c"], height: int, width: int
) -> Float[Array, "b h2 w2 c"]:
    """Crops feature maps to the centers of the windows of an unpadded convolution.

    Args:
      x: feature maps, [b, h, w, c].
      height: height of the output of the convolution.
      width: width of the output of the convolution.
    """
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


class LeNet5(nn.Module):
    """Two 5x5 convolutions, each followed by 2x2 pooling, then dense layers.

    Layers are named conv1, conv2, dense1, dense2 and head. On 28x28x1 images it has
    61,706 parameters, and with `padding="VALID"` (the LeNet-5 of Evci et al. 2020,
    arXiv:2010.03533) 44,426.

    Attributes:
      conv_channels: channels of the convolutions.
      features: sizes of the hidden dense layers.
      padding: padding of the first convolution, "SAME" (with which 28x28 images are
        equivalent to the padded 32x32 images of the paper) or "VALID"; the other
        convolutions have none.
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions.
      pool: pooling function that halves height and width.
      skip: creates a ghost skip connection around each convolution but the first, whose
        input is the images; called as `skip(features, stride=1, name="skip2")`. None to
        omit them.
      dense: creates the dense layers.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"dense1": 5}; None for none.

    Deviations:
      As in most later work, pooling takes the maximum, every map of conv2 is connected
      to every map of conv1, the activation function is ReLU and the output layer is
      affine. The paper has trainable averages, a table of connections, a scaled tanh
      (`act`) and radial basis functions.

    References:
      LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document
      recognition, 1998, section II.B.
    """

    conv_channels: tuple[int, ...] = (6, 16)
    features: tuple[int, ...] = (120, 84)
    padding: str = "SAME"
    classes: int = 10
    act: Callable[[Array], Array] = nn.relu
    conv: Callable[..., nn.Module] = nn.Conv
    pool: Callable[[Array], Array] = pooling.pool_windows
    skip: Callable[..., nn.Module] | None = None
    dense: Callable[..., nn.Module] = nn.Dense
    dtype: DTypeLike | None = None
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if the padding is neither "SAME" nor "VALID"."""
        if self.padding not in ("SAME", "VALID"):
            raise ValueError(
                "padding: expected 'SAME' for 61,706 parameters or 'VALID' for 44,426, "
                f"got {self.padding!r}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; `train` has no effect."""
        del train
        x = images
        for i, size in enumerate(self.conv_channels, start=1):
            size = layers.width_of(self.widths, f"conv{i}", size)
            padding = self.padding if i == 1 else "VALID"
            layer = self.conv(
                size, (5, 5), padding=padding, dtype=self.dtype, name=f"conv{i}"
            )
            y = layer(x)
            # A skip connection keeps the size, but the convolution is not padded.
            if self.skip is not None and i > 1:
                seen = _middle(x, *y.shape[1:3])
                y = y + self.skip(size, stride=1, name=f"skip{i}")(seen)
            x = self.pool(self.act(y))
        x = x.reshape(x.shape[0], -1)
        for i, size in enumerate(self.features, start=1):
            size = layers.width_of(self.widths, f"dense{i}", size)
            x = self.act(self.dense(size, dtype=self.dtype, name=f"dense{i}")(x))
        layers.check_widths(self)
        # The loss needs logits in float32 even if the layers compute in bfloat16.
        precise = jnp.promote_types(x.dtype, jnp.float32)
        return self.dense(self.classes, dtype=precise, name="head")(x)


class LeNet5Caffe(LeNet5):
    """The wider LeNet-5 of the Caffe library, used in most papers on pruning.

    Layers are named conv1, conv2, dense1 and head. On 28x28x1 images it has 431,080
    parameters.

    Attributes:
      conv_channels: channels of the convolutions.
      features: sizes of the hidden dense layers.
      padding: padding of the first convolution, "SAME" or "VALID"; the other
        convolutions have none.
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions.
      pool: pooling function that halves height and width.
      skip: creates a ghost skip connection around conv2; called as
        `skip(features, stride=1, name="skip2")`. None to omit it.
      dense: creates the dense layers.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"dense1": 5}; None for none.

    Deviations:
      Convolutions are followed by `act`, as in the papers on pruning. Caffe's own
      definition has an activation function after dense1 only.
    """

    conv_channels: tuple[int, ...] = (20, 50)
    features: tuple[int, ...] = (500,)
    padding: str = "VALID"
