"""Scores of examples."""

from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from jaxsparse.data.data_pruning import scores as scores_lib

LOGIT_SCORES = {
    "el2n": scores_lib.el2n,
    "margin": scores_lib.margin,
    "loss": scores_lib.loss,
}
RANGES = {"el2n": (0.0, np.sqrt(2.0)), "margin": (-1.0, 1.0), "loss": (0.0, np.inf)}
COMPILED = {name: jax.jit(score) for name, score in LOGIT_SCORES.items()}
grand = jax.jit(scores_lib.grand, static_argnums=0, static_argnames="block_size")


def some_logits(n: int = 40, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 4 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)


def by_hand(logits: np.ndarray, label: int) -> dict[str, float]:
    odds = np.exp(logits)
    p = odds / odds.sum()
    return {
        "el2n": np.linalg.norm(p - np.eye(len(p))[label]),
        "margin": p[label] - np.delete(p, label).max(),
        "loss": -np.log(p[label]),
    }


@pytest.mark.parametrize("name", LOGIT_SCORES)
def test_scores_of_logits_are_their_definitions(name: str) -> None:
    logits, labels = some_logits()
    wanted = [by_hand(*pair)[name] for pair in zip(logits, labels, strict=True)]
    with jax.enable_x64(True):
        got = COMPILED[name](jnp.asarray(logits), jnp.asarray(labels))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)
    narrow = jnp.asarray(logits, jnp.float32), jnp.asarray(labels)
    np.testing.assert_allclose(COMPILED[name](*narrow), wanted, rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOGIT_SCORES)
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    logits=npst.arrays(
        np.float32,
        (4, 5),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
        | st.floats(-30, 30, width=32),
    ),
    labels=npst.arrays(np.int32, 4, elements=st.integers(0, 4)),
)
def test_scores_of_any_finite_logits_are_in_range(
    name: str, logits: np.ndarray, labels: np.ndarray
) -> None:
    low, high = RANGES[name]
    got = np.asarray(COMPILED[name](jnp.asarray(logits), jnp.asarray(labels)))
    assert got.dtype == np.float32
    assert np.all((got >= low) & (got <= high))


def test_sure_examples_stay_in_order_and_end_at_exactly_0() -> None:
    heights = np.array([10.0, 20.0, 30.0, 50.0, 80.0, 200.0, 3e38])
    logits = np.zeros((7, 4), np.float32)
    logits[:, 2] = heights
    right, wrong = np.full(7, 2), np.zeros(7, int)
    gone = 3 * np.exp(-heights) / (1 + 3 * np.exp(-heights))

    def score(name: str, labels: np.ndarray) -> np.ndarray:
        return np.asarray(COMPILED[name](jnp.asarray(logits), jnp.asarray(labels)))

    got = score("el2n", right)
    np.testing.assert_allclose(got, gone * np.sqrt(4 / 3), rtol=1e-5, atol=1e-37)
    assert np.all(np.diff(got[:6]) < 0) and got[5] == got[6] == 0
    losses = score("loss", right)
    np.testing.assert_allclose(losses, -np.log1p(-gone), rtol=1e-5, atol=1e-37)
    assert losses[5] == losses[6] == 0
    assert np.all(score("margin", right)[3:] == 1)
    assert np.all(score("el2n", wrong)[3:] == np.float32(np.sqrt(2)))
    assert np.all(score("margin", wrong)[3:] == -1)


@pytest.mark.parametrize("name", LOGIT_SCORES)
def test_narrow_logits_have_float32_scores(name: str) -> None:
    logits, labels = some_logits()
    narrow = jnp.asarray(logits, jnp.bfloat16)
    got = COMPILED[name](narrow, jnp.asarray(labels))
    same = COMPILED[name](narrow.astype(jnp.float32), jnp.asarray(labels))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, same)


@pytest.mark.parametrize("name", LOGIT_SCORES)
def test_labels_out_of_range_score_nan_and_nothing_else_does(name: str) -> None:
    logits, _ = some_logits(4)
    got = COMPILED[name](jnp.asarray(logits), jnp.array([0, -1, 7, 6]))
    assert np.isnan(got).tolist() == [False, True, True, False]


@pytest.mark.parametrize("name", LOGIT_SCORES)
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="logits: expected .*got 1"):
        LOGIT_SCORES[name](jnp.zeros((3, 1)), jnp.zeros(3, int))


@pytest.mark.parametrize("name", LOGIT_SCORES)
def test_replicates_by_vmap(name: str) -> None:
    logits, labels = some_logits()
    each = jnp.stack([jnp.asarray(logits, jnp.float32) * i for i in range(3)])
    labels = jnp.asarray(labels)
    together = jax.jit(jax.vmap(LOGIT_SCORES[name], in_axes=(0, None)))(each, labels)
    for i in range(3):
        alone = COMPILED[name](each[i], labels)
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-7)


def network(key: int = 0, width: int = 6) -> Any:
    rng = np.random.default_rng(key)

    def draw(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "hidden": {"kernel": draw(5, width), "bias": draw(width)},
        "last": {"kernel": draw(width, 4)},
    }


