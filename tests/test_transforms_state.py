"""What `sparsify` promises, one promise a test; laws over optimizers lie beside."""

from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from optax import contrib

from jaxsparse import masks, transforms

PARAMS = {"bias": jnp.ones(3), "kernel": jnp.arange(1.0, 13.0).reshape(4, 3)}
GRADS = {"bias": jnp.full(3, 0.5), "kernel": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)}
EVEN = {"bias": None, "kernel": jnp.arange(12).reshape(4, 3) % 2 == 0}
LOW = {"bias": None, "kernel": jnp.arange(12).reshape(4, 3) < 6}
SGD = optax.sgd(0.1, momentum=0.9)
FIXED = transforms.fixed(SGD)
MOMENTUM = jax.jit(FIXED.update)
MASKS = hnp.arrays(bool, (4, 3))


def moved_at(*steps: int) -> Any:
    return lambda step: jnp.isin(step, jnp.array(steps))


def to_low(held: Any, params: Any, grads: Any, **_: Any) -> transforms.MaskUpdate:
    return transforms.MaskUpdate(LOW)


def apply(tx: Any, params: Any, state: Any, **extra: Any) -> Any:
    updates, state = jax.jit(tx.update)(GRADS, state, params, **extra)
    return optax.apply_updates(params, updates), state


def emulate(kept: list[np.ndarray], grads: list[np.ndarray]) -> list[np.ndarray]:
    """Momentum SGD on single weights with the masks of each step, in plain Python."""
    weights = [float(weight) for weight in np.ravel(PARAMS["kernel"])]
    momenta, existed = [0.0] * 12, [True] * 12
    trajectory = []
    for mask, grad in zip(kept, grads, strict=True):
        for i, (exists, slope) in enumerate(
            zip(mask.reshape(-1), grad.reshape(-1), strict=True)
        ):
            if not (exists and existed[i]):
                momenta[i] = 0.0
            if exists:
                momenta[i] = float(slope) + 0.9 * momenta[i]
                weights[i] -= 0.1 * momenta[i]
            else:
                weights[i] = 0.0
            existed[i] = bool(exists)
        trajectory.append(np.reshape(weights, (4, 3)))
    return trajectory


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(
    st.lists(st.none() | MASKS, min_size=1, max_size=8), st.integers(0, 9)
)
def test_equals_a_slow_emulation(changes: list, seed: int) -> None:
    slopes = list(np.random.default_rng(seed).normal(size=(len(changes), 4, 3)))
    kept = []
    for change in changes:
        last = kept[-1] if kept else np.ones((4, 3), bool)
        kept.append(last if change is None else change)
    with jax.enable_x64(True):
        params = {"kernel": jnp.asarray(PARAMS["kernel"], jnp.float64)}
        state = FIXED.init(params)
        for change, slope, wanted in zip(
            changes, slopes, emulate(kept, slopes), strict=True
        ):
            if change is not None:
                new = {"kernel": jnp.asarray(change)}
                state = transforms.replace_masks(state, new)
            updates, state = MOMENTUM({"kernel": jnp.asarray(slope)}, state, params)
            params = optax.apply_updates(params, updates)
            # Up to the last bits: w + (-0.1 m) may be one operation or two.
            np.testing.assert_allclose(params["kernel"], wanted, rtol=1e-13, atol=1e-15)


def test_skip_inner_leaves_survivors_and_their_memory() -> None:
    tx = transforms.sparsify(
        optax.adam(0.1),
        lambda params: EVEN,
        update_masks=to_low,
        update_at=moved_at(2),
        skip_update=True,
    )
    params, state = apply(tx, masks.apply(EVEN, PARAMS), tx.init(PARAMS))
    params, state = apply(tx, params, state)
    after, moved = apply(tx, params, state)
    both = EVEN["kernel"] & LOW["kernel"]
    np.testing.assert_array_equal(
        after["kernel"], jnp.where(both, params["kernel"], 0.0)
    )
    np.testing.assert_array_equal(after["bias"], params["bias"])
    old, new = state.inner_state[0], moved.inner_state[0]
    assert new.count == old.count == 2 and moved.step == 3
    np.testing.assert_array_equal(
        new.mu["kernel"], jnp.where(both, old.mu["kernel"], 0.0)
    )
    np.testing.assert_array_equal(new.mu["bias"], old.mu["bias"])
    assert apply(tx, after, moved)[1].inner_state[0].count == 3


def test_skip_inner_does_not_skip_for_replaced_masks() -> None:
    tx = transforms.sparsify(
        SGD, masks.ones, update_masks=to_low, update_at=moved_at(9), skip_update=True
    )
    state = transforms.replace_masks(tx.init(PARAMS), EVEN)
    after, _ = apply(tx, PARAMS, state)
    assert (after["bias"] != PARAMS["bias"]).all()


