"""Checkpoints: exact, atomic, and refused where they do not fit."""

import errno
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from orbax.checkpoint import v1 as ocp

from jaxsparse import config, rng
from jaxsparse.training import checkpoints, workdir
from jaxsparse.training.checkpoints import packing
from jaxsparse.training.state import TrainState

NAME = "level_03/ticket/last"


@pytest.fixture
def state(bench: Callable) -> TrainState:
    return bench("conv_norm", replicates=2).fresh


def blank(state: TrainState) -> TrainState:
    def zero(leaf: Any) -> Any:
        if rng.is_key(leaf):
            return jax.random.clone(leaf)
        return jnp.zeros_like(leaf)

    return jax.tree.map(zero, state)


def sparse(state: TrainState) -> TrainState:
    """The state with zeros in most weights, and values that are easily lost."""

    def thin(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.ndim < 3:
            return leaf
        place = np.arange(leaf.size).reshape(leaf.shape)
        values = np.where(place % 9 == 0, np.asarray(leaf), 0)
        values = np.where(place == 1, -0.0, values)
        return jnp.asarray(np.where(place == 2, np.nan, values), leaf.dtype)

    return state._replace(params=jax.tree.map(thin, state.params))


def test_packed_states_are_loaded_bit_for_bit(
    tmp_path: Path, state: TrainState
) -> None:
    thinned = sparse(state)
    checkpoints.save(tmp_path, NAME, thinned, {"a": 1}, packed=True)
    checkpoints.save(tmp_path, "whole", thinned)
    loaded = checkpoints.load(tmp_path, NAME, blank(state))
    assert loaded is not None and loaded.extra == {"a": 1}
    assert checkpoints.digest(loaded.state) == checkpoints.digest(thinned)
    assert jax.tree.structure(loaded.state) == jax.tree.structure(state)
    for leaf, like in zip(
        jax.tree.leaves(loaded.state), jax.tree.leaves(state), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
    whole = checkpoints.load(tmp_path, "whole", blank(state))
    assert whole is not None
    assert checkpoints.digest(whole.state) == checkpoints.digest(thinned)


def test_a_packed_state_takes_the_bytes_of_its_bits_and_values() -> None:
    weights = jnp.zeros((40, 100)).at[:, ::10].set(1.5)
    tree = {"w": weights, "mask": weights != 0, "dense": jnp.ones(8), "n": jnp.int32(3)}
    tree["half"] = weights.astype(jnp.bfloat16)
    packed = packing.pack(tree)
    sizes = {name: array.nbytes for name, array in packed.items()}
    assert sizes["w:bits"] == sizes["mask:bits"] == sizes["half:bits"] == 500
    assert sizes["w:values"] == 4 * 400 and sizes["half:values"] == 2 * 400
    assert sizes["dense"] == 32 and sizes["n"] == 4
    assert not {"w", "mask", "half", "dense:bits"} & set(sizes)


def test_leaves_of_a_packed_state_may_have_almost_any_name(tmp_path: Path) -> None:
    tree = {name: jnp.ones((3, 4)) for name in ("file", "args", "allow_pickle", "a:b")}
    tree["a"] = {":bits": jnp.zeros(100)}
    packing.save(tmp_path, tree)
    tiny.check_equal(packing.load(tmp_path, jax.tree.map(jnp.zeros_like, tree)), tree)
    for end in ("bits", "shape", "values", "dtype"):
        with pytest.raises(ValueError, match=f"got 'w:{end}' beside 'w'; rename"):
            packing.pack({"w": jnp.zeros(100), f"w:{end}": jnp.ones(2)})


def test_a_damaged_packed_state_is_set_aside(
    tmp_path: Path, state: TrainState, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / NAME / packing.FILE
    checkpoints.save(tmp_path, NAME, state, packed=True)
    with np.load(file) as packed:
        arrays = dict(packed)
    name = next(name for name, array in arrays.items() if array.dtype == np.float32)
    arrays[name] = arrays[name] * 2
    np.savez(file, **arrays)
    assert checkpoints.load(tmp_path, NAME, blank(state)) is None
    assert "corrupt" in caplog.text and "moved to" in caplog.text


def test_what_is_saved_is_loaded_exactly(tmp_path: Path, state: TrainState) -> None:
    extra = {"sums": [[0.1, 2.5], [3, 4], [5, 6]], "seconds": 1.5}
    checkpoints.save(tmp_path, NAME, state, extra)
    assert checkpoints.exists(tmp_path, NAME)
    assert checkpoints.recorded_hash(tmp_path, NAME) == checkpoints.digest(state)
    saved = checkpoints.load(tmp_path, NAME, blank(state))
    assert saved is not None
    tiny.check_equal(saved.state, state)
    assert saved.extra == extra
    assert saved.state.opt_state.masks["head"]["bias"] is None
    assert saved.state.opt_state.key is None  # fixed masks draw nothing


def test_nothing_there_is_no_warning(
    tmp_path: Path, state: TrainState, caplog: pytest.LogCaptureFixture
) -> None:
    assert checkpoints.load(tmp_path, NAME, state) is None
    assert not checkpoints.exists(tmp_path, NAME)
    assert checkpoints.recorded_hash(tmp_path, NAME) is None
    assert not caplog.records


def test_a_half_written_one_is_passed_over_by_name(
    tmp_path: Path, state: TrainState, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    (tmp_path / f"{NAME}.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load(tmp_path, NAME, state) is None
    assert not checkpoints.exists(tmp_path, NAME)
    (record,) = caplog.records
    assert f"{tmp_path / NAME}: half-written; passed over" in record.getMessage()
    checkpoints.save(tmp_path, NAME, state)
    assert checkpoints.load(tmp_path, NAME, state) is not None


NOTES = [
    "",
    "{",
    "[1]",
    "null",
    '{"step": 3}',
    '{"hash": "0"}',
    '{"hash": 1, "extra": {}}',
]


@pytest.mark.parametrize("note", NOTES)
def test_a_damaged_note_costs_no_weights(
    tmp_path: Path, state: TrainState, caplog: pytest.LogCaptureFixture, note: str
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    (tmp_path / f"{NAME}.json").write_text(note)
    assert not checkpoints.exists(tmp_path, NAME)
    with pytest.raises(
        checkpoints.CorruptFile, match=r"last: corrupt \(its metadata last.json"
    ):
        checkpoints.read(tmp_path, NAME, state)
    # Whoever saves anew, having loaded before or not, puts the weights aside.
    for number, loads in enumerate([True, False]):
        weights = everything(tmp_path / NAME)
        if loads:
            assert checkpoints.load(tmp_path, NAME, state) is None
            assert "passed over, and moved to last.corrupt-0" in caplog.text
        checkpoints.save(tmp_path, NAME, state)
        assert checkpoints.read(tmp_path, NAME, state) is not None
        aside = tmp_path / f"{NAME}.corrupt-{number}"
        assert everything(aside) == weights
        (tmp_path / f"{NAME}.json").write_text(note)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        ValueError("PERMISSION_DENIED: Error opening [OS error 13: EACCES]"),
        ValueError("INTERNAL: read failed [OS error 24: EMFILE Too many open files]"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__ + str(error)[:12],
)
def test_an_error_of_the_machine_passes_and_changes_nothing(
    tmp_path: Path,
    state: TrainState,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    before = everything(tmp_path)

    def fail(*_: Any) -> None:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("a store failed") from inner

    with monkeypatch.context() as patched:
        patched.setattr(ocp, "load", fail)
        wanted = MemoryError if isinstance(error, MemoryError) else OSError
        with pytest.raises(wanted) as caught:
            checkpoints.load(tmp_path, NAME, state)
    if getattr(error, "errno", None):
        assert caught.value.errno == error.errno
    if wanted is OSError:
        assert f"{tmp_path / NAME}: cannot be read now" in str(caught.value)
    assert everything(tmp_path) == before
    assert checkpoints.load(tmp_path, NAME, state) is not None


def test_a_note_that_cannot_be_read_is_no_missing_note(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    before = everything(tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "last.json")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", fail)
        for act in (checkpoints.load, checkpoints.read, checkpoints.save):
            with pytest.raises(PermissionError, match=r"last\.json"):
                act(tmp_path, NAME, state)
        with pytest.raises(PermissionError):
            checkpoints.exists(tmp_path, NAME)
    assert everything(tmp_path) == before


def test_what_fails_once_and_not_again_is_whole(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    load, calls = ocp.load, []

    def fail_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyError("listed while it was renamed")
        return load(*arguments)

    monkeypatch.setattr(ocp, "load", fail_once)
    assert checkpoints.load(tmp_path, NAME, state) is not None


def test_a_state_of_another_network_is_no_damage(
    tmp_path: Path, state: TrainState
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    before = everything(tmp_path)
    fewer = state._replace(batch_stats={})
    with pytest.raises(ValueError, match="expected the leaves of the config's network"):
        checkpoints.load(tmp_path, NAME, fewer)
    assert everything(tmp_path) == before
    # Notes of older versions do not say of which leaves; Orbax does.
    path = tmp_path / f"{NAME}.json"
    note = json.loads(path.read_text())
    del note["leaves"]
    path.write_text(json.dumps(note))
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="expected the leaves of the config's network"):
        checkpoints.load(tmp_path, NAME, fewer)
    assert everything(tmp_path) == before
    assert checkpoints.load(tmp_path, NAME, state) is not None


@pytest.mark.parametrize("odd", ["[x]", "a*", "a?", "back\\slash", "gs:"])
def test_a_path_that_orbax_misreads_is_refused_before_anything_is_written(
    tmp_path: Path, state: TrainState, odd: str
) -> None:
    folder = tmp_path / odd / "checkpoints"
    for act in (checkpoints.load, checkpoints.read, checkpoints.save):
        with pytest.raises(ValueError, match="reads as a pattern or an address"):
            act(folder, NAME, state)
    with pytest.raises(ValueError, match="reads as a pattern or an address"):
        workdir.check_same(tmp_path / odd, config.default())
    assert list(tmp_path.iterdir()) == []


def test_another_content_under_a_name_is_refused(
    tmp_path: Path, state: TrainState
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    checkpoints.save(tmp_path, NAME, state)
    other = state._replace(step=state.step + 1)
    with pytest.raises(ValueError, match=rf"checkpoint .*{NAME}: expected the bits"):
        checkpoints.save(tmp_path, NAME, other)
    saved = checkpoints.load(tmp_path, NAME, state)
    assert saved is not None
    tiny.check_equal(saved.state, state)


def test_a_digest_depends_on_names_types_shapes_and_bits() -> None:
    def digest(**leaves: Any) -> str:
        return checkpoints.digest(leaves)

    base = digest(a=jnp.zeros(4))
    others = [
        digest(b=jnp.zeros(4)),
        digest(a=jnp.zeros(4, jnp.int32)),
        digest(a=jnp.zeros((2, 2))),
        digest(a=-jnp.zeros(4)),
        digest(a=jnp.zeros(2), b=jnp.zeros(2)),
    ]
    assert len({base, *others}) == 6
    assert base == digest(a=np.zeros(4, np.float32), none=None)


def test_a_full_disk_is_one_error_that_names_the_folder(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nsource: x.cc:1")

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(OSError, match=rf"checkpoint .*{NAME}: cannot be") as caught:
        checkpoints.save(tmp_path, NAME, state)
    message = str(caught.value)
    assert "No space left on device); is the disk full?" in message
    assert "MiB are free" in message
    assert "\n" not in message
    assert not checkpoints.exists(tmp_path, NAME)


def test_an_unwritable_folder_is_one_error_that_names_it(
    tmp_path: Path, state: TrainState
) -> None:
    (tmp_path / "level_03").write_text("in the way")
    with pytest.raises(OSError, match="level_03"):
        checkpoints.save(tmp_path, NAME, state)


def test_thinning_keeps_the_note_and_forgetting_does_not(
    tmp_path: Path, state: TrainState, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    checkpoints.delete_weights(tmp_path, NAME)
    checkpoints.delete_weights(tmp_path, NAME)
    assert checkpoints.exists(tmp_path, NAME)
    assert not (tmp_path / NAME).exists()
    assert checkpoints.load(tmp_path, NAME, state) is None
    assert not caplog.records
    checkpoints.save(tmp_path, NAME, state)
    assert checkpoints.load(tmp_path, NAME, state) is not None
    checkpoints.delete(tmp_path, NAME)
    checkpoints.delete(tmp_path, NAME)
    assert list((tmp_path / NAME).parent.iterdir()) == []


def test_what_a_killed_write_leaves_is_in_nobodys_way(
    tmp_path: Path, state: TrainState
) -> None:
    checkpoints.save(tmp_path, NAME, state)
    folder = tmp_path / NAME
    shutil.copytree(folder, folder.with_name("step_000000004.orbax-checkpoint-tmp"))
    (tmp_path / f"{NAME}.json.new").write_text("{")
    assert checkpoints.within(tmp_path, "level_03/ticket") == []
    assert checkpoints.load(tmp_path, NAME, state) is not None
