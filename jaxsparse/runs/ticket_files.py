"""The masks with which levels of a run began, from its ticket files."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import factory
from jaxsparse.lottery import tickets
from jaxsparse.tost import ghost_skips
from jaxsparse.types import Masks


def levels(folder: Path, config: ConfigDict, *, first: bool = False) -> list[int]:
    """Returns the levels whose ticket files all exist.

    Args:
      folder: the run directory.
      config: config of the run.
      first: whether masks that a method may have updated since count too.
    """
    count, found = config.replicates, []
    if not config.lottery.levels and not first:
        return found  # masks may be updated after the file was written
    for of_level in (folder / "tickets").glob("level_*"):
        if match := re.fullmatch(r"level_(\d+)", of_level.name):
            level = int(match[1])
            paths = [tickets.path_of(of_level.parent, level, r) for r in range(count)]
            found += [level] if all(path.is_file() for path in paths) else []
    return found


def read(run: factory.TrainedRun, level: int) -> Masks:
    """Reads the masks with which a level began.

    Args:
      run: the run.
      level: one of `levels`.

    Returns:
      Masks [r ...], without those of ghost skips.

    Raises:
      ValueError: if a file is corrupt.
    """
    folder, like = run.folder / "tickets", run.network.masks
    count = run.config.replicates
    each = [tickets.load(tickets.path_of(folder, level, r), like) for r in range(count)]
    found = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return ghost_skips.strip_ghosts(found)
