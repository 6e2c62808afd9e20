"""PHEW by its walks, and NTK-SAP by the trace of the tangent kernel."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsparse import config, connectivity, masks, prune, scores
from jaxsparse.factory.scores import ScoreInputs


def two_layers(params: Any, x: Any) -> Any:
    return x @ params["a"] @ params["b"]


def kernels(*shapes: tuple[int, int], seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    draws = [draw.normal(size=shape).astype(np.float32) for shape in shapes]
    return {name: jnp.asarray(draw) for name, draw in zip("abc", draws, strict=False)}


def test_steps_of_walks_are_proportional_to_the_weights() -> None:
    """Of 4000 first walks, from input 0, and second ones, from output 0."""
    params = kernels((2, 3), (3, 2))
    ones = masks.ones(params, prunable=("*",))
    x = jnp.ones((1, 2))

    @jax.jit
    @jax.vmap
    def walk(key: Any) -> Any:
        return prune.phew_scores(two_layers, params, ones, x, key=key, walks=2)

    found = walk(jax.random.split(jax.random.key(1), 4000))
    first, second = (np.abs(np.asarray(params[name], float)) for name in "ab")
    there = [np.asarray(found[name]) == 0 for name in "ab"]
    assert all((taken.sum(axis=(1, 2)) == 1).all() for taken in there)
    hop = first[0] / first[0].sum()
    onward = hop[:, None] * second / second.sum(axis=1, keepdims=True)
    # Weights that the first walk took do not show the second.
    back = (np.asarray(found["b"]) == -1).sum(axis=0)
    last = second[:, 0] / second[:, 0].sum()
    for share, wanted in (
        (there[0].mean(axis=0), np.stack([hop, 0 * hop])),
        (there[1].mean(axis=0), onward),
        (back[:, 0] / 4000, last * (1 - onward[:, 0])),
        (back[:, 1] / 4000, 0 * last),
    ):
        deviation = np.sqrt(wanted * (1 - wanted) / 4000)
        assert (abs(share - wanted) <= 4.5 * deviation).all()


def test_the_weights_of_the_first_walks_are_whole_paths() -> None:
    """Through convolutions, pooling and reshapes, forward and backward."""
    model = nn.Sequential(
        [
            *(nn.Conv(3, (3, 3)), nn.relu),
            lambda x: nn.max_pool(x, (2, 2), (2, 2)),
            # A window of one: at the border, a larger one may meet padding only.
            *(nn.Conv(4, (1, 1)), nn.relu),
            lambda x: x.reshape(len(x), -1),
            nn.Dense(5),
        ]
    )
    x = jnp.ones((1, 4, 4, 2))
    params = jax.jit(model.init)(jax.random.key(0), x)
    ones = masks.ones(params)
    score = prune.phew_scores(
        model.apply, params, ones, x, key=jax.random.key(2), walks=40
    )
    live = jax.jit(lambda kept: connectivity.live(model.apply, params, kept, x))
    sizes = set()
    for walks in (1, 2, 3, 7, 40):
        kept = jax.tree.map(lambda leaf, walks=walks: leaf > -walks, score)
        counts = [masks.num_active(kept), masks.num_active(live(kept))]
        assert counts[0] == counts[1] <= 3 * walks
        sizes.add(counts[0])
    assert len(sizes) == 5 and min(sizes) == 3
    # Weights on no walk follow, the largest first.
    rest, size = (
        np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(kernel)])
        for kernel in (score, masks.tree_map(lambda _, leaf: abs(leaf), ones, params))
    )
    off = rest <= -40
    assert 0 < off.sum() < off.size
    np.testing.assert_array_equal(np.argsort(rest[off]), np.argsort(size[off]))


def test_networks_that_are_no_chain_are_refused() -> None:
    def branches(params: Any, x: Any) -> Any:
        return (x @ params["a"] + x @ params["b"]) @ params["c"]

    def score(apply: Any, params: Any) -> Any:
        ones = masks.ones(params, prunable=("*",))
        return prune.phew_scores(
            apply, params, ones, jnp.ones((1, 2)), key=jax.random.key(0)
        )

    with pytest.raises(ValueError, match="params: b: expected a layer that reads"):
        score(branches, kernels((2, 3), (2, 3), (3, 2)))

    def with_inputs(params: Any, x: Any) -> Any:
        hidden = jax.nn.relu(x @ params["a"])
        return jnp.concatenate([hidden, x], axis=1) @ params["b"]

    def with_a_unit_twice(params: Any, x: Any) -> Any:
        hidden = jax.nn.relu(x @ params["a"])
        return jnp.concatenate([hidden, hidden[:, :1]], axis=1) @ params["b"]

    for apply, units, inputs in ((with_inputs, 2, 4), (with_a_unit_twice, 3, 4)):
        with pytest.raises(ValueError, match="params: b: .* and nothing else, each"):
            score(apply, kernels((2, units), (inputs, 2)))


def test_ntk_sap_is_the_derivative_of_the_trace_by_the_masks() -> None:
    """Of a linear network, in closed form, for inputs whose mean square is 1."""
    params, other = (kernels((4, 5), (5, 3), seed=seed) for seed in (1, 2))
    draw = np.random.default_rng(3)
    mask = {"a": draw.random((4, 5)) < 0.7, "b": draw.random((5, 3)) < 0.7}
    mask = jax.tree.map(jnp.asarray, mask)
    batches, examples = jnp.zeros((4000, 8, 4)), 4000 * 8
    score = functools.partial(
        *(scores.ntk_sap, two_layers),
        masks=mask,
        batches=batches,
        epsilon=0.01,
        initialize=lambda key: params,
    )
    found = jax.jit(lambda w, key: score(w, key=key))(other, jax.random.key(3))
    m1, m2 = (np.asarray(mask[name], float) for name in "ab")
    w1, w2 = (np.asarray(params[name], float) for name in "ab")
    out, into = ((m2 * w2) ** 2).sum(axis=1), ((m1 * w1) ** 2).sum(axis=0)
    # The trace is the sum of m1^2 out, over inputs, and of m2^2 into, over outputs.
    first = 2 * m1 * out + 2 * m1 * w1**2 * (m2**2).sum(axis=1)
    second = 2 * m2 * into[:, None] + 2 * m2 * w2**2 * (m1**2).sum(axis=0)[:, None]
    for name, wanted in (("a", first), ("b", second)):
        got = np.asarray(found[name]) / examples / 0.01**2
        np.testing.assert_allclose(got, wanted, rtol=0.25, atol=0.5)
        assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99


def test_ntk_sap_permutes_the_weights_of_each_leaf() -> None:
    """Of two orders of `b`, each is drawn in about half of 64 draws."""
    ones = {"a": jnp.ones((3, 2), bool), "b": jnp.ones((2, 1), bool)}
    orders = [
        {"a": jnp.ones((3, 2)), "b": jnp.array(column)}
        for column in ([[10.0], [0.1]], [[0.1], [10.0]])
    ]

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.vmap, in_axes=(0, None))
    def score(key: Any, fixed: int | None) -> Any:
        initialize = None if fixed is None else lambda key: orders[fixed]
        return scores.ntk_sap(
            *(two_layers, orders[0], ones, jnp.zeros((1, 8, 3))),
            key=key,
            epsilon=1.0,  # large, so that differences of outputs do not cancel
            initialize=initialize,
        )

    keys = jax.random.split(jax.random.key(4), 64)
    drawn, *each = (score(keys, fixed) for fixed in (None, 0, 1))

    def far(one: Any) -> np.ndarray:
        """The largest difference in each draw, as a share of the largest score."""
        return np.max(
            [
                np.max(abs(drawn[name] - one[name]), axis=(1, 2))
                / np.max(drawn[name], axis=(1, 2))
                for name in "ab"
            ],
            axis=0,
        )

    alike = [far(one) < 1e-3 for one in each]
    assert (alike[0] ^ alike[1]).all()
    assert 12 <= alike[0].sum() <= 52  # 5 s.d.


WRONG_BATCHES: dict[str, tuple[type[Exception], Any]] = {
    "batches: x: expected a floating dtype": (
        TypeError,
        {"x": np.zeros((1, 8, 3), np.uint8)},
    ),
    r"batches: expected leaves .* got shapes \[\]": (ValueError, {}),
    "batches: expected leaves with the same": (ValueError, np.zeros((0, 8, 3))),
}


@pytest.mark.parametrize("message", WRONG_BATCHES)
def test_batches_that_are_no_inputs_are_refused(message: str) -> None:
    params, (kind, batches) = kernels((3, 2), (2, 1)), WRONG_BATCHES[message]
    ones = masks.ones(params, prunable=("*",))
    with pytest.raises(kind, match=message):
        scores.ntk_sap(two_layers, params, ones, batches, key=jax.random.key(0))


def test_ntk_sap_scores_low_precision_in_float32() -> None:
    params = {"a": jnp.ones((3, 2), jnp.bfloat16), "b": jnp.ones((2, 1), jnp.bfloat16)}
    found = jax.eval_shape(
        lambda p: scores.ntk_sap(
            *(two_layers, p, masks.ones(p, prunable=("*",))),
            jnp.zeros((1, 8, 3), jnp.bfloat16),
            key=jax.random.key(0),
        ),
        params,
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32"}


def test_configs_score_by_ntk_sap_in_training_mode() -> None:
    """Where BatchNorm normalizes by the inputs that are drawn."""
    params = {"a": jnp.linspace(-1, 1, 6).reshape(3, 2), "b": jnp.ones((2, 1))}
    inputs, key = jnp.zeros((2, 8, 1, 1, 3)), jax.random.key(0)

    def normalized(params: Any, images: Any, *, train: bool) -> Any:
        hidden = images.reshape(8, 3) @ params["a"]
        scale = jnp.std(hidden, axis=0, keepdims=True) if train else 1.0
        return jax.nn.relu(hidden / scale) @ params["b"]

    given = ScoreInputs(normalized, inputs, jnp.zeros((2, 8), jnp.int32), key)
    spec = config.SCORES.find("ntk_sap")
    score = given.bind(spec, config.default().sparse, field="sparse.pai_score")
    ones = masks.ones(params, prunable=("*",))
    training, evaluation = (
        scores.ntk_sap(
            functools.partial(normalized, train=train), params, ones, inputs, key=key
        )
        for train in (True, False)
    )
    found = score(params, ones)
    jax.tree.map(np.testing.assert_array_equal, found, training)
    assert not np.allclose(found["a"], evaluation["a"])
