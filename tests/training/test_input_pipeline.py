"""Examples from the host and from the devices: the same batches, and the same runs."""

import functools
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import case

from jaxsparse import factory
from jaxsparse.data import shuffling
from jaxsparse.data.dataset import Examples
from jaxsparse.factory import size_checks
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.training import (
    chunk_inputs,
    chunk_plan,
    input_pipeline,
    mesh,
    placement,
    preemption,
    scan_chunks,
    state_sharding,
)
from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums

COUNT, SIZE = 44, 8  # five full batches and one of four
LAYOUTS = [(2, 1, "jit"), (1, 4, "jit"), (4, 4, "jit"), (2, 4, "jit")]
LAYOUTS += [(1, 4, "pmap"), (4, 4, "pmap")]
# Both axes of the mesh, and a batch divided under pmap.
ALWAYS = [(2, 4, "jit"), (1, 4, "pmap")]


def examples() -> Examples:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 3, 1), np.uint8)
    return Examples(pixels, np.arange(COUNT, dtype=np.int32))


def note(state: TrainState, images: Any, labels: Any, *, places: Any, **_: Any) -> Any:
    """A training step that writes down what it saw, where in which batch."""
    pixels = images.reshape(len(images), -1).astype(jnp.int32)
    row = (state.step, places)
    seen = {
        "labels": state.params["labels"].at[row].set(labels),
        "pixels": state.params["pixels"].at[row].set(pixels),
    }
    tally = MetricSums(jnp.float32(0), jnp.int32(0), jnp.int32(labels.size))
    return state._replace(step=state.step + 1, params=seen), tally


@jax.jit
def draw_orders(keys: Any, number: Any) -> Any:
    draw = functools.partial(shuffling.epoch_order, epoch=number, examples=COUNT)
    return jax.vmap(draw)(keys)


def visit(
    where: chunk_inputs.Where,
    replicates: int,
    devices: int,
    parallelism: str,
    start: int = 0,
) -> dict[str, np.ndarray]:
    """What all steps of two epochs saw, [r s b ...]; -1 for nothing."""
    layout = mesh.make_layout(
        replicates=replicates,
        batch_sizes=[SIZE, 4],
        parallelism=parallelism,
        devices=devices,
    )
    shape = (replicates, 12, SIZE)
    seen = {"labels": jnp.full(shape, -1), "pixels": jnp.full((*shape, 6), -1)}
    fresh = TrainState(jnp.int32(start), seen, {}, ())
    programs = scan_chunks.make_chunk_fns(
        note, fresh, layout=layout, how="vmap", usual_length=4, examples=where
    )

    def make_order(keys: Any, number: int) -> Any:
        return placement.shard_replicates(layout, draw_orders(keys, number))

    feed = input_pipeline.make_feed(
        examples(),
        make_order,
        layout=layout,
        where=where,
        lengths=lambda length: chunk_plan.room(length, 4),
    )
    keys = jax.random.split(jax.random.key(0), replicates)
    calls = chunk_plan.plan(
        start, 12, epoch=EpochSpec(6, SIZE, 4), steps_per_call=4, evaluate_every=5
    )
    state = state_sharding.shard_state(layout, fresh)
    placed = placement.shard_replicates(layout, keys)
    for call, data in feed.iterate(keys, calls):
        state, tally = programs(call.length, call.batch_size)(state, data, placed)
        jax.block_until_ready(tally)
    # Each device wrote down its share, and left the rest at -1.
    parts = jax.tree.map(
        lambda leaf: [np.asarray(shard.data) for shard in leaf.addressable_shards],
        state.params,
    )
    found: dict[str, np.ndarray] = {}
    for name, shards in parts.items():
        if parallelism == "pmap":
            shards = [shard[0] for shard in shards]
        groups = layout.mesh.shape[mesh.REPLICATE]
        own = [
            np.max(shards[first : first + layout.data_devices], axis=0)
            for first in range(0, layout.mesh.size, layout.data_devices)
        ]
        assert len(own) == groups
        found[name] = np.concatenate(own)
    return found


