import functools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxsparse import losses, masks
from jaxsparse.analysis import mode_connectivity
from jaxsparse.analysis.mode_connectivity import linear_path

WAYS = ("scan", "vmap", "loop")
EVCI = np.array(mode_connectivity.EVCI_ALPHAS)


def mlp(seed: int) -> Any:
    first, second, third = jax.random.split(jax.random.key(seed), 3)
    return {
        "hidden": {
            "kernel": jax.random.normal(first, (5, 8)),
            "bias": jax.random.normal(second, (8,)),
        },
        "head": {"kernel": jax.random.normal(third, (8, 3))},
    }


def logits(params: Any, x: Any) -> Any:
    hidden = x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None]
    return jax.nn.relu(hidden) @ params["head"]["kernel"]


def evaluate(params: Any, batch_stats: Any, batch: Any) -> Any:
    x, y = batch
    out = logits(params, x)
    return losses.cross_entropy(out, y), losses.is_correct(out, y)


def data(count: int = 23) -> Any:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, 5)).astype(np.float32)
    return x, rng.integers(0, 3, count).astype(np.int32)


def slowly(start: Any, end: Any, alpha: float, x: Any, y: Any) -> Any:
    """Losses and correctness at one point in float64, example by example."""
    s, e = (jax.tree.map(lambda v: np.asarray(v, np.float64), t) for t in (start, end))
    p = jax.tree.map(lambda a, b: (1 - alpha) * a + alpha * b, s, e)
    each, right = [], []
    for row, label in zip(x.astype(np.float64), y, strict=True):
        hidden = np.maximum(row @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
        out = hidden @ p["head"]["kernel"]
        each.append(np.log(np.sum(np.exp(out - out[label]))))
        right.append(np.argmax(out) == label)
    return np.array(each), np.array(right)


def test_default_points_are_those_of_the_paper_and_meet_both_ends() -> None:
    np.testing.assert_allclose(EVCI, np.linspace(-0.2, 1.2, 29), atol=1e-15)
    unit = mode_connectivity.UNIT_ALPHAS
    np.testing.assert_allclose(unit, np.linspace(0, 1, 30), atol=1e-15)
    for points in (EVCI.tolist(), list(unit)):
        assert points.count(0.0) == 1 and points.count(1.0) == 1


def test_interpolation_is_exact_at_the_ends_and_linear_between() -> None:
    start, end = mlp(0), mlp(1)
    for alpha, wanted in ((0.0, start), (1.0, end)):
        got = mode_connectivity.interpolate(start, end, alpha)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)
    got = mode_connectivity.interpolate(start, end, -0.2)["head"]["kernel"]
    a, b = (np.asarray(t["head"]["kernel"], np.float64) for t in (start, end))
    np.testing.assert_allclose(got, 1.2 * a - 0.2 * b, rtol=2e-6, atol=1e-6)


def test_interpolation_keeps_counters_keys_dtypes_and_zeros() -> None:
    start = {
        "w": jnp.array([0.0, 1.0], jnp.bfloat16),
        "count": jnp.int32(7),
        "on": jnp.array([True, False]),
        "key": jax.random.key(3),
        "nothing": None,
    }
    end = start | {"w": jnp.array([0.0, 2.0], jnp.bfloat16)}
    for at in (mode_connectivity.interpolate, jax.jit(mode_connectivity.interpolate)):
        got = at(start, end, 0.3)
        assert got["w"].dtype == jnp.bfloat16 and got["w"][0] == 0
        assert float(got["w"][1]) == float(jnp.bfloat16(1.3))
        assert got["count"] == 7 and got["nothing"] is None
        np.testing.assert_array_equal(got["on"], [True, False])
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    other = jax.tree.map(lambda leaf: leaf + 2, state)
    middle = mode_connectivity.interpolate(state, other, 0.5)
    np.testing.assert_allclose(middle["bias"][...], np.ones(3))


