"""Coordination of the processes of a run: one on a laptop, one per host on a cluster.

All processes run the same program in the same order, each with a part of the devices.
The primary process, which has index 0, writes files and broadcasts what it reads from
them (`broadcast_from_primary`). All processes thus decide alike even if a shared file
system shows them outdated content. With a single process, these functions communicate
nothing.
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

Result = TypeVar("Result")

log = logging.getLogger(__name__)

# True while the primary process computes a value that the others wait for. A collective
# operation would then wait for them, and no process would ever continue.
_ALONE = contextvars.ContextVar("_ALONE", default=False)

# Set by users who start processes by hand: all three or none.
BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# In these variables srun and mpirun store the number of processes that they started.
LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# Devices of the chips on a TPU VM.
CHIPS = ("/dev/accel0", "/dev/vfio/0")


def cluster(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the arguments that connect this process to the others of its run.

    Args:
      environment: environment variables of the process. Either all variables of
        `BY_HAND` are set, or those of srun or mpirun. Processes that srun or mpirun
        start have one GPU of their host each, as `jax.distributed` assigns them. Other
        processes have all devices of their host, or those that JAX_LOCAL_DEVICE_IDS
        lists.

    Returns:
      Arguments of `jax.distributed.initialize`, which detects those that are missing;
      None if the environment indicates only one process.

    Raises:
      ValueError: if only some variables of `BY_HAND` are set, or they are not valid
        numbers; the message names them.
    """
    given = {name: environment[name] for name in BY_HAND if environment.get(name)}
    if given:
        return _by_hand(given)
    if any(environment.get(name, "1") not in ("", "1") for name in LAUNCHERS):
        return {}
    return None


def on_tpu(environment: Mapping[str, str], *, chips: Sequence[str] = CHIPS) -> bool:
    """Returns whether this process may be on a host of a TPU slice.

    The metadata of such a host list the other hosts of the slice.

    Args:
      environment: environment variables. The result is False if JAX_PLATFORMS is
        set to anything that does not begin with tpu.
      chips: paths; at least one of them exists on a host with TPU chips.
    """
    platforms = environment.get("JAX_PLATFORMS") or "tpu"
    return platforms.startswith("tpu") and any(Path(chip).exists() for chip in chips)


def _by_hand(given: Mapping[str, str]) -> dict[str, Any]:
    """Converts the variables of `BY_HAND` to arguments of `jax.distributed.initialize`.

    Raises:
      ValueError: if a variable is missing or a number is invalid.
    """
    missing = [name for name in BY_HAND if name not in given]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: expected all of {', '.join(BY_HAND)}, got only "
            f"{', '.join(given)}; set in every process HOST:PORT of the first process, "
            "the number of processes, and the index of this process, from 0; or set "
            "none of them for a single process"
        )
    address, count, number = (given[name] for name in BY_HAND)
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise ValueError(
            f"{BY_HAND[2]}: expected an index from 0 to {BY_HAND[1]} - 1, got "
            f"{number!r} with {BY_HAND[1]}={count!r}; set both to integers"
        )
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(number),
        # Otherwise JAX also detects Slurm, and assigns each process one GPU of its
        # host.
        "cluster_detection_method": "deactivate",
    }


def initialize(environment: Mapping[str, str] = os.environ) -> None:
    """Connects the processes of a run, if there are several.

    Must be called before any other use of JAX that initializes its backends.

    Does nothing in a process that is connected already.

    Args:
      environment: environment variables of the process, which tell how it was started.

    Raises:
      ValueError: if only some variables of `BY_HAND` are set or they are invalid, or if
        JAX cannot find the other processes.
      RuntimeError: if the other processes do not connect within five minutes.
    """
    if jax.distributed.is_initialized():
        return
    cluster_arguments = cluster(environment)
    if cluster_arguments is None and not on_tpu(environment):
        return
    try:
        jax.distributed.initialize(**(cluster_arguments or {}))
    except ValueError as error:
        # TPU chips without metadata of other hosts: a single TPU VM.
        if cluster_arguments is None:
            log.info("no other hosts of a TPU are known of: %s", error)
            return
        raise ValueError(
            "environment: expected a cluster that JAX detects, got none of those it "
            f"supports ({error}); set {', '.join(BY_HAND)} in every process"
        ) from error


