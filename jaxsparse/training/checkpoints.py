"""Named checkpoints that a kill cannot spoil and a flipped bit cannot pass.

A checkpoint called `level_03/ticket/last` is an Orbax folder of that name and, beside
it, `last.json` with the hash of what was saved. The small file is written last and
atomically: without it the folder is an unfinished write. A folder whose content does
not have the recorded hash is corrupt; it is moved aside, never deleted, and whoever
asked goes on with the checkpoint before.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxsparse import hosts, records, tree
from jaxsparse.training import old_layout
from jaxsparse.training.state import TrainState

log = logging.getLogger(__name__)


class Saved(NamedTuple):
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
        array = np.asarray(hosts.fetch(leaf))
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


def _note(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def _read_note(directory: Path, name: str) -> dict[str, Any] | None:
    def read() -> Any:
        try:
            return json.loads(_note(directory, name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    note = hosts.tell(read)
    return note if isinstance(note, dict) and "hash" in note else None


def exists(directory: Path, name: str) -> bool:
    """Says whether a checkpoint was finished; it may have been thinned since."""
    return _read_note(directory, name) is not None


def recorded_hash(directory: Path, name: str) -> str | None:
    """Returns the hash of a finished checkpoint, also if its content is gone."""
    note = _read_note(directory, name)
    return None if note is None else note["hash"]


def comparable(directory: Path, name: str) -> bool:
    """Says whether a checkpoint's hash is of states as they are laid out today."""
    note = _read_note(directory, name)
    return note is not None and note.get("layout", 1) == old_layout.LAYOUT


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
    folder = (directory / name).absolute()
    own = digest(state)
    found = hosts.tell(lambda: own)
    wanted = recorded_hash(directory, name) if comparable(directory, name) else None
    if wanted is not None and wanted != found:
        raise ValueError(
            f"checkpoint {folder}: computed again, it has hash {found[:12]}, and the "
            f"record says {wanted[:12]}; wanted equal bits: was the run moved to other "
            "hardware or other versions? See environment.json, and begin anew with "
            "another --workdir"
        )

    def make_room() -> None:
        if folder.exists():
            shutil.rmtree(folder)  # an unfinished write, or the thinned rest of one
        folder.parent.mkdir(parents=True, exist_ok=True)

    hosts.do(make_room)
    failed: Exception | None = None
    try:
        with _quiet():
            ocp.save(folder, state)
    except Exception as error:
        failed = error
    if not hosts.all_have(None if failed else state):
        line = _first_line(failed) if failed else "another process could not"
        raise OSError(
            f"checkpoint {folder}: cannot be written: {line}; is the disk full? "
            f"{shutil.disk_usage(folder.parent).free // 2**20} MiB are free"
        ) from failed
    note = {"hash": found, "step": int(state.step), "extra": extra or {}}
    note["layout"] = old_layout.LAYOUT
    text = json.dumps(note, indent=1) + "\n"
    hosts.do(lambda: records.write_atomically(_note(directory, name), text))


def load(directory: Path, name: str, like: TrainState) -> Saved | None:
    """Loads a checkpoint if it is there and whole.

    Args:
      directory: folder of all checkpoints of a run.
      name: what it was saved as.
      like: a state of the wanted structure, shapes and placement, such as a freshly
        initialised one; this is what makes another number of devices work.

    Returns:
      What was saved; None if there is none, or, after a warning that names it, if it
      is corrupt. A corrupt one is moved aside.
    """
    folder = (directory / name).absolute()
    note = _read_note(directory, name)
    there = hosts.tell(folder.exists)
    if note is None or not there:
        if there:
            log.warning("checkpoint %s: half-written; passed over", folder)
        return None
    newest = comparable(directory, name)
    state, reason = None, "its content does not have the recorded hash"
    try:
        with _quiet():
            state = ocp.load(folder, like if newest else old_layout.as_saved(like))
    except Exception as error:  # Orbax and its stores raise many kinds
        reason = _first_line(error)
    whole = hosts.all_have(state) and digest(state) == note["hash"]
    if hosts.all_have(whole or None):
        return Saved(state if newest else old_layout.renew(state, like), note["extra"])

    def put_aside() -> Path:
        aside = _aside(folder)
        folder.rename(aside)
        if folder.name.startswith("step_"):
            # Training again from further back need not stop here, nor with equal bits.
            _note(directory, name).unlink()
        return aside

    aside = hosts.tell(put_aside)
    log.warning(
        "checkpoint %s: corrupt (%s); passed over, and moved to %s",
        folder,
        reason,
        aside.name,
    )
    return None


def _aside(folder: Path) -> Path:
    number = 0
    while (aside := folder.with_name(f"{folder.name}.corrupt-{number}")).exists():
        number += 1
    return aside


def _first_line(error: Exception) -> str:
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

    return hosts.tell(find)


def thin(directory: Path, name: str) -> None:
    """Deletes a checkpoint's content, keeping the note that it was finished."""
    hosts.do(lambda: shutil.rmtree(directory / name, ignore_errors=True))


def forget(directory: Path, name: str) -> None:
    """Deletes a checkpoint that a later one has replaced."""
    hosts.do(lambda: _note(directory, name).unlink(missing_ok=True))
    thin(directory, name)


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

    hosts.do(delete)
