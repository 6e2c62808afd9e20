"""The device mesh, and how replicates and batches are split over it.

The mesh has two axes. Replicates are spread over the largest number of devices that
divides their count; the remaining factor of devices shares each replicate's batch. In
training every device runs the same program on its part, by `shard_map` under `jit` or
by `pmap`, so that both give the same bits. Only this module, `placement` and
`state_sharding` handle devices.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxsparse import multihost, transforms

REPLICATE, DATA = "replicate", "data"

log = logging.getLogger(__name__)


class FSDPSpec(NamedTuple):
    """How parameters are sharded over devices, as in fully sharded data parallelism.

    Attributes:
      rules: pairs of a shell pattern and an axis, or None. The first pattern that
        matches a leaf's name gives the axis along which the leaf is sharded; None
        leaves it whole.
      min_size: minimum number of elements of a leaf that is sharded without a rule.
    """

    rules: transforms.Rules = ()
    min_size: int = transforms.MIN_SIZE


class MeshLayout(NamedTuple):
    """How a run uses its devices.

    Attributes:
      mesh: device mesh with the axes (replicate, data).
      parallelism: "jit" or "pmap".
      replicates: number of replicates, over all devices.
      division: how the parameters of a replicate are sharded over the devices that
        share its batch; None if every device holds them whole.
    """

    mesh: Mesh
    parallelism: str
    replicates: int
    division: FSDPSpec | None = None

    @property
    def data_devices(self) -> int:
        """Number of devices that share a batch."""
        return self.mesh.shape[DATA]

    @property
    def batch_axis(self) -> str | None:
        """Mapped axis over which gradients and BatchNorm average, or None.

        With sharded parameters the program is written for the whole batch, and the
        compiler inserts the sums.
        """
        return DATA if self.data_devices > 1 and not self.divides else None

    @property
    def divides(self) -> bool:
        """Whether parameters are sharded, and the compiler partitions the program."""
        return self.division is not None and self.data_devices > 1

    @property
    def mapped(self) -> bool:
        """Whether arrays carry a leading axis of devices, as pmap expects."""
        return self.parallelism == "pmap"


def make_layout(
    *,
    replicates: int,
    batch_sizes: Sequence[int],
    parallelism: str = "jit",
    devices: int = 0,
    fsdp: FSDPSpec | None = None,
) -> MeshLayout:
    """Makes the device mesh of a run.

    Args:
      replicates: number of seeds trained in parallel, at least 1.
      batch_sizes: all batch sizes of an epoch: of a full batch, and of a smaller last
        one.
      parallelism: "jit" or "pmap".
      devices: number of devices to use, over all processes, with the same number in
        each process; 0 uses the largest number over which the work can be split.
      fsdp: how to shard parameters over the devices that share a batch; None keeps them
        whole. Without effect, after a warning, if no two devices share a batch.

    Returns:
      The layout.

    Raises:
      ValueError: if JAX sees fewer devices than requested, if they cannot be taken in
        equal numbers from all processes, or if a batch cannot be split equally. Also if
        pmap is combined with several processes, with sharded parameters, or with
        splitting both replicates and batches.
    """
    there, processes = jax.devices(), jax.process_count()
    if devices > len(there) or devices % processes:
        also = (
            f" in {processes} processes, and equally many from each"
            if multihost.is_multiprocess()
            else ""
        )
        raise ValueError(
            f"config.run.devices: expected at most {len(there)}, the devices that JAX "
            f"sees{also}, got {devices}; use 0 for as many as can share the work"
        )
    if parallelism == "pmap" and processes > 1:
        raise ValueError(
            f"config.run.parallelism: expected 'jit' in {processes} processes, got "
            "'pmap', which uses the devices of one process only"
        )
    if parallelism == "pmap" and fsdp is not None:
        raise ValueError(
            "config.run.parallelism: expected 'jit' with run.fsdp, got 'pmap', which "
            "cannot shard parameters"
        )
    # Largest number of devices first; multiples of the number of processes, since each
    # process contributes equally.
    for count in [devices] if devices else range(len(there), 0, -processes):
        # Replicates are spread first, because they do not communicate. Devices that
        # share a batch sum gradients at every step.
        over_replicates = math.gcd(replicates, count)
        over_data = count // over_replicates
        reason = _misfit(
            replicates, batch_sizes, parallelism, over_replicates, over_data, processes
        )
        if reason is None:
            break
    if reason is not None:
        raise ValueError(reason)
    if fsdp is not None and over_data == 1:
        log.warning("run.fsdp: no effect, as no two devices share a batch here")
    if count < len(there):
        log.warning("%d of %d devices are used", count, len(there))
    grid = np.asarray(_first_of_each(there, count)).reshape(over_replicates, over_data)
    # Axes of type Auto: the compiler propagates shardings, and only the constraints set
    # here are fixed.
    mesh = Mesh(grid, (REPLICATE, DATA), axis_types=(AxisType.Auto,) * 2)
    return MeshLayout(mesh, parallelism, replicates, fsdp)


def memory(device: Any) -> int | None:
    """Returns the bytes of a device that JAX may use; None if it does not report it.

    Args:
      device: a device of JAX.
    """
    return (device.memory_stats() or {}).get("bytes_limit")


def _first_of_each(devices: Sequence[Any], count: int) -> list[Any]:
    """Selects the first `count` devices, equally many per process, grouped by process.

    Raises:
      ValueError: if a process has fewer devices than its share.
    """
    by_process: dict[int, list[Any]] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    share = count // len(by_process)
    if share > min(map(len, by_process.values())):
        each = {number: len(found) for number, found in by_process.items()}
        raise ValueError(
            f"config.run.devices: expected at most {len(each)} times the smallest of "
            f"the processes' numbers of devices, {each}, got {count}"
        )
    return [d for number in sorted(by_process) for d in by_process[number][:share]]


def _misfit(
    replicates: int,
    batch_sizes: Sequence[int],
    parallelism: str,
    over_replicates: int,
    over_data: int,
    processes: int,
) -> str | None:
    """Returns why the work cannot be split over such a mesh; None if it can."""
    count = over_replicates * over_data
    # Suggested only where it is a multiple of the number of processes.
    fewer = f", or use --config.run.devices={over_replicates}"
    for size in batch_sizes:
        if size % over_data:
            return (
                f"config.data.batch_size: expected a multiple of {over_data}, the "
                f"devices that share a batch, got a batch of {size} examples; change "
                "the batch size, set --config.data.drop_last=true if it is an epoch's "
                f"smaller last one{'' if over_replicates % processes else fewer}"
            )
    if parallelism == "pmap" and over_replicates > 1 and over_data > 1:
        return (
            "config.run.parallelism: expected 'jit' where replicates and batches are "
            f"both split, got 'pmap' for {replicates} replicates on {count} "
            f"devices; use --config.run.parallelism=jit or "
            f"--config.run.devices={over_replicates}"
        )
    return None


def of(layout: MeshLayout, *axes: str | tuple[str, ...] | None) -> NamedSharding:
    """Returns the sharding of an array, given the mesh axis of each array axis.

    Args:
      layout: mesh of devices.
      *axes: for each array axis the name of a mesh axis, several names, or None for an
        axis that is not split. Missing axes are not split.
    """
    return NamedSharding(layout.mesh, PartitionSpec(*axes))


def to_all(layout: MeshLayout) -> NamedSharding | None:
    """Returns the sharding of results that every process reads.

    Args:
      layout: mesh of devices and placement of arrays on it.

    Returns:
      A sharding with a whole copy on every device. With a single process, which can
      read all devices, None, which leaves the sharding to the compiler.
    """
    return of(layout) if multihost.is_multiprocess() else None
