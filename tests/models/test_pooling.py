"""Pooling by reshaping: exactly what linen computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsparse.models import pooling


@jax.jit
def both(x: jax.Array, direction: jax.Array) -> list[jax.Array]:
    """The values and gradients of ours and of linen's."""
    found = []
    for function in (pooling.pool, pooling.pool_windows):
        y, pull = jax.vjp(function, x)
        found += [y, *pull(direction)]
    return found


@pytest.mark.parametrize("image", [(2, 2), (5, 8), (6, 7)])
def test_pooling_is_that_of_linen(image: tuple[int, int]) -> None:
    """One program for each shape of images."""
    for seed, values in enumerate((1, 2, 3, 1000)):  # few: ties in most windows
        draw = np.random.default_rng(seed)
        x = draw.integers(0, values, (2, *image, 3)) - values // 2
        direction = draw.integers(-4, 5, (2, image[0] // 2, image[1] // 2, 3))
        got, pulled, wanted, pull = both(
            x.astype(np.float32), direction.astype(np.float32)
        )
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(pulled, pull)


def test_what_is_not_a_number_is_pooled() -> None:
    x = np.tile(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1), (16, 1, 1, 1))
    for number, place in enumerate(np.ndindex(4, 4)):
        x[number, *place, 0] = np.nan
    got = np.asarray(jax.jit(pooling.pool)(x))[..., 0]
    for number, (row, column) in enumerate(np.ndindex(4, 4)):
        assert np.argwhere(np.isnan(got[number])).tolist() == [[row // 2, column // 2]]


def test_pooled_zeros_of_relu_pass_no_gradient() -> None:
    slope = jax.jit(jax.grad(lambda x: jnp.sum(pooling.pool(nn.relu(x)))))
    assert not np.any(np.asarray(slope(-np.ones((1, 4, 4, 1), np.float32))))