@pytest.mark.parametrize(
    ("start", "end", "word"),
    [
        (
            {"a": np.ones(2)},
            {"b": np.ones(2)},
            "end: expected only leaves of start.*got the leaf b",
        ),
        ({"a": np.ones(2)}, {}, "end: expected all leaves of start.*got no leaf a"),
        ({"a": {"b": np.ones(2)}}, {"a": {"b": np.ones(3)}}, "a/b: expected shape"),
        (
            {"a": np.ones(2)},
            {"a": jnp.ones(2, jnp.bfloat16)},
            "a: expected dtype .*got bfloat16",
        ),
        ({"n": np.int32(1)}, {"n": np.int32(2)}, "n: expected .*int32"),
        ({"m": np.array([True])}, {"m": np.array([False])}, "m: expected .*bool"),
        ({"k": jax.random.key(0)}, {"k": jax.random.key(1)}, "k: expected .*key"),
    ],
)
def test_ends_that_do_not_fit_are_refused(start: Any, end: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        mode_connectivity.interpolate(start, end, 0.5)


def square(params: Any, batch_stats: Any, batch: Any) -> Any:
    each = (batch @ params["w"]) ** 2
    return each, each < 1.0


@pytest.mark.parametrize("by", WAYS)
def test_a_quadratic_loss_is_a_parabola(by: Any) -> None:
    start, end = ({"w": jnp.array(w)} for w in ([1.0, -2.0], [3.0, 0.5]))
    x = np.array([[1.0, 0.0], [1.0, 1.0], [-2.0, 1.0]], np.float32)
    found = mode_connectivity.along_path(
        square, start, end, examples=x, batch_size=2, by=by
    )
    a, b = x @ np.array([1.0, -2.0]), x @ np.array([3.0, 0.5])
    wanted = ((1 - EVCI[:, None]) * a + EVCI[:, None] * b) ** 2
    np.testing.assert_allclose(found.example_loss, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.loss, wanted.mean(axis=1), rtol=1e-5, atol=1e-5)
    third = np.diff(found.loss, n=3)
    np.testing.assert_allclose(third, 0, atol=2e-4)
    assert np.diff(found.loss, n=2).min() > 0.01
    np.testing.assert_array_equal(found.example_correct, found.example_loss < 1)


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("batch_size", [5, 100])
def test_means_equal_a_slow_reference(by: Any, batch_size: int) -> None:
    start, end, (x, y) = mlp(0), mlp(1), data()
    alphas = (-0.2, 0.0, 0.45, 1.0)
    found = mode_connectivity.along_path(
        evaluate,
        start,
        end,
        examples=(x, y),
        batch_size=batch_size,
        alphas=alphas,
        by=by,
    )
    assert found.loss.dtype == found.error.dtype == np.float64
    for i, alpha in enumerate(alphas):
        each, right = slowly(start, end, alpha, x, y)
        np.testing.assert_allclose(found.example_loss[i], each, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found.example_correct[i], right)
        assert found.error[i] == np.count_nonzero(~right) / 23
        assert found.loss[i] == np.mean(found.example_loss[i].astype(np.float64))


def test_the_ends_are_direct_evaluations_bit_for_bit() -> None:
    start, end, batch = mlp(0), mlp(1), data(20)
    found = mode_connectivity.along_path(
        evaluate, start, end, examples=batch, batch_size=20, by="loop"
    )
    for params, alpha in ((start, 0.0), (end, 1.0)):
        each, right = jax.jit(evaluate)(params, {}, batch)
        at = mode_connectivity.EVCI_ALPHAS.index(alpha)
        np.testing.assert_array_equal(found.example_loss[at], each)
        np.testing.assert_array_equal(found.example_correct[at], right.astype(bool))


def scaled(params: Any, batch_stats: Any, batch: Any) -> Any:
    return batch * params, batch > 1.0


def test_blocks_leave_sums_and_errors_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=1001) * 10.0 ** rng.integers(-6, 6, 1001)).astype(np.float32)
    found = [
        mode_connectivity.along_path(
            scaled,
            jnp.float32(1.0),
            jnp.float32(1.5),
            examples=x,
            batch_size=size,
            alphas=(0.0, 1.0),
            by="scan",
        )
        for size in (1, 7, 1001)
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].loss, other.loss)
        np.testing.assert_array_equal(found[0].error, other.error)
    assert found[0].loss[0] == np.mean(x.astype(np.float64))


