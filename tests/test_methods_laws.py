"""What must hold for every method around every optimizer, after every update."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import choice_steps, method_choices, method_pairs, method_runs, methods
from helpers.campaigns import case
from helpers.method_pairs import OPTIMIZERS, OUTER, PAIRS
from helpers.method_runs import Moment, Run, fast, find, kernels
from helpers.methods import METHODS
from helpers.optimizers import LATE
from helpers.states import plain
from optax import contrib

from jaxsparse import rng, select, transforms
from jaxsparse.training import checkpoints
from jaxsparse.training.state import TrainState

LATENT = [name for name, method in METHODS.items() if method.latent]
# Pairs that cannot be, and the tests below of what becomes of them.
LIMITS = dict.fromkeys(
    [
        (name, "lookahead")
        for name, method in METHODS.items()
        if method.latent or method.reparameterized
    ],
    "no masks for slow weights: test_these_methods_refuse_lookahead",
) | dict.fromkeys(
    [(name, "outer partition") for name in LATENT],
    "forward_params: test_latent_methods_within_a_partition",
)
OTHERS = [
    (method, optimizer)
    for method in METHODS
    for optimizer in OPTIMIZERS
    if (method, optimizer) not in LIMITS and PAIRS[method] != optimizer
]
STRUCTURES = {
    "sparse_evolution blocks": select.blocks((2, 2)),
    "rigl fan_in": select.fan_in(),
    "rigl n_of_m": select.n_of_m(4),
}
EVAL_PARAMS = jax.jit(contrib.schedule_free_eval_params)
# Methods with masks of the caller, with a key and a memory, and with latent weights.
DONATED = ("fixed", "mest soft_bound", "top_kast", "edge_popup")
# Methods that grow by the gradient, and the first update at which weights leave.
READS_GRADS = ("rigl", "srigl", "granet", "east", "neurrev")
FIRST = {"one_shot_magnitude": 4, "gradual_magnitude": 4, "gem_miner": 3}


@pytest.fixture(autouse=True)
def selected_keys(request: pytest.FixtureRequest) -> Any:
    # MultiSteps selects between old and new state, of which the key is the same: the
    # checker takes that for a second use. Around added noise, the key is in the state,
    # from which these tests take a step more than once.
    names = ("outer accumulating", "rigl inverted", "noise added")
    with jax.debug_key_reuse(not any(name in request.node.name for name in names)):
        yield


def through_files(leaf: Any) -> Any:
    """What a leaf is after it was written and read."""
    read = jnp.asarray(plain(leaf).copy())
    return jax.random.wrap_key_data(read) if rng.is_key(leaf) else read


def check_same_bits(got: Any, wanted: Any) -> None:
    for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert plain(leaf).tobytes() == plain(other).tobytes()


def placed(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (jax.typeof(leaf), leaf.sharding), tree)


def check_donation(run: Run) -> None:
    """No two leaves share what a donation deletes; nor is it the caller's."""
    params, state = run.start
    found = run.tx.init(params)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    places = list(map(plain_pointer, jax.tree.leaves(found)))
    assert len({*places}) == len(places)
    assert not {*places} & {*map(plain_pointer, jax.tree.leaves(params))}


def plain_pointer(leaf: jax.Array) -> int:
    data = jax.random.key_data(leaf) if rng.is_key(leaf) else leaf
    return data.unsafe_buffer_pointer()


def check_zeros(moment: Moment, latent: bool) -> None:
    """No bit is set outside the masks, in any copy that is computed with."""
    params, has = moment.after, kernels(moment.now.masks)
    copies = [transforms.forward_params(fast(params), moment.opt_state)]
    if not latent:
        both = isinstance(params, optax.LookaheadParams)
        copies += [*params] if both else [params]
    inner = method_runs.told(moment.now).state
    # Within a reparameterized optimizer it averages something else.
    averages = isinstance(inner, contrib.ScheduleFreeState) and not latent
    between = transforms.ReparameterizedState | transforms.ProjectedState
    if averages and not isinstance(moment.now.inner_state, between):
        copies.append(EVAL_PARAMS(inner, params))
    for copy in copies:
        for kernel, mask in zip(kernels(copy), has, strict=True):
            assert not kernel.view(f"uint{8 * kernel.itemsize}")[~mask].any()


