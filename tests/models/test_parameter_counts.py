"""How many parameters and prunable weights networks have, against published numbers.

Where those of `PUBLISHED` come from:
  CIFAR ResNets, VGGs, MobileNetV1 of 10 classes: github.com/kuangliu/pytorch-cifar, as
    counted by many who use it.
  Of 1000 classes: torchvision's ResNets and MobileNetV2; MobileNetV1 as TensorFlow's
    and Keras's own tables have it.
  Wide ResNets: Zagoruyko and Komodakis 2016, tables 4 and 5, to a tenth of a million;
    to the last digit the tests of github.com/osmr/imgclsmob.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from helpers.small_models import CIFAR, count, prunable, shapes

from jaxsparse import config as config_lib
from jaxsparse import models
from jaxsparse.factory import models as models_lib
from jaxsparse.models import layers

MNIST = (28, 28, 1)
IMAGENET = (224, 224, 3)

COUNTS = {
    # model, image, parameters, prunable weights
    "lenet_300_100": (models.LeNet300100(), MNIST, 266_200 + 410, 266_200),
    "lenet_5": (models.LeNet5(), MNIST, 61_706, 61_470),
    "lenet_5_valid": (models.LeNet5(padding="VALID"), MNIST, 44_426, 44_190),
    # "Small dense" of Evci et al. 2020.
    "lenet_5_small": (
        models.LeNet5(conv_channels=(3, 3), features=(27, 20), padding="VALID"),
        MNIST,
        2_336 + 63,
        2_336,
    ),
    "lenet_5_caffe": (models.LeNet5Caffe(), MNIST, 431_080, 430_500),
    "conv_2": (models.ConvNet(depth=2), CIFAR, 4_301_642, 4_300_992),
    "conv_4": (models.ConvNet(depth=4), CIFAR, 2_425_930, 2_425_024),
    "conv_6": (models.ConvNet(depth=6), CIFAR, 2_262_602, 2_261_184),
    "resnet_50": (models.ResNet(), IMAGENET, 25_557_032, 25_502_912),
    "vgg_16": (models.VGG(), IMAGENET, 15_223_464, 15_222_464),
    "resnet_20": (models.CifarResNet(), CIFAR, 272_474, 270_896),
    # The shortcuts add 512 + 2,048 weights and 64 + 128 parameters of BatchNorm.
    "resnet_32": (models.CifarResNet(depth=32), CIFAR, 464_154 + 2_752, 464_432),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_counted_exactly(name: str):
    model, image, total, kernels = COUNTS[name]
    params = shapes(model, image)["params"]
    assert count(params) == total
    assert prunable(params) == kernels


@pytest.mark.parametrize(
    ("depth", "total"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_resnets_of_option_a_have_the_published_counts(depth: int, total: int):
    model = models.CifarResNet(depth=depth, shortcut="identity")
    params = shapes(model, CIFAR)["params"]
    assert count(params) == total


def test_width_and_classes_scale_the_resnet():
    params = shapes(models.CifarResNet(width=32, classes=100), CIFAR)["params"]
    assert params["stage3_block2"]["conv2"]["kernel"].shape == (3, 3, 128, 128)
    assert params["head"]["kernel"].shape == (128, 100)
    # Convolutions inside the network grow with the square of the width.
    assert prunable(params) == 4 * (270_896 - 432 - 640) + 864 + 12_800


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("n", [1, 2])
def test_resnets_of_three_stages_grow_as_computed_by_hand(n: int, width: int):
    """A sum over the layers for n blocks a stage, collected by powers of the width."""
    model = models.CifarResNet(depth=6 * n + 2, width=width)
    params = shapes(model, (16, 16, 3))["params"]
    kernels = (378 * n - 80) * width**2 + (27 + 40) * width
    assert prunable(params) == kernels
    assert count(params) == kernels + 14 * (2 * n + 1) * width + 10


class Sum(NamedTuple):
    """Parameters counted by hand."""

    kernels: int
    others: int


def conv(size: int, inputs: int, outputs: int, *, bias: bool = False) -> Sum:
    """A convolution and its normalization."""
    return Sum(size**2 * inputs * outputs, (2 + bias) * outputs)


def linear(inputs: int, outputs: int) -> Sum:
    return Sum(inputs * outputs, outputs)


def add(*parts: Sum) -> Sum:
    return Sum(*map(sum, zip(*parts, strict=True)))


def residual(blocks: tuple[int, ...], width: int, wider: int, stem: int, classes: int):
    """Basic blocks, or bottlenecks if `wider` is 4."""
    parts, inputs = [conv(stem, 3, width)], width
    for stage, number in enumerate(blocks):
        for i in range(number):
            inner = width * 2**stage
            if wider == 4:
                parts += [conv(1, inputs, inner), conv(3, inner, inner)]
                parts += [conv(1, inner, 4 * inner)]
            else:
                parts += [conv(3, inputs, inner), conv(3, inner, inner)]
            if (i == 0 and stage > 0) or inputs != wider * inner:
                parts += [conv(1, inputs, wider * inner)]
            inputs = wider * inner
    return add(*parts, linear(inputs, classes))


def wide(depth: int, widen: int, classes: int) -> Sum:
    parts, inputs = [Sum(27 * 16, 0)], 16
    for stage in range(3):
        for _ in range((depth - 4) // 6):
            size = 16 * widen * 2**stage
            # The normalization comes before: it is that of the inputs.
            parts += [Sum(9 * inputs * size, 2 * inputs), conv(3, size, size)]
            parts += [Sum(inputs * size, 0)] if inputs != size else []
            inputs = size
    return add(*parts, Sum(0, 2 * inputs), linear(inputs, classes))


def vgg(blocks: tuple[int, ...], classes: int) -> Sum:
    sizes = (64, 128, 256, 512, 512)
    every = [3, *(s for n, s in zip(blocks, sizes, strict=True) for _ in range(n))]
    parts = [conv(3, *pair, bias=True) for pair in itertools.pairwise(every)]
    return add(*parts, linear(512, classes))


def mobilenet_v1(classes: int) -> Sum:
    every = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    parts = [conv(3, 3, 32)]
    for inputs, outputs in itertools.pairwise(every):
        parts += [conv(3, 1, inputs), conv(1, inputs, outputs)]
    return add(*parts, linear(1024, classes))


def mobilenet_v2(classes: int) -> Sum:
    every = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    parts = [conv(3, 3, 32), conv(3, 1, 32), conv(1, 32, 16)]
    for inputs, outputs in itertools.pairwise(every):
        wide = 6 * inputs
        parts += [conv(1, inputs, wide), conv(3, 1, wide), conv(1, wide, outputs)]
    return add(*parts, conv(1, 320, 1280), linear(1280, classes))


# A name in the registry, classes, what is published, and the sum by hand.
PUBLISHED = [
    ("cifar_resnet_18", 10, 11_173_962, residual((2, 2, 2, 2), 64, 1, 3, 10)),
    ("cifar_resnet_34", 10, 21_282_122, residual((3, 4, 6, 3), 64, 1, 3, 10)),
    ("cifar_resnet_50", 10, 23_520_842, residual((3, 4, 6, 3), 64, 4, 3, 10)),
    ("cifar_resnet_101", 10, 42_512_970, residual((3, 4, 23, 3), 64, 4, 3, 10)),
    ("cifar_resnet_152", 10, 58_156_618, residual((3, 8, 36, 3), 64, 4, 3, 10)),
    ("resnet_18", 1000, 11_689_512, residual((2, 2, 2, 2), 64, 1, 7, 1000)),
    ("vgg_11_bn", 10, 9_231_114, vgg((1, 1, 2, 2, 2), 10)),
    ("vgg_13_bn", 10, 9_416_010, vgg((2, 2, 2, 2, 2), 10)),
    ("vgg_16_bn", 10, 14_728_266, vgg((2, 2, 3, 3, 3), 10)),
    ("vgg_19_bn", 10, 20_040_522, vgg((2, 2, 4, 4, 4), 10)),
    ("mobilenet_v1", 1000, 4_231_976, mobilenet_v1(1000)),
    ("mobilenet_v1", 10, 3_217_226, mobilenet_v1(10)),
    ("mobilenet_v2", 1000, 3_504_872, mobilenet_v2(1000)),
    ("mobilenet_v2", 10, 2_236_682, mobilenet_v2(10)),
    ("wide_resnet_28_10", 10, 36_479_194, wide(28, 10, 10)),
    ("wide_resnet_28_10", 100, 36_536_884, wide(28, 10, 100)),
    ("wide_resnet_16_8", 100, 11_007_540, wide(16, 8, 100)),
    # Nothing is published of these to the last digit.
    ("resnet_8", 10, 78_042, residual((1, 1, 1), 16, 1, 3, 10)),
    ("resnet_14", 10, 175_258, residual((2, 2, 2), 16, 1, 3, 10)),
    ("resnet_104", 10, 1_611_418, residual((17, 17, 17), 16, 4, 3, 10)),
    ("wide_resnet_22_2", 10, 1_079_642, wide(22, 2, 10)),
]


def made(name: str, classes: int = 10) -> nn.Module:
    config = config_lib.default()
    config.model.name = name
    models_lib.check(config)
    return models_lib.make_model(config, classes=classes)


@functools.cache
def traced(name: str, classes: int) -> tuple[jax.ShapeDtypeStruct, dict]:
    """Logits and variables of a named network on two images of CIFAR, as shapes."""
    images = jax.ShapeDtypeStruct((2, *CIFAR), jnp.float32)
    init = functools.partial(made(name, classes).init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)


@pytest.mark.parametrize(("name", "classes", "total", "by_hand"), PUBLISHED)
def test_named_networks_have_the_published_counts(
    name: str, classes: int, total: int, by_hand: Sum
) -> None:
    params = traced(name, classes)[1]["params"]
    assert count(params) == total == sum(by_hand)
    assert prunable(params) == by_hand.kernels


@pytest.mark.parametrize(
    ("model", "total"),
    [
        (models.ImageNetResNet(block="basic"), 21_797_672),
        (models.ResNet((3, 4, 23, 3)), 44_549_160),
        (models.ResNet((3, 8, 36, 3)), 60_192_808),
        (models.WideResNet(depth=40, widen=4, classes=100), 8_972_340),
        (models.WideResNet(depth=16, widen=10), 17_116_634),
    ],
)
def test_other_members_have_the_published_counts(model: nn.Module, total: int) -> None:
    assert count(shapes(model, (64, 64, 3))["params"]) == total


def test_biases_of_a_normalized_vgg_are_left_out_unless_asked_for() -> None:
    params = shapes(models.VGG(norm=layers.BATCH_NORM, classes=10), CIFAR)["params"]
    assert count(params) == 14_728_266 - 4_224


# Deeper members of families whose shallow members are traced on larger images.
DEEP = {
    *("resnet_32", "resnet_44", "resnet_56", "resnet_104", "resnet_110"),
    *("cifar_resnet_34", "cifar_resnet_50", "cifar_resnet_101", "cifar_resnet_152"),
    *("wide_resnet_22_2", "wide_resnet_28_10", "vgg_13_bn", "vgg_16_bn", "vgg_19_bn"),
    *("vit_s_16", "vit_b_16"),
}


OF_IMAGES = [m.name for m in config_lib.MODELS.values() if m.predicts == "classes"]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_named_network_takes_images_of_other_sizes(name: str) -> None:
    logits, like = traced(name, 10)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)
    if name in DEEP:
        return
    model = made(name)
    larger = IMAGENET if name in ("resnet_18", "resnet_50", "vgg_16") else (64, 64, 3)
    large = jax.ShapeDtypeStruct((2, *larger), jnp.float32)
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    if name.startswith(("lenet", "conv", "vit")):
        like = shapes(model, larger)
    others, stats = jax.eval_shape(apply, like, large)
    assert (others.shape, others.dtype) == ((2, 10), jnp.float32)
    assert jax.tree.structure(stats) == jax.tree.structure(
        {name: like[name] for name in stats}
    )