@pytest.mark.parametrize("by", WAYS)
def test_one_program_serves_all_points_blocks_and_segments(by: Any) -> None:
    traces = []

    def spied(params: Any, batch_stats: Any, batch: Any) -> Any:
        traces.append(1)
        return evaluate(params, batch_stats, batch)

    for seed in (1, 2):
        mode_connectivity.along_path(
            spied, mlp(0), mlp(seed), examples=data(), batch_size=5, by=by
        )
    assert len(traces) == 1


def test_convolutions_on_cpus_are_looped(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = {"conv": {"kernel": np.ones((3, 3, 1, 2))}}
    assert (
        linear_path.default_mode(conv) == "loop"
        and linear_path.default_mode(mlp(0)) == "scan"
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert linear_path.default_mode(conv) == "scan"


def normalized(params: Any, stats: Any, batch: Any) -> Any:
    x, y = batch
    z = (x @ params["kernel"] - stats["mean"][None]) / jnp.sqrt(stats["var"][None] + 1)
    return losses.cross_entropy(z, y), losses.is_correct(z, y)


def moments(params: Any, x: Any) -> Any:
    z = x @ params["kernel"]
    return {"mean": jnp.mean(z, axis=0), "var": jnp.var(z, axis=0)}


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("anew", [False, True])
def test_batch_norm_by_hand(by: Any, anew: bool) -> None:
    rng = np.random.default_rng(4)
    k0, k1 = (rng.normal(size=(5, 3)).astype(np.float32) for _ in range(2))
    x, y = data()
    batches = rng.normal(size=(3, 11, 5)).astype(np.float32)
    stats = [moments({"kernel": k}, batches[0]) for k in (k0, k1)]
    batch_stats = (
        mode_connectivity.ReEstimated(moments, batches)
        if anew
        else mode_connectivity.Interpolated(*stats)
    )
    alphas = (0.0, 0.3, 1.0)
    found = mode_connectivity.along_path(
        normalized,
        {"kernel": jnp.asarray(k0)},
        {"kernel": jnp.asarray(k1)},
        examples=(x, y),
        batch_size=10,
        alphas=alphas,
        batch_stats=batch_stats,
        by=by,
    )
    for i, alpha in enumerate(alphas):
        k = (1 - alpha) * k0.astype(np.float64) + alpha * k1
        if anew:
            mean = np.mean([(b @ k).mean(axis=0) for b in batches], axis=0)
            var = np.mean([(b @ k).var(axis=0) for b in batches], axis=0)
        else:
            mean, var = (
                (1 - alpha) * np.asarray(stats[0][name])
                + alpha * np.asarray(stats[1][name])
                for name in ("mean", "var")
            )
        z = (x @ k - mean) / np.sqrt(var + 1)
        each = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]
        np.testing.assert_allclose(found.loss[i], each.mean(), rtol=1e-5)
        assert found.error[i] == np.mean(np.argmax(z, axis=1) != y)


class Tiny(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.Dense(3, name="head")(jnp.mean(nn.relu(x), axis=(1, 2)))


def by_hand(kernel: np.ndarray, images: np.ndarray) -> np.ndarray:
    """A 3x3 convolution that keeps the size."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = images.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def test_linen_networks_with_convolutions_and_batch_norm() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(13, 6, 6, 2)).astype(np.float32)
    labels = rng.integers(0, 3, 13).astype(np.int32)
    training = rng.normal(size=(2, 8, 6, 6, 2)).astype(np.float32)
    model = Tiny()
    init = jax.jit(functools.partial(model.init, train=False))
    both = [init(jax.random.key(i), images) for i in range(2)]
    zeros = jax.tree.map(jnp.zeros_like, both[0]["batch_stats"])

    def network(params: Any, batch_stats: Any, batch: Any) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        out = model.apply(variables, batch[0], train=False)
        return losses.cross_entropy(out, batch[1]), losses.is_correct(out, batch[1])

    def measure(params: Any, images: Any) -> Any:
        variables = {"params": params, "batch_stats": zeros}
        _, changed = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jax.tree.map(lambda s: s / (1 - 0.9), changed["batch_stats"])

    found = {
        by: mode_connectivity.along_path(
            network,
            *(variables["params"] for variables in both),
            examples=(images, labels),
            batch_size=5,
            alphas=(0.0, 0.5, 1.0),
            batch_stats=mode_connectivity.ReEstimated(measure, training),
            by=by,
        )
        for by in ("loop", "vmap", None)
    }
    np.testing.assert_allclose(found["vmap"].loss, found["loop"].loss, rtol=1e-5)
    np.testing.assert_array_equal(found[None].loss, found["loop"].loss)

    kernel = both[0]["params"]["conv"]["kernel"]
    features = [by_hand(np.asarray(kernel), images) for images in training]
    mean = np.mean([f.mean(axis=(0, 1, 2)) for f in features], axis=0)
    var = np.mean([f.var(axis=(0, 1, 2)) for f in features], axis=0)
    stats = {"norm": {"mean": jnp.asarray(mean), "var": jnp.asarray(var)}}
    each, right = jax.jit(network)(both[0]["params"], stats, (images, labels))
    np.testing.assert_allclose(found["loop"].example_loss[0], each, rtol=1e-4)
    assert found["loop"].error[0] == np.count_nonzero(right == 0) / 13


def test_masked_weights_stay_zero_along_the_line() -> None:
    start, end = mlp(0), mlp(1)
    kept = jax.tree.map(
        lambda m: jnp.arange(m.size).reshape(m.shape) % 3 == 0, masks.ones(start)
    )
    ends = [masks.apply(kept, params) for params in (start, end)]
    for alpha in mode_connectivity.EVCI_ALPHAS:
        point = mode_connectivity.interpolate(*ends, alpha)
        for mask, leaf in ((kept[n]["kernel"], point[n]["kernel"]) for n in kept):
            assert not np.any(np.asarray(leaf)[~np.asarray(mask)])
            assert np.any(np.asarray(leaf))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"batch_size": 0}, "batch_size: expected .*got 0"),
        ({"by": "pmap"}, "by: expected .*got 'pmap'"),
        ({"alphas": ()}, "alphas: expected .*got"),
        ({"alphas": (0.0, np.nan)}, "alphas: expected .*got"),
        ({"examples": (np.ones((3, 5)), np.ones(2))}, "examples: expected leaves"),
        ({"examples": ()}, "examples: expected leaves"),
        (
            {"end": {"w": np.ones(2)}},
            "end: expected only leaves of start.*got the leaf w",
        ),
        (
            {"evaluate": lambda p, s, b: (jnp.mean(b[0]), b[1])},
            "evaluate: expected .*got results",
        ),
        (
            {"batch_stats": mode_connectivity.ReEstimated(moments, ())},
            "batch_stats.batches: expected .*got",
        ),
        (
            {"batch_stats": mode_connectivity.Interpolated({"m": 1.0}, {"n": 1.0})},
            "end: expected only leaves of start.*got the leaf n",
        ),
    ],
)
def test_bad_sweeps_are_refused(fields: Any, word: str) -> None:
    good = {
        "evaluate": evaluate,
        "start": mlp(0),
        "end": mlp(1),
        "examples": data(),
        "batch_size": 5,
    }
    with pytest.raises(ValueError, match=word):
        mode_connectivity.along_path(**(good | fields))


def test_the_barrier_of_a_double_well_is_its_wall() -> None:
    def well(params: Any, batch_stats: Any, batch: Any) -> Any:
        each = batch * (params**2 - 1) ** 2
        return each, each < 0.5

    found = mode_connectivity.along_path(
        well,
        jnp.float32(-1.0),
        jnp.float32(1.0),
        examples=np.array([1.0, 3.0], np.float32),
        batch_size=2,
    )
    assert found.loss[0] > 0.3  # beyond the start
    for baseline in ("linear", "mean"):
        high = mode_connectivity.barrier(found.loss, found.alphas, baseline=baseline)
        np.testing.assert_allclose(high, 2.0, rtol=1e-6)
    each = mode_connectivity.barrier(found.example_loss, found.alphas)
    np.testing.assert_allclose(each, [1.0, 3.0], rtol=1e-6)
    middle = mode_connectivity.excess(found.example_loss, found.alphas)[
        found.alphas == 0.5
    ]
    np.testing.assert_allclose(middle[0], [1.0, 3.0], rtol=1e-6)
    wrong = 1.0 - found.example_correct
    assert mode_connectivity.barrier(wrong, found.alphas).tolist() == [1.0, 1.0]


def test_barriers_of_a_tilted_line_differ_by_their_baseline() -> None:
    alphas, values = (-1.0, 0.0, 0.5, 1.0, 2.0), np.array([9.0, 1.0, 2.5, 3.0, 9.0])
    assert mode_connectivity.barrier(values, alphas) == 0.5
    assert mode_connectivity.barrier(values, alphas, baseline="mean") == 1.0
    over = mode_connectivity.excess(values, alphas)
    np.testing.assert_allclose(over, [10.0, 0.0, 0.5, 0.0, 4.0])
    dip = mode_connectivity.excess(np.array([1.0, 0.0, 3.0]), (0, 0.5, 1))
    assert dip.tolist() == [0.0, -2.0, 0.0]


@hypothesis.given(
    st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3),
    st.floats(0, 1e3),
    st.integers(2, 40),
)
def test_convex_losses_have_no_barrier_and_none_is_negative(
    c: list[float], curve: float, points: int
) -> None:
    alphas = np.linspace(0, 1, points)
    convex = c[0] + c[1] * alphas + curve * (alphas - c[2]) ** 2
    scale = 1e-12 * (1 + np.max(np.abs(convex)))
    assert 0 <= mode_connectivity.barrier(convex, alphas) <= scale
    assert mode_connectivity.barrier(convex, alphas, baseline="mean") >= -scale
    assert mode_connectivity.barrier(-convex, alphas) >= 0


def test_a_convex_network_has_no_barrier() -> None:
    def linear(params: Any, batch_stats: Any, batch: Any) -> Any:
        out = batch[0] @ params["w"]
        return losses.cross_entropy(out, batch[1]), losses.is_correct(out, batch[1])

    ends = [{"w": jax.random.normal(jax.random.key(i), (5, 3))} for i in range(2)]
    found = mode_connectivity.along_path(linear, *ends, examples=data(), batch_size=8)
    assert mode_connectivity.barrier(found.loss, found.alphas) < 1e-6
    over = mode_connectivity.excess(found.example_loss, found.alphas)
    inside = over[(found.alphas > 0) & (found.alphas < 1)]
    assert np.max(inside) < 1e-5 and np.min(inside) < -0.01


def test_infinite_walls_and_ends() -> None:
    alphas = (0.0, 0.5, 1.0)
    assert mode_connectivity.barrier(np.array([1.0, np.inf, 1.0]), alphas) == np.inf
    assert np.isnan(mode_connectivity.barrier(np.array([np.inf, 1.0, 1.0]), alphas))


@pytest.mark.parametrize(
    ("values", "alphas", "baseline", "word"),
    [
        (np.ones(3), (0.0, 0.5, 0.9), "linear", "expected 0 and 1"),
        (np.ones(2), (0.0, 0.5, 1.0), "linear", "values: expected .*got shape"),
        (np.ones(2), (0.0, 1.0), "median", "baseline: expected .*got 'median'"),
    ],
)
def test_bad_barriers_are_refused(
    values: Any, alphas: Any, baseline: Any, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        mode_connectivity.barrier(values, alphas, baseline=baseline)
