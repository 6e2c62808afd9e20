"""The processes of a run: one on a laptop, one for each host of a pod.

All run the same program in the same order, each with a part of the devices. Files are
written by the first, and what is read from them it tells the others (`tell`), so that
all decide alike even where a shared folder shows them old content. With one process
nothing here costs anything.
"""

import contextvars
import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

Told = TypeVar("Told")

log = logging.getLogger(__name__)

# Whether this process finds out something for all, while the others wait for it: then
# it must not ask them anything.
_ALONE = contextvars.ContextVar("_ALONE", default=False)

# Set by whoever starts processes by hand; all three, or none.
BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# How many processes a launcher has started, where it says so.
LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# Where the chips of a TPU VM are.
CHIPS = ("/dev/accel0", "/dev/vfio/0")


def cluster(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Says what to join, by the environment that a process was started in.

    Args:
      environment: variables. Either all of `BY_HAND`, or what srun or mpirun set. Of
        what these start, each process has one GPU of its host, as JAX divides them;
        otherwise it has all, or those that JAX_LOCAL_DEVICE_IDS names.

    Returns:
      Arguments of `jax.distributed.initialize`, which finds out what is missing; None
      where no other process is known of.

    Raises:
      ValueError: if variables of `BY_HAND` are missing or no numbers, naming them.
    """
    given = {name: environment[name] for name in BY_HAND if environment.get(name)}
    if given:
        return _by_hand(given)
    if any(environment.get(name, "1") not in ("", "1") for name in LAUNCHERS):
        return {}
    return None


def on_tpu(environment: Mapping[str, str], *, chips: Sequence[str] = CHIPS) -> bool:
    """Says whether this may be a host of a TPU slice, whose metadata name the others.

    Args:
      environment: variables; JAX_PLATFORMS may choose something else.
      chips: files of which one is there on such a host.
    """
    wanted = environment.get("JAX_PLATFORMS") or "tpu"
    return wanted.startswith("tpu") and any(Path(chip).exists() for chip in chips)


def _by_hand(given: Mapping[str, str]) -> dict[str, Any]:
    missing = [name for name in BY_HAND if name not in given]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: not set, but {', '.join(given)}; wanted all three "
            "in every process: HOST:PORT of the first, how many there are, and which "
            "of them this is, counted from 0; or none, for one process"
        )
    address, count, number = (given[name] for name in BY_HAND)
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise ValueError(
            f"{BY_HAND[2]}: came {number!r} of {BY_HAND[1]} {count!r}; wanted numbers, "
            "the first from 0 to the second less one"
        )
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(number),
        # Else JAX asks Slurm, too, which of its host's GPUs each process has.
        "cluster_detection_method": "deactivate",
    }


def initialize(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of a run, if there are any; before all else of JAX.

    In a process that has joined already it does nothing.

    Raises:
      ValueError: as `cluster` does, or if JAX cannot find the others.
      RuntimeError: if they do not come within five minutes.
    """
    if jax.distributed.is_initialized():
        return
    found = cluster(environment)
    if found is None and not on_tpu(environment):
        return
    try:
        jax.distributed.initialize(**(found or {}))
    except ValueError as error:
        if found is None:
            log.info("no other hosts of a TPU are known of: %s", error)
            return
        raise ValueError(
            f"{', '.join(BY_HAND)}: wanted, as JAX cannot find out by itself what "
            f"started several processes here ({error})"
        ) from error


def is_multiprocess() -> bool:
    """Says whether there are several processes; without a look at devices."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Says whether this is the process that writes files and shows progress."""
    return not is_multiprocess() or jax.process_index() == 0


def broadcast_from_primary(find: Callable[[], Told]) -> Told:
    """Returns in every process what the first found out, or raises what it raised.

    All processes must call this alike. What `find` itself calls here stays in the first
    process, which does not wait for others that wait for it.

    Args:
      find: called in the first process only; what it returns must be small, and
        known to pickle, for both ends are this program.
    """
    if not is_multiprocess() or _ALONE.get():
        return find()
    said = _say(find) if is_primary() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    # Few sizes: each is a program of its own.
    padded = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)
    padded[: len(said)] = np.frombuffer(said, np.uint8)
    heard = multihost_utils.broadcast_one_to_all(padded)
    found, error = pickle.loads(np.asarray(heard).tobytes())
    if error is not None:
        raise error
    return found


def _say(find: Callable[[], Any]) -> bytes:
    """Packs what something returns, or what it raises: all must end, and none wait."""
    token = _ALONE.set(True)
    try:
        return pickle.dumps((find(), None))
    except Exception as error:
        try:
            said = pickle.dumps((None, error))
            pickle.loads(said)
        except Exception:  # an exception of a kind that does not travel
            said = pickle.dumps(
                (None, RuntimeError(f"{type(error).__name__}: {error}"))
            )
        return said
    finally:
        _ALONE.reset(token)


def on_primary(write: Callable[[], Any]) -> None:
    """Has the first process do something to files, and the others wait until it did.

    Raises:
      Exception: in all processes, what it raised.
    """

    def act() -> None:
        write()

    broadcast_from_primary(act)


def run_on_all(make: Callable[[], Told]) -> Told:
    """Returns what every process makes for itself, or raises where one could not.

    Raises:
      Exception: what was raised here; RuntimeError if it was in another process.
    """
    made, failed = None, None
    try:
        made = make()
    except Exception as error:
        failed = error
    if on_all(None if failed else True):
        return made
    raise failed or RuntimeError("another process failed; see what it said")


def on_all(thing: Any) -> bool:
    """Says whether no process came out with None; all must call this alike."""
    if not is_multiprocess() or _ALONE.get():
        return thing is not None
    each = multihost_utils.process_allgather(np.asarray(thing is not None))
    return bool(np.all(each))


def to_local(tree: Any) -> Any:
    """Brings arrays that lie in several processes to each of them, whole.

    Returns:
      The tree with arrays on the first device of this process; where there is only one
      process, the tree as it came.
    """
    return jax.tree.map(jnp.asarray, to_host(tree)) if is_multiprocess() else tree


def to_host(tree: Any) -> Any:
    """Brings arrays to the host, whole and in every process; waits for them.

    Args:
      tree: of arrays, of which some may lie on the devices of other processes. No
        random keys.

    Returns:
      The same of numpy arrays.
    """

    def one(leaf: Any) -> Any:
        if _is_elsewhere(leaf):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.tree.map(one, tree)


def _is_elsewhere(leaf: Any) -> bool:
    """Says whether a part of an array is on no device of this process."""
    return isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    )


def device_put(tree: Any, shardings: Any) -> Any:
    """Places arrays that every process has, or placed ones anew.

    `jax.device_put` would compare what all processes have, and does not take keys.

    Args:
      tree: of arrays, equal in all processes.
      shardings: one for all of them, or a tree of one each.
    """
    each = jax.tree.leaves(shardings)
    if all(sharding.is_fully_addressable for sharding in each):
        return jax.device_put(tree, shardings)
    if len(each) == 1:
        return jax.tree.map(lambda leaf: _device_put(leaf, each[0]), tree)
    return jax.tree.map(_device_put, tree, shardings)


def _device_put(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        words = _device_put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.sharding.device_set == sharding.device_set:
            return jax.device_put(leaf, sharding)
        leaf = to_host(leaf)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])
