"""Registers the networks of the package.

As in `built_in`, functions are registered by name and imported on use.
"""

from collections.abc import Mapping
from typing import Any

from jaxsparse.config.registering import register_model

_MODELS = "jaxsparse.models:"


def _network(
    name: str,
    function: str,
    takes: tuple[str, ...],
    *,
    rectifies: bool = True,
    blocks: int | None = None,
    patch: int = 1,
    **arguments: Any,
) -> None:
    register_model(
        name,
        function if ":" in function else f"{_MODELS}{function}",
        takes=(*takes, "dtype"),
        arguments=arguments,
        rectifies=rectifies,
        blocks=blocks,
        patch=patch,
    )


_LENET_5 = ("features", "conv_channels", "padding", "conv", "pool", "skip")
_VGG = ("features", "conv", "pool", "skip")
_CIFAR_RESNET = ("width", "norm", "conv", "skip")
_STAGES = ("features", "norm", "conv", "skip")
_BLOCKS: Mapping[int, tuple[tuple[int, ...], str]] = {
    18: ((2, 2, 2, 2), "basic"),
    34: ((3, 4, 6, 3), "basic"),
    50: ((3, 4, 6, 3), "bottleneck"),
    101: ((3, 4, 23, 3), "bottleneck"),
    152: ((3, 8, 36, 3), "bottleneck"),
}


def _resnet(name: str, depth: int, stem: str) -> None:
    per_stage, block = _BLOCKS[depth]
    more: dict[str, Any] = {"block": block, "stem": stem}
    # The spec's `blocks` is the number of stages; the network's is the number of blocks
    # in each stage. `_network` cannot pass both under one name.
    register_model(
        name,
        f"{_MODELS}ResNet",
        takes=(*_STAGES, "dtype"),
        arguments={"blocks": per_stage, **more},
        rectifies=True,
        blocks=len(per_stage),
    )


def _vgg_bn(name: str, per_stage: tuple[int, ...]) -> None:
    register_model(
        name,
        f"{_MODELS}VGG",
        takes=("features", "norm", "conv", "pool", "skip", "dtype"),
        arguments={"blocks": per_stage, "use_bias": True},
        rectifies=True,
        blocks=len(per_stage),
    )


def _mobilenet(name: str, function: str, strides: tuple[int, ...]) -> None:
    """Registers a MobileNet.

    Args:
      name: name in configs.
      function: name of the module class in `jaxsparse.models`.
      strides: strides for images of 32x32 or 64x64 pixels; ImageNet needs others.
    """
    _network(name, function, _STAGES, blocks=len(strides) - 1, strides=strides)


_network("lenet_300_100", "LeNet300100", ("features",))
_network("lenet_5", "LeNet5", _LENET_5)
_network("lenet_5_caffe", "LeNet5Caffe", _LENET_5)
for _depth in (2, 4, 6):
    _network(f"conv_{_depth}", "ConvNet", ("features", "conv", "pool"), depth=_depth)
for _depth in (8, 14, 20, 32, 44, 56, 110):
    _network(
        f"resnet_{_depth}", "CifarResNet", _CIFAR_RESNET, depth=_depth, block="basic"
    )
_network("resnet_104", "CifarResNet", _CIFAR_RESNET, depth=104, block="bottleneck")
for _depth in _BLOCKS:
    _resnet(f"cifar_resnet_{_depth}", _depth, "cifar")
for _depth in (18, 50):
    _resnet(f"resnet_{_depth}", _depth, "imagenet")
_network("vgg_16", "VGG", _VGG, blocks=5)
_vgg_bn("vgg_11_bn", (1, 1, 2, 2, 2))
_vgg_bn("vgg_13_bn", (2, 2, 2, 2, 2))
_vgg_bn("vgg_16_bn", (2, 2, 3, 3, 3))
_vgg_bn("vgg_19_bn", (2, 2, 4, 4, 4))
_mobilenet("mobilenet_v1", "MobileNetV1", (1, 1, 2, 2, 2, 2))
_mobilenet("mobilenet_v2", "MobileNetV2", (1, 1, 1, 2, 2, 1, 2, 1))
for _name, _width, _heads in (("ti", 192, 3), ("s", 384, 6), ("b", 768, 12)):
    _network(
        f"vit_{_name}_16",
        "jaxsparse.factory.models:vit",
        ("features",),
        rectifies=False,
        blocks=1,
        patch=16,
        width=_width,
        heads=_heads,
    )
# Without a size in their names: width, depth and heads are config fields.
for _patch in (2, 4):
    register_model(
        f"vit_{_patch}",
        f"{_MODELS}ViT",
        takes=("width", "depth", "heads", "dtype"),
        arguments={"patch": _patch, "depth": 6, "heads": 4},
        patch=_patch,
    )
for _name, _tied in (("decoder", False), ("decoder_tied", True)):
    register_model(
        _name,
        f"{_MODELS}DecoderLM",
        takes=("width", "depth", "heads", "dtype"),
        arguments={"tied": _tied},
        predicts="next_token",
    )
for _depth, _widen in ((16, 8), (22, 2), (28, 10)):
    _network(
        f"wide_resnet_{_depth}_{_widen}",
        "WideResNet",
        _CIFAR_RESNET,
        depth=_depth,
        widen=_widen,
    )
