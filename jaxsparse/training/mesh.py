"""Where replicates and batches lie on the devices of all processes.

One mesh with two axes: replicates are spread over as many devices as divide their
number; the devices left over share each replicate's batch. In training each device
runs the same program on its part, by `shard_map` under `jit` or by `pmap`, so that both
give the same bits. This module and `placement` are the only ones that know devices.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from jaxsparse import multihost, transforms

REPLICATE, DATA = "replicate", "data"

log = logging.getLogger(__name__)


class FSDPSpec(NamedTuple):
    """How weights are divided, see `transforms.weight_specs`.

    Attributes:
      rules: which leaves along which of their axes.
      least: numbers of a leaf that is divided without a rule.
    """

    rules: transforms.Rules = ()
    least: int = transforms.LEAST


class MeshLayout(NamedTuple):
    """How a run uses its devices.

    Attributes:
      mesh: axes (replicate, data).
      parallelism: "jit" or "pmap".
      replicates: how many replicates there are, over all devices.
      division: of the weights of a replicate over the devices that share its batch;
        None where each has them whole.
    """

    mesh: Mesh
    parallelism: str
    replicates: int
    division: FSDPSpec | None = None

    @property
    def data_devices(self) -> int:
        """Devices that share a batch."""
        return self.mesh.shape[DATA]

    @property
    def batch_axis(self) -> str | None:
        """The axis over which training steps and BatchNorm average, if there is one."""
        return DATA if self.data_devices > 1 and not self.divides else None

    @property
    def divides(self) -> bool:
        """Whether weights are divided, and the compiler divides the program."""
        return self.division is not None and self.data_devices > 1

    @property
    def mapped(self) -> bool:
        """Whether arrays carry a leading axis of devices, as pmap wants them."""
        return self.parallelism == "pmap"


def make_layout(
    *,
    replicates: int,
    batch_sizes: Sequence[int],
    parallelism: str = "jit",
    devices: int = 0,
    fsdp: FSDPSpec | None = None,
) -> MeshLayout:
    """Chooses the mesh.

    Args:
      replicates: seeds trained at once.
      batch_sizes: sizes of batches that occur: the full one and a smaller last one.
      parallelism: "jit" or "pmap".
      devices: how many to use, of all processes together and as many of each; 0 for
        as many as the work can be divided over.
      fsdp: see `Layout`. Where no two devices share a batch nothing is divided.

    Returns:
      The layout.

    Raises:
      ValueError: if there are fewer devices, if a batch cannot be divided equally, if
        a process would have none, or if pmap would have to divide replicates and
        batches both, or weights, or to reach other processes.
    """
    there, processes = jax.devices(), jax.process_count()
    if devices > len(there) or devices % processes:
        also = (
            f" of {processes} processes, and as many of each"
            if multihost.is_multiprocess()
            else ""
        )
        raise ValueError(
            f"config.run.devices: came {devices}; wanted at most {len(there)}, the "
            f"devices JAX sees{also}; use 0 for as many as the work can be divided over"
        )
    if parallelism == "pmap" and processes > 1:
        raise ValueError(
            f"config.run.parallelism: came 'pmap' in {processes} processes; wanted "
            "'jit', which has the devices of all of them"
        )
    if parallelism == "pmap" and fsdp is not None:
        raise ValueError(
            "config.run.parallelism: came 'pmap' with run.weights 'sharded'; wanted "
            "'jit', under which the compiler divides the work on a weight"
        )
    for count in [devices] if devices else range(len(there), 0, -processes):
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
        log.warning("run.weights: whole, as no two devices share a batch here")
    if count < len(there):
        log.warning("%d of %d devices are used", count, len(there))
    grid = np.asarray(_first_of_each(there, count)).reshape(over_replicates, over_data)
    mesh = Mesh(grid, (REPLICATE, DATA), axis_types=(AxisType.Auto,) * 2)
    return MeshLayout(mesh, parallelism, replicates, fsdp)


def _first_of_each(devices: Sequence[Any], count: int) -> list[Any]:
    """Takes so many devices, as many of each process, process by process."""
    by_process: dict[int, list[Any]] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    share = count // len(by_process)
    if share > min(map(len, by_process.values())):
        each = {number: len(found) for number, found in by_process.items()}
        raise ValueError(
            f"config.run.devices: {count} devices cannot be taken equally from those "
            f"of the processes, {each}; wanted {len(each)} times the least of these"
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
    """Says why work cannot be divided over that many devices; None if it can."""
    count = over_replicates * over_data
    fewer = f", or use --config.run.devices={over_replicates}"
    for size in batch_sizes:
        if size % over_data:
            return (
                f"config.data.batch_size: a batch of {size} examples cannot be divided "
                f"over {over_data} devices; wanted a multiple of {over_data}; change "
                "the batch size, set --config.data.drop_last=true if it is an epoch's "
                f"smaller last one{'' if over_replicates % processes else fewer}"
            )
    if parallelism == "pmap" and over_replicates > 1 and over_data > 1:
        return (
            f"config.run.parallelism: pmap divides either replicates or batches; "
            f"{replicates} replicates on {count} devices need both; use "
            f"--config.run.parallelism=jit, or --config.run.devices={over_replicates}"
        )
    return None


def of(layout: MeshLayout, *axes: str | tuple[str, ...] | None) -> NamedSharding:
    """Returns the sharding of an array, axis by axis over those of the mesh."""
    return NamedSharding(layout.mesh, PartitionSpec(*axes))


def to_all(layout: MeshLayout) -> NamedSharding | None:
    """Returns the sharding of what every process is to read of a program's results.

    One process can read all of its devices: there it is None, which leaves it open.
    """
    return of(layout) if multihost.is_multiprocess() else None


def replicate(layout: MeshLayout, tree: Any) -> Any:
    """Puts a whole copy of every leaf on every device."""
    if not layout.mapped:
        return multihost.device_put(tree, of(layout))
    stacked = of(layout, (REPLICATE, DATA))
    count = layout.mesh.size
    return jax.tree.map(
        lambda leaf: jax.device_put(
            np.broadcast_to(np.asarray(leaf), (count, *np.shape(leaf))), stacked
        ),
        tree,
    )


def shard_examples(layout: MeshLayout, tree: Any) -> Any:
    """Divides host arrays [n ...] over the devices that share a batch.

    Each has as many rows, the last perhaps some that are no examples.
    """
    parts = layout.data_devices

    def padded(leaf: np.ndarray) -> np.ndarray:
        missing = -len(leaf) % parts
        widths = [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)
        whole = np.pad(leaf, widths) if missing else leaf
        return whole.reshape(parts, -1, *leaf.shape[1:]) if layout.mapped else whole

    axis = (REPLICATE, DATA) if layout.mapped else DATA
    return multihost.device_put(jax.tree.map(padded, tree), of(layout, axis))


def shard_replicates(layout: MeshLayout, tree: Any) -> Any:
    """Places leaves [r ...]: each device gets the replicates that it trains."""
    if not layout.mapped:
        return multihost.device_put(tree, of(layout, REPLICATE))
    return jax.tree.map(lambda leaf: stack(layout, leaf), tree)


def shares(layout: MeshLayout, rows: Int[np.ndarray, "r s b"]) -> list[np.ndarray]:
    """Divides what steps train on over the devices of this process.

    Args:
      layout: how the run uses its devices.
      rows: an example for each place in the batches of s steps.

    Returns:
      For each device here, in the order of the mesh, the rows of its replicates and of
      its part of their batches.
    """
    groups, parts = layout.mesh.devices.shape
    r, b = rows.shape[0] // groups, rows.shape[2] // parts
    here = jax.process_index()
    return [
        rows[i * r : (i + 1) * r, :, j * b : (j + 1) * b]
        for (i, j), device in np.ndenumerate(layout.mesh.devices)
        if device.process_index == here
    ]


def shard_batch(layout: MeshLayout, parts: Sequence[Any]) -> Any:
    """Places host arrays of batches, those of `shares` each on its device.

    Returns:
      Arrays [r s b ...], divided as `shares` says; under pmap [devices ...].
    """
    groups, over_data = layout.mesh.devices.shape
    stacked = of(layout, (REPLICATE, DATA))
    divided = of(layout, REPLICATE, None, DATA)

    def one(*leaves: np.ndarray) -> jax.Array:
        r, s, b, *rest = leaves[0].shape
        if layout.mapped:
            leaves = tuple(leaf[None] for leaf in leaves)
        shape = (layout.mesh.size, r, s, b) if layout.mapped else None
        shape = shape or (groups * r, s, over_data * b)
        on_devices = [
            jax.device_put(leaf, device)
            for leaf, device in zip(leaves, layout.mesh.local_devices, strict=True)
        ]
        return jax.make_array_from_single_device_arrays(
            (*shape, *rest), stacked if layout.mapped else divided, on_devices
        )

    return jax.tree.map(one, *parts)


def on_host(layout: MeshLayout, leaf: Any) -> np.ndarray:
    """Fetches a leaf placed as by `by_replicate`, as numpy [r ...]."""
    fetched = np.asarray(multihost.to_host(leaf))
    if not layout.mapped:
        return fetched
    if layout.data_devices > 1:
        return fetched[0]
    return fetched.reshape(layout.replicates, *fetched.shape[2:])


def stack(layout: MeshLayout, leaf: Any) -> Any:
    """Brings [r ...] to [devices, r of that device, ...]."""
    groups = layout.mesh.shape[REPLICATE]
    leaf = leaf.reshape(groups, -1, *leaf.shape[1:])
    if layout.data_devices > 1:
        leaf = jnp.broadcast_to(leaf, (layout.mesh.size, *leaf.shape[1:]))
    return jax.device_put(leaf, of(layout, (REPLICATE, DATA)))
