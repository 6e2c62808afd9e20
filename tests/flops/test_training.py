"""Training FLOPs from counts of weights, against sums over single steps."""

from collections.abc import Callable

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxsparse import flops

COST = flops.Macs({"a": 10, "b": 3}, 2)


def of_step(density: float, gradient: float) -> float:
    """FLOPs of one example, both layers at the same density."""
    return 2 * (2 * (13 * density + 2)) + 2 * (13 * gradient + 2)


def equal(density: float) -> dict[str, float]:
    return {"a": density, "b": density}


@hypothesis.given(
    updates=st.lists(st.integers(0, 29), unique=True, max_size=6).map(sorted),
    gradient=st.sampled_from(("active", "updates", "always")),
    every=st.integers(1, 4),
)
def test_counts_after_every_step_are_exact(
    updates: list[int], gradient: str, every: int
) -> None:
    # Mask updates change the density to 1 / (i + 2) after step i.
    now, steps, counted = 1.0, [], [(0, equal(1.0))]
    for step in range(30):
        dense = gradient == "always" or (gradient == "updates" and step in updates)
        steps.append(of_step(now, 1.0 if dense else now))
        now = 1 / (step + 2) if step in updates else now
        if (step + 1) % every == 0:
            counted.append((step + 1, equal(now)))
    stage = flops.StageSteps(0, 30, updates, gradient, lambda step: 7 * step)
    hypothesis.assume(flops.is_exact(counted, stage, keeps_counts=False))
    found = flops.training(COST, flops.segments(counted, stage))
    assert found == pytest.approx(7 * sum(steps), rel=1e-9)


def test_several_updates_between_counts_are_interpolated_and_said() -> None:
    counted = [(0, equal(1.0)), (10, equal(0.4))]
    stage = flops.StageSteps(0, 10, [2, 5, 8], "active", lambda step: step)
    steps = [1.0] * 3 + [0.8] * 3 + [0.6] * 3 + [0.4]
    found = flops.training(COST, flops.segments(counted, stage))
    assert found == pytest.approx(sum(of_step(d, d) for d in steps))
    assert not flops.is_exact(counted, stage, keeps_counts=True)
    same = [(0, equal(0.4)), (10, equal(0.4))]
    assert flops.is_exact(same, stage, keeps_counts=True)
    assert not flops.is_exact(same, stage, keeps_counts=False)  # AC/DC, for example


def test_unknown_updates_take_the_mean() -> None:
    counted = [(0, equal(1.0)), (10, equal(0.5))]
    stage = flops.StageSteps(0, 10, None, "active", lambda step: step)
    found = flops.training(COST, flops.segments(counted, stage))
    assert found == pytest.approx(10 * of_step(0.75, 0.75))
    assert not flops.is_exact(counted, stage, keeps_counts=False)


def test_dense_gradients_at_unknown_steps_are_said() -> None:
    same = [(0, equal(0.4)), (10, equal(0.4))]
    for gradient, wanted in {"updates": False, "active": True, "always": True}.items():
        stage = flops.StageSteps(0, 10, None, gradient, lambda step: step)
        assert flops.is_exact(same, stage, keeps_counts=True) is wanted


def test_steps_before_and_after_all_counts_are_not_exact() -> None:
    stage = flops.StageSteps(0, 10, None, "active", lambda step: step)
    # A count is taken before the step of its number, so step 9 is the last to matter.
    for begin, end, wanted in (
        (0, 10, True),
        (0, 9, True),
        (0, 8, False),
        (1, 10, False),
    ):
        counted = [(begin, equal(0.5)), (end, equal(0.5))]
        assert flops.is_exact(counted, stage, keeps_counts=False) is wanted
        assert flops.is_exact(counted, stage, keeps_counts=True)


def test_top_kast_counts_the_products_of_its_passes() -> None:
    # Two linear layers, product by product: active weights are used in both passes, and
    # trained weights, which contain them, have a gradient.
    rng = np.random.default_rng(0)
    sizes = {"a": (6, 5), "b": (5, 4)}
    weights = {k: rng.normal(size=shape) for k, shape in sizes.items()}
    trained = {k: rng.random(shape) < 0.6 for k, shape in sizes.items()}
    active = {k: m & (rng.random(m.shape) < 0.5) for k, m in trained.items()}
    signals, products = {"a": rng.normal(size=6)}, 0
    for name, after in (("a", "b"), ("b", "outputs")):
        signals[after] = np.zeros(sizes[name][1])
        for i, j in np.argwhere(active[name]):
            signals[after][j] += signals[name][i] * weights[name][i, j]
            products += 1
    back, found = np.ones(4), {k: np.zeros(shape) for k, shape in sizes.items()}
    for name in ("b", "a"):
        inputs = np.zeros(sizes[name][0])
        for i, j in np.argwhere(trained[name]):
            found[name][i, j] = signals[name][i] * back[j]
            products += 1
        for i, j in np.argwhere(active[name]):  # also for the images, by convention
            inputs[i] += weights[name][i, j] * back[j]
            products += 1
        back = inputs
    sparse = {k: weights[k] * active[k] for k in sizes}

    def apply(w: dict, x: jax.Array) -> jax.Array:
        return x @ w["a"] @ w["b"]

    wanted = jax.grad(lambda w: apply(w, signals["a"]).sum())(sparse)
    for name, mask in trained.items():
        np.testing.assert_allclose(found[name], wanted[name] * mask, rtol=1e-5)
    density, both = (
        flops.densities(jax.tree.map(jnp.asarray, masks)) for masks in (active, trained)
    )
    stage = flops.StageSteps(0, 3, None, "backward", lambda step: 7 * step, both)
    cost = flops.macs(apply, weights, signals["a"])
    total = flops.training(cost, flops.segments([(0, density)], stage))
    assert total == pytest.approx(21 * 2 * products, rel=1e-12)


def test_growth_batch_is_an_extra_gradient() -> None:
    stage = flops.StageSteps(
        0, 10, [4], "updates", lambda step: 8 * step, growth_examples=100
    )
    found = flops.training(COST, flops.segments([(0, equal(0.5))], stage))
    assert found == 80 * of_step(0.5, 0.5) + 100 * of_step(0.5, 1.0)


def test_a_smaller_last_batch_counts_its_examples() -> None:
    examples: Callable[[int], int] = lambda step: min(8 * step, 77)  # noqa: E731
    stage = flops.StageSteps(0, 10, [9], "updates", examples)
    found = flops.training(COST, flops.segments([(0, equal(0.5))], stage))
    assert found == 72 * of_step(0.5, 0.5) + 5 * of_step(0.5, 1.0)


def test_an_unknown_gradient_is_refused() -> None:
    stage = flops.StageSteps(0, 1, (), "dense", lambda step: step)
    with pytest.raises(ValueError, match="gradient: expected one of .*, got 'dense'"):
        flops.segments([(0, {})], stage)
