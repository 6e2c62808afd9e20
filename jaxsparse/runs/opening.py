"""Opens a run for reading: weights, masks, records, and its network.

Nothing in this module needs the dataset, locks the run directory, or changes its files.
"""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import extras, factory, metrics_log, multihost, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.lottery import tickets
from jaxsparse.runner import old_runs
from jaxsparse.runs import numbers, paths, starts
from jaxsparse.runs.numbers import Number
from jaxsparse.tost import ghost_skips
from jaxsparse.training.state import TrainState
from jaxsparse.types import Masks, Params

if TYPE_CHECKING:
    import pandas as pd


def load(folder: str | Path, *, execute: bool = True) -> "LoadedRun":
    """Opens a run for reading, finished or not.

    The dataset need not be available. Nothing is locked, moved or written, so a run
    that is still training can be read too.

    Args:
      folder: the run directory, as made by `experiments/train.py` or `jaxsparse.run`.
      execute: whether to execute the Python files in the run directory that register
        custom scores, methods, networks or datasets. Pass False for directories that
        you do not trust; custom parts of the run must then be registered already.

    Returns:
      The run.

    Raises:
      TypeError: if `folder` is not a path.
      ValueError: if the directory contains no run, or one of its files fails.

    Examples:
      >>> from configs import lth_digits
      >>> config = lth_digits.get_config("quick")
      >>> config.training.duration, config.lottery.levels = "1ep", 1
      >>> config.lottery.controls = ()
      >>> trained = jaxsparse.run(config, "runs/digits")
      >>> run = jaxsparse.load("runs/digits")
      >>> run.levels()
      [0, 1]
      >>> images = jnp.zeros((5, 8, 8, 1))  # normalized
      >>> run.model().apply(run.variables(level=1), images, train=False).shape
      (5, 10)
    """
    path = paths.to_folder(folder, argument="folder")
    return LoadedRun(path, factory.read_config(path, execute=execute))


