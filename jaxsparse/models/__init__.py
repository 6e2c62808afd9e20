"""Network architectures: ordinary linen modules without any code for sparsity.

Masks, optimizer wrappers and ghost skip connections (ToST) are applied from outside: to
the parameters, or through the layers that are injected as fields. Each network has
those of the fields `act`, `conv`, `dense`, `norm` and `skip` that it needs; `skip`
creates a ghost skip connection around each convolution of feature maps. All networks
are called in the same way,

    logits = model.apply(variables, images, train=False)

with images [b, h, w, c] that are already normalized; `DecoderLM` reads tokens, int32
[b, t], and its logits have an axis of positions. Logits are float32 or wider, whatever
the `dtype` in which the layers compute. The last layer is named "head" in all networks,
unless it shares the weights of the embedding, so that one pattern matches it.
`initializers.initialize` initializes the parameters.
"""

from jaxsparse.models.conv import ConvNet
from jaxsparse.models.decoder import DecoderLM
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
    "DecoderLM",
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
