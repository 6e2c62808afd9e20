import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsparse import masks, select
from jaxsparse.select import inputs, positions

# A leaf of each awkward kind; few shapes, so that the compiled programs are shared.
SHAPES = {"cube": (3, 2, 4), "empty": (0, 5), "kernel": (7, 8), "scalar": (), "w": (9,)}
TOTAL = sum(int(np.prod(shape)) for shape in SHAPES.values())
WILD = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e38, np.inf, -np.inf, np.nan, -np.nan]

globally = jax.jit(select.top_k_global, static_argnames=("ties", "frozen", "axis_name"))
per_layer = jax.jit(
    select.top_k_per_layer, static_argnames=("ties", "frozen", "axis_name")
)
wild = hypothesis.settings(deadline=None, max_examples=30)


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


@pytest.mark.parametrize("ties", ["spread", "drop"])
@wild
@hypothesis.given(trees(), st.integers(0, TOTAL))
def test_globally_equals_a_sort(ties: str, tree: dict, count: int) -> None:
    result = globally(to_jax(tree), jnp.int32(count), ties=ties)
    check(result, reference.select(list(tree.values()), count, ties=ties))
    if ties == "spread":
        assert masks.num_active(result) == count


@pytest.mark.parametrize("ties", ["spread", "drop"])
@wild
@hypothesis.given(trees(), mask_trees(), st.integers(0, TOTAL))
def test_globally_stays_within(ties: str, tree: dict, mask: dict, count: int) -> None:
    available = sum(np.count_nonzero(leaf) for leaf in mask.values())
    count = min(count, available)
    within = to_jax(mask)
    result = globally(to_jax(tree), jnp.int32(count), candidates=within, ties=ties)
    expected = reference.select(
        list(tree.values()), count, list(mask.values()), ties=ties
    )
    check(result, expected)
    assert bool(masks.is_nested(result, within))


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
        {"bias": None} | {name: jnp.int32(c) for name, c in counts.items()},
        candidates=to_jax(mask),
        ties=ties,
    )
    expected = [
        reference.select([tree[n]], counts[n], [mask[n]], ties=ties)[0] for n in SHAPES
    ]
    check(result, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@wild
@hypothesis.given(data=st.data())
def test_short_floats_compare_as_float32(dtype: str, data: st.DataObject) -> None:
    tree = data.draw(trees(16 if dtype == "float16" else 32))
    count = data.draw(st.integers(0, TOTAL))
    with np.errstate(over="ignore"):
        scores = to_jax(tree, jnp.dtype(dtype))
    exact = [np.asarray(scores[name], np.float32) for name in SHAPES]
    check(globally(scores, jnp.int32(count)), reference.select(exact, count))


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
        flat = [leaf.reshape(-1) for leaf in jax.tree.leaves(globally(scores, count))]
        wanted = reference.orders(TOTAL).argsort().argsort() < count
        np.testing.assert_array_equal(np.concatenate(flat), wanted)
        dropped = masks.num_active(globally(scores, count, ties="drop"))
        assert dropped == (TOTAL if count == TOTAL else 0)


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(trees())
def test_more_weights_contain_fewer(tree: dict) -> None:
    scores = to_jax(tree)
    before = globally(scores, jnp.int32(0))
    for count in range(1, TOTAL + 1, 7):
        after = globally(scores, jnp.int32(count))
        assert bool(masks.is_nested(before, after))
        before = after


def test_commutes_with_permutation() -> None:
    tree = distinct()
    order = np.random.default_rng(1).permutation(7)
    moved = tree | {"kernel": tree["kernel"][order]}
    for count in (0, 1, 20, 50, TOTAL):
        result, result_moved = (
            globally(to_jax(tree), count),
            globally(to_jax(moved), count),
        )
        np.testing.assert_array_equal(result["kernel"][order], result_moved["kernel"])
        np.testing.assert_array_equal(result["cube"], result_moved["cube"])


def test_static_and_traced_counts_agree() -> None:
    scores = to_jax(distinct())
    for count in (0, 1, 33, TOTAL):
        traced = globally(scores, jnp.int32(count))
        jax.tree.map(
            np.testing.assert_array_equal, select.top_k_global(scores, count), traced
        )


def test_traced_counts_are_clipped() -> None:
    scores = to_jax(distinct())
    assert masks.num_active(globally(scores, jnp.int32(-3))) == 0
    assert masks.num_active(globally(scores, jnp.int32(10**6))) == TOTAL
    within = jax.tree.map(lambda leaf: leaf > 20, scores)
    over = globally(scores, jnp.int32(10**6), candidates=within)
    jax.tree.map(np.testing.assert_array_equal, over, within)


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
    counts = jnp.array([0, 17, 80, 40], jnp.int32)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    batched = jax.jit(jax.vmap(functools.partial(select.top_k_global, ties=ties)))
    result = batched(batch, counts)
    for i, tree in enumerate(trees):
        one = globally(tree, counts[i], ties=ties)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), result, one
        )