def test_a_weight_dropped_and_regrown_at_once_starts_afresh() -> None:
    fresh = {"bias": None, "kernel": jnp.zeros((4, 3), bool).at[1, 2].set(True)}

    def stay(held: Any, params: Any, grads: Any, **_: Any) -> transforms.MaskUpdate:
        return transforms.MaskUpdate(held, reset=fresh)

    tx = transforms.sparsify(SGD, masks.ones, update_masks=stay, update_at=moved_at(2))
    params, state = apply(tx, *apply(tx, PARAMS, tx.init(PARAMS)))
    _, moved = apply(tx, params, state)
    was = jnp.where(fresh["kernel"], 0.0, state.inner_state[0].trace["kernel"])
    wanted = GRADS["kernel"] + 0.9 * was
    np.testing.assert_allclose(
        moved.inner_state[0].trace["kernel"], wanted, rtol=1e-6, atol=0
    )


def test_memory_of_the_method_and_all_it_is_told() -> None:
    told = {}

    def remember(params: Any, held: Any) -> Any:
        return {"sum": jnp.zeros(()), "seen": held["kernel"]}

    def update_masks(held: Any, params: Any, grads: Any, **rest: Any) -> Any:
        told.update(rest, params=params, grads=grads, masks=held)
        memory = {"sum": rest["memory"]["sum"] + rest["loss"], "seen": LOW["kernel"]}
        return transforms.MaskUpdate(held, memory)

    key = jax.random.key(5)
    tx = transforms.sparsify(
        SGD,
        lambda params: EVEN,
        update_masks=update_masks,
        update_at=lambda step: step != 1,
        init_memory=remember,
        key=key,
    )
    state = tx.init(PARAMS)
    np.testing.assert_array_equal(state.memory["seen"], EVEN["kernel"])
    with jax.disable_jit():  # so that what the method is told are values
        params = PARAMS
        for loss, total in ((1.0, 1.0), (2.0, 1.0), (4.0, 5.0)):
            before, trace = params, state.inner_state[0].trace
            params, state = apply(tx, params, state, loss=jnp.array(loss))
            assert state.memory["sum"] == total
    assert told["step"] == 2 and told["loss"] == 4.0
    assert jax.random.key_data(told["key"]).tolist() == [0, 5]
    np.testing.assert_array_equal(state.memory["seen"], LOW["kernel"])
    np.testing.assert_array_equal(told["grads"]["kernel"], GRADS["kernel"])
    np.testing.assert_array_equal(told["masks"]["kernel"], EVEN["kernel"])
    np.testing.assert_array_equal(told["params"]["kernel"], before["kernel"])
    np.testing.assert_array_equal(told["inner_state"][0].trace["bias"], trace["bias"])


def test_a_method_sees_weights_outside_replaced_masks_as_zero() -> None:
    def largest(held: Any, params: Any, grads: Any, **_: Any) -> Any:
        return transforms.MaskUpdate({"bias": None, "kernel": params["kernel"] > 8})

    tx = transforms.sparsify(
        SGD, masks.ones, update_masks=largest, update_at=moved_at(0)
    )
    _, state = apply(tx, PARAMS, transforms.replace_masks(tx.init(PARAMS), EVEN))
    wanted = (PARAMS["kernel"] > 8) & EVEN["kernel"]
    np.testing.assert_array_equal(state.masks["kernel"], wanted)


