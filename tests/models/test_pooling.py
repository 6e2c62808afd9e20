"""Pooling by reshaping: exactly what linen computes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse.models import pooling


@settings(max_examples=25, deadline=None)
@given(
    image=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 99),
    values=st.sampled_from([1, 2, 3, 1000]),  # few of them: ties in most windows
)
def test_pooling_is_that_of_linen(image, seed, values):
    drawn = np.random.default_rng(seed).integers(0, values, (2, *image, 3))
    x = jnp.asarray(drawn - values // 2, jnp.float32)
    wanted, pull = jax.vjp(pooling.pool_windows, x)
    got, pulled = jax.vjp(pooling.pool, x)
    np.testing.assert_array_equal(got, wanted)
    drawn = np.random.default_rng(seed).integers(-4, 5, wanted.shape)
    direction = jnp.asarray(drawn, jnp.float32)
    np.testing.assert_array_equal(pulled(direction)[0], pull(direction)[0])


def test_what_is_not_a_number_is_pooled():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    for row, column in np.ndindex(4, 4):
        got = pooling.pool(x.at[0, row, column, 0].set(jnp.nan))[0, :, :, 0]
        assert np.argwhere(np.isnan(got)).tolist() == [[row // 2, column // 2]]


def test_pooled_zeros_of_relu_pass_no_gradient():
    x = -jnp.ones((1, 4, 4, 1))
    grads = jax.grad(lambda x: jnp.sum(pooling.pool(nn.relu(x))))(x)
    assert not np.any(np.asarray(grads))
