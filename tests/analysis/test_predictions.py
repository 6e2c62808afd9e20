import functools
import itertools
import math
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxsparse.analysis import pairwise, predictions, representations

MEASURES = (
    predictions.disagreement,
    predictions.kl_divergence,
    predictions.js_divergence,
)
JITTED = {measure: jax.jit(measure) for measure in MEASURES}
ENSEMBLE = jax.jit(predictions.ensemble, static_argnames="average")
SCORES = jax.jit(predictions.ensemble_scores, static_argnames="average")


def slow(measure: Any, first: np.ndarray, second: np.ndarray) -> float:
    """The definitions, example by example in float64."""
    found = []
    for a, b in zip(first.astype(np.float64), second.astype(np.float64), strict=True):
        log_p, log_q = scipy.special.log_softmax(a), scipy.special.log_softmax(b)
        p, q = np.exp(log_p), np.exp(log_q)
        if measure is predictions.disagreement:
            found.append(float(np.argmax(a) != np.argmax(b)))
        elif measure is predictions.kl_divergence:
            found.append(np.sum(p * (log_p - log_q)))
        else:
            m = (p + q) / 2
            found.append(
                np.sum(scipy.special.rel_entr(p, m) + scipy.special.rel_entr(q, m)) / 2
            )
    return float(np.mean(found))


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("measure", MEASURES)
def test_measures_equal_float64(measure: Any, scale: float) -> None:
    rng = np.random.default_rng(0)
    first, second = scale * rng.normal(size=(2, 50, 7)).astype(np.float32)
    got = JITTED[measure](jnp.asarray(first), jnp.asarray(second))
    assert got.dtype == jnp.float32 and got.shape == ()
    wanted = slow(measure, first, second)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)


LOGITS = st.floats(-1e4, 1e4, width=32)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(hnp.arrays(np.float32, (2, 3, 4), elements=LOGITS))
def test_extreme_logits(values: np.ndarray) -> None:
    first, second = map(jnp.asarray, values)
    kl, js = (JITTED[m](first, second) for m in MEASURES[1:])
    wanted = slow(predictions.kl_divergence, *values)
    np.testing.assert_allclose(kl, wanted, rtol=1e-5, atol=1e-6)
    wanted = slow(predictions.js_divergence, *values)
    np.testing.assert_allclose(js, wanted, rtol=1e-5, atol=1e-6)
    assert kl >= 0 and 0 <= js <= np.float32(math.log(2))
    assert js == JITTED[predictions.js_divergence](second, first)
    for measure in MEASURES:
        assert JITTED[measure](first, first) == 0


def test_divergences_in_closed_form() -> None:
    kl, js = JITTED[predictions.kl_divergence], JITTED[predictions.js_divergence]
    far = jnp.array([[1e4, -1e4]]), jnp.array([[-1e4, 1e4]])
    assert kl(*far) == 2e4
    assert js(*far) == np.float32(math.log(2))
    p, q = 0.9, 0.2
    logits = [jnp.asarray(np.log([[x, 1 - x]]), jnp.float32) for x in (p, q)]
    wanted = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    np.testing.assert_allclose(kl(*logits), wanted, rtol=1e-5)


def test_small_divergences_are_not_lost() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(20, 10)).astype(np.float32)
    second = first + 1e-3 * rng.normal(size=(20, 10)).astype(np.float32)
    wanted = slow(predictions.kl_divergence, first, second)
    assert wanted < 1e-6
    kl = JITTED[predictions.kl_divergence]
    got = kl(jnp.asarray(first), jnp.asarray(second))
    np.testing.assert_allclose(got, wanted, rtol=1e-2)


