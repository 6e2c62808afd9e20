"""BatchNorm with sums in another order: linen's values, gradients and statistics."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsparse.models import layers
from jaxsparse.models.normalization import AT_ONCE

Layers = tuple[nn.Module, nn.Module]


def pair(**fields: Any) -> Layers:
    """Our layer and linen's."""
    both = (layers.FAST_BATCH_NORM, layers.BATCH_NORM)
    return tuple(layer(use_running_average=False, **fields) for layer in both)


def maps(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    """Feature maps whose channels have different means and deviations."""
    draw = np.random.default_rng(0)
    scale, shift = np.arange(1, shape[-1] + 1), np.arange(shape[-1]) - 0.5
    return (draw.normal(size=shape) * scale + shift).astype(dtype)


def variables_of(layer: nn.Module, x: np.ndarray) -> Any:
    found = jax.eval_shape(layer.init, jax.random.key(0), x)
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: draw.uniform(0.5, 2, leaf.shape), found)


def trained(layer: nn.Module, variables: Any, x: jax.Array, g: jax.Array) -> Any:
    """Values, new statistics and the gradients of all inputs."""

    def value(params: Any, x: jax.Array) -> Any:
        stats = {"batch_stats": variables["batch_stats"]}
        return layer.apply({"params": params, **stats}, x, mutable=["batch_stats"])

    y, pull, stats = jax.vjp(value, variables.get("params", {}), x, has_aux=True)
    return y, stats, pull(g.astype(y.dtype))


def assert_close(one: Any, other: Any, **tolerance: float) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), **tolerance
        )


def compare(function: Callable[..., Any], both: Layers, *args: Any) -> None:
    """Compares a function of either layer in float64, in one program."""
    with jax.enable_x64(True):
        results = jax.jit(lambda *args: [function(layer, *args) for layer in both])
        assert_close(*results(*args), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        ((2, 3, 2, 5), {}),
        ((AT_ONCE, 2, 3, 4), {"use_scale": False}),
        ((3 * AT_ONCE + 1, 2, 1, 3), {"use_bias": False}),
        ((2 * AT_ONCE, 3), {"use_scale": False, "use_bias": False}),
    ],
)
def test_training_is_that_of_linen(shape: tuple[int, ...], fields: dict) -> None:
    x, g = maps(*shape), maps(*shape)[::-1].copy()
    both = pair(**fields)
    with jax.enable_x64(True):
        variables = variables_of(both[0], x)
    compare(trained, both, variables, x, g)


@pytest.mark.parametrize(
    "fields",
    [
        {"axis": 1},
        {"use_fast_variance": False},
        {"force_float32_reductions": False},
        {},
    ],
    ids=str,
)
def test_other_options_are_those_of_linen(fields: dict) -> None:
    """Bit for bit, with a mask too: `{}` stands for the defaults."""
    x = jnp.asarray(maps(3, 2, 2, 4, dtype=np.float16))
    mask = None if fields else jnp.arange(x.size).reshape(x.shape) % 3 > 0
    ours, linens = (
        layer.apply(variables_of(layer, x), x, mask=mask, mutable=["batch_stats"])
        for layer in pair(**fields)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, linens)


def test_gradients_can_be_differentiated_again() -> None:
    x, both = maps(AT_ONCE + 3, 2, 2, 3), pair()
    with jax.enable_x64(True):
        variables = variables_of(both[0], x)
    along = maps(*x.shape)[::-1].copy()

    def second(layer: nn.Module, variables: Any, x: jax.Array) -> Any:
        def loss(x: jax.Array) -> jax.Array:
            y, _ = layer.apply(variables, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y))

        slope = jax.grad(loss)
        reverse = jax.grad(lambda x: jnp.sum(slope(x) * along))
        return reverse(x), jax.jvp(slope, (x,), (along,))[1]

    compare(second, both, variables, x)


def test_replicates_are_normalized_as_each_alone() -> None:
    x, both = maps(2, AT_ONCE + 1, 2, 2, 3), pair()
    with jax.enable_x64(True):
        variables = variables_of(both[0], x[0])

    def each(layer: nn.Module, x: jax.Array) -> Any:
        one = functools.partial(trained, layer, variables)
        return jax.vmap(one)(x, jnp.cos(x))

    compare(each, both, x)


def test_statistics_are_averaged_over_an_axis() -> None:
    """And so are the parts of the gradients that pass through them."""
    x, both = maps(2, AT_ONCE + 1, 2, 2, 3), pair(axis_name="batch")
    with jax.enable_x64(True):
        variables = variables_of(both[0], x[0])

    def each(layer: nn.Module, x: jax.Array) -> Any:
        one = functools.partial(trained, layer, variables)
        return jax.vmap(one, axis_name="batch")(x, jnp.cos(x))

    compare(each, both, x)


def test_bfloat16_is_summed_in_float32() -> None:
    x = maps(4 * AT_ONCE, 4, 4, 2, dtype=jnp.bfloat16)
    both = pair(dtype=jnp.bfloat16)
    variables = jax.tree.map(jnp.float32, variables_of(both[0], x))
    run = jax.jit(lambda *args: [trained(layer, *args) for layer in both])
    assert_close(*run(variables, x, x[::-1]), rtol=2e-2, atol=2e-2)
    # 256 + 1 is 256 in bfloat16.
    ones = np.ones((257, 1, 1, 2), jnp.bfloat16)
    _, stats, _ = jax.jit(functools.partial(trained, both[0]))(variables, ones, ones)
    expected = 0.9 * variables["batch_stats"]["mean"] + 0.1
    np.testing.assert_allclose(stats["batch_stats"]["mean"], expected, rtol=1e-6)


def test_running_statistics_and_first_weights_are_linens() -> None:
    x = jnp.asarray(maps(3, 2, 2, 4, dtype=np.float32))
    ours, linens = pair()
    start = [layer.init(jax.random.key(0), x) for layer in (ours, linens)]
    assert_close(*start, rtol=0, atol=0)
    variables = jax.tree.map(jnp.float32, variables_of(ours, x))
    layers_ = (layer.clone(use_running_average=True) for layer in (ours, linens))
    values = [layer.apply(variables, x) for layer in layers_]
    assert_close(*values, rtol=0, atol=0)