def logits_of(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["last"]["kernel"]


def cross_entropy(params: Any, example: Any) -> Any:
    logits = logits_of(params, example["x"])
    return scores_lib.loss(logits[None], example["y"][None])[0]


def data(n: int) -> Any:
    rng = np.random.default_rng(3)
    return {
        "x": jnp.asarray(rng.normal(size=(n, 5)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 4, n), jnp.int32),
    }


slope = jax.jit(jax.grad(cross_entropy))  # of one example


def one_by_one(params: Any, examples: Any) -> list[float]:
    """The norm of each example's gradient, by a loop, in float64."""
    held = jax.tree.map(np.asarray, examples)
    norms = []
    for i in range(len(examples["y"])):
        tree = slope(params, jax.tree.map(lambda leaf: leaf[i], held))  # noqa: B023
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
        norms.append(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))
    return norms


@pytest.mark.parametrize("block_size", [4, 12])
def test_grand_is_the_norm_of_each_gradient(block_size: int) -> None:
    params, examples = network(), data(11)
    wanted = one_by_one(params, examples)
    assert min(wanted) > 1e-3
    got = grand(cross_entropy, params, examples, block_size=block_size)
    assert got.shape == (11,) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_grand_of_a_linear_network_is_el2n_times_the_input() -> None:
    kernel, examples = np.full((5, 4), 1 / 3, np.float32), data(9)
    kernel[2, 1] = -2.0
    params = {"kernel": jnp.asarray(kernel)}

    def loss(params: Any, example: Any) -> Any:
        logits = example["x"] @ params["kernel"]
        return scores_lib.loss(logits[None], example["y"][None])[0]

    got = grand(loss, params, examples, block_size=4)
    x = np.asarray(examples["x"])
    errors = COMPILED["el2n"](jnp.asarray(x @ kernel), examples["y"])
    sizes = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(got, np.asarray(errors) * sizes, rtol=1e-5)


def test_grand_of_a_masked_network_by_a_loss_that_masks() -> None:
    params, examples = network(), data(11)
    mask = np.arange(24).reshape(6, 4) % 3 == 0
    kernel = np.where(mask, params["last"]["kernel"], np.float32(0))
    params["last"]["kernel"] = jnp.asarray(kernel)

    def masked(params: Any, example: Any) -> Any:
        kernel = jnp.where(mask, params["last"]["kernel"], 0.0)
        return cross_entropy(params | {"last": {"kernel": kernel}}, example)

    inside, dense = (
        np.asarray(grand(loss, params, examples, block_size=4))
        for loss in (masked, cross_entropy)
    )
    slopes = jax.jit(jax.vmap(jax.grad(cross_entropy), (None, 0)))(params, examples)
    outside = np.asarray(slopes["last"]["kernel"])[:, ~mask]
    lost = np.sum(outside**2, axis=1)
    assert np.all(lost > 0)
    np.testing.assert_allclose(inside**2 + lost, dense**2, rtol=1e-5)


def test_grand_of_replicates_and_of_narrow_weights() -> None:
    examples = data(11)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(network, range(3)))

    def score(params: Any) -> Any:
        return grand(cross_entropy, params, examples, block_size=4)

    together = jax.jit(jax.vmap(score))(stacked)
    for i in range(3):
        np.testing.assert_allclose(together[i], score(network(i)), rtol=1e-5)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), network())
    got = score(narrow)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, score(network()), rtol=0.05, atol=0.02)


def test_grand_holds_one_block_of_gradients() -> None:
    params, examples = network(width=2000), data(64)
    gradient = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))

    def held(block_size: int) -> float:
        lowered = grand.lower(cross_entropy, params, examples, block_size=block_size)
        memory = lowered.compile().memory_analysis()
        return memory.temp_size_in_bytes / gradient

    assert held(2) < 8 < 24 < held(64)


@pytest.mark.parametrize(
    "examples",
    [
        {},
        {"x": jnp.ones((0, 2))},
        {"x": jnp.ones((2, 2)), "y": jnp.ones(3)},
        {"x": jnp.ones((2, 2)), "y": jnp.float32(1.0)},
    ],
)
def test_what_is_no_examples_is_refused(examples: Any) -> None:
    with pytest.raises(ValueError, match="examples: expected leaves .*got shapes"):
        grand(cross_entropy, network(), examples, block_size=2)


def test_blocks_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="block_size: expected .*got 0"):
        grand(cross_entropy, network(), data(3), block_size=0)


def test_the_mean_over_replicates_is_taken_in_float64() -> None:
    each = np.array([[1.0, 2.0**24, 3.0], [2.0, 1.0, np.inf]], np.float32)
    for given in (each, jnp.asarray(each)):
        got = scores_lib.mean_over_replicates(given)
        assert got.dtype == np.float64
        assert got.tolist() == [1.5, (2**24 + 1) / 2, np.inf]
    with pytest.raises(ValueError, match="got 0 replicates"):
        scores_lib.mean_over_replicates(each[:0])
    each[1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN for 1 of 6, .* replicate 1, example 1;"):
        scores_lib.mean_over_replicates(each)
