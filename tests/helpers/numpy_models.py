"""The networks written out in numpy, slow and obvious.

A state is a dict with the parameters and one with the statistics of a network or of one
of its blocks. `skip` is a function that bypasses convolutions, or None.
"""

from collections.abc import Callable

import numpy as np

State = tuple[dict, dict]
Skip = Callable[[np.ndarray, int, int], np.ndarray] | None


def within(state: State, name: str) -> State:
    return state[0][name], state[1][name]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """The definition, with floor(size / 2) zeros around the image as in PyTorch.

    Every output sees its own group of inputs, as many as the kernel has.
    """
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    groups = x.shape[-1] // kernel.shape[2]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    side = (x.shape[1] - size) // stride + 1
    y = np.zeros((x.shape[0], side, side, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            top, left = i * stride, j * stride
            patch = x[:, top : top + size, left : left + size, :]
            pairs = zip(
                np.split(patch, groups, axis=-1),
                np.split(kernel, groups, axis=-1),
                strict=True,
            )
            parts = [np.einsum("bhwi,hwio->bo", seen, part) for seen, part in pairs]
            y[:, i, j, :] = np.concatenate(parts, axis=-1)
    return y


def normalize(x: np.ndarray, state: State) -> np.ndarray:
    params, stats = state
    y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return y * params["scale"] + params["bias"]


def pool(x: np.ndarray, size: int, pad: int) -> np.ndarray:
    """The largest of windows at every second pixel."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    side = (x.shape[1] - size) // 2 + 1
    rows = [
        [
            x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size].max((1, 2))
            for j in range(side)
        ]
        for i in range(side)
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def bypass(x: np.ndarray, features: int, stride: int) -> np.ndarray:
    """Half of every `stride`-th pixel, with channels left out or of zeros."""
    x = x[:, ::stride, ::stride, :features] / 2
    return np.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


def unit(
    x: np.ndarray, state: State, tag: str, stride: int = 1, skip: Skip = None
) -> np.ndarray:
    """norm(conv(x)) + skip(x)."""
    layer = state[0][tag.format("conv")]
    y = convolve(x, layer["kernel"], stride) + layer.get("bias", 0.0)
    if tag.format("norm") in state[0]:
        y = normalize(y, within(state, tag.format("norm")))
    return y if skip is None else y + skip(x, y.shape[-1], stride)


def shortcut(x: np.ndarray, y: np.ndarray, state: State, stride: int) -> np.ndarray:
    if "shortcut_conv" in state[0]:
        return unit(x, state, "shortcut_{}", stride)
    x = x[:, ::stride, ::stride]
    return np.pad(x, ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - x.shape[-1])))


def basic(x: np.ndarray, state: State, stride: int, skip: Skip) -> np.ndarray:
    y = relu(unit(x, state, "{}1", stride, skip))
    y = unit(y, state, "{}2", 1, skip)
    return relu(shortcut(x, y, state, stride) + y)


def bottleneck(x: np.ndarray, state: State, stride: int, skip: Skip) -> np.ndarray:
    y = relu(unit(x, state, "{}1", 1, skip))
    y = relu(unit(y, state, "{}2", stride, skip))
    y = unit(y, state, "{}3", 1, skip)
    return relu(shortcut(x, y, state, stride) + y)


def separable(x: np.ndarray, state: State, stride: int, skip: Skip) -> np.ndarray:
    y = relu(unit(x, state, "{}1", stride, skip))
    return relu(unit(y, state, "{}2", 1, skip))


def inverted(x: np.ndarray, state: State, stride: int, skip: Skip) -> np.ndarray:
    y = relu(unit(x, state, "{}1", 1, skip)) if "conv1" in state[0] else x
    y = relu(unit(y, state, "{}2", stride, skip))
    y = unit(y, state, "{}3", 1, skip)
    return x + y if x.shape == y.shape else y


def pre_activation(x: np.ndarray, state: State, stride: int, skip: Skip) -> np.ndarray:
    first = relu(normalize(x, within(state, "norm1")))
    kernels = {name: state[0][name] for name in state[0] if "conv" in name}
    bare = (kernels, {})
    y = unit(first, bare, "{}1", stride, skip)
    y = unit(relu(normalize(y, within(state, "norm2"))), bare, "{}2", 1, skip)
    return y + (
        unit(first, bare, "shortcut_{}", stride) if "shortcut_conv" in bare[0] else x
    )


def blocks(
    x: np.ndarray,
    state: State,
    block: Callable[..., np.ndarray],
    strides: dict[str, int],
    skip: Skip,
) -> np.ndarray:
    """One block after another, by name."""
    for name, stride in strides.items():
        x = block(x, within(state, name), stride, skip)
    return x


def head(x: np.ndarray, state: State) -> np.ndarray:
    layer = state[0]["head"]
    return x.mean(axis=(1, 2)) @ layer["kernel"] + layer["bias"]


THREE = {"stage1_block0": 1, "stage2_block0": 2, "stage3_block0": 2}
ONE_AND_TWO = {"stage1_block0": 1, "stage2_block0": 2, "stage2_block1": 1}


def resnet_8(
    x: np.ndarray, state: State, skip: Skip, block: Callable = basic
) -> np.ndarray:
    x = relu(unit(x, state, "{}"))
    return head(blocks(x, state, block, THREE, skip), state)


def resnet_8_bottleneck(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    return resnet_8(x, state, skip, bottleneck)


def bottlenecks(
    x: np.ndarray, state: State, skip: Skip, block: Callable = bottleneck
) -> np.ndarray:
    x = pool(relu(unit(x, state, "{}", 2)), 3, 1)
    return head(blocks(x, state, block, ONE_AND_TWO, skip), state)


def basic_imagenet(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    return bottlenecks(x, state, skip, basic)


def vgg(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    x = pool(relu(unit(x, state, "{}1")), 2, 0)
    x = relu(unit(x, state, "{}2", 1, skip))
    return head(relu(unit(x, state, "{}3", 1, skip)), state)


def wide(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    x = convolve(x, state[0]["conv"]["kernel"], 1)
    x = blocks(x, state, pre_activation, THREE, skip)
    return head(relu(normalize(x, within(state, "norm"))), state)


def mobilenet_v1(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    x = relu(unit(x, state, "{}", 2))
    return head(blocks(x, state, separable, ONE_AND_TWO, skip), state)


def mobilenet_v2(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    x = relu(unit(x, state, "{}"))
    x = blocks(x, state, inverted, ONE_AND_TWO, skip)
    return head(relu(unit(x, state, "last_{}", 1, skip)), state)


def inside(x: np.ndarray) -> np.ndarray:
    """What a 5x5 convolution gives that has no padding."""
    return x[:, 2:-2, 2:-2]


def lenet_5(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    first = relu(unit(x, state, "{}1"))
    return lenet(pool(first, 2, 0), state, skip)


def lenet_5_caffe(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    first = relu(inside(unit(x, state, "{}1")))
    return lenet(pool(first, 2, 0), state, skip)


def lenet(x: np.ndarray, state: State, skip: Skip) -> np.ndarray:
    """All that comes after the first pooling."""
    x = pool(relu(inside(unit(x, state, "{}2", 1, skip))), 2, 0)
    x = x.reshape(len(x), -1)
    for name in ("dense1", "dense2", "head"):
        if name in state[0]:
            layer = state[0][name]
            x = x @ layer["kernel"] + layer["bias"]
            x = x if name == "head" else relu(x)
    return x


NETWORKS = {
    "lenet_5": lenet_5,
    "lenet_5_caffe": lenet_5_caffe,
    "resnet_8": resnet_8,
    "resnet_8_identity": resnet_8,
    "resnet_8_bottleneck": resnet_8_bottleneck,
    "bottlenecks": bottlenecks,
    "basic_imagenet": basic_imagenet,
    "vgg": vgg,
    "vgg_bn": vgg,
    "wide": wide,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
}
