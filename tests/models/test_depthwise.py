"""Convolutions of single channels: what the rest of the library makes of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import small_models

from jaxsparse import config as config_lib
from jaxsparse import (
    connectivity,
    distributions,
    factory,
    fan_axes,
    initializers,
    masks,
)
from jaxsparse.factory import init_masks, models
from jaxsparse.models import convolutions, mobilenet

MOBILENETS = ("mobilenet_v1", "mobilenet_v2")
EXPLICIT = functools.partial(nn.Conv, conv_general_dilated=convolutions.convolve)


def whole(seed: int, *shape: int) -> np.ndarray:
    """Small whole numbers: sums of their products are exact in any order."""
    draw = np.random.default_rng(seed)
    return draw.integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "step", "channels", "each", "padding"),
    [
        (3, 1, 4, 1, "SAME"),
        (3, 2, 3, 1, ((1, 1), (1, 1))),
        (2, 2, 2, 2, ((0, 2), (1, 0))),
        (1, 1, 3, 2, "VALID"),
    ],
)
def test_sums_of_shifted_images_are_the_convolution(
    size: int, step: int, channels: int, each: int, padding: object
) -> None:
    x = whole(0, 2, 6, 5, channels)
    kernel = whole(1, size, size, 1, each * channels)

    def results(convolve: Callable, x: jax.Array, kernel: jax.Array) -> list[Any]:
        function = functools.partial(
            convolve,
            window_strides=(step, step),
            padding=padding,
            feature_group_count=channels,
            dimension_numbers=convolutions.ORDER,
        )
        y, pull = jax.vjp(function, x, kernel)
        return [y, *pull(whole(2, *y.shape))]

    @jax.jit
    def both(x: jax.Array, kernel: jax.Array) -> list[Any]:
        every = (convolutions.convolve, jax.lax.conv_general_dilated)
        return [results(convolve, x, kernel) for convolve in every]

    for mine, theirs in zip(*both(x, kernel), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_sums_are_in_float32_and_rounded_once() -> None:
    x, kernel = np.ones((1, 3, 3, 2), jnp.bfloat16), np.ones((3, 3, 1, 2))
    kernel[0, 0] = 256.0
    sums = functools.partial(
        convolutions.convolve,
        window_strides=(1, 1),
        padding="VALID",
        feature_group_count=2,
    )
    got = jax.jit(sums)(x, kernel.astype(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    # In bfloat16 256 + 1 is 256 again, eight times.
    np.testing.assert_array_equal(np.asarray(got, np.float32), 264.0)


@pytest.mark.parametrize("name", MOBILENETS)
def test_mobilenets_are_the_same_networks_spelled_out(name: str) -> None:
    model, image = small_models.SMALL[name]
    state, x = small_models.variables(model, image), small_models.images(image)
    run, fast = (
        jax.jit(functools.partial(network.apply, train=False))
        for network in (model, model.clone(conv=EXPLICIT))
    )
    np.testing.assert_allclose(fast(state, x), run(state, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MOBILENETS)
def test_weights_on_no_path_are_found(name: str) -> None:
    """A channel whose own kernel is gone is dead from the layer before to the next."""
    model, image = small_models.SMALL[name]
    model = model.clone(blocks=(1, 1))
    state = jax.tree.map(
        lambda leaf: jnp.asarray(np.abs(leaf)), small_models.variables(model, image)
    )
    rest, dense = {"batch_stats": state["batch_stats"]}, masks.ones(state["params"])
    block, last = dense["stage2_block0"], 1 + (name == "mobilenet_v2")
    single, mixing = f"conv{last}", f"conv{last + 1}"
    kernel = block[single]["kernel"]
    assert kernel.shape[2] == 1
    block[single]["kernel"] = kernel.at[..., 0].set(False)

    def apply(params: dict, x: jax.Array) -> jax.Array:
        return model.apply({"params": params, **rest}, x, train=False)

    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    find = jax.jit(
        lambda kept: connectivity.live(apply, state["params"], kept, example)
    )
    live = find(dense)
    found = connectivity.by_layer(dense, live)
    before = "stage1_block0/conv2" if last == 1 else "stage2_block0/conv1"
    outputs = block[mixing]["kernel"].shape[-1]
    inputs = found[f"{before}/kernel"].size // kernel.shape[-1]
    lost = {
        leaf: c.num_active - c.num_live
        for leaf, c in found.items()
        if c.num_live < c.num_active
    }
    assert lost == {
        f"{before}/kernel": inputs,
        f"stage2_block0/{mixing}/kernel": outputs,
    }
    order = connectivity.first_to_last(apply, state["params"], dense, example)
    assert sorted(order) == masks.names(dense)


def test_layers_of_single_channels_are_read_as_having_one_input() -> None:
    kernel = jnp.ones((3, 3, 1, 64), bool)
    both = {"mix": jnp.ones((1, 1, 64, 256), bool), "single": kernel}
    # The sums of axes are 71 and 322, for densities of 0.53 and 0.08.
    kept = distributions.erdos_renyi_kernel(both, 0.9)
    assert kept == {"mix": round(1696 * 322 / 393), "single": round(1696 * 71 / 393)}
    assert initializers.fan_in(kernel.shape) == 9


def test_configs_choose_convolutions_for_mobilenets_and_shrink_them() -> None:
    c = config_lib.default()
    c.model.name, c.model.features = "mobilenet_v2", (2, 3, 3, 4, 4, 4, 5)
    c.run.conv_gradients = "explicit"
    models.check(c)
    model = models.make_model(c, classes=3, training=True)
    assert model.conv.keywords["conv_general_dilated"] is convolutions.convolve
    params = small_models.shapes(model, small_models.CIFAR)["params"]
    assert params["stage7_block0"]["conv3"]["kernel"].shape == (1, 1, 24, 5)


@pytest.mark.parametrize(
    ("backend", "name", "fsdp", "asked", "explicit", "scans", "how"),
    [
        ("cpu", "resnet_20", False, "auto", True, True, "map"),
        ("cpu", "mobilenet_v1", False, "auto", True, True, "map"),
        ("cpu", "resnet_20", True, "auto", False, False, "unroll"),
        ("cpu", "resnet_20", False, "library", False, False, "unroll"),
        ("cpu", "lenet_300_100", False, "auto", False, True, "map"),
        ("cpu", "vit_ti_16", False, "auto", False, False, "unroll"),
        ("gpu", "resnet_20", False, "auto", False, True, "vmap"),
        ("gpu", "resnet_20", False, "explicit", True, True, "vmap"),
    ],
)
def test_configs_choose_what_is_fast(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    name: str,
    fsdp: bool,
    asked: str,
    explicit: bool,
    scans: bool,
    how: str,
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    c = config_lib.default()
    c.model.name, c.run.fsdp, c.run.conv_gradients = name, fsdp, asked
    assert models.uses_custom_conv_grads(c) is explicit
    model = models.make_model(c, classes=3, training=True)
    if "conv" in config_lib.MODELS[name].takes:
        kernel = getattr(model.conv, "keywords", {}).get("conv_general_dilated")
        assert (kernel is convolutions.convolve) is explicit
    dense = {"kernel": np.ones((4, 4) if name.startswith("lenet") else (3, 3, 4, 4))}
    arrangement = factory.make_execution_plan(c, dense)
    assert (not arrangement.single, arrangement.how) == (scans, how)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("cifar_resnet_18", "width", 8, "the field belongs to model.name"),
        ("cifar_resnet_18", "features", (8, 8), "expected 4 sizes"),
        ("vgg_11_bn", "features", (8,) * 4, "expected 5 sizes"),
        ("mobilenet_v1", "features", (8,) * 6, "expected 5 sizes"),
        ("mobilenet_v2", "width", 8, "the field belongs to model.name"),
        ("wide_resnet_16_8", "features", (8,), "the field belongs to model.name"),
        ("resnet_104", "padding", "SAME", "the field belongs to model.name"),
        ("vgg_16", "norm_affine", False, "expected True .*which has no BatchNorm"),
    ],
)
def test_fields_that_a_network_has_no_use_for_are_refused(
    name: str, field: str, value: object, message: str
) -> None:
    c = config_lib.default()
    c.model.name = name
    c.model[field] = value
    with pytest.raises(ValueError, match=f"config.model.{field}: .*{message}"):
        models.check(c)


@pytest.mark.parametrize("name", ["vgg_11_bn", "wide_resnet_16_8", "mobilenet_v1"])
def test_norms_without_parameters_are_chosen_by_the_config(name: str) -> None:
    c = config_lib.default()
    c.model.name, c.model.norm_affine = name, False
    models.check(c)
    params = small_models.shapes(models.make_model(c, classes=10), small_models.CIFAR)[
        "params"
    ]
    assert not [leaf for leaf in masks.names(params) if leaf.endswith("scale")]


def test_training_knows_that_channels_see_themselves() -> None:
    model = mobilenet.MobileNetV1(
        blocks=(1,), features=(4,), strides=(1, 1), width=2, classes=3
    )
    image = jnp.ones((1, 8, 8, 3))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    axes = init_masks.layouts(
        model, like["params"], like["batch_stats"], jnp.zeros((1, 8, 8, 3))
    )
    for layer, shape, wanted in (
        ("stage1_block0/conv1", (3, 3, 1, 2), fan_axes.Fans(2, (3, 3), 1, 1)),
        ("stage1_block0/conv2", (1, 1, 2, 4), fan_axes.Fans(1, (1, 1), 2, 4)),
        ("head", (4, 3), fan_axes.Fans(1, (), 4, 3)),
    ):
        name = f"{layer}/kernel"
        assert fan_axes.fans(axes[name], name, shape) == wanted
