"""What must hold whatever is wrapped: laws over the table of optimizers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import spies
from helpers.campaigns import some
from helpers.optimizers import (
    ACCEPTS,
    ADAM,
    INSIDE,
    LARGE,
    LATE,
    ONE_DTYPE,
    OUTSIDE,
    PERIODS,
    SEES_DENSE,
    SHAPES,
    SHARED,
    STALLS,
    WEAK,
)
from helpers.states import plain

from jaxsparse import masks, transforms
from jaxsparse.rng import is_key
from jaxsparse.transforms import state_reset

# Compiles in half the time, and multiplies and adds without contracting the two, so
# that one computation gives the same bits in two programs.
PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
NAMES = [*INSIDE, *OUTSIDE]
# Optimizers that differ in what a wrapper has to do with their state, their arguments
# or what is around them. All others are a campaign here; which of their memory is reset
# is a test of each, and some are in test_methods_laws.
CHOSEN = (
    *("adam, mu in bfloat16", "noisy sgd", "backtracking", "mechanic", "momo", "sam"),
    *("schedule free adamw", "narrow updates", "accumulating finite", "outer masked"),
    "outer accumulating",
)


@pytest.fixture(autouse=True)
def conditions(request: pytest.FixtureRequest) -> Any:
    # MultiSteps selects between old and new state, of which the key is the same: the
    # checker takes that for a second use.
    selects_keys = "outer accumulating" in request.node.name
    with jax.debug_key_reuse(not selects_keys):
        yield


def _make_params(name: str, dtype: str | None = None) -> dict:
    rng = np.random.default_rng(0)
    if name in LATE or name in ONE_DTYPE:
        dtype = dtype or "float32"
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf[0]), dtype or leaf[1]),
        LARGE if name == "adafactor, factored" else SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def _build(name: str, spied: bool = False, **options: Any) -> tuple[Any, Any]:
    """Returns the optimizer bare, and the same sparse."""
    inner, outer = INSIDE.get(name, ADAM), OUTSIDE.get(name, lambda tx: tx)
    inner = spies.spied(inner) if spied else optax.with_extra_args_support(inner)
    return outer(inner), outer(transforms.sparsify(inner, masks.ones, **options))


def _loss(params: Any, **_: Any) -> Any:
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(params)]
    return sum(jnp.sum(jnp.square(leaf - 0.3)) for leaf in leaves)


def _update(name: str, tx: Any, params: Any, state: Any, poison: Any) -> Any:
    value, dense = jax.value_and_grad(_loss)(params)
    grads = jax.tree.map(jnp.add, dense, poison)
    extra = {"value": value, "grad": dense, "value_fn": _loss, "obj_fn": _loss}
    extra |= {"unknown": value}
    extra = dict(list(extra.items())[: ACCEPTS.get(name)])
    updates, state = tx.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state


def _find(state: Any) -> transforms.SparsifyState:
    def found(node: Any) -> bool:
        return isinstance(node, transforms.SparsifyState)

    (node,) = filter(found, jax.tree.leaves(state, is_leaf=found))
    return node


def _random_masks(params: Any, seed: int, kept: int) -> Any:
    """Keeps all but `kept` hundredths, at least one weight in and one out."""
    rng = np.random.default_rng(seed)

    def draw(mask: Any) -> Any:
        flat = np.zeros(mask.size, bool)
        flat[: mask.size * kept // 100] = True
        return jnp.asarray(rng.permutation(flat).reshape(mask.shape))

    return jax.tree.map(draw, masks.ones(params))


def _roll(held: Any, params: Any, grads: Any, **_: Any) -> transforms.MaskUpdate:
    return transforms.MaskUpdate(_rolled(held, jnp.roll))


def _rolled(held: Any, roll: Any) -> Any:
    return jax.tree.map(lambda mask: roll(mask, 1, axis=0), held)


def _poison(name: str, held: Any, params: Any) -> Any:
    def spoil(mask: Any, leaf: Any) -> Any:
        nothing = np.zeros(leaf.shape, leaf.dtype)
        if mask is None or name in SEES_DENSE:
            return nothing
        bad = np.resize(np.array([np.nan, np.inf, -np.inf], leaf.dtype), leaf.shape)
        return np.where(mask, nothing, bad)

    return jax.tree.map(spoil, held, params, is_leaf=lambda leaf: leaf is None)


def _strong(state: Any) -> Any:
    """Makes arrays of what came from Python's numbers."""

    def convert(leaf: Any) -> Any:
        weak = getattr(leaf, "weak_type", False)
        return jnp.array(leaf, leaf.dtype) if weak else leaf

    return jax.tree.map(convert, state)


def _kernels(tree: Any) -> list[np.ndarray]:
    return [np.asarray(layer["kernel"]) for layer in tree.values()]


def _check_handed(handed: Any, old: Any, first: Any, keep: list[Any]) -> None:
    """What the optimizer was handed: its memory, reset outside `keep`, by shape."""
    by_shape = {mask.shape: mask for mask in keep}

    def check(path: Any, came: Any, was: Any, new: Any) -> None:
        wanted = np.where(by_shape.get(came.shape, True), plain(was), plain(new))
        np.testing.assert_array_equal(plain(came), wanted, str(path))

    jax.tree_util.tree_map_with_path(check, handed, old, first)


