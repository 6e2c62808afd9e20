"""Small networks whose reduction is known: folding, borders, streams, reshapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reductions
from helpers.reductions import Network, floats, relu, s_, unit
from jax import lax

from jaxsparse.types import Params


def convolve(x: Any, kernel: Any, padding: str = "SAME", groups: int = 1) -> Any:
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        dimension_numbers=order,
        feature_group_count=groups,
    )


def mlp(p: Params, x: Any) -> Any:
    x = relu(x @ p["a"] + p["c"])
    return relu(x @ p["b"] + p["d"]) @ p["e"] + p["f"]


def crelu(p: Params, x: Any) -> Any:
    x = x @ p["a"] + p["c"]
    return jnp.concatenate([relu(x), relu(-x)], -1) @ p["b"] + p["d"]


def border(p: Params, x: Any) -> Any:
    x = relu(convolve(x, p["k0"]) + p["c0"])
    x = relu(convolve(x, p["k1"]) + p["c1"])
    return (convolve(x, p["k2"]) + p["c2"]).sum((1, 2))


def normalized(p: Params, name: str, x: Any) -> Any:
    mean, var, scale, bias = p[name]
    return (x - mean) * lax.rsqrt(var + 1e-5) * scale + bias


def separable(p: Params, x: Any) -> Any:
    x = relu(normalized(p, "first", convolve(x, p["expand"])))
    x = convolve(x, p["depthwise"], "VALID", p["depthwise"].shape[3])
    return convolve(relu(normalized(p, "second", x)), p["project"]) + p["bias"]


def flatten(p: Params, x: Any) -> Any:
    x = relu(convolve(x, p["k"], "VALID") + p["c"])
    shape, strides, pads = (1, 3, 3, 1), (1, 2, 2, 1), "SAME"
    x = lax.reduce_window(x, 0.0, lax.add, shape, strides, pads)
    count = lax.reduce_window(jnp.ones_like(x[:1]), 0.0, lax.add, shape, (1,) * 4, pads)
    return (x / count).reshape(x.shape[0], -1) @ p["b"] + p["d"]


def streams(p: Params, x: Any) -> Any:
    x = convolve(x, p["stem"])
    x = x + convolve(relu(convolve(x, p["a0"])), p["b0"])
    x = x + convolve(relu(convolve(x, p["a1"])), p["b1"])
    return relu(x).sum((1, 2)) @ p["head"]


def group_norm(p: Params, x: Any) -> Any:
    x = x @ p["a"] + p["c"]
    groups = x.reshape(*x.shape[:-1], -1, 4)
    centered = groups - groups.mean((1, 3), keepdims=True)
    spread = (centered**2).mean((1, 3), keepdims=True)
    x = (centered * lax.rsqrt(spread + 1e-5)).reshape(x.shape)
    return relu(x * p["scale"]) @ p["b"]


def equal(p: Params, x: Any) -> Any:
    """Batch, height, width, channels and classes have the same length."""
    x = relu(convolve(x, p["k0"]) + p["c0"])
    x = relu(convolve(x, p["k1"]) + p["c1"]).swapaxes(1, 2).mean(1)
    return jax.nn.softmax(x @ p["head"] + p["d"]).mean(1)


def decoder(p: Params, x: Any) -> Any:
    """Rows, columns and channels are split from the units of a layer."""
    x = relu(x @ p["a"] + p["c"]).reshape(x.shape[0], 2, 2, -1)
    return convolve(x, p["k"]) + p["d"]


def ensemble(p: Params, x: Any) -> Any:
    def one(p: Params, x: Any) -> Any:
        return jnp.tanh(x @ p["a"] + p["c"]) @ p["b"] + p["d"]

    return jax.vmap(one, (0, None))(p, x).mean(0)


STREAM = (("stem", 3), ("a0", 2), ("b0", 3), ("a1", 2), ("b1", 3), ("head", 0))
NETWORKS = {
    # Hidden units 1 and 4 have no inputs, and 0 of the second layer none but them.
    "constant units of an MLP": Network(
        mlp,
        {"a": (5, 6), "c": (6,), "b": (6, 5), "d": (5,), "e": (5, 3), "f": (3,)},
        floats((3, 5)),
        {"a": [s_[:, [1, 4]]], "b": [s_[5], s_[[0, 2, 3, 5], 0]], "e": [s_[3]]},
        {
            "a": {1: (1, 4, 5)},
            "c": {0: (1, 4, 5)},
            "b": {0: (1, 4, 5), 1: (0, 3)},
            "d": {0: (0, 3)},
            "e": {0: (0, 3)},
        },
        fixed={"c": {1: 0.6, 4: -0.5}, "d": {0: 0.9}},
    ),
    # All hidden units are silent on the example; one is dead. Ends stay.
    "dead inputs and outputs": Network(
        mlp,
        {"a": (4, 3), "c": (3,), "b": (3, 3), "d": (3,), "e": (3, 4), "f": (4,)},
        jnp.zeros((2, 4)),
        {"a": [s_[[0, 2]]], "e": [s_[:, [1, 3]], s_[2]]},
        unit(("b", 1), ("d", 0), ("e", 0), of=(2,)),
        fixed={"c": {0: -0.5, 1: -0.5, 2: -0.5}},
    ),
    "units read twice": Network(
        crelu,
        {"a": (4, 5), "c": (5,), "b": (10, 3), "d": (3,)},
        floats((2, 4)),
        {"a": [s_[:, 3]], "b": [s_[[1, 6, 2]]]},
        {"a": {1: (1, 3)}, "c": {0: (1, 3)}, "b": {0: (1, 3, 6, 8)}},
    ),
    # Channel 1 is not a constant at the border, 2 is stopped by the relu.
    "padded borders": Network(
        border,
        {
            "k0": (3, 3, 2, 5),
            "c0": (5,),
            "k1": (3, 3, 5, 4),
            "c1": (4,),
            "k2": (1, 1, 4, 3),
            "c2": (3,),
        },
        floats((2, 5, 5, 2)),
        {"k0": [s_[..., [1, 2]]], "k1": [s_[:, :, 4], s_[..., 3]]},
        {
            "k0": {3: (2, 4)},
            "c0": {0: (2, 4)},
            "k1": {2: (2, 4), 3: (3,)},
            "c1": {0: (3,)},
            "k2": {2: (3,)},
        },
        named="before 'max'",
        fixed={"c0": {1: 0.8, 2: -0.7}, "c1": {3: 0.5}},
    ),
    "depthwise convolution": Network(
        separable,
        {
            "expand": (1, 1, 2, 6),
            "depthwise": (3, 3, 1, 6),
            "first": (4, 6),
            "second": (4, 6),
            "project": (1, 1, 6, 3),
            "bias": (3,),
        },
        floats((2, 4, 4, 2)),
        # Nothing before 0, nothing in 1, nothing behind 2.
        {
            "expand": [s_[..., 0]],
            "depthwise": [s_[..., 1]],
            "project": [s_[:, :, 2]],
        },
        {
            **unit(("expand", 3), ("depthwise", 3), ("project", 2), of=(0, 1, 2)),
            **unit(("first", 1), ("second", 1), of=(0, 1, 2)),
        },
        fixed={"first": {1: np.full(6, 0.8)}, "second": {1: np.full(6, 0.8)}},
    ),
    # Channel 1 lost all its rows, 4 all but one; 3 is constant, but not in all windows.
    "flattened channels": Network(
        flatten,
        {"k": (3, 3, 1, 5), "c": (5,), "b": (20, 3), "d": (3,)},
        floats((2, 6, 6, 1)),
        {"k": [s_[..., 3]], "b": [s_[[1, 6, 11, 16]], s_[[4, 9, 19]]]},
        {
            "k": {3: (1, 3)},
            "c": {0: (1, 3)},
            "b": {0: (1, 3, 6, 8, 11, 13, 16, 18)},
        },
        fixed={"c": {3: 0.5}},
    ),
    # Only 1 is written by nobody, and only 4 read by nobody. a1 has no weights left.
    "residual streams": Network(
        streams,
        {
            "stem": (3, 3, 3, 6),
            "a0": (3, 3, 6, 4),
            "b0": (3, 3, 4, 6),
            "a1": (3, 3, 6, 4),
            "b1": (3, 3, 4, 6),
            "head": (6, 2),
        },
        floats((2, 4, 4, 3)),
        {
            "stem": [s_[..., [0, 1]]],
            "a0": [s_[:, :, [4, 5]], s_[..., 2]],
            "b0": [s_[..., [1, 2]]],
            "a1": [s_[:]],
            "head": [s_[4]],
        },
        {
            **unit(("stem", 3), of=(1, 4)),
            **unit(("head", 0), of=(1, 4)),
            "a0": {2: (1, 4), 3: (2,)},
            "b0": {2: (2,), 3: (1, 4)},
            "a1": {2: (1, 4), 3: (1, 2, 3)},
            "b1": {2: (1, 2, 3), 3: (1, 4)},
        },
        named="a layer keeps one unit",
    ),
    # 1 and 6 are dead, but counted in their groups; group 2 is unread as a whole.
    "normalized groups": Network(
        group_norm,
        {"a": (3, 12), "c": (12,), "scale": (12,), "b": (12, 2)},
        floats((2, 5, 3)),
        {"a": [s_[:, 1]], "b": [s_[[6, 8, 9, 10, 11]]]},
        unit(("a", 1), ("c", 0), ("scale", 0), ("b", 0), of=(8, 9, 10, 11)),
        named="'reduce_sum' over units",
        fixed={"c": {1: 0.0}},
    ),
    # Only channels 0 and 2 of the first layer and 1 of the second go, although all axes
    # are of length 4: 0 emits nothing, and the others are unread.
    "axes of equal length": Network(
        equal,
        {
            "k0": (1, 1, 4, 4),
            "c0": (4,),
            "k1": (3, 3, 4, 4),
            "c1": (4,),
            "head": (4, 4),
            "d": (4,),
        },
        floats((4, 4, 4, 4)),
        {"k0": [s_[..., 0]], "k1": [s_[:, :, 2]], "head": [s_[1]]},
        {
            "k0": {3: (0, 2)},
            "c0": {0: (0, 2)},
            "k1": {2: (0, 2), 3: (1,)},
            "c1": {0: (1,)},
            "head": {0: (1,)},
        },
        fixed={"c0": {0: -0.5}},
    ),
    # Channel 1 is unread, 3 emits nothing at any place, and 4 is constant at one place.
    "channels split by a reshape": Network(
        decoder,
        {"a": (3, 20), "c": (20,), "k": (3, 3, 5, 2), "d": (2,)},
        floats((2, 3)),
        {"a": [s_[:, [3, 8, 13, 18]], s_[:, 4]], "k": [s_[:, :, 1]]},
        {
            **unit(("a", 1), ("c", 0), of=(1, 3, 6, 8, 11, 13, 16, 18)),
            "k": {2: (1, 3)},
        },
        fixed={"c": dict.fromkeys((3, 8, 13, 18), -0.5)},
    ),
    # 1 is unread in all members, 4 in two, and constant in the third.
    "ensemble": Network(
        ensemble,
        {"a": (3, 4, 6), "c": (3, 6), "b": (3, 6, 2), "d": (3, 2)},
        floats((4, 4)),
        {
            "a": [s_[1, :, 3], s_[1, :, 4]],
            "b": [s_[:, 1], s_[0, [2, 4]], s_[2, 4]],
        },
        unit(("a", 2), ("c", 1), ("b", 1), of=(1, 4)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_known_reductions(name: str) -> None:
    reductions.check(NETWORKS[name])


def test_single_channels_of_normalized_groups_are_listed() -> None:
    small = reductions.check(NETWORKS["normalized groups"])
    leaves = ("a", 1), ("c", 0), ("scale", 0), ("b", 0)
    expected = {(leaf, axis, unit) for leaf, axis in leaves for unit in (1, 6)}
    assert small.report.kept.keys() == expected
