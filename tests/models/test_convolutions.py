"""Convolution with its gradients spelled out: exactly what JAX computes."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsparse import models
from jaxsparse.models import pooling, row_products
from jaxsparse.models.convolutions import AT_ONCE, ORDER, convolve

LIBRARY = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=ORDER)


def whole(seed: int, *shape: int) -> np.ndarray:
    """Small whole numbers: sums of their products are exact in any order."""
    draw = np.random.default_rng(seed)
    return draw.integers(-4, 5, shape).astype(np.float32)


def results(
    convolve: Callable, x: jax.Array, kernel: jax.Array, *how: object, **fields: object
) -> list[jax.Array]:
    """The maps, and both gradients of a sum of them."""
    y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, *how, **fields), x, kernel)
    return [y, *pull(jnp.asarray(whole(2, *y.shape), y.dtype))]


def assert_same(mine: list, theirs: list) -> None:
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def assert_as_jax(
    function: Callable, x: np.ndarray, kernel: np.ndarray, *how: object, **fields: Any
) -> None:
    """Compares a function of a convolution with that of JAX's, in one program."""

    @jax.jit
    def both(x: jax.Array, kernel: jax.Array) -> list[Any]:
        return [function(c, x, kernel, *how, **fields) for c in (convolve, LIBRARY)]

    assert_same(*both(x, kernel))


@pytest.mark.parametrize(
    ("size", "steps", "image", "padding", "each"),
    [
        ((3, 3), (1, 1), (5, 6), ((1, 0), (2, 3)), False),
        ((2, 4), (1, 1), (7, 6), ((-1, 2), (0, -1)), False),
        ((3, 3), (1, 1), (6, 5), "SAME", False),
        ((3, 2), (2, 3), (7, 9), "VALID", False),  # the last pixels are in no window
        ((2, 4), (3, 2), (9, 7), ((0, 2), (1, 0)), False),
        ((4, 3), (2, 1), (6, 9), ((3, 0), (2, 4)), False),
        ((3, 3), (2, 2), (8, 7), ((-1, 0), (1, -2)), False),
        ((1, 1), (2, 3), (5, 7), ((-1, 0), (1, 2)), False),
        ((4, 4), (1, 1), (4, 4), ((-1, 0), (1, -2)), False),  # no maps
        ((2, 3), (2, 1), (7, 6), ((-1, 0), (3, -2)), True),  # see test_depthwise.py
    ],
)
def test_maps_and_gradients_are_those_of_jax(size, steps, image, padding, each):
    inputs, outputs = 2, 3
    x = whole(0, 2, *image, inputs)
    kernel = whole(1, *size, 1 if each else inputs, outputs * (inputs if each else 1))
    fields = {"feature_group_count": inputs if each else 1}
    assert_as_jax(results, x, kernel, steps, padding, **fields)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((-1, 2), (3, 0))])
def test_many_and_few_channels_are_convolved_as_by_jax(padding: Any) -> None:
    """On both sides of the limit of `row_products`, in one program."""
    for inputs, outputs in ((16, 8), (16, 9)):
        kernel = whole(1, 3, 2, inputs, outputs)
        assert row_products.is_faster(jnp.asarray(kernel)) == (outputs == 8)
        x = whole(0, row_products.AT_ONCE + 3, 5, 4, inputs)
        assert_as_jax(results, x, kernel, (1, 1), padding)


@pytest.mark.parametrize("batch", [AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE - 1])
def test_parts_and_the_rest_of_a_batch_add_up(batch: int) -> None:
    x, kernel = whole(0, batch, 5, 6, 2), whole(1, 3, 3, 2, 3)
    assert_as_jax(results, x, kernel, (2, 1), ((1, 1), (1, 1)))


def test_gradients_can_be_differentiated_again() -> None:
    """As rescaling does by reverse mode, and the Hessian forward over reverse."""
    x, kernel = whole(0, 2 * AT_ONCE + 3, 5, 4, 2), whole(1, 3, 3, 2, 3)
    along = whole(3, *kernel.shape)

    def second(convolve: Callable, x: jax.Array, kernel: jax.Array) -> list[Any]:
        def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
            y = convolve(x, kernel, (1, 1), "SAME")
            return jnp.sum(y * y)

        slope = jax.grad(loss)
        length = jax.grad(lambda k, x: jnp.sum(slope(k, x) * along), (0, 1))
        forward = jax.jvp(lambda k: slope(k, x), (kernel,), (along,))[1]
        return [*length(kernel, x), forward]

    assert_as_jax(second, x, kernel)


