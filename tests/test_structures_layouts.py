"""Structures by the layout of a leaf, over all layers, and beside dense leaves."""

import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import flat_options, reference
from helpers.structures import diagonal
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxsparse import fan_axes, masks, prune, select, transforms

SUMMABLE = [0.0, -0.0, 1.0, -1.0, 2.0, -3.0, np.inf, -np.inf, np.nan, -np.nan]
globally = jax.jit(select.top_k_global, static_argnames=("structure", "frozen"))
wild = hypothesis.settings(deadline=None, max_examples=12)


def blocks_of(shape: tuple[int, ...]) -> list[list[int]]:
    """Lists blocks of 2 by 2 of positions in the flat leaf."""
    blocks: dict[tuple, list[int]] = {}
    for flat, (*space, i, o) in enumerate(np.ndindex(shape)):
        blocks.setdefault((*space, i // 2, o // 2), []).append(flat)
    return [members for _, members in sorted(blocks.items())]


def distinct(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    values = np.random.default_rng(seed).permutation(int(np.prod(shape))) - 7
    return jnp.asarray(values.reshape(shape).astype(np.float32))


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
    units = {n: blocks_of(s) for n, s in sizes.items()}
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
    ticket = flat_options.call(prune.prune, weights, sparsity, **options)
    assert masks.num_active(ticket) == wanted
    tx = flat_options.call(
        transforms.one_shot_magnitude,
        optax.set_to_zero(),
        sparsity=sparsity,
        step=0,
        **options,
    )
    _, state = jax.jit(tx.update)(weights, tx.init(weights), weights)
    jax.tree.map(np.testing.assert_array_equal, transforms.get_masks(state), ticket)
    with pytest.raises(
        ValueError, match="count of all layers: expected .*got 4, which blocks"
    ):
        flat_options.call(
            prune.prune,
            {"kernel": weights["a"]["kernel"]},
            0.995,
            **options | {"dense": ()},
        )


def test_blocks_of_one_weight_are_no_structure() -> None:
    scores = {"a": distinct((5, 4)), "b": distinct((2, 3, 4), seed=1)}
    ones = select.blocks((1, 1))
    for count in np.array([0, 7, 44], np.int32):
        jax.tree.map(
            np.testing.assert_array_equal,
            globally(scores, count, structure=ones),
            globally(scores, count),
        )


def test_ignored_leaves_need_not_fit() -> None:
    scores = {"a": distinct((8, 3)), "b": distinct((5, 3)), "c": jnp.ones(3)}
    counts = {"a": 12, "b": None, "c": None}
    structure = select.n_of_m(4)
    result = jax.jit(
        lambda s: select.top_k_per_layer(
            s, counts, frozen=("b", "c"), structure=structure
        )
    )(scores)
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
    size = math.prod(shape[1:-1]), shape[-1]
    for flat, (s, *space, i, o) in enumerate(np.ndindex(shape)):
        first = flat // shape[-1] % size[0]  # counts the inputs of all positions
        row, unit = {
            "n_of_m": ((s, *space, i // a, o), (i % a,)),
            "blocks": ((), (s, *space, i // a, o // b)),
            "channels": ((), (s, o)),
            "fan_in": ((s, o), (*space, i)),
            "diagonals": ((s,), (diagonal(first, o, *size),)),
        }[kind]
        rows.setdefault(row, {}).setdefault(unit, []).append(flat)
    return [list(units.values()) for units in rows.values()]


def in_sets(rows: list) -> set:
    return {frozenset(frozenset(unit) for unit in row) for row in rows}


LAYOUTS = [
    ("...io", (3, 4, 6)),
    ("oi...", (6, 4, 3)),
    ("ioo", (4, 3, 2)),
    ("iio", (2, 2, 6)),
    ("sio", (3, 4, 6)),
    ("...io/2", (3, 4, 6)),
    ("oi.../3", (9, 4, 2)),
]
STRUCTURED = [
    select.n_of_m(4),
    select.blocks((2, 3)),
    select.channels(),
    select.fan_in(),
    select.diagonals(),
]


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
@pytest.mark.parametrize("structure", STRUCTURED, ids=repr)
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
    place = jnp.asarray(np.arange(score.size).reshape(shape))
    units = select.units.to_units(tied, "a", place)
    order = np.asarray(fan_axes.to_matrices(axes, "a", place)).reshape(-1)
    of_rows = [[order[members].tolist() for members in row] for row in rows]
    assert in_sets(units.tolist()) == in_sets(of_rows)
    if (LAYOUTS.index((layout, shape)) - STRUCTURED.index(structure)) % 4:
        return  # a selection of each structure and of each layout suffices
    count = wanted * view.rows * view.members
    chosen = jax.jit(lambda s: select.top_k_per_layer(s, {"a": count}, structure=tied))
    kept = chosen({"a": score.astype(np.float32)})
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
    half = {"distribution": "uniform", "structure": select.n_of_m(4)}
    kept = jax.jit(lambda p: flat_options.call(prune.prune, p, 0.5, **half))(params)
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
    blocks = {"structure": select.blocks((2, 2)), "dense": ("stem/*",)}
    ticket, other = jax.jit(
        lambda p: (
            flat_options.call(prune.prune, p, 0.5, distribution="uniform", **where),
            flat_options.call(prune.prune, p, 0.154, **blocks),
        )
    )(params)
    kept = masks.layer_counts(ticket).values()
    assert [layer.num_active for layer in kept] == [24, 108]
    assert masks.layer_counts(other)["stem/kernel"] == (108, 108)
    for tx in (
        flat_options.call(
            transforms.rigl,
            sgd,
            sparsity=0.5,
            distribution="uniform",
            drop_fraction=0.5,
            update_every=1,
            end_step=9,
            skip_update=False,
            **where,
        ),
        flat_options.call(
            transforms.gradual_magnitude, sgd, sparsity=0.5, **where, **when
        ),
    ):
        state, held = jax.jit(tx.init)(params), params
        first = masks.layer_counts(transforms.get_masks(state))
        assert first["stem/kernel"] == (108, 108)
        update = jax.jit(tx.update)
        for _ in range(3):
            grads = jax.tree.map(np.sin, held)
            updates, state = update(grads, state, held)
            held = optax.apply_updates(held, updates)
        kept = masks.layer_counts(transforms.get_masks(state))
        assert kept["stem/kernel"] == (108, 108)
        groups_kept = np.asarray(transforms.get_masks(state)["body"]["kernel"])
        each = groups_kept.reshape(2, 4, 6).sum(axis=1)
        assert (each == each[0, 0]).all() and 0 < each[0, 0] < 4
    tx = transforms.sr_ste(
        sgd, n=2, m=4, layers=transforms.LayerOptions(dense=("stem/*",))
    )
    kept = masks.layer_counts(transforms.get_masks(jax.jit(tx.init)(params)))
    assert [layer.num_active for layer in kept.values()] == [24, 108]