def check_counts(method: str, update: int, held: Any) -> None:
    wanted = METHODS[method].counts(update)
    counts = tuple(int(mask.sum()) for mask in kernels(held))
    if not wanted:  # training decides
        assert 0 < sum(counts) < sum(methods.SIZES)
        return
    assert (counts if len(wanted) > 1 else (sum(counts),)) == wanted


def check_memory(method: str, optimizer: str, update: int, moment: Moment) -> None:
    """What the optimizer was handed: all it knew, but of weights that left or came."""
    rule, before, now, params = METHODS[method], *moment[:3]
    had, has = kernels(before.masks), kernels(now.masks)
    keep = [a & b for a, b in zip(had, has, strict=True)]
    gone = [~mask for mask in has]
    if rule.forgets is not None:
        forgotten = rule.forgets(update, had, kernels(fast(params)))
        keep = [a & ~b for a, b in zip(keep, forgotten, strict=True)]
        if rule.zeroes:
            gone = [a | b for a, b in zip(gone, forgotten, strict=True)]
    changed = any((a != b).any() for a, b in zip(keep, had, strict=True))
    by_shape = {mask.shape: mask for mask in keep}
    told = now.inner_state
    inner = method_pairs.INNER.get(optimizer, method_pairs.INNER["adam"])
    rests = update in rule.rests
    first = inner.init(method_runs.seen(method_runs.without(params, gone), optimizer))

    def check(path: Any, came: Any, was: Any, new: Any) -> None:
        kept = by_shape.get(came.shape, np.array(True))
        came, was, new = plain(came), plain(was), plain(new)
        wanted = np.where(kept, was, new)
        if not changed:  # whatever it remembers of weights that there are not
            came = np.where(kept, came, wanted)
        np.testing.assert_array_equal(came, wanted, str(path))

    jax.tree_util.tree_map_with_path(
        check,
        told.state if rests else told.handed,
        before.inner_state.state,
        first,
    )
    if rests:  # no step: weights stay, but of those that left or start from zero
        for old, new, out in zip(
            *(kernels(tree) for tree in (fast(params), fast(moment.after))),
            gone,
            strict=True,
        ):
            np.testing.assert_array_equal(new, np.where(out, 0, old))


def check_momentum(moment: Moment) -> None:
    """The step of SGD with momentum, from zero where weights came."""
    grads, had, has, weights, after = map(
        kernels,
        (moment.grads, moment.before.masks, moment.now.masks, *moment[2:4]),
    )
    old, new = (
        kernels(state.inner_state.state[0].trace)
        for state in (moment.before, moment.now)
    )
    for i, mask in enumerate(has):
        near = {"rtol": 1e-6 if i == 0 else 0.02, "atol": 1e-7 if i == 0 else 0.02}
        start = np.where(had[i] & mask, old[i], 0).astype(np.float32)
        trace = np.where(mask, grads[i].astype(np.float32) + 0.9 * start, 0)
        wanted = np.where(mask, np.where(had[i], weights[i], 0) - 0.01 * trace, 0)
        np.testing.assert_allclose(new[i].astype(np.float32)[mask], trace[mask], **near)
        np.testing.assert_allclose(after[i].astype(np.float32), wanted, **near)


def check_finite(params: Any, state: Any) -> None:
    for leaf in jax.tree.leaves((params, method_runs.told(find(state)).state)):
        assert not np.isnan(plain(leaf)).any()


