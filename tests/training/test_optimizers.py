"""Optimizers against numpy in the form that PyTorch documents, in float64."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsparse import transforms
from jaxsparse.training import optimizers

SHAPES = {"dense": {"kernel": (3, 2), "bias": (2,)}, "norm": {"scale": (2,)}}


@pytest.fixture(autouse=True)
def wide() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def draw(seed: int) -> dict:
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: generator.normal(size=shape),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def run(tx: Any, gradients: list, *, clock: int = 0, params: Any = None) -> dict:
    params = jax.tree.map(jnp.asarray, draw(0) if params is None else params)
    state = tx.init(params)
    for i, gradient in enumerate(gradients):
        gradient = jax.tree.map(jnp.asarray, gradient)
        updates, state = tx.update(gradient, state, params, clock=jnp.int32(clock + i))
        params = optax.apply_updates(params, updates)
    return params


def check(got: Any, wanted: Any) -> None:
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12),
        got,
        wanted,
    )


def rate(**settings: Any) -> Callable:
    return optimizers.learning_rate(**({"peak": 0.4, "total": 100} | settings))


def at(schedule: Callable, clock: int) -> float:
    value = schedule(jnp.int32(clock))
    assert value.dtype == jnp.float32
    assert value.shape == ()
    return float(value)


def test_a_constant_rate() -> None:
    assert {at(rate(), t) for t in (0, 50, 99, 100, 1000)} == {float(np.float32(0.4))}


def test_a_rate_in_steps() -> None:
    steps = rate(decay="step", milestones=(80, 50), gamma=0.1)
    for clock, value in [(0, 0.4), (49, 0.4), (50, 0.04), (79, 0.04), (80, 0.004)]:
        assert at(steps, clock) == pytest.approx(value, rel=1e-6)
    # A milestone beyond the end never comes, also not while fine-tuning.
    assert at(rate(decay="step", milestones=(100,)), 500) == pytest.approx(0.4)


def test_a_cosine_rate_stays_at_its_last_value() -> None:
    cosine = rate(decay="cosine")
    for clock in (0, 1, 50, 99):
        wanted = 0.2 * (1 + math.cos(math.pi * clock / 100))
        assert at(cosine, clock) == pytest.approx(wanted, rel=1e-4)
    assert at(cosine, 100) == at(cosine, 12345) == at(cosine, 99) > 0


@pytest.mark.parametrize("decay", ["constant", "step", "cosine"])
def test_warm_up_multiplies_the_decay(decay: str) -> None:
    shape = {"decay": decay, "milestones": (5, 60)}
    plain, warm = rate(**shape), rate(**shape, warmup=10)
    for clock in (0, 1, 5, 9, 10, 60, 99, 100):
        factor = min(1.0, clock / 10)
        assert at(warm, clock) == pytest.approx(at(plain, clock) * factor, rel=1e-6)
    assert at(warm, 0) == 0.0


def reference_sgd(
    gradients: list, *, rates: list, momentum: float, nesterov: bool, decay: Any
) -> dict:
    params, buffer = draw(0), jax.tree.map(np.zeros_like, draw(0))
    for gradient, lr in zip(gradients, rates, strict=True):
        g = jax.tree.map(lambda g, d, p: g + d * p, gradient, decay, params)
        buffer = jax.tree.map(lambda b, g: momentum * b + g, buffer, g)
        step = (
            jax.tree.map(lambda g, b: g + momentum * b, g, buffer)
            if nesterov
            else buffer
        )
        params = jax.tree.map(lambda p, s, lr=lr: p - lr * s, params, step)
    return params


def decay_of(kind: str, strength: float) -> dict:
    everywhere = jax.tree.map(lambda _: strength, draw(0))
    if kind == "kernels":
        everywhere["dense"]["bias"] = everywhere["norm"]["scale"] = 0.0
    return everywhere


@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, 1)])
@pytest.mark.parametrize("kind", ["all", "kernels"])
def test_sgd_with_coupled_l2(momentum: float, nesterov: bool, kind: str) -> None:
    gradients = [draw(seed) for seed in range(1, 6)]
    schedule = rate(decay="step", milestones=(2,), gamma=0.5)
    tx = optimizers.with_l2(
        optimizers.sgd(schedule, momentum=float(momentum), nesterov=bool(nesterov)),
        weight_decay=0.3,
        decays=None if kind == "all" else optimizers.kernels_only,
    )
    wanted = reference_sgd(
        gradients,
        rates=[float(schedule(jnp.int32(t))) for t in range(5)],
        momentum=momentum,
        nesterov=bool(nesterov),
        decay=decay_of(kind, 0.3),
    )
    check(run(tx, gradients), wanted)


def reference_adam(gradients: list, *, lr: float, coupled: Any, decoupled: Any) -> dict:
    b1, b2, eps = 0.8, 0.95, 1e-3
    params = draw(0)
    m = v = jax.tree.map(np.zeros_like, params)
    for t, gradient in enumerate(gradients, start=1):
        g = jax.tree.map(lambda g, d, p: g + d * p, gradient, coupled, params)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, v, g)

        def move(p: Any, m: Any, v: Any, d: Any, t: int = t) -> Any:
            hat = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            return p - lr * (hat + d * p)

        params = jax.tree.map(move, params, m, v, decoupled)
    return params


@pytest.mark.parametrize("kind", ["all", "kernels"])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_with_either_decay(name: str, kind: str) -> None:
    gradients = [draw(seed) for seed in range(1, 5)]
    betas = {"b1": 0.8, "b2": 0.95, "eps": 1e-3}
    decays = None if kind == "all" else optimizers.kernels_only
    if name == "adam":
        tx = optimizers.with_l2(
            optimizers.adam(rate(), **betas), weight_decay=0.3, decays=decays
        )
    else:
        tx = optimizers.adamw(rate(), **betas, weight_decay=0.3, decays=decays)
    none, some = decay_of("all", 0.0), decay_of(kind, 0.3)
    wanted = reference_adam(
        gradients,
        lr=float(np.float32(0.4)),
        coupled=some if name == "adam" else none,
        decoupled=some if name == "adamw" else none,
    )
    check(run(tx, gradients), wanted)


def test_a_level_corrects_adams_bias_anew_while_the_clock_goes_on() -> None:
    gradients = [draw(seed) for seed in range(1, 4)]
    schedule = rate(decay="step", milestones=(50,), gamma=0.25)
    tx = transforms.fixed(optimizers.adam(schedule, b1=0.8, b2=0.95, eps=1e-3))
    none = decay_of("all", 0.0)
    for clock, lr in [(0, 0.4), (60, 0.1)]:
        wanted = reference_adam(
            gradients, lr=float(np.float32(lr)), coupled=none, decoupled=none
        )
        got = run(tx, gradients, clock=clock)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, wanted
        )


def test_no_decay_is_no_link_at_all() -> None:
    plain = optimizers.sgd(rate())
    assert optimizers.with_l2(plain, weight_decay=0.0) is plain


def test_kernels_only_is_what_may_be_pruned() -> None:
    assert optimizers.kernels_only(jax.tree.map(jnp.asarray, draw(0))) == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False},
    }


def test_narrow_weights_get_narrow_updates() -> None:
    tx = optimizers.sgd(rate(), momentum=0.9)
    params = {"kernel": jnp.ones((2, 2), jnp.bfloat16)}
    updates, _ = tx.update(params, tx.init(params), params, clock=jnp.int32(0))
    assert updates["kernel"].dtype == jnp.bfloat16
