"""States of sparse optimizers in other people's hands: files, maps over weights."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jaxsparse import rng, transforms
from jaxsparse.training import checkpoints, old_checkpoints
from jaxsparse.training.state import TrainState

PARAMS = {
    "first": {"bias": jnp.zeros(4), "kernel": jnp.linspace(0.1, 1.0, 32).reshape(8, 4)},
    "second": {"kernel": jnp.linspace(-1.0, 1.0, 16).reshape(4, 4)},
}
ADAM = optax.adam(0.01)
HALF = {"sparsity": 0.5, "update_every": 2, "end_step": 9}
t = transforms
# A method of each kind of state.
METHODS: dict[str, Any] = {
    "fixed": t.fixed(ADAM),
    "rigl": t.rigl(ADAM, **HALF),
    "snfs": t.snfs(ADAM, **HALF),
    "sparse_evolution": t.sparse_evolution(ADAM, **HALF),
    "mest soft_bound": t.mest(ADAM, **HALF, updates=t.MESTOptions(soft_bound=True)),
    "straight_through, some": t.straight_through(ADAM, sparsity=0.5, train_all=False),
    "top_kast": t.top_kast(ADAM, sparsity=0.5, backward_sparsity=0.2),
}
# Methods with a wrapper between their state and that of the optimizer.
BETWEEN: dict[str, Any] = {
    "sign_in": t.fixed(t.reparameterize(ADAM, t.sign_in())),
    "edge_popup": t.edge_popup(ADAM, sparsity=0.5),
    "proximal_l1": t.proximal_l1(ADAM, l1_penalty=0.1, learning_rate=0.1),
}
DRAWING = ("sparse_evolution", "mest soft_bound")


@functools.cache
def start(name: str) -> Any:
    return jax.jit((METHODS | BETWEEN)[name].init)(PARAMS)


def check_equal(got: Any, wanted: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.mark.parametrize("name", METHODS | BETWEEN)
def test_states_are_arrays_for_every_serializer(name: str) -> None:
    state = start(name)
    blank = jax.tree.map(jnp.zeros_like, state)
    key = getattr(state, "key", None)
    assert (key is not None) == (name in DRAWING)
    assert key is None or (key.dtype == jnp.uint32 and key.shape == (2,))
    packed = flax.serialization.to_bytes(state)
    check_equal(flax.serialization.from_bytes(blank, packed), state)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, state)
    file.seek(0)
    check_equal(eqx.tree_deserialise_leaves(file, blank), state)
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(state))
    file.seek(0)
    read = np.load(file, allow_pickle=False).values()
    check_equal(jax.tree.unflatten(jax.tree.structure(state), read), state)
    gathered = multihost_utils.process_allgather(state, tiled=True)
    assert jax.tree.structure(gathered) == jax.tree.structure(state)
    for leaf, own in zip(
        jax.tree.leaves(gathered), jax.tree.leaves(state), strict=True
    ):
        np.testing.assert_array_equal(leaf, np.reshape(own, leaf.shape))


@pytest.mark.parametrize("name", METHODS)
def test_map_params_visits_what_belongs_to_weights(name: str) -> None:
    tx, state = METHODS[name], start(name)
    check_equal(optax.tree.map_params(tx, lambda leaf: leaf, state), state)
    labels = jax.tree.map(lambda leaf: str(leaf.shape), PARAMS)
    # None has no leaf where masks do not: as with optax.masked, it is one here.
    found = optax.tree.map_params(
        tx,
        lambda leaf, label: None if leaf is None else label,
        state,
        labels,
        transform_non_params=lambda _: "-",
        is_leaf=lambda leaf: leaf is None,
    )
    held = {"first": {"bias": None, "kernel": "(8, 4)"}, "second": labels["second"]}
    sparse = isinstance(state, transforms.SparsifyState)
    assert (found.codes if sparse else found.masks) == held
    assert found.skipped_updates == "-"
    assert found.inner_state[0].mu == found.inner_state[0].nu == labels
    if name == "snfs":
        assert found.memory.own == held
    if name in ("top_kast", "straight_through, some"):
        assert found.memory == held


@pytest.mark.parametrize("name", BETWEEN)
def test_map_params_passes_what_weights_are_made_of(name: str) -> None:
    tx, state = BETWEEN[name], start(name)
    twice = optax.tree.map_params(
        tx, lambda leaf: 2 * leaf, state, transform_non_params=lambda leaf: leaf
    )
    own, doubled = state.inner_state, twice.inner_state
    if name == "sign_in":
        check_equal(doubled.trained, jax.tree.map(lambda leaf: 2 * leaf, own.trained))
    assert (doubled.step, twice.step) == (own.step, state.step)


def test_raw_and_typed_keys_draw_the_same() -> None:
    """An update reads the key from the state, and the keys there are equal."""
    found = []
    for key in (jax.random.PRNGKey(7), jax.random.key(7)):
        tx = transforms.sparse_evolution(ADAM, **HALF, key=key)
        found.append(jax.jit(tx.init)(PARAMS))
        check_equal(transforms.replace_key(found[-1], key), found[-1])
    check_equal(*found)
    other = transforms.replace_key(found[0], jax.random.key(8))
    assert (other.key != found[0].key).any()


def test_what_is_no_key_is_refused() -> None:
    for bad in (7, jnp.zeros(2), np.uint32(1)):
        with pytest.raises(TypeError, match="^key: expected a random key"):
            rng.as_typed(bad)


@pytest.mark.parametrize("layout", [1, 2])
@pytest.mark.parametrize("name", ["sparse_evolution", "snfs", "top_kast"])
def test_checkpoints_of_earlier_layouts_are_read(
    name: str, layout: int, tmp_path: Path
) -> None:
    tx = METHODS[name]
    axes = transforms.replicate_axes(jax.eval_shape(tx.init, PARAMS))
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), PARAMS)
    opt_state = jax.jit(jax.vmap(tx.init, out_axes=axes))(params)
    words = jax.random.key_data(jax.random.split(jax.random.key(0)))
    opt_state = transforms.replace_key(opt_state, words)
    state = TrainState(jnp.int32(5), params, {}, opt_state)
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf), state)
    old = old_checkpoints.as_saved(state, layout)  # it splits the same key
    if layout == 1:
        assert rng.is_key(old.opt_state.key)
    assert hasattr(old.opt_state, "skipped_updates") == (layout == 2)
    ocp.save(tmp_path / "last", old)
    note = {
        "hash": checkpoints.digest(old),
        "step": 5,
        "extra": {"a": 1},
        "layout": layout,
    }
    (tmp_path / "last.json").write_text(json.dumps(note))
    blank = jax.tree.map(jnp.zeros_like, state)
    saved = checkpoints.load(tmp_path, "last", blank)
    assert saved is not None and saved.extra == {"a": 1}
    check_equal(saved.state, state)
    # Made again, it is of today's layout, and compared from then on.
    assert not checkpoints.comparable(tmp_path, "last")
    checkpoints.save(tmp_path, "last", state)
    assert checkpoints.comparable(tmp_path, "last")
    with pytest.raises(ValueError, match="expected the bits with the recorded hash"):
        checkpoints.save(tmp_path, "last", blank)
