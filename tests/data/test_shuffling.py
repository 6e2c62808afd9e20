"""Which examples a step sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse.data import shuffling

pytestmark = pytest.mark.keys_used_once


@pytest.mark.parametrize(
    ("examples", "batch_size", "drop_last", "steps"),
    [
        (60_000, 128, False, 469),  # MNIST in open_lth
        (60_000, 128, True, 468),
        (50_000, 128, False, 391),  # CIFAR-10 in open_lth
        (50_000, 128, True, 390),  # CIFAR-10 in "Lottery Tickets on a Data Diet"
        (1437, 100, False, 15),
        (100, 100, False, 1),
        (100, 100, True, 1),
        (99, 100, False, 1),
        (1, 1, True, 1),
    ],
)
def test_steps_per_epoch(
    examples: int, batch_size: int, drop_last: bool, steps: int
) -> None:
    got = shuffling.steps_per_epoch(
        examples, batch_size=batch_size, drop_last=drop_last
    )
    assert got == steps


@pytest.mark.parametrize(
    ("examples", "batch_size", "drop_last"),
    [(99, 100, True), (10, 0, False), (10, -1, True), (0, 1, False)],
)
def test_impossible_batches_are_refused(
    examples: int, batch_size: int, drop_last: bool
) -> None:
    with pytest.raises(ValueError, match=f"batch_size: expected .*got {batch_size}"):
        shuffling.steps_per_epoch(examples, batch_size=batch_size, drop_last=drop_last)


def test_an_epoch_visits_every_example_once() -> None:
    got = shuffling.epoch_order(jax.random.key(0), epoch=3, examples=1000)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(got), np.arange(1000))
    assert (np.asarray(got) != np.arange(1000)).any()


def test_order_depends_on_key_and_epoch_and_nothing_else() -> None:
    def draw(seed: int, epoch: int) -> list[int]:
        key = jax.random.key(seed)
        return shuffling.epoch_order(key, epoch=epoch, examples=50).tolist()

    assert draw(0, 1) == draw(0, 1)
    assert len({tuple(draw(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_traced_epoch_and_many_keys_give_the_same_orders() -> None:
    keys = jax.random.split(jax.random.key(0), 3)

    @jax.jit
    def orders(keys: jax.Array, epoch: jax.Array) -> jax.Array:
        return jax.vmap(
            lambda key: shuffling.epoch_order(key, epoch=epoch, examples=64)
        )(keys)

    together = orders(keys, jnp.int32(5))
    for i in range(3):
        alone = shuffling.epoch_order(keys[i], epoch=5, examples=64)
        np.testing.assert_array_equal(together[i], alone)
