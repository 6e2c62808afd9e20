"""One step of training, and one batch of evaluation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import tiny

from jaxsparse import losses, masks, models, transforms
from jaxsparse.training import optimizers, steps
from jaxsparse.training.state import TrainState

pytestmark = pytest.mark.keys_used_once


IMAGES = jnp.asarray(
    np.random.default_rng(0).integers(0, 256, (6, 4, 3, 1)).astype(np.uint8)
)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def normalize(images: Any) -> Any:
    return (images.astype(jnp.float32) - 128) / 64


def make(model: nn.Module, tx: Any, *, dtype: Any = jnp.float32) -> TrainState:
    @jax.jit
    def fresh() -> TrainState:
        image = jnp.zeros((1, 4, 3, 1))
        variables = model.init(jax.random.key(0), image, train=False)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), variables["params"])
        kept = masks.ones(params)
        kept["dense1"]["kernel"] = kept["dense1"]["kernel"].at[::3, 1].set(False)
        params = masks.apply(kept, params)
        opt_state = transforms.replace_masks(tx.init(params), kept)
        return TrainState(jnp.int32(0), params, {}, opt_state)

    return fresh()


TASK = losses.PredictionTask(normalize, losses.class_labels)


def step_of(
    model: nn.Module, tx: Any, *, augment: Any = None, **loss: Any
) -> steps.TrainStep:
    gradient = steps.make_loss_gradient(model, task=TASK, **loss)
    return steps.make_train_step(gradient, tx, augment=augment)


@functools.cache
def jitted(train_step: Callable) -> Callable:
    return jax.jit(train_step, static_argnames="batch_size")


def call(
    train_step: Callable, state: TrainState, size: int = 6
) -> tuple[TrainState, steps.MetricSums]:
    return jitted(train_step)(
        state,
        IMAGES,
        jnp.asarray(LABELS),
        places=jnp.arange(6, dtype=jnp.int32),
        key=jax.random.key(1),
        batch_size=size,
    )


def reference_step(
    params: Any, kept: Any, *, lr: float, momentum: float, decay: float, updates: int
) -> tuple[Any, list[float]]:
    """A network 12-5-3 with ReLU, its gradient by hand, and SGD in PyTorch's form."""
    w1, b1 = (np.asarray(params["dense1"][k]).copy() for k in ("kernel", "bias"))
    w2, b2 = (np.asarray(params["head"][k]).copy() for k in ("kernel", "bias"))
    x = np.asarray(normalize(IMAGES), np.float64).reshape(6, -1)
    target = np.eye(3)[LABELS]
    buffers = [np.zeros_like(leaf) for leaf in (w1, b1, w2, b2)]
    sums = []
    for _ in range(updates):
        hidden = np.maximum(x @ w1 + b1, 0)
        logits = hidden @ w2 + b2
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        sums.append(-np.sum(target * np.log(p)))
        d_logits = (p - target) / 6
        d_hidden = (d_logits @ w2.T) * (hidden > 0)
        grads = [x.T @ d_hidden, d_hidden.sum(0), hidden.T @ d_logits, d_logits.sum(0)]
        for leaf, grad, buffer in zip((w1, b1, w2, b2), grads, buffers, strict=True):
            buffer *= momentum
            buffer += grad + decay * leaf
            leaf -= lr * buffer
        w1 *= kept
    return {
        "dense1": {"kernel": w1, "bias": b1},
        "head": {"kernel": w2, "bias": b2},
    }, sums


def test_steps_in_float64_equal_numpy() -> None:
    with jax.enable_x64(True):
        rate = optimizers.learning_rate(peak=0.25, total=10)
        tx = transforms.fixed(
            optimizers.with_l2(optimizers.sgd(rate, momentum=0.9), weight_decay=0.5**6)
        )
        model = models.LeNet300100(features=(5,), classes=3)
        state = make(model, tx, dtype=jnp.float64)
        train_step = step_of(model, tx)
        kept = np.asarray(transforms.get_masks(state.opt_state)["dense1"]["kernel"])
        wanted, sums = reference_step(
            state.params, kept, lr=0.25, momentum=0.9, decay=0.5**6, updates=3
        )
        for i in range(3):
            state, tally = call(train_step, state)
            np.testing.assert_allclose(tally.loss, sums[i], rtol=1e-12)
        assert int(state.step) == 3
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13),
            state.params,
            wanted,
        )
        weights = np.asarray(state.params["dense1"]["kernel"])
        np.testing.assert_array_equal(weights != 0, kept)


class Plain(NamedTuple):
    """A network, the step that trains it, and its logits of `IMAGES`."""

    model: nn.Module
    tx: Any
    step: steps.TrainStep
    state: TrainState
    logits: Any


@pytest.fixture(scope="module")
def plain() -> Plain:
    rate = optimizers.learning_rate(peak=0.1, total=10, decay="step", milestones=(5,))
    model = models.LeNet300100(features=(5,), classes=3)
    tx = transforms.fixed(optimizers.sgd(rate))
    state = make(model, tx)
    logits = jax.jit(functools.partial(model.apply, train=True))(
        {"params": state.params}, normalize(IMAGES)
    )
    return Plain(model, tx, step_of(model, tx), state, logits)


