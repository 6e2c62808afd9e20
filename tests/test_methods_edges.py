"""Sparse training where it is easily got wrong: replaced masks, schedules, room."""

from typing import Any

import jax
import jaxtyping
import numpy as np
import optax
import pytest
from helpers.campaigns import some

from jaxsparse import masks, transforms

SGD = optax.sgd(0.01, momentum=0.9)
WEIGHTS = np.random.default_rng(3).normal(size=(40, 25)).astype(np.float32)


def params() -> dict[str, Any]:
    return {"kernel": jax.device_put(WEIGHTS)}


def follow(tx: Any, updates: int, change: Any = None) -> list[list[int]]:
    """Counts the weights after each update; again with masks changed before some."""
    step, init, every = jax.jit(tx.update), jax.jit(tx.init), []
    grads = {"kernel": 0.1 * WEIGHTS}
    for changes in (None, change) if change else (None,):
        weights, counts = params(), []
        state = init(weights)
        weights = transforms.stored_params(weights, state)
        for i in range(updates):
            state = changes(i, state) if changes else state
            found, state = step(grads, state, weights)
            weights = optax.apply_updates(weights, found)
            counts.append(masks.num_active(transforms.get_masks(state)))
        every.append(counts)
    return every


def test_soft_bound_knows_masks_that_were_replaced() -> None:
    tx = transforms.mest(
        SGD,
        sparsity=0.5,
        updates=transforms.MESTOptions(
            drop_fraction=0.3, drop_schedule="constant", soft_bound=True
        ),
        update_every=2,
        end_step=10,
    )
    few = {"kernel": jax.device_put(np.arange(1000).reshape(40, 25) < 100)}

    def replace(i: int, state: Any) -> Any:
        return transforms.replace_masks(state, few) if i == 5 else state

    before, after = follow(tx, 12, replace)
    assert before == [500, 500, *[650] * 8, 500, 500]
    assert after[5:] == [100, *[130] * 4, 100, 100]


@pytest.mark.parametrize("by_sign", some([True, False], always=[True]))
def test_the_count_stays_where_there_is_little_room(by_sign: bool) -> None:
    tx = transforms.sparse_evolution(
        SGD,
        sparsity=0.3,
        updates=transforms.SparseEvolutionOptions(
            drop_fraction=0.6, drop_by_sign=by_sign, allow_regrow=False
        ),
        update_every=1,
    )
    assert follow(tx, 6) == [[700] * 6]


def test_masks_of_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else it refuses
    ones = {"kernel": WEIGHTS}
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
            ramp=transforms.SparsityRamp(initial_sparsity=initial),
            begin_step=0,
            end_step=7,
            layers=transforms.LayerOptions(
                distribution="global", min_layer_density=0.2
            ),
        )
        with pytest.raises(ValueError, match="min_layer_density=0.2"):
            tx.init(params())


def test_patterns_that_only_leave_out_take_other_kernels() -> None:
    weights = {
        "a": params(),
        "head": params(),
        "b": {"bias": jax.device_put(np.ones((3, 3), np.float32))},
    }
    found = masks.ones(weights, prunable=("!head/*",))
    assert masks.names(found) == ["a/kernel"]
    np.testing.assert_array_equal(found["a"]["kernel"], True)
