"""Wanda and SparseGPT, against loops over outputs and inputs in float64."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsparse import masks, prune, select

DRAW = np.random.default_rng(0)
# Inputs of a first layer that depend on each other, neighbors most.
NEAR = 0.9 ** abs(np.subtract.outer(np.arange(12), np.arange(12)))
MIXED = DRAW.normal(size=(200, 12)) @ np.linalg.cholesky(NEAR).T
INPUTS = jnp.asarray(MIXED.astype(np.float32))
PARAMS = {
    "a": {"kernel": jnp.asarray(DRAW.normal(size=(12, 8)).astype(np.float32))},
    "b": {
        "kernel": jnp.asarray(DRAW.normal(size=(8, 4)).astype(np.float32)),
        "bias": jnp.asarray(DRAW.normal(size=4).astype(np.float32)),
    },
}
Array = np.ndarray


def mlp(params: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x @ params["a"]["kernel"])
    return hidden @ params["b"]["kernel"] + params["b"]["bias"][None]


def weights_of(tree: Any) -> list[Array]:
    return [np.asarray(tree[name]["kernel"], np.float64) for name in "ab"]


def by_layers(choose: Callable[[Array, Array], tuple[Array, Array]]) -> list[Any]:
    """Prunes two layers, the second with the inputs that the first one then has."""
    first, second = weights_of(PARAMS)
    kept, new = choose(first, MIXED)
    hidden = np.maximum(MIXED @ new, 0)
    return [(kept, new), choose(second, hidden)]


def largest(score: Array, count: int) -> Array:
    kept = np.zeros(score.shape, bool)
    kept.flat[np.argsort(-score, axis=None)[:count]] = True
    return kept


def wanda(weights: Array, given: Array, group: int) -> tuple[Array, Array]:
    """Keeps half of the weights of each output and each group of inputs."""
    kept = np.zeros(weights.shape, bool)
    norms = [np.sqrt(sum(x * x for x in column)) for column in given.T]
    for j, top in itertools.product(
        range(weights.shape[1]), range(0, len(weights), group)
    ):
        rows = slice(top, top + group)
        score = np.abs(weights[rows, j]) * norms[rows]
        kept[rows, j] = largest(score, len(score) // 2)
    return kept, np.where(kept, weights, 0)


def obs(
    weights: Array, given: Array, size: int, by_row: bool, damping: float
) -> tuple[Array, Array]:
    """Inverts the Hessian of the inputs that are left, at every input."""
    weights, count = weights.copy(), len(weights)
    gram = given.T @ given
    hessian = gram + damping * np.mean(np.diag(gram)) * np.eye(count)
    kept = np.zeros(weights.shape, bool)
    for i in range(count):
        inverse = np.linalg.inv(hessian[i:, i:])
        if i % size == 0:
            block = weights[i : i + size]
            each = [np.linalg.inv(hessian[k:, k:])[0, 0] for k in range(i, count)]
            score = block**2 / np.array(each[: len(block)])[:, None]
            half = len(block) // 2
            if by_row:
                columns = [largest(column, half) for column in score.T]
                kept[i : i + size] = np.stack(columns, axis=1)
            else:
                kept[i : i + size] = largest(score, half * weights.shape[1])
        for j in np.flatnonzero(~kept[i]):
            weights[i:, j] -= weights[i, j] / inverse[0, 0] * inverse[:, 0]
            weights[i, j] = 0
    return kept, weights


GROUPS = prune.LayerOptions(structure=select.n_of_m(4))
FREE = prune.LayerOptions()


@pytest.mark.parametrize(("layers", "group"), [(None, 12), (GROUPS, 4)])
def test_wanda_is_magnitude_times_norm_in_each_output(
    layers: prune.LayerOptions | None, group: int
) -> None:
    found = prune.wanda(mlp, PARAMS, 0.5, INPUTS, layers=layers)
    assert found["b"]["bias"] is None
    wanted = by_layers(lambda w, x: wanda(w, x, min(group, len(w))))
    for name, (kept, _) in zip("ab", wanted, strict=True):
        np.testing.assert_array_equal(found[name]["kernel"], kept)


@pytest.mark.parametrize(
    ("layers", "size", "by_row"),
    [(None, 128, True), (GROUPS, 4, True), (FREE, 4, False), (None, 2, True)],
)
def test_obs_is_the_surgeon_on_the_inputs_that_are_left(
    layers: prune.LayerOptions | None, size: int, by_row: bool
) -> None:
    found = prune.obs(mlp, PARAMS, 0.5, INPUTS, layers=layers, block_size=size)
    wanted = by_layers(lambda w, x: obs(w, x, size, by_row, 0.01))
    for name, (kept, new) in zip("ab", wanted, strict=True):
        np.testing.assert_array_equal(found.masks[name]["kernel"], kept)
        got = found.params[name]["kernel"]
        np.testing.assert_allclose(got, new, rtol=2e-3, atol=2e-4)
    assert found.params["b"]["bias"] is PARAMS["b"]["bias"]


def linear(params: Any, x: Any) -> Any:
    return x @ params["kernel"]


def error(params: Any) -> float:
    outputs = MIXED @ np.asarray(params["kernel"], np.float64)
    return float(np.sum((outputs - MIXED @ weights_of(PARAMS)[0]) ** 2))


def test_obs_changes_the_outputs_less_than_magnitude_and_wanda() -> None:
    params = PARAMS["a"]
    half = prune.LayerOptions(structure=select.fan_in(), distribution="uniform")
    ours = prune.obs(linear, params, 0.5, INPUTS)
    by_size = masks.apply(prune.prune(params, 0.5, layers=half), params)
    by_norm = masks.apply(prune.wanda(linear, params, 0.5, INPUTS), params)
    assert masks.num_active(ours.masks) == 48
    assert error(ours.params) < 0.5 * min(error(by_size), error(by_norm))


def test_one_removal_is_that_of_the_closed_form() -> None:
    """Of a weight from the first input, so that all other weights come after it."""
    weights = jnp.asarray(np.r_[1e-3, np.ones(11)].astype(np.float32))[:, None]
    found = prune.obs(linear, {"kernel": weights}, 1 / 12, INPUTS, damping=0.0)
    inverse = np.linalg.inv(MIXED.T @ MIXED)
    step = -np.asarray(weights)[0] / inverse[0, 0] * inverse[:, 0]
    wanted = np.asarray(weights)[:, 0] + step
    assert not found.masks["kernel"][0, 0] and wanted[0] == 0
    change = np.asarray(found.params["kernel"] - weights)[:, 0]
    np.testing.assert_allclose(change, step, rtol=1e-3, atol=1e-7)


def test_independent_inputs_make_obs_magnitude_pruning() -> None:
    alike = jnp.asarray(np.eye(12, dtype=np.float32))
    found = prune.obs(linear, PARAMS["a"], 0.75, alike)
    fan_in = prune.LayerOptions(structure=select.fan_in(), distribution="uniform")
    wanted = prune.prune(PARAMS["a"], 0.75, layers=fan_in)
    np.testing.assert_array_equal(found.masks["kernel"], wanted["kernel"])
    new = masks.apply(wanted, PARAMS["a"])
    np.testing.assert_array_equal(found.params["kernel"], new["kernel"])


def test_a_layer_without_inputs_is_pruned_by_magnitude() -> None:
    """The second one, whose inputs are those of units that are never active."""
    found = jax.jit(lambda p: prune.obs(dead, p, 0.75, INPUTS))(PARAMS)
    fan_in = prune.LayerOptions(structure=select.fan_in(), distribution="uniform")
    wanted = prune.prune({"b": PARAMS["b"]}, 0.75, layers=fan_in)
    np.testing.assert_array_equal(found.masks["b"]["kernel"], wanted["b"]["kernel"])
    new = masks.apply(wanted, {"b": PARAMS["b"]})
    np.testing.assert_array_equal(found.params["b"]["kernel"], new["b"]["kernel"])


def dead(params: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x @ params["a"]["kernel"] - 1e6)
    return hidden @ params["b"]["kernel"] + params["b"]["bias"][None]


def test_obs_is_the_same_under_jit() -> None:
    found = jax.jit(lambda p: prune.obs(mlp, p, 0.5, INPUTS))(PARAMS)
    wanted = prune.obs(mlp, PARAMS, 0.5, INPUTS)
    for name in "ab":
        np.testing.assert_array_equal(
            found.masks[name]["kernel"], wanted.masks[name]["kernel"]
        )
        np.testing.assert_allclose(
            found.params[name]["kernel"],
            wanted.params[name]["kernel"],
            rtol=1e-3,
            atol=1e-5,
        )


def patches(images: Array, channels: range) -> Array:
    """What 3x3 kernels see at stride 2, without padding: [examples, inputs]."""
    sides = range(0, images.shape[1] - 2, 2)
    return np.concatenate(
        [
            images[:, i : i + 3, j : j + 3, channels.start : channels.stop].reshape(
                len(images), -1
            )
            for i, j in itertools.product(sides, sides)
        ]
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_inputs_of_convolutions_are_their_patches(groups: int) -> None:
    images = DRAW.normal(size=(30, 7, 7, 4)).astype(np.float32)
    kernel = DRAW.normal(size=(3, 3, 4 // groups, 6)).astype(np.float32)

    def conv(params: Any, x: Any) -> Any:
        # The kernel is stored with its outputs first.
        return lax.conv_general_dilated(
            *(x, jnp.moveaxis(params["kernel"], 0, -1), (2, 2), "VALID"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    axes = {"*": f"oppi/{groups}"}
    options = prune.LayerOptions(structure=select.fan_in(), axes=axes)
    params = {"kernel": jnp.asarray(np.moveaxis(kernel, -1, 0))}
    given = (conv, params, 0.5, jnp.asarray(images))
    found = prune.obs(*given, layers=options)
    size, each = 9 * 4 // groups, 6 // groups
    for g in range(groups):
        seen = patches(images, range(g * 4 // groups, (g + 1) * 4 // groups))
        columns = kernel[..., g * each : (g + 1) * each].reshape(size, each)
        kept, new = obs(columns.astype(float), seen.astype(float), size, True, 0.01)
        mine = slice(g * each, (g + 1) * each)
        got = np.asarray(found.params["kernel"][mine]).reshape(each, size).T
        np.testing.assert_allclose(got, new, rtol=2e-3, atol=2e-4)
        kept, _ = wanda(columns, seen, size)
        scored = prune.wanda(*given, layers=options)["kernel"][mine]
        np.testing.assert_array_equal(np.asarray(scored).reshape(each, size).T, kept)


def test_scores_are_traced_and_prune_by_any_distribution() -> None:
    ones = masks.ones(PARAMS)
    found = jax.jit(lambda p: prune.wanda_scores(mlp, p, ones, INPUTS))(PARAMS)
    first, second = weights_of(PARAMS)
    hidden = np.maximum(MIXED @ first, 0)
    for name, weight, given in (("a", first, MIXED), ("b", second, hidden)):
        wanted = np.abs(weight) * np.linalg.norm(given, axis=0)[:, None]
        np.testing.assert_allclose(found[name]["kernel"], wanted, rtol=1e-4)


REFUSED: dict[str, Callable[[], Any]] = {
    r"apply: .*\{'a/kernel': 2, 'b/kernel': 2\}": lambda: prune.wanda(
        lambda p, x: mlp(p, mlp(p, x) @ jnp.ones((4, 12))),
        *(PARAMS, 0.5, INPUTS),
    ),
    r"apply: .*\{'b/kernel': 0\}": lambda: prune.obs(
        lambda p, x: x @ p["a"]["kernel"], PARAMS, 0.5, INPUTS
    ),
    "structure: expected None, fan_in": lambda: prune.obs(
        *(mlp, PARAMS, 0.5, INPUTS),
        layers=prune.LayerOptions(structure=select.channels()),
    ),
    "min_layer_density: expected 0.0 with wanda": lambda: prune.wanda(
        *(mlp, PARAMS, 0.5, INPUTS), layers=prune.LayerOptions(min_layer_density=0.1)
    ),
    "damping: expected one that makes": lambda: prune.obs(
        linear, PARAMS["a"], 0.5, INPUTS.at[:, 3].set(0), damping=0.0
    ),
    r"inputs: expected one or more examples, got .* \(0, 12\) at a/kernel": lambda: (
        prune.obs(mlp, PARAMS, 0.5, INPUTS[:0])
    ),
    r"inputs: expected one or more examples, got .* \(0, 12\) at kernel": lambda: (
        prune.wanda(linear, PARAMS["a"], 0.5, INPUTS[:0])
    ),
    "block_size: expected": lambda: prune.obs(
        linear, PARAMS["a"], 0.5, INPUTS, block_size=0
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
