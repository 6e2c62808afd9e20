"""Names of the networks' layers in PyTorch.

Residual networks and MobileNetV2 have the names of torchvision. The others have those
of the code that is most used with PyTorch:

    ResNet          torchvision (for CIFAR with three stages, layer1 to layer3)
    MobileNetV2     torchvision
    MobileNetV1     github.com/kuangliu/pytorch-cifar
    VGG             github.com/kuangliu/pytorch-cifar: features and classifier
    WideResNet      github.com/xternalz/WideResNet-pytorch
    ViT             timm, on which the code of DeiT is built
    LeNets, ConvNet conv1, conv2, ..., then fc1, fc2, ... in order, the head last

Tests compare names and shapes with the state dicts of this code, such as those of
torchvision 0.28 and timm 1.0.31.

Equal names and shapes do not make equal networks. These have no weights, and must agree
too; otherwise weights are loaded without an error, and outputs are wrong:

    MobileNetV2     torchvision has ReLU6: make ours with `act=nn.relu6`
    MobileNetV1     pytorch-cifar has ReLU and, for images of 32x32 pixels, the strides
                    (1, 1, 2, 2, 2, 2)
    VGG             pytorch-cifar ends with a fifth max pooling, ours with the average
                    over height and width: replace its last MaxPool2d, which has no
                    weights, by AdaptiveAvgPool2d(1). Its convolutions have biases and
                    normalization: ours need `use_bias=True, norm=layers.BATCH_NORM`
    ResNet          torchvision has the shortcut "projection", and strides in the 3x3
                    convolutions, as ours
    ViT             timm has GELU without approximation, as ours
"""

import re
from collections.abc import Callable, Iterator

from flax import linen as nn

from jaxsparse import models

HEAD = "head"


def _renamed(*rules: tuple[str, str]) -> Callable[[str], str | None]:
    """Makes a function that renames a layer by the first rule that fits its whole name.

    Args:
      *rules: pairs of a regular expression and the replacement.
    """

    def rename(layer: str) -> str | None:
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, layer):
                return match.expand(replacement)
        return None

    return rename


_RESNET = _renamed(
    ("conv", "conv1"),
    ("norm", "bn1"),
    (r"stage(\d+)_block(\d+)/conv(\d)", r"layer\1.\2.conv\3"),
    (r"stage(\d+)_block(\d+)/norm(\d)", r"layer\1.\2.bn\3"),
    (r"stage(\d+)_block(\d+)/shortcut_conv", r"layer\1.\2.downsample.0"),
    (r"stage(\d+)_block(\d+)/shortcut_norm", r"layer\1.\2.downsample.1"),
    (HEAD, "fc"),
)
_WIDE_RESNET = _renamed(
    ("conv", "conv1"),
    ("norm", "bn1"),
    (r"stage(\d+)_block(\d+)/conv(\d)", r"block\1.layer.\2.conv\3"),
    (r"stage(\d+)_block(\d+)/norm(\d)", r"block\1.layer.\2.bn\3"),
    (r"stage(\d+)_block(\d+)/shortcut_conv", r"block\1.layer.\2.convShortcut"),
    (HEAD, "fc"),
)


def _blocks(counts: tuple[int, ...]) -> Iterator[str]:
    """Yields the names of the blocks of all stages in order."""
    for stage, count in enumerate(counts, start=1):
        for i in range(count):
            yield f"stage{stage}_block{i}"


def _mobilenet_v1(model: models.MobileNetV1) -> dict[str, str]:
    found = {"conv": "conv1", "norm": "bn1", HEAD: "linear"}
    for number, block in enumerate(_blocks(model.blocks)):
        for part in (1, 2):
            found[f"{block}/conv{part}"] = f"layers.{number}.conv{part}"
            found[f"{block}/norm{part}"] = f"layers.{number}.bn{part}"
    return found