@pytest.mark.parametrize("name", some(NAMES, always=CHOSEN))
def test_laws_hold_while_masks_change(name: str) -> None:
    traced = []
    _, tx = _build(
        name, spied=True, update_masks=_roll, update_at=lambda step: step == 4
    )

    def step(params: Any, state: Any, poison: Any) -> Any:
        traced.append(name)
        return _update(name, tx, params, state, poison)

    step = jax.jit(step, compiler_options=PLAINLY)
    params = _make_params(name)
    state = _strong(tx.init(params)) if name in WEAK else tx.init(params)
    abstract = jax.eval_shape(tx.init, params)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, abstract)
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    types = jax.tree.map(jax.typeof, (params, state))
    sparse, held = _find(state), masks.ones(params)
    for i in range(6):
        memory, keep = sparse.inner_state.state, [np.array(True)]
        if i in (0, 2, 4):
            previous = held
            if i == 4:  # as `tx` itself will
                held = jax.tree.map(jnp.asarray, _rolled(held, np.roll))
            else:
                held = _random_masks(params, seed=i, kept=70 - 10 * i)
                given = jax.tree.unflatten(
                    jax.tree.structure(sparse.masks), jax.tree.leaves(held)
                )
                state = transforms.replace_masks(state, given)
            both = jax.tree.map(np.logical_and, previous, held)
            keep = [np.asarray(leaf) for leaf in jax.tree.leaves(both)]
        first = _find(tx.init(masks.apply(held, params))).inner_state.state
        for _ in range(PERIODS.get(name, 1)):
            params, state = step(params, state, _poison(name, held, params))
        sparse = _find(state)
        assert jax.tree.map(jax.typeof, (params, state)) == types
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.tree.leaves(sparse.masks),
            jax.tree.leaves(held),
        )
        assert masks.num_active(sparse.masks) == masks.num_active(held)
        for kernel, has in zip(_kernels(params), _kernels(held), strict=True):
            assert not kernel.view(f"uint{8 * kernel.itemsize}")[~has].any()
        for leaf in jax.tree.leaves((params, sparse.inner_state.state)):
            assert not np.isnan(plain(leaf)).any()
        _check_handed(sparse.inner_state.handed, memory, first, keep)
    assert len(traced) == 1
    for kernel, has in zip(_kernels(params), _kernels(held), strict=True):
        # The weights that arrived are trained too.
        assert kernel[has].all() or name in STALLS


@pytest.mark.parametrize("name", some(NAMES, always=("muon", "outer partition")))
def test_dense_masks_change_no_bit(name: str) -> None:
    params = _make_params(name)
    nothing = jax.tree.map(jnp.zeros_like, params)

    def step(both: Any) -> Any:
        return [
            _update(name, tx, *one, nothing)
            for tx, one in zip(_build(name), both, strict=True)
        ]

    step = jax.jit(step, compiler_options=PLAINLY)
    both = [(params, tx.init(params)) for tx in _build(name)]
    for _ in range(3):
        both = step(both)
        jax.tree.map(np.testing.assert_array_equal, both[0][0], both[1][0])


@pytest.mark.parametrize(
    "name", some([*LATE, *ONE_DTYPE], always=("hyperparameters", "sam", "sophia"))
)
def test_bfloat16_weights_stay_so(name: str) -> None:
    params = _make_params(name, "bfloat16")
    if name in ONE_DTYPE:
        params = {"first": params["first"]}
    for tx in _build(name):
        state = tx.init(params)
        types = []
        for _ in range(3):
            out = jax.eval_shape(
                functools.partial(_update, name, tx), params, state, params
            )
            state = out[1]
            types.append(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), out))
            assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(out[0]))
        assert types[1] == types[2]


@pytest.mark.parametrize("name", INSIDE)
def test_memory_is_reset_weight_by_weight(name: str) -> None:
    """All but what has not the shape of the weights; nothing is compiled."""
    params, draw = _make_params(name), np.random.default_rng(1)
    held = masks.ones(params)
    kept = {mask.shape: draw.random(mask.shape) < 0.5 for mask in jax.tree.leaves(held)}
    keep = jax.tree.map(lambda leaf: jnp.asarray(kept[leaf.shape]), held)
    blank = jax.eval_shape(_build(name)[0].init, params)

    def fill(leaf: Any) -> Any:
        if is_key(leaf):
            return jax.random.key(3)
        return np.asarray(draw.integers(1, 9, leaf.shape), leaf.dtype)

    state, first = jax.tree.map(fill, blank), jax.tree.map(fill, blank)
    found = state_reset.reset_outside(keep, state, first)

    def check(path: Any, came: Any, was: Any, new: Any) -> None:
        mask = kept.get(came.shape, np.array(True))
        assert came.dtype == was.dtype
        np.testing.assert_array_equal(
            *(plain(came), np.where(mask, plain(was), plain(new))),
            str(path),
        )

    jax.tree_util.tree_map_with_path(check, found, state, first)
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    others = [leaf for leaf in jax.tree.leaves(blank) if leaf.shape not in shapes]
    assert any(leaf.size > 2 for leaf in others) == (name in SHARED)
