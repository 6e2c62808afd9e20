"""What each method does at a change, against slow and obvious numpy."""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import methods
from helpers.methods import FADING, GRADUAL, SPARSE
from helpers.reference import select as select_slowly
from hypothesis import strategies as st

from jaxsparse import masks, scores, select, transforms
from jaxsparse.transforms import update_schedules
from jaxsparse.transforms.snfs import apportion as apportion_by_shares

RATE, DECAY = 0.1, 0.9
SGD = optax.sgd(RATE, momentum=DECAY)
PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
WHEN = {"begin_step": 0, "end_step": 2, "update_every": 1, "sparsity": 0.9}
GLOBAL = {
    "gradual": transforms.gradual_magnitude(SGD, distribution="global", **WHEN),
    "floors": transforms.gradual_magnitude(
        SGD, distribution="global", min_layer_density=0.01, **WHEN
    ),
    "one shot": transforms.one_shot_magnitude(SGD, sparsity=0.9, step=0),
    "granet": transforms.granet(SGD, **WHEN),
    "straight through": transforms.straight_through(SGD, distribution="global", **WHEN),
}
Arrays = list[np.ndarray]


class Moment(NamedTuple):
    """One update, seen from outside: kernels of both layers before and after."""

    grads: Arrays
    had: Arrays
    has: Arrays
    weights: Arrays
    after: Arrays
    trace: Arrays
    trace_after: Arrays
    state: Any


def kernels(tree: Any) -> Arrays:
    return [np.asarray(layer["kernel"]) for layer in tree.values()]


def find_trace(state: Any) -> Any:
    return state.inner_state[0].trace


def journey(tx: Any, count: int = 11, favored: bool = False) -> list[Moment]:
    """Updates with random gradients, larger at half of the weights held if favored."""
    rng = np.random.default_rng(4)
    params = methods.make_params(dtype="float32")
    state = jax.jit(tx.init, compiler_options=PLAINLY)(params)
    params = transforms.stored_params(params, state)
    step = jax.jit(tx.update, compiler_options=PLAINLY)
    moments = []
    for _ in range(count):
        held = transforms.get_masks(state)
        grads = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params
        )
        if favored:
            for name, layer in held.items():
                even = jnp.arange(layer["kernel"].size).reshape(layer["kernel"].shape)
                more = 9.0 * (layer["kernel"] & (even % 2 == 0))
                grads[name]["kernel"] += more
        updates, new = step(grads, state, params)
        after = optax.apply_updates(params, updates)
        trees = grads, held, transforms.get_masks(new), params, after
        traces = find_trace(state), find_trace(new)
        moments.append(Moment(*map(kernels, trees + traces), new))
        params, state = after, new
    return moments


def best(score: np.ndarray, count: int, within: np.ndarray) -> np.ndarray:
    return select_slowly([score], count, within=[within])[0]


def half_fading(update: int, count: int) -> int:
    return math.floor(count * methods.cosine(update))


