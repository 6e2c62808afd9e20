"""Laws of all networks: names, dtypes, activations, layers, statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import numpy_models, small_models
from helpers.small_models import SMALL, images, shapes, variables

from jaxsparse import masks, models
from jaxsparse.models import blocks, layers


def test_leaves_have_stable_names():
    assert masks.names(shapes(models.LeNet5(), (28, 28, 1))["params"]) == [
        f"{layer}/{leaf}"
        for layer in ("conv1", "conv2", "dense1", "dense2", "head")
        for leaf in ("bias", "kernel")
    ]
    block = shapes(models.CifarResNet(), small_models.CIFAR)["params"]["stage2_block0"]
    assert masks.names(block) == [
        "conv1/kernel",
        "conv2/kernel",
        "norm1/bias",
        "norm1/scale",
        "norm2/bias",
        "norm2/scale",
        "shortcut_conv/kernel",
        "shortcut_norm/bias",
        "shortcut_norm/scale",
    ]
    names = masks.names(shapes(models.ImageNetResNet(), small_models.CIFAR)["params"])
    assert [name for name in names if "block" not in name] == [
        *("conv/kernel", "head/bias", "head/kernel", "norm/bias", "norm/scale"),
    ]
    assert {name.partition("/")[2] for name in names if "block" in name} == {
        f"{layer}/{leaf}"
        for kind, leaves in (("conv", ("kernel",)), ("norm", ("bias", "scale")))
        for layer in (f"{kind}1", f"{kind}2", f"{kind}3", f"shortcut_{kind}")
        for leaf in leaves
    }
    assert masks.names(shapes(*SMALL["vgg"])["params"]) == [
        *("conv1/kernel", "conv2/kernel", "conv3/kernel"),
        *("head/bias", "head/kernel"),
    ]


@pytest.mark.parametrize("name", SMALL)
def test_every_network_has_a_head_and_known_leaf_names(name: str):
    params = shapes(*SMALL[name])["params"]
    assert set(params["head"]) == {"kernel", "bias"}
    leaves = {leaf.rpartition("/")[2] for leaf in masks.names(params)}
    assert leaves <= {"kernel", "bias", "scale"}


# The others are compared with numpy in test_networks_numpy.py.
NOT_IN_NUMPY = sorted(SMALL.keys() - numpy_models.NETWORKS.keys())


@pytest.mark.parametrize("name", NOT_IN_NUMPY)
def test_logits_are_finite_float32(name: str):
    model, image = SMALL[name]
    apply = jax.jit(functools.partial(model.apply, train=False))
    logits = apply(variables(model, image), images(image))
    assert logits.shape == (4, 10)
    assert logits.dtype == jnp.float32
    assert jnp.all(jnp.isfinite(logits))
    # A dead network says the same of every image.
    assert jnp.min(jnp.std(logits, axis=0)) > 1e-3


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_is_for_computing_only(name: str, train: bool):
    seen = []

    def act(x: jax.Array) -> jax.Array:
        seen.append(x.dtype)
        return nn.relu(x)

    model, image = SMALL[name]
    model = model.clone(dtype=jnp.bfloat16, act=act)
    like = shapes(model, image)
    apply = functools.partial(model.apply, train=train, mutable=["batch_stats"])
    logits, stats = jax.eval_shape(apply, like, jnp.zeros((4, *image)))
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((like, stats)))
    assert all(dtype == jnp.bfloat16 for dtype in seen)


def test_bfloat16_comes_close_to_float32():
    model, image = SMALL["resnet_8"]
    state, x = variables(model, image), images(image)
    narrow = model.clone(dtype=jnp.bfloat16)
    exact = jax.jit(functools.partial(model.apply, train=False))(state, x)
    rough = jax.jit(functools.partial(narrow.apply, train=False))(state, x)
    # 9 layers, each rounding to 8 bits.
    np.testing.assert_allclose(rough, exact, atol=9 * 2**-8 * np.abs(exact).max())
    assert not np.array_equal(rough, exact)


@pytest.mark.parametrize("name", SMALL)
def test_float64_runs_in_float64(name: str):
    model, image = SMALL[name]
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float64), shapes(model, image)
    )
    with jax.enable_x64(True):
        x = jax.ShapeDtypeStruct((4, *image), np.float64)
        apply = functools.partial(model.apply, train=False)
        assert jax.eval_shape(apply, like, x).dtype == np.float64


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("lenet_300_100", 2),
        ("lenet_5", 4),
        ("lenet_5_caffe", 3),
        ("conv_4", 6),
        ("resnet_8", 7),
        ("bottlenecks", 10),
        ("vgg", 3),
        ("vgg_bn", 3),
        ("wide", 7),
        ("mobilenet_v1", 7),
        ("mobilenet_v2", 7),
    ],
)
def test_the_injected_activation_is_the_only_one(name: str, calls: int):
    seen = []

    def silence(x: jax.Array) -> jax.Array:
        seen.append(x.shape)
        return jnp.zeros_like(x)

    model, image = SMALL[name]
    model = model.clone(act=silence)
    apply = functools.partial(model.apply, train=False)
    like = shapes(model, image)
    seen.clear()
    jax.eval_shape(apply, like, jnp.zeros((4, *image)))
    assert len(seen) == calls
    if name not in NOT_IN_NUMPY:
        return
    state = variables(model, image)
    logits = jax.jit(apply)(state, images(image))
    np.testing.assert_array_equal(
        logits, np.tile(state["params"]["head"]["bias"], (4, 1))
    )


@pytest.mark.parametrize("name", NOT_IN_NUMPY)
def test_without_activations_and_pooling_networks_are_affine(name: str):
    model, image = SMALL[name]
    model = model.clone(act=lambda x: x)
    if hasattr(model, "pool"):
        model = model.clone(pool=lambda x: x[:, ::2, ::2])
    state, x = variables(model, image), images(image, batch=2)
    apply = jax.jit(functools.partial(model.apply, train=False))
    x = np.asarray(x)
    first, second, both, none = apply(state, np.stack([*x, x[0] + x[1], 0 * x[0]]))
    np.testing.assert_allclose(both + none, first + second, rtol=1e-4, atol=1e-4)


def test_an_activation_may_close_over_a_traced_value():
    model, image = SMALL["conv_4"]
    state, x = variables(model, image), images(image)

    @jax.jit
    def logits(slope: jax.Array) -> jax.Array:
        act = functools.partial(nn.leaky_relu, negative_slope=slope)
        return model.clone(act=act).apply(state, x, train=False)

    plain = jax.jit(functools.partial(model.apply, train=False))(state, x)
    np.testing.assert_allclose(logits(0.0), plain, rtol=1e-5, atol=1e-6)
    assert jnp.max(jnp.abs(logits(0.5) - plain)) > 1e-3


def test_layers_are_injected():
    dense = functools.partial(nn.Dense, use_bias=False)
    params = shapes(models.LeNet300100(dense=dense), (28, 28, 1))["params"]
    assert small_models.count(params) == 266_200
    conv = functools.partial(nn.Conv, use_bias=False)
    params = shapes(models.ConvNet(depth=2, conv=conv), small_models.CIFAR)["params"]
    assert set(params["conv1"]) == {"kernel"}
    norm = functools.partial(nn.BatchNorm, use_scale=False)
    params = shapes(models.CifarResNet(norm=norm), small_models.CIFAR)["params"]
    assert set(params["norm"]) == {"bias"}


def test_subsample_takes_every_second_pixel_and_appends_zeros():
    x = np.arange(2 * 5 * 4 * 3, dtype=np.float32).reshape(2, 5, 4, 3)
    y = jax.jit(lambda x: blocks.subsample(x, 7, stride=2))(x)
    assert y.shape == (2, 3, 2, 7)
    np.testing.assert_array_equal(y[..., :3], np.asarray(x)[:, ::2, ::2, :])
    np.testing.assert_array_equal(y[..., 3:], 0.0)


def test_statistics_change_in_training_only_with_momentum_nine_tenths():
    model, image = SMALL["resnet_8"]
    state, x = variables(model, image), images(image)
    apply = functools.partial(model.apply, mutable=["batch_stats"])
    _, after = jax.jit(functools.partial(apply, train=False))(state, x)
    jax.tree.map(np.testing.assert_array_equal, after, {k: state[k] for k in after})
    _, after = jax.jit(functools.partial(apply, train=True))(state, x)
    y = numpy_models.convolve(
        np.asarray(x), np.asarray(state["params"]["conv"]["kernel"]), 1
    )
    old, new = state["batch_stats"]["norm"], after["batch_stats"]["norm"]
    for name, now in (("mean", y.mean((0, 1, 2))), ("var", y.var((0, 1, 2)))):
        np.testing.assert_allclose(new[name], 0.9 * old[name] + 0.1 * now, rtol=1e-5)


def test_an_axis_name_makes_two_halves_one_batch():
    norm = functools.partial(layers.BATCH_NORM, axis_name="data")
    model, image = SMALL["resnet_8"]
    state, x = variables(model, image), images(image)
    train = {"train": True, "mutable": ["batch_stats"]}
    whole, stats = jax.jit(functools.partial(model.apply, **train))(state, x)
    apply = functools.partial(model.clone(norm=norm).apply, **train)
    halves, means = jax.jit(jax.vmap(apply, in_axes=(None, 0), axis_name="data"))(
        state, x.reshape(2, 2, *image)
    )
    np.testing.assert_allclose(halves.reshape(4, 10), whole, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6),
        means,
        stats,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.CifarResNet(depth=18), "depth: expected 6n.*got 18"),
        (lambda: models.CifarResNet(depth=2), "depth: expected 6n.*got 2"),
        (
            lambda: models.CifarResNet(shortcut="none"),
            "shortcut: expected .*got 'none'",
        ),
        (
            lambda: models.CifarResNet(block="wide"),
            "block: expected one of .*got 'wide'",
        ),
        (lambda: models.ResNet(stem="small"), "stem: expected one of .*got 'small'"),
        (
            lambda: models.ResNet((1, 1)),
            r"blocks, features: expected .*got \(1, 1\), \(64",
        ),
        (
            lambda: models.VGG((1, 1)),
            r"blocks, features: expected .*got \(1, 1\), \(64",
        ),
        (lambda: models.WideResNet(depth=26), "depth: expected 6n.*got 26"),
        (lambda: models.WideResNet(depth=4), "depth: expected 6n.*got 4"),
        (
            lambda: models.MobileNetV1(strides=(1, 2)),
            r"blocks, features, strides\[1:\]: expected equal lengths.*got .*, \(2,\)",
        ),
        (
            lambda: models.MobileNetV2(features=(8, 8)),
            r"blocks, features, strides\[1:\]: expected .*got .*, \(8, 8\), ",
        ),
        (lambda: models.ConvNet(depth=3), "depth: expected an even.*got 3"),
        (lambda: models.LeNet5(padding="same"), "padding: expected .*got 'same'"),
    ],
)
def test_impossible_networks_are_refused_when_built(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_which_pooling_leaves_nothing_are_refused():
    model = models.VGG(features=(2,) * 5)
    assert shapes(model, (16, 16, 3))["params"]["head"]["bias"].shape == (1000,)
    with pytest.raises(ValueError, match=r"images: expected .*got shape \(1, 0,"):
        shapes(model, (15, 15, 3))
