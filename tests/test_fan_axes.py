import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxsparse import fan_axes, masks
from jaxsparse.fan_axes import Fans, parse

LAYOUTS = [
    ("io", (4, 3), Fans(1, (), 4, 3)),
    ("...io", (5, 2, 4, 3), Fans(1, (5, 2), 4, 3)),
    ("ppio", (5, 2, 4, 3), Fans(1, (5, 2), 4, 3)),
    ("oi...", (3, 4, 5, 2), Fans(1, (5, 2), 4, 3)),
    ("ioo", (4, 3, 2), Fans(1, (), 4, 6)),
    ("iio", (3, 2, 4), Fans(1, (), 6, 4)),
    ("sio", (7, 4, 3), Fans(7, (), 4, 3)),
    ("s...io", (7, 5, 4, 3), Fans(7, (5,), 4, 3)),
    ("...io/3", (5, 2, 6), Fans(3, (5,), 2, 2)),
    ("oi.../3", (6, 2, 5), Fans(3, (5,), 2, 2)),
    ("s...io/2", (7, 5, 4, 6), Fans(14, (5,), 4, 3)),
    ("...is", (3, 3, 1, 6), Fans(6, (3, 3), 1, 1)),
    ("o", (6,), Fans(1, (), 1, 6)),
]


