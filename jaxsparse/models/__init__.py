"""Networks: ordinary linen modules that know nothing of sparsity.

Masks, wrappers of optimisers and ghosts act from outside, on the parameters or
through what is injected here: `act`, `conv`, `dense`, `norm` and `skip`, which makes a
bypass of each convolution between feature maps, are fields of every network that has a
use for them. All networks are called alike,

    logits = model.apply(variables, images, train=False)

with images [b h w c] already normalised. Logits are never narrower than float32,
whatever `dtype` the layers compute in. The last layer is called "head" everywhere, so
that one pattern names it, and `initializers.initialize` draws the parameters.
"""

from jaxsparse.models.conv import ConvNet
from jaxsparse.models.lenet import LeNet5, LeNet5Caffe, LeNet300100
from jaxsparse.models.mobilenet import MobileNetV1, MobileNetV2
from jaxsparse.models.resnet import CifarResNet, ImageNetResNet, ResNet
from jaxsparse.models.vgg import VGG
from jaxsparse.models.vit import ViT
from jaxsparse.models.wide_resnet import WideResNet

__all__ = (
    "VGG",
    "CifarResNet",
    "ConvNet",
    "ImageNetResNet",
    "LeNet300100",
    "LeNet5",
    "LeNet5Caffe",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "ViT",
    "WideResNet",
)
