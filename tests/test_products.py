"""Convolution as a product and pooling by reshaping: exactly what linen computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse import models
from jaxsparse.models import products


def whole(seed: int, *shape: int) -> jax.Array:
    """Small whole numbers: sums of their products are exact in any order."""
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.integers(-4, 5, shape), jnp.float32)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    image=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["SAME", "VALID", ((0, 2), (1, 0))]),
)
def test_the_product_is_the_convolution(size, steps, image, channels, padding):
    x, kernel = whole(0, 2, *image, channels[0]), whole(1, *size, *channels)
    numbers = ("NHWC", "HWIO", "NHWC")

    def library(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, steps, padding, dimension_numbers=numbers
        )

    def product(x, kernel):
        return products.convolve(x, kernel, steps, padding)

    wanted, pull = jax.vjp(library, x, kernel)
    got, pulled = jax.vjp(product, x, kernel)
    np.testing.assert_array_equal(got, wanted)
    direction = whole(2, *wanted.shape)
    for mine, theirs in zip(pulled(direction), pull(direction), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=25, deadline=None)
@given(
    image=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 99),
    values=st.sampled_from([1, 2, 3, 1000]),  # few of them: ties in most windows
)
def test_pooling_is_that_of_linen(image, seed, values):
    drawn = np.random.default_rng(seed).integers(0, values, (2, *image, 3))
    x = jnp.asarray(drawn - values // 2, jnp.float32)
    wanted, pull = jax.vjp(products.pool_windows, x)
    got, pulled = jax.vjp(products.pool, x)
    np.testing.assert_array_equal(got, wanted)
    direction = whole(seed, *wanted.shape)
    np.testing.assert_array_equal(pulled(direction)[0], pull(direction)[0])


def test_what_is_not_a_number_is_pooled():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    for row, column in np.ndindex(4, 4):
        got = products.pool(x.at[0, row, column, 0].set(jnp.nan))[0, :, :, 0]
        assert np.argwhere(np.isnan(got)).tolist() == [[row // 2, column // 2]]


def test_ties_of_a_constant_background_leave_the_dense_gradient_linens():
    """What RigL grows by: weights that no mask has see other places than those it has.

    In float64, so that ties are ties in both networks and sums equal.
    """

    def conv(*args, **fields):
        return nn.Conv(*args, conv_general_dilated=products.convolve, **fields)

    with jax.enable_x64(True):
        images = jnp.zeros((4, 28, 28, 1)).at[:, 8:20, 10:18].set(1.0)
        networks = [
            models.LeNet5(padding="VALID", conv=conv, pool=products.pool),
            models.LeNet5(padding="VALID"),
        ]
        params = networks[1].init(jax.random.key(1), images, train=False)["params"]
        drawn = np.random.default_rng(0)
        sparse = jax.tree.map(lambda w: w * (drawn.random(w.shape) < 0.1), params)

        def loss(weights, model):
            logits = model.apply({"params": weights}, images, train=True)
            return jnp.sum(nn.log_softmax(logits)[:, 3])

        ours, linens = (jax.grad(loss)(sparse, model) for model in networks)
    for mine, theirs in zip(*map(jax.tree.leaves, (ours, linens)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)


def test_pooled_zeros_of_relu_pass_no_gradient():
    x = -jnp.ones((1, 4, 4, 1))
    grads = jax.grad(lambda x: jnp.sum(products.pool(nn.relu(x))))(x)
    assert not np.any(np.asarray(grads))


@pytest.mark.parametrize(
    ("name", "value"),
    [("feature_group_count", 3), ("rhs_dilation", (2, 1)), ("lhs_dilation", (1, 2))],
)
def test_what_it_cannot_do_is_refused(name, value):
    x, kernel = jnp.ones((1, 6, 6, 3)), jnp.ones((3, 3, 3, 3))
    with pytest.raises(ValueError, match=r"nn\.Conv's own convolution"):
        products.convolve(x, kernel, (1, 1), "SAME", **{name: value})


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_lenet_5_is_the_same_network_either_way(padding: str) -> None:
    def conv(*args, **fields):
        return nn.Conv(*args, conv_general_dilated=products.convolve, **fields)

    with jax.enable_x64(True):
        images = jax.random.normal(jax.random.key(0), (3, 28, 28, 1), jnp.float64)
        ours = models.LeNet5(padding=padding, conv=conv, pool=products.pool)
        linens = models.LeNet5(padding=padding)
        variables = linens.init(jax.random.key(1), images, train=False)
        again = ours.init(jax.random.key(1), images, train=False)
        assert jax.tree.structure(again) == jax.tree.structure(variables)

        def loss(variables, model):
            return jnp.sum(model.apply(variables, images, train=True) ** 2)

        values = [jax.value_and_grad(loss)(variables, m) for m in (ours, linens)]
    for mine, theirs in zip(*map(jax.tree.leaves, values), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)
