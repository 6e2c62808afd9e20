"""Ticket files: the masks of a level with one bit per weight, one file per replicate.

A ticket is a `.npz` file with the arrays of `masks.pack`. `load` returns the masks for
any network whose layers have the same names and shapes.
"""

import logging
import zipfile
from pathlib import Path

import jax
import numpy as np

from jaxsparse import arguments, metrics_log, multihost, npz_files
from jaxsparse import masks as masks_lib
from jaxsparse import replicates as replicates_lib
from jaxsparse.types import Masks

log = logging.getLogger(__name__)


@arguments.check(path=arguments.path, masks=arguments.masks)
def save(path: str | Path, masks: Masks) -> None:
    """Writes the masks of one replicate, completely or not at all.

    Args:
      path: file to write, ending in .npz.
      masks: concrete boolean masks of one replicate.

    Raises:
      OSError: if the file cannot be written.
    """
    content = npz_files.content(masks_lib.pack(masks))
    multihost.on_primary(lambda: metrics_log.write_atomically(Path(path), content))


@arguments.check(path=arguments.path, template=arguments.masks)
def load(path: str | Path, template: Masks) -> Masks:
    """Reads the masks that `save` wrote.

    Args:
      path: path of a ticket.
      template: masks with the expected tree structure and shapes, such as
        `masks.ones(params)`.

    Returns:
      The masks.

    Raises:
      ValueError: if the file is damaged or belongs to another network.

    Examples:
      >>> ticket = prune.prune(params, 0.9)
      >>> save("ticket.npz", ticket)
      >>> masks.num_active(load("ticket.npz", masks.ones(params)))
      8
    """
    return masks_lib.unpack(read(path), template)


@arguments.check(path=arguments.path)
def read(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the packed masks of a ticket, the input of `masks.unpack`.

    Args:
      path: path of a ticket.

    Returns:
      The arrays that `masks.pack` returned, by name, the same on every process.

    Raises:
      ValueError: if the file is damaged.
      OSError: if the machine cannot read it, which says nothing about its content.
    """

    def read_first() -> dict[str, np.ndarray]:
        with np.load(path) as packed:
            return dict(packed)

    try:
        return multihost.broadcast_from_primary(read_first)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        # A full disk or a missing permission does not mean that the ticket is damaged.
        if metrics_log.is_of_machine(error):
            raise
        raise ValueError(
            f"ticket {path}: expected a file that lottery.tickets.save wrote, got one "
            f"that cannot be read ({error}); restore it, or remove it and prune again"
        ) from error


@arguments.check(
    folder=arguments.path, level=arguments.integer(0), replicate=arguments.integer(0)
)
def path_of(folder: str | Path, level: int, replicate: int) -> Path:
    """Returns the path of a ticket in a run's directory of tickets.

    Args:
      folder: a run's directory of tickets.
      level: level of iterative magnitude pruning, from 0.
      replicate: number of the replicate, from 0.
    """
    return Path(folder) / f"level_{level:02d}" / f"replicate_{replicate}.npz"


@arguments.check(
    folder=arguments.path,
    level=arguments.integer(0),
    masks=arguments.masks,
    replicates=arguments.integer(1),
)
def save_level(
    folder: str | Path, level: int, masks: Masks, *, replicates: int
) -> None:
    """Writes the masks of a level, one file per replicate.

    Args:
      folder: a run's directory of tickets.
      level: level of iterative magnitude pruning, from 0.
      masks: concrete masks [r ...].
      replicates: number of replicates, r.
    """
    for r, mask in zip(range(replicates), replicates_lib.split(masks), strict=True):
        save(path_of(folder, level, r), mask)


@arguments.check(folder=arguments.path, masks=arguments.masks)
def save_final(folder: str | Path, masks: Masks) -> None:
    """Writes the final masks of sparse training, one file per replicate.

    Args:
      folder: a run's directory of tickets.
      masks: concrete masks [r ...].
    """
    for r, mask in enumerate(replicates_lib.split(masks)):
        save(Path(folder) / "final" / f"replicate_{r}.npz", mask)


@arguments.check(
    folder=arguments.path,
    level=arguments.integer(0),
    template=arguments.masks,
    replicates=arguments.integer(1),
)
def load_level(
    folder: str | Path, level: int, template: Masks, *, replicates: int
) -> Masks | None:
    """Reads the masks of a level.

    Args:
      folder: a run's directory of tickets.
      level: level of iterative magnitude pruning, from 0.
      template: masks of one replicate, with the expected tree structure and shapes.
      replicates: number of replicates that must be there, r.

    Returns:
      Masks [r ...]; None if a file is missing or, after a warning, damaged.
    """
    paths = [path_of(folder, level, r) for r in range(replicates)]
    # All processes must decide alike, even if a shared file system shows them old
    # content.
    if not multihost.broadcast_from_primary(
        lambda: all(path.exists() for path in paths)
    ):
        return None
    try:
        loaded = [load(path, template) for path in paths]
    except ValueError as error:
        # At level 0, the masks of a method that is sparse from the start.
        again = "trained weights are pruned" if level else "initial masks are chosen"
        log.warning("%s; now the %s again", error, again)
        return None
    # Joined on the host, which compiles nothing.
    return jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves)), *loaded)
