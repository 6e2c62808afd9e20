"""A small member of every family of networks, and what their tests have in common."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxsparse import masks, models, tree
from jaxsparse.models import layers

CIFAR = (32, 32, 3)
TINY_RESNET = functools.partial(models.CifarResNet, depth=8, width=2)
BOTTLENECKS = functools.partial(models.ImageNetResNet, (1, 2), width=2, classes=10)
VGG = functools.partial(models.VGG, (1, 2), (3, 4), classes=10)
# Each with images that it takes.
SMALL = {
    "lenet_300_100": (models.LeNet300100(features=(5, 4)), (8, 8, 1)),
    "lenet_5": (models.LeNet5(conv_channels=(2, 3), features=(5, 4)), (16, 16, 1)),
    "lenet_5_caffe": (
        models.LeNet5Caffe(conv_channels=(2, 3), features=(5,)),
        (16, 16, 1),
    ),
    "conv_4": (models.ConvNet(depth=4, width=2, features=(5, 4)), (8, 8, 3)),
    "resnet_8": (TINY_RESNET(), (8, 8, 3)),
    "bottlenecks": (BOTTLENECKS(), (16, 16, 3)),
    "vgg": (VGG(), (8, 8, 3)),
    "resnet_8_identity": (TINY_RESNET(shortcut="identity"), (8, 8, 3)),
    "resnet_8_bottleneck": (
        TINY_RESNET(block="bottleneck", shortcut="identity"),
        (8, 8, 3),
    ),
    "basic_imagenet": (BOTTLENECKS(block="basic"), (17, 17, 3)),
    "vgg_bn": (VGG(norm=layers.BATCH_NORM, use_bias=True), (8, 8, 3)),
    "wide": (models.WideResNet(depth=10, widen=2, width=2), (8, 8, 3)),
    "mobilenet_v1": (
        models.MobileNetV1((1, 2), (4, 6), (2, 1, 2), width=3, classes=10),
        (9, 9, 3),
    ),
    "mobilenet_v2": (
        models.MobileNetV2(
            (1, 2), (3, 4), (1, 1, 2), width=3, last=5, expand=2, classes=10
        ),
        (8, 8, 3),
    ),
}
SKIPPING = [name for name, (model, _) in SMALL.items() if hasattr(model, "skip")]


def shapes(model: nn.Module, image: tuple[int, ...]) -> dict:
    leaves, treedef = jax.tree.flatten(_shapes(model, image))
    return jax.tree.unflatten(treedef, leaves)  # dicts of the caller's own


@functools.cache
def _shapes(model: nn.Module, image: tuple[int, ...]) -> dict:
    init = functools.partial(model.init, train=False)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(init, key, jax.ShapeDtypeStruct((1, *image), jnp.float32))


def variables(model: nn.Module, image: tuple[int, ...]) -> dict:
    """Random parameters and statistics, so that nothing is hidden by a 0 or a 1."""
    rng = np.random.default_rng(1)

    def draw(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        last = name.rpartition("/")[2]
        value = {
            "kernel": lambda: rng.normal(
                0, math.prod(leaf.shape[:-1]) ** -0.5, leaf.shape
            ),
            "bias": lambda: rng.uniform(0.0, 0.5, leaf.shape),
            "mean": lambda: rng.uniform(-0.3, 0.3, leaf.shape),
            "scale": lambda: rng.uniform(0.5, 1.5, leaf.shape),
            "var": lambda: rng.uniform(0.5, 1.5, leaf.shape),
        }[last]()
        return jnp.asarray(value, leaf.dtype)

    return tree.map_with_names(draw, shapes(model, image))


def images(image: tuple[int, ...], batch: int = 4) -> jax.Array:
    rng = np.random.default_rng(2)
    return jnp.asarray(rng.normal(size=(batch, *image)), jnp.float32)


def count(params: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def prunable(params: dict) -> int:
    return count(jax.eval_shape(masks.ones, params))