@pytest.mark.parametrize(
    ("name", "given"), [("update_masks", to_low), ("update_at", moved_at(1))]
)
def test_one_of_two_options_alone_is_refused(name: str, given: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected both .*got only {name}"):
        transforms.sparsify(SGD, masks.ones, **{name: given})


def test_missing_params_are_refused() -> None:
    with pytest.raises(ValueError, match="params: expected the parameters .*got None"):
        FIXED.update(GRADS, FIXED.init(PARAMS))


@pytest.mark.parametrize("count", [0, 2])
def test_other_than_one_sparse_state_is_refused(count: int) -> None:
    tx = optax.chain(*[FIXED] * count, optax.identity())
    state = tx.init(PARAMS)
    for call in (
        lambda: transforms.get_masks(state),
        lambda: transforms.replace_masks(state, EVEN),
        lambda: transforms.replace_key(state, jax.random.key(1)),
    ):
        with pytest.raises(ValueError, match=f"opt_state: expected .*got {count};"):
            call()


def test_fixed_takes_masks_and_checks_their_shape() -> None:
    state = transforms.fixed(SGD, masks=EVEN).init(PARAMS)
    np.testing.assert_array_equal(state.masks["kernel"], EVEN["kernel"])
    wrong = {"bias": None, "kernel": jnp.ones((3, 4), bool)}
    with pytest.raises(
        ValueError, match=r"masks: kernel: expected shape .*got \(3, 4\)"
    ):
        transforms.fixed(SGD, masks=wrong).init(PARAMS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"a": [None], "b": LOW["kernel"]},
            "expected all leaves of the optimizer's masks, .*got no leaf a/0",
        ),
        (
            {"a": [LOW["kernel"]] * 2, "b": LOW["kernel"]},
            "expected only leaves of the .*got the leaf a/1",
        ),
        (
            {"a": [LOW["kernel"].T], "b": LOW["kernel"]},
            r"a/0: expected shape .*got \(3, 4\)",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(given: Any, message: str) -> None:
    params = {"a": [PARAMS["kernel"]], "b": PARAMS["kernel"]}
    tx = transforms.sparsify(
        SGD, lambda tree: masks.ones(tree, prunable=lambda name, leaf: True)
    )
    with pytest.raises(ValueError, match=f"^masks: {message}"):
        transforms.replace_masks(tx.init(params), given)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.chain(optax.clip(1.0), tx),
        lambda tx: optax.named_chain(("clip", optax.clip(1.0)), ("sparse", tx)),
        lambda tx: optax.MultiSteps(tx, 3),
        lambda tx: optax.apply_if_finite(optax.chain(tx), 1),
        lambda tx: optax.inject_hyperparams(lambda rate: tx)(rate=0.1),
        lambda tx: contrib.schedule_free(tx, 0.1),
    ],
)
def test_the_state_is_found_wherever_it_lies(wrap: Any) -> None:
    state = wrap(FIXED).init(PARAMS)
    new = transforms.replace_masks(state, EVEN)
    new = transforms.replace_key(new, jax.random.key(3))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    np.testing.assert_array_equal(transforms.get_masks(new)["kernel"], EVEN["kernel"])
    assert transforms.get_masks(state)["kernel"].all()


def test_memory_goes_by_the_longest_name() -> None:
    # Alike in shape and in the end of their names; the last one is never pruned.
    leaf = PARAMS["kernel"]
    params = {"kernel": leaf, "a": {"kernel": leaf, "b": {"kernel": leaf}}}

    def prunable(name: str, leaf: Any) -> bool:
        return name != "a/b/kernel"

    tx = transforms.sparsify(SGD, lambda tree: masks.ones(tree, prunable=prunable))
    step = jax.jit(tx.update)
    _, state = step(params, tx.init(params), params)
    kept = {"kernel": EVEN["kernel"], "a": {"kernel": LOW["kernel"]}}
    kept["a"]["b"] = {"kernel": None}
    state = transforms.replace_masks(state, kept)
    nothing = jax.tree.map(np.zeros_like, params)
    trace = step(nothing, state, params)[1].inner_state[0].trace
    wanted = 0.9 * leaf
    for got, keep in zip(
        (trace["kernel"], trace["a"]["kernel"], trace["a"]["b"]["kernel"]),
        (EVEN["kernel"], LOW["kernel"], jnp.ones((4, 3), bool)),
        strict=True,
    ):
        np.testing.assert_allclose(got, jnp.where(keep, wanted, 0.0), rtol=1e-6)


def test_lookahead_outside_needs_both_copies_masked() -> None:
    tx = optax.lookahead(FIXED, sync_period=2, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(masks.apply(EVEN, PARAMS))
    state = transforms.replace_masks(tx.init(params), EVEN)
    params, state = apply(tx, *apply(tx, params, state))
    for held in (LOW, EVEN):
        params = optax.LookaheadParams(*(masks.apply(held, p) for p in params))
        state = transforms.replace_masks(state, held)
        for _ in range(3):
            params, state = apply(tx, params, state)
            for copy in params:
                assert not copy["kernel"][~held["kernel"]].any()


def test_private_gradients_are_summed_before() -> None:
    private = contrib.differentially_private_aggregate(1.0, 0.1, key=0)
    tx = optax.chain(private, transforms.fixed(SGD, masks=EVEN))
    each = jax.tree.map(lambda leaf: jnp.stack([leaf, -2 * leaf]), GRADS)
    updates, _ = jax.jit(tx.update)(each, tx.init(PARAMS), PARAMS)
    after = optax.apply_updates(PARAMS, updates)["kernel"]
    np.testing.assert_array_equal(after != 0, EVEN["kernel"])
