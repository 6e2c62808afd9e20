"""VGG: plain stacks of convolutions, in the variants of papers on sparse training."""

from collections.abc import Callable, Mapping

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers, pooling
from jaxsparse.models.layers import ModuleFactory


class VGG(nn.Module):
    """Stages of 3x3 convolutions with pooling between them, and a linear head.

    Global average pooling precedes the head. Layers are named conv1, conv2, ... and
    head, and, where present, norm1, ... and skip2, ... The default is the VGG-16 of
    Evci et al., without normalization and biases of convolutions. With 1000 classes it
    has 15,223,464 parameters, including 15,222,464 in kernels.

    With `norm=layers.BATCH_NORM` and `use_bias=True` it is the usual network for small
    images. Convolutions then have biases, although the normalization makes them
    redundant, because published parameter counts include them. With 10 classes:

        blocks             network    parameters
        (1, 1, 2, 2, 2)    VGG-11      9,231,114
        (2, 2, 2, 2, 2)    VGG-13      9,416,010
        (2, 2, 3, 3, 3)    VGG-16     14,728,266
        (2, 2, 4, 4, 4)    VGG-19     20,040,522

    Attributes:
      blocks: number of convolutions in each stage.
      features: channels of each stage.
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions.
      norm: creates the normalization layers, one after each convolution; called with
        `use_running_average`. None to omit them.
      use_bias: whether convolutions have biases.
      skip: creates a ghost skip connection around each convolution but the first, whose
        input is the images; its output is added before the activation function. Called
        as `skip(features, stride=1, name="skip2")`. None to omit them.
      pool: pooling function that halves height and width, applied after every stage but
        the last.
      dense: creates the head.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"conv2": 5}; None for none.

    Deviations:
      In contrast to the networks of Simonyan and Zisserman, global average pooling
      replaces the last max pooling and the two hidden dense layers. The code of Evci et
      al. does the same; its last 1x1 convolution after the average is the head here. So
      do open_lth and ToST, from which the normalized networks are taken.

    References:
      Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image
      Recognition, 2015, arXiv:1409.1556, table 1: configurations A, B, D and E.
      Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win, 2020, arXiv:2010.03533.
    """

    blocks: tuple[int, ...] = (2, 2, 3, 3, 3)
    features: tuple[int, ...] = (64, 128, 256, 512, 512)
    classes: int = 1000
    act: Callable[[Array], Array] = nn.relu
    conv: ModuleFactory = nn.Conv
    norm: ModuleFactory | None = None
    use_bias: bool = False
    skip: ModuleFactory | None = None
    pool: Callable[[Array], Array] = pooling.pool_windows
    dense: ModuleFactory = nn.Dense
    dtype: DTypeLike | None = None
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if a stage has no number of convolutions or channels."""
        layers.check_lengths(blocks=self.blocks, features=self.features)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; in training, `norm` uses batch statistics."""
        unit = layers.bind(self, train=train, use_bias=self.use_bias)
        x, number = images, 0
        for block, (count, size) in enumerate(
            zip(self.blocks, self.features, strict=True)
        ):
            x = self.pool(x) if block else x
            for _ in range(count):
                # The first convolution has no skip connection: its input is the images.
                has_skip = number > 0
                number += 1
                name = f"{{}}{number}"
                x = self.act(unit(x, size, 3, has_skip=has_skip, name=name))
        layers.check_widths(self)
        return layers.classify(x, self.classes, dense=self.dense)
