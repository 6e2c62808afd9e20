"""Projections after the step, in slow numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_self_sparse import PARAMS, SHAPES, TARGETS, check_masks, kernels, run

from jaxsparse import transforms as t


def adam() -> Any:
    """Adam on the dense gradient in numpy: a function of a leaf's name and gradient."""
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}

    def step(name: str, grad: np.ndarray, count: int) -> np.ndarray:
        first[name] = 0.9 * first.get(name, 0) + 0.1 * grad
        second[name] = 0.999 * second.get(name, 0) + 0.001 * grad**2
        mean, square = first[name] / (1 - 0.9**count), second[name] / (1 - 0.999**count)
        return -0.3 * mean / (np.sqrt(square) + 1e-8)

    return step


def test_weight_sparse_keeps_the_largest_of_every_tensor() -> None:
    """Biases too; the optimizer sees dense gradients and forgets nothing."""
    found = run(t.weight_sparse(optax.adam(0.3), sparsity=0.75, end_step=4), 9)
    weights = {n: kernels(PARAMS)[n].astype(np.float64) for n in SHAPES}
    step = adam()
    came_back = 0
    for update, (got, masks, state) in enumerate(found):
        for n in SHAPES:
            np.testing.assert_allclose(got[n], weights[n], rtol=2e-4, atol=2e-5)
            if update:
                before = found[update - 1][1][n]
                came_back += int((masks[n] & ~before).sum())
        if update:
            check_masks(got, masks)
            density = 1 - 0.75 * min(update / 4, 1)
            for n, shape in SHAPES.items():
                assert masks[n].sum() == np.prod(shape) * density
                bias = np.asarray(t.get_masks(state)[n]["bias"])
                # Not a whole number of biases; that of kernels is one, see above.
                assert abs(bias.sum() - shape[1] * density) < 1
        density = 1 - 0.75 * min((update + 1) / 4, 1)
        for n in SHAPES:
            moved = weights[n] + step(n, weights[n] - TARGETS[n], update + 1)
            cut = np.sort(np.abs(moved), axis=None)[-int(moved.size * density)]
            weights[n] = np.where(np.abs(moved) >= cut, moved, 0)
    assert came_back


def test_proximal_l1_is_a_soft_threshold_after_the_step() -> None:
    rates = [0.05, 0.04, 0.03, 0.02, 0.01, 0.01]
    schedule = lambda step: jnp.asarray(rates)[step]  # noqa: E731  as in optax
    tx = t.proximal_l1(optax.sgd(schedule), l1_penalty=1.5, learning_rate=schedule)
    weights = {n: kernels(PARAMS)[n].astype(np.float64) for n in SHAPES}
    for update, (got, masks, _) in enumerate(run(tx, 5)):
        for n in SHAPES:
            np.testing.assert_allclose(got[n], weights[n], rtol=2e-5, atol=2e-6)
            moved = weights[n] - rates[update] * (weights[n] - TARGETS[n])
            left = np.maximum(np.abs(moved) - 1.5 * rates[update], 0)
            weights[n] = np.sign(moved) * left
        check_masks(got, masks)
    assert 0 < sum(int((w != 0).sum()) for w in weights.values()) < 80


def test_the_fixed_point_of_proximal_steps_minimizes_the_sum() -> None:
    """Of a squared distance plus the penalty: the soft-thresholded target."""
    tx = t.proximal_l1(optax.sgd(0.5), l1_penalty=0.7, learning_rate=0.5)
    weights, masks, _ = run(tx, 40)[-1]
    for n in SHAPES:
        wanted = np.sign(TARGETS[n]) * np.maximum(np.abs(TARGETS[n]) - 0.7, 0)
        np.testing.assert_allclose(weights[n], wanted, atol=1e-5)
        np.testing.assert_array_equal(masks[n], wanted != 0)


def test_a_projection_sees_all_parameters_and_the_step() -> None:
    seen = []

    def halve(params: Any, step: Any) -> Any:
        seen.append(jax.tree.structure(params))
        return jax.tree.map(lambda leaf: leaf / step.astype(leaf.dtype), params)

    tx = t.project(optax.sgd(0.0), halve)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert seen == [jax.tree.structure(PARAMS)] * 4  # also in `init`
    np.testing.assert_allclose(params["a"]["bias"], 1 / 6, rtol=1e-6)
    assert t.get_masks(state)["a"]["bias"] is None


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (jnp.zeros(()), r"a/kernel: expected shape \(8, 6\)"),
        (None, "a/kernel"),
    ],
)
def test_other_leaves_from_a_projection_are_refused(kernel: Any, words: str) -> None:
    def spoil(params: Any, step: Any) -> Any:
        return params | {"a": params["a"] | {"kernel": kernel}}

    with pytest.raises(ValueError, match=f"^projection's result: .*{words}"):
        t.project(optax.sgd(0.1), spoil).init(PARAMS)


def test_what_is_reparameterized_is_not_projected() -> None:
    inner = t.reparameterize(optax.sgd(0.1), t.sign_in())
    with pytest.raises(ValueError, match="^inner: .*reparameterized already.*`adjust`"):
        t.project(inner, lambda params, step: params).init(PARAMS)


WRONG = {
    "projection": (TypeError, lambda: t.project(optax.sgd(1.0), 3)),
    "sparsity": (
        ValueError,
        lambda: t.weight_sparse(optax.sgd(1.0), sparsity=1.5, end_step=9),
    ),
    "end_step": (
        ValueError,
        lambda: t.weight_sparse(optax.sgd(1.0), sparsity=0.5, begin_step=5, end_step=3),
    ),
    "l1_penalty": (
        ValueError,
        lambda: t.proximal_l1(optax.sgd(1.0), l1_penalty=-1.0, learning_rate=0.1),
    ),
    "learning_rate": (
        ValueError,
        lambda: t.proximal_l1(optax.sgd(1.0), l1_penalty=1.0, learning_rate=-0.1),
    ),
}


@pytest.mark.parametrize("field", WRONG)
def test_wrong_arguments_are_named(field: str) -> None:
    error, call = WRONG[field]
    with pytest.raises(error, match=f"^{field}: expected"):
        call()
