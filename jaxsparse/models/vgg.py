"""VGG: plain stacks of convolutions, as papers on sparse training have them."""

from collections.abc import Callable

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers, pooling
from jaxsparse.models.layers import ModuleFactory


class VGG(nn.Module):
    """Blocks of 3x3 convolutions with pooling between them, an average, a linear head.

    Layers are called conv1, conv2, ... and head, and normalisations norm1, ... and
    bypasses skip2, ... where there are any. By default it is the VGG-16 of Evci et al.:
    nothing is normalised, and convolutions have no biases. With 1000 classes that has
    15,223,464 parameters, of which 15,222,464 in kernels.

    With `norm=layers.BATCH_NORM` and `use_bias=True` it is what small images are
    trained on: convolutions keep the biases that the normalisation makes idle, as
    published counts have them. With 10 classes:

        blocks             network    parameters
        (1, 1, 2, 2, 2)    VGG-11      9,231,114
        (2, 2, 2, 2, 2)    VGG-13      9,416,010
        (2, 2, 3, 3, 3)    VGG-16     14,728,266
        (2, 2, 4, 4, 4)    VGG-19     20,040,522

    Attributes:
      blocks: how many convolutions there are in each block.
      features: channels of each block.
      classes: number of outputs.
      act: any function of one array.
      conv: makes the convolutions.
      norm: makes the normalisations, one after each convolution; called with
        `use_running_average`. None for none.
      use_bias: whether convolutions have biases.
      skip: makes a bypass of each convolution but the first, which sees images; what it
        returns is added before the activation. Called as `skip(features, stride=1,
        name="skip2")`. None for none.
      pool: halves height and width, after every block but the last.
      dense: makes the head.
      dtype: what the layers compute in; None for that of images and parameters
        together.

    Deviations:
      From the networks of Simonyan and Zisserman: the average over places stands for
      the last pooling and the two hidden dense layers, as in the code of Evci et al.,
      whose last 1x1 convolution after the average is the head here, and in those of
      open_lth and ToST, from which the normalised networks are.

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

    def __post_init__(self) -> None:
        """Refuses blocks without a size."""
        layers.check_lengths(blocks=self.blocks, features=self.features)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Returns logits; in training, normalises by the batch if at all."""
        unit = layers.bind(self, train=train, use_bias=self.use_bias)
        x, number = images, 0
        for block, (count, size) in enumerate(
            zip(self.blocks, self.features, strict=True)
        ):
            x = self.pool(x) if block else x
            for _ in range(count):
                skip = self.skip if number else None
                number += 1
                x = self.act(unit(x, size, 3, skip=skip, name=f"{{}}{number}"))
        return layers.classify(x, self.classes, dense=self.dense)