def check_step(moment: Moment, forgotten: Any = None, rests: bool = False) -> None:
    """The optimizer's step: from zero where weights came, made or left out."""
    for i, had in enumerate(moment.had):
        has, weight = moment.has[i], moment.weights[i]
        old = had & has if forgotten is None else had & has & ~forgotten[i]
        trace = np.where(old, moment.trace[i], 0)
        start = np.where(old if forgotten is not None else had & has, weight, 0)
        if not rests:
            trace = np.where(has, moment.grads[i], 0) + DECAY * trace
            start = np.where(has, start - RATE * trace, 0)
        np.testing.assert_allclose(moment.trace_after[i], trace, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(moment.after[i], start, rtol=1e-6, atol=1e-7)
        assert (moment.after[i][~has] == 0).all()


RIGL = {
    "as published": {},
    "restarts": {"zero_regrown": True},
    "others only": {"allow_regrow": False},
    "inverted": {"grow": "inverted"},
    "with a step": {"skip_update": False},
}


@pytest.mark.parametrize("case", RIGL)
def test_rigl(case: str) -> None:
    options = RIGL[case]
    moments = journey(transforms.rigl(SGD, **FADING, **options), 5, favored=True)
    for update in (1, 4):
        moment, regrown = moments[update], []
        for i, had in enumerate(moment.had):
            count = int(had.sum())
            goes = half_fading(update, count)
            stay = best(np.abs(moment.weights[i]), count - goes, had)
            promise = np.abs(moment.grads[i]) * (-1 if "grow" in options else 1)
            free = ~had if "allow_regrow" in options else ~stay
            new = stay | best(promise, goes, free)
            np.testing.assert_array_equal(moment.has[i], new)
            regrown.append(had & ~stay & new)
        came_back = sum(again.sum() for again in regrown)
        assert (came_back > 0) == (case != "others only")
        check_step(
            moment,
            forgotten=regrown if "zero_regrown" in options else None,
            rests="skip_update" not in options,
        )
    for update in (0, 2, 3):
        check_step(moments[update])


def test_sparse_evolution_by_sign() -> None:
    key = jax.random.key(3)
    moments = journey(transforms.sparse_evolution(SGD, **SPARSE, key=key), 2)
    moment = moments[1]
    draw = jax.random.fold_in(key, 1)
    held = transforms.get_masks(moments[0].state)
    chance = kernels(scores.random(held, key=draw))
    for i, had in enumerate(moment.had):
        weight = moment.weights[i]
        stay = np.zeros_like(had)
        for side in (had & (weight < 0), had & (weight >= 0)):
            count = int(side.sum())
            assert count > 1
            stay |= best(np.abs(weight), count - count // 2, side)
        new = stay | best(chance[i], int(had.sum() - stay.sum()), ~stay)
        np.testing.assert_array_equal(moment.has[i], new)
    check_step(moment)


def apportion_slowly(total: int, shares: list[float], room: list[int]) -> list[int]:
    """Shares in 2**20ths of the largest, rounded down; rests to the largest share."""
    parts = [round(share / max(shares) * 2**20) for share in shares]
    given = [0] * len(parts)
    while left := min(total, sum(room)) - sum(given):
        mine = [p * (g < r) for p, g, r in zip(parts, given, room, strict=True)]
        more = [
            min(left * p // sum(mine), r - g)
            for p, g, r in zip(mine, given, room, strict=True)
        ]
        if not any(more):
            more[mine.index(max(mine))] = 1
        given = [g + m for g, m in zip(given, more, strict=True)]
    return given


def test_snfs() -> None:
    moments = journey(transforms.snfs(SGD, **FADING, momentum=0.8), 5)
    average = [np.zeros_like(grad) for grad in moments[0].grads]
    for update, moment in enumerate(moments):
        average = [
            np.float32(0.8) * old + np.float32(1 - 0.8) * grad
            for old, grad in zip(average, moment.grads, strict=True)
        ]
        check_step(moment)
        if update not in (1, 4):
            continue
        goes = [half_fading(update, int(had.sum())) for had in moment.had]
        stay = [
            best(np.abs(weight), int(had.sum()) - less, had)
            for weight, had, less in zip(moment.weights, moment.had, goes, strict=True)
        ]
        means = [
            float(np.abs(size[mask]).mean())
            for size, mask in zip(average, moment.had, strict=True)
        ]
        room = [int((~mask).sum()) for mask in stay]
        comes = apportion_slowly(sum(goes), means, room)
        for i, mask in enumerate(stay):
            new = mask | best(np.abs(average[i]), comes[i], ~mask)
            np.testing.assert_array_equal(moment.has[i], new)


def test_granet() -> None:
    tx = transforms.granet(SGD, **GRADUAL, initial_sparsity=0.5)
    moments = journey(tx, 8)
    counts = methods.cubic(methods.PRUNES, Fraction(1, 2), Fraction(3, 4))
    for update, total in zip(methods.PRUNES[:3], counts[1:], strict=False):
        moment = moments[update]
        sizes = [np.abs(weight) for weight in moment.weights]
        pruned = select_slowly(sizes, total, within=moment.had)
        part = 0.25 * (1 + math.cos(math.pi * update / 9))
        for i, mask in enumerate(pruned):
            goes = math.floor(int(mask.sum()) * part)
            stay = best(sizes[i], int(mask.sum()) - goes, mask)
            new = stay | best(np.abs(moment.grads[i]), goes, ~stay)
            np.testing.assert_array_equal(moment.has[i], new)
        check_step(moment)


def test_mest_with_a_soft_bound() -> None:
    key = jax.random.key(3)
    tx = transforms.mest(SGD, **FADING, soft_bound=True, gradient_weight=2.0, key=key)
    moments = journey(tx, 11)
    surplus = [0, 0]
    for update in (1, 4, 7, 10):
        moment = moments[update]
        held = transforms.get_masks(moments[update - 1].state)
        chance = kernels(scores.random(held, key=jax.random.fold_in(key, update)))
        for i, had in enumerate(moment.had):
            worth = np.abs(moment.weights[i]) + 2 * np.abs(moment.grads[i])
            stay = best(worth, int(had.sum()) - surplus[i], had)
            assert stay.sum() == (24, 12)[i]
            surplus[i] = half_fading(update, int(stay.sum())) if update < 10 else 0
            new = stay | best(chance[i], surplus[i], ~stay)
            np.testing.assert_array_equal(moment.has[i], new)
        check_step(moment)


@pytest.mark.parametrize("reset", [True, False])
def test_ac_dc(reset: bool) -> None:
    tx = transforms.ac_dc(
        *(SGD,),
        sparsity=0.75,
        begin_step=1,
        end_step=9,
        update_every=2,
        reset_memory=reset,
    )
    moments = journey(tx, 4)
    sizes = [np.abs(weight) for weight in moments[1].weights]
    few = select_slowly(sizes, 36)
    for i, mask in enumerate(few):
        np.testing.assert_array_equal(moments[1].has[i], mask)
        assert moments[3].has[i].all()
    for moment in moments[:3]:
        check_step(moment)
    opened = moments[3]
    for i, trace in enumerate(opened.trace):
        old = np.zeros_like(trace) if reset else np.where(few[i], trace, 0)
        wanted = opened.grads[i] + DECAY * old
        np.testing.assert_allclose(opened.trace_after[i], wanted, rtol=1e-6)
        wanted = opened.weights[i] - RATE * wanted
        np.testing.assert_allclose(opened.after[i], wanted, rtol=1e-5, atol=1e-7)


def test_gradual_magnitude() -> None:
    moments = journey(transforms.gradual_magnitude(SGD, **GRADUAL), 8)
    for update in (1, 4, 7):
        moment = moments[update]
        counts = methods.METHODS["gradual_magnitude"].counts(update)
        for i, had in enumerate(moment.had):
            new = best(np.abs(moment.weights[i]), counts[i], had)
            np.testing.assert_array_equal(moment.has[i], new)
        check_step(moment)


def test_gradual_magnitude_keeps_the_least_of_each_layer() -> None:
    tx = transforms.gradual_magnitude(
        SGD, **GRADUAL, distribution="global", min_layer_density=0.2
    )
    params = methods.make_params(dtype="float32")
    params["second"]["kernel"] *= 1e-3
    state, nothing = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    step, counts = jax.jit(tx.update), {}
    for update in range(10):
        _, state = step(nothing, state, params)
        layers = masks.layer_counts(transforms.get_masks(state)).values()
        counts[update] = [layer.num_active for layer in layers]
    totals = methods.CUBIC
    wanted = {1: [96, 48], 4: [totals[2] - 10, 10], 9: [36 - 10, 10]}
    assert {update: counts[update] for update in wanted} == wanted


def latent_step(tx: Any) -> tuple[Any, ...]:
    """One update without momentum: weights, masks, trained, gradients; and after."""
    rng = np.random.default_rng(5)
    params = methods.make_params(dtype="float32")
    state = tx.init(params)
    grads = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params
    )
    updates, new = jax.jit(tx.update)(grads, state, params)
    return params, state, grads, optax.apply_updates(params, updates), new


def test_top_kast() -> None:
    tx = transforms.top_kast(
        optax.sgd(RATE), sparsity=0.75, backward_sparsity=0.5, regularization=0.01
    )
    params, state, grads, after, new = latent_step(tx)
    for i, weight in enumerate(kernels(params)):
        everything = np.ones_like(weight, bool)
        mask = best(np.abs(weight), (24, 12)[i], everything)
        trained = best(np.abs(weight), (48, 24)[i], everything)
        np.testing.assert_array_equal(kernels(state.masks)[i], mask)
        np.testing.assert_array_equal(kernels(state.memory)[i], trained)
        pull = np.where(mask, 0.01, 0.01 / 0.25) * weight
        moved = weight - RATE * (kernels(grads)[i] + pull)
        wanted = np.where(trained, moved, weight)
        got = kernels(after)[i]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(got[~trained], weight[~trained])
        again = best(np.abs(got), (24, 12)[i], everything)
        np.testing.assert_array_equal(kernels(new.masks)[i], again)


def best_of_groups(weight: np.ndarray) -> np.ndarray:
    """The two largest of every four inputs of an output."""
    mask = np.zeros_like(weight, bool)
    for out in range(weight.shape[1]):
        for top in range(0, weight.shape[0], 4):
            order = np.argsort(-np.abs(weight[top : top + 4, out]), kind="stable")
            mask[top + order[:2], out] = True
    return mask


def test_sr_ste() -> None:
    tx = transforms.sr_ste(optax.sgd(RATE), decay=0.03)
    params, state, grads, after, new = latent_step(tx)
    for i, weight in enumerate(kernels(params)):
        mask = best_of_groups(weight)
        np.testing.assert_array_equal(kernels(state.masks)[i], mask)
        wanted = weight - RATE * (kernels(grads)[i] + 0.03 * weight * ~mask)
        got = kernels(after)[i]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(kernels(new.masks)[i], best_of_groups(got))


STRUCTURED = {
    "blocks": (methods.METHODS["sparse_evolution blocks"], select.blocks((2, 2))),
    "fan_in": (methods.METHODS["rigl fan_in"], select.fan_in()),
    "n_of_m": (methods.METHODS["rigl n_of_m"], select.n_of_m(4)),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_structures_stand_through_every_change(name: str) -> None:
    method, structure = STRUCTURED[name]
    moments = journey(method.make(SGD))
    moved = 0
    for moment in moments:
        for had, has in zip(moment.had, moment.has, strict=True):
            view = np.asarray(
                select.structures.to_units(structure, "a", jnp.asarray(has))
            )
            assert (view.all(axis=2) == view.any(axis=2)).all()
            in_row = view.all(axis=2).sum(axis=1)
            assert (in_row == in_row[0]).all()
            moved += int((had != has).sum())
    assert moved


def test_ties_are_broken_in_the_fixed_order() -> None:
    tx = transforms.rigl(SGD, **FADING)
    params = jax.tree.map(jnp.ones_like, methods.make_params(dtype="float32"))
    state = tx.init(params)
    held = transforms.get_masks(state)
    for _ in range(2):
        _, state = jax.jit(tx.update)(params, state, params)
    new = kernels(transforms.get_masks(state))
    for had, has in zip(kernels(held), new, strict=True):
        count = int(had.sum())
        goes = half_fading(1, count)
        kept = best(np.ones_like(had), count - goes, had)
        grown = best(np.ones_like(had), goes, ~kept)
        np.testing.assert_array_equal(has, kept | grown)


def test_growth_grads_as_a_tree_and_as_a_function_called_only_in_a_change() -> None:
    tx = transforms.rigl(SGD, **FADING)
    params = methods.make_params(dtype="float32")
    others = methods.make_params(seed=8, dtype="float32")
    spoilt = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    called = []

    def grow_by(weights: Any) -> Any:
        jax.debug.callback(lambda: called.append(1))
        for name, layer in weights.items():
            shown = jnp.where(layer["kernel"] != 0, 0.0, others[name]["kernel"])
            assert shown.shape == layer["kernel"].shape
        return others

    state = tx.init(params)
    start = transforms.stored_params(params, state), state
    updates = {
        "tree": jax.jit(lambda g, s, p: tx.update(g, s, p, growth_grads=others)),
        "function": jax.jit(lambda g, s, p: tx.update(g, s, p, growth_grads=grow_by)),
        "own": jax.jit(tx.update),
    }
    found = {}
    for name, update in updates.items():
        weights, state = start
        for i in range(5):
            due = i in (1, 4)
            grads = spoilt if due and name != "own" else others
            changes, state = update(grads, state, weights)
            weights = optax.apply_updates(weights, changes)
            jax.effects_barrier()
            if name == "function":
                assert len(called) == (i >= 1) + (i >= 4)
        found[name] = kernels(transforms.get_masks(state)) + kernels(weights)
    for name in ("function", "own"):
        for got, wanted in zip(found[name], found["tree"], strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_the_first_adam_step_of_a_grown_weight() -> None:
    tx = transforms.sparse_evolution(optax.adam(RATE), **SPARSE)
    params = methods.make_params(dtype="float32")
    state = tx.init(params)
    params = transforms.stored_params(params, state)
    late = state.inner_state[0]._replace(count=jnp.int32(100_000))
    state = state._replace(inner_state=(late, *state.inner_state[1:]))
    step = jax.jit(tx.update)
    grads = jax.tree.map(jnp.ones_like, params)
    _, state = step(grads, state, params)
    held = transforms.get_masks(state)
    updates, state = step(grads, state, params)
    limit = RATE * (1 - 0.9) / math.sqrt(1 - 0.999)
    assert limit / RATE == pytest.approx(3.162, abs=1e-3)
    came = [
        update[has & ~had]
        for update, had, has in zip(
            *map(kernels, (updates, held, transforms.get_masks(state))), strict=True
        )
    ]
    np.testing.assert_allclose(np.concatenate(came), -limit, rtol=1e-4)


def test_ever_active_grows_and_counts_exactly() -> None:
    moments = journey(transforms.sparse_evolution(SGD, **SPARSE))
    union = [np.zeros_like(mask) for mask in moments[0].had]
    counts = []
    for moment in moments:
        union = [
            u | had | has
            for u, had, has in zip(union, moment.had, moment.has, strict=True)
        ]
        ever = transforms.ever_active(moment.state)
        for got, wanted in zip(kernels(ever), union, strict=True):
            np.testing.assert_array_equal(got, wanted)
        counts.append(masks.num_active(ever))
    assert counts == sorted(counts) and counts[0] == 36 < counts[-1]


def test_replicates_go_on_with_the_masks_they_are_given() -> None:
    tx = transforms.rigl(SGD, **FADING)
    params = methods.make_params(dtype="float32")
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), params)
    axes = transforms.replicate_axes(jax.eval_shape(tx.init, params))
    states = jax.vmap(tx.init, out_axes=axes)(many)
    counts = [[10, 30], [60, 5]]
    given = {
        name: {
            "bias": None,
            "kernel": jnp.stack(
                [
                    jnp.arange(layer["kernel"].size).reshape(layer["kernel"].shape) < n
                    for n in of_layer
                ]
            ),
        }
        for (name, layer), of_layer in zip(
            params.items(), zip(*counts, strict=True), strict=True
        )
    }
    states = transforms.replace_masks(states, given)
    step = jax.jit(jax.vmap(tx.update, in_axes=(0, axes, 0), out_axes=(0, axes)))
    rng = np.random.default_rng(2)
    for _ in range(6):
        grads = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), many
        )
        updates, states = step(grads, states, many)
        many = optax.apply_updates(many, updates)
        for i in range(2):
            held = [mask[i] for mask in kernels(transforms.get_masks(states))]
            assert [int(mask.sum()) for mask in held] == counts[i]
            for weight, mask in zip(kernels(many), held, strict=True):
                assert not weight[i][~mask].any()
    for mask, first in zip(
        kernels(transforms.get_masks(states)), kernels(given), strict=True
    ):
        assert (mask != first).any()


