import functools
import itertools
import math
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
from flax import nnx

from jaxsparse import masks
from jaxsparse.analysis import pairwise, similarity
from jaxsparse.analysis.similarity import Solution

MEASURES = {
    "l2": similarity.l2_distance,
    "cosine": similarity.cosine_similarity,
    "angle": similarity.angular_distance,
}


def solution(seed: int) -> Solution:
    """Weights that are not zero outside their masks."""
    rng = np.random.default_rng(seed)
    params = {
        "a": {"kernel": rng.normal(size=(6, 5)), "bias": rng.normal(size=5)},
        "b": {"kernel": rng.normal(size=(5, 2)), "steps": np.int32(seed)},
    }
    params = jax.tree.map(
        lambda p: jnp.asarray(p, jnp.int32 if p.ndim == 0 else jnp.float32), params
    )
    kept = {
        "a": {"kernel": jnp.asarray(rng.random((6, 5)) < 0.6), "bias": None},
        "b": {"kernel": jnp.asarray(rng.random((5, 2)) < 0.6), "steps": None},
    }
    return Solution(params, kept)


def vector(one: Solution, region: Any, biases: bool) -> np.ndarray:
    """Weights inside the own mask and the region, in float64, one by one."""
    found = []
    for name in ("a", "b"):
        weights = np.asarray(one.params[name]["kernel"], np.float64)
        own = np.asarray(one.masks[name]["kernel"])
        for place in np.ndindex(weights.shape):
            inside = own[place] and (region is None or region[name][place])
            found.append(weights[place] if inside else 0.0)
    return np.array(found + (one.params["a"]["bias"].tolist() if biases else []))


def region_of(first: Solution, second: Solution, subspace: str) -> Any:
    rules = {
        "union": np.logical_or,
        "intersection": np.logical_and,
        "first": lambda a, b: a,
        "second": lambda a, b: b,
    }
    if subspace == "all":
        return None
    return {
        n: rules[subspace](
            np.asarray(first.masks[n]["kernel"]), np.asarray(second.masks[n]["kernel"])
        )
        for n in ("a", "b")
    }


def slow(measure: str, u: np.ndarray, v: np.ndarray) -> float:
    if measure == "l2":
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(u, v, strict=True)))
    cosine = 1 - scipy.spatial.distance.cosine(u, v)
    return cosine if measure == "cosine" else math.acos(cosine)


@functools.cache
def all_measures(subspace: str) -> Any:
    """All measures of two solutions in a subspace: one program for each dtype."""

    def measure(first: Solution, second: Solution) -> dict[str, jax.Array]:
        return {
            name: one(first, second, subspace=subspace)
            for name, one in MEASURES.items()
        }

    return jax.jit(measure)


