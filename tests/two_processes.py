"""What two processes of two devices each must agree on; run by `test_multihost.py`."""

import io
import os
import sys
from pathlib import Path

os.environ.setdefault("NPROC", "32")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from jaxsparse import multihost  # noqa: E402
from jaxsparse.data.dataset import Examples  # noqa: E402
from jaxsparse.data.image_files import StoredImages  # noqa: E402
from jaxsparse.training import (  # noqa: E402
    checkpoints,
    chunk_inputs,  # noqa: E402
    chunk_plan,  # noqa: E402
    input_pipeline,
    mesh,
    placement,  # noqa: E402
    scan_chunks,
    state_sharding,
    workdir,
)
from jaxsparse.training.state import TrainState  # noqa: E402
from jaxsparse.training.steps import MetricSums  # noqa: E402

COUNT, SIZE = 44, 8


def check(fine: bool, what: str) -> None:
    """Ends this process, and with it the other, if something is wrong."""
    if not fine:
        sys.exit(f"process {jax.process_index()}: {what}")


def check_raises(kind: type[Exception], words: str, act: object) -> None:
    try:
        act()
    except kind as error:
        check(words in str(error), f"{error} without {words}")
    else:
        check(False, f"no {kind.__name__}")


def telling(folder: Path) -> None:
    """One finds out, all know, also what went wrong."""
    number = jax.process_index()
    check(
        multihost.broadcast_from_primary(lambda: {"said by": number}) == {"said by": 0},
        "not told",
    )
    long = "x" * 100_000
    check(
        multihost.broadcast_from_primary(lambda: long + str(number)) == long + "0",
        "not told all",
    )
    twice = multihost.broadcast_from_primary(
        lambda: multihost.broadcast_from_primary(lambda: number) + multihost.on_all(0)
    )
    check(twice == 1, "one that is asked asks others")
    check_raises(
        KeyError, "gone", lambda: multihost.broadcast_from_primary(lambda: {}["gone"])
    )

    class Odd(Exception):
        pass

    def odd() -> None:
        raise Odd("cannot travel")

    check_raises(
        RuntimeError,
        "Odd: cannot travel",
        lambda: multihost.broadcast_from_primary(odd),
    )
    multihost.on_primary(lambda: (folder / f"made_by_{number}").touch())
    check((folder / "made_by_0").exists(), "not done")
    check(not (folder / "made_by_1").exists(), "done twice")
    check(multihost.on_all(0) and not multihost.on_all(number or None), "no agreement")

    def one_fails() -> int:
        return 1 // (1 - number)

    kind = ZeroDivisionError if number else RuntimeError
    check_raises(kind, "", lambda: multihost.run_on_all(one_fails))


def placing() -> None:
    """Arrays and keys go to all devices, to other sets of them, and back."""
    layout = mesh.make_layout(replicates=4, batch_sizes=[8])
    few = mesh.make_layout(replicates=4, batch_sizes=[8], devices=2)
    check(dict(layout.mesh.shape) == {"replicate": 4, "data": 1}, "mesh")
    check(len({d.process_index for d in few.mesh.devices.flat}) == 2, "few")
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    placed = placement.shard_replicates(layout, {"a": values, "k": keys(4)})
    check(not placed["a"].is_fully_addressable, "all here")
    check(np.array_equal(multihost.to_host(placed["a"]), values), "fetched")
    moved = placement.shard_replicates(few, placed)
    check(moved["a"].sharding.device_set == set(few.mesh.devices.flat), "moved")
    check(np.array_equal(multihost.to_host(moved["a"]), values), "fetched after")
    words = [multihost.to_host(jax.random.key_data(k)) for k in (moved["k"], keys(4))]
    check(np.array_equal(*words), "keys")
    near = multihost.to_local(placed["a"])
    check(near.is_fully_addressable and np.array_equal(near, values), "near")


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


def note(state: TrainState, images: object, labels: object, **_: object) -> object:
    """A step that writes down a number of each example it sees."""
    seen = jnp.sum(jnp.square(images.astype(jnp.int32))) + jnp.sum(labels * 7)
    total = jax.lax.psum(seen, mesh.DATA)
    row = state.params["seen"].at[state.step].set(total)
    tally = MetricSums(jnp.float32(0), jnp.int32(0), jnp.int32(labels.size))
    return state._replace(step=state.step + 1, params={"seen": row}), tally


