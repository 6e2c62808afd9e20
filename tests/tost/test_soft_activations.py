"""Soft neurons are their formulas, and at the end of a fade ReLU to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import special

from jaxsparse.tost import annealing, soft_activations

# Also what overflows, what is lost beside 1, and both zeros.
X = np.concatenate(
    [
        np.linspace(-6, 6, 121),
        [0.0, -0.0, 1e-30, -1e-30, 80.0, -80.0, 1e30, -1e30],
    ]
).astype(np.float32)


def slope(act: soft_activations.Act) -> jax.Array:
    return jax.jit(jax.vmap(jax.grad(act)))(jnp.asarray(X))


FORMULAS = {
    "swish": lambda x: x * special.expit(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "p_swish": lambda x: x * special.expit(2 * x),
    "gelu": lambda x: x * special.ndtr(x),
}


@pytest.mark.parametrize("name", soft_activations.SOFT)
def test_soft_neurons_are_their_formulas(name: str) -> None:
    want = FORMULAS[name](X.astype(np.float64))
    got = soft_activations.SOFT[name](jnp.asarray(X))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", soft_activations.SOFT)
def test_a_blend_is_soft_in_the_beginning_and_relu_in_the_end(name: str) -> None:
    soft, x = soft_activations.SOFT[name], jnp.asarray(X)
    np.testing.assert_array_equal(soft_activations.blend(soft, 1.0)(x), soft(x))
    ended = soft_activations.blend(soft, annealing.anneal(8, end=8))
    np.testing.assert_array_equal(ended(x), nn.relu(x))
    np.testing.assert_array_equal(slope(ended), slope(nn.relu))


def test_a_blend_lies_between() -> None:
    got = soft_activations.blend(nn.swish, 0.25)(jnp.asarray(X[:121]))
    want = 0.25 * FORMULAS["swish"](X[:121].astype(np.float64))
    want += 0.75 * np.maximum(X[:121], 0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_an_infinite_sharpness_is_relu() -> None:
    ended = soft_activations.p_swish(annealing.sharpen(3, end=3))
    np.testing.assert_array_equal(ended(jnp.asarray(X)), nn.relu(X))
    np.testing.assert_array_equal(slope(ended), slope(nn.relu))


def test_p_swish_nears_relu_by_a_bound_that_falls_with_sharpness() -> None:
    # |x sigmoid(beta x) - relu(x)| = |x| sigmoid(-beta |x|), at most 0.2785 / beta.
    for beta in (1.0, 4.0, 50.0):
        gap = np.abs(
            soft_activations.p_swish(beta)(jnp.asarray(X[:121])) - nn.relu(X[:121])
        )
        assert np.max(gap) <= 0.27847 / beta
    np.testing.assert_allclose(
        soft_activations.p_swish(1.0)(jnp.asarray(X)),
        nn.swish(jnp.asarray(X)),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda left: soft_activations.blend(soft_activations.mish, left),
        soft_activations.p_swish,
    ],
    ids=["blend", "p_swish"],
)
def test_strengths_are_traced(make: soft_activations.Act) -> None:
    traces = []

    @jax.jit
    def run(strength: jax.Array) -> jax.Array:
        traces.append(strength)
        return make(strength)(jnp.asarray(X[:121]))

    for strength in (1.0, 0.5, 0.0, jnp.inf):
        if make is not soft_activations.p_swish and strength == jnp.inf:
            continue
        got = run(jnp.float32(strength))
        np.testing.assert_allclose(
            got, make(strength)(jnp.asarray(X[:121])), rtol=1e-5, atol=1e-6
        )
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes_are_kept(dtype: jnp.dtype) -> None:
    x = jnp.ones((2, 3), dtype)
    assert (
        soft_activations.blend(soft_activations.mish, jnp.float32(0.5))(x).dtype
        == dtype
    )
    assert soft_activations.p_swish(jnp.float32(2.0))(x).dtype == dtype