LARGE = st.integers(0, 2**31 - 1)
part_of = jax.jit(update_schedules.floor_mul_div)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(LARGE, st.integers(1, 2**30 - 1), st.data())
def test_part_of_is_exact(count: int, bottom: int, data: Any) -> None:
    top = data.draw(st.integers(0, bottom))
    got = part_of(jnp.int32(count), jnp.int32(top), jnp.int32(bottom))
    assert int(got) == count * top // bottom


SPARSITIES = st.integers(0, 999).map(lambda part: part / 1000)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    st.integers(0, 50),
    st.integers(0, 200),
    st.integers(1, 70),
    st.tuples(SPARSITIES, SPARSITIES).map(sorted),
    st.sampled_from(["cubic", "linear", "exponential", math.sqrt]),
)
def test_gradual_schedules_end_exactly(
    begin: int, length: int, every: int, ends: list[float], schedule: Any
) -> None:
    calendar = update_schedules.make_update_schedule(
        begin_step=begin, update_every=every, end_step=begin + length, include_end=True
    )
    table = update_schedules.gradual_sparsities(
        calendar, initial=ends[0], final=ends[1], schedule=schedule
    )
    steps = update_schedules.update_steps(calendar)
    assert len(table) == len(steps) and steps[-1] == begin + length
    assert table[-1] == Fraction(str(ends[1]))
    assert all(a <= b + 1e-12 for a, b in zip(table, table[1:], strict=False))


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
    st.integers(0, 20), st.integers(1, 60), st.integers(1, 30), st.booleans()
)
def test_traced_calendars_agree_with_the_list(
    begin: int, length: int, every: int, closes: bool
) -> None:
    calendar = update_schedules.UpdateSchedule(begin, every, begin + length, closes)
    steps = update_schedules.update_steps(calendar)
    index = jax.vmap(lambda step: update_schedules.update_index(calendar, step))
    assert index(jnp.array(steps)).tolist() == list(range(len(steps)))
    due = jax.vmap(lambda step: update_schedules.should_update(calendar, step))
    found = np.flatnonzero(due(jnp.arange(begin + length + every + 5)))
    assert found.tolist() == steps


