"""Opens a run for reading: weights, masks, records, and its network.

Nothing in this module needs the dataset, locks the run directory, or changes its files.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array
from ml_collections import ConfigDict

from jaxsparse import extras, factory, metrics_log, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.lottery import controls
from jaxsparse.runner import old_runs
from jaxsparse.runs import numbers, paths, starts, ticket_files
from jaxsparse.runs.numbers import Number
from jaxsparse.stages import TICKET
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
        self._latest: tuple[str, TrainState] | None = None

    def __repr__(self) -> str:
        """Returns the run directory and the levels that can be read."""
        return f"LoadedRun({str(self.folder)!r}, levels={self.levels()})"

    def variants(self) -> list[str]:
        """Returns the variants with trained weights of some level.

        These are "ticket", which is also the only network of a run without iterative
        pruning, and controls such as "random_mask" (`lottery.controls`).
        """
        return [name for name in (TICKET, *controls.NAMES) if self._ends(name)]

    def levels(self, variant: str = TICKET) -> list[int]:
        """Returns the levels whose trained weights exist, increasing.

        Level 0 is the one before any pruning round; runs without iterative pruning have
        only this level. Levels whose weights were deleted because of
        `run.keep_checkpoints` are not included.

        Args:
          variant: "ticket", or a control in `variants()`.

        Raises:
          ValueError: if the variant does not exist; the message lists those that do.
        """
        numbers.check_variant(variant, self.variants(), self.folder)
        return list(self._ends(variant))

    def params(
        self,
        level: Number | None = None,
        replicate: Number | None = 0,
        *,
        variant: str = TICKET,
    ) -> Params:
        """Reads the final weights of a level.

        Args:
          level: number of pruning rounds, one of `levels(variant)`; None selects the
            last of them.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.
          variant: "ticket", or a control in `variants()`.

        Returns:
          Parameters of the network, exactly zero outside the masks.

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level, replicate or variant does not exist (the message
            lists those that do), or the weights are corrupt.
          OSError: if the machine cannot read them.
        """
        return self.variables(level, replicate, variant=variant)["params"]

    def start_params(
        self,
        level: Number | None = None,
        replicate: Number | None = 0,
        *,
        variant: str = TICKET,
    ) -> Params:
        """Reads the weights from which a level was trained.

        With the masks of a level of iterative pruning, they are the level's ticket.

        Args:
          level: number of pruning rounds; None selects the last level with trained
            weights.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.
          variant: "ticket", or a control in `variants()`.

        Returns:
          Parameters of the network, exactly zero outside the masks with which the level
          began: the initial weights or those of the rewinding step, or the final
          weights of an earlier level if `lottery.retrain` is not "rewind".

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level, replicate or variant does not exist, or the weights
            are corrupt or deleted. Also for runs with `gradinit.steps`,
            `init.sparse_init` or `sparse.ablation`, which change initial weights.
          OSError: if the machine cannot read them.
        """
        starts.check(self.config)
        level = self._find(level, replicate, variant)
        checkpoints = self.folder / "checkpoints"
        source = starts.source(
            self.config, checkpoints, level, variant, rewind=self._run.rewind
        )
        if source is None:
            weights = starts.draw(self._run.network, self._run.seeds, level, variant)
        else:
            state = (
                factory.load_state(self._run, source)
                if isinstance(source, str)
                else self._state(self._find(source[0], replicate, source[1]), source[1])
            )
            weights = transforms.forward_params(state.params, state.opt_state)
            weights = starts.finish(self._run, weights, level=level, variant=variant)
        weights = numbers.of_replicate(ghost_skips.strip_ghosts(weights), replicate)
        if variant != TICKET:
            weights = masks_lib.apply(
                self.masks(level, replicate, variant=variant), weights
            )
        elif level in ticket_files.levels(self.folder, self.config, first=True):
            chosen = ticket_files.read(self._run, level)
            weights = masks_lib.apply(numbers.of_replicate(chosen, replicate), weights)
        return weights

    def variables(
        self,
        level: Number | None = None,
        replicate: Number | None = 0,
        *,
        variant: str = TICKET,
    ) -> dict[str, Any]:
        """Reads the variables to which the network is applied.

        Args:
          level: number of pruning rounds, one of `levels(variant)`; None selects the
            last of them.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.
          variant: "ticket", or a control in `variants()`.

        Returns:
          A dict with "params", exactly zero outside the masks, and "batch_stats", the
          running statistics of BatchNorm, {} for networks without.

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level, replicate or variant does not exist (the message
            lists those that do), or the weights are corrupt.
          OSError: if the machine cannot read them.
        """
        state = self._state(self._find(level, replicate, variant), variant)
        weights = transforms.forward_params(state.params, state.opt_state)
        found = {"params": weights, "batch_stats": state.batch_stats}
        return {
            name: numbers.of_replicate(ghost_skips.strip_ghosts(each), replicate)
            for name, each in found.items()
        }

    def masks(
        self,
        level: Number | None = None,
        replicate: Number | None = 0,
        *,
        variant: str = TICKET,
    ) -> Masks:
        """Reads the masks of a level; those at its end if the method updates masks.

        Args:
          level: number of pruning rounds; None selects the last level with trained
            weights. For lottery-ticket runs also a level whose weights do not exist but
            whose ticket files do.
          replicate: number of the replicate, counted from 0; None returns all, with a
            leading replicate axis.
          variant: "ticket", or a control in `variants()`.

        Returns:
          A boolean array for each prunable leaf, None for other leaves.

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level, replicate or variant does not exist (the message
            lists those that do), or the masks are corrupt.
          OSError: if the machine cannot read them.
        """
        chosen = variant == TICKET and ticket_files.levels(self.folder, self.config)
        level = self._find(level, replicate, variant, others=chosen or ())
        if level not in self._ends(variant):
            return numbers.of_replicate(ticket_files.read(self._run, level), replicate)
        found = transforms.get_masks(self._state(level, variant).opt_state)
        return numbers.of_replicate(ghost_skips.strip_ghosts(found), replicate)

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
        training images, see `data.augment.normalize`; or tokens, int32 [b t].

        Raises:
          ValueError: if the run did not record the number of classes and its dataset
            cannot be loaded.
        """
        return factory.make_model(self.config, classes=self._run.dataset.classes)

    def example_images(self) -> Array:
        """Returns zeros [1, h, w, c] or tokens from first to last, int32 [1, t].

        Raises:
          ValueError: if their size was not recorded and the dataset cannot be loaded.
        """
        dataset = self._run.dataset
        example = factory.example_input(self.config, dataset)
        last = dataset.classes - 1 if jnp.issubdtype(example.dtype, jnp.integer) else 0
        values = np.linspace(0, last, example.size).reshape(example.shape)
        return jnp.asarray(values, example.dtype)

    @functools.cached_property
    def _run(self) -> factory.TrainedRun:
        return factory.open_without_data(self.folder, self.config)

    def _ends(self, variant: str) -> dict[int, str]:
        """Returns the final checkpoints of a variant by level."""
        return old_runs.trained_levels(self.folder / "checkpoints", variant)

    def _find(
        self,
        level: Number | None,
        replicate: Number | None,
        variant: str,
        *,
        others: Sequence[int] = (),
    ) -> int:
        """Checks what was asked for, and returns the level.

        Args:
          level: number of pruning rounds; None selects the last with trained weights.
          replicate: number of the replicate, counted from 0; None for all.
          variant: "ticket", or a control.
          others: levels without trained weights that may be asked for too.

        Raises:
          TypeError: if `level` or `replicate` is not an integer.
          ValueError: if the level, replicate or variant does not exist.
        """
        numbers.check_replicate(replicate, self.config.replicates)
        trained = self.levels(variant)
        if level is None and trained:
            return trained[-1]
        there = sorted({*trained, *others})
        return numbers.one_of(level, there, self.folder, variant)

    def _state(self, level: int, variant: str) -> TrainState:
        """Loads the final state of a level of a variant; the last one is cached."""
        end = self._ends(variant)[level]
        if self._latest is None or self._latest[0] != end:
            self._latest = None  # frees its memory before the next is loaded
            self._latest = end, factory.load_state(self._run, end)
        return self._latest[1]
