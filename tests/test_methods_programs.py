"""Every method inside every kind of program, and on sharded weights."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import methods
from helpers.campaigns import case
from helpers.methods import METHODS
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsparse import transforms

# Compiles in half the time.
PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
PARTNERS = ("momentum", "adam", "clipped", "rmsprop", "schedule free", "accumulating")
# Every method with one optimizer, every optimizer with about four methods.
CHOSEN = [(method, PARTNERS[i % len(PARTNERS)]) for i, method in enumerate(METHODS)]
OTHERS = [
    (method, partner)
    for method in METHODS
    for partner in (*PARTNERS, "muon")
    if (method, partner) not in CHOSEN
]


@pytest.fixture(autouse=True)
def wide() -> Any:
    # Programs round differently: in float64 no score is near enough to another.
    with jax.enable_x64(True):
        yield


def loss_of(weights: Any, batch: Any) -> Any:
    first, second = weights["first"], weights["second"]
    hidden = jnp.tanh(batch @ first["kernel"] + first["bias"][None])
    out = hidden @ second["kernel"] + second["bias"][None]
    return jnp.mean(jnp.square(out - 0.5))


def train_step(
    tx: Any, params: Any, state: Any, batch: Any, average: Callable = lambda x: x
) -> Any:
    weights = transforms.forward_params(params, state)
    grads = average(jax.grad(loss_of)(weights, batch))
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def make_batches() -> Any:
    return jnp.asarray(np.random.default_rng(9).normal(size=(10, 12, 8)))


def make_params(seed: int = 0) -> Any:
    return methods.make_params(seed, "float64")


@functools.cache
def make_program(method: str, partner: str) -> tuple[Any, Any, Any]:
    """Returns an optimizer, its `init` and its training step, to be compiled once."""
    tx = methods.build(method, partner)
    step = jax.jit(functools.partial(train_step, tx), compiler_options=PLAINLY)
    return tx, jax.jit(tx.init, compiler_options=PLAINLY), step


def start(method: str, partner: str, seed: int = 0) -> tuple[Any, Any]:
    params = make_params(seed)
    state = make_program(method, partner)[1](params)
    state = transforms.replace_key(state, jax.random.key(seed))
    return transforms.stored_params(params, state), state


@functools.cache
def follow(method: str, partner: str, seed: int = 0) -> tuple[Any, Any]:
    """The plain loop that all programs must equal."""
    params, state = start(method, partner, seed)
    for batch in make_batches():
        params, state = make_program(method, partner)[2](params, state, batch)
    return params, state


def plain(tree: Any) -> Any:
    def convert(leaf: Any) -> Any:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.map(convert, tree)


def check_alike(got: Any, wanted: Any) -> None:
    """All but floats equal, masks among them; floats to a tolerance."""

    def check(leaf: Any, other: Any) -> None:
        # snfs keeps its momentum in float32.
        near = {"float64": 1e-9, "float32": 1e-5}.get(str(leaf.dtype), 0)
        np.testing.assert_allclose(leaf, other, rtol=near, atol=near)

    jax.tree.map(check, plain(got), plain(wanted))


def check_zeros(params: Any, state: Any) -> None:
    weights = transforms.forward_params(params, state)
    for name, layer in transforms.get_masks(state).items():
        assert not weights[name]["kernel"][~layer["kernel"]].any()


def stack(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def run_scan(method: str, partner: str) -> None:
    tx = make_program(method, partner)[0]

    def many(carry: Any, batches: Any) -> Any:
        return jax.lax.scan(
            lambda carry, batch: (train_step(tx, *carry, batch), None), carry, batches
        )

    many = jax.jit(many, compiler_options=PLAINLY)
    (params, state), _ = many(start(method, partner), make_batches())
    check_zeros(params, state)
    check_alike((params, state), follow(method, partner))


def make_replicates(method: str, partner: str) -> tuple[Any, Any, Any]:
    """Two replicates of different weights and keys, and the axes of their state."""
    tx = make_program(method, partner)[0]
    params = stack(make_params(0), make_params(1))
    axes = transforms.replicate_axes(jax.eval_shape(tx.init, make_params()))
    init = jax.vmap(tx.init, out_axes=axes)
    states = jax.jit(init, compiler_options=PLAINLY)(params)
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    states = transforms.replace_key(states, keys)
    return transforms.stored_params(params, states), states, axes


def run_vmap(method: str, partner: str) -> None:
    params, states, axes = make_replicates(method, partner)
    step = jax.vmap(
        functools.partial(train_step, make_program(method, partner)[0]),
        in_axes=(0, axes, None),
        out_axes=(0, axes),
    )
    batches = make_batches()
    lowered = jax.jit(step).lower(params, states, batches[0])
    step = lowered.compile(compiler_options=PLAINLY)
    assert " conditional(" in step.as_text()
    for batch in batches:
        params, states = step(params, states, batch)
    check_zeros(params, states)
    for i in range(2):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        # The step counter, and the flag beside it, are common to all.
        state = jax.tree.map(
            lambda axis, leaf, i=i: leaf if axis is None else leaf[i],
            axes,
            states,
            is_leaf=lambda leaf: leaf is None,
        )
        check_alike((mine, state), follow(method, partner, i))


def run_pmap(method: str, partner: str) -> None:
    average = functools.partial(jax.lax.pmean, axis_name="data")
    tx = make_program(method, partner)[0]
    step = jax.pmap(functools.partial(train_step, tx, average=average), "data")
    params, state = stack(*[start(method, partner)] * 4)
    for batch in make_batches():
        params, state = jax.block_until_ready(
            step(params, state, batch.reshape(4, 3, 8))
        )
    check_zeros(params, state)
    for i in range(4):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], plain((params, state)))
        check_alike(mine, follow(method, partner))


def make_mesh(name: str) -> jax.sharding.Mesh:
    return jax.make_mesh((4,), (name,), axis_types=(AxisType.Auto,))


def run_shard_map(method: str, partner: str) -> None:
    def average(grads: Any) -> Any:
        # With replication checked, the gradient of what all devices share is their sum.
        return jax.tree.map(lambda leaf: leaf / 4, grads)

    tx = make_program(method, partner)[0]
    step = jax.shard_map(
        functools.partial(train_step, tx, average=average),
        mesh=make_mesh("data"),
        in_specs=(P(), P(), P("data")),
        out_specs=P(),
    )
    step = jax.jit(step, compiler_options=PLAINLY)
    params, state = start(method, partner)
    for batch in make_batches():
        params, state = jax.block_until_ready(step(params, state, batch))
    check_zeros(params, state)
    check_alike((params, state), follow(method, partner))


PROGRAMS = {
    "scan": run_scan,
    "vmap": run_vmap,
    "pmap": run_pmap,
    "shard_map": run_shard_map,
}


@pytest.mark.parametrize(
    ("method", "partner", "program"),
    [
        case(*pair, program, always=(i - j) % len(PROGRAMS) == 0)
        for i, pair in enumerate(CHOSEN)
        for j, program in enumerate(PROGRAMS)
    ],
)
def test_programs_equal_the_plain_loop(method: str, partner: str, program: str) -> None:
    PROGRAMS[program](method, partner)


@pytest.mark.campaign
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("method", "partner"), OTHERS)
def test_programs_equal_the_plain_loop_for_all_other_pairs(
    method: str, partner: str, program: str
) -> None:
    PROGRAMS[program](method, partner)


@pytest.mark.parametrize("method", METHODS)
def test_replicates_share_counters_and_conditionals(method: str) -> None:
    tx, params = make_program(method, "momentum")[0], make_params()
    state = jax.eval_shape(tx.init, params)
    axes = transforms.replicate_axes(state)
    many = stack(params, params)
    states = jax.eval_shape(jax.vmap(tx.init, out_axes=axes), many)
    assert states.step.shape == ()
    assert METHODS[method].latent or states.replaced.shape == ()
    step = functools.partial(train_step, tx)
    batched = jax.vmap(step, in_axes=(0, axes, None), out_axes=(0, axes))
    batch = make_batches()[0]
    one = jax.make_jaxpr(step)(params, state, batch)
    many = jax.make_jaxpr(batched)(many, states, batch)
    conditionals = [str(jaxpr).count("= cond[") for jaxpr in (one, many)]
    skips = bool(METHODS[method].rests)
    none = method == "fixed" or METHODS[method].latent
    assert conditionals == [1 if none else 2 + skips] * 2


SHAPES = {"first": (16, 24), "second": (24, 16)}
SHARDED = {
    "gradual_magnitude": methods.METHODS["gradual_magnitude"],
    "gradual_magnitude global": methods.METHODS["gradual_magnitude global"],
    "sparse_evolution": methods.METHODS["sparse_evolution"],
    "rigl": methods.METHODS["rigl"],
    "snfs": methods.METHODS["snfs"],
}
SPECS = {"first axis": P("model", None), "last axis": P(None, "model")}
# A move of more numbers than these is one of a row or column of a weight, or of more.
# A sum is of counts: where a last axis is split one for each row, for each sign.
FEW = {"all-reduce": 2 * (24 + 16)}
MOVES = re.compile(
    r" = (.*) (all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\("
)


def make_layers(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return {
        name: {
            "bias": jnp.asarray(rng.normal(size=shape[1])),
            "kernel": jnp.asarray(rng.normal(size=shape)),
        }
        for name, shape in SHAPES.items()
    }


def moved(program: str) -> list[str]:
    """Lists the operations that move more than a few numbers between devices."""
    found = []
    for line in program.splitlines():
        match = MOVES.search(line)
        shapes = re.findall(r"\w\[([\d,]*)\]", match[1]) if match else []
        sizes = [math.prod(map(int, filter(None, s.split(",")))) for s in shapes]
        if match and sum(sizes) > FEW.get(match[2], 8):
            found.append(line.strip())
    return found


def test_what_moves_is_seen() -> None:
    mesh = make_mesh("model")
    weights = make_layers(0)["first"]["kernel"]
    spread = jax.device_put(weights, NamedSharding(mesh, P("model", None)))
    turned = NamedSharding(mesh, P(None, "model"))
    for shardings in (turned, NamedSharding(mesh, P())):
        program = jax.jit(lambda leaf: 2 * leaf, out_shardings=shardings)
        assert len(moved(program.lower(spread).compile().as_text())) == 1


@pytest.mark.parametrize(
    ("method", "axis"),
    [
        case(method, axis, always=(i - j) % len(SPECS) == 0)
        for i, method in enumerate(SHARDED)
        for j, axis in enumerate(SPECS)
    ],
)
def test_sharded_weights_stay_where_they_are(method: str, axis: str) -> None:
    tx = SHARDED[method].make(optax.sgd(0.1, momentum=0.9))
    mesh, targets = make_mesh("model"), make_layers(1)

    def step(params: Any, state: Any, targets: Any) -> Any:
        grads = jax.tree.map(jnp.subtract, params, targets)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def place(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.device_put(
                leaf, NamedSharding(mesh, SPECS[axis] if leaf.ndim == 2 else P())
            ),
            tree,
        )

    step = jax.jit(step, compiler_options=PLAINLY)
    params = make_layers(0)
    state = tx.init(params)
    params = transforms.stored_params(params, state)
    alone, spread = (params, state), place((params, state))
    where = jax.tree.map(lambda leaf: leaf.sharding, spread)
    away = place(targets)
    assert moved(step.lower(*spread, away).compile().as_text()) == []
    for _ in range(methods.UPDATES):
        alone = step(*alone, targets)
        spread = jax.block_until_ready(step(*spread, away))
        same = jax.tree.map(
            lambda leaf, old: leaf.sharding.is_equivalent_to(old, leaf.ndim),
            spread,
            where,
        )
        assert all(jax.tree.leaves(same))
        check_alike(spread, alone)
