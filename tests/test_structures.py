import functools
import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference
from helpers.structures import counts_of, diagonal, each_structure, step
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxsparse import select

WILD = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e38, np.inf, -np.inf, np.nan, -np.nan]
# Sums of these are exact in any order, or NaN in every order.
SUMMABLE = [0.0, -0.0, 1.0, -1.0, 2.0, -3.0, np.inf, -np.inf, np.nan, -np.nan]

per_layer = jax.jit(select.top_k_per_layer, static_argnames=("structure", "frozen"))
globally = jax.jit(select.top_k_global, static_argnames=("structure", "frozen"))
wild = hypothesis.settings(deadline=None, max_examples=12)
# One shape, on which every structure is compiled once.
SHAPE = (2, 36, 6)


@functools.cache
def rows_of(structure: select.Structure, shape: tuple[int, ...]) -> list:
    """Lists rows of units of positions in the flat leaf, by looking at each weight."""
    kind, (a, b) = structure.name.partition("(")[0], structure.block
    rows: dict[tuple, dict[tuple, list[int]]] = {}
    inputs, outputs = math.prod(shape[:-1]), shape[-1]
    for flat, (*space, i, o) in enumerate(np.ndindex(shape)):
        row, unit = {
            "n_of_m": ((*space, i // a, o), (i % a,)),
            "blocks": ((), (*space, i // a, o // b)),
            "channels": ((), (o,)),
            "fan_in": ((o,), (*space, i)),
            "diagonals": ((), (diagonal(flat // outputs, o, inputs, outputs),)),
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


def distinct(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    values = np.random.default_rng(seed).permutation(int(np.prod(shape))) - 7
    return jnp.asarray(values.reshape(shape).astype(np.float32))


@st.composite
def leaves(draw: st.DrawFn, structure: select.Structure) -> np.ndarray:
    values = st.sampled_from(SUMMABLE)
    if structure.name.startswith(("n_of_m", "fan_in", "blocks((1, 1))")):
        values = st.sampled_from(WILD) | st.floats(width=32)
    return draw(hnp.arrays(np.float32, SHAPE, elements=values, fill=values))


EVERYWHERE = np.ones(SHAPE, bool)


def keep(
    structure: select.Structure,
    score: np.ndarray,
    count: int,
    within: np.ndarray = EVERYWHERE,
) -> np.ndarray:
    """The one program of a structure."""
    result = per_layer(
        {"a": score, "bias": None},
        {"a": np.int32(count), "bias": None},
        candidates={"a": jnp.asarray(within), "bias": None},
        structure=structure,
    )
    assert result["bias"] is None
    return np.asarray(result["a"])


@each_structure
@wild
@hypothesis.given(data=st.data())
def test_per_layer_equals_a_sort_of_each_row(
    structure: select.Structure, data: st.DataObject
) -> None:
    """Units are kept only where all members are candidates."""
    score = data.draw(leaves(structure))
    within = data.draw(hnp.arrays(bool, SHAPE, fill=st.just(True)))
    each, units = step(structure, SHAPE), len(counts_of(structure, SHAPE))
    wanted = data.draw(st.integers(0, units - 1))
    surplus = data.draw(st.integers(0, each - 1))  # less than one more unit a row
    for allowed in (EVERYWHERE, within):
        kept = keep(structure, score, wanted * each + surplus, allowed)
        np.testing.assert_array_equal(kept, expected(structure, score, wanted, allowed))
        assert allowed is within or kept.sum() == wanted * each
        assert not (kept & ~allowed).any()


@each_structure
def test_every_row_keeps_its_count_and_more_contains_fewer(
    structure: select.Structure,
) -> None:
    """In the same program: every count, those beyond the ends, and equal units."""
    score = np.round(np.asarray(distinct(SHAPE)) / 5)  # with ties
    before, rows = np.zeros(SHAPE, bool), rows_of(structure, SHAPE)
    for wanted, count in enumerate(counts_of(structure, SHAPE)):
        after = keep(structure, score, count)
        assert not (before & ~after).any()
        flat = after.reshape(-1)
        for row in rows:
            kept = flat[np.array(row)]
            assert kept.all(axis=1).sum() == kept.any(axis=1).sum() == wanted
        before = after
        for value in (0.0, -1.5, np.inf, -np.inf, np.nan) if wanted in (1, 3) else ():
            flat = keep(structure, np.full(SHAPE, value, np.float32), count).reshape(-1)
            for place, row in enumerate(rows):
                orders = reference.orders(len(row), place * len(row))
                found = flat[np.array(row)].all(axis=1)
                first = orders.argsort().argsort() < wanted
                np.testing.assert_array_equal(found, first)
    assert before.all()
    for count, number in ((-1, 0), (-1000, 0), (10**6, before.size)):
        assert keep(structure, score, count).sum() == number


@pytest.mark.parametrize("shape", [(3, 3, 8, 2)])
def test_half_of_groups_of_four_is_two_to_four(shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    by_hand = np.zeros(shape, bool)
    for space in np.ndindex(shape[:-2]):
        for start, output in itertools.product(range(0, 8, 4), range(shape[-1])):
            group = np.abs(weights[*space, start : start + 4, output])
            for place in np.argsort(group)[2:]:
                by_hand[*space, start + int(place), output] = True
    chosen = jax.jit(
        lambda score: select.top_k_per_layer(
            {"a": score}, {"a": weights.size // 2}, structure=select.n_of_m(4)
        )
    )
    result = chosen(np.abs(weights))
    np.testing.assert_array_equal(result["a"], by_hand)


def test_channels_are_ranked_by_the_sum_of_magnitudes() -> None:
    weights = np.array([3.0, -5.0, 1.0, 4.0], np.float32) * np.ones((3, 3, 4, 1))
    size = {"a": np.abs(weights).astype(np.float32)}
    result = per_layer(size, {"a": np.int32(72)}, structure=select.channels())
    kept = np.asarray(result["a"])
    assert kept.all(axis=(0, 1, 2)).tolist() == [False, True, False, True]
    assert kept.any(axis=(0, 1, 2)).tolist() == [False, True, False, True]


def test_a_unit_with_a_nan_is_last() -> None:
    score = jnp.array([[jnp.nan, -1e30, 0.0], [jnp.inf, 0.0, 0.0]])
    for count, kept in ((2, [0, 0, 1]), (4, [0, 1, 1]), (6, [1, 1, 1])):
        counts = {"a": jnp.int32(count)}
        result = per_layer({"a": score}, counts, structure=select.channels())
        assert result["a"].all(axis=0).tolist() == [bool(k) for k in kept]


@pytest.mark.parametrize(
    ("structure", "dtype"),
    [(select.n_of_m(4), "float16"), (select.blocks((2, 3)), "bfloat16")],
    ids=repr,
)
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
        score = 1 + np.arange(8, dtype=np.float64).reshape(4, 2) * 1e-15
        count = {"a": np.int32(4)}
        result = per_layer({"a": score}, count, structure=select.blocks((1, 2)))
    assert np.asarray(result["a"]).all(axis=1).tolist() == [False, False, True, True]


TREE = {"few": (8, 3), "long": (3, 3, 6, 4), "other": (44, 5), "small": (2, 1, 4, 2)}


def test_leaves_do_not_influence_each_other() -> None:
    scores = {name: distinct(shape, seed=3) for name, shape in TREE.items()}
    structure = select.fan_in()
    for wanted in (0, 1, 3):
        counts = {
            name: np.int32(wanted * step(structure, shape))
            for name, shape in TREE.items()
        }
        together = per_layer(scores, counts, structure=structure)
        for name, shape in TREE.items():
            everywhere = np.ones(shape, bool)
            np.testing.assert_array_equal(
                together[name],
                expected(structure, np.asarray(scores[name]), wanted, everywhere),
            )


def test_static_and_traced_counts_agree() -> None:
    structure, score = select.blocks((2, 3)), distinct(SHAPE)
    count = counts_of(structure, SHAPE)[1]
    static = jax.jit(
        lambda s: select.top_k_per_layer(s, {"a": count}, structure=structure)
    )
    kept = keep(structure, score, count)
    np.testing.assert_array_equal(static({"a": score})["a"], kept)


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


@pytest.mark.parametrize("structure", [select.n_of_m(2), select.n_of_m(18)], ids=repr)
def test_vmap_equals_a_loop(structure: select.Structure) -> None:
    batch = np.stack([np.asarray(distinct(SHAPE, seed)) for seed in range(3)])
    batch = np.concatenate([batch, np.zeros((1, *SHAPE), np.float32)])  # ties too
    possible = counts_of(structure, SHAPE)
    counts = np.array([0, possible[1], possible[-1], possible[-2]], np.int32)

    def select_one(score: jax.Array, count: jax.Array) -> dict:
        return select.top_k_per_layer({"a": score}, {"a": count}, structure=structure)

    result = jax.jit(jax.vmap(select_one))(batch, counts)
    for i, count in enumerate(counts):
        np.testing.assert_array_equal(result["a"][i], keep(structure, batch[i], count))


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
    sharding = jax.sharding.NamedSharding(mesh, P(None, "data"))
    score = distinct(SHAPE)
    for structure in (select.n_of_m(4), select.blocks((2, 3)), select.fan_in()):
        count = counts_of(structure, SHAPE)[1]
        placed = per_layer(
            {"a": jax.device_put(score, sharding)},
            {"a": np.int32(count)},
            structure=structure,
        )
        np.testing.assert_array_equal(placed["a"], keep(structure, score, count))
