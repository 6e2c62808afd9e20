import functools
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import reference
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxsparse import fan_axes, masks, prune, select, transforms

WILD = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e38, np.inf, -np.inf, np.nan, -np.nan]
# Sums of these are exact in any order, or NaN in every order.
SUMMABLE = [0.0, -0.0, 1.0, -1.0, 2.0, -3.0, np.inf, -np.inf, np.nan, -np.nan]
STRUCTURES = (
    select.n_of_m(2),
    select.n_of_m(4),
    select.n_of_m(18),  # too long to compare all pairs
    select.blocks((2, 3)),
    select.blocks((1, 1)),
    select.channels(),
    select.fan_in(),
)
each_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=repr)

per_layer = jax.jit(select.top_k_per_layer, static_argnames=("structure", "frozen"))
globally = jax.jit(select.top_k_global, static_argnames=("structure", "frozen"))
wild = hypothesis.settings(deadline=None, max_examples=12)


def rows_of(structure: select.Structure, shape: tuple[int, ...]) -> list:
    """Lists rows of units of positions in the flat leaf, by looking at each weight."""
    kind, (a, b) = structure.name.partition("(")[0], structure.block
    rows: dict[tuple, dict[tuple, list[int]]] = {}
    for flat, (*space, i, o) in enumerate(np.ndindex(shape)):
        row, unit = {
            "n_of_m": ((*space, i // a, o), (i % a,)),
            "blocks": ((), (*space, i // a, o // b)),
            "channels": ((), (o,)),
            "fan_in": ((o,), (*space, i)),
        }[kind]
        rows.setdefault(row, {}).setdefault(unit, []).append(flat)
    return [
        [members for _, members in sorted(units.items())] for units in rows.values()
    ]


def expected(
    structure: select.Structure, score: np.ndarray, wanted: int, within: np.ndarray
) -> np.ndarray:
    """Keeps the best `wanted` units of every row, by sorting their sums."""
    kept = np.zeros(score.size, bool)
    flat, allowed = score.reshape(-1).astype(np.float64), within.reshape(-1)
    for place, row in enumerate(rows_of(structure, score.shape)):
        with np.errstate(invalid="ignore"):  # infinities of both signs
            worth = np.array([flat[members].sum() for members in row])
        may = np.array([allowed[members].all() for members in row])
        (best,) = reference.select([worth], wanted, [may], first=place * len(row))
        for members, keeps in zip(row, best, strict=True):
            kept[members] = keeps
    return kept.reshape(score.shape)


@st.composite
def shapes(draw: st.DrawFn, structure: select.Structure) -> tuple[int, ...]:
    space = draw(st.sampled_from([(), (3, 2)]))
    a, b = structure.block
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return *space, a * inputs, b * outputs


@st.composite
def leaves(draw: st.DrawFn, structure: select.Structure) -> np.ndarray:
    shape = draw(shapes(structure))
    values = st.sampled_from(SUMMABLE)
    if structure.name.startswith(("n_of_m", "fan_in", "blocks((1, 1))")):
        values = st.sampled_from(WILD) | st.floats(width=32)
    return draw(hnp.arrays(np.float32, shape, elements=values, fill=values))


def step(structure: select.Structure, shape: tuple[int, ...]) -> int:
    view = select.unit_view(structure, "a", shape)
    return view.rows * view.members


def counts_of(structure: select.Structure, shape: tuple[int, ...]) -> list[int]:
    each = step(structure, shape)
    return list(range(0, int(np.prod(shape)) + 1, each))


def distinct(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    values = np.random.default_rng(seed).permutation(int(np.prod(shape))) - 7
    return jnp.asarray(values.reshape(shape), jnp.float32)


@each_structure
@wild
@hypothesis.given(data=st.data())
def test_per_layer_equals_a_sort_of_each_row(
    structure: select.Structure, data: st.DataObject
) -> None:
    score = data.draw(leaves(structure))
    each, units = step(structure, score.shape), len(counts_of(structure, score.shape))
    wanted = data.draw(st.integers(0, units - 1))
    surplus = data.draw(st.integers(0, each - 1))  # less than one more unit a row
    result = per_layer(
        {"a": jnp.asarray(score), "bias": None},
        {"a": jnp.int32(wanted * each + surplus), "bias": None},
        structure=structure,
    )
    everywhere = np.ones(score.shape, bool)
    assert result["bias"] is None
    assert masks.num_active(result) == wanted * each
    np.testing.assert_array_equal(
        result["a"], expected(structure, score, wanted, everywhere)
    )


@each_structure
@wild
@hypothesis.given(data=st.data())
def test_units_are_kept_only_where_all_members_are_within(
    structure: select.Structure, data: st.DataObject
) -> None:
    score = data.draw(leaves(structure))
    within = data.draw(hnp.arrays(bool, score.shape, fill=st.just(True)))
    each, units = step(structure, score.shape), len(counts_of(structure, score.shape))
    wanted = data.draw(st.integers(0, units - 1))
    allowed = {"a": jnp.asarray(within)}
    result = per_layer(
        {"a": jnp.asarray(score)},
        {"a": jnp.int32(wanted * each)},
        candidates=allowed,
        structure=structure,
    )
    assert bool(masks.is_nested(result, allowed))
    np.testing.assert_array_equal(
        result["a"], expected(structure, score, wanted, within)
    )


@pytest.mark.parametrize("shape", [(36, 6), (1, 2, 36, 3)])
@each_structure
def test_every_row_keeps_its_count_and_more_contains_fewer(
    structure: select.Structure, shape: tuple[int, ...]
) -> None:
    scores = {"a": jnp.round(distinct(shape) / 5)}  # with ties
    before = per_layer(scores, {"a": jnp.int32(0)}, structure=structure)
    assert masks.num_active(before) == 0
    for wanted, count in enumerate(counts_of(structure, shape)):
        after = per_layer(scores, {"a": jnp.int32(count)}, structure=structure)
        assert bool(masks.is_nested(before, after))
        flat = np.asarray(after["a"]).reshape(-1)
        for row in rows_of(structure, shape):
            kept = flat[np.array(row)]
            assert kept.all(axis=1).sum() == kept.any(axis=1).sum() == wanted
        before = after
    assert bool(before["a"].all())


@pytest.mark.parametrize("value", [0.0, -1.5, np.inf, -np.inf, np.nan])
@each_structure
def test_equal_units_are_kept_in_the_fixed_order(
    structure: select.Structure, value: float
) -> None:
    shape = (2, 36, 6)
    scores = {"a": jnp.full(shape, value)}
    for wanted, count in enumerate(counts_of(structure, shape)):
        if wanted not in (0, 1, 3):
            continue
        kept = per_layer(scores, {"a": jnp.int32(count)}, structure=structure)["a"]
        flat = np.asarray(kept).reshape(-1)
        for place, row in enumerate(rows_of(structure, shape)):
            orders = reference.orders(len(row), place * len(row))
            found = flat[np.array(row)].all(axis=1)
            np.testing.assert_array_equal(found, orders.argsort().argsort() < wanted)


@pytest.mark.parametrize("shape", [(8, 3), (3, 3, 8, 2)])
def test_half_of_groups_of_four_is_two_to_four(shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    by_hand = np.zeros(shape, bool)
    for space in np.ndindex(shape[:-2]):
        for start, output in itertools.product(range(0, 8, 4), range(shape[-1])):
            group = np.abs(weights[*space, start : start + 4, output])
            for place in np.argsort(group)[2:]:
                by_hand[*space, start + int(place), output] = True
    result = select.top_k_per_layer(
        {"a": jnp.abs(weights)},
        {"a": weights.size // 2},
        structure=select.n_of_m(4),
    )
    np.testing.assert_array_equal(result["a"], by_hand)


def test_channels_are_ranked_by_the_sum_of_magnitudes() -> None:
    weights = jnp.stack([jnp.full((3, 3, 4), w) for w in (3.0, -5.0, 1.0, 4.0)], -1)
    result = select.top_k_per_layer(
        {"a": jnp.abs(weights)}, {"a": 72}, structure=select.channels()
    )
    assert result["a"].all(axis=(0, 1, 2)).tolist() == [False, True, False, True]
    assert result["a"].any(axis=(0, 1, 2)).tolist() == [False, True, False, True]


def test_a_unit_with_a_nan_is_last() -> None:
    score = jnp.array([[jnp.nan, -1e30, 0.0], [jnp.inf, 0.0, 0.0]])
    for count, kept in ((2, [0, 0, 1]), (4, [0, 1, 1]), (6, [1, 1, 1])):
        counts = {"a": jnp.int32(count)}
        result = per_layer({"a": score}, counts, structure=select.channels())
        assert result["a"].all(axis=0).tolist() == [bool(k) for k in kept]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@each_structure
def test_short_floats_compare_as_float32(
    structure: select.Structure, dtype: str
) -> None:
    shape = (36, 6)
    values = np.random.default_rng(0).integers(0, 256, shape) + 0.0
    count = jnp.int32(counts_of(structure, shape)[2])
    result = per_layer(
        {"a": jnp.asarray(values, dtype)}, {"a": count}, structure=structure
    )
    everywhere = np.ones(shape, bool)
    np.testing.assert_array_equal(
        result["a"], expected(structure, values, 2, everywhere)
    )


@pytest.mark.parametrize(("dtype", "big"), [("bfloat16", 256), ("float16", 2048)])
def test_sums_are_not_rounded_to_short_floats(dtype: str, big: int) -> None:
    score = jnp.array([[big, big], [0, 1]], dtype)  # big + 1 is no short float
    result = per_layer({"a": score}, {"a": jnp.int32(2)}, structure=select.channels())
    assert result["a"].tolist() == [[False, True], [False, True]]


def test_float64_is_not_rounded_to_float32() -> None:
    with jax.enable_x64(True):
        score = 1 + jnp.arange(8, dtype=jnp.float64).reshape(4, 2) * 1e-15
        result = select.top_k_per_layer(
            {"a": score}, {"a": 4}, structure=select.blocks((1, 2))
        )
    assert result["a"].all(axis=1).tolist() == [False, False, True, True]


TREE = {"few": (8, 3), "long": (3, 3, 6, 4), "other": (44, 5), "small": (2, 1, 4, 2)}


@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_leaves_do_not_influence_each_other(wanted: int) -> None:
    scores = {name: distinct(shape, seed=3) for name, shape in TREE.items()}
    structure = select.fan_in()
    counts = {name: wanted * step(structure, shape) for name, shape in TREE.items()}
    together = per_layer(scores, jax.tree.map(jnp.int32, counts), structure=structure)
    for name, shape in TREE.items():
        everywhere = np.ones(shape, bool)
        np.testing.assert_array_equal(
            together[name],
            expected(structure, np.asarray(scores[name]), wanted, everywhere),
        )


@each_structure
def test_static_and_traced_counts_agree(structure: select.Structure) -> None:
    scores = {"a": distinct((36, 6))}
    count = counts_of(structure, (36, 6))[1]
    traced = per_layer(scores, {"a": jnp.int32(count)}, structure=structure)
    static = jax.jit(
        lambda s: select.top_k_per_layer(s, {"a": count}, structure=structure)
    )
    np.testing.assert_array_equal(static(scores)["a"], traced["a"])


@each_structure
def test_traced_counts_are_clipped(structure: select.Structure) -> None:
    scores = {"a": distinct((36, 6))}
    for count, kept in ((-1, 0), (-1000, 0), (10**6, 36 * 6)):
        counts = {"a": jnp.int32(count)}
        assert masks.num_active(per_layer(scores, counts, structure=structure)) == kept


def test_one_trace_serves_every_count_and_an_equal_structure() -> None:
    traces = []

    @functools.partial(jax.jit, static_argnames="structure")
    def select_some(
        score: jax.Array, count: jax.Array, structure: select.Structure
    ) -> dict:
        traces.append(count)
        return select.top_k_per_layer({"a": score}, {"a": count}, structure=structure)

    for count in range(5):
        select_some(distinct((8, 3)), jnp.int32(count), select.n_of_m(4))
    assert len(traces) == 1


@each_structure
def test_vmap_equals_a_loop(structure: select.Structure) -> None:
    shape = (36, 6)
    batch = jnp.stack([distinct(shape, seed) for seed in range(3)])
    batch = jnp.concatenate([batch, jnp.zeros((1, *shape))])  # ties beside no ties
    possible = counts_of(structure, shape)
    counts = jnp.array([0, possible[1], possible[-1], possible[-2]], jnp.int32)

    def select_one(score: jax.Array, count: jax.Array) -> dict:
        return select.top_k_per_layer({"a": score}, {"a": count}, structure=structure)

    result = jax.jit(jax.vmap(select_one))(batch, counts)
    for i, count in enumerate(counts):
        alone = per_layer({"a": batch[i]}, {"a": count}, structure=structure)
        np.testing.assert_array_equal(result["a"][i], alone["a"])


@wild
@hypothesis.given(data=st.data())
def test_blocks_of_all_layers_compete(data: st.DataObject) -> None:
    structure = select.blocks((2, 2))
    sizes = {"a": (4, 6), "b": (2, 2, 4)}
    value = st.sampled_from(SUMMABLE)
    scores, within = (
        {n: data.draw(hnp.arrays(t, s, elements=e)) for n, s in sizes.items()}
        for t, e in ((np.float32, value), (bool, st.integers(0, 4).map(bool)))
    )
    wanted = data.draw(st.integers(0, 10))
    result = globally(
        jax.tree.map(jnp.asarray, scores),
        jnp.int32(wanted * 4 + 3),
        candidates=jax.tree.map(jnp.asarray, within),
        structure=structure,
    )
    units = {n: rows_of(structure, s)[0] for n, s in sizes.items()}
    with np.errstate(invalid="ignore"):
        worth = [
            np.array([scores[n].reshape(-1)[m].sum() for m in units[n]]) for n in sizes
        ]
    may = [np.array([within[n].reshape(-1)[m].all() for m in units[n]]) for n in sizes]
    for name, best in zip(sizes, reference.select(worth, wanted, may), strict=True):
        kept = np.zeros(scores[name].size, bool)
        for members, keeps in zip(units[name], best, strict=True):
            kept[members] = keeps
        np.testing.assert_array_equal(result[name].reshape(-1), kept)


@pytest.mark.parametrize(
    ("sparsity", "dense", "wanted"),
    [
        (0.95, (), 48),  # 40 of 800
        (0.93, (), 64),  # 56
        (0.985, (), 16),  # 12
        (0.8, ("b/kernel",), 48 + 128),  # 170 of 848: 122 for a
    ],
)
def test_blocks_over_all_layers_are_the_nearest_count(
    sparsity: float, dense: tuple[str, ...], wanted: int
) -> None:
    rng = np.random.default_rng(0)
    shapes = {"a": (40, 20), "b": (8, 6)} if dense else {"a": (40, 20)}
    weights = {
        name: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}
        for name, shape in shapes.items()
    }
    options = {
        "distribution": "global",
        "structure": select.blocks((4, 4)),
        "dense": dense,
    }
    ticket = prune.prune(weights, sparsity, **options)
    assert masks.num_active(ticket) == wanted
    tx = transforms.one_shot_magnitude(
        optax.set_to_zero(), sparsity=sparsity, step=0, **options
    )
    _, state = tx.update(weights, tx.init(weights), weights)
    jax.tree.map(np.testing.assert_array_equal, transforms.get_masks(state), ticket)
    with pytest.raises(
        ValueError, match="count of all layers: expected .*got 4, which blocks"
    ):
        prune.prune({"kernel": jnp.ones((40, 20))}, 0.995, **options | {"dense": ()})


def test_blocks_of_one_weight_are_no_structure() -> None:
    scores = {"a": distinct((5, 4)), "b": distinct((2, 3, 4), seed=1)}
    ones = select.blocks((1, 1))
    for count in (0, 7, 44):
        jax.tree.map(
            np.testing.assert_array_equal,
            globally(scores, jnp.int32(count), structure=ones),
            globally(scores, jnp.int32(count)),
        )


def test_ignored_leaves_need_not_fit() -> None:
    scores = {"a": distinct((8, 3)), "b": distinct((5, 3)), "c": jnp.ones(3)}
    counts = {"a": 12, "b": None, "c": None}
    structure = select.n_of_m(4)
    result = select.top_k_per_layer(
        scores, counts, frozen=("b", "c"), structure=structure
    )
    assert [layer.num_active for layer in masks.layer_counts(result).values()] == [
        12,
        15,
        3,
    ]
    fitted = select.round_counts(structure, result, counts | {"a": 11})
    assert fitted == counts


def rows_of_matrices(structure: select.Structure, shape: tuple[int, ...]) -> list:
    """Lists rows of units of positions in [stack, *window, i, o], as `rows_of`."""
    kind, (a, b) = structure.name.partition("(")[0], structure.block
    rows: dict[tuple, dict[tuple, list[int]]] = {}
    for flat, (s, *space, i, o) in enumerate(np.ndindex(shape)):
        row, unit = {
            "n_of_m": ((s, *space, i // a, o), (i % a,)),
            "blocks": ((), (s, *space, i // a, o // b)),
            "channels": ((), (s, o)),
            "fan_in": ((s, o), (*space, i)),
        }[kind]
        rows.setdefault(row, {}).setdefault(unit, []).append(flat)
    return [list(units.values()) for units in rows.values()]


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("...io", (3, 4, 6)),
        ("oi...", (6, 4, 3)),
        ("ioo", (4, 3, 2)),
        ("iio", (2, 2, 6)),
        ("sio", (3, 4, 6)),
        ("...io/2", (3, 4, 6)),
        ("oi.../3", (9, 4, 2)),
    ],
)
@pytest.mark.parametrize(
    "structure",
    [
        select.n_of_m(4),
        select.blocks((2, 3)),
        select.channels(),
        select.fan_in(),
    ],
    ids=repr,
)
def test_structures_follow_the_layout(
    structure: select.Structure, layout: str, shape: tuple[int, ...]
) -> None:
    axes = fan_axes.parse(layout)
    # Real numbers: of whole ones, two blocks may have the same sum.
    score = np.random.default_rng(0).uniform(1, 2, shape)
    matrices = np.asarray(fan_axes.to_matrices(axes, "a", jnp.asarray(score)))
    flat = matrices.reshape(-1)
    tied = select.bind(structure, {"a": score}, axes=axes)
    rows = rows_of_matrices(structure, matrices.shape)
    view = select.unit_view(tied, "a", shape)
    assert view == (len(rows), len(rows[0]), len(rows[0][0]))
    wanted = len(rows[0]) // 2
    kept = select.top_k_per_layer(
        {"a": jnp.asarray(score, jnp.float32)},
        {"a": wanted * view.rows * view.members},
        structure=tied,
    )
    found = np.asarray(fan_axes.to_matrices(axes, "a", kept["a"])).reshape(-1)
    by_hand = np.zeros(flat.size, bool)
    for row in rows:
        best = sorted(row, key=lambda members: -flat[members].sum())[:wanted]
        for members in best:
            by_hand[members] = True
    np.testing.assert_array_equal(found, by_hand)


def test_groups_of_four_run_along_the_inputs_of_attention() -> None:
    shapes = {"query": (8, 2, 2), "key": (8, 2, 2), "value": (8, 2, 2)}
    shapes["out"] = (2, 2, 6)
    params = {n: {"kernel": distinct(s, seed=5)} for n, s in shapes.items()}
    kept = prune.prune(params, 0.5, distribution="uniform", structure=select.n_of_m(4))
    for name in ("query", "key", "value"):
        groups = np.asarray(kept[name]["kernel"]).reshape(2, 4, 4)
        assert (groups.sum(axis=1) == 2).all()
    groups = np.asarray(kept["out"]["kernel"]).reshape(4, 6)
    assert (groups.sum(axis=0) == 2).all()


def test_a_layout_of_another_tree_is_refused() -> None:
    tied = select.bind(select.fan_in(), {"b": jnp.ones((4, 3))})
    with pytest.raises(ValueError, match="axes: expected a layout for 'a'"):
        select.top_k_per_layer({"a": jnp.ones((4, 3))}, {"a": 3}, structure=tied)


def test_dense_leaves_need_not_fit() -> None:
    stem, body = (3, 3, 3, 4), (8, 6)
    params = {"stem": {"kernel": distinct(stem)}, "body": {"kernel": distinct(body)}}
    groups, sgd = select.n_of_m(4), optax.sgd(0.1)
    where = {"dense": ("stem/*",), "structure": groups}
    when = {"begin_step": 0, "end_step": 2, "update_every": 1}
    for ticket in (
        prune.prune(params, 0.5, distribution="uniform", **where),
        transforms.get_masks(
            transforms.rigl(
                sgd, sparsity=0.5, distribution="uniform", end_step=200, **where
            ).init(params)
        ),
    ):
        assert [layer.num_active for layer in masks.layer_counts(ticket).values()] == [
            24,
            108,
        ]
    blocks = {"structure": select.blocks((2, 2)), "dense": ("stem/*",)}
    ticket = prune.prune(params, 0.154, **blocks)
    assert masks.layer_counts(ticket)["stem/kernel"] == (108, 108)
    for tx in (
        transforms.rigl(
            sgd,
            sparsity=0.5,
            distribution="uniform",
            drop_fraction=0.5,
            update_every=1,
            end_step=9,
            skip_update=False,
            **where,
        ),
        transforms.mest(
            sgd, sparsity=0.5, update_every=1, end_step=9, soft_bound=True, **where
        ),
        transforms.gradual_magnitude(sgd, sparsity=0.5, **where, **when),
        transforms.one_shot_magnitude(
            sgd, sparsity=0.5, step=0, distribution="uniform", **where
        ),
        transforms.ac_dc(sgd, sparsity=0.5, distribution="uniform", **where, **when),
    ):
        state, held = tx.init(params), params
        update = jax.jit(tx.update)
        for _ in range(3):
            grads = jax.tree.map(jnp.sin, held)
            updates, state = update(grads, state, held)
            held = optax.apply_updates(held, updates)
        kept = masks.layer_counts(transforms.get_masks(state))
        assert kept["stem/kernel"] == (108, 108)
        groups_kept = np.asarray(transforms.get_masks(state)["body"]["kernel"])
        each = groups_kept.reshape(2, 4, 6).sum(axis=1)
        assert (each == each[0, 0]).all() and 0 < each[0, 0] < 4
    tx = transforms.sr_ste(sgd, n=2, m=4, dense=("stem/*",))
    kept = masks.layer_counts(transforms.get_masks(tx.init(params)))
    assert [layer.num_active for layer in kept.values()] == [24, 108]


def test_empty_leaves_keep_nothing() -> None:
    for structure, shape in (
        (select.n_of_m(4), (0, 3)),
        (select.fan_in(), (0, 3)),
        (select.fan_in(), (3, 0)),
        (select.channels(), (0, 3)),
        (select.blocks((2, 2)), (4, 0)),
    ):
        like = {"a": jax.ShapeDtypeStruct(shape, bool)}
        assert select.round_counts(structure, like, {"a": 0}) == {"a": 0}
        scores = {"a": jnp.ones(shape)}
        result = per_layer(scores, {"a": jnp.int32(0)}, structure=structure)
        assert result["a"].shape == shape


def test_sharded_leaves_give_the_same_masks() -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, P("data"))
    score = distinct((36, 6))
    for structure in STRUCTURES:
        count = {"a": jnp.int32(counts_of(structure, score.shape)[1])}
        placed = per_layer(
            {"a": jax.device_put(score, sharding)}, count, structure=structure
        )
        alone = per_layer({"a": score}, count, structure=structure)
        np.testing.assert_array_equal(placed["a"], alone["a"])


def test_grids_multiply_to_the_size() -> None:
    for structure in (None, *STRUCTURES):
        for shape in ((36, 6), (3, 2, 36, 12)):
            assert np.prod(select.unit_view(structure, "a", shape)) == np.prod(shape)
    conv = (3, 3, 64, 128)
    assert select.unit_view(None, "a", conv) == (1, 73728, 1)
    assert select.unit_view(select.n_of_m(4), "a", conv) == (18432, 4, 1)
    assert select.unit_view(select.blocks((4, 8)), "a", conv) == (1, 2304, 32)
    assert select.unit_view(select.channels(), "a", conv) == (1, 128, 576)
    assert select.unit_view(select.fan_in(), "a", conv) == (128, 576, 1)


def test_structures_are_values() -> None:
    assert select.n_of_m(4) == select.n_of_m(4) != select.n_of_m(2)
    assert len({select.channels(), select.channels(), select.fan_in()}) == 2
    for structure in STRUCTURES:
        assert eval(f"select.{structure!r}") == structure
        assert jax.tree.leaves(structure) == [structure]  # never traced by mistake


@each_structure
@hypothesis.given(data=st.data())
def test_fit_is_the_nearest_count_there_is(
    structure: select.Structure, data: st.DataObject
) -> None:
    shape = data.draw(shapes(structure))
    each, size = step(structure, shape), int(np.prod(shape))
    count = data.draw(st.integers(-(-each // 2), size) | st.just(0))
    like = {"a": jax.ShapeDtypeStruct(shape, bool), "b": None}
    fitted = select.round_counts(structure, like, {"a": count, "b": None})
    possible = counts_of(structure, shape)
    # Of two at the same distance the larger, hence from the top.
    nearest = min(reversed(possible), key=lambda k: abs(k - count))
    assert fitted == {"a": nearest, "b": None}
    assert select.round_counts(structure, like, fitted) == fitted


def test_fit_without_a_structure_is_the_identity() -> None:
    counts = {"a": 3, "bias": None}
    assert (
        select.round_counts(None, {"a": jnp.ones((2, 2), bool), "bias": None}, counts)
        is counts
    )


def test_fit_works_on_tracers() -> None:
    @jax.jit
    def select_half(scores: dict) -> dict:
        within = masks.ones(scores)
        counts = select.round_counts(select.n_of_m(4), within, {"kernel": 11})
        return select.top_k_per_layer(scores, counts, structure=select.n_of_m(4))

    assert masks.num_active(select_half({"kernel": distinct((8, 3))})) == 12


def kernel(**options: object) -> dict:
    scores = {"conv": {"kernel": jnp.ones((3, 3, 8, 6))}}
    given = {"structure": select.n_of_m(4)} | options
    count = given.pop("count", 216)
    return select.top_k_per_layer(scores, {"conv": {"kernel": count}}, **given)


def rest(structure: select.Structure, count: int, *shapes: tuple[int, ...]) -> dict:
    scores = {f"{i}/kernel": jnp.ones(shape) for i, shape in enumerate(shapes)}
    return select.top_k_global(scores, count, structure=structure)


def fit(structure: select.Structure, count: int, name: str = "a") -> dict:
    return select.round_counts(structure, {"a": jnp.ones((8, 6), bool)}, {name: count})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select.n_of_m(1), "size: expected .*got 1"),
        (lambda: select.blocks((4, 0)), "size: expected .*got 0"),
        (
            lambda: kernel(structure=select.n_of_m(3)),
            r"conv/kernel: expected a multiple of 3 inputs, for n_of_m\(3\), got 8.*"
            "dense=.*prunable",
        ),
        (
            lambda: kernel(structure=select.blocks((4, 4))),
            r"conv/kernel: .* multiple of 4 outputs, for blocks\(\(4, 4\)\), got 6",
        ),
        (
            lambda: select.unit_view(select.fan_in(), "c/w", (5,)),
            r"c/w: expected two or more axes, .* got shape \(5,\)",
        ),
        (
            lambda: kernel(count=215),
            "count of conv/kernel: expected a multiple of 108 from 0 to 432.*got 215",
        ),
        (lambda: kernel(count=-108), "count of conv/kernel: expected .*got -108"),
        (lambda: kernel(count=540), "count of conv/kernel: expected .*got 540"),
        (
            lambda: kernel(ties="drop"),
            r"ties: expected 'spread' with n_of_m\(4\).*got 'drop'",
        ),
        (
            lambda: kernel(axis_name="data"),
            "axis_name: expected None with n_of_m.*got 'data'",
        ),
        (
            lambda: rest(select.n_of_m(4), 8, (8, 2), (4, 3)),
            r"structure: expected .*got n_of_m\(4\), which makes every row of 0/kernel",
        ),
        (
            lambda: rest(select.fan_in(), 8, (8, 2)),
            r"structure: expected .*got fan_in\(\), which makes every row of 0/kernel",
        ),
        (
            lambda: rest(select.channels(), 8, (8, 2), (4, 3)),
            r"channels\(\), whose units have 4 weights in 1/kernel and 8 in 0/kernel",
        ),
        (
            lambda: rest(select.blocks((2, 2)), 6, (8, 2), (4, 4)),
            "count of all layers: expected a multiple of 4 from 0 to 32.*got 6",
        ),
        (
            lambda: rest(select.blocks((2, 2)), 4, (8, 2), (4, 3)),
            "1/kernel: expected .*got 3",
        ),
        (
            lambda: fit(select.channels(), 3),
            r"count of a: expected a multiple of 8 .*got 3, which channels\(\) rounds",
        ),
        (lambda: fit(select.fan_in(), 49), "count of a: expected 0 to 48.*got 49"),
        (lambda: fit(select.n_of_m(3), 6), "a: expected .* inputs.*got 8"),
        (lambda: fit(select.fan_in(), 6, "b"), r"counts: expected only .*got \['b'\]"),
    ],
)
def test_errors_say_what_came_and_what_was_wanted(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_too_many_units_of_a_row_are_refused() -> None:
    huge = {"a": jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)}
    counts = {"a": 2**20}
    with pytest.raises(ValueError, match="a: expected .*got 2147483648"):
        jax.eval_shape(
            lambda s: select.top_k_per_layer(
                s, counts, structure=select.blocks((1, 1))
            ),
            huge,
        )