def test_drop_fractions() -> None:
    ends = update_schedules.make_update_schedule(
        begin_step=2, update_every=3, end_step=10
    )
    never = ends._replace(end=None)
    assert update_schedules.drop_fractions(
        never, fraction=0.3, schedule="constant"
    ) == [(3, 10)]
    fading = update_schedules.drop_fractions(ends, fraction=0.3)
    wanted = [0.15 * (1 + math.cos(math.pi * step / 10)) for step in (2, 5, 8)]
    np.testing.assert_allclose([top / bottom for top, bottom in fading], wanted)
    by_rate = update_schedules.drop_fractions(
        ends, fraction=0.4, schedule=lambda step: 8.0 / 2 ** (step // 4)
    )
    assert by_rate == [(2, 5), (1, 5), (1, 10)]
    assert max(max(pair) for pair in fading + by_rate) < 2**30


apportion = jax.jit(apportion_by_shares)
SHARES = st.floats(0, 2.0**99, width=32) | st.sampled_from([0.0, math.nan])


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
    st.integers(0, 2**28),
    st.lists(SHARES, min_size=3, max_size=3),
    st.lists(st.integers(0, 2**27) | st.just(0), min_size=3, max_size=3),
)
def test_apportion_gives_all_there_is_room_for(
    total: int, shares: list[float], room: list[int]
) -> None:
    got = apportion(
        jnp.int32(total), jnp.array(shares, jnp.float32), jnp.array(room, jnp.int32)
    ).tolist()
    assert sum(got) == min(total, sum(room))
    assert all(0 <= mine <= most for mine, most in zip(got, room, strict=True))


