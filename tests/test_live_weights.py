import functools
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxsparse import connectivity, masks, models
from jaxsparse.types import Masks, Params

wild = hypothesis.settings(deadline=None, max_examples=25)
QUESTIONS = {
    "live": connectivity.live,
    "reached": connectivity.reached,
    "used": connectivity.used,
}


def random_masks(params: Any, density: float, seed: int) -> Masks:
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.random(leaf.shape) < density), masks.ones(params)
    )


def ask(apply: Any, params: Any, x: Any) -> Any:
    """Compiles all three questions, to be asked of masks."""
    return jax.jit(
        lambda mask: {n: f(apply, params, mask, x) for n, f in QUESTIONS.items()}
    )


def check(result: Masks, wanted: dict[str, np.ndarray]) -> None:
    leaves = dict(zip(masks.names(result), jax.tree.leaves(result), strict=True))
    assert set(leaves) == set(wanted)
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(leaves[name], leaf, err_msg=name)


def chained(params: Params, x: Any) -> Any:
    for name in sorted(params):
        x = nn.relu(x @ params[name]["kernel"])
    return x


def search(kernels: list[np.ndarray], question: str) -> list[np.ndarray]:
    """Follows each path of a chain of layers, neuron by neuron."""
    before = [{i for i in range(len(kernels[0]))}]
    for kernel in kernels:
        rows, columns = np.nonzero(kernel)
        before.append(
            {c for r, c in zip(rows, columns, strict=True) if r in before[-1]}
        )
    after = [{i for i in range(kernels[-1].shape[1])}]
    for kernel in kernels[::-1]:
        rows, columns = np.nonzero(kernel)
        after.insert(
            0, {r for r, c in zip(rows, columns, strict=True) if c in after[0]}
        )
    found = []
    for i, kernel in enumerate(kernels):
        result = np.zeros(kernel.shape, bool)
        for r, c in zip(*np.nonzero(kernel), strict=True):
            comes, goes = r in before[i], c in after[i + 1]
            result[r, c] = {
                "live": comes and goes,
                "reached": comes,
                "used": goes,
            }[question]
        found.append(result)
    return found


WIDTHS = ((2, 3, 3, 1), (4, 2, 2, 2, 3))


def layers(widths: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return {f"{i:02}": pair for i, pair in enumerate(pairs)}


@functools.cache
def ask_chain(widths: tuple[int, ...]) -> Any:
    params = {n: {"kernel": jnp.ones(s)} for n, s in layers(widths).items()}
    return ask(chained, params, jnp.ones((1, widths[0])))


@wild
@hypothesis.given(widths=st.sampled_from(WIDTHS), data=st.data())
def test_chains_equal_a_search(widths: tuple[int, ...], data: st.DataObject) -> None:
    drawn = {n: data.draw(hnp.arrays(bool, s)) for n, s in layers(widths).items()}
    mask = {name: {"kernel": jnp.asarray(kernel)} for name, kernel in drawn.items()}
    for question, result in ask_chain(widths)(mask).items():
        wanted = search(list(drawn.values()), question)
        names = [f"{name}/kernel" for name in drawn]
        check(result, dict(zip(names, wanted, strict=True)))


def depends(apply: Any, params: Params, mask: Masks, x: Any) -> dict[str, np.ndarray]:
    """Moves each kept weight, and looks whether any output moves for all inputs.

    With positive weights and inputs, and monotone layers, nothing cancels, so that a
    weight matters exactly if it is on a path.
    """
    thin = masks.apply(mask, params)
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, thin))
    run = jax.jit(apply)
    first = np.asarray(run(thin, x))
    wanted = {}
    kept = dict(zip(masks.names(mask), jax.tree.leaves(mask), strict=True))
    for i, name in enumerate(masks.names(params)):
        if name not in kept:
            continue
        found = np.zeros(leaves[i].shape, bool)
        for place in zip(*np.nonzero(np.asarray(kept[name])), strict=True):
            leaf = leaves[i].copy()
            leaf[place] *= 1.5
            moved = [*leaves[:i], leaf, *leaves[i + 1 :]]
            again = np.asarray(run(jax.tree.unflatten(treedef, moved), x))
            found[place] = np.any(again != first)
        wanted[name] = found
    return wanted