def test_measures_of_a_stack_and_against_one() -> None:
    logits = jax.random.normal(jax.random.key(0), (4, 30, 5))
    for measure in MEASURES:
        one = functools.partial(pairwise.pairwise, measure)
        matrix = np.asarray(jax.jit(one)(logits))
        wanted = [
            [slow(measure, np.asarray(a), np.asarray(b)) for b in logits]
            for a in logits
        ]
        np.testing.assert_allclose(matrix, wanted, rtol=1e-4, atol=1e-6)
        against = jax.jit(jax.vmap(measure, in_axes=(0, None)))(logits, logits[2])
        np.testing.assert_allclose(against, matrix[:, 2], rtol=1e-5, atol=1e-7)
    one = functools.partial(pairwise.pairwise, predictions.disagreement)
    both = pairwise.over_pairs(jax.jit(one)(logits))
    each = [
        slow(predictions.disagreement, np.asarray(logits[i]), np.asarray(logits[j]))
        for i, j in itertools.combinations(range(4), 2)
    ]
    np.testing.assert_allclose(both[:2], [np.mean(each), np.std(each, ddof=1)], 1e-6)


@pytest.mark.parametrize("average", predictions.AVERAGES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_ensembles_equal_float64(average: str, scale: float) -> None:
    rng = np.random.default_rng(1)
    logits = (scale * rng.normal(size=(5, 40, 6))).astype(np.float32)
    labels = rng.integers(0, 6, 40)
    wide = logits.astype(np.float64)
    if average == "logits":
        wanted = scipy.special.log_softmax(wide.mean(axis=0), axis=-1)
    else:
        each = scipy.special.log_softmax(wide, axis=-1)
        wanted = scipy.special.logsumexp(each, axis=0) - math.log(5)
    # Not under jit: there the mean may be rounded twice, to values 4e-5 apart.
    got = predictions.ensemble(jnp.asarray(logits), average=average)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    found = SCORES(jnp.asarray(logits), jnp.asarray(labels), average=average)
    right = np.argmax(wanted, axis=-1) == labels
    np.testing.assert_allclose(found.accuracy, np.mean(right), rtol=1e-6)
    loss = -np.mean(wanted[np.arange(40), labels])
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)


def test_an_ensemble_by_hand_where_the_averages_differ() -> None:
    logits = np.log([[[0.98, 0.01, 0.01]], [[0.01, 0.49, 0.5]]]).astype(np.float32)
    found = ENSEMBLE(logits, average="probabilities")
    np.testing.assert_allclose(np.exp(found), [[0.495, 0.25, 0.255]], rtol=1e-5)
    roots = np.sqrt([0.98 * 0.01, 0.01 * 0.49, 0.01 * 0.5])
    found = ENSEMBLE(logits, average="logits")
    np.testing.assert_allclose(np.exp(found)[0], roots / roots.sum(), rtol=1e-5)
    alone = predictions.ensemble(jnp.asarray(logits[:1]))
    np.testing.assert_allclose(alone, logits[0], atol=1e-6)


def test_narrow_logits_are_compared_in_float32() -> None:
    narrow = jax.random.normal(jax.random.key(0), (2, 9, 4)).astype(jnp.bfloat16)
    for measure in MEASURES:
        got = JITTED[measure](*narrow)
        assert got.dtype == jnp.float32
        assert got == JITTED[measure](*narrow.astype(jnp.float32))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: predictions.disagreement(x[0], x[0, :2]), "second: expected logits"),
        (
            lambda x: predictions.kl_divergence(x[0], x[0, :, :2]),
            "second: expected logits",
        ),
        (
            lambda x: predictions.js_divergence(x[0, :0], x[0, :0]),
            "second: expected logits",
        ),
        (
            lambda x: predictions.ensemble(x, average="votes"),
            "average: expected .*got 'votes'",
        ),
        (lambda x: predictions.ensemble(x[:0]), "logits: expected .*got shape"),
        (
            lambda x: predictions.ensemble_scores(x, jnp.zeros(4, jnp.int32)),
            "labels: expected shape",
        ),
        (
            lambda x: representations.linear_cka(x[0, :3], x[0, :3], unbiased=True),
            "second: expected .*got 3",
        ),
    ],
)
def test_bad_predictions_are_refused(call: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        call(jnp.ones((2, 5, 3)))
