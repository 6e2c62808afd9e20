"""Named checkpoints that survive interrupted writes and detect corruption.

A checkpoint called `level_03/ticket/last` is an Orbax directory of that name, and
beside it the metadata file `last.json` with the hash of the saved state. The metadata
file is written last and atomically: a directory without it is an unfinished write. A
directory whose content does not have the recorded hash is corrupt. `read` reports
corruption and changes nothing. `load`, for the process that owns the run, renames the
corrupt directory (it never deletes it), so that the run can continue from the previous
checkpoint. An error of the machine (missing permission, too many open files, a failing
disk, no memory) does not show that a checkpoint is corrupt and is raised as an error.
"""

import functools
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxsparse import metrics_log, multihost, tree
from jaxsparse.training import old_checkpoints, run_paths
from jaxsparse.training.state import TrainState

log = logging.getLogger(__name__)

# Messages of libraries that report errors of the machine without raising OSError.
_MACHINE = re.compile(
    r"\b(EMFILE|ENFILE|EACCES|EPERM|EIO|ENOSPC|ENOMEM|ESTALE|ETIMEDOUT|EDQUOT|EROFS)\b"
    r"|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED"
    r"|Too many open files|Permission denied|Input/output error|No space left"
    r"|Cannot allocate memory|Stale file handle"
)
# Messages of Orbax for a checkpoint whose leaves differ from those requested.
_OTHER_LEAVES = re.compile("structures do not match|not compatible with the stored")


class CorruptFile(ValueError):
    """A checkpoint differs from what was saved; the message gives its name and why."""


class Checkpoint(NamedTuple):
    """Content of a checkpoint.

    Attributes:
      state: the training state, placed like the one it was loaded for.
      extra: small JSON values that were saved with it.
    """

    state: TrainState
    extra: dict[str, Any]


