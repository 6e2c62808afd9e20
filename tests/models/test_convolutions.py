"""Convolution with its gradients spelled out: exactly what JAX computes."""

import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse import models
from jaxsparse.models import pooling
from jaxsparse.models.convolutions import AT_ONCE, ORDER, convolve

LIBRARY = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=ORDER)


def whole(seed: int, *shape: int) -> jax.Array:
    """Small whole numbers: sums of their products are exact in any order."""
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.integers(-4, 5, shape), jnp.float32)


def results(
    convolve: Callable, x: jax.Array, kernel: jax.Array, *how: object, **fields: object
) -> list[jax.Array]:
    """The maps, and both gradients of a sum of them."""
    y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, *how, **fields), x, kernel)
    return [y, *pull(whole(2, *y.shape).astype(y.dtype))]


def assert_same(mine: list, theirs: list) -> None:
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    image=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(
        ["SAME", "VALID", ((0, 2), (1, 0)), ((3, 0), (2, 4)), ((-1, 0), (1, -2))]
    ),
    each=st.booleans(),
)
def test_maps_and_gradients_are_those_of_jax(
    size, steps, image, channels, padding, each
):
    """Also where windows do not fit, and there are no maps."""
    inputs, outputs = channels
    x = whole(0, 2, *image, inputs)
    kernel = whole(1, *size, 1 if each else inputs, outputs * (inputs if each else 1))
    fields = {"feature_group_count": inputs if each else 1}
    how = (x, kernel, steps, padding)
    assert_same(results(convolve, *how, **fields), results(LIBRARY, *how, **fields))


@pytest.mark.parametrize(
    "batch", [1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE, 3 * AT_ONCE - 1]
)
def test_parts_and_the_rest_of_a_batch_add_up(batch: int) -> None:
    x, kernel = whole(0, batch, 5, 6, 2), whole(1, 3, 3, 2, 3)
    how = (x, kernel, (2, 1), ((1, 1), (1, 1)))
    assert_same(results(convolve, *how), results(LIBRARY, *how))


def test_gradients_can_be_differentiated_again() -> None:
    """As rescaling does by reverse mode, and the Hessian forward over reverse."""
    x, kernel = whole(0, 2 * AT_ONCE + 3, 5, 4, 2), whole(1, 3, 3, 2, 3)
    along = whole(3, *kernel.shape)

    def second(convolve: Callable) -> list[jax.Array]:
        def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
            y = convolve(x, kernel, (1, 1), "SAME")
            return jnp.sum(y * y)

        slope = jax.grad(loss)
        length = jax.grad(lambda k, x: jnp.sum(slope(k, x) * along), (0, 1))
        forward = jax.jvp(lambda k: slope(k, x), (kernel,), (along,))[1]
        return [*length(kernel, x), forward]

    assert_same(second(convolve), second(LIBRARY))


def test_replicates_are_convolved_as_each_alone() -> None:
    x, kernels = whole(0, 2, AT_ONCE + 2, 5, 4, 2), whole(1, 2, 3, 3, 2, 3)

    def one(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
        return results(convolve, x, kernel, (1, 1), "SAME")

    together = jax.vmap(one)(x, kernels)
    for i in range(2):
        assert_same([leaf[i] for leaf in together], one(x[i], kernels[i]))


def test_parts_are_summed_in_float32() -> None:
    """In bfloat16 256 + 1 is 256 again: parts of one would be lost."""
    x = jnp.full((9 * AT_ONCE, 3, 3, 1), 1 / AT_ONCE, jnp.bfloat16)
    x = x.at[:AT_ONCE].set(256 / AT_ONCE)
    kernel = jnp.ones((3, 3, 1, 1), jnp.bfloat16)

    def total(kernel: jax.Array) -> jax.Array:
        return jnp.sum(convolve(x, kernel, (1, 1), "VALID").astype(jnp.float32))

    found = jax.grad(total)(kernel)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(found, np.float32), 264.0)