def _mobilenet_v2(model: models.MobileNetV2) -> dict[str, str]:
    found = {"conv": "features.0.0", "norm": "features.0.1", HEAD: "classifier.1"}
    for number, block in enumerate(_blocks(model.blocks), start=1):
        prefix = f"features.{number}.conv"
        expand = 1 if number == 1 else model.expand
        parts = (2,) if expand == 1 else (1, 2)
        for i, part in enumerate(parts):
            found[f"{block}/conv{part}"] = f"{prefix}.{i}.0"
            found[f"{block}/norm{part}"] = f"{prefix}.{i}.1"
        found[f"{block}/conv3"] = f"{prefix}.{len(parts)}"
        found[f"{block}/norm3"] = f"{prefix}.{len(parts) + 1}"
    last = f"features.{sum(model.blocks) + 1}"
    return found | {"last_conv": f"{last}.0", "last_norm": f"{last}.1"}


def _vgg(model: models.VGG) -> dict[str, str]:
    found, index, number = {HEAD: "classifier"}, 0, 0
    for count in model.blocks:
        for _ in range(count):
            number += 1
            found[f"conv{number}"] = f"features.{index}"
            if model.norm is not None:
                index += 1
                found[f"norm{number}"] = f"features.{index}"
            index += 2  # the activation function
        index += 1  # pooling
    return found


def _vit(model: models.ViT) -> dict[str, str]:
    found = {"patches": "patch_embed.proj", "norm": "norm", HEAD: "head"}
    for i in range(model.depth):
        here, there = f"block{i + 1}", f"blocks.{i}"
        for name in ("norm1", "norm2"):
            found[f"{here}/{name}"] = f"{there}.{name}"
        for name in ("query", "key", "value"):
            found[f"{here}/attention/{name}"] = f"{there}.attn.qkv"
        found[f"{here}/attention/out"] = f"{there}.attn.proj"
        found[f"{here}/mlp1"] = f"{there}.mlp.fc1"
        found[f"{here}/mlp2"] = f"{there}.mlp.fc2"
    return found


def _plain(
    model: models.LeNet300100 | models.LeNet5 | models.ConvNet,
) -> dict[str, str]:
    count = len(model.features)
    found = {f"dense{i}": f"fc{i}" for i in range(1, count + 1)}
    found[HEAD] = f"fc{count + 1}"
    return found | {f"conv{i}": f"conv{i}" for i in range(1, last_conv(model) + 1)}


def last_conv(model: nn.Module) -> int:
    """Returns the number of convolutions before the first dense layer of a network.

    Args:
      model: a network that flattens feature maps; 0 for LeNet-300-100.
    """
    if isinstance(model, models.ConvNet):
        return model.depth
    return len(model.conv_channels) if isinstance(model, models.LeNet5) else 0


# Networks by class, with a function from the network to names by layer, or a function
# that renames a layer.
_TABLES = {
    models.ConvNet: _plain,
    models.LeNet300100: _plain,
    models.LeNet5: _plain,
    models.MobileNetV1: _mobilenet_v1,
    models.MobileNetV2: _mobilenet_v2,
    models.VGG: _vgg,
    models.ViT: _vit,
}
_RULES = {models.ResNet: _RESNET, models.WideResNet: _WIDE_RESNET}


def renamer(model: nn.Module) -> Callable[[str], str | None]:
    """Returns the function that renames the layers of a network.

    Args:
      model: a network of `models`.

    Returns:
      A function from the path of a layer, such as "stage1_block0/conv1", to its name in
      PyTorch, such as "layer1.0.conv1"; None for layers without a name.

    Raises:
      ValueError: if the network is of another class.

    Examples:
      >>> renamer(jaxsparse.models.CifarResNet(8))("stage1_block0/conv1")
      'layer1.0.conv1'
    """
    for kind, rename in _RULES.items():
        if isinstance(model, kind):
            return rename
    for kind, table in _TABLES.items():
        if isinstance(model, kind):
            return table(model).get
    known = sorted(kind.__name__ for kind in (*_RULES, *_TABLES))
    raise ValueError(
        f"model: expected a network of jaxsparse.models, {known}, whose names in "
        f"PyTorch are known, got {type(model).__name__}; write a safetensors file, and "
        "rename its leaves there"
    )
