"""The networks a config can name, and how their convolutions are computed."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import models
from jaxsparse.models import convolutions, layers, pooling

# Fields of the section "model" that only some networks have a use for.
SIZES = ("width", "features", "maps", "padding")


class Family(NamedTuple):
    """A kind of network.

    Attributes:
      make: called with `classes`, `dtype`, those of `takes` that a config sets, and,
        if it takes them, `norm`, `conv` and `pool`.
      takes: fields of the section "model", and what can be injected beside `act`:
        "norm", "conv", "pool", "skip".
      blocks: how many sizes `features` must have; None for any number.
      rectifies: whether its activation is ReLU, which soft neurons fade to.
      patch: pixels that both sides of an image must be a multiple of.
    """

    make: Callable[..., nn.Module]
    takes: tuple[str, ...] = ()
    blocks: int | None = None
    rectifies: bool = True
    patch: int = 1


_LENET_5 = ("features", "maps", "padding", "conv", "pool", "skip")


def _conv_net(depth: int) -> Family:
    make = functools.partial(models.ConvNet, depth=depth)
    return Family(make, ("features", "conv", "pool"))


def _six_n(depth: int, block: str = "basic") -> Family:
    make = functools.partial(models.CifarResNet, depth=depth, block=block)
    return Family(make, ("width", "norm", "conv", "skip"))


def _resnet(blocks: tuple[int, ...], block: str, stem: str = "cifar") -> Family:
    make = functools.partial(models.ResNet, blocks=blocks, block=block, stem=stem)
    return Family(make, ("features", "norm", "conv", "skip"), blocks=len(blocks))


def _vgg_bn(blocks: tuple[int, ...]) -> Family:
    make = functools.partial(models.VGG, blocks=blocks, use_bias=True)
    takes = ("features", "norm", "conv", "pool", "skip")
    return Family(make, takes, blocks=len(blocks))


def _mobilenet(make: Callable[..., nn.Module], strides: tuple[int, ...]) -> Family:
    """Strides are those for images of 32x32 and 64x64 pixels; ImageNet has others."""
    return Family(
        functools.partial(make, strides=strides),
        ("features", "norm", "conv", "skip"),
        blocks=len(strides) - 1,
    )


def _wide_resnet(depth: int, widen: int) -> Family:
    make = functools.partial(models.WideResNet, depth=depth, widen=widen)
    return Family(make, ("width", "norm", "conv", "skip"))


def _vit(width: int, heads: int) -> Family:
    def make(features: tuple[int, ...] = (width,), **fields: Any) -> nn.Module:
        return models.ViT(*features, heads=heads, **fields)

    return Family(make, ("features",), blocks=1, rectifies=False, patch=16)


MODELS: dict[str, Family] = {
    "lenet_300_100": Family(models.LeNet300100, ("features",)),
    "lenet_5": Family(models.LeNet5, _LENET_5),
    "lenet_5_caffe": Family(models.LeNet5Caffe, _LENET_5),
    "conv_2": _conv_net(2),
    "conv_4": _conv_net(4),
    "conv_6": _conv_net(6),
    "resnet_20": _six_n(20),
    "resnet_32": _six_n(32),
    "resnet_44": _six_n(44),
    "resnet_56": _six_n(56),
    "resnet_110": _six_n(110),
    "resnet_104": _six_n(104, "bottleneck"),
    "cifar_resnet_18": _resnet((2, 2, 2, 2), "basic"),
    "cifar_resnet_34": _resnet((3, 4, 6, 3), "basic"),
    "cifar_resnet_50": _resnet((3, 4, 6, 3), "bottleneck"),
    "cifar_resnet_101": _resnet((3, 4, 23, 3), "bottleneck"),
    "cifar_resnet_152": _resnet((3, 8, 36, 3), "bottleneck"),
    "resnet_18": _resnet((2, 2, 2, 2), "basic", "imagenet"),
    "resnet_50": _resnet((3, 4, 6, 3), "bottleneck", "imagenet"),
    "vgg_16": Family(models.VGG, ("features", "conv", "pool", "skip"), blocks=5),
    "vgg_11_bn": _vgg_bn((1, 1, 2, 2, 2)),
    "vgg_13_bn": _vgg_bn((2, 2, 2, 2, 2)),
    "vgg_16_bn": _vgg_bn((2, 2, 3, 3, 3)),
    "vgg_19_bn": _vgg_bn((2, 2, 4, 4, 4)),
    "mobilenet_v1": _mobilenet(models.MobileNetV1, (1, 1, 2, 2, 2, 2)),
    "mobilenet_v2": _mobilenet(models.MobileNetV2, (1, 1, 1, 2, 2, 1, 2, 1)),
    "vit_ti_16": _vit(192, 3),
    "vit_s_16": _vit(384, 6),
    "vit_b_16": _vit(768, 12),
    "wide_resnet_16_8": _wide_resnet(16, 8),
    "wide_resnet_22_2": _wide_resnet(22, 2),
    "wide_resnet_28_10": _wide_resnet(28, 10),
}


def check(config: ConfigDict) -> None:
    """Refuses an unknown network, and sizes that do not fit it or have no use in it.

    Raises:
      ValueError: naming the field.
    """
    c, plain = config.model, config_lib.default().model
    config_lib.check_known("model.name", c.name, list(MODELS))
    family = MODELS[c.name]
    takes = [field for field in SIZES if field in family.takes]
    for field in SIZES:
        if field not in takes and c[field] != plain[field]:
            raise ValueError(
                f"config.model.{field}: came {c[field]!r} for {c.name!r}, which has no "
                f"use for it; it takes {takes}"
            )
    if c.features and family.blocks not in (None, len(c.features)):
        raise ValueError(
            f"config.model.features: came {c.features!r} for {c.name!r}; wanted as "
            f"many sizes as it has of its own, {family.blocks}, or ()"
        )
    if config.data.size % family.patch:
        raise ValueError(
            f"config.data.size: came {config.data.size} for config.model.name "
            f"{c.name!r}; wanted a multiple of {family.patch}, the side of a patch"
        )
    if c.norm != plain.norm and "norm" not in family.takes:
        raise ValueError(
            f"config.model.norm: came {c.norm!r} for {c.name!r}, which has none; "
            f"wanted {plain.norm!r}"
        )
    given = config.init.norm_scale
    if c.norm == "fixed" and given != config_lib.default().init.norm_scale:
        raise ValueError(
            f"config.init.norm_scale: came {given!r} with model.norm 'fixed', which "
            "has no scale; wanted 'ones'"
        )
    if config.run.convolutions == "explicit" and "conv" not in family.takes:
        raise ValueError(
            f"config.run.convolutions: came 'explicit' for {c.name!r}, which has none; "
            "wanted 'auto' or 'library'"
        )
    if config.run.convolutions == "explicit" and config.run.weights == "sharded":
        raise ValueError(
            "config.run.convolutions: came 'explicit' with run.weights 'sharded', for "
            "which batches would be brought together; wanted 'auto' or 'library'"
        )


def check_images(config: ConfigDict, image: tuple[int, ...]) -> None:
    """Refuses a network that images [h w c] do not fit, where they have their own size.

    Raises:
      ValueError: naming the field.
    """
    patch = MODELS[config.model.name].patch
    if any(side % patch for side in image[:2]):
        raise ValueError(
            f"config.model.name: came {config.model.name!r} for images of "
            f"{config.data.name!r} of {image[0]} by {image[1]} pixels; wanted "
            f"multiples of {patch}, the side of a patch; choose another network, or "
            "have images cut to another size (config.data.size)"
        )


def batch_norm(axis_name: str | None = None) -> Callable[..., nn.Module]:
    """Makes the normalisation that networks have.

    Args:
      axis_name: mapped axis over which it averages too; None for none.
    """
    return functools.partial(layers.BATCH_NORM, axis_name=axis_name)


def spells_out(config: ConfigDict) -> bool:
    """Says whether the network that trains has `models.convolutions`.

    They go through batches in parts, for which the compiler would have to bring batches
    together where it divides them over devices by itself: where weights are divided.
    """
    if config.run.convolutions == "auto":
        family, divided = MODELS[config.model.name], config.run.weights == "sharded"
        on_cpu = jax.default_backend() == "cpu"
        return on_cpu and "conv" in family.takes and not divided
    return config.run.convolutions != "library"


def make_model(
    config: ConfigDict,
    *,
    classes: int,
    axis_name: str | None = None,
    precise: bool = False,
    training: bool = False,
) -> nn.Module:
    """Makes the network of a config.

    Args:
      config: a validated config.
      classes: number of outputs.
      axis_name: for BatchNorm, see `sharding`.
      precise: compute in the precision of the parameters, whatever the config says.
      training: compute convolutions in the way that trains fastest; otherwise as
        convolutions, which `paths` can follow.
    """
    c, family = config.model, MODELS[config.model.name]
    plain = config_lib.default().model
    fields: dict[str, Any] = {
        name: c[name]
        for name in SIZES
        if name in family.takes and (name == "width" or c[name] != plain[name])
    }
    if "norm" in family.takes:
        fields["norm"] = batch_norm(axis_name)
        if c.norm == "fixed":
            fields["norm"] = functools.partial(
                fields["norm"], use_scale=False, use_bias=False
            )
    if training and spells_out(config):
        convolve = convolutions.convolve
        fast = {
            "conv": functools.partial(nn.Conv, conv_general_dilated=convolve),
            "pool": pooling.pool,
        }
        fields |= {name: fast[name] for name in fast if name in family.takes}
    wide = precise or c.dtype == "float32"
    return family.make(classes=classes, dtype=None if wide else c.dtype, **fields)