END = {"sparsity": 0.5, "end_step": 9}
t = transforms
REFUSED: dict[str, tuple[Any, dict]] = {
    "drop_by_sign": (
        t.sparse_evolution,
        {"sparsity": 0.5, "structure": select.fan_in()},
    ),
    "grow: expected one of .*got 'most'": (
        t.rigl,
        END | {"update_every": 3, "grow": "most"},
    ),
    "drop_fraction: expected .*got 1.5": (
        t.rigl,
        END | {"update_every": 3, "drop_fraction": 1.5},
    ),
    "drop_schedule: expected 'cosine'.*got 'linear'": (
        t.rigl,
        END | {"update_every": 3, "drop_schedule": "linear"},
    ),
    "end_step: expected the step at which .*got None": (t.rigl, {"sparsity": 0.5}),
    "end_step: expected .*soft_bound.*got None": (
        t.mest,
        {"sparsity": 0.5, "soft_bound": True},
    ),
    "end_step: expected .*begin_step=100.*got 9": (t.rigl, END),
    "update_every: expected .*got 0": (t.rigl, END | {"update_every": 0}),
    "begin_step: expected .*got -1": (t.rigl, END | {"begin_step": -1}),
    "gradient_weight: expected .*got -1": (t.mest, END | {"gradient_weight": -1.0}),
    "momentum: expected .*got 1.0": (t.snfs, END | {"momentum": 1.0}),
    "stop_step: expected .*got 5": (
        t.granet,
        END | {"update_every": 3, "stop_step": 5},
    ),
    "schedule: expected sparsities that never decrease": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "initial_sparsity": 0.6},
    ),
    "schedule: expected one of .*got 'cubed'": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "schedule": "cubed"},
    ),
    "schedule: expected .*got 1 ending in 0.5": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "schedule": [0.5]},
    ),
    "min_layer_density: expected .*got 0.1 with distribution 'uniform'": (
        t.gradual_magnitude,
        END | {"begin_step": 0, "min_layer_density": 0.1},
    ),
    "backward_sparsity: expected .*got 0.6": (
        t.top_kast,
        {"sparsity": 0.5, "backward_sparsity": 0.6},
    ),
    "regularization: expected .*got -1": (
        t.top_kast,
        {"sparsity": 0.5, "backward_sparsity": 0.4, "regularization": -1.0},
    ),
    "n: expected .*m=4, got 5": (t.sr_ste, {"n": 5}),
    "decay: expected .*got -1": (t.sr_ste, {"decay": -1.0}),
    "first/kernel: expected .*got 8": (t.sr_ste, {"n": 1, "m": 3}),
    "sparsity: expected .*got 1.0": (t.rigl, {"sparsity": 1.0, "end_step": 500}),
    "sparsity: expected .*got -": (t.straight_through, {"sparsity": -0.1}),
    "sparsity: expected to keep .* of 144 weights.*got 36": (
        t.ac_dc,
        {"begin_step": 1, "update_every": 2, "dense": ("second/*",)}
        | (END | {"sparsity": 0.75}),
    ),
    "distribution: expected one of .*got 'erl'": (
        t.rigl,
        {"sparsity": 0.5, "end_step": 500, "distribution": "erl"},
    ),
    r"dense: expected patterns .*got \'third/\*\', which matches none": (
        t.mest,
        {"sparsity": 0.5, "end_step": 500, "dense": ("third/*",)},
    ),
    r"prunable: expected patterns .*got \'third/\*\', which matches none": (
        t.straight_through,
        {"sparsity": 0.5, "prunable": ("third/*",)},
    ),
    "schedule": (t.straight_through, {"sparsity": 0.5, "schedule": [0.1, 0.2]}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_arguments_are_refused_by_name(message: str) -> None:
    make, options = REFUSED[message]
    with pytest.raises(ValueError, match="^" + message):
        make(SGD, **options).init(methods.make_params(dtype="float32"))


@pytest.mark.parametrize("make", [t.straight_through, t.top_kast, t.sr_ste])
def test_latent_methods_need_params(make: Any) -> None:
    options = {"sparsity": 0.5} if make is not t.sr_ste else {}
    options |= {"backward_sparsity": 0.4} if make is t.top_kast else {}
    tx, params = make(SGD, **options), methods.make_params(dtype="float32")
    with pytest.raises(ValueError, match="^params: expected the dense .*got None"):
        tx.update(params, tx.init(params))


def test_dense_by_patterns() -> None:
    params = methods.make_params(dtype="float32")
    both = masks.ones(params, prunable=("*/kernel",))
    assert masks.names(both) == ["first/kernel", "second/kernel"]
    one = masks.ones(params, prunable=("*/kernel", "!first/*"))
    assert masks.names(one) == ["second/kernel"]
    assert one["first"] == {"bias": None, "kernel": None}
    for globs, name in ((("third/*",), "third"), (("*/kernel", "!third"), "third")):
        with pytest.raises(
            ValueError, match=f"^prunable: expected patterns .*got '{name}"
        ):
            masks.ones(params, prunable=globs)


def make_trees() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    first, second = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((8, 12), (12, 4))
    )
    keys = jax.random.split(jax.random.key(0))
    model = eqx.nn.Sequential(
        [eqx.nn.Linear(8, 12, key=keys[0]), eqx.nn.Linear(12, 4, key=keys[1])]
    )
    network = nnx.Sequential(
        nnx.Linear(8, 12, rngs=nnx.Rngs(0)), nnx.Linear(12, 4, rngs=nnx.Rngs(1))
    )
    return {
        "equinox": eqx.partition(model, eqx.is_inexact_array)[0],
        "nnx": nnx.split(network)[1],
        "list": [first, [jnp.ones(12), second]],
        "tuple": (jnp.ones(12), (first, second)),
    }