def check_structure(structure: select.Structure, moments: list[Moment]) -> None:
    """Units stand or fall together, equally many in each row."""
    moved = 0
    for moment in moments:
        had, has = kernels(moment.before.masks), kernels(moment.now.masks)
        for before, mask in zip(had, has, strict=True):
            moved += int((before != mask).sum())
            view = select.units.to_units(structure, "a", jnp.asarray(mask))
            units = np.asarray(view)
            assert (units.all(axis=2) == units.any(axis=2)).all()
            in_row = units.all(axis=2).sum(axis=1)
            assert (in_row == in_row[0]).all()
    assert moved


def check_ever_active(moments: list[Moment]) -> None:
    """All weights that ever were in the masks are remembered, if any are."""
    union = [np.zeros_like(mask) for mask in kernels(moments[0].before.masks)]
    for moment in moments:
        for masks_then in (moment.before.masks, moment.now.masks):
            pairs = zip(union, kernels(masks_then), strict=True)
            union = [old | new for old, new in pairs]
        ever = kernels(transforms.ever_active(moment.opt_state))
        for got, wanted in zip(ever, union, strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert sum(mask.sum() for mask in union) > 36


def spoil(tree: Any, held: list[np.ndarray], value: float) -> Any:
    """Puts a number into the first weight of each kernel outside the masks."""

    def change(i: int, leaf: np.ndarray) -> np.ndarray:
        leaf.reshape(-1)[np.argmin(held[i])] = value
        return leaf

    return method_runs.with_kernels(tree, change)


def check_what_is_not_finite_chooses_nothing(method: str, run: Run) -> None:
    """At the first mask update, with the compiled program of the run."""
    latent, due = METHODS[method].latent, FIRST.get(method, 1)
    params, state, nothing = run.moments[due].args
    held, before = kernels(find(state).masks), int(find(state).skipped_updates)
    inside = [~mask for mask in held]
    (_, after), _ = run.step(spoil(params, inside, math.nan), state, nothing)
    assert (before, int(find(after).skipped_updates)) == (0, 1)
    check_same_bits(find(after).masks, find(state).masks)
    if latent:
        return
    reads = method.startswith(READS_GRADS)
    bad = spoil(nothing, held, math.inf)
    (params, after), _ = run.step(params, state, bad)
    found = find(after)
    assert int(found.skipped_updates) == reads
    for leaf in jax.tree.leaves((found.memory, fast(params) if reads else {})):
        assert np.isfinite(plain(leaf).astype(np.float32)).all()
    same = zip(held, kernels(found.masks), strict=True)
    assert all((a == b).all() for a, b in same) == reads
    if method.startswith("mest"):  # which drops by the gradient too
        (_, dropped), _ = run.step(
            *run.moments[due].args[:2], spoil(nothing, inside, math.nan)
        )
        assert int(find(dropped).skipped_updates) == 1
    if reads:  # the next change is made again
        for _ in range(3):
            (params, after), _ = run.step(params, after, nothing)
        assert int(find(after).skipped_updates) == 1
        same = zip(held, kernels(find(after).masks), strict=True)
        assert not all((a == b).all() for a, b in same)
        check_finite(params, after)


def check_laws(method: str, optimizer: str) -> None:
    run, latent = method_runs.follow(method, optimizer), METHODS[method].latent
    types = placed(run.start)
    for update, moment in enumerate(run.moments):
        check_zeros(moment, latent)
        assert placed((moment.after, moment.opt_state)) == types
        check_counts(method, update, moment.now.masks)
        check_finite(moment.after, moment.opt_state)
        rests = update in METHODS[method].rests
        if not rests and optimizer not in OUTER:  # the optimizer is told the loss
            assert float(method_runs.told(moment.now).value) == moment.value
        if not (latent or METHODS[method].reparameterized):
            check_memory(method, optimizer, update, moment)
        plain = not (METHODS[method].forgets or METHODS[method].reparameterized)
        if optimizer == "momentum" and not rests and plain:
            check_momentum(moment)
    again, _ = run.step(*jax.tree.map(through_files, run.moments[5].args))
    check_same_bits(again, (run.moments[5].after, run.moments[5].opt_state))
    if method in STRUCTURES:
        check_structure(STRUCTURES[method], run.moments)
    if transforms.tracks_exploration(run.moments[0].opt_state):
        check_ever_active(run.moments)
    still = method.startswith("fixed") or method == "straight_through gradual"
    if optimizer not in OUTER and not still:
        check_what_is_not_finite_chooses_nothing(method, run)
    assert len(run.traces) == 1


# A rigl of n_of_m is run in test_structures_layouts; the others are like rows that are
# run, and numpy does the same in test_self_sparse, _project and _reparameterize.
SELDOM = ("rigl n_of_m", "learned_threshold", "continuous_sparsification", "s_ste")
SELDOM += ("proximal_l1", "fixed powerpropagation", "chts")


@pytest.mark.parametrize(
    "method", [case(name, always=name not in SELDOM) for name in METHODS]
)
def test_laws_hold_after_every_update(method: str) -> None:
    optimizer = PAIRS[method]
    run = method_runs.follow(method, optimizer)
    if method in DONATED:
        check_donation(run)
    check_laws(method, optimizer)
    if method in method_choices.CHOICES:
        steps = [choice_steps.read(*each) for each in enumerate(run.moments)]
        method_choices.CHOICES[method](steps)
    if optimizer == "adafactor, factored":  # its memory of rows stays
        shapes = {leaf.shape for leaf in jax.tree.leaves(run.start[1])}
        assert (8,) in shapes


@pytest.mark.campaign
@pytest.mark.parametrize(("method", "optimizer"), OTHERS)
def test_laws_hold_for_all_other_pairs(method: str, optimizer: str) -> None:
    check_laws(method, optimizer)


@pytest.mark.parametrize("method", ["mest soft_bound", "top_kast"])
def test_checkpoints_hold_all_there_is(method: str, tmp_path: Path) -> None:
    """States of the runs above are those that a file gives back."""
    moment = method_runs.follow(method, PAIRS[method]).moments[4]
    state = TrainState(jnp.int32(5), moment.after, {}, moment.opt_state)
    checkpoints.save(tmp_path, "here", state)
    saved = checkpoints.load(tmp_path, "here", jax.tree.map(jnp.zeros_like, state))
    assert saved is not None
    check_same_bits(saved.state, state)


@pytest.mark.parametrize("method", [*LATENT, "rigl sign_in"])
def test_these_methods_refuse_lookahead(method: str) -> None:
    params = optax.LookaheadParams.init_synced(methods.make_params())
    tx = method_pairs.build(method, "lookahead")
    with pytest.raises(
        ValueError, match="^params: expected (plain|the weights) .*got LookaheadParams"
    ):
        tx.init(params)


@pytest.mark.parametrize("method", ["top_kast"])
def test_latent_methods_within_a_partition(method: str) -> None:
    # The method has no masks of the parameters that others take care of.
    tx, params = method_pairs.build(method, "outer partition"), methods.make_params()
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    check_counts(method, 0, transforms.get_masks(state))
    for held in (params, method_runs.seen(params, "outer partition")):
        shown = transforms.forward_params(held, state)
        for kernel, has in zip(kernels(shown), kernels(find(state).masks), strict=True):
            assert not kernel[~has].any()


@pytest.mark.parametrize("method", ["gradual_magnitude", "rigl", "top_kast"])
def test_types_settle_where_bfloat16_changes_them(method: str) -> None:
    """Traced only. These reach every way to make a state: steps, skips, latents."""
    (name,) = {*OPTIMIZERS} & {*LATE}
    tx, params = method_pairs.build(method, name), methods.make_params(dtype="bfloat16")
    state, types = jax.eval_shape(tx.init, params), []

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(3):
        params, state = jax.eval_shape(step, params, state)
        types.append(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state))
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    assert types[1] == types[2]
