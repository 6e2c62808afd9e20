import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxsparse import masks, select
from jaxsparse.select import positions

# A leaf of each awkward kind; few shapes, so that the compiled programs are shared.
SHAPES = {"cube": (3, 2, 4), "empty": (0, 5), "kernel": (7, 8), "scalar": (), "w": (9,)}
TOTAL = sum(int(np.prod(shape)) for shape in SHAPES.values())
WILD = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e38, np.inf, -np.inf, np.nan, -np.nan]

globally = jax.jit(select.top_k_global, static_argnames=("ties", "frozen", "axis_name"))
per_layer = jax.jit(
    select.top_k_per_layer, static_argnames=("ties", "frozen", "axis_name")
)
wild = hypothesis.settings(deadline=None, max_examples=15)


@st.composite
def trees(draw: st.DrawFn, width: int = 32) -> dict:
    """Draws bit patterns, so that every float of the width can occur."""
    with np.errstate(over="ignore", under="ignore"):
        special = np.array(WILD, f"float{width}").view(f"uint{width}").tolist()
    bits = st.sampled_from(special) | st.integers(0, 2**width - 1)
    return {
        name: draw(hnp.arrays(f"uint{width}", shape, elements=bits, fill=bits)).view(
            f"float{width}"
        )
        for name, shape in SHAPES.items()
    }


@st.composite
def mask_trees(draw: st.DrawFn) -> dict:
    return {name: draw(hnp.arrays(bool, shape)) for name, shape in SHAPES.items()}


def to_jax(tree: dict, dtype: object = None) -> dict:
    return {"bias": None} | {k: jnp.asarray(v, dtype) for k, v in tree.items()}


def check(result: dict, expected: list[np.ndarray]) -> None:
    assert result["bias"] is None
    for name, leaf in zip(SHAPES, expected, strict=True):
        np.testing.assert_array_equal(result[name], leaf, err_msg=name)


def distinct(seed: int = 0) -> dict:
    values = np.random.default_rng(seed).permutation(TOTAL).astype(np.float32) - 9
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES.values()])[:-1]
    parts = zip(SHAPES.items(), np.split(values, ends), strict=True)
    return {name: part.reshape(shape) for (name, shape), part in parts}


EVERYWHERE = to_jax({name: np.ones(shape, bool) for name, shape in SHAPES.items()})


def keep(scores: dict, count: int, within: dict = EVERYWHERE, ties: str = "spread"):
    """The one program of `top_k_global` for each way to break ties."""
    return globally(scores, np.int32(count), candidates=within, ties=ties)


def num_active(tree: dict) -> int:
    return sum(int(np.asarray(leaf).sum()) for leaf in jax.tree.leaves(tree))


def check_nested(inner: dict, outer: dict) -> None:
    pairs = zip(jax.tree.leaves(inner), jax.tree.leaves(outer), strict=True)
    assert not any((np.asarray(a) & ~np.asarray(b)).any() for a, b in pairs)


@pytest.mark.parametrize("ties", ["spread", "drop"])
@wild
@hypothesis.given(trees(), mask_trees(), st.integers(0, TOTAL))
def test_globally_equals_a_sort(ties: str, tree: dict, mask: dict, count: int) -> None:
    every = {name: np.ones(shape, bool) for name, shape in SHAPES.items()}
    for allowed in (every, mask):
        available = sum(np.count_nonzero(leaf) for leaf in allowed.values())
        within, few = to_jax(allowed), min(count, available)
        result = keep(to_jax(tree), few, within, ties)
        lists = list(tree.values()), few, list(allowed.values())
        check(result, reference.select(*lists, ties=ties))
        assert ties == "drop" or num_active(result) == few
        check_nested(result, within)