@pytest.mark.parametrize("size", [1, 3])
def test_wider_maps_have_gradients_too(size: int) -> None:
    x, kernel = whole(0, 2, 5, 4, 2), whole(1, size, size, 2, 3)
    how = (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), (1, 1), "SAME")
    wide = {"preferred_element_type": jnp.float32}
    assert_same(results(convolve, *how, **wide), results(LIBRARY, *how, **wide))


@pytest.mark.parametrize(
    ("x", "kernel", "groups"),
    [
        (jnp.ones((1, 4, 4, 3)), jnp.ones((1, 1, 2, 2)), 1),
        (jnp.ones((1, 4, 4, 3)), jnp.ones((1, 1, 3, 2), jnp.bfloat16), 1),
        (jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 1, 6)), 2),
    ],
)
def test_what_does_not_fit_is_refused_as_by_jax(x, kernel, groups) -> None:
    words = []
    for function in (convolve, LIBRARY):
        with pytest.raises((TypeError, ValueError)) as error:
            function(x, kernel, (1, 1), "SAME", feature_group_count=groups)
        words.append(str(error.value))
    assert words[0] == words[1]


@pytest.mark.parametrize(
    ("channels", "fields"),
    [
        (4, {"feature_group_count": 2}),
        (2, {"rhs_dilation": (2, 1)}),
        (2, {"lhs_dilation": (1, 2)}),
    ],
)
def test_the_rest_is_left_to_jax(channels: int, fields: dict) -> None:
    x, kernel = whole(0, 2, 6, 6, channels), whole(1, 3, 3, 2, 4)
    how = (x, kernel, (1, 1), ((1, 1), (1, 1)))
    assert_same(results(convolve, *how, **fields), results(LIBRARY, *how, **fields))


def test_all_three_have_the_fast_order_and_parts_are_small() -> None:
    x = jnp.ones((4 * AT_ONCE, 8, 8, 3))
    kernel = jnp.ones((3, 3, 3, 5))

    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(convolve(nn.relu(x), kernel, (1, 1), "SAME") ** 2)

    text = jax.jit(jax.grad(loss, (0, 1))).lower(kernel, x).as_text()
    every = re.findall(r"convolution\(.*dim_numbers = (.*), window.*: \((\S+),", text)
    assert {order for order, _ in every} == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    part, side = f"tensor<3x10x10x{AT_ONCE}xf32>", f"tensor<{4 * AT_ONCE}x8x8x"
    inputs = {first for _, first in every}
    assert inputs == {f"{side}3xf32>", f"{side}5xf32>", part}


def test_ties_of_a_constant_background_leave_the_dense_gradient_linens():
    """What RigL grows by: weights that no mask has see other places than those it has.

    In float64, so that ties are ties in both networks and sums equal.
    """

    conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
    with jax.enable_x64(True):
        images = jnp.zeros((4, 28, 28, 1)).at[:, 8:20, 10:18].set(1.0)
        networks = [
            models.LeNet5(padding="VALID", conv=conv, pool=pooling.pool),
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


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_lenet_5_is_the_same_network_either_way(padding: str) -> None:
    conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
    with jax.enable_x64(True):
        images = jax.random.normal(jax.random.key(0), (3, 28, 28, 1), jnp.float64)
        ours = models.LeNet5(padding=padding, conv=conv, pool=pooling.pool)
        linens = models.LeNet5(padding=padding)
        variables = linens.init(jax.random.key(1), images, train=False)
        again = ours.init(jax.random.key(1), images, train=False)
        assert jax.tree.structure(again) == jax.tree.structure(variables)

        def loss(variables, model):
            return jnp.sum(model.apply(variables, images, train=True) ** 2)

        values = [jax.value_and_grad(loss)(variables, m) for m in (ours, linens)]
    for mine, theirs in zip(*map(jax.tree.leaves, values), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)
