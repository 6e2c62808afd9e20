"""Sparse training where it is easily got wrong: donation, replaced masks, schedules."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

from jaxsparse import masks, transforms
from jaxsparse.transforms import update_schedules

SGD = optax.sgd(0.01, momentum=0.9)


def params() -> dict[str, Any]:
    return {"kernel": jax.random.normal(jax.random.key(3), (40, 25))}


def follow(tx: Any, updates: int, change: Any = None) -> list[int]:
    """Trains on a fixed gradient, and counts the weights after each update."""
    weights = params()
    grads = jax.tree.map(lambda leaf: 0.1 * leaf, weights)
    state = tx.init(weights)
    weights = transforms.stored_params(weights, state)
    step = jax.jit(tx.update)
    counts = []
    for i in range(updates):
        if change is not None:
            state = change(i, state)
        found, state = step(grads, state, weights)
        weights = optax.apply_updates(weights, found)
        counts.append(masks.num_active(transforms.get_masks(state)))
    return counts


def make(method: str, key: Any) -> Any:
    common = {"sparsity": 0.8, "update_every": 2}
    if method == "ste":
        return transforms.straight_through(SGD, **common, train_all=False)
    if method == "ac_dc":
        return transforms.ac_dc(SGD, **common, begin_step=1, end_step=9)
    if method == "fixed":
        return transforms.fixed(SGD)
    return getattr(transforms, method)(SGD, **common, key=key, drop_schedule="constant")


@pytest.mark.parametrize(
    "method", ["fixed", "ac_dc", "ste", "rigl", "sparse_evolution", "snfs", "mest"]
)
def test_a_donated_state_takes_nothing_along(method: str) -> None:
    key = jax.random.key(5)
    tx = make(method, key)

    def step(state: Any, grads: Any) -> Any:
        weights, opt_state = state
        updates, opt_state = tx.update(grads, opt_state, weights)
        return optax.apply_updates(weights, updates), opt_state

    step = jax.jit(step, donate_argnums=0)
    for _ in range(2):  # a second start finds everything as the first did
        weights = params()
        state = (jax.tree.map(jnp.copy, weights), tx.init(weights))
        for _ in range(3):
            state = step(state, weights)
        jax.block_until_ready(state)
    assert not key.is_deleted()


def test_soft_bound_knows_masks_that_were_replaced() -> None:
    tx = transforms.mest(
        SGD,
        sparsity=0.5,
        drop_fraction=0.3,
        drop_schedule="constant",
        update_every=2,
        end_step=10,
        soft_bound=True,
    )
    assert follow(tx, 12) == [500, 500, *[650] * 8, 500, 500]
    few = {"kernel": jnp.arange(1000).reshape(40, 25) < 100}

    def replace(i: int, state: Any) -> Any:
        return transforms.replace_masks(state, few) if i == 5 else state

    assert follow(tx, 12, replace)[5:] == [100, *[130] * 4, 100, 100]


@pytest.mark.parametrize("by_sign", [True, False])
def test_the_count_stays_where_there_is_little_room(by_sign: bool) -> None:
    tx = transforms.sparse_evolution(
        SGD,
        sparsity=0.3,
        drop_fraction=0.6,
        update_every=1,
        drop_by_sign=by_sign,
        allow_regrow=False,
    )
    assert follow(tx, 6) == [700] * 6


def test_rates_that_warm_up_are_compared_with_their_largest() -> None:
    calendar = update_schedules.UpdateSchedule(2, 2, 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.4, 4, 10)
    found = update_schedules.drop_fractions(calendar, fraction=0.5, schedule=rate)
    parts = [top / bottom for top, bottom in found]
    assert parts == pytest.approx([0.5 * float(rate(t)) / 0.4 for t in (2, 4, 6, 8)])
    assert max(parts) == 0.5
    for bad in (lambda step: 0.0, lambda step: float("nan"), lambda step: -1.0):
        with pytest.raises(ValueError, match="drop_schedule: expected finite values"):
            update_schedules.drop_fractions(calendar, fraction=0.5, schedule=bad)


@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.95, 0.99])
def test_an_exponential_schedule_may_stay_where_it_is(sparsity: float) -> None:
    calendar = update_schedules.UpdateSchedule(0, 1, 7, include_end=True)
    found = update_schedules.gradual_sparsities(
        calendar, initial=sparsity, final=sparsity, schedule="exponential"
    )
    assert set(found) == {Fraction(str(sparsity))}
    tx = transforms.gradual_magnitude(
        SGD,
        sparsity=sparsity,
        initial_sparsity=sparsity,
        begin_step=0,
        end_step=7,
        schedule="exponential",
    )
    assert set(follow(tx, 3)) == {round(1000 * (1 - sparsity))}


def test_masks_of_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else it refuses
    ones = {"kernel": jnp.ones((40, 25))}
    with pytest.raises(
        ValueError, match="kernel: expected a boolean array, got float32"
    ):
        transforms.fixed(SGD, masks=ones).init(params())
    state = transforms.fixed(SGD).init(params())
    with pytest.raises(
        ValueError, match="kernel: expected a boolean array, got float32"
    ):
        transforms.replace_masks(state, ones)


def test_what_a_table_cannot_reach_is_refused_at_init() -> None:
    for initial in (0.0, 0.2):
        tx = transforms.gradual_magnitude(
            SGD,
            sparsity=0.9,
            initial_sparsity=initial,
            begin_step=0,
            end_step=7,
            distribution="global",
            min_layer_density=0.2,
        )
        with pytest.raises(ValueError, match="min_layer_density=0.2"):
            tx.init(params())


def test_patterns_that_only_leave_out_take_other_kernels() -> None:
    weights = {"a": params(), "head": params(), "b": {"bias": jnp.ones((3, 3))}}
    found = masks.ones(weights, prunable=("!head/*",))
    assert masks.names(found) == ["a/kernel"]
    np.testing.assert_array_equal(found["a"]["kernel"], True)