def test_ignored_leaves_stay_and_do_not_count() -> None:
    scores = to_jax(distinct())
    result = globally(scores, 10, frozen=("kernel", "sc*"))
    assert bool(result["kernel"].all()) and bool(result["scalar"])
    assert masks.num_active(result) == 10 + 56 + 1
    within = jax.tree.map(lambda leaf: leaf > 20, scores)
    result = globally(scores, 10, candidates=within, frozen=("kernel",))
    np.testing.assert_array_equal(result["kernel"], within["kernel"])
    assert masks.num_active(result) == 10 + int(within["kernel"].sum())
    counts = {"bias": None, "cube": 1, "empty": 0, "kernel": None, "scalar": 1, "w": 9}
    result = select.top_k_per_layer(scores, counts, frozen=("kernel",))
    assert [m.num_active for m in masks.layer_counts(result).values()] == [
        1,
        0,
        56,
        1,
        9,
    ]


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def big(value: str) -> dict:
    shapes = {"a": (8, 3, 12), "b": (16, 4), "c": (4,), "d": (3, 4)}
    rng = np.random.default_rng(0)
    draw = {
        "ties": lambda s: rng.integers(-2, 3, s),
        "none": lambda s: rng.normal(size=s),
    }
    return {k: jnp.asarray(draw[value](s), jnp.float32) for k, s in shapes.items()}


COUNTS = {"a": 100, "b": 1, "c": 4, "d": 5}


@pytest.mark.parametrize("values", ["ties", "none"])
def test_sharded_leaves_give_the_same_masks_and_stay(values: str) -> None:
    scores = big(values)
    specs = {"a": P(None, None, "data"), "b": P("data"), "c": P(), "d": P(None, "data")}
    shardings = {name: NamedSharding(mesh(), spec) for name, spec in specs.items()}
    placed = jax.tree.map(jax.device_put, scores, shardings)
    within = jax.tree.map(lambda leaf: leaf > -1.5, placed)
    fewer = jax.tree.map(lambda leaf: leaf > -1.5, scores)
    for function, count in (
        (select.top_k_global, jnp.int32(101)),
        (select.top_k_per_layer, jax.tree.map(jnp.int32, COUNTS)),
    ):
        jitted = jax.jit(lambda s, k, w, f=function: f(s, k, candidates=w))
        program = jitted.lower(placed, count, within).compile()
        text = program.as_text()
        for collective in ("all-gather", "all-to-all", "collective-permute"):
            assert collective not in text
        assert "all-reduce" in text
        result = program(placed, count, within)
        jax.tree.map(
            np.testing.assert_array_equal, result, jitted(scores, count, fewer)
        )
        assert result["a"].sharding.is_equivalent_to(shardings["a"], 3)