def test_the_rate_reads_the_clock_and_not_the_optimizers_count(plain: Plain) -> None:
    moves = []
    for step in (0, 5):
        state = plain.state._replace(step=jnp.int32(step))
        after, _ = call(plain.step, state)
        moves.append(moved_bias(after, state))
        assert int(after.step) == int(state.step) + 1
        assert int(after.opt_state.step) == 1
    np.testing.assert_allclose(moves[1], 0.1 * moves[0], rtol=1e-5)


def moved_bias(after: TrainState, before: TrainState) -> np.ndarray:
    return np.subtract(after.params["head"]["bias"], before.params["head"]["bias"])


def test_the_loss_is_the_mean_over_the_whole_batch(plain: Plain) -> None:
    state = plain.state
    whole, tally = call(plain.step, state, 6)
    share, same = call(plain.step, state, 12)
    assert tally.loss == same.loss
    for leaf in ("kernel", "bias"):
        before, all_of_it, half = (
            np.asarray(each.params["head"][leaf]) for each in (state, whole, share)
        )
        np.testing.assert_allclose(
            half - before,
            (all_of_it - before) / 2,
            rtol=1e-3,
            atol=1e-7,
        )
    assert int(tally.predictions) == 6


def test_smoothing_changes_the_gradient_and_the_tally(plain: Plain) -> None:
    model, tx, _, state, logits = plain
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for smoothing in (0.0, 0.2):
        train_step = step_of(model, tx, label_smoothing=smoothing)
        after, tally = call(train_step, state)
        target = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
        np.testing.assert_allclose(tally.loss, -np.sum(target * np.log(p)), rtol=1e-5)
        gradient = np.mean(p - target, axis=0)
        moved = moved_bias(after, state)
        np.testing.assert_allclose(moved, -0.1 * gradient, rtol=1e-3, atol=1e-6)


def test_augmentation_draws_by_step_and_place(plain: Plain) -> None:
    seen = []

    def augment(images: Any, *, key: Any, places: Any) -> Any:
        jax.debug.callback(
            lambda data, where: seen.append((data.tolist(), where.tolist())),
            jax.random.key_data(key),
            places,
        )
        return images

    train_step = step_of(plain.model, plain.tx, augment=augment)
    for step in (3, 4, 3):
        state = plain.state._replace(step=jnp.int32(step))
        jax.block_until_ready(call(train_step, state))
    jax.effects_barrier()
    wanted = [
        jax.random.key_data(jax.random.fold_in(jax.random.key(1), step)).tolist()
        for step in (3, 4, 3)
    ]
    assert seen == [(key, list(range(6))) for key in wanted]


@pytest.mark.parametrize("network", ["mlp", "resnet"])
def test_bfloat16_computes_and_weights_stay_float32(network: str) -> None:
    if network == "mlp":
        model = models.LeNet300100(features=(5,), classes=3, dtype="bfloat16")
    else:
        model = models.CifarResNet(depth=8, width=2, classes=3, dtype="bfloat16")
    tx = transforms.fixed(
        optimizers.adam(optimizers.learning_rate(peak=0.01, total=10))
    )

    def fresh() -> TrainState:
        variables = model.init(jax.random.key(0), image, train=False)
        params, stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(jnp.int32(0), params, stats, tx.init(params))

    image = jnp.zeros((1, 4, 3, 1))
    state = jax.eval_shape(fresh)
    train_step = step_of(model, tx)
    after, tally = jax.eval_shape(functools.partial(call, train_step), state)
    assert tally.loss.dtype == jnp.float32
    for part in ("params", "batch_stats"):
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(getattr(after, part))}
        assert dtypes <= {jnp.dtype("float32")}
    assert jax.tree.structure(after) == jax.tree.structure(state)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    text = jax.jit(functools.partial(model.apply, train=False)).lower(variables, image)
    assert "bf16" in text.as_text()
    if network == "mlp":
        before = jax.jit(fresh)()
        after, tally = call(train_step, before)
        assert np.isfinite(tally.loss)
        moved = jax.tree.map(np.subtract, after.params, before.params)
        assert any(np.any(leaf) for leaf in jax.tree.leaves(moved))


def test_evaluation_counts_no_padding_and_smooths_nothing(plain: Plain) -> None:
    model, _, _, state, logits = plain
    eval_step = jax.jit(steps.make_eval_step(model, task=TASK))
    each = np.asarray(losses.cross_entropy(logits, jnp.asarray(LABELS)))
    right = np.argmax(logits, axis=-1) == LABELS
    labels = LABELS.copy()
    labels[[1, 4]] = -1
    tally = eval_step(state, IMAGES, jnp.asarray(labels))
    real = labels >= 0
    assert int(tally.predictions) == 4
    assert int(tally.correct) == right[real].sum()
    np.testing.assert_allclose(tally.loss, each[real].sum(), rtol=1e-5)


def test_telling_examples_apart_changes_nothing_else(plain: Plain) -> None:
    model, tx, step, state, logits = plain
    after, tally = call(step, state)
    told = step_of(model, tx, per_example=True)
    same, each = call(told, state)
    tiny.check_equal(same, after)
    right = np.argmax(logits, axis=-1) == LABELS
    np.testing.assert_array_equal(each.correct, right)
    assert int(tally.correct) == right.sum()
    assert (each.loss, each.predictions) == (tally.loss, tally.predictions)