@pytest.mark.parametrize("ties", ["spread", "drop"])
@wild
@hypothesis.given(trees(), mask_trees(), st.data())
def test_per_layer_equals_a_sort_of_each(
    ties: str, tree: dict, mask: dict, data: st.DataObject
) -> None:
    counts = {
        name: data.draw(st.integers(0, int(np.count_nonzero(leaf))), label=name)
        for name, leaf in mask.items()
    }
    result = per_layer(
        to_jax(tree),
        {"bias": None} | {name: np.int32(c) for name, c in counts.items()},
        candidates=to_jax(mask),
        ties=ties,
    )
    expected = [
        reference.select([tree[n]], counts[n], [mask[n]], ties=ties)[0] for n in SHAPES
    ]
    check(result, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@hypothesis.settings(deadline=None, max_examples=5)
@hypothesis.given(data=st.data())
def test_short_floats_compare_as_float32(dtype: str, data: st.DataObject) -> None:
    tree = data.draw(trees(16 if dtype == "float16" else 32))
    count = data.draw(st.integers(0, TOTAL))
    with np.errstate(over="ignore"):
        scores = to_jax(tree, jnp.dtype(dtype))
    exact = [np.asarray(scores[name], np.float32) for name in SHAPES]
    check(globally(scores, np.int32(count)), reference.select(exact, count))


def test_float64_is_not_rounded_to_float32() -> None:
    with jax.enable_x64(True):
        scores = {
            "a": 1 + jnp.arange(8, dtype=jnp.float64) * 1e-15,
            "b": jnp.asarray([1.0, -0.0, jnp.nan], jnp.float32),
        }
        chosen = jax.jit(select.top_k_global, static_argnums=1)
        result, result_all = chosen(scores, 8), chosen(scores, 10)
    np.testing.assert_array_equal(result["a"], [True] * 8)
    np.testing.assert_array_equal(result["b"], [False] * 3)
    np.testing.assert_array_equal(result_all["b"], [True, True, False])


@pytest.mark.parametrize("value", [0.0, -1.5, np.inf, np.nan])
def test_equal_scores_are_kept_in_the_fixed_order(value: float) -> None:
    scores = to_jax({name: np.full(s, value, np.float32) for name, s in SHAPES.items()})
    for count in (0, 1, 30, TOTAL - 1, TOTAL):
        flat = [
            np.asarray(leaf).reshape(-1)
            for leaf in jax.tree.leaves(keep(scores, count))
        ]
        wanted = reference.orders(TOTAL).argsort().argsort() < count
        np.testing.assert_array_equal(np.concatenate(flat), wanted)
        dropped = num_active(keep(scores, count, ties="drop"))
        assert dropped == (TOTAL if count == TOTAL else 0)


@hypothesis.settings(deadline=None, max_examples=5)
@hypothesis.given(trees())
def test_more_weights_contain_fewer(tree: dict) -> None:
    scores = to_jax(tree)
    before = keep(scores, 0)
    for count in range(1, TOTAL + 1, 7):
        after = keep(scores, count)
        check_nested(before, after)
        before = after


def test_commutes_with_permutation() -> None:
    tree = distinct()
    order = np.random.default_rng(1).permutation(7)
    moved = tree | {"kernel": tree["kernel"][order]}
    for count in (0, 1, 20, 50, TOTAL):
        result, result_moved = keep(to_jax(tree), count), keep(to_jax(moved), count)
        kernel = np.asarray(result["kernel"])
        np.testing.assert_array_equal(kernel[order], result_moved["kernel"])
        np.testing.assert_array_equal(result["cube"], result_moved["cube"])


def test_static_and_traced_counts_agree() -> None:
    """Counts of every kind of integer, checked and not clipped, and frozen leaves."""
    scores = to_jax(distinct())
    for kind in (int, np.int8, np.uint16, jnp.int32):
        static = jax.eval_shape(lambda s, k=kind: select.top_k_global(s, k(33)), scores)
        assert static["bias"] is None
    static = jax.jit(lambda s: select.top_k_global(s, np.int64(33)))(scores)
    jax.tree.map(np.testing.assert_array_equal, static, keep(scores, 33))


def test_traced_counts_are_clipped() -> None:
    scores = to_jax(distinct())
    assert num_active(keep(scores, -3)) == 0
    assert num_active(keep(scores, 10**6)) == TOTAL
    within = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) > 20), scores)
    over = keep(scores, 10**6, within)
    jax.tree.map(np.testing.assert_array_equal, over, within)
    # A concrete count is, too, where candidates are traced.
    clipped = jax.jit(lambda w: select.top_k_global(scores, TOTAL, candidates=w))
    jax.tree.map(np.testing.assert_array_equal, clipped(within), within)