@pytest.mark.parametrize("ties", ["spread", "drop"])
@pytest.mark.parametrize("values", ["ties", "none"])
def test_shard_map_with_an_axis_name_gives_the_same_masks(
    values: str, ties: str
) -> None:
    scores = {name: leaf for name, leaf in big(values).items() if name != "d"}
    counts = {name: COUNTS[name] for name in scores}
    for function, count in (
        (select.top_k_global, 101),
        (select.top_k_per_layer, counts),
    ):
        split = jax.shard_map(
            lambda s, f=function, k=count: f(s, k, ties=ties, axis_name="data"),
            mesh=mesh(),
            in_specs=P("data"),
            out_specs=P("data"),
        )
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.jit(split)(scores),
            function(scores, count, ties=ties),
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: select.top_k_global(s, -1), "all layers: expected 0 to 4.*got -1"),
        (lambda s: select.top_k_global(s, 5), "all layers: expected 0 to 4.*got 5"),
        (
            lambda s: select.top_k_per_layer(s, {"a": 3, "b": 0}),
            "count of a: expected .*got 3",
        ),
        (
            lambda s: select.top_k_per_layer(s, {"a": 1, "c": 0}),
            r"counts: expected the leaves of scores.*got \['a', 'c'\]",
        ),
        (lambda s: select.top_k_global(s, 1, ties="first"), "ties"),
        (lambda s: select.top_k_global(s, 1, frozen=("x",)), "'x', which matches none"),
        (
            lambda s: select.top_k_global(s, 1, frozen=("*",)),
            "expected at least one leaf",
        ),
        (
            lambda s: select.top_k_global(s, 1, candidates={"a": jnp.ones(2, bool)}),
            "candidates",
        ),
        (
            lambda s: select.top_k_global(
                s, 1, candidates={"a": jnp.ones(2, bool), "b": jnp.ones(3, bool)}
            ),
            "b: expected shape",
        ),
        (
            lambda s: select.top_k_global(
                s, 3, candidates={"a": jnp.ones(2, bool), "b": jnp.zeros(2, bool)}
            ),
            "expected 0 to 2",
        ),
        (lambda s: select.top_k_global({}, 0), "expected at least one leaf"),
        (
            lambda s: select.top_k_global(s | {"a": s["b"] * jnp.nan}, 1),
            r"finite numbers, got NaN or infinity in \{'a': '2 of 2'\}",
        ),
        (
            lambda s: select.top_k_per_layer(s | {"b": s["a"] / 0}, {"a": 1, "b": 0}),
            "'b'",
        ),
        (
            lambda s: select.top_k_per_layer(
                {"a": jnp.ones((4, 2)) / 0}, {"a": 4}, structure=select.n_of_m(2)
            ),
            "'a': '8 of 8'",
        ),
    ],
)
def test_errors_say_what_was_expected_and_what_was_given(
    call: object, message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call({"a": jnp.ones(2), "b": jnp.ones(2)})


@pytest.mark.parametrize("shapes", [[(2**16, 2**15)], [(2**15, 2**12)] * 16])
def test_two_to_the_31_weights_compete(shapes: list) -> None:
    huge = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    kept = jax.eval_shape(lambda s: select.top_k_global(s, 2**31), huge)
    assert [leaf.shape for leaf in kept] == shapes
    with pytest.raises(ValueError, match="a traced int64 to select from 2147483648"):
        jax.eval_shape(select.top_k_global, huge, jnp.int32(1))
    with pytest.raises(ValueError, match=f"expected 0 to {2**31}.*got {2**31 + 1}"):
        jax.eval_shape(lambda s: select.top_k_global(s, 2**31 + 1), huge)


def test_layers_on_their_own_never_add_up() -> None:
    huge = [jax.ShapeDtypeStruct((2**10, 2**20), jnp.float32)] * 4
    counts = [jax.ShapeDtypeStruct((), jnp.int32)] * 4
    program = jax.make_jaxpr(select.top_k_per_layer)(huge, counts)
    assert "i64" not in str(program) and "u64" not in str(program)


@pytest.mark.parametrize("values", ["ties", "none"])
@pytest.mark.parametrize("ties", ["spread", "drop"])
def test_long_counts_give_the_same_masks(
    values: str, ties: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {name: leaf for name, leaf in big(values).items() if name != "d"}
    counts = {name: COUNTS[name] for name in scores}
    cases = ((select.top_k_global, 101), (select.top_k_per_layer, counts))
    short = [choose(scores, count, ties=ties) for choose, count in cases]
    monkeypatch.setattr("jaxsparse.select.inputs.LIMIT", 60)
    for (choose, count), expected in zip(cases, short, strict=True):
        program = functools.partial(choose, ties=ties)
        jaxpr = jax.make_jaxpr(lambda s, k=count, f=program: f(s, k))(scores)
        assert "i64" in str(jaxpr)
        split = jax.shard_map(
            lambda s, k=count, f=program: f(s, k, axis_name="data"),
            mesh=mesh(),
            in_specs=P("data"),
            out_specs=P("data"),
        )
        batch = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), scores)
        mapped = jax.vmap(lambda s, k=count, f=program: f(s, k))(batch)
        for found in (
            program(scores, count),
            jax.jit(split)(scores),
            jax.tree.map(lambda leaf: leaf[0], mapped),
        ):
            jax.tree.map(np.testing.assert_array_equal, found, expected)


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
        kept = globally(scores, jnp.int32(part * total))
        groups = [leaf.reshape(-1) for leaf in kept.values()]
        for leaf in kept.values():
            matrix = np.asarray(leaf).reshape(-1, leaf.shape[-1])
            groups += [] if leaf.ndim == 1 else [*matrix, *matrix.T]
        surplus = np.array([np.sum(group) - part * len(group) for group in groups])
        spreads = np.array([len(group) * part * (1 - part) for group in groups])
        freedom = len(groups)
        chi = np.sum(surplus**2 / spreads)
        assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom)
        assert np.all(np.abs(surplus[:4]) < 4 * np.sqrt(spreads[:4]))