def feeding_alike() -> None:
    """Examples come the same wherever they are; a process looks at its own only."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 3, 1), np.uint8)
    examples = Examples(pixels, np.arange(COUNT, dtype=np.int32))
    layout = mesh.make_layout(replicates=2, batch_sizes=[SIZE, 4])
    found = {where: visit(examples, layout, where) for where in epoch_places()}
    for where, seen in found.items():
        check(np.array_equal(seen, found["device"]), f"{where} differs")
    # What the order says, by hand.
    orders = multihost.broadcast_from_primary(lambda: np.asarray(order(keys(2), 0)))
    rows = orders[:, :SIZE]
    squares = np.square(pixels.astype(np.int64)).sum((1, 2, 3))
    wanted = (squares[rows] + 7 * rows).sum(axis=1)
    check(np.array_equal(found["device"][:, 0], wanted), "not what the order says")


class Encoded:
    """Images in memory as files have them, which counts what is read."""

    paths = ()

    def __init__(self, pixels: np.ndarray) -> None:
        self.encoded, self.read_rows = [], []
        for image in pixels:
            into = io.BytesIO()
            Image.fromarray(image).save(into, "PNG")
            self.encoded.append(into.getvalue())

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, row: int) -> bytes:
        self.read_rows.append(row)
        return self.encoded[row]

    def name(self, row: int) -> str:
        return str(row)

    def parts(self) -> object:
        return iter([])


def decoding_alike() -> None:
    """Parts of images in files are those of one process, each decoded by one."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 9, 9, 3), np.uint8)
    source = Encoded(pixels)
    images = StoredImages(source, np.arange(COUNT), 4)
    examples = Examples(images, np.arange(COUNT, dtype=np.int32))
    layout = mesh.make_layout(replicates=2, batch_sizes=[SIZE, 4])
    seen = visit(examples, layout, "host")
    # Of two epochs of two replicates half, and of four steps that `visit` looks at.
    check(len(source.read_rows) == 2 * COUNT + 4 * SIZE, "others' images were read")
    orders = multihost.broadcast_from_primary(lambda: np.asarray(order(keys(2), 1)))
    words = np.asarray(jax.random.key_data(keys(2)))
    for r, rows in enumerate(orders):
        places = np.arange(SIZE, 2 * SIZE)
        mine = np.tile(words[r], (SIZE, 1))
        parts = images.crops(rows[places], words=mine, epoch=1, places=places)
        wanted = np.square(parts.astype(np.int64)).sum() + 7 * rows[places].sum()
        check(seen[r, 7] == wanted, "other pixels than those of one process")


def epoch_places() -> tuple[chunk_inputs.Where, ...]:
    return ("device", "sharded", "host")


def order(some: jax.Array, number: int) -> jax.Array:
    draw = jax.vmap(lambda key: jax.random.permutation(key, COUNT))
    return draw(jax.vmap(jax.random.fold_in, (0, None))(some, number))


def visit(
    examples: Examples, layout: mesh.MeshLayout, where: chunk_inputs.Where
) -> np.ndarray:
    fresh = TrainState(jnp.int32(0), {"seen": jnp.zeros((2, 12), jnp.int32)}, {}, ())
    programs = scan_chunks.make_chunk_fns(
        note, fresh, layout=layout, how="vmap", usual_length=4, examples=where
    )
    feed = input_pipeline.make_feed(
        examples,
        lambda some, number: placement.shard_replicates(layout, order(some, number)),
        layout=layout,
        where=where,
        lengths=lambda length: chunk_plan.room(length, 4),
    )
    if where == "host":
        call = chunk_plan.ScanChunk(0, 4, 0, 0, SIZE)
        words = np.asarray(jax.random.key_data(keys(2)))
        parts = feed.gather(np.tile(np.arange(COUNT), (2, 1)), call, words=words)
        check(len(parts) == 2, "parts of devices that are not here")
        check(parts[0].images.shape[:3] == (1, 4, SIZE // 2), "more than its share")
    calls = chunk_plan.plan(
        0,
        12,
        epoch=chunk_plan.EpochSpec(6, SIZE, 4),
        steps_per_call=4,
        evaluate_every=5,
    )
    state = state_sharding.shard_state(layout, fresh)
    placed = placement.shard_replicates(layout, keys(2))
    for call, data in feed.iterate(keys(2), calls):
        state, tally = programs(call.length, call.batch_size)(state, data, placed)
        jax.block_until_ready(tally)
        check(tally.predictions.is_fully_replicated, "tallies cannot be read")
    return multihost.to_host(state.params["seen"])


def saving(folder: Path) -> None:
    """A checkpoint is saved by both, loaded by both, and put aside by one."""
    layout = mesh.make_layout(replicates=2, batch_sizes=[8])
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    fresh = TrainState(jnp.int32(3), {"w": jnp.asarray(weights)}, {}, ())
    placed = state_sharding.to_checkpoint_layout(layout, fresh)
    checkpoints.save(folder, "a/last", placed)
    saved = checkpoints.load(folder, "a/last", placed)
    check(saved is not None and int(saved.state.step) == 3, "not loaded")
    check(
        np.array_equal(multihost.to_host(saved.state.params["w"]), weights),
        "other bits",
    )
    other = fresh._replace(params={"w": -fresh.params["w"]})
    again = state_sharding.to_checkpoint_layout(layout, other)
    check_raises(
        ValueError,
        "expected the bits",
        lambda: checkpoints.save(folder, "a/last", again),
    )
    multihost.on_primary(
        lambda: [path.unlink() for path in (folder / "a/last").rglob("d/*")]
    )
    check(checkpoints.load(folder, "a/last", placed) is None, "loaded what is gone")
    aside = multihost.broadcast_from_primary(
        lambda: sorted(p.name for p in (folder / "a").iterdir())
    )
    check("last.corrupt-0" in aside and "last" not in aside, f"not aside: {aside}")


def sharing(folder: Path) -> None:
    """A folder that only the first has is no place for a run."""
    alone = folder / "alone.json"
    multihost.on_primary(alone.touch)
    workdir.check_shared(alone)
    hidden = alone if multihost.is_primary() else folder / "elsewhere" / "alone.json"
    workdir.SECONDS_BEHIND = 0
    check_raises(ValueError, "one folder", lambda: workdir.check_shared(hidden))


if __name__ == "__main__":
    multihost.initialize()
    check(jax.process_count() == 2 and len(jax.devices()) == 4, "not joined")
    telling(Path(sys.argv[1]))
    placing()
    feeding_alike()
    decoding_alike()
    saving(Path(sys.argv[1]) / "checkpoints")
    sharing(Path(sys.argv[1]))
