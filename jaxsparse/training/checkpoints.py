"""Named checkpoints that a kill cannot spoil and a flipped bit cannot pass.

A checkpoint called `level_03/ticket/last` is an Orbax folder of that name and, beside
it, `last.json` with the hash of what was saved. The small file is written last and
atomically: without it the folder is an unfinished write. A folder whose content does
not have the recorded hash is corrupt: `read` says so and changes nothing; `load`, for
the process that owns the run, moves it aside, never deletes it, and goes on with the
checkpoint before. An error of the machine (no permission, too many open files, a disk
that fails, no memory) proves nothing about a checkpoint and is raised as it came.
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
from jaxsparse.training import old_checkpoints
from jaxsparse.training.state import TrainState

log = logging.getLogger(__name__)

# How libraries word errors of the machine, where they do not raise an OSError.
_MACHINE = re.compile(
    r"\b(EMFILE|ENFILE|EACCES|EPERM|EIO|ENOSPC|ENOMEM|ESTALE|ETIMEDOUT|EDQUOT|EROFS)\b"
    r"|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED"
    r"|Too many open files|Permission denied|Input/output error|No space left"
    r"|Cannot allocate memory|Stale file handle"
)
# How Orbax words a state of other leaves than those asked for.
_OTHER_LEAVES = re.compile("structures do not match|not compatible with the stored")


class CorruptFile(ValueError):
    """A checkpoint is not what was saved; the message names it and says why."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      state: the state, placed like the one it was loaded for.
      extra: small JSON values that were saved with it.
    """

    state: TrainState
    extra: dict[str, Any]


def digest(state: Any) -> str:
    """Hashes names, dtypes, shapes and bits of every leaf (SHA-256)."""
    sha = hashlib.sha256()
    for name, leaf in tree.named_leaves(state).items():
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(multihost.to_host(leaf))
        sha.update(f"{name} {array.dtype} {array.shape};".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Orbax, which logs a traceback a thread; the error itself is raised."""
    orbax_log = logging.getLogger("absl")
    level = orbax_log.level
    orbax_log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        orbax_log.setLevel(level)


def check_path(path: Path) -> None:
    """Refuses folders in which Orbax does not find what it has written.

    Raises:
      ValueError: naming the folder and the characters.
    """
    text = str(path.absolute())
    misread = ("*", "?", "[", "\\", ":/")
    found = [pattern for pattern in misread if pattern in f"{text}/"]
    if found:
        raise ValueError(
            f"{text}: has {' and '.join(map(repr, found))} in its path, which Orbax "
            "reads as a pattern or an address; expected a path without; rename the "
            "folder, or choose another one with --workdir"
        )


def _folder(directory: Path, name: str) -> Path:
    folder = (directory / name).absolute()
    check_path(folder)
    return folder


class _Note(NamedTuple):
    """What stands beside a checkpoint; without it, the checkpoint is unfinished.

    Attributes:
      hash: `digest` of the state.
      extra: small JSON values that were saved with it.
      leaves: hash of names, dtypes and shapes; None in notes of older versions.
      layout: of the sparse state, see `old_layout`.
    """

    hash: str
    extra: dict[str, Any]
    leaves: str | None
    layout: int