def is_multiprocess() -> bool:
    """Returns whether the run has several processes.

    In a run of one process, this does not initialize JAX backends.
    """
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Returns whether this process is the one that writes files and shows progress."""
    return not is_multiprocess() or jax.process_index() == 0


def broadcast_from_primary(find: Callable[[], Result]) -> Result:
    """Calls a function on the primary process and returns its result on every process.

    All processes must make the same calls in the same order. Functions of this module
    that `find` calls act as in a single process, since the other processes are waiting
    for the result of `find` and do not take part.

    Args:
      find: function without arguments that is called only on the primary process. Its
        result must be small and picklable.

    Returns:
      The result of `find`, on every process.

    Raises:
      Exception: on every process, the exception that `find` raised, or a RuntimeError
        with its type and message if it cannot be pickled.
    """
    if not is_multiprocess() or _ALONE.get():
        return find()
    sent = _say(find) if is_primary() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    # Every array size is compiled separately, so sizes are rounded up to powers of 2.
    padded = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)
    padded[: len(sent)] = np.frombuffer(sent, np.uint8)
    received = multihost_utils.broadcast_one_to_all(padded)
    # Pickle ignores the padding. It is safe here: both ends are the same program.
    cluster_arguments, error = pickle.loads(np.asarray(received).tobytes())
    if error is not None:
        raise error
    return cluster_arguments


def _say(find: Callable[[], Any]) -> bytes:
    """Calls a function and pickles its result or the exception that it raises.

    Exceptions are broadcast too, because the other processes would wait forever
    otherwise.

    Args:
      find: function without arguments.

    Returns:
      Pickled pair of result and exception, one of them None.
    """
    token = _ALONE.set(True)
    try:
        return pickle.dumps((find(), None))
    except Exception as error:
        # Some exceptions pickle but do not unpickle, such as those whose `__init__`
        # takes other arguments than `args`.
        try:
            sent = pickle.dumps((None, error))
            pickle.loads(sent)
        except Exception:
            sent = pickle.dumps(
                (None, RuntimeError(f"{type(error).__name__}: {error}"))
            )
        return sent
    finally:
        _ALONE.reset(token)


def on_primary(write: Callable[[], Any]) -> None:
    """Runs `write` on the primary process, while the others wait until it ends.

    Args:
      write: function without arguments, such as one that writes files; its result is
        discarded.

    Raises:
      Exception: on all processes, the exception that `write` raised.
    """

    # The result of `write` need not be picklable, so it is not broadcast.
    def act() -> None:
        write()

    broadcast_from_primary(act)


def run_on_all(make: Callable[[], Result]) -> Result:
    """Runs a function on every process, and raises on all of them if it fails on any.

    Args:
      make: function without arguments. Its result may differ between processes and is
        not communicated.

    Returns:
      The result of `make` on this process.

    Raises:
      Exception: the exception that `make` raised on this process; RuntimeError if it
        failed only on other processes.
    """
    # An exception raised right away would leave the other processes waiting in the next
    # collective operation.
    result, failure = None, None
    try:
        result = make()
    except Exception as error:
        failure = error
    if on_all(None if failure else True):
        return result
    raise failure or RuntimeError(
        "run_on_all: expected every process to succeed, got a failure of another "
        "process; see its log"
    )


def on_all(value: Any) -> bool:
    """Returns whether the argument is not None on every process.

    All processes must call this function together.

    Args:
      value: any object; only whether it is None is communicated.
    """
    if not is_multiprocess() or _ALONE.get():
        return value is not None
    flags = multihost_utils.process_allgather(np.asarray(value is not None))
    return bool(np.all(flags))


def to_local(tree: Any) -> Any:
    """Copies arrays that are distributed over processes to each process, whole.

    Args:
      tree: tree of arrays; any of them may be on devices of other processes.

    Returns:
      The tree with arrays on the first device of this process. With a single process,
      the unchanged tree.
    """
    return jax.tree.map(jnp.asarray, to_host(tree)) if is_multiprocess() else tree


def to_host(tree: Any) -> Any:
    """Copies arrays to the host, whole on every process, and waits for them.

    Args:
      tree: tree of arrays; any of them may be on devices of other processes. Random
        keys are not supported.

    Returns:
      The tree with NumPy arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    # One call for all arrays: it starts all transfers before it waits for the first.
    near = iter(jax.device_get([leaf for leaf in leaves if not _is_elsewhere(leaf)]))
    fetched = [
        multihost_utils.process_allgather(leaf, tiled=True)
        if _is_elsewhere(leaf)
        else next(near)
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, fetched)


def _is_elsewhere(leaf: Any) -> bool:
    """Returns whether parts of an array are only on devices of other processes."""
    return isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    )


def device_put(tree: Any, shardings: Any) -> Any:
    """Places arrays on devices by shardings that may span processes.

    Unlike `jax.device_put`, this neither compares the values between processes nor
    rejects random keys.

    Args:
      tree: tree of arrays, on the host or on devices, with equal values on all
        processes.
      shardings: one sharding for all arrays, or a tree of shardings with the nesting of
        `tree`.

    Returns:
      The tree with arrays of these shardings.
    """
    leaves = jax.tree.leaves(shardings)
    # Within one process, JAX's own function does all that is needed.
    if all(sharding.is_fully_addressable for sharding in leaves):
        return jax.device_put(tree, shardings)
    if len(leaves) == 1:
        return jax.tree.map(lambda leaf: _device_put(leaf, leaves[0]), tree)
    return jax.tree.map(_device_put, tree, shardings)


def _device_put(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Places an array of numbers or keys by a sharding that may span processes."""
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        words = _device_put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.sharding.device_set == sharding.device_set:
            return jax.device_put(leaf, sharding)
        leaf = to_host(leaf)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])