def digest(state: Any) -> str:
    """Hashes names, dtypes, shapes and bits of all leaves with SHA-256.

    Args:
      state: a tree of arrays; typed random keys are hashed by their key data.

    Returns:
      The hash in hexadecimal, the same on every process.
    """
    sha = hashlib.sha256()
    for name, leaf in tree.named_leaves(state).items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        # The whole array on the host, so that the hash does not depend on the sharding.
        array = np.asarray(multihost.to_host(leaf))
        sha.update(f"{name} {array.dtype} {array.shape};".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Orbax, which logs one traceback per thread; errors are still raised."""
    orbax_log = logging.getLogger("absl")
    level = orbax_log.level
    orbax_log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        orbax_log.setLevel(level)


def _folder(directory: Path, name: str) -> Path:
    folder = (directory / name).absolute()
    run_paths.check(folder)
    return folder


class _Note(NamedTuple):
    """Metadata of a checkpoint; a checkpoint without it is unfinished.

    Attributes:
      hash: `digest` of the state.
      extra: small JSON values that were saved with the state.
      leaves: hash of names, dtypes and shapes; None in metadata of older versions.
      layout: version of the sparse optimizer state, see `old_checkpoints.LAYOUT`.
    """

    hash: str
    extra: dict[str, Any]
    leaves: str | None
    layout: int


def _note(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def _read_note(directory: Path, name: str) -> _Note | None:
    """Reads the metadata of a checkpoint.

    Returns:
      The metadata, the same on every process; None if there is none.

    Raises:
      CorruptFile: if the file does not have the fields that `save` writes.
      OSError: if the machine cannot read it.
    """
    path = _note(directory, name)

    def read() -> _Note | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            note = _Note(
                found["hash"],
                found["extra"],
                found.get("leaves"),
                found.get("layout", 1),
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptFile(
                f"checkpoint {path.with_suffix('')}: corrupt (its note {path.name} is "
                f"no note: {_first_line(error)})"
            ) from error
        if not (isinstance(note.hash, str) and isinstance(note.extra, dict)):
            raise CorruptFile(
                f"checkpoint {path.with_suffix('')}: corrupt (its note {path.name} "
                "lacks its hash or its extra values)"
            )
        return note

    return multihost.broadcast_from_primary(read)


def exists(directory: Path, name: str) -> bool:
    """Returns whether a checkpoint was completely written.

    Its weights may have been deleted since, see `delete_weights`. A checkpoint with
    corrupt metadata counts as unfinished.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".
    """
    return recorded_hash(directory, name) is not None


def recorded_hash(directory: Path, name: str) -> str | None:
    """Returns the recorded hash of a checkpoint, even if its weights were deleted.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".

    Returns:
      The hash; None if the checkpoint is unfinished or its metadata is corrupt.
    """
    try:
        note = _read_note(directory, name)
    except CorruptFile:
        return None
    return None if note is None else note.hash


def recorded_extra(directory: Path, name: str) -> dict[str, Any]:
    """Returns the JSON values that were saved with a checkpoint.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".

    Returns:
      The values; {} if the checkpoint is unfinished or its metadata is corrupt.
    """
    try:
        note = _read_note(directory, name)
    except CorruptFile:
        return {}
    return {} if note is None else note.extra


def comparable(directory: Path, name: str) -> bool:
    """Returns whether a checkpoint's hash can be compared with hashes of new states.

    Hashes depend on the layout of the sparse optimizer state; those of an older layout
    differ from the hash of the same state today.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".
    """
    try:
        note = _read_note(directory, name)
    except CorruptFile:
        return False
    return note is not None and note.layout == old_checkpoints.LAYOUT


def save(
    directory: Path, name: str, state: TrainState, extra: dict[str, Any] | None = None
) -> None:
    """Saves a state under a name, completely or not at all.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".
      state: state to save, in the checkpoint layout: leaves lead with the replicate
        axis, counters are scalars.
      extra: small JSON values to save with it; None saves {}.

    Raises:
      ValueError: if a finished checkpoint of that name holds a different state. Two
        computations that must agree then differ, and neither result may be lost.
      OSError: if the checkpoint cannot be written; the message names the directory.
    """
    folder = _folder(directory, name)
    # On every process, since fetching the state is a collective operation.
    own = digest(state)
    found = multihost.broadcast_from_primary(lambda: own)
    wanted = recorded_hash(directory, name) if comparable(directory, name) else None
    if wanted is not None and wanted != found:
        raise ValueError(
            f"checkpoint {folder}: computed again, it has hash {found[:12]}, and the "
            f"record says {wanted[:12]}; wanted equal bits: was the run moved to other "
            "hardware or other versions? See environment.json, and begin anew with "
            "another --workdir"
        )

    def make_room() -> None:
        if not exists(directory, name) and _note(directory, name).exists():
            # Only the metadata is corrupt, so the content may still be of use.
            _put_aside(directory, name)
        elif folder.exists():
            # Either the same bits that are saved now, or an interrupted write.
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)

    multihost.on_primary(make_room)
    failed: Exception | None = None
    try:
        with _quiet():
            ocp.save(folder, state)
    except Exception as error:
        failed = error
    if not multihost.on_all(None if failed else state):
        line = _first_line(failed) if failed else "another process could not"
        raise OSError(
            f"checkpoint {folder}: cannot be written: {line}; is the disk full? "
            f"{shutil.disk_usage(folder.parent).free // 2**20} MiB are free"
        ) from failed
    note = {
        "hash": found,
        "step": int(state.step),
        "extra": extra or {},
        "layout": old_checkpoints.LAYOUT,
        "leaves": _hash_leaves(state),
    }
    text = json.dumps(note, indent=1) + "\n"
    multihost.on_primary(
        lambda: metrics_log.write_atomically(_note(directory, name), text)
    )


def read(directory: Path, name: str, like: TrainState) -> Checkpoint | None:
    """Reads a checkpoint without changing anything on disk.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name under which it was saved.
      like: a state with the expected structure, shapes and shardings, such as a freshly
        initialized one. The loaded state gets its shardings, so a run can continue on
        another number of devices.

    Returns:
      The checkpoint; None if there is none, or, after a warning that names it, if it is
      unfinished.

    Raises:
      CorruptFile: if the content is not what was saved.
      ValueError: if it holds the state of another network or optimizer than `like`.
      OSError: if the machine cannot read it; the checkpoint may be intact.
    """
    folder = _folder(directory, name)
    note = _read_note(directory, name)
    there = multihost.broadcast_from_primary(folder.exists)
    if note is None or not there:
        if there:
            log.warning("checkpoint %s: half-written; passed over", folder)
        return None
    if note.leaves not in (None, _hash_leaves(like)):
        raise ValueError(_of_others(folder))
    reason, newest = "", note.layout == old_checkpoints.LAYOUT
    # Twice, because a read can fail for a passing reason.
    for _ in range(2):
        state, failed = None, None
        try:
            with _quiet():
                state = ocp.load(
                    folder, like if newest else old_checkpoints.as_saved(like)
                )
        except Exception as error:  # Orbax and its storage backends raise many types
            failed = error
        multihost.run_on_all(
            functools.partial(_refuse_if_undecided, folder, failed, note)
        )
        # `digest` gathers arrays from all processes, so it runs only if every process
        # has loaded the state.
        whole = multihost.on_all(state) and digest(state) == note.hash
        if multihost.on_all(whole or None):
            state = state if newest else old_checkpoints.renew(state, like)
            return Checkpoint(state, note.extra)
        reason = "its content does not have the recorded hash"
        reason = _first_line(failed) if failed else reason
    raise CorruptFile(f"checkpoint {folder}: corrupt ({reason})")


def load(directory: Path, name: str, like: TrainState) -> Checkpoint | None:
    """Loads a checkpoint of the current run, renaming it if it is corrupt.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name under which it was saved.
      like: a state with the expected structure, shapes and shardings, such as a freshly
        initialized one.

    Returns:
      The checkpoint. None if there is none, or, after a warning that names it, if it is
      unfinished or corrupt.

    Raises:
      ValueError: if it holds the state of another network or optimizer than `like`.
      OSError: if the machine cannot read it; the checkpoint may be intact.
    """
    try:
        return read(directory, name, like)
    except CorruptFile as damage:
        aside = multihost.broadcast_from_primary(lambda: _put_aside(directory, name))
        end = f", and moved to {aside.name}" if aside else ""
        log.warning("%s; passed over%s", damage, end)
    return None


def _hash_leaves(state: Any) -> str:
    """Hashes names, dtypes and shapes of all leaves; random keys count as their data.

    Concrete and abstract states with equal leaves have equal hashes.
    """
    sha = hashlib.sha256()
    for name, leaf in tree.named_leaves(state).items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        sha.update(f"{name} {leaf.dtype} {leaf.shape};".encode())
    return sha.hexdigest()


def _of_others(folder: Path) -> str:
    return (
        f"checkpoint {folder}: holds a state of other leaves than the config's network "
        "and optimizer have; expected one of the same; use the version of the code "
        "that wrote it (environment.json names its commit), or another --workdir"
    )


def _refuse_if_undecided(folder: Path, failed: Exception | None, note: _Note) -> None:
    """Raises if a failed read does not show that a checkpoint is corrupt.

    Args:
      folder: directory of the checkpoint.
      failed: error raised while it was loaded; None if loading succeeded.
      note: metadata of the checkpoint.

    Raises:
      OSError: if the machine could not read it.
      MemoryError: if memory ran out.
      ValueError: if it holds a state with another structure.
    """
    error: BaseException | None = failed
    while error is not None:
        _raise_if_of_machine(folder, error)
        error = error.__cause__ or error.__context__
    if failed is None:
        return
    try:
        # Orbax can hide errors of the machine behind its own, so every file is read
        # once more: an unreadable file raises OSError here.
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(2**22):
                        pass
    except OSError as unread:
        _raise_if_of_machine(folder, unread)
    if note.leaves is None and _OTHER_LEAVES.search(str(failed)):
        raise ValueError(_of_others(folder)) from failed


def _raise_if_of_machine(folder: Path, error: BaseException) -> None:
    if isinstance(error, MemoryError):
        raise error
    if metrics_log.is_of_machine(error) or _MACHINE.search(str(error)):
        number = error.errno if isinstance(error, OSError) else None
        message = (
            f"checkpoint {folder}: cannot be read now ({_first_line(error)}); it may "
            "be whole and was left as it is; see to the machine (limits on open "
            "files, permissions, the disk), and run the same command again"
        )
        raise (OSError(message) if number is None else OSError(number, message)) from (
            error
        )


def _put_aside(directory: Path, name: str) -> Path | None:
    """Renames the directory of a corrupt checkpoint.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name of the checkpoint.

    Returns:
      The new path; None if the checkpoint has no content.
    """
    folder, note = (directory / name).absolute(), _note(directory, name)
    aside = _aside(folder) if folder.exists() else None
    if aside is not None:
        folder.rename(aside)
    if folder.name.startswith("step_"):
        # Checkpoints within a stage may be trained again from an earlier one, and the
        # result need not be bitwise equal: without metadata there is no hash to compare
        # with.
        note.unlink()
    return aside


def _aside(folder: Path) -> Path:
    number = 0
    while (aside := folder.with_name(f"{folder.name}.corrupt-{number}")).exists():
        number += 1
    return aside


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def within(directory: Path, stage: str) -> list[str]:
    """Lists the finished checkpoints saved within a stage, latest first.

    Unfinished checkpoints are skipped with a warning that names them.

    Args:
      directory: directory of all checkpoints of a run.
      stage: name of the stage, such as "level_03/ticket".

    Returns:
      Names such as "level_03/ticket/step_000001000", the same on every process.
    """

    def find() -> list[str]:
        # Matches `step_*` and `last`, the names of checkpoints within a stage.
        for folder in sorted((directory / stage).glob("[sl]*")):
            note = _note(directory, f"{stage}/{folder.name}")
            half = folder.is_dir() and not note.exists()
            if half and ".corrupt-" not in folder.name:
                log.warning("checkpoint %s: half-written; passed over", folder)
        steps = [note.stem for note in (directory / stage).glob("step_*.json")]
        # Steps are padded with zeros, so the order of names is the order of steps.
        return [f"{stage}/{name}" for name in sorted(steps, reverse=True)]

    return multihost.broadcast_from_primary(find)


def delete_weights(directory: Path, name: str) -> None:
    """Deletes the content of a checkpoint and keeps its metadata.

    The metadata still shows that the checkpoint was finished, and its hash.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name of the checkpoint.
    """
    multihost.on_primary(lambda: shutil.rmtree(directory / name, ignore_errors=True))


def delete(directory: Path, name: str) -> None:
    """Deletes a checkpoint together with its metadata.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name of the checkpoint.
    """
    # The metadata first: if the deletion is interrupted, the rest counts as unfinished
    # and not as corrupt.
    multihost.on_primary(lambda: _note(directory, name).unlink(missing_ok=True))
    delete_weights(directory, name)


def clear(directory: Path, stage: str) -> None:
    """Deletes all checkpoints saved within a stage that has ended.

    This includes directories without metadata, left by an interrupted write, which no
    other function finds. Directories renamed as corrupt are kept.

    Args:
      directory: directory of all checkpoints of a run.
      stage: name of the stage, such as "level_03/ticket".
    """

    def delete() -> None:
        for path in (directory / stage).glob("step_*"):
            if path.is_file():
                path.unlink()
            elif ".corrupt-" not in path.name:
                shutil.rmtree(path)

    multihost.on_primary(delete)
