"""Smaller modules: of linen, of nnx, and all networks of `models`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

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


# Variants of others; their layers are those of ResNet, MobileNetV2 and ConvNet.
SLOW = ("identity", "bottleneck", "MobileNetV1", "WideResNet", "VGG")


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
    assert after < before
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
    assert reason.startswith("the fields of FixedWidth do not give")


class Layers(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.each = nnx.Conv(6, 6, (1, 1), feature_group_count=6, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(
            3, 6, decode=False, deterministic=True, rngs=rngs
        )
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.hidden, self.head = (
            nnx.Linear(6, 5, rngs=rngs),
            nnx.Linear(5, 2, rngs=rngs),
        )

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.each(nnx.relu(self.norm(self.conv(x)))))
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = nnx.tanh(self.hidden(self.drop(x + 0 * x)))
        return self.head(x).mean(1)


def test_nnx_modules_get_smaller() -> None:
    module = Layers(nnx.Rngs(0))
    module.eval()
    active = masks.ones(nnx.state(module, nnx.Param))
    named = masks.names(active)

    def cut(name: str, place: Any) -> None:
        leaves, treedef = jax.tree.flatten(active)
        leaf = np.array(leaves[named.index(name)])
        leaf[place] = False
        leaves[named.index(name)] = jnp.asarray(leaf)
        return jax.tree.unflatten(treedef, leaves)

    active = cut("head/kernel", np.s_[1])
    active = cut("each/kernel", np.s_[..., 2])
    active = cut("hidden/kernel", np.s_[4])
    x = jnp.asarray(np.random.default_rng(5).normal(size=(1, 3, 3, 2)), jnp.float32)
    small = compaction.compact_nnx(module, active, x)
    assert small.module.hidden.kernel.shape == (4, 4)
    assert (small.module.hidden.in_features, small.module.hidden.out_features) == (4, 4)
    assert small.module.each.feature_group_count == 4
    assert small.module.norm.mean.shape == (4,)
    thin = nnx.clone(module)
    nnx.update(thin, masks.apply(active, nnx.state(module, nnx.Param)))
    np.testing.assert_allclose(small.module(x), thin(x), atol=1e-6)
    assert jax.tree.structure(nnx.state(module)) == jax.tree.structure(small.params)


class Linear(nnx.Module):
    """Has the name of a layer of flax, but its attributes mean something else."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(rngs.params.normal((6, 5)))
        self.in_features, self.out_features = "left", "right"

    def __call__(self, x: Any) -> Any:
        return nnx.relu(x @ self.kernel[...])


class Doubled(nnx.Linear):
    """A class derived from a layer of flax."""

    def __call__(self, x: Any) -> Any:
        return 2 * super().__call__(x)


class MoreLayers(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.table = nnx.Embed(4, 6, rngs=rngs)
        self.own = Linear(rngs)
        self.doubled = Doubled(5, 4, rngs=rngs)
        self.general = nnx.LinearGeneral((4,), (3, 2), rngs=rngs)
        self.back = nnx.LinearGeneral((3, 2), (6,), axis=(-2, -1), rngs=rngs)
        self.norm = nnx.GroupNorm(6, num_groups=3, rngs=rngs)
        self.einsum = nnx.Einsum("bti,io->bto", (6, 5), (5,), rngs=rngs)
        self.upsample = nnx.ConvTranspose(5, 4, (2,), strides=2, rngs=rngs)
        self.low_rank = nnx.LoRA(4, 2, 6, rngs=rngs)
        self.cell = nnx.SimpleCell(6, 5, rngs=rngs)
        self.head = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.doubled(self.own(self.table(tokens)))
        x = self.norm(self.back(nnx.relu(self.general(nnx.relu(x)))))
        x = nnx.relu(self.upsample(nnx.relu(self.einsum(x))))
        x = nnx.relu(self.low_rank(x))
        carry = jnp.zeros((len(tokens), self.cell.hidden_features))
        carry, _ = self.cell(carry, x[:, 0])
        return self.head(self.cell(carry, x[:, 1])[1])


# What is read of a layer, by the end of its name: the units that are not read, as the
# index along an axis.
UNREAD = {
    "own/kernel": np.s_[2],  # of the table
    "doubled/kernel": np.s_[1],  # of the user's own layer
    "general/kernel": np.s_[3],  # of the derived class
    "back/kernel": np.s_[1],  # of the general layer: a head of size 2
    "einsum/kernel": np.s_[4:6],  # of the third group of GroupNorm
    "upsample/kernel": np.s_[:, 4],
    "low_rank/lora_a": np.s_[0],
    "cell/dense_i/kernel": np.s_[5],
}


def test_more_layers_of_nnx_get_smaller() -> None:
    module = MoreLayers(nnx.Rngs(0))
    rng = np.random.default_rng(6)  # LoRA begins with zeros
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32),
        nnx.state(module, nnx.Param),
    )
    nnx.update(module, state)
    active = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), state)
    leaves, treedef = jax.tree.flatten(active)
    names = masks.names(active)
    for name, place in UNREAD.items():
        (k,) = (k for k, found in enumerate(names) if name in found)
        leaf = np.array(leaves[k])
        leaf[place] = False
        leaves[k] = jnp.asarray(leaf)
    active = jax.tree.unflatten(treedef, leaves)
    tokens = jnp.array([[0, 1, 3]])
    found = compaction.compact_nnx(module, active, tokens)
    small = found.module
    assert (small.table.num_embeddings, small.table.features) == (4, 5)
    assert (small.own.in_features, small.own.out_features) == ("left", "right")
    assert (small.doubled.in_features, small.doubled.out_features) == (4, 3)
    assert (small.general.in_features, small.general.out_features) == ((3,), (2, 2))
    assert (small.back.in_features, small.back.out_features) == ((2, 2), (4,))
    assert (small.norm.num_features, small.norm.num_groups) == (4, 2)
    assert (small.einsum.kernel_shape, small.einsum.bias_shape) == ((4, 4), (4,))
    assert (small.upsample.in_features, small.upsample.out_features) == (4, 3)
    assert (small.low_rank.in_features, small.low_rank.out_features) == (3, 5)
    assert (small.cell.in_features, small.cell.hidden_features) == (5, 5)
    assert found.report.difference < 1e-4  # of outputs of both networks
