"""Calls of an epoch: where they begin and end, and what their programs visit."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case
from hypothesis import strategies as st

from jaxsparse.data import shuffling
from jaxsparse.data.dataset import Examples
from jaxsparse.training import (
    chunk_plan,
    input_pipeline,
    mesh,
    placement,
    scan_chunks,
    state_sharding,
)
from jaxsparse.training.chunk_inputs import ChunkInputs
from jaxsparse.training.chunk_plan import EpochSpec, ScanChunk
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums

pytestmark = pytest.mark.keys_used_once


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    batch_size = draw(st.integers(1, 9))
    return {
        "epoch": EpochSpec(
            draw(st.integers(1, 12)), batch_size, draw(st.integers(1, batch_size))
        ),
        "steps_per_call": draw(st.integers(1, 15)),
        "evaluate_every": draw(st.integers(0, 15)),
    }


@hypothesis.given(plans(), st.integers(0, 50), st.integers(0, 50))
def test_calls_join_without_gaps_and_visit_the_right_batches(
    settings: dict, start: int, length: int
) -> None:
    per_epoch = settings["epoch"]
    step = start
    for call in chunk_plan.plan(start, start + length, **settings):
        assert call.step == step
        assert 1 <= call.length <= settings["steps_per_call"]
        for _ in range(call.length):
            number, within = divmod(step, per_epoch.steps)
            last = within == per_epoch.steps - 1
            size = per_epoch.last_batch if last else per_epoch.batch_size
            first = call.first + (step - call.step) * call.batch_size
            assert (call.epoch, call.batch_size) == (number, size)
            assert first == within * per_epoch.batch_size
            step += 1
    assert step == start + length


@hypothesis.given(plans(), st.integers(0, 50), st.integers(0, 50))
def test_ends_do_not_depend_on_the_start(
    settings: dict, start: int, length: int
) -> None:
    stop = start + length

    def ends(begin: int) -> list[int]:
        calls = chunk_plan.plan(begin, stop, **settings)
        return [call.step + call.length for call in calls]

    assert ends(start) == [end for end in ends(0) if end > start]
    for step in ends(0):
        if step >= start:
            resumed = list(chunk_plan.plan(step, stop, **settings))
            every = list(chunk_plan.plan(start, stop, **settings))
            assert resumed == [call for call in every if call.step >= step]


@hypothesis.given(plans(), st.integers(1, 60))
def test_calls_end_at_epochs_and_evaluations(settings: dict, stop: int) -> None:
    calls = list(chunk_plan.plan(0, stop, **settings))
    ends = {call.step + call.length for call in calls}
    assert ends >= set(range(0, stop, settings["epoch"].steps)) - {0}
    if settings["evaluate_every"]:
        assert ends >= set(range(0, stop, settings["evaluate_every"])) - {0}


def test_a_plan_by_hand() -> None:
    calls = list(
        chunk_plan.plan(
            3, 14, epoch=EpochSpec(7, 10, 4), steps_per_call=4, evaluate_every=5
        )
    )
    assert calls == [
        ScanChunk(3, 1, 0, 30, 10),
        ScanChunk(4, 1, 0, 40, 10),
        ScanChunk(5, 1, 0, 50, 10),
        ScanChunk(6, 1, 0, 60, 4),
        ScanChunk(7, 3, 1, 0, 10),
        ScanChunk(10, 1, 1, 30, 10),
        ScanChunk(11, 2, 1, 40, 10),
        ScanChunk(13, 1, 1, 60, 4),
    ]


LAYOUTS = [(2, 1, "jit"), (1, 4, "jit"), (4, 4, "jit"), (1, 4, "pmap"), (4, 4, "pmap")]
ALWAYS = [(True, 2, 1, "jit"), (False, 1, 4, "jit"), (False, 1, 4, "pmap")]


def count_visits(
    state: TrainState, images: Any, labels: Any, *, batch_size: int, **rest: Any
) -> tuple[TrainState, MetricSums]:
    """A training step that only counts which examples it saw."""
    seen = state.params["seen"].at[labels].add(1)
    tally = MetricSums(jnp.float32(0), jnp.int32(0), jnp.int32(labels.size))
    return state._replace(step=state.step + 1, params={"seen": seen}), tally


@jax.jit
def draw_orders(keys: Any, number: Any) -> Any:
    draw = functools.partial(shuffling.epoch_order, epoch=number, examples=44)
    return jax.vmap(draw)(keys)


@pytest.mark.parametrize(
    ("drop_last", "replicates", "devices", "parallelism"),
    [
        case(drop_last, *layout, always=(drop_last, *layout) in ALWAYS)
        for layout in LAYOUTS
        for drop_last in (False, True)
    ],
)
def test_an_epoch_sees_every_example_once_and_never_twice(
    drop_last: bool, replicates: int, devices: int, parallelism: str
) -> None:
    examples, size = 44, 8
    count = shuffling.steps_per_epoch(examples, batch_size=size, drop_last=drop_last)
    last = size if drop_last else examples - (count - 1) * size
    layout = mesh.make_layout(
        replicates=replicates,
        batch_sizes=[size, last],
        parallelism=parallelism,
        devices=devices,
    )
    seen = jnp.zeros((replicates, examples), jnp.int32)
    fresh = TrainState(jnp.int32(0), {"seen": seen}, {}, ())
    programs = scan_chunks.make_chunk_fns(
        count_visits, fresh, layout=layout, how="vmap"
    )
    keys = jax.random.split(jax.random.key(0), replicates)
    orders = [draw_orders(keys, epoch) for epoch in range(2)]
    data = placement.replicate(
        layout, (np.zeros((examples, 1)), np.arange(examples, dtype=np.int32))
    )
    state = state_sharding.shard_state(layout, jax.tree.map(jnp.copy, fresh))
    visits = Counter()
    for call in chunk_plan.plan(
        0,
        2 * count,
        epoch=EpochSpec(count, size, last),
        steps_per_call=4,
        evaluate_every=0,
    ):
        state, tally = programs(call.length, call.batch_size)(
            state,
            ChunkInputs(
                *data,
                placement.shard_replicates(layout, orders[call.epoch]),
                jnp.int32(call.first),
            ),
            placement.shard_replicates(layout, keys),
        )
        visits[call.epoch] += int(np.sum(np.asarray(tally.predictions).reshape(-1)))
    seen = np.asarray(sharding_sum(layout, state))
    for r in range(replicates):
        wanted = np.zeros(examples, int)
        for rows in orders:
            wanted[np.asarray(rows)[r, : (count - 1) * size + last]] += 1
        np.testing.assert_array_equal(seen[r], wanted)
    if not drop_last:
        np.testing.assert_array_equal(seen, 2)


@pytest.mark.parametrize("devices", [1, 2])
def test_growth_sees_exactly_the_rows_asked_for(devices: int) -> None:
    def look(state: TrainState, images: Any, labels: Any, **extra: Any) -> Any:
        del images, labels
        seen = {"seen": extra["growth"][1]}
        return state._replace(params=seen), MetricSums(*[jnp.int32(0)] * 3)

    layout = mesh.make_layout(
        replicates=1, batch_sizes=[8], parallelism="jit", devices=devices
    )
    fresh = TrainState(jnp.int32(0), {"seen": jnp.zeros((1, 5), jnp.int32)}, {}, ())
    programs = scan_chunks.make_chunk_fns(look, fresh, layout=layout, how="vmap")
    labels = np.arange(44, dtype=np.int32)
    examples = Examples(np.zeros((44, 1, 1, 1), np.uint8), labels)
    data = placement.replicate(layout, tuple(examples))
    growth = input_pipeline.grow_batch_size(layout, examples, first=7, count=5)
    key = jax.random.split(jax.random.key(0), 1)
    order = jnp.arange(44, dtype=jnp.int32)[None]
    state, _ = programs(2, 8)(
        state_sharding.shard_state(layout, fresh),
        ChunkInputs(*data, order, jnp.int32(0), growth),
        key,
    )
    np.testing.assert_array_equal(state.params["seen"], [labels[7:12]])


def sharding_sum(layout: mesh.MeshLayout, state: TrainState) -> Any:
    """Visits of each replicate; under pmap over data each device saw its share."""
    seen = np.asarray(state.params["seen"])
    if layout.mapped and layout.data_devices > 1:
        return seen.sum(axis=0)
    if layout.data_devices > 1:
        return sum(np.asarray(s.data) for s in state.params["seen"].addressable_shards)
    return np.asarray(state_sharding.gather_state(layout, state).params["seen"])


def test_scans_in_other_chunks_are_equal_in_every_bit(bench: Callable) -> None:
    made = bench(replicates=2)
    whole, one = made.train([(12, 20)])
    for calls in ([(6, 20), (6, 20)], [(1, 20)] * 6 + [(6, 20)]):
        parts, many = made.train(calls)
        tiny.check_equal(parts, whole)
        for name in MetricSums._fields:
            joined = np.concatenate([getattr(tally, name) for tally in many])
            np.testing.assert_array_equal(joined, getattr(one[0], name))


@pytest.mark.parametrize(
    ("devices", "parallelism"),
    [
        case(1, "jit", always=True),
        case(2, "jit", always=False),
        case(2, "pmap", always=True),
    ],
)
def test_calls_that_end_early_share_a_program_and_change_no_bit(
    bench: Callable, devices: int, parallelism: str
) -> None:
    across = {"replicates": 2, "devices": devices, "parallelism": parallelism}
    whole, one = bench(**across).train([(12, 20)])
    made = bench(**across, usual_length=12)
    early = {made.programs(length, 20).args[0] for length in (1, 5, 11)}
    assert len(early) == 1
    assert made.programs(12, 20).args[0] not in early
    parts, many = made.train([(5, 20), (1, 20), (6, 20)])
    tiny.check_equal(parts, whole)
    for name in MetricSums._fields:
        kept = zip(many, (5, 1, 6), strict=True)
        joined = np.concatenate([getattr(tally, name)[:n] for tally, n in kept])
        np.testing.assert_array_equal(joined, getattr(one[0], name))
        rest = [getattr(t, name)[n:] for t, n in zip(many, (5, 1, 6), strict=True)]
        assert not any(np.any(leaf) for leaf in rest)


def test_programs_are_made_once_and_state_is_taken_over(bench: Callable) -> None:
    made = bench(replicates=2)
    assert made.programs(12, 20).args == made.programs(12, 20).args
    state = state_sharding.shard_state(made.layout, jax.tree.map(jnp.copy, made.fresh))
    leaf = state.params["head"]["kernel"]
    data = ChunkInputs(*made.data, made.orders, jnp.int32(0))
    made.programs(12, 20)(state, data, made.keys)
    assert leaf.is_deleted()
    assert not made.fresh.params["head"]["kernel"].is_deleted()
