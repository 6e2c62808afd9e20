"""Saves and loads the states of checkpoints."""

import functools
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

from jaxsparse import metrics_log, multihost, rng, tree
from jaxsparse.training import old_checkpoints
from jaxsparse.training.checkpoints import packing
from jaxsparse.training.checkpoints.cleanup import put_aside
from jaxsparse.training.checkpoints.errors import (
    CorruptFile,
    first_line,
    other_leaves_message,
    raise_if_undecided,
)
from jaxsparse.training.checkpoints.metadata import (
    comparable,
    content_path,
    exists,
    metadata_path,
    read_metadata,
    recorded_hash,
)
from jaxsparse.training.state import TrainState

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """Content of a checkpoint.

    Attributes:
      state: the training state, placed like the one it was loaded for.
      extra: small JSON values that were saved with it.
    """

    state: TrainState
    extra: dict[str, Any]


def save(
    directory: Path,
    name: str,
    state: TrainState,
    extra: dict[str, Any] | None = None,
    *,
    packed: bool = False,
) -> None:
    """Saves a state under a name, completely or not at all.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".
      state: state to save, in the checkpoint layout: leaves lead with the replicate
        axis, counters are scalars.
      extra: small JSON values to save with it; None saves {}.
      packed: whether sparse arrays are saved as bits and values (`packing`), which
        takes less space; what is loaded is the same, bit for bit.

    Raises:
      ValueError: if a finished checkpoint of that name holds a different state. Two
        computations that must agree then differ, and neither result may be lost.
      OSError: if the checkpoint cannot be written; the message names the directory.
    """
    folder = content_path(directory, name)
    # On every process, since fetching the state is a collective operation.
    own = digest(state)
    found = multihost.broadcast_from_primary(lambda: own)
    wanted = recorded_hash(directory, name) if comparable(directory, name) else None
    if wanted is not None and wanted != found:
        raise ValueError(
            f"checkpoint {folder}: expected the bits with the recorded hash "
            f"{wanted[:12]}, got {found[:12]} when it was computed again; was the run "
            "moved to other hardware or versions? See environment.json, and begin anew "
            "with another --workdir"
        )

    def make_room() -> None:
        if not exists(directory, name) and metadata_path(directory, name).exists():
            # Only the metadata is corrupt, so the content may still be of use.
            put_aside(directory, name)
        elif folder.exists():
            # Either the same bits that are saved now, or an interrupted write.
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)

    multihost.on_primary(make_room)
    failed: Exception | None = None
    try:
        if packed:
            packing.save(folder, state)
        else:
            with _quiet() as ocp:
                ocp.save(folder, state)
    except Exception as error:
        failed = error
    if not multihost.on_all(None if failed else state):
        line = first_line(failed) if failed else "another process could not"
        raise OSError(
            f"checkpoint {folder}: cannot be written ({line}); is the disk full? "
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
        lambda: metrics_log.write_atomically(metadata_path(directory, name), text)
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
    folder = content_path(directory, name)
    note = read_metadata(directory, name)
    there = multihost.broadcast_from_primary(folder.exists)
    if note is None or not there:
        if there:
            log.warning("checkpoint %s: half-written; passed over", folder)
        return None
    newest = note.layout == old_checkpoints.LAYOUT
    target = like if newest else old_checkpoints.as_saved(like, note.layout)
    if note.leaves not in (None, _hash_leaves(target)):
        raise ValueError(other_leaves_message(folder))
    reason = ""
    # Twice, because a read can fail for a passing reason.
    for _ in range(2):
        state, failed = None, None
        try:
            state = _load(folder, target)
        except Exception as error:  # Orbax and its storage backends raise many types
            failed = error
        multihost.run_on_all(
            functools.partial(
                raise_if_undecided,
                folder,
                failed,
                leaves_known=note.leaves is not None,
            )
        )
        # `digest` gathers arrays from all processes, so it runs only if every process
        # has loaded the state.
        whole = multihost.on_all(state) and digest(state) == note.hash
        if multihost.on_all(whole or None):
            state = state if newest else old_checkpoints.renew(state, like)
            return Checkpoint(state, note.extra)
        reason = "its content does not have the recorded hash"
        reason = first_line(failed) if failed else reason
    raise CorruptFile(f"checkpoint {folder}: corrupt ({reason})")


def _load(folder: Path, like: Any) -> Any:
    """Loads the arrays of a checkpoint, packed or not."""
    if packing.is_packed(folder):
        return packing.load(folder, like)
    with _quiet() as ocp:
        return ocp.load(folder, like)


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
        aside = multihost.broadcast_from_primary(lambda: put_aside(directory, name))
        end = f", and moved to {aside.name}" if aside else ""
        log.warning("%s; passed over%s", damage, end)
    return None


def digest(state: Any) -> str:
    """Hashes names, dtypes, shapes and bits of all leaves with SHA-256.

    Args:
      state: a tree of arrays; typed random keys are hashed by their key data.

    Returns:
      The hash in hexadecimal, the same on every process.
    """
    sha = hashlib.sha256()
    for name, leaf in tree.named_leaves(state).items():
        if rng.is_key(leaf):
            leaf = jax.random.key_data(leaf)
        # The whole array on the host, so that the hash does not depend on the sharding.
        array = np.asarray(multihost.to_host(leaf))
        sha.update(f"{name} {array.dtype} {array.shape};".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _hash_leaves(state: Any) -> str:
    """Hashes names, dtypes and shapes of all leaves; random keys count as their data.

    Concrete and abstract states with equal leaves have equal hashes.
    """
    sha = hashlib.sha256()
    for name, leaf in tree.named_leaves(state).items():
        if rng.is_key(leaf):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        sha.update(f"{name} {leaf.dtype} {leaf.shape};".encode())
    return sha.hexdigest()


@contextmanager
def _quiet() -> Iterator[Any]:
    """Yields Orbax, silent: it logs one traceback per thread; errors are still raised.

    It is imported on use, since nothing but reading and writing checkpoints needs it.
    """
    from orbax.checkpoint import v1 as ocp

    orbax_log = logging.getLogger("absl")
    level = orbax_log.level
    orbax_log.setLevel(logging.CRITICAL)
    try:
        yield ocp
    finally:
        orbax_log.setLevel(level)
