"""Next-token prediction in steps: sums, means over tokens, padding."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxsparse import losses, transforms
from jaxsparse.training import evaluation, steps
from jaxsparse.training.state import TrainState

CLASSES = 7
WINDOWS = (
    np.random.default_rng(0).integers(0, CLASSES, (6, 6, 1, 1)).astype(np.uint8)
)  # 5 predictions each
LABELS = np.zeros(6, np.int32)


class Bigram(nn.Module):
    """Logits that depend on the token only."""

    @nn.compact
    def __call__(self, tokens: Any, *, train: bool) -> Any:
        assert jnp.issubdtype(tokens.dtype, jnp.integer)
        table = self.param("kernel", nn.initializers.normal(1.0), (CLASSES, CLASSES))
        return table[tokens]


@functools.cache
def state() -> TrainState:
    params = Bigram().init(jax.random.key(0), jnp.zeros((1, 5), jnp.int32), train=False)
    tx = transforms.fixed(optax.sgd(0.1))
    return TrainState(jnp.int32(0), params["params"], {}, tx.init(params["params"]))


def slow_sums(windows: np.ndarray, labels: np.ndarray) -> tuple[float, int, int]:
    """Adds up losses and right guesses, one token after the other."""
    table = np.asarray(state().params["kernel"], np.float64)
    loss, correct, count = 0.0, 0, 0
    for window, label in zip(windows.reshape(len(windows), -1), labels, strict=True):
        if label < 0:
            continue
        for token, after in zip(window[:-1], window[1:], strict=True):
            logits = table[token]
            loss += np.log(np.sum(np.exp(logits))) - logits[after]
            correct += int(np.argmax(logits) == after)
            count += 1
    return loss, correct, count


@pytest.mark.parametrize("padding", [0, 2])
def test_sums_are_those_of_all_tokens_but_padding(padding: int) -> None:
    labels = LABELS.copy()
    labels[6 - padding :] = -1
    step = jax.jit(steps.make_eval_step(Bigram(), task=losses.NEXT_TOKEN))
    sums = step(state(), jnp.asarray(WINDOWS), jnp.asarray(labels))
    loss, correct, count = slow_sums(WINDOWS, labels)
    assert count == 5 * (6 - padding)
    assert float(sums.loss) == pytest.approx(loss, rel=1e-5)
    assert (int(sums.correct), int(sums.predictions)) == (correct, count)
    scores = evaluation.average([jax.tree.map(np.asarray, sums)])
    assert scores.loss == pytest.approx(loss / count, rel=1e-5)
    assert scores.accuracy == pytest.approx(correct / count)


@pytest.mark.parametrize("parts", [(6,), (1, 5), (2, 2, 2)])
def test_the_mean_over_tokens_does_not_depend_on_how_a_batch_is_split(
    parts: tuple[int, ...],
) -> None:
    """Devices add up gradients of parts, each with the size of the whole batch."""
    gradient = jax.jit(steps.make_loss_gradient(Bigram(), task=losses.NEXT_TOKEN))
    first, total, found = 0, 0.0, 0.0
    for size in parts:
        batch = slice(first, first + size)
        grads, (sums, _) = gradient(
            state().params, {}, WINDOWS[batch], LABELS[batch], 6, jnp.int32(0)
        )
        first, found = first + size, found + np.asarray(grads["kernel"], np.float64)
        total += float(sums.loss)
        assert int(sums.predictions) == 5 * size
    assert total == pytest.approx(slow_sums(WINDOWS, LABELS)[0], rel=1e-5)

    def mean_loss(table: jax.Array) -> jax.Array:
        tokens = WINDOWS[:, :, 0, 0]
        logits = jax.nn.log_softmax(table[tokens[:, :-1]].reshape(-1, CLASSES))
        return -logits[np.arange(30), tokens[:, 1:].reshape(-1)].mean()

    wanted = jax.grad(mean_loss)(state().params["kernel"])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("smooth_over", losses.SMOOTH_OVER)
def test_losses_of_positions_are_those_of_a_flat_batch(smooth_over: str) -> None:
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 4, (2, 3)), jnp.int32)
    options = {"label_smoothing": 0.2, "smooth_over": smooth_over}
    flat = losses.cross_entropy(logits.reshape(6, 4), labels.reshape(6), **options)
    got = losses.cross_entropy(logits, labels, **options)
    np.testing.assert_array_equal(got, flat.reshape(2, 3))
    np.testing.assert_array_equal(
        losses.is_correct(logits, labels).reshape(6),
        losses.is_correct(logits.reshape(6, 4), labels.reshape(6)),
    )