@pytest.mark.parametrize("subspace", similarity.SUBSPACES)
def test_measures_equal_a_slow_reference(subspace: str) -> None:
    first, second = solution(0), solution(1)
    region = region_of(first, second, subspace)
    u, v = (vector(one, region, subspace == "all") for one in (first, second))
    got = all_measures(subspace)(first, second)
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda p: jnp.asarray(p, np.float64 if p.dtype == jnp.float32 else p.dtype),
            (first, second),
        )
        exact = all_measures(subspace)(*wide)
    for name in MEASURES:
        wanted = slow(name, u, v)
        assert got[name].shape == () and got[name].dtype == jnp.float32
        np.testing.assert_allclose(got[name], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(exact[name], wanted, rtol=1e-12)


@pytest.mark.parametrize("subspace", ["union", "all"])
def test_pairwise_is_all_pairs_and_masks_are_each_ones_own(subspace: str) -> None:
    each = [solution(seed) for seed in range(4)]
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    stack = jax.tree.map(jnp.asarray, stack)

    @jax.jit
    def matrices(stack: Solution) -> dict[str, jax.Array]:
        return {
            name: pairwise.pairwise(functools.partial(one, subspace=subspace), stack)
            for name, one in MEASURES.items()
        }

    found = jax.tree.map(np.asarray, matrices(stack))
    for i, j in itertools.product(range(4), repeat=2):
        alone = all_measures(subspace)(each[i], each[j])
        for name, matrix in found.items():
            np.testing.assert_allclose(matrix[i, j], alone[name], rtol=1e-5, atol=1e-6)
    for name, matrix in found.items():
        if name == "cosine":
            np.testing.assert_allclose(np.diag(matrix), 1, rtol=1e-6)
        else:
            np.testing.assert_array_equal(np.diag(matrix), 0)


def plain(values: Any) -> Solution:
    return Solution({"w": jnp.asarray(values, jnp.float32)})


def angle(a: Any, b: Any) -> float:
    return float(ALL["angle"](plain(a), plain(b)))


def test_angles_at_right_opposite_and_no_angle() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 100):
        v = rng.normal(size=n).astype(np.float32)
        assert angle(v, v) == 0.0 and angle(v, 4 * v) == 0.0
        assert angle(v, -v) == np.float32(np.pi)
        assert angle(v, 3 * v) < 1e-6
    assert angle([3.0, 0.0], [0.0, 0.2]) == np.float32(np.pi / 2)
    u, v = rng.normal(size=(2, 100))
    v -= (u @ v) / (u @ u) * u
    assert abs(angle(u, v) - np.pi / 2) < 1e-6
    assert math.isnan(angle([0.0, 0.0], [1.0, 0.0]))


def test_small_angles_survive_where_the_arc_cosine_loses_them() -> None:
    for small in (1e-2, 1e-4, 1e-6):
        got = angle([1.0, 0.0], [1.0, small])
        np.testing.assert_allclose(got, math.atan(small), rtol=1e-3)
        got = angle([1.0, 0.0], [-1.0, small])
        np.testing.assert_allclose(math.pi - got, math.atan(small), rtol=0.2, atol=3e-7)


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(hnp.arrays(np.float32, (2, 6), elements=FLOATS))
def test_wild_weights_have_distances_and_angles(values: np.ndarray) -> None:
    a, b = plain(values[0]), plain(values[1])
    u, v = values.astype(np.float64)
    far = float(ALL["l2"](a, b))
    np.testing.assert_allclose(far, np.linalg.norm(u - v), rtol=1e-5)
    assert far == float(ALL["l2"](b, a))
    cosine, turn = float(ALL["cosine"](a, b)), float(ALL["angle"](a, b))
    if not np.any(u) or not np.any(v):
        assert math.isnan(cosine) and math.isnan(turn)
        return
    wanted = (u / np.linalg.norm(u)) @ (v / np.linalg.norm(v))
    assert -1 <= cosine <= 1 and 0 <= turn <= np.float32(np.pi)
    np.testing.assert_allclose(cosine, wanted, atol=2e-6)
    np.testing.assert_allclose(math.cos(turn), wanted, atol=2e-6)


ALL = {
    name: jax.jit(functools.partial(measure, subspace="all"))
    for name, measure in MEASURES.items()
}


def test_weights_outside_the_own_mask_do_not_count_even_if_not_finite() -> None:
    first, second = solution(0), solution(1)
    for subspace in similarity.SUBSPACES:
        wanted = all_measures(subspace)(first, second)["l2"]
        wild = jax.tree.map(
            lambda m, p: (
                p if m is None else jnp.asarray(np.where(m, p, np.nan), p.dtype)
            ),
            second.masks,
            second.params,
            is_leaf=lambda leaf: leaf is None,
        )
        got = all_measures(subspace)(first, Solution(wild, second.masks))["l2"]
        assert got == wanted and np.isfinite(got)


