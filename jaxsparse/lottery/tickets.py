"""Tickets as files: the masks of a level, one bit a weight, one file a replicate.

A ticket is a `.npz` of what `masks.pack` returns; `load` gives the masks for any
network with layers of the same names and shapes.
"""

import io
import logging
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import masks as masks_lib
from jaxsparse import metrics_log, multihost
from jaxsparse.types import Masks

log = logging.getLogger(__name__)


def save(path: Path, masks: Masks) -> None:
    """Writes the masks of one replicate, whole or not at all.

    Args:
      path: file to write, ending in .npz.
      masks: concrete masks.
    """
    content = io.BytesIO()
    np.savez(content, **masks_lib.pack(masks))
    multihost.on_primary(lambda: metrics_log.write_atomically(path, content.getvalue()))


def load(path: str | Path, like: Masks) -> Masks:
    """Reads what `save` wrote.

    Args:
      path: a ticket.
      like: masks of the wanted nesting and shapes; `masks.dense(params)` will do.

    Returns:
      The masks.

    Raises:
      ValueError: if the file is damaged or is of another network.

    Examples:
      >>> ticket = load("tickets/level_08/replicate_0.npz", masks.dense(params))
    """
    return masks_lib.unpack(read(path), like)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a ticket for `masks.unpack`: what `masks.pack` returned.

    Raises:
      ValueError: if the file is damaged.
    """

    def read_first() -> dict[str, np.ndarray]:
        with np.load(path) as packed:
            return dict(packed)

    try:
        return multihost.broadcast_from_primary(read_first)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        if metrics_log.is_of_machine(error):
            raise
        raise ValueError(
            f"ticket {path}: cannot be read ({error}); wanted a file that "
            "lottery.tickets.save wrote"
        ) from error


def path_of(folder: Path, level: int, replicate: int) -> Path:
    """Names the file of a ticket within a run's folder of tickets."""
    return folder / f"level_{level:02d}" / f"replicate_{replicate}.npz"


def save_level(folder: Path, level: int, masks: Masks, *, replicates: int) -> None:
    """Writes the masks [r ...] of a level, one file a replicate."""
    for r in range(replicates):
        mask = jax.tree.map(lambda leaf, r=r: leaf[r], masks)
        save(path_of(folder, level, r), mask)


def save_final(folder: Path, masks: Masks) -> None:
    """Writes the masks [r ...] that sparse training ended with."""
    for r in range(len(jax.tree.leaves(masks)[0])):
        mask = jax.tree.map(lambda leaf, r=r: leaf[r], masks)
        save(folder / "final" / f"replicate_{r}.npz", mask)


def load_level(
    folder: Path, level: int, like: Masks, *, replicates: int
) -> Masks | None:
    """Reads the masks [r ...] of a level; None if one is missing or damaged.

    Args:
      folder: a run's folder of tickets.
      level: times pruned.
      like: masks of one replicate, of the wanted nesting and shapes.
      replicates: how many there must be.
    """
    paths = [path_of(folder, level, r) for r in range(replicates)]
    if not multihost.broadcast_from_primary(
        lambda: all(path.exists() for path in paths)
    ):
        return None
    try:
        loaded = [load(path, like) for path in paths]
    except ValueError as error:
        log.warning("%s; chosen again from the trained weights", error)
        return None
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *loaded)
