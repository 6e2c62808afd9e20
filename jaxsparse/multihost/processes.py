"""Communication between the processes of a run.

All processes make the same calls in the same order. The primary process, which has
index 0, broadcasts what it finds. With a single process nothing is communicated.
"""

import contextvars
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Result = TypeVar("Result")

# True while the primary process computes a value that the others wait for. A collective
# operation would then wait for them, and no process would ever continue.
_ALONE = contextvars.ContextVar("_ALONE", default=False)


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

    All processes must make the same calls in the same order. Functions of `multihost`
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