def test_mixed_and_narrow_dtypes_are_compared_in_float32() -> None:
    narrow = {"a": jnp.full(1000, 0.1, jnp.bfloat16), "b": jnp.ones(3)}
    zero = jax.tree.map(jnp.zeros_like, narrow)
    got = jax.jit(similarity.l2_distance)(Solution(narrow), Solution(zero))
    wanted = math.sqrt(1000 * float(jnp.bfloat16(0.1)) ** 2 + 3)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_nnx_states_and_stacked_flat_vectors() -> None:
    state = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    assert similarity.l2_distance(Solution(state), Solution(state)) == 0
    each = [solution(seed) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    for subspace, length in (("all", 45), ("first", 40)):
        one = functools.partial(similarity.flatten, subspace=subspace)
        flat = jax.jit(jax.vmap(one))(stack)
        assert flat.shape == (3, length)
        wanted = [np.sort(vector(one, None, biases=subspace == "all")) for one in each]
        np.testing.assert_array_equal(np.sort(np.asarray(flat)), wanted)


def test_join_follows_the_masks() -> None:
    first, second = solution(0).masks, solution(1).masks
    union = similarity.join(first, second, subspace="union")
    both = similarity.join(first, second, subspace="intersection")
    assert masks.num_active(union) + masks.num_active(both) == masks.num_active(
        first
    ) + masks.num_active(second)
    assert masks.is_nested(both, first) and masks.is_nested(second, union)


@pytest.mark.parametrize(
    ("change", "subspace", "word"),
    [
        ({}, "sum", "subspace: expected .*got 'sum'"),
        ({"masks": None}, "union", "masks: expected .*got None"),
        (
            {"params": {"a": jnp.ones(2)}},
            "all",
            "params of the second: expected .*leaf a",
        ),
        (
            {"params": solution(0).params | {"a": {"kernel": jnp.ones(3)}}},
            "all",
            "expected all leaves of params.*got no leaf a/bias",
        ),
        (
            {"masks": {"a": {"kernel": jnp.array([True]), "bias": None}, "b": None}},
            "all",
            "masks: a/kernel: expected shape",
        ),
        (
            {"masks": {"a": {"kernel": jnp.array([True]), "bias": None}, "b": None}},
            "union",
            "second: a/kernel: expected shape",
        ),
    ],
)
def test_solutions_that_do_not_fit_are_refused(
    change: Any, subspace: str, word: str
) -> None:
    first = solution(0)
    for measure in MEASURES.values():
        with pytest.raises(ValueError, match=word):
            measure(first, solution(1)._replace(**change), subspace=subspace)


def test_nothing_to_compare_is_refused() -> None:
    empty = Solution({"n": jnp.int32(1)})
    with pytest.raises(ValueError, match="expected at least one floating-point leaf"):
        similarity.l2_distance(empty, empty)
    with pytest.raises(ValueError, match="subspace: expected .*got 'all'"):
        similarity.join(solution(0).masks, solution(1).masks, subspace="all")
    with pytest.raises(ValueError, match="stack: expected leaves"):
        pairwise.pairwise(similarity.l2_distance, {"a": jnp.ones(2), "b": jnp.ones(3)})


def test_over_pairs_counts_each_pair_once() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.random((5, 5))
    each = [
        (matrix[i, j] + matrix[j, i]) / 2
        for i, j in itertools.combinations(range(5), 2)
    ]
    got = pairwise.over_pairs(matrix)
    assert got.pairs == 10
    np.testing.assert_allclose(got.mean, np.mean(each), rtol=1e-12)
    np.testing.assert_allclose(got.sd, np.std(each, ddof=1), rtol=1e-12)
    alone = pairwise.over_pairs([[0.0, 2.0], [4.0, 0.0]])
    assert alone.mean == 3.0 and math.isnan(alone.sd) and alone.pairs == 1
    for bad in (np.ones((2, 3)), np.ones((1, 1)), np.ones(4)):
        with pytest.raises(ValueError, match="matrix: expected shape"):
            pairwise.over_pairs(bad)