def test_replicates_are_convolved_as_each_alone() -> None:
    x, kernels = whole(0, 2, AT_ONCE + 2, 5, 4, 2), whole(1, 2, 3, 3, 2, 3)

    def one(x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
        return results(convolve, x, kernel, (1, 1), "SAME")

    together, alone = jax.jit(jax.vmap(one))(x, kernels), jax.jit(one)
    for i in range(2):
        assert_same(
            [leaf[i] for leaf in map(np.asarray, together)], alone(x[i], kernels[i])
        )


def test_parts_are_summed_in_float32() -> None:
    """In bfloat16 256 + 1 is 256 again: parts of one would be lost."""
    x = np.full((9 * AT_ONCE, 3, 3, 1), 1 / AT_ONCE, jnp.bfloat16)
    x[:AT_ONCE] = 256 / AT_ONCE
    kernel = np.ones((3, 3, 1, 1), jnp.bfloat16)

    def total(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(convolve(x, kernel, (1, 1), "VALID").astype(jnp.float32))

    found = jax.jit(jax.grad(total))(kernel, x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(found, np.float32), 264.0)


@pytest.mark.parametrize("size", [1, 3])
def test_wider_maps_have_gradients_too(size: int) -> None:
    x, kernel = whole(0, 2, 5, 4, 2), whole(1, size, size, 2, 3)
    narrow = (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    wide = {"preferred_element_type": jnp.float32}
    assert_as_jax(results, *narrow, (1, 1), "SAME", **wide)


@pytest.mark.parametrize(
    ("kernel", "dtype", "groups"),
    [
        ((1, 1, 2, 2), jnp.float32, 1),
        ((1, 1, 3, 2), jnp.bfloat16, 1),
        ((3, 3, 1, 6), jnp.float32, 2),
    ],
)
def test_what_does_not_fit_is_refused_as_by_jax(kernel, dtype, groups) -> None:
    like = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    words = []
    for function in (convolve, LIBRARY):
        of_groups = functools.partial(
            function,
            window_strides=(1, 1),
            padding="SAME",
            feature_group_count=groups,
        )
        with pytest.raises((TypeError, ValueError)) as error:
            jax.eval_shape(of_groups, like, jax.ShapeDtypeStruct(kernel, dtype))
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

    def program(convolve: Callable) -> str:
        how = ((1, 1), ((1, 1), (1, 1)))
        call = lambda x, kernel: results(convolve, x, kernel, *how, **fields)  # noqa: E731
        return str(jax.make_jaxpr(call)(x, kernel))

    assert program(convolve) == program(LIBRARY)


def test_all_three_have_the_fast_order_and_parts_are_small() -> None:
    x = jax.ShapeDtypeStruct((4 * AT_ONCE, 8, 8, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 50), jnp.float32)

    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(convolve(nn.relu(x), kernel, (1, 1), "SAME") ** 2)

    text = jax.jit(jax.grad(loss, (0, 1))).lower(kernel, x).as_text()
    every = re.findall(r"convolution\(.*dim_numbers = (.*), window.*: \((\S+),", text)
    assert {order for order, _ in every} == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    part, side = f"tensor<3x10x10x{AT_ONCE}xf32>", f"tensor<{4 * AT_ONCE}x8x8x"
    inputs = {first for _, first in every}
    assert inputs == {f"{side}3xf32>", f"{side}50xf32>", part}


def test_few_channels_are_products_of_matrices() -> None:
    """But for the gradient of the kernel, and convolutions with strides."""
    x = jax.ShapeDtypeStruct((row_products.AT_ONCE, 8, 8, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)

    def count(step: int) -> tuple[int, int]:
        def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.sum(convolve(x, kernel, (step, step), "SAME") ** 2)

        text = jax.jit(jax.grad(loss, (0, 1))).lower(kernel, x).as_text()
        return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")

    assert [count(step) for step in (1, 2)] == [(1, 2), (3, 0)]


def assert_same_network(
    padding: str, images: np.ndarray, objective: Callable, density: float
) -> None:
    """Compares values and gradients of LeNet-5 with ours and with linen's layers.

    In float64, so that ties are ties in both networks and sums equal. One program.
    """
    conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
    with jax.enable_x64(True):
        images = jnp.asarray(images)
        ours = models.LeNet5(padding=padding, conv=conv, pool=pooling.pool)
        linens = models.LeNet5(padding=padding)
        like, again = (
            jax.eval_shape(
                functools.partial(m.init, train=False), jax.random.key(1), images
            )
            for m in (linens, ours)
        )
        assert jax.tree.structure(again) == jax.tree.structure(like)
        draw = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda leaf: (
                0.1 * draw.normal(size=leaf.shape) * (draw.random(leaf.shape) < density)
            ),
            like,
        )

        def loss(variables: Any, model: nn.Module) -> jax.Array:
            return objective(model.apply(variables, images, train=True))

        @jax.jit
        def both(variables: Any) -> Any:
            return [jax.value_and_grad(loss)(variables, m) for m in (ours, linens)]

        values = both(variables)
    for mine, theirs in zip(*map(jax.tree.leaves, values), strict=True):
        assert mine.dtype == np.float64 and np.any(np.asarray(mine) != 0)
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11)


def test_ties_of_a_constant_background_leave_the_dense_gradient_linens():
    """What RigL grows by: weights that no mask has see other places than those it has.

    The weights of kernels and biases are 90 % zeros, so that maxima occur many times.
    """
    images = np.zeros((4, 28, 28, 1))
    images[:, 8:20, 10:18] = 1.0
    chosen = lambda logits: jnp.sum(nn.log_softmax(logits)[:, 3])  # noqa: E731
    assert_same_network("VALID", images, chosen, density=0.1)


def test_lenet_5_is_the_same_network_either_way() -> None:
    images = np.random.default_rng(1).normal(size=(3, 28, 28, 1))
    assert_same_network("SAME", images, lambda logits: jnp.sum(logits**2), density=1.0)
