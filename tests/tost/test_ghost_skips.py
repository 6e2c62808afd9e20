"""Ghost skips: what they compute, and that nothing is left of them in the end."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import small_models
from helpers.campaigns import case

from jaxsparse import masks, tree
from jaxsparse.tost import annealing, ghost_skips

NETWORKS = [name for name in small_models.SKIPPING if not name.endswith("identity")]


def ghosts(left: object, *, train: bool = False, kind: str = "convolution") -> object:
    return ghost_skips.make(left, train=train, kind=kind)


def haunted(model: nn.Module, image: tuple, **options: object) -> dict:
    """Variables with ghosts, the others being those of the plain network."""
    state = small_models.variables(model.clone(skip=ghosts(1.0, **options)), image)
    plain = small_models.variables(model, image)

    def put(tree: dict, other: dict) -> dict:
        return {
            name: tree[name]
            if name not in other
            else put(tree[name], other[name])
            if isinstance(tree[name], dict)
            else other[name]
            for name in tree
        }

    return {part: put(state[part], plain.get(part, {})) for part in state}


# Models place skips of all kinds alike, so that identities are tried in two.
CASES = [
    case(name, kind, always=kind == "convolution" or name in ("resnet_8", "lenet_5"))
    for kind in ghost_skips.KINDS
    for name in NETWORKS
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_at_the_end_of_a_fade_networks_are_those_without(name: str, kind: str) -> None:
    model, image = small_models.SMALL[name]
    state, x = haunted(model, image, kind=kind), small_models.images(image)

    @jax.jit  # one program for all strengths
    def logits(state: dict, left: jax.Array) -> jax.Array:
        return model.clone(skip=ghosts(left, kind=kind)).apply(state, x, train=False)

    faded = logits(state, annealing.anneal(10, end=10))
    plain = {part: ghost_skips.strip_ghosts(tree) for part, tree in state.items()}
    wanted = jax.jit(lambda state: model.apply(state, x, train=False))(plain)
    np.testing.assert_array_equal(faded, wanted)
    # Ghosts are told by name: nothing else was taken away, and nothing is left.
    shapes = small_models.shapes(model, image)
    for part, leaves in shapes.items():
        assert jax.tree.map(jnp.shape, plain[part]) == jax.tree.map(jnp.shape, leaves)
    every = masks.names(state["params"])
    rest = [leaf for leaf in every if not ghost_skips.is_ghost(leaf)]
    assert rest == masks.names(shapes["params"])
    # Before, they do something.
    early = logits(state, np.float32(0.5))
    assert np.max(np.abs(np.asarray(early) - np.asarray(faded))) > 1e-4


def test_at_the_end_of_a_fade_gradients_are_those_without() -> None:
    model, image = small_models.SMALL["resnet_8"]
    state, x = haunted(model, image), small_models.images(image)

    def loss(params: dict, network: nn.Module, stats: dict) -> jax.Array:
        variables = {"params": params, "batch_stats": stats}
        logits, _ = network.apply(variables, x, train=True, mutable=["batch_stats"])
        return jnp.sum(logits**2)

    slope = jax.jit(jax.grad(loss), static_argnums=1)
    params, stats = state["params"], state["batch_stats"]

    @jax.jit
    def faded(params: dict, left: jax.Array) -> dict:
        return jax.grad(loss)(params, model.clone(skip=ghosts(left, train=True)), stats)

    got = faded(params, jnp.float32(0.0))
    want = slope(
        ghost_skips.strip_ghosts(params), model, ghost_skips.strip_ghosts(stats)
    )
    jax.tree.map(np.testing.assert_array_equal, ghost_skips.strip_ghosts(got), want)
    for name, leaf in tree.named_leaves(got).items():
        if ghost_skips.is_ghost(name):
            np.testing.assert_array_equal(leaf, 0.0)


def test_a_ghost_is_a_normalized_convolution_times_what_is_left() -> None:
    x = small_models.images((6, 6, 3))
    module = ghosts(0.25, train=True)(5, stride=2, name="skip")
    state = jax.jit(module.init)(jax.random.key(0), x)
    kernel = state["params"]["conv"]["kernel"]
    got, _ = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]))(state, x)
    wide = np.asarray(x, np.float64)[:, ::2, ::2] @ np.asarray(kernel, np.float64)[0, 0]
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    want = 0.25 * (wide - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_constant_makes_every_channel_the_sum_of_the_input() -> None:
    # Small as it is, it is not small: what follows divides by the deviation.
    x = small_models.images((6, 6, 3))
    module = ghosts(1.0, train=True)(5, stride=1, name="skip")
    state = jax.jit(module.init)(jax.random.key(0), x)
    kernel = np.full((1, 1, 3, 5), ghost_skips.CONSTANT, np.float32)
    state["params"]["conv"]["kernel"] = kernel
    got, _ = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]))(state, x)
    total = np.asarray(x, np.float64).sum(-1, keepdims=True) * ghost_skips.CONSTANT
    want = (total - total.mean()) / np.sqrt(total.var() + 1e-5)
    np.testing.assert_allclose(got, np.repeat(want, 5, -1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "features", "stride"),
    [(6, 5, 1), (6, 3, 2), (7, 5, 2), (7, 2, 3), (6, 3, 3)],
)
def test_identities_average_windows_and_add_zeros(
    side: int, features: int, stride: int
) -> None:
    x = small_models.images((side, side, 3))
    got = jax.jit(lambda x: ghost_skips.fit(x, features, stride=stride))(x)
    # Windows of linen's "SAME" are centered as well as can be.
    total = max(0, -(-side // stride) * stride - side)
    firsts = [i * stride - total // 2 for i in range(-(-side // stride))]
    windows = [slice(max(0, f), f + stride) for f in firsts]
    wide = np.asarray(x, np.float64)
    rows = [[wide[:, a, b].mean((1, 2)) for b in windows] for a in windows]
    want = np.stack([np.stack(row, 1) for row in rows], 1)
    want = np.pad(want, [(0, 0)] * 3 + [(0, max(0, features - 3))])[..., :features]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_is_not_finite_does_not_come_back() -> None:
    module = ghosts(0.0, kind="identity")(3, stride=1, name="skip")
    x = jnp.full((1, 2, 2, 3), jnp.inf)
    np.testing.assert_array_equal(module.apply({}, x), 0.0)


def test_ghosts_are_told_by_name() -> None:
    for name, expected in {
        "stage1_block0/skip1/conv/kernel": True,
        "stage2_block1/expand_skip/norm/scale": True,
        "stage1_block0/conv1/kernel": False,
        "shortcut_conv/kernel": False,
        "head/kernel": False,
    }.items():
        assert ghost_skips.is_ghost(name) is expected


def test_one_trace_serves_a_whole_fade() -> None:
    model, image = small_models.SMALL["resnet_8"]
    state, x = haunted(model, image), small_models.images(image)
    traces = []

    @jax.jit
    def logits(left: jax.Array) -> jax.Array:
        traces.append(left)
        return model.clone(skip=ghosts(left)).apply(state, x, train=False)

    for clock in range(4):
        logits(annealing.anneal(clock, end=3))
    assert len(traces) == 1


def test_the_final_network_costs_what_the_plain_one_does() -> None:
    model, image = small_models.SMALL["resnet_8"]
    haunted = model.clone(skip=ghost_skips.make(1.0, train=False, kind="convolution"))
    x = small_models.images(image)

    def operations(network: Any, variables: Any) -> float:
        run = functools.partial(network.apply, train=False)
        return jax.jit(run).lower(variables, x).compile().cost_analysis()["flops"]

    state = small_models.variables(haunted, image)
    final = {part: ghost_skips.strip_ghosts(tree) for part, tree in state.items()}
    plain = operations(model, small_models.variables(model, image))
    assert operations(model, final) == plain < operations(haunted, state)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="kind: expected one of .*got 'pool'"):
        ghost_skips.make(1.0, train=False, kind="pool")


def test_layers_can_be_given() -> None:
    product = functools.partial(nn.Conv, dtype=jnp.bfloat16)
    module = ghost_skips.make(1.0, train=False, kind="convolution", conv=product)
    made = module(4, stride=1, name="skip")
    x = small_models.images((4, 4, 3))
    state = jax.eval_shape(made.init, jax.random.key(0), x)
    # That of BatchNorm's parameters.
    assert jax.eval_shape(made.apply, state, x).dtype == jnp.float32