class LoadedRun:
    """A run, opened for reading.

    All weights are those of the forward pass, also for methods with dense latent
    weights, and exactly zero outside the masks.

    Attributes:
      folder: the run directory.
      config: its config.
    """

    def __init__(self, folder: Path, config: ConfigDict) -> None:
        """Initializes the object; use `load` instead.

        Args:
          folder: the run directory.
          config: its config.
        """
        self.folder, self.config = folder, config
        self._latest: tuple[int, TrainState] | None = None

    def __repr__(self) -> str:
        """Returns the run directory and the levels that can be read."""
        return f"LoadedRun({str(self.folder)!r}, levels={self.levels()})"

    def levels(self) -> list[int]:
        """Returns the levels whose trained weights exist, increasing.

        Level 0 is the one before any pruning round; runs without iterative pruning have
        only this level. Levels whose weights were deleted because of
        `run.keep_checkpoints` are not included.
        """
        return sorted(old_runs.trained_levels(self.folder / "checkpoints"))

    def params(
        self, level: Number | None = None, replicate: Number | None = 0
    ) -> Params:
        """Reads the final weights of a level.

        Args:
          level: number of pruning rounds, one of `levels()`; None selects the last of
            them.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.

        Returns:
          Parameters of the network, exactly zero outside the masks.

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level or replicate does not exist (the message lists those
            that do), or the weights are corrupt.
          OSError: if the machine cannot read them.
        """
        return self.variables(level, replicate)["params"]

    def start_params(
        self, level: Number | None = None, replicate: Number | None = 0
    ) -> Params:
        """Reads the weights from which a level was trained.

        With the masks of a level of iterative pruning, they are the level's ticket.

        Args:
          level: number of pruning rounds; None selects the last level with trained
            weights.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.

        Returns:
          Parameters of the network, exactly zero outside the masks with which the level
          began: the initial weights or those of the rewinding step, or the final
          weights of an earlier level if `lottery.retrain` is not "rewind".

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level or replicate does not exist, or the weights are
            corrupt or deleted. Also for runs whose initial weights were rescaled or
            drawn again for the masks, by `gradinit.steps`, `init.sparse_init` or
            `sparse.ablation`.
          OSError: if the machine cannot read them.
        """
        starts.check(self.config)
        self._check_replicate(replicate)
        level = numbers.one_of(level, self.levels(), self.folder)
        source = starts.source(
            self.config,
            self.folder / "checkpoints",
            level,
            rewind=self._run.rewind,
        )
        state = (
            factory.load_state(self._run, source)
            if isinstance(source, str)
            else self._state(numbers.one_of(source, self.levels(), self.folder))
        )
        weights = transforms.forward_params(state.params, state.opt_state)
        weights = _of(ghost_skips.strip_ghosts(weights), replicate)
        if level in self._tickets(first=True):
            weights = masks_lib.apply(self._chosen(level, replicate), weights)
        return weights

    def variables(
        self, level: Number | None = None, replicate: Number | None = 0
    ) -> dict[str, Any]:
        """Reads the variables to which the network is applied.

        Args:
          level: number of pruning rounds, one of `levels()`; None selects the last of
            them.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.

        Returns:
          A dict with "params", exactly zero outside the masks, and "batch_stats", the
          running statistics of BatchNorm, {} for networks without.

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level or replicate does not exist (the message lists those
            that do), or the weights are corrupt.
          OSError: if the machine cannot read them.
        """
        self._check_replicate(replicate)
        state = self._state(numbers.one_of(level, self.levels(), self.folder))
        weights = transforms.forward_params(state.params, state.opt_state)
        found = {"params": weights, "batch_stats": state.batch_stats}
        return {
            name: _of(ghost_skips.strip_ghosts(each), replicate)
            for name, each in found.items()
        }

    def masks(self, level: Number | None = None, replicate: Number | None = 0) -> Masks:
        """Reads the masks of a level; those at its end if the method updates masks.

        Args:
          level: number of pruning rounds; None selects the last level with trained
            weights. For lottery-ticket runs also a level whose weights do not exist but
            whose ticket files do.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.

        Returns:
          A boolean array for each prunable leaf, None for other leaves.

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level or replicate does not exist (the message lists those
            that do), or the masks are corrupt.
          OSError: if the machine cannot read them.
        """
        self._check_replicate(replicate)
        trained, chosen = self.levels(), self._tickets()
        if level is None and trained:
            level = trained[-1]
        level = numbers.one_of(level, sorted({*trained, *chosen}), self.folder)
        if level in trained:
            found = transforms.get_masks(self._state(level).opt_state)
        else:
            return self._chosen(level, replicate)
        return _of(ghost_skips.strip_ghosts(found), replicate)

    def records(self) -> "pd.DataFrame":
        """Reads the records into a data frame with one row each.

        Returns:
          A data frame; fields that a record lacks are NaN.

        Raises:
          ValueError: if the file of records is damaged.
        """
        extras.require("pandas", purpose="tables of records")
        import pandas as pd  # here, because importing it takes half a second

        rows = metrics_log.read(
            self.folder / "metrics.jsonl", fields=metrics_log.FIELDS
        )
        return pd.DataFrame(rows, columns=None if rows else list(metrics_log.FIELDS))

    def model(self) -> nn.Module:
        """Makes the network that is applied to the result of `variables`.

        Its inputs are images normalized with mean and standard deviation of the
        training images, see `data.augment.normalize`.

        Raises:
          ValueError: if the run did not record the number of classes and its dataset
            cannot be loaded.
        """
        return factory.make_model(self.config, classes=self._run.dataset.classes)

    @functools.cached_property
    def _run(self) -> factory.TrainedRun:
        return factory.open_without_data(self.folder, self.config)

    def _state(self, level: int) -> TrainState:
        """Loads the final state of a level; the last loaded one is cached.

        Args:
          level: number of pruning rounds.
        """
        if self._latest is None or self._latest[0] != level:
            self._latest = None  # frees its memory before the next is loaded
            end = old_runs.trained_levels(self.folder / "checkpoints")[level]
            self._latest = level, factory.load_state(self._run, end)
        return self._latest[1]

    def _chosen(self, level: int, replicate: Number | None) -> Masks:
        """Reads the masks with which a level began, from its ticket files."""
        like, count = self._run.network.masks, self.config.replicates
        folder = self.folder / "tickets"
        each = [
            tickets.load(tickets.path_of(folder, level, r), like) for r in range(count)
        ]
        found = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        return _of(ghost_skips.strip_ghosts(found), replicate)

    def _tickets(self, *, first: bool = False) -> list[int]:
        """Returns the levels whose ticket files all exist.

        Args:
          first: whether masks that a method may have updated since count too.
        """
        count, found = self.config.replicates, []
        if not self.config.lottery.levels and not first:
            return found  # masks may be updated after the file was written
        for folder in (self.folder / "tickets").glob("level_*"):
            if match := re.fullmatch(r"level_(\d+)", folder.name):
                level = int(match[1])
                paths = [tickets.path_of(folder.parent, level, r) for r in range(count)]
                found += [level] if all(path.is_file() for path in paths) else []
        return found

    def _check_replicate(self, replicate: Number | None) -> None:
        """Checks that a replicate exists.

        Args:
          replicate: number of the replicate, counted from 0; None for all.

        Raises:
          TypeError: if it is not an integer.
          ValueError: if it does not exist.
        """
        if replicate is None:
            return
        if not numbers.is_whole(replicate):
            raise TypeError(
                f"replicate: expected a whole number or None, got {replicate!r}"
            )
        if not 0 <= replicate < self.config.replicates:
            raise ValueError(
                f"replicate: expected a number in [0, {self.config.replicates}), or "
                f"None for all, got {replicate}"
            )


def _of(tree: Any, replicate: Number | None) -> Any:
    """Selects a replicate of a tree [r ...], copied to the default device.

    Args:
      tree: arrays with a leading replicate axis, possibly on several devices.
      replicate: number of the replicate; None keeps all.
    """
    near = jax.tree.map(jnp.asarray, multihost.to_host(tree))
    if replicate is None:
        return near
    return jax.tree.map(lambda leaf: leaf[replicate], near)
