"""Methods inside every kind of program."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import method_pairs, methods
from helpers.campaigns import case
from helpers.method_runs import PLAINLY, kernels
from helpers.methods import METHODS
from helpers.states import check_alike, plain
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxsparse import transforms

pytestmark = pytest.mark.keys_used_once


PARTNERS = ("momentum", "adam", "clipped", "rmsprop", "schedule free", "accumulating")
# Methods that differ in what their state holds and in what an update reads, each in one
# program beside the plain loop; everything else is a campaign. Scans are what trains in
# the tests of training.
CHOSEN = {
    ("rigl restarts", "clipped"): "vmap",
    ("mest soft_bound", "adam"): "vmap",
    ("snfs", "momentum"): "shard_map",
    ("top_kast", "accumulating"): "pmap",
    ("rigl sign_in", "adam"): "vmap",
}
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
    return np.random.default_rng(9).normal(size=(10, 12, 8))


def make_params(seed: int = 0) -> Any:
    return methods.make_params(seed, "float64")


@functools.cache
def make_program(method: str, partner: str) -> tuple[Any, Any, Any]:
    """Returns an optimizer, its `init` and its training step, to be compiled once."""
    tx = method_pairs.build(method, partner)
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


def check_zeros(params: Any, state: Any) -> None:
    weights = transforms.forward_params(params, state)
    for kernel, mask in zip(
        kernels(weights), kernels(transforms.get_masks(state)), strict=True
    ):
        assert not kernel[~mask].any()


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


def of_replicate(i: int, tree: Any, axes: Any = 0) -> Any:
    # The step counter, and the flag beside it, are common to all.
    if axes == 0:
        axes = jax.tree.map(lambda leaf: 0, tree)
    return jax.tree.map(
        lambda axis, leaf: leaf if axis is None else leaf[i],
        *(axes, plain(tree)),
        is_leaf=lambda leaf: leaf is None,
    )


def run_vmap(method: str, partner: str) -> None:
    """Two replicates of different weights and keys; one program for all their laws."""
    tx = make_program(method, partner)[0]
    both = [start(method, partner, seed) for seed in range(2)]
    axes = transforms.replicate_axes(jax.eval_shape(tx.init, make_params()))
    params = stack(*(each[0] for each in both))
    states = jax.tree.map(
        lambda axis, *leaves: leaves[0] if axis is None else jnp.stack(leaves),
        *(axes, *(each[1] for each in both)),
        is_leaf=lambda leaf: leaf is None,
    )
    assert states.step.shape == ()
    assert METHODS[method].latent or states.replaced.shape == ()
    step = jax.vmap(
        functools.partial(train_step, tx),
        in_axes=(0, axes, 0),
        out_axes=(0, axes),
    )
    batches = np.stack([make_batches()] * 2, axis=1)
    traced = jax.jit(step).trace(params, states, batches[0])
    # That of the mask update. The optimizer state is reset by a select.
    conditionals = 0 if method.startswith("fixed") else 1
    assert str(traced.jaxpr).count("= cond[") == conditionals
    step = traced.lower().compile(compiler_options=PLAINLY)
    # Masks that follow the zeros do so after every step.
    follows = METHODS[method].latent and METHODS[method].reparameterized
    assert follows or (" conditional(" in step.as_text()) == bool(conditionals)
    first = params, states
    for batch in batches:
        params, states = step(params, states, batch)
    check_zeros(params, states)
    for i in range(2):
        found = of_replicate(i, params), of_replicate(i, states, axes)
        check_alike(found, follow(method, partner, i))
    if conditionals and not METHODS[method].latent:
        go_on_with_given_masks(step, *first, batches, soft="soft" in method)
    if method.startswith("rigl"):
        skip_alone(step, *first, batches)


def go_on_with_given_masks(
    step: Any, params: Any, states: Any, batches: Any, soft: bool
) -> None:
    """Each replicate keeps as many weights as its masks had that it was given."""
    counts = np.array([[10, 30], [60, 5]])
    given = {
        name: {
            "bias": None,
            "kernel": jnp.asarray(
                np.arange(math.prod(shape)).reshape(shape)
                < counts[:, i].reshape(-1, 1, 1)
            ),
        }
        for i, (name, shape) in enumerate({"first": (8, 12), "second": (12, 4)}.items())
    }
    states = transforms.replace_masks(states, given)
    for batch in batches[:6]:
        params, states = step(params, states, batch)
        held = kernels(transforms.get_masks(states))
        check_zeros(params, states)
        if not soft:
            found = [mask.sum(axis=(1, 2)) for mask in held]
            np.testing.assert_array_equal(np.stack(found, axis=1), counts)
    for mask, old in zip(held, kernels(given), strict=True):
        assert (mask != old).any()


def skip_alone(step: Any, params: Any, states: Any, batches: Any) -> None:
    """A replicate whose gradient is not finite skips the mask update, others do not."""
    before = kernels(states.masks)
    for i, batch in enumerate(batches[:2]):
        if i == 1:  # an update of masks
            batch[1] = np.nan
        params, states = step(params, states, batch)
    np.testing.assert_array_equal(states.skipped_updates, [0, 1])
    for old, new in zip(before, kernels(states.masks), strict=True):
        assert (old[0] != new[0]).any() and (old[1] == new[1]).all()


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
        case(*pair, program, always=program == CHOSEN[pair])
        for pair in CHOSEN
        for program in PROGRAMS
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
