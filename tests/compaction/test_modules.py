"""Smaller modules: of linen, of nnx, and all networks of `models`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsparse import compaction, masks, models

IMAGES = jnp.zeros((1, 12, 12, 3))
NETWORKS = {
    "LeNet300100": models.LeNet300100((6, 5), classes=3),
    "LeNet5": models.LeNet5((3, 4), (5,), classes=3),
    "ConvNet": models.ConvNet(2, width=4, features=(6,), classes=3),
    "VGG": models.VGG((1, 1), (4, 6), classes=3),
    "ResNet": models.CifarResNet(8, width=4, classes=3),
    "identity": models.CifarResNet(8, width=4, classes=3, shortcut="identity"),
    "bottleneck": models.ResNet((1, 1), (4, 6), stem="cifar", classes=3),
    "WideResNet": models.WideResNet(10, 1, width=4, classes=3),
    "MobileNetV1": models.MobileNetV1((1, 1), (6, 8), (1, 1, 2), width=6, classes=3),
    # The first block keeps no shortcut, even when its shapes become equal.
    "MobileNetV2": models.MobileNetV2(
        (1, 2), (4, 6), (1, 1, 2), width=5, last=7, expand=2, classes=3
    ),
    "ViT": models.ViT(8, 4, 1, 4, 3),
}


def draw(variables: Any, seed: int) -> Any:
    """Draws variables of which no channel is silent by chance."""
    rng = np.random.default_rng(seed)

    def leaf(path: Any, old: Any) -> Any:
        if path[-1].key in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.6, 1.4, old.shape), old.dtype)
        scale = 0.3 if old.ndim < 2 else old.shape[-1] ** 0.5 / old.size**0.5
        return jnp.asarray(rng.normal(size=old.shape) * scale, old.dtype)

    return jax.tree_util.tree_map_with_path(leaf, variables)


def half_masked(params: Any) -> Any:
    """Masks the last third of the inputs and outputs of every layer but the ends."""
    active = masks.ones(params)

    def mask(name: str, leaf: Any) -> Any:
        keep = np.ones(leaf.shape, bool)
        if not name.startswith("head"):
            keep[..., -(leaf.shape[-1] // 3) :] = False
        if leaf.shape[-2] > 3:
            keep[..., -(leaf.shape[-2] // 3) :, :] = False
        return jnp.asarray(keep)

    named = dict(zip(masks.names(active), jax.tree.leaves(active), strict=True))
    leaves = [mask(name, leaf) for name, leaf in named.items()]
    return jax.tree.unflatten(jax.tree.structure(active), leaves)


def thirds_gone(variables: Any) -> Any:
    """Returns the shapes without the masked channels, all of which are unread."""

    def shape(path: Any, leaf: Any) -> tuple[int, ...]:
        sizes = list(leaf.shape)
        is_head, is_input = path[1].key == "head", leaf.shape[0] == IMAGES.size
        if not is_head:
            sizes[-1] -= sizes[-1] // 3
        if leaf.ndim > 1 and sizes[-2] > 3 and not is_input:
            sizes[-2] -= sizes[-2] // 3
        return tuple(sizes)

    return jax.tree_util.tree_map_with_path(shape, variables)


# Variants of others; their layers are those of ResNet, MobileNetV2 and ConvNet.
SLOW = ("identity", "bottleneck", "MobileNetV1", "WideResNet", "VGG")
# Of the others, LeNet-5 and ConvNet flatten their channels, and of the rows read behind
# it the masked ones are no whole channels; LayerNorm reads all channels of ViT.
EXACT = ("LeNet300100", "ResNet", "bottleneck", "WideResNet", "MobileNetV1", "VGG")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.campaign if name in SLOW else ())
        for name in NETWORKS
    ],
)
def test_networks_get_smaller(name: str) -> None:
    network = NETWORKS[name]
    run = functools.partial(network.init, train=False)
    variables = draw(jax.eval_shape(run, jax.random.key(0), IMAGES), 1)
    active = half_masked(variables["params"])
    small = compaction.compact_linen(network, variables, active, IMAGES, train=False)
    before, after = small.report.parameters
    assert before > after == sum(leaf.size for leaf in jax.tree.leaves(small.params))
    if name in EXACT:
        assert jax.tree.map(jnp.shape, small.params) == thirds_gone(variables)
    assert type(small.module) is type(network)
    shapes = jax.eval_shape(
        functools.partial(small.module.init, train=False), jax.random.key(0), IMAGES
    )
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, small.params)
    x = jnp.asarray(np.random.default_rng(2).normal(size=IMAGES.shape), jnp.float32)
    thin = {**variables, "params": masks.apply(active, variables["params"])}
    wanted = jax.jit(functools.partial(network.apply, train=False))(thin, x)
    got = jax.jit(functools.partial(small.module.apply, train=False))(small.params, x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    # Masks still fit, in the nesting given.
    assert jax.tree.structure(small.masks) == jax.tree.structure(active)
    applied = masks.apply(small.masks, small.params["params"])
    jax.tree.map(np.testing.assert_array_equal, applied, small.params["params"])
    assert small.report.difference < 1e-5


@pytest.mark.parametrize(
    ("widths", "wrong"),
    [({"dense1": 0}, "'dense1': 0"), ({"dense9": 4}, "'dense9': 4")],
)
def test_widths_are_checked(widths: dict, wrong: str) -> None:
    network = models.LeNet300100((6, 5), widths=widths)
    with pytest.raises(ValueError, match=f"widths: expected numbers.*{wrong}"):
        jax.eval_shape(
            functools.partial(network.init, train=False), jax.random.key(0), IMAGES
        )


class Branches(nn.Module):
    """Widths in a tuple, an integer, and multiples of an integer."""

    widths_of: tuple[int, ...]
    inner: int
    heads: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for i, width in enumerate(self.widths_of):
            x = nn.relu(nn.Dense(width, name=f"d{i}")(x))
        y = nn.relu(nn.Conv(self.inner, (1,), name="conv")(x))
        y = nn.Conv(self.inner, (1,), feature_group_count=self.inner, name="each")(y)
        x = nn.Dense(6, name="back")(nn.relu(y))
        attend = nn.MultiHeadDotProductAttention(
            self.heads, qkv_features=2 * self.heads, name="attend"
        )
        return nn.Dense(2, name="head")(x + attend(x))


def test_fields_of_other_modules_are_found() -> None:
    module, x = Branches((5, 4), 6, 3), jnp.zeros((1, 3, 4))
    variables = draw(jax.eval_shape(module.init, jax.random.key(0), x), 3)
    active = masks.ones(variables["params"])
    for layer, kept in (("d1", 3), ("each", 4), ("conv", 5)):
        kernel = active[layer]["kernel"]
        active[layer]["kernel"] = kernel.at[..., kept:].set(False)
    active["d1"]["kernel"] = active["d1"]["kernel"].at[2:].set(False)
    out = active["attend"]["out"]["kernel"]
    active["attend"]["out"]["kernel"] = out.at[0].set(False)
    small = compaction.compact_linen(module, variables, active, x)
    assert small.module.widths_of == (2, 3)
    assert (small.module.inner, small.module.heads) == (4, 2)
    assert small.report.kept == {}


class OwnWidths(nn.Module):
    """Its field `widths` has another meaning than in `models`."""

    widths: Any = (6, 5)

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for width in self.widths or (6, 5):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(2, name="head")(x)


@pytest.mark.parametrize(("given", "found"), [((6, 5), (6, 4)), ([6, 5], (6, 4))])
def test_a_field_called_widths_may_be_a_sequence(given: Any, found: tuple) -> None:
    module, x = OwnWidths(given), jnp.zeros((1, 4))
    variables = draw(jax.eval_shape(module.init, jax.random.key(0), x), 4)
    active = masks.ones(variables["params"])
    active["head"]["kernel"] = active["head"]["kernel"].at[1].set(False)
    small = compaction.compact_linen(module, variables, active, x)
    assert tuple(small.module.widths) == found
    assert small.params["params"]["Dense_1"]["kernel"].shape == (6, 4)


class FixedWidth(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(2, name="head")(nn.relu(nn.Dense(5, name="hidden")(x)))


def test_a_module_without_fields_stays_whole_and_says_so() -> None:
    module, x = FixedWidth(), jnp.zeros((1, 4))
    variables = draw(jax.eval_shape(module.init, jax.random.key(0), x), 4)
    active = masks.ones(variables["params"])
    kernel = active["head"]["kernel"]
    active["head"]["kernel"] = kernel.at[1].set(False)
    small = compaction.compact_linen(module, variables, active, x)
    assert small.report.removed == {}
    assert small.module == module
    reason = small.report.whole["params/hidden/kernel", 1]
    assert reason == (
        "params/head/kernel: expected fields of FixedWidth with which it has the shape "
        "(4, 2), got (5, 2); make this width a field"
    )
