"""Smaller modules of nnx: arrays, the attributes that repeat their widths, outputs."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsparse import compaction, masks
from jaxsparse.rng import is_key
from jaxsparse.types import Masks


def draw(module: nnx.Module) -> None:
    """Draws parameters, of which those of LoRA and biases begin with zeros."""
    rng = np.random.default_rng(6)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32),
        nnx.state(module, nnx.Param),
    )
    nnx.update(module, state)


def without(module: nnx.Module, places: Sequence[tuple[str, Any]]) -> Masks:
    """Masks parts of leaves, which are given by a part of their names."""
    state = nnx.state(module, nnx.Param)
    active = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), state)
    leaves, treedef = jax.tree.flatten(active)
    names = masks.names(active)
    for name, place in places:
        (k,) = (k for k, found in enumerate(names) if name in found)
        leaf = np.array(leaves[k])
        leaf[place] = False
        leaves[k] = jnp.asarray(leaf)
    return jax.tree.unflatten(treedef, leaves)


def compact(module: nnx.Module, active: Masks, x: Any) -> Any:
    """Compacts a module; asserts that the smaller one has the same outputs."""
    small = compaction.compact_nnx(module, active, x)
    thin = nnx.clone(module)
    nnx.update(thin, masks.apply(active, nnx.state(module, nnx.Param)))
    np.testing.assert_allclose(small.module(x), thin(x), atol=1e-5, rtol=1e-5)
    assert jax.tree.structure(nnx.state(module)) == jax.tree.structure(small.params)
    return small.module


class Layers(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.each = nnx.Conv(6, 6, (1, 1), feature_group_count=6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.hidden = nnx.Linear(6, 5, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(
            3, 5, 6, 4, in_kv_features=6, decode=False, rngs=rngs
        )
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.each(nnx.relu(self.norm(self.conv(x)))))
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        y = nnx.tanh(self.hidden(self.drop(x)))
        return self.head(nnx.tanh(self.attend(y, x))).mean(1)


def test_nnx_modules_get_smaller() -> None:
    module = Layers(nnx.Rngs(0))
    module.eval()
    draw(module)
    read = [(f"{name}/kernel", np.s_[4]) for name in ("hidden", "key", "value")]
    places = [
        *read,  # by nobody: channel 4
        ("each/kernel", np.s_[..., 2]),  # nothing reaches channel 2
        ("query/kernel", np.s_[1]),  # hidden unit 1 is unread
        ("out/kernel", np.s_[1]),  # head 1 is unread
        ("head/kernel", np.s_[3]),
    ]
    x = jnp.asarray(np.random.default_rng(5).normal(size=(1, 3, 3, 2)), jnp.float32)
    small = compact(module, without(module, places), x)
    assert small.conv.kernel.shape == (3, 3, 2, 4)
    assert small.norm.mean.shape == (4,)
    assert small.each.feature_group_count == 4
    assert small.hidden.kernel.shape == (4, 4)
    assert (small.hidden.in_features, small.hidden.out_features) == (4, 4)
    attend = small.attend
    assert (attend.num_heads, attend.num_kv_heads, attend.head_dim) == (2, 2, 2)
    assert (attend.in_features, attend.in_kv_features) == (4, 4)
    assert (attend.qkv_features, attend.out_features) == (4, 3)
    assert attend.query.kernel.shape == attend.key.kernel.shape == (4, 2, 2)
    assert (attend.out.in_features, attend.out.out_features) == ((2, 2), (3,))


class Cells(nnx.Module):
    """Recurrent cells behind normalizations over positions."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(3, 6, rngs=rngs)
        self.layer_norm = nnx.LayerNorm(6, reduction_axes=1, rngs=rngs)
        self.rms_norm = nnx.RMSNorm(6, reduction_axes=1, rngs=rngs)
        self.gru = nnx.GRUCell(6, 5, rngs=rngs)
        self.fast = nnx.OptimizedLSTMCell(5, 4, rngs=rngs)
        self.lstm = nnx.LSTMCell(4, 3, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.rms_norm(self.layer_norm(nnx.tanh(self.first(x))))
        cells = self.gru, self.fast, self.lstm
        starts = [jnp.zeros((len(x), cell.hidden_features)) for cell in cells]
        states = [starts[0], (starts[1],) * 2, (starts[2],) * 2]
        for position in range(x.shape[1]):
            y = x[:, position]
            for i, cell in enumerate(cells):
                states[i], y = cell(states[i], y)
        return self.head(y)


def test_recurrent_cells_of_nnx_get_smaller() -> None:
    module = Cells(nnx.Rngs(0))
    draw(module)
    lstm = [(f"lstm/{gate}/kernel", np.s_[3]) for gate in ("ii", "if_", "ig", "io")]
    lstm += [(f"lstm/{gate}/kernel", np.s_[0]) for gate in ("hi", "hf", "hg", "ho")]
    unread = [
        ("gru/dense_i/kernel", np.s_[2]),  # unit 2 of the first layer
        ("gru/dense_h/kernel", np.s_[1]),
        ("fast/dense_i/kernel", np.s_[1]),
        ("fast/dense_h/kernel", np.s_[3]),
        *lstm,
        ("head/kernel", np.s_[0]),
    ]
    x = jnp.asarray(np.random.default_rng(7).normal(size=(2, 2, 3)), jnp.float32)
    small = compact(module, without(module, unread), x)
    assert (small.first.out_features, small.head.in_features) == (5, 2)
    assert (small.layer_norm.num_features, small.rms_norm.num_features) == (5, 5)
    assert (small.gru.in_features, small.gru.hidden_features) == (5, 4)
    assert (small.fast.in_features, small.fast.hidden_features) == (4, 3)
    assert (small.lstm.in_features, small.lstm.hidden_features) == (3, 2)
    assert small.gru.dense_h.kernel.shape == (4, 12)
    assert small.fast.dense_i.kernel.shape == (4, 12)
    assert small.lstm.hi.kernel.shape == (2, 2)


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
    draw(module)
    tokens = jnp.array([[0, 1, 3]])
    small = compact(module, without(module, list(UNREAD.items())), tokens)
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


class Dropping(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(5, 7, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(7, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.last(self.drop(nnx.gelu(self.first(x))))


def test_keys_and_counts_in_a_state_stay_as_they_are() -> None:
    """Unit 2 emits gelu(0.9), which the last bias takes up, and unit 4 is unread."""
    module = Dropping(nnx.Rngs(0))
    module.eval()
    draw(module)
    module.first.bias[...] = module.first.bias[...].at[2].set(0.9)
    graph, state = nnx.split(module)
    active = without(module, [("first/kernel", np.s_[:, 2]), ("last/kernel", np.s_[4])])
    x = jnp.zeros((1, 5))
    small = compaction.compact(
        lambda state, x: nnx.merge(graph, state)(x), state, active, x
    )
    leaves = [jax.tree.leaves(tree) for tree in (state, small.params)]
    others = [
        (old, new)
        for old, new in zip(*leaves, strict=True)
        if not jnp.issubdtype(old.dtype, jnp.floating)
    ]
    assert any(is_key(old) for old, _ in others)
    assert all(old is new for old, new in others)
    smaller = nnx.merge(graph, small.params)
    left = np.array([0, 1, 3, 5, 6])
    np.testing.assert_array_equal(
        smaller.first.kernel[...], module.first.kernel[...][:, left]
    )
    kernel = module.last.kernel[...]
    np.testing.assert_array_equal(smaller.last.kernel[...], kernel[left])
    emitted = 0.45 * (1 + math.tanh((2 / math.pi) ** 0.5 * (0.9 + 0.044715 * 0.9**3)))
    np.testing.assert_allclose(
        smaller.last.bias[...], module.last.bias[...] + emitted * kernel[2], rtol=1e-5
    )