def test_scalars_cannot_be_split() -> None:
    split = jax.shard_map(
        lambda s: select.top_k_global({"a": s, "b": s[0]}, 1, axis_name="data")["a"],
        mesh=mesh(),
        in_specs=P("data"),
        out_specs=P("data"),
    )
    with pytest.raises(ValueError, match="b: expected .*got a scalar"):
        split(jnp.ones(4))


def test_a_count_beyond_a_traced_within_is_clipped() -> None:
    scores = to_jax(distinct())
    within = jax.tree.map(lambda leaf: leaf > 20, scores)
    clipped = jax.jit(lambda w: select.top_k_global(scores, TOTAL, candidates=w))(
        within
    )
    jax.tree.map(np.testing.assert_array_equal, clipped, within)


def test_all_finite_reads_only_what_may_be_selected() -> None:
    finite = jax.jit(select.all_finite)
    scores = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array([2.0]), "c": None}
    assert not finite(scores) and not finite({"a": jnp.array(-jnp.inf)})
    within = {"a": jnp.array([True, False]), "b": jnp.array([True]), "c": None}
    assert finite(scores, within)
    assert not finite(scores, jax.tree.map(jnp.ones_like, within))
    assert finite({}) and finite({"a": jnp.zeros((0, 3))})


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16, jnp.int32])
def test_counts_of_every_kind_of_integer(kind: type) -> None:
    scores = to_jax(distinct())
    wanted = select.top_k_global(scores, 33)
    jax.tree.map(
        np.testing.assert_array_equal, select.top_k_global(scores, kind(33)), wanted
    )


@pytest.mark.parametrize("structure", [None, select.blocks((1, 2))], ids=repr)
def test_scores_of_numpy_compare_in_their_own_precision(structure: object) -> None:
    close = 1 + np.arange(8).reshape(4, 2) * 1e-15
    for scores in (close, (2**40 + np.arange(8)).reshape(4, 2)):
        result = select.top_k_global({"a": scores}, 4, structure=structure)
        assert result["a"].all(axis=1).tolist() == [False, False, True, True]


def test_what_is_not_within_may_be_anything() -> None:
    scores = {"a": jnp.array([jnp.nan, 1.0]), "b": jnp.array([jnp.inf, 2.0])}
    within = jax.tree.map(jnp.isfinite, scores)
    result = select.top_k_global(scores, 1, candidates=within)
    assert result["a"].tolist() == [False, False]
    assert result["b"].tolist() == [False, True]
    ignored = select.top_k_global(scores, 1, frozen=("b",), candidates=within)
    assert ignored["b"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (1.0, "scores: a: expected an array of real numbers, got float"),
        (np.ones(2, complex), "scores: a: expected an array of real numbers, got comp"),
        (np.array(["x"]), "scores: a: expected an array of real numbers, got <U1"),
    ],
)
def test_scores_are_numbers(leaf: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        inputs.check_score("a", leaf)


@pytest.mark.parametrize(
    "count", [1.0, 0.5, np.float32(1), np.nan, True, np.True_, np.ones(2, int), "1"]
)
def test_counts_are_integers(count: object) -> None:
    with pytest.raises(TypeError, match="count of a: expected one integer, got"):
        inputs.read_count(count, [], "a", None)


def test_traced_counts_are_integers() -> None:
    def read(count: jax.Array) -> None:
        inputs.read_count(count, [], "a", None)

    with pytest.raises(TypeError, match="expected one integer, got float32 of shape"):
        jax.eval_shape(read, jnp.float32(1))


def test_masks_to_select_within_are_boolean() -> None:
    with pytest.raises(TypeError, match="candidates: a: expected a boolean array"):
        inputs.check_candidates("a", np.ones(2), (2,))