@pytest.mark.parametrize(
    ("replicates", "devices", "parallelism"),
    [case(*layout, always=layout in ALWAYS) for layout in LAYOUTS],
)
def test_streamed_batches_are_those_gathered_on_the_devices(
    replicates: int, devices: int, parallelism: str
) -> None:
    layout = (replicates, devices, parallelism)
    streamed, resident = visit("host", *layout), visit("device", *layout)
    for name, seen in resident.items():
        np.testing.assert_array_equal(streamed[name], seen)
        if devices > replicates:
            divided = visit("sharded", *layout)
            np.testing.assert_array_equal(divided[name], seen)
    # And both are what the order says.
    every = examples()
    keys = jax.random.split(jax.random.key(0), replicates)
    orders = [np.asarray(draw_orders(keys, epoch)) for epoch in (0, 1)]
    for r in range(replicates):
        for step in range(12):
            rows = orders[step // 6][r, step % 6 * SIZE :][:SIZE]
            labels = resident["labels"][r, step]
            np.testing.assert_array_equal(labels[: len(rows)], rows)
            assert (labels[len(rows) :] == -1).all()
            pixels = every.images[rows].reshape(len(rows), -1)
            np.testing.assert_array_equal(
                resident["pixels"][r, step, : len(rows)], pixels
            )


def test_a_stream_begins_where_it_is_asked_to() -> None:
    # At 4, where an earlier call ended.
    whole, rest = visit("host", 2, 1, "jit"), visit("host", 2, 1, "jit", start=4)
    for name, seen in rest.items():
        np.testing.assert_array_equal(seen[:, 4:], whole[name][:, 4:])
        assert (seen[:, :4] == -1).all()


FIELDS = {
    "lottery.levels": 1,
    "data.crop_pad": 1,
    "data.flip": True,
    "data.validation": 0,
    "run.steps_per_call": 8,  # all calls end early, and share a program
    "model.features": (12,),
}
PRETRAINING = {
    "lottery.rewind": "4step",
    "pretraining.subset": "random",
    "pretraining.size": 60,
}


PMAP = {"run.parallelism": "pmap", "run.devices": 2, "replicates": 1}
PMAP |= {"lottery.levels": 0, "data.crop_pad": 0, "data.flip": False}


@pytest.mark.parametrize(
    "fields",
    [
        case({}, always=False),
        case({"run.devices": 4}, always=False),
        PMAP,
        {
            "lottery.levels": 0,
            "data.downsample": 2,
            "sparse.method": "rigl",
            "sparse.sparsity": 0.5,
            "sparse.update_every": "2step",
            "sparse.end_step": "8step",
            "sparse.grow_batch_size": 30,
            "sparse.grow_batch_start": 10,
        },
        case(PRETRAINING, always=False),
        case(PRETRAINING | {"run.devices": 4}, always=False),
    ],
    ids=["one", "four", "pmap", "growth", "pretraining", "pretraining-four"],
)
def test_a_streamed_run_ends_as_one_on_the_device(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    ends = []
    # That examples divided over devices come alike is proved above, without runs.
    divides = fields == {"run.devices": 4}
    for where in ("device", "host", "sharded") if divides else ("device", "host"):
        own = FIELDS | fields | {"run.data_placement": where}
        made = train(tmp_path / where, own)
        kind = input_pipeline.HostFeed if where == "host" else input_pipeline.DeviceFeed
        assert isinstance(made.trainer.feed, kind)
        if made.pretrainer is not None:
            assert isinstance(made.pretrainer.feed, kind)
        level = own["lottery.levels"]
        stage = f"level_{level:02d}/ticket" if level else "train"
        last = tiny.load(tmp_path / where, f"{stage}/last", made)
        ends.append((last.params, last.opt_state, metrics(tmp_path / where)))
    for other in ends[1:]:
        tiny.check_equal(ends[0][:2], other[:2])
        assert ends[0][2] == other[2]


def train(folder: Path, fields: dict[str, Any]) -> Experiment:
    c = tiny.config(fields)
    made = factory.make_experiment(c, factory.load_data(c), folder)
    run_lib.run(made, tiny.desk(folder))
    return made


def metrics(folder: Path) -> list[str]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if '"kind": "timing"' not in line]


@pytest.mark.campaign
def test_a_streamed_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    fields = FIELDS | {"run.data_placement": "host", "run.checkpoint_every": "4step"}
    made = tiny.run(tmp_path / "whole", fields)
    asked = iter([False, False, True])
    with pytest.raises(preemption.Preempted):
        made_again = tiny.experiment(tmp_path / "cut", fields)
        desk = tiny.desk(tmp_path / "cut", lambda: next(asked, True))
        run_lib.run(made_again, desk)
    tiny.run(tmp_path / "cut", fields)
    name = "level_01/ticket/last"
    tiny.check_equal(
        *(tiny.load(tmp_path / folder, name, made) for folder in ("whole", "cut"))
    )


def test_a_run_divides_or_streams_by_itself_a_set_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two devices for each of two replicates.
    c = tiny.config({"run.steps_per_call": 4, "run.devices": 4})
    data = factory.load_data(c)
    size = data.train.images.nbytes
    # Room for the weights, which are larger than these images.
    monkeypatch.setattr(size_checks, "local_memory", lambda layout: 2**40)
    for limit, kind, where in (
        (None, input_pipeline.DeviceFeed, None),
        (4 * size, input_pipeline.DeviceFeed, None),
        (4 * size - 4, input_pipeline.DeviceFeed, "sharded"),
        (2 * size, input_pipeline.DeviceFeed, "sharded"),
        (2 * size - 4, input_pipeline.HostFeed, "host"),
    ):
        monkeypatch.setattr(mesh, "memory", lambda device, limit=limit: limit)
        made = factory.make_experiment(c, data, tmp_path)
        assert isinstance(made.trainer.feed, kind)
        assert made.trainer.execution_plan.get("examples") == where


def test_streamed_calls_have_so_many_steps_as_fit_their_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = lambda **more: input_pipeline.steps_per_call(  # noqa: E731
        examples(), **({"wanted": 100, "batch_size": 8, "replicates": 3} | more)
    )
    assert count() == 100
    step = 6 * 8 * 3  # bytes of the images
    monkeypatch.setattr(input_pipeline, "BUDGET", 5 * step)
    assert (count(), count(wanted=4), count(replicates=1)) == (5, 4, 15)
    monkeypatch.setattr(input_pipeline, "BUDGET", step - 1)
    assert count() == 1
    monkeypatch.setattr(input_pipeline, "BUDGET", 2 * 64 * 20 * 2)
    c = tiny.config({"run.data_placement": "host"})
    made = factory.make_experiment(c, factory.load_data(c), tmp_path)
    assert made.trainer.loop.steps_per_call == 2


def test_a_stream_that_is_left_or_fails_leaves_no_thread() -> None:
    layout = mesh.make_layout(replicates=1, batch_sizes=[SIZE], devices=1)
    rows = np.arange(COUNT, dtype=np.int32)[None]
    calls = [chunk_plan.ScanChunk(i, 1, 0, i * SIZE, SIZE) for i in range(5)]

    def feed(labels: Any) -> Any:
        some = Examples(examples().images, labels)
        stream = input_pipeline.HostFeed(
            some, lambda *_: rows, layout, lambda length: length
        )
        return stream.iterate(jax.random.split(jax.random.key(0), 1), calls)

    before = threading.active_count()
    left = feed(examples().labels)
    next(left)
    left.close()
    with pytest.raises(IndexError):
        list(feed(examples().labels[:3]))
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_a_set_that_does_not_fit_is_streamed() -> None:
    class Device:
        def __init__(self, limit: int | None) -> None:
            self.limit = limit

        def memory_stats(self) -> dict[str, int] | None:
            return None if self.limit is None else {"bytes_limit": self.limit}

    class Mesh:
        def __init__(self, *limits: int | None) -> None:
            self.local_devices = [Device(limit) for limit in limits]
            self.shape = {mesh.DATA: len(limits)}

    nbytes = examples().images.nbytes
    choose = lambda *limits: input_pipeline.choose(  # noqa: E731
        examples(), mesh.MeshLayout(Mesh(*limits), "jit", 1)
    )
    for limits in ((None, None), (4 * nbytes, 9 * nbytes), (None, 4 * nbytes)):
        assert choose(*limits) == "device"
    for limits in ((4 * nbytes - 1, 9 * nbytes), (2 * nbytes, 2 * nbytes)):
        assert choose(*limits) == "sharded"
    assert choose(2 * nbytes - 2, 9 * nbytes) == "host"
    assert choose(4 * nbytes - 1) == "host"


def test_examples_cannot_be_divided_over_one_device(tmp_path: Path) -> None:
    c = tiny.config({"run.data_placement": "sharded"})
    with pytest.raises(ValueError, match="config.run.data_placement: .*where no two"):
        factory.make_experiment(c, factory.load_data(c), tmp_path)


def test_examples_may_be_mapped_from_a_file(tmp_path: Path) -> None:
    every = examples()
    np.save(tmp_path / "images.npy", every.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    layout = mesh.make_layout(replicates=1, batch_sizes=[SIZE], devices=1)
    feed = input_pipeline.HostFeed(
        every._replace(images=mapped), lambda *_: None, layout, lambda length: length
    )
    rows = np.random.default_rng(1).permutation(COUNT)[None]
    (batch,) = feed.gather(rows, chunk_plan.ScanChunk(1, 2, 0, SIZE, SIZE))
    wanted = every.images[rows[0, SIZE : 3 * SIZE]].reshape(1, 2, SIZE, 2, 3, 1)
    np.testing.assert_array_equal(batch.images, wanted)
