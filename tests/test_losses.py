import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import losses

LOGITS = np.random.default_rng(0).normal(0, 3, (6, 4)).astype(np.float32)
LABELS = jnp.array([0, 1, 2, 3, 0, 0])


def reference(logits: np.ndarray, labels: jax.Array, smoothing: float) -> np.ndarray:
    logits = logits.astype(np.float64)
    classes = logits.shape[1]
    log_p = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    target = (1 - smoothing) * np.eye(classes)[np.asarray(labels)] + smoothing / classes
    return -np.sum(target * log_p, axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_with_label_smoothing(smoothing: float) -> None:
    got = losses.cross_entropy(jnp.asarray(LOGITS), LABELS, label_smoothing=smoothing)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, reference(LOGITS, LABELS, smoothing), rtol=2e-6)


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_smoothing_over_the_other_classes(smoothing: float) -> None:
    got = losses.cross_entropy(
        jnp.asarray(LOGITS), LABELS, label_smoothing=smoothing, smooth_over="others"
    )
    true = np.eye(LOGITS.shape[1])[np.asarray(LABELS)]
    target = (1 - smoothing) * true + smoothing / (LOGITS.shape[1] - 1) * (1 - true)
    exact = LOGITS.astype(np.float64)
    log_sum = np.log(np.exp(exact).sum(axis=1, keepdims=True))
    expected = -(target * (exact - log_sum)).sum(axis=1)
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_smoothing_in_closed_form() -> None:
    # Of two classes with logits (a, 0), the loss is log(1 + e^-a) + a s / 2.
    a, s = 3.0, 0.2
    got = losses.cross_entropy(jnp.array([[a, 0.0]]), jnp.array([0]), label_smoothing=s)
    np.testing.assert_allclose(got, [np.log1p(np.exp(-a)) + a * s / 2], rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_equal_logits_cost_the_logarithm_of_the_classes(classes: int) -> None:
    logits = jnp.full((3, classes), 7.0)
    for smoothing in (0.0, 0.3):
        got = losses.cross_entropy(
            logits, jnp.array([0, 1, classes - 1]), label_smoothing=smoothing
        )
        np.testing.assert_allclose(got, np.log(classes), rtol=1e-5)


def test_large_logits_overflow_nothing() -> None:
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    got = losses.cross_entropy(logits, jnp.array([0, 0]))
    np.testing.assert_array_equal(got, [0.0, 2e4])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_width_is_that_of_the_logits_but_at_least_float32(smoothing: float) -> None:
    for dtype, wanted in [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32)]:
        logits = jnp.asarray(LOGITS, dtype)
        got = losses.cross_entropy(logits, LABELS, label_smoothing=smoothing)
        assert got.dtype == wanted
    with jax.enable_x64(True):
        exact = LOGITS.astype(np.float64)
        got = losses.cross_entropy(
            jnp.asarray(exact), LABELS, label_smoothing=smoothing
        )
        assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, reference(exact, LABELS, smoothing), rtol=1e-14)


def test_is_correct_takes_the_first_of_equal_logits() -> None:
    logits = jnp.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0], [jnp.nan, 1.0]])
    got = losses.is_correct(logits, jnp.array([1, 1, 0, -1]))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, [1, 0, 1, 0])