def test_one_trace_serves_every_count() -> None:
    traces = []

    @jax.jit
    def select_some(scores: dict, count: jax.Array) -> dict:
        traces.append(count)
        return select.top_k_global(scores, count)

    for count in range(5):
        select_some(to_jax(distinct()), jnp.int32(count))
    assert len(traces) == 1


@pytest.mark.parametrize("ties", ["spread", "drop"])
def test_vmap_equals_a_loop(ties: str) -> None:
    trees = [to_jax(distinct(seed)) for seed in range(3)]
    trees.append(jax.tree.map(jnp.zeros_like, trees[0]))  # ties beside no ties
    counts = np.array([0, 17, 80, 40], np.int32)
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    batched = jax.jit(jax.vmap(functools.partial(select.top_k_global, ties=ties)))
    result = jax.tree.map(np.asarray, batched(batch, counts))
    for i, tree in enumerate(trees):
        one = keep(tree, counts[i], ties=ties)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), result, one
        )


def test_ignored_leaves_stay_and_do_not_count() -> None:
    scores = to_jax(distinct())
    result = globally(scores, np.int32(10), frozen=("kernel", "sc*"))
    assert bool(result["kernel"].all()) and bool(result["scalar"])
    assert masks.num_active(result) == 10 + 56 + 1
    within = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) > 20), scores)
    result = globally(scores, np.int32(10), candidates=within, frozen=("kernel",))
    np.testing.assert_array_equal(result["kernel"], within["kernel"])
    assert masks.num_active(result) == 10 + int(within["kernel"].sum())
    counts = {"bias": None, "cube": 1, "empty": 0, "kernel": None, "scalar": 1, "w": 9}
    chosen = jax.jit(lambda s: select.top_k_per_layer(s, counts, frozen=("kernel",)))
    result = chosen(scores)
    assert [m.num_active for m in masks.layer_counts(result).values()] == [
        1,
        0,
        56,
        1,
        9,
    ]


def test_positions_beyond_31_bits_differ_in_order() -> None:
    with jax.enable_x64(True):
        first = 2**31 - 20
        order = positions.of_shape((3, 20), jnp.int64, first=first)
        both = jnp.concatenate([order, positions.of_shape((1, 20), jnp.int64)])
    numbers = np.arange(first, first + 60).tolist() + list(range(20))
    by_hand = [(reference.order(n % 2**31) << 32) + n // 2**31 - 1 for n in numbers]
    np.testing.assert_array_equal(both.reshape(-1), by_hand)


def test_ties_are_spread_over_layers_rows_and_columns() -> None:
    """Kept weights of a tie are as even as if drawn: chi-squared, 5 deviations."""
    shapes = {"a": (64, 64), "b": (256, 12), "c": (3, 3, 16, 32), "d": (4096,)}
    scores = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    total = sum(leaf.size for leaf in scores.values())
    for part in (0.02, 0.5, 0.9):
        kept = jax.tree.map(np.asarray, globally(scores, np.int32(part * total)))
        groups = [leaf.reshape(-1) for leaf in kept.values()]
        for leaf in kept.values():
            matrix = leaf.reshape(-1, leaf.shape[-1])
            groups += [] if leaf.ndim == 1 else [*matrix, *matrix.T]
        surplus = np.array([np.sum(group) - part * len(group) for group in groups])
        spreads = np.array([len(group) * part * (1 - part) for group in groups])
        freedom = len(groups)
        chi = np.sum(surplus**2 / spreads)
        assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom)
        assert np.all(np.abs(surplus[:4]) < 4 * np.sqrt(spreads[:4]))