def _note(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def _read_note(directory: Path, name: str) -> _Note | None:
    """Reads a note; None if there is none.

    Raises:
      Damaged: if it is not what `save` writes.
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
    """Says whether a checkpoint was finished; it may have been thinned since.

    One whose note is damaged counts as unfinished.
    """
    return recorded_hash(directory, name) is not None


def recorded_hash(directory: Path, name: str) -> str | None:
    """Returns the hash of a finished checkpoint, also if its content is gone."""
    try:
        note = _read_note(directory, name)
    except CorruptFile:
        return None
    return None if note is None else note.hash


def recorded_extra(directory: Path, name: str) -> dict[str, Any]:
    """Returns the JSON values saved with a finished checkpoint; {} for none."""
    try:
        note = _read_note(directory, name)
    except CorruptFile:
        return {}
    return {} if note is None else note.extra


def comparable(directory: Path, name: str) -> bool:
    """Says whether a checkpoint's hash is of states as they are laid out today."""
    try:
        note = _read_note(directory, name)
    except CorruptFile:
        return False
    return note is not None and note.layout == old_checkpoints.LAYOUT


def save(
    directory: Path, name: str, state: TrainState, extra: dict[str, Any] | None = None
) -> None:
    """Saves a state under a name, whole or not at all.

    Args:
      directory: folder of all checkpoints of a run.
      name: slash-joined, such as "level_03/ticket/last".
      state: what to save, in the form of files.
      extra: small JSON values to keep with it.

    Raises:
      ValueError: if a finished checkpoint of that name holds something else: two
        computations that must agree do not, and neither may be lost.
      OSError: if it cannot be written, naming the folder.
    """
    folder = _folder(directory, name)
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
            _put_aside(directory, name)  # its note is damaged, not it
        elif folder.exists():
            shutil.rmtree(folder)  # these very bits, or a write that a kill ended
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
    """Reads a checkpoint if it is there; changes nothing on disk.

    Args:
      directory: folder of all checkpoints of a run.
      name: what it was saved as.
      like: a state of the wanted structure, shapes and placement, such as a freshly
        initialised one; this is what makes another number of devices work.

    Returns:
      What was saved; None if there is none, or, after a warning that names it, if its
      writing was never finished.

    Raises:
      Damaged: if it is not what was saved.
      ValueError: if it is a state of another network or optimizer than `like`.
      OSError: if the machine cannot read it; it may be whole.
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
    for _ in range(2):  # what fails once may have been the moment
        state, failed = None, None
        try:
            with _quiet():
                state = ocp.load(
                    folder, like if newest else old_checkpoints.as_saved(like)
                )
        except Exception as error:  # Orbax and its stores raise many kinds
            failed = error
        multihost.run_on_all(
            functools.partial(_refuse_if_undecided, folder, failed, note)
        )
        whole = multihost.on_all(state) and digest(state) == note.hash
        if multihost.on_all(whole or None):
            state = state if newest else old_checkpoints.renew(state, like)
            return Checkpoint(state, note.extra)
        reason = "its content does not have the recorded hash"
        reason = _first_line(failed) if failed else reason
    raise CorruptFile(f"checkpoint {folder}: corrupt ({reason})")


def load(directory: Path, name: str, like: TrainState) -> Checkpoint | None:
    """Loads a checkpoint of one's own run, and moves it aside if it is corrupt.

    Args:
      directory: as in `read`.
      name: as in `read`.
      like: as in `read`.

    Returns:
      As `read`, but None, after a warning that names it, for a corrupt one too.

    Raises:
      ValueError: as `read`.
      OSError: as `read`.
    """
    try:
        return read(directory, name, like)
    except CorruptFile as damage:
        aside = multihost.broadcast_from_primary(lambda: _put_aside(directory, name))
        end = f", and moved to {aside.name}" if aside else ""
        log.warning("%s; passed over%s", damage, end)
    return None


def _hash_leaves(state: Any) -> str:
    """Hashes names, dtypes and shapes of every leaf; random keys count as their data.

    Concrete and abstract states of equal leaves have equal hashes.
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
    """Raises what says nothing about the content of a checkpoint.

    Raises:
      OSError: if the machine could not read it.
      ValueError: if it is of another structure.
    """
    error: BaseException | None = failed
    while error is not None:
        _raise_if_of_machine(folder, error)
        error = error.__cause__ or error.__context__
    if failed is None:
        return
    try:
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
    """Moves a checkpoint aside; returns where to, None if it has no content."""
    folder, note = (directory / name).absolute(), _note(directory, name)
    aside = _aside(folder) if folder.exists() else None
    if aside is not None:
        folder.rename(aside)
    if folder.name.startswith("step_"):
        # Training again from further back need not stop here, nor with equal bits.
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
    """Lists the finished checkpoints made during a stage, the latest first.

    Half-written ones are passed over with a warning that names them.
    """

    def find() -> list[str]:
        for folder in sorted((directory / stage).glob("[sl]*")):
            note = _note(directory, f"{stage}/{folder.name}")
            half = folder.is_dir() and not note.exists()
            if half and ".corrupt-" not in folder.name:
                log.warning("checkpoint %s: half-written; passed over", folder)
        steps = [note.stem for note in (directory / stage).glob("step_*.json")]
        return [f"{stage}/{name}" for name in sorted(steps, reverse=True)]

    return multihost.broadcast_from_primary(find)


def delete_weights(directory: Path, name: str) -> None:
    """Deletes a checkpoint's content, keeping the note that it was finished."""
    multihost.on_primary(lambda: shutil.rmtree(directory / name, ignore_errors=True))


def delete(directory: Path, name: str) -> None:
    """Deletes a checkpoint that a later one has replaced."""
    multihost.on_primary(lambda: _note(directory, name).unlink(missing_ok=True))
    delete_weights(directory, name)


def clear(directory: Path, stage: str) -> None:
    """Deletes what was saved during a stage that has ended, and rests of it.

    A kill can leave a folder without its note, which nothing else would find.
    """

    def delete() -> None:
        for path in (directory / stage).glob("step_*"):
            if path.is_file():
                path.unlink()
            elif ".corrupt-" not in path.name:
                shutil.rmtree(path)

    multihost.on_primary(delete)