def by_hand(layout: str, array: np.ndarray) -> np.ndarray:
    """Places every weight by the meaning of each letter, one by one."""
    letters, _, groups = layout.partition("/")
    front, dots, back = letters.partition("...")
    window = "p" * (array.ndim - len(front) - len(back)) if dots else ""
    letters, groups = front + window + back, int(groups or 1)

    def number(kind: str, index: tuple[int, ...]) -> tuple[int, int]:
        place, size = 0, 1
        for letter, at, length in zip(letters, index, array.shape, strict=True):
            if letter == kind:
                place, size = place * length + at, size * length
        return place, size

    entries = {}
    for index in np.ndindex(array.shape):
        (s, _), (i, _), (o, outputs) = (number(kind, index) for kind in "sio")
        each = outputs // groups
        where = [at for letter, at in zip(letters, index, strict=True) if letter == "p"]
        entries[(s * groups + o // each, *where, i, o % each)] = array[index]
    shape = tuple(1 + max(axis) for axis in zip(*entries, strict=True))
    result = np.zeros(shape)
    for index, value in entries.items():
        result[index] = value
    return result


@pytest.mark.parametrize(("layout", "shape", "wanted"), LAYOUTS)
def test_matrices_are_those_that_the_letters_spell(
    layout: str, shape: tuple[int, ...], wanted: Fans
) -> None:
    axes, array = parse(layout), np.arange(np.prod(shape)).reshape(shape) + 1.0
    assert fan_axes.fans(axes, "a", shape) == wanted
    matrices = fan_axes.to_matrices(axes, "a", jnp.asarray(array))
    np.testing.assert_array_equal(matrices, by_hand(layout, array))
    back = fan_axes.from_matrices(axes, "a", matrices, shape)
    np.testing.assert_array_equal(back, array)


def test_presets_are_their_short_forms() -> None:
    assert parse("...io") == fan_axes.FLAX
    assert parse("oi...") == fan_axes.EQUINOX == fan_axes.TORCH
    assert parse("...is") == fan_axes.DEPTHWISE
    assert parse(fan_axes.DEPTHWISE) is fan_axes.DEPTHWISE


@pytest.mark.parametrize(
    "layout", ["", "io/", "io/0", "io/x", "wio", "i..o", "...i...o", "io/-1", "/2"]
)
def test_a_layout_that_cannot_be_read_is_refused(layout: str) -> None:
    with pytest.raises(ValueError, match="axes: expected a layout such as"):
        parse(layout)


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [
        ("io", (4, 3, 2), r"a/kernel: expected a layout for all axes of shape"),
        ("...io", (4,), r"a/kernel: expected two or more axes"),
        ("iio", (4, 3), r"a/kernel: expected two or more axes"),
        ("oi...", (4,), r"a/kernel: expected two or more axes"),
        ("...io/4", (4, 6), r"a/kernel: expected .* divisible by 4 groups, got 6"),
    ],
)
def test_a_layout_that_does_not_fit_names_the_leaf(
    layout: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fan_axes.fans(parse(layout), "a/kernel", shape)


def test_a_table_that_fits_no_tree_is_refused() -> None:
    tree = {"a": {"kernel": jnp.ones((2, 3))}}
    with pytest.raises(ValueError, match="axes: expected patterns .*got 'b/"):
        fan_axes.of_tree(tree, {"b/*": "io"})
    with pytest.raises(TypeError, match="axes"):
        fan_axes.of_tree(tree, ("io",))
    with pytest.raises(ValueError, match="axes: expected a layout for 'b/kernel'"):
        fan_axes.of_tree(tree)["b/kernel"]
    for wrong, error in ((0, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="groups"):
            fan_axes.FanAxes((0,), (1,), groups=wrong)


class Block(nn.Module):
    """One of each of Flax's layers."""

    @nn.compact
    def __call__(self, x: jax.Array, _: None = None) -> tuple[jax.Array, None]:
        x = nn.MultiHeadDotProductAttention(4, name="attention")(x)
        x = nn.Dense(8, name="dense")(x)
        x = nn.Dense(16, use_bias=False, name="bare")(x)
        x = nn.Conv(16, (3,), feature_group_count=16, name="depthwise")(x)
        x = nn.Conv(16, (3,), feature_group_count=2, name="grouped")(x)
        y = nn.DenseGeneral((2, 5), name="split")(x)
        x = nn.DenseGeneral(6, axis=(-2, -1), name="merge")(y)
        x = nn.ConvLocal(6, (3,), name="local")(x)
        x = nn.ConvTranspose(7, (3,), name="up")(x)
        x = nn.ConvTranspose(16, (3,), transpose_kernel=True, name="turned")(x)
        return x, None


class Network(nn.Module):
    """An embedding, two stacked blocks and one more."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(50, 16, name="embed")(tokens)
        stacked = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )
        x, _ = stacked(name="stacked")(x, None)
        return Block(name="one")(x)[0]


OF_BLOCK = {
    "attention/query": Fans(1, (), 16, 16),
    "attention/key": Fans(1, (), 16, 16),
    "attention/value": Fans(1, (), 16, 16),
    "attention/out": Fans(1, (), 16, 16),
    "dense": Fans(1, (), 16, 8),
    "bare": Fans(1, (), 8, 16),
    "depthwise": Fans(16, (3,), 1, 1),
    "grouped": Fans(2, (3,), 8, 8),
    "split": Fans(1, (), 16, 10),
    "merge": Fans(1, (), 10, 6),
    "local": Fans(9, (), 18, 6),
    "up": Fans(1, (3,), 6, 7),
    "turned": Fans(1, (3,), 7, 16),
}
# What neither names nor shapes tell.
UNTOLD = {"bare", "depthwise", "grouped", "merge", "turned"}


def test_layers_of_linen_are_inferred_or_asked() -> None:
    model, tokens = Network(), jax.ShapeDtypeStruct((1, 9), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    shapes = dict(
        zip(masks.names(params), map(np.shape, jax.tree.leaves(params)), strict=True)
    )
    asked = fan_axes.of_linen(
        lambda weights, x: model.apply({"params": weights}, x), params, tokens
    )
    inferred = fan_axes.of_tree(params)
    hash(asked)
    for layer, fans in OF_BLOCK.items():
        for name, many in ((f"one/{layer}/kernel", 1), (f"stacked/{layer}/kernel", 2)):
            wanted = fans._replace(stack=fans.stack * many)
            assert fan_axes.fans(asked[name], name, shapes[name]) == wanted
            if layer not in UNTOLD:
                found = fan_axes.fans(inferred[name], name, shapes[name])
                assert found == wanted, name
    embed = "embed/embedding"
    for table in (asked, inferred):
        assert fan_axes.fans(table[embed], embed, (50, 16)) == Fans(1, (), 50, 16)
    told = fan_axes.of_tree(
        params, {"*/depthwise/kernel": "...is", "one/*": "...io", "*": inferred[embed]}
    )
    assert told["stacked/depthwise/kernel"] == fan_axes.DEPTHWISE
    assert told["one/attention/query/kernel"] == fan_axes.FLAX
    assert fan_axes.of_tree(params, told) is told


def test_attention_of_nnx_and_masks_without_biases() -> None:
    net = nnx.MultiHeadAttention(4, 8, 12, decode=False, rngs=nnx.Rngs(0))
    state = {"block": nnx.state(net, nnx.Param)}
    for tree in (state, masks.ones(state)):
        table = fan_axes.of_tree(tree)
        for name in ("query", "key", "value"):
            name = f"block/{name}/kernel"
            assert fan_axes.fans(table[name], name, (8, 4, 3)) == Fans(1, (), 8, 12)
        name = "block/out/kernel"
        assert fan_axes.fans(table[name], name, (4, 3, 8)) == Fans(1, (), 12, 8)


def test_convolutions_called_query_are_convolutions() -> None:
    tree = {
        name: {"kernel": jnp.ones((3, 8, 8)), "bias": jnp.ones(8)}
        for name in ("query", "key", "value", "out")
    }
    assert {axes for name, axes in fan_axes.of_tree(tree).leaves} == {fan_axes.FLAX}
    bare = {name: {"kernel": layer["kernel"]} for name, layer in tree.items()}
    assert {axes for name, axes in fan_axes.of_tree(bare).leaves} == {fan_axes.FLAX}


def test_weights_of_equinox_are_outputs_by_inputs() -> None:
    first, second = jax.random.split(jax.random.key(0))
    net = [eqx.nn.Linear(4, 3, key=first), eqx.nn.Conv2d(2, 5, 3, key=second)]
    table = fan_axes.of_tree(eqx.filter(net, eqx.is_array))
    assert fan_axes.fans(table["0/weight"], "0/weight", (3, 4)) == Fans(1, (), 4, 3)
    shape = (5, 2, 3, 3)
    assert fan_axes.fans(table["1/weight"], "1", shape) == Fans(1, (3, 3), 2, 5)
    # In a dictionary the name alone does not say so.
    plain = fan_axes.of_tree({"weight": jnp.ones((3, 4))})
    assert plain["weight"] == fan_axes.FLAX
