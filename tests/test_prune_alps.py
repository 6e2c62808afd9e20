"""ALPS, against loops in float64, least squares, and other methods."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import masks, prune, select

DRAW = np.random.default_rng(0)
# Inputs that depend on each other, neighbors most, and of different sizes.
NEAR = 0.9 ** abs(np.subtract.outer(np.arange(16), np.arange(16)))
MIXED = DRAW.normal(size=(200, 16)) @ np.linalg.cholesky(NEAR).T
MIXED *= np.geomspace(0.3, 3, 16)[DRAW.permutation(16)]
INPUTS = jnp.asarray(MIXED.astype(np.float32))
WEIGHTS = DRAW.normal(size=(16, 8)).astype(np.float32)
PARAMS = {"kernel": jnp.asarray(WEIGHTS)}
Array = np.ndarray


def linear(params: Any, x: Any) -> Any:
    return x @ params["kernel"]


def largest(matrix: Array, half: int, group: int) -> Array:
    """Keeps half of the weights of the layer, each output, or each group."""
    kept = np.zeros(matrix.shape, bool)
    if group == 0:
        kept.flat[np.argsort(-abs(matrix), axis=None)[: half * matrix.shape[1]]] = True
        return kept
    size, each = (len(matrix), half) if group == 1 else (group, group // 2)
    for j, top in itertools.product(
        range(matrix.shape[1]), range(0, len(matrix), size)
    ):
        kept[top + np.argsort(-abs(matrix[top : top + size, j]))[:each], j] = True
    return kept


def reference(weights: Array, given: Array, group: int) -> tuple[Array, Array]:
    """ADMM with matrix inverses, then least squares for each output."""
    half = len(weights) // 2
    hessian = given.T @ given
    hessian += 0.01 * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    scale = np.sqrt(np.diag(hessian))
    unit, trained = hessian / np.outer(scale, scale), weights * scale[:, None]
    penalty, begun, ended = 0.1, False, False
    first = largest(trained, half, group)
    count = first.sum()
    before, sparse, dual = first, trained * first, np.zeros(trained.shape)
    for step in range(1, 301):
        inverse = np.linalg.inv(unit + penalty * np.eye(len(unit)))
        dense = inverse @ (unit @ trained - dual + penalty * sparse)
        sparse = dense + dual / penalty
        sparse *= largest(sparse, half, group)
        dual = dual + penalty * (dense - sparse)
        if step % 3 == 0:
            changed = np.sum((sparse != 0) != before)
            if not begun and changed < 0.005 * count:
                penalty, sparse, dual = penalty / 5, trained * first, 0 * dual
                assert penalty > 1e-5
                continue
            begun, before = True, sparse != 0
            if changed == 0:
                ended = True
                break
            shares = ((0.1, 1.3), (0.005, 1.2), (0, 1.1))
            penalty *= next(by for share, by in shares if changed >= share * count)
    assert ended and begun
    kept, new = sparse != 0, np.zeros(weights.shape)
    for j, rows in enumerate(kept.T):
        right = hessian[rows] @ weights[:, j]
        new[rows, j] = np.linalg.solve(hessian[np.ix_(rows, rows)], right)
    return kept, new


OPTIONS = {
    0: prune.LayerOptions(),
    1: None,
    4: prune.LayerOptions(structure=select.n_of_m(4)),
}


@pytest.mark.parametrize("group", OPTIONS)
def test_alps_is_the_published_algorithm(group: int) -> None:
    found = prune.alps(
        linear, PARAMS, 0.5, INPUTS, layers=OPTIONS[group], refinements=40
    )
    kept, new = reference(WEIGHTS.astype(float), MIXED, group)
    np.testing.assert_array_equal(found.masks["kernel"], kept)
    np.testing.assert_allclose(found.params["kernel"], new, rtol=2e-3, atol=2e-4)
    scale = np.linalg.norm(MIXED, axis=0)[:, None]
    assert np.any(kept != largest(WEIGHTS * scale, 8, group))  # not those of Wanda


def error(params: Any, weights: Array, given: Array) -> float:
    change = given @ (np.asarray(params["kernel"], np.float64) - weights)
    return float(np.sum(change**2) / np.sum((given @ weights) ** 2))


@pytest.mark.parametrize(
    ("seed", "sparsity", "group"),
    [(0, 0.5, 0), (1, 0.5, 1), (2, 0.75, 0), (3, 0.75, 1)],
)
def test_outputs_change_less_than_by_other_methods(
    seed: int, sparsity: float, group: int
) -> None:
    layers = OPTIONS[group]
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=(16, 8)).astype(np.float32)
    given = draw.normal(size=(200, 16)) @ draw.normal(size=(16, 16))
    call = (linear, {"kernel": jnp.asarray(weights)}, sparsity)
    call = (*call, jnp.asarray(given.astype(np.float32)))
    ours = prune.alps(*call, layers=layers)
    surgeon = prune.obs(*call, layers=layers)
    by_norm = masks.apply(prune.wanda(*call, layers=layers), call[1])
    counts = {masks.num_active(each.masks) for each in (ours, surgeon)}
    assert counts == {round((1 - sparsity) * 128)}
    found = error(ours.params, weights, given)
    assert found <= error(surgeon.params, weights, given)
    assert found < error(by_norm, weights, given)


def test_refinements_only_improve() -> None:
    errors = [
        error(
            prune.alps(linear, PARAMS, 0.75, INPUTS, refinements=n).params,
            WEIGHTS.astype(float),
            MIXED,
        )
        for n in (0, 1, 3, 10)
    ]
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[-1]


def test_independent_inputs_are_pruned_nearly_as_well_as_by_magnitude() -> None:
    """Which is the optimum; also without any inputs, where no weight matters."""
    alike = jnp.asarray(np.eye(16, dtype=np.float32))
    fan_in = prune.LayerOptions(structure=select.fan_in(), distribution="uniform")
    best = masks.apply(prune.prune(PARAMS, 0.75, layers=fan_in), PARAMS)
    for given in (alike, 0 * alike):
        found = prune.alps(linear, PARAMS, 0.75, given)
        least, got = (error(each, WEIGHTS, np.eye(16)) for each in (best, found.params))
        assert least <= got < 1.03 * least


def test_without_sparsity_nothing_changes() -> None:
    found = prune.alps(linear, PARAMS, 0.0, INPUTS)
    assert np.all(found.masks["kernel"])
    np.testing.assert_allclose(found.params["kernel"], WEIGHTS, rtol=1e-4, atol=1e-5)


def test_weights_of_inputs_that_are_zero_go_first() -> None:
    given = INPUTS.at[:, :4].set(0)
    found = prune.alps(linear, PARAMS, 0.25, given, damping=0.0)
    np.testing.assert_array_equal(found.masks["kernel"][:4], False)
    np.testing.assert_array_equal(found.masks["kernel"][4:], True)
    got = found.params["kernel"][4:]
    np.testing.assert_allclose(got, WEIGHTS[4:], rtol=1e-3, atol=1e-4)


def two_layers(params: Any, x: Any) -> Any:
    """A convolution in two groups, and a dense layer that reads its outputs."""
    x = jax.lax.conv_general_dilated(
        *(x, params["conv"]["kernel"], (1, 1), "VALID"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    return jax.nn.relu(x).reshape(len(x), -1) @ params["head"]["kernel"]


def test_layers_of_groups_are_pruned_one_after_the_other() -> None:
    images = DRAW.normal(size=(40, 4, 4, 4)).astype(np.float32)
    kernel = DRAW.normal(size=(2, 2, 2, 6)).astype(np.float32)
    head = DRAW.normal(size=(54, 4)).astype(np.float32)
    params = {
        "conv": {"kernel": jnp.asarray(kernel)},
        "head": {"kernel": jnp.array(head)},
    }
    axes = {"conv/*": "ppio/2", "head/*": "io"}
    options = prune.LayerOptions(structure=select.fan_in(), axes=axes)
    found = prune.alps(
        *(two_layers, params, 0.5, jnp.asarray(images)), layers=options, refinements=80
    )
    new = np.asarray(found.params["conv"]["kernel"], np.float64)
    sides = list(itertools.product(range(3), repeat=2))
    for g in range(2):  # each group is a layer of its own, but for the penalty
        seen = np.concatenate(
            [images[:, i : i + 2, j : j + 2, 2 * g : 2 * g + 2] for i, j in sides]
        ).reshape(-1, 8)
        mine = slice(3 * g, 3 * g + 3)
        check_solved(
            seen, kernel[..., mine].reshape(8, 3), new[..., mine].reshape(8, 3)
        )
    hidden = np.zeros((40, 3, 3, 6))
    for g, (i, j) in itertools.product(range(2), sides):
        seen = images[:, i : i + 2, j : j + 2, 2 * g : 2 * g + 2].reshape(40, 8)
        mine = slice(3 * g, 3 * g + 3)
        hidden[:, i, j, mine] = np.maximum(seen @ new[..., mine].reshape(8, 3), 0)
    given = hidden.reshape(40, 54)
    check_solved(given, head, np.asarray(found.params["head"]["kernel"], np.float64))


def check_solved(given: Array, weights: Array, new: Array) -> None:
    """Fails unless the weights of the support solve the damped least squares."""
    hessian = given.T @ given
    hessian += 0.01 * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    assert np.all((new != 0).sum(axis=0) == len(weights) // 2)
    for j, rows in enumerate((new != 0).T):
        right = hessian[rows] @ weights[:, j].astype(float)
        wanted = np.linalg.solve(hessian[np.ix_(rows, rows)], right)
        np.testing.assert_allclose(new[rows, j], wanted, rtol=5e-3, atol=5e-3)


def test_alps_is_the_same_under_jit() -> None:
    found = jax.jit(lambda p: prune.alps(linear, p, 0.5, INPUTS))(PARAMS)
    wanted = prune.alps(linear, PARAMS, 0.5, INPUTS)
    np.testing.assert_array_equal(found.masks["kernel"], wanted.masks["kernel"])
    np.testing.assert_allclose(
        found.params["kernel"], wanted.params["kernel"], rtol=1e-3, atol=1e-5
    )


REFUSED: dict[str, Callable[[], Any]] = {
    "structure: expected None, fan_in.* with alps": lambda: prune.alps(
        *(linear, PARAMS, 0.5, INPUTS),
        layers=prune.LayerOptions(structure=select.channels()),
    ),
    "iterations: expected": lambda: prune.alps(
        linear, PARAMS, 0.5, INPUTS, iterations=0
    ),
    "refinements: expected": lambda: prune.alps(
        linear, PARAMS, 0.5, INPUTS, refinements=-1
    ),
    "damping: expected": lambda: prune.alps(linear, PARAMS, 0.5, INPUTS, damping=-1.0),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
