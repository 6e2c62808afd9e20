"""Tells from its environment whether a process is alone or one of several.

This module does not import JAX, so that programs can ask before slow imports.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def is_first(environment: Mapping[str, str]) -> bool:
    """Returns whether this process is certainly the first or the only one of its run.

    For processes that srun or mpirun started, and on a TPU, only JAX can tell.

    Args:
      environment: environment variables of the process.

    Raises:
      ValueError: if `cluster` raises it.
    """
    found = cluster(environment)
    if found is None:
        return not on_tpu(environment)
    return found.get("process_id") == 0


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