@pytest.mark.parametrize("method", ["rigl", "gradual_magnitude"])
@pytest.mark.parametrize("name", make_trees())
def test_any_tree_of_parameters(name: str, method: str) -> None:
    params = make_trees()[name]
    make, options = (
        (t.rigl, FADING) if method == "rigl" else (t.gradual_magnitude, GRADUAL)
    )
    named = name in ("equinox", "nnx")
    prunable = masks.is_kernel if named else lambda _, leaf: leaf.ndim > 1
    tx = make(optax.adam(RATE), **options, prunable=prunable)
    state, step = tx.init(params), jax.jit(tx.update, compiler_options=PLAINLY)
    first = transforms.get_masks(state)
    for update in range(10):
        updates, state = step(jax.tree.map(jnp.cos, params), state, params)
        params = optax.apply_updates(params, updates)
        held = transforms.get_masks(state)
        masks.tree_map(
            lambda mask, leaf: np.testing.assert_array_equal(leaf[~mask], 0),
            held,
            params,
        )
        assert masks.num_active(held) == sum(methods.METHODS[method].counts(update))
    assert masks.num_active(held) == 36 and masks.size(held) == 144
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(held), strict=True)
    assert all((a != b).any() for a, b in pairs)


@pytest.mark.parametrize("method", GLOBAL)
def test_two_to_the_31_weights_compete_in_a_method(method: str) -> None:
    tx = GLOBAL[method]
    leaf = jax.ShapeDtypeStruct((2**15, 2**15), jnp.bfloat16)
    params = {name: {"kernel": leaf} for name in "abc"}

    def after(params: Any) -> Any:
        _, state = tx.update(params, tx.init(params), params)
        return transforms.get_masks(state)

    kept = jax.tree.leaves(jax.eval_shape(after, params))
    assert [mask.shape for mask in kept] == [leaf.shape] * 3


def test_room_of_two_to_the_31_weights_is_room() -> None:
    room = jnp.full(3, 2**30, jnp.int32)
    given = apportion_by_shares(jnp.int32(10), jnp.ones(3), room)
    assert sorted(given.tolist()) == [3, 3, 4]


def test_redistribution_of_more_weights_than_int32_counts_is_refused() -> None:
    leaf = jax.ShapeDtypeStruct((2**16, 2**15), jnp.bfloat16)
    params = {name: {"kernel": leaf} for name in "abc"}
    tx = transforms.snfs(SGD, sparsity=0.1, drop_fraction=0.5, end_step=200)
    with pytest.raises(
        ValueError, match="drop_fraction: expected .*got 0.5 of 6442450944"
    ):
        jax.eval_shape(tx.init, params)