class Strided(nn.Module):
    """Convolutions with strides, padding, dilation and groups, and both poolings."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, use_bias=False)(x))
        x = nn.Conv(4, (3, 3), feature_group_count=2, use_bias=False)(x)
        x = nn.avg_pool(x, (2, 2), (1, 1), "SAME")
        x = nn.Conv(3, (2, 2), kernel_dilation=2, padding="VALID", use_bias=False)(x)
        x = x.mean(axis=1)
        return nn.Dense(2, use_bias=False)(x.reshape(x.shape[0], -1))


class Residual(nn.Module):
    """A sum over a block, a projection, a concatenation and a kernel used twice."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        shared = nn.Dense(3, use_bias=False, name="shared")
        x = shared(nn.relu(shared(x)))
        block = nn.Dense(3, use_bias=False)(nn.relu(nn.Dense(2, use_bias=False)(x)))
        x = x + block
        side = nn.Dense(2, use_bias=False, name="side")(x[:, :1])
        return nn.Dense(2, use_bias=False)(jnp.concatenate([x, side], axis=1))


NETWORKS = {
    "strided": (Strided(), (1, 7, 7, 2)),
    "residual": (Residual(), (1, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_what_moves_the_output(name: str) -> None:
    model, shape = NETWORKS[name]
    x = jax.random.uniform(jax.random.key(1), shape, minval=1.0, maxval=2.0)
    params = jax.tree.map(jnp.abs, jax.jit(model.init)(jax.random.key(0), x))
    find = ask(model.apply, params, x)
    for density, seed in ((0.25, 0), (0.25, 1), (0.5, 0)):
        mask = random_masks(params, density, seed)
        check(find(mask)["live"], depends(model.apply, params, mask, x))


@jax.custom_vjp
def straight(x: Any) -> Any:
    return jnp.round(x)


straight.defvjp(lambda x: (straight(x), None), lambda _, cotangent: (cotangent,))


class Everything(nn.Module):
    """What networks are made of: normalization, activations, pooling, attention."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(nn.gelu(x, approximate=False), (2, 2), (2, 2))
        x = nn.leaky_relu(nn.silu(straight(x))) + nn.elu(jax.checkpoint(jnp.sin)(x))
        x = nn.GroupNorm(2)(nn.softplus(x)) * nn.sigmoid(x)
        x = nn.LayerNorm()(nn.hard_swish(jnp.flip(x, 1)))
        x = nn.DenseGeneral((2, 4))(
            nn.Dropout(0.5, deterministic=True)(x.reshape(1, -1))
        )
        x = nn.MultiHeadDotProductAttention(2)(x, mask=nn.make_causal_mask(x[..., 0]))
        return nn.log_softmax(nn.Dense(3)(jnp.cumsum(x.mean(1), axis=-1)))


def test_dense_networks_of_every_kind_are_live() -> None:
    model = Everything()
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones(x.shape, x.dtype))
    )
    mask = masks.ones(params)
    for result in ask(model.apply, params, x)(mask).values():
        jax.tree.map(np.testing.assert_array_equal, result, mask)


def test_gates_and_known_zeros() -> None:
    params = {name: {"w": jnp.ones((2, 2))} for name in "abc"}

    def gated(params: Params, x: Any) -> Any:
        first = jax.lax.scan(lambda c, s: (c + s, None), -2.0, jnp.arange(3.0))[0]
        keep = jnp.stack([first, jnp.abs(first) - 1.0])[None]  # 1 and 0
        gate = nn.sigmoid(x @ params["a"]["w"])
        chosen = jnp.where(jnp.array([True, False])[None], x @ params["b"]["w"], 0.0)
        return (gate * chosen) * keep @ params["c"]["w"]

    mask = masks.ones(params)
    find = ask(gated, params, jnp.ones((1, 2)))
    result = find(mask)["live"]
    column = np.array([[True, False], [True, False]])
    check(result, {"a/w": column, "b/w": column, "c/w": column.T})
    shut = mask | {"b": {"w": jnp.zeros((2, 2), bool)}}
    result = find(shut)["live"]
    assert bool(result["a"]["w"][:, 0].all())  # the other may be moved by a bias
    check(
        find(mask)["used"], {"a/w": column, "b/w": column, "c/w": np.ones((2, 2), bool)}
    )


def test_weights_are_followed_through_what_happens_to_them() -> None:
    kernel = np.array([[True, False], [False, True], [True, True]])
    params = {"a": {"w": jnp.ones((3, 2))}, "b": {"w": jnp.ones((2, 4))}}
    mask = {"a": {"w": jnp.asarray(kernel)}, "b": {"w": jnp.ones((2, 4), bool)}}
    mask["b"]["w"] = mask["b"]["w"].at[1].set(False)

    def product(params: Params, x: Any) -> Any:
        low = params["a"]["w"].astype(jnp.bfloat16) / 2
        both = (-low).astype(jnp.float32) @ params["b"]["w"].T.T
        own = jnp.where(jnp.array([[True], [False], [True]]), both, 0.0)
        return x @ own.reshape(3, 4)

    x = jnp.ones((2, 3))
    result = jax.jit(lambda mask: connectivity.live(product, params, mask, x))(mask)
    wanted = np.array([[True, False], [False, False], [True, False]])
    check(result, {"a/w": wanted, "b/w": np.asarray(mask["b"]["w"])})
    assert connectivity.first_to_last(product, params, mask, jnp.ones((2, 3))) == [
        "a/w",
        "b/w",
    ]


def test_a_branch_without_end_is_reached_and_one_without_start_used() -> None:
    params = {name: {"w": jnp.ones((2, 2))} for name in "abc"}

    def branches(params: Params, x: Any) -> Any:
        nn.relu(x @ params["a"]["w"])  # thrown away
        placed = params["b"]["w"][0][None] * 2.0
        return x @ params["c"]["w"] + placed

    mask = masks.ones(params)
    kept = {
        name: [layer.num_active for layer in masks.layer_counts(result).values()]
        for name, result in ask(branches, params, jnp.ones((1, 2)))(mask).items()
    }
    assert kept["live"] == [0, 0, 4]
    assert kept["used"] == [0, 2, 4]
    assert kept["reached"][1:] == [0, 4]


def test_thirty_layers_neither_overflow_nor_vanish() -> None:
    """Of 30**30 paths, which are no float32."""
    find = ask_chain((30,) * 31)
    full = {n: {"kernel": np.ones(s, bool)} for n, s in layers((30,) * 31).items()}
    assert {masks.num_active(result) for result in find(full).values()} == {30 * 900}
    thin = {name: {"kernel": np.eye(30, dtype=bool)} for name in full}
    thin["20"] = {"kernel": np.eye(30, dtype=bool)}
    thin["20"]["kernel"][3, 3] = False
    result = find(thin)
    kept = {name: masks.num_active(mask) for name, mask in result.items()}
    assert kept == {"live": 30 * 29, "reached": 900 - 10, "used": 900 - 21}
    live = connectivity.effective_sparsity(
        jax.tree.map(jnp.asarray, thin), result["live"]
    )
    assert live == 1 - 29 / 900


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.CifarResNet(depth=8, width=4), (2, 8, 8, 3)),
        (models.LeNet5(conv_channels=(4, 6), features=(12, 8)), (2, 16, 16, 1)),
    ],
    ids=["resnet", "lenet"],
)
def test_removal_leaves_the_outputs_alone(model: nn.Module, shape: tuple) -> None:
    x = jax.random.normal(jax.random.key(1), shape)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), x)
    params = variables["params"]
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def apply(params: Params, x: Any) -> Any:
        return model.apply({"params": params, **rest}, x, train=False)

    run = jax.jit(lambda mask, params: apply(masks.apply(mask, params), x))
    one = jax.ShapeDtypeStruct((1, *shape[1:]), jnp.float32)
    find = ask(apply, params, one)
    biased = jax.tree.map(
        lambda leaf: np.asarray(leaf) + np.float32(0.1) if leaf.ndim == 1 else leaf,
        params,
    )
    removed = 0
    for seed, density in enumerate((0.05, 0.1, 0.3)):
        mask = random_masks(params, density, seed)
        live, reached, used = find(mask).values()
        assert bool(masks.is_nested(live, reached) & masks.is_nested(live, used))
        np.testing.assert_array_equal(run(mask, params), run(live, params))
        np.testing.assert_array_equal(run(mask, params), run(used, params))
        np.testing.assert_array_equal(run(mask, biased), run(used, biased))
        removed += masks.num_active(mask) - masks.num_active(live)
    assert removed > 0
    order = connectivity.first_to_last(apply, params, masks.ones(params), one)
    assert order[-1] == "head/kernel" and order[0].startswith("conv")
    assert sorted(order) == masks.names(masks.ones(params))


def test_nnx_in_its_functional_form() -> None:
    class Net(nnx.Module):
        def __init__(self, *, rngs: nnx.Rngs) -> None:
            self.last = nnx.Linear(4, 2, rngs=rngs)
            self.early = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(nnx.relu(self.early(x)))

    definition, params = nnx.split(Net(rngs=nnx.Rngs(0)))
    mask = masks.ones(params)
    mask["early"]["kernel"][...] = jnp.zeros((3, 4), bool).at[0, 1].set(True)

    def apply(params: Any, x: Any) -> Any:
        return nnx.merge(definition, params)(x)

    x = jnp.ones((1, 3))
    result = jax.jit(lambda mask: connectivity.live(apply, params, mask, x))(mask)
    counts = connectivity.by_layer(mask, result)
    assert counts["early/kernel"] == connectivity.LayerPaths(1, 1, 12)
    assert counts["last/kernel"] == connectivity.LayerPaths(2, 8, 8)
    order = connectivity.first_to_last(apply, params, mask, jnp.ones((1, 3)))
    assert order == ["early/kernel", "last/kernel"]


def test_stacked_tiled_and_unpacked_values_keep_their_paths() -> None:
    def apply(params: Params, x: Any) -> Any:
        first, second = params["pair"]
        y = jnp.stack([x @ first, jnp.tile(x, (1, 2))[:, 1:3] @ second], 1)
        return y[:, 0] @ params["out"]

    ones = {"pair": jnp.ones((2, 2, 3), bool), "out": jnp.ones((3, 1), bool)}
    ones["out"] = ones["out"].at[1].set(False)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), ones)
    live = connectivity.live(apply, params, ones, jnp.ones((1, 2)))
    wanted = np.zeros((2, 2, 3), bool)
    wanted[0, :, [0, 2]] = True  # the second of the pair is not read
    check(live, {"pair": wanted, "out": np.array([[True], [False], [True]])})


def test_vmap_over_replicates_equals_a_loop() -> None:
    params = {n: {"kernel": jnp.ones(s)} for n, s in layers(WIDTHS[0]).items()}
    each = [random_masks(params, 0.5, seed) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    find = ask_chain(WIDTHS[0])
    together = jax.jit(jax.vmap(find))(stacked)
    for i, mask in enumerate(each):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a[i], b),
            together,
            find(mask),
        )


def test_rows_that_an_input_selects_are_a_layer() -> None:
    """Any row may be selected: paths arrive at the columns with an active weight."""
    params = {
        "embed": {"embedding": jnp.ones((4, 3))},
        "head": {"kernel": jnp.ones((3, 2))},
    }

    def apply(params: Params, tokens: Any) -> Any:
        return (
            jnp.take(params["embed"]["embedding"], tokens, axis=0)
            @ (params["head"]["kernel"])
        )

    tokens, ticket = jnp.zeros((1, 2), jnp.int32), masks.ones(params)
    assert connectivity.first_to_last(apply, params, ticket, tokens) == [
        "embed/embedding",
        "head/kernel",
    ]
    table, head = np.ones((4, 3), bool), np.ones((3, 2), bool)
    table[:, 0], table[:3, 1], head[2] = False, False, False
    ticket = {"embed": {"embedding": table}, "head": {"kernel": head}}
    ticket = jax.tree.map(jnp.asarray, ticket)
    live = connectivity.live(apply, params, ticket, tokens)
    wanted = table & np.array([False, True, False])
    np.testing.assert_array_equal(live["embed"]["embedding"], wanted)
    wanted = head & np.array([False, True, False])[:, None]
    np.testing.assert_array_equal(live["head"]["kernel"], wanted)


SQUARE = {"w": {"kernel": jnp.ones((3, 3))}}


def scanned(params: Params, x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (c @ params["w"]["kernel"], None), x, length=2)[0]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda p, x: jnp.sort(x @ p["w"]["kernel"]), "got the primitive 'sort'"),
        (scanned, "got the primitive 'scan'"),
        (
            lambda p, x: x @ jnp.exp(p["w"]["kernel"]),
            "got 'exp' of the weights of w/kernel",
        ),
        (
            lambda p, x: x @ (p["w"]["kernel"] + 1),
            "got 'add' of the weights of w/kernel",
        ),
        (lambda p, x: x @ jnp.max(p["w"]["kernel"], 0), "got 'reduce_max'"),
        (
            lambda p, x: p["w"]["kernel"].at[0, x[0].astype(int)].get(mode="clip"),
            "rows of a matrix where an input selects .*got other parts of an array",
        ),
        (
            lambda p, x: jax.lax.dynamic_slice(
                p["w"]["kernel"], (x[0, 0].astype(int), 0), (1, 3)
            ),
            "constant indices for 'dynamic_slice', .*got other indices",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(apply: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"apply: .*{message}"):
        connectivity.live(apply, SQUARE, masks.ones(SQUARE), jnp.ones((1, 3)))


def test_masks_of_another_network_are_refused() -> None:
    other = masks.ones({"w": {"kernel": jnp.ones((3, 4))}})
    with pytest.raises(
        ValueError, match=r"w/kernel: expected shape \(3, 3\).*got \(3, 4\)"
    ):
        connectivity.live(chained, SQUARE, other, jnp.ones((1, 3)))
    dense = masks.ones(SQUARE)
    fewer = {"w": {"kernel": dense["w"]["kernel"].at[0, 0].set(False)}}
    for question in (connectivity.by_layer, connectivity.effective_sparsity):
        with pytest.raises(ValueError, match="live: expected a subset of masks"):
            question(fewer, dense)
