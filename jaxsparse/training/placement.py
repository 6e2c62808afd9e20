"""Places replicates and batches on the devices of a mesh, and fetches results."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxsparse import multihost
from jaxsparse.training import mesh
from jaxsparse.training.mesh import DATA, REPLICATE, MeshLayout


def replicate(layout: MeshLayout, tree: Any) -> Any:
    """Copies every leaf whole to every device.

    Args:
      layout: mesh of devices.
      tree: arrays, equal on all processes.

    Returns:
      The placed arrays; under pmap [devices ...].
    """
    if not layout.mapped:
        return multihost.device_put(tree, mesh.of(layout))
    stacked = mesh.of(layout, (REPLICATE, DATA))
    count = layout.mesh.size
    return jax.tree.map(
        # `np.broadcast_to` is a view, so the host holds a single copy.
        lambda leaf: jax.device_put(
            np.broadcast_to(np.asarray(leaf), (count, *np.shape(leaf))), stacked
        ),
        tree,
    )


def shard_examples(layout: MeshLayout, tree: Any) -> Any:
    """Shards host arrays [n ...] over the devices that share a batch.

    All devices get the same number of rows. Where n is not a multiple of their number,
    zeros are appended; the padding is never used as an example.

    Args:
      layout: mesh of devices.
      tree: numpy arrays [n ...], equal on all processes.

    Returns:
      The sharded arrays; under pmap [devices, rows of a device, ...].
    """
    parts = layout.data_devices

    def padded(leaf: np.ndarray) -> np.ndarray:
        missing = -len(leaf) % parts
        widths = [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)
        whole = np.pad(leaf, widths) if missing else leaf
        return whole.reshape(parts, -1, *leaf.shape[1:]) if layout.mapped else whole

    axis = (REPLICATE, DATA) if layout.mapped else DATA
    return multihost.device_put(jax.tree.map(padded, tree), mesh.of(layout, axis))


def shard_replicates(layout: MeshLayout, tree: Any) -> Any:
    """Moves leaves [r ...] to the devices, each replicate to those that train it.

    Args:
      layout: mesh of devices.
      tree: arrays that lead with the replicate axis.

    Returns:
      The sharded arrays; under pmap [devices, replicates of a device, ...].
    """
    if not layout.mapped:
        return multihost.device_put(tree, mesh.of(layout, REPLICATE))
    return jax.tree.map(lambda leaf: stack(layout, leaf), tree)


def shares(layout: MeshLayout, rows: Int[np.ndarray, "r s b"]) -> list[np.ndarray]:
    """Splits the example indices of steps over the devices of this process.

    Args:
      layout: mesh of devices.
      rows: example indices of r replicates, s steps and b positions in a batch, int.

    Returns:
      For each device of this process, in mesh order, the indices of its replicates and
      of its part of their batches.
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
    """Moves host arrays of batches to the devices of this process.

    Args:
      layout: mesh of devices.
      parts: for each device of this process, in mesh order, a tree of numpy arrays
        [r s b ...] with its replicates and its part of their batches, as selected by
        `shares`.

    Returns:
      Global arrays [r s b ...], sharded over replicates and batch; under pmap
      [devices ...].
    """
    groups, over_data = layout.mesh.devices.shape
    stacked = mesh.of(layout, (REPLICATE, DATA))
    divided = mesh.of(layout, REPLICATE, None, DATA)

    def one(*leaves: np.ndarray) -> jax.Array:
        r, s, b, *rest = leaves[0].shape
        if layout.mapped:
            leaves = tuple(leaf[None] for leaf in leaves)
        shape = (layout.mesh.size, r, s, b) if layout.mapped else None
        shape = shape or (groups * r, s, over_data * b)
        # Every process provides only the parts of its own devices.
        on_devices = [
            jax.device_put(leaf, device)
            for leaf, device in zip(leaves, layout.mesh.local_devices, strict=True)
        ]
        return jax.make_array_from_single_device_arrays(
            (*shape, *rest), stacked if layout.mapped else divided, on_devices
        )

    return jax.tree.map(one, *parts)


def on_host(layout: MeshLayout, tree: Any) -> Any:
    """Fetches arrays that were sharded by replicate, as numpy [r ...].

    Args:
      layout: mesh of devices.
      tree: tree of arrays as `shard_replicates` placed them, or of results sharded in
        the same way.

    Returns:
      The tree with whole NumPy arrays, on every process.
    """

    def by_replicate(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        if not layout.mapped:
            return leaf
        # pmap splits either batches or replicates, see `mesh.make_layout`: where
        # devices share a batch, all of them hold the same replicates.
        if layout.data_devices > 1:
            return leaf[0]
        return leaf.reshape(layout.replicates, *leaf.shape[2:])

    return jax.tree.map(by_replicate, multihost.to_host(tree))


def stack(layout: MeshLayout, leaf: Any) -> Any:
    """Moves [r ...] to the devices as [devices, replicates of a device, ...].

    Args:
      layout: mesh of devices and placement of arrays on it.
      leaf: an array [r ...].
    """
    stacked = mesh.of(layout, (REPLICATE, DATA))
    return jax.device_put(add_device_axis(layout, leaf), stacked)


def add_device_axis(layout: MeshLayout, leaf: Any) -> Any:
    """Converts [r ...] to [devices, replicates of a device, ...] for pmap.

    Args:
      layout: mesh of devices and placement of arrays on it.
      leaf: an array [r ...]. Devices that share a batch get the same replicates.
    """
    groups = layout.mesh.shape[REPLICATE]
    leaf = leaf.reshape(groups, -1, *leaf.shape[1:])
    if layout.data_devices > 1:
        leaf = jnp.broadcast_to(leaf, (layout.mesh.size, *leaf.shape[1:]))
    return leaf
