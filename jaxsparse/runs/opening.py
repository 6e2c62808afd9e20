"""Opening a run for reading: weights, masks, records, and its network.

Nothing here needs the dataset, locks the folder, or changes anything in it.
"""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import build, hosts, records, transforms
from jaxsparse import config as config_lib
from jaxsparse.lottery import stages, tickets
from jaxsparse.tost import skips
from jaxsparse.training.state import TrainState
from jaxsparse.types import Masks, Params

if TYPE_CHECKING:
    import pandas as pd

Number = int | np.integer[Any]  # as in a table of records


def to_folder(path: str | Path, *, argument: str) -> Path:
    """Makes a path of the name of a folder; "~" is the home of its user.

    Raises:
      TypeError: if it is no path, naming the argument.
      ValueError: if it is empty, or there is no such user.
    """
    if not isinstance(path, str | Path):
        raise TypeError(
            f"{argument}: expected the path of a folder, got {type(path).__name__}"
        )
    if not str(path):
        raise ValueError(f"{argument}: expected the path of a folder, got ''")
    return config_lib.to_path(argument, str(path))


def load(folder: str | Path, *, execute: bool = True) -> "LoadedRun":
    """Opens the run in a folder for reading, finished or not.

    The dataset need not be there. Nothing is locked, moved or written, so a run that
    is being trained can be read too.

    Args:
      folder: of the run, as `experiments/train.py` or `jaxsparse.run` made it.
      execute: whether to execute the files in its folder that register scores,
        methods, networks or datasets of its user's. Say False for a folder whose
        origin you do not trust; what it uses must then be registered already.

    Raises:
      TypeError: if `folder` is no path.
      ValueError: if no run is there, or a file that it has kept fails.

    Examples:
      >>> run = jaxsparse.load("runs/digits")
      >>> logits = run.model().apply(run.variables(level=3), images, train=False)
    """
    path = to_folder(folder, argument="folder")
    return LoadedRun(path, build.read_config(path, execute=execute))


class LoadedRun:
    """A run, open for reading.

    Of methods that train latent dense weights, weights are those that the network
    computes with. Weights outside the masks are exactly zero.

    Attributes:
      folder: its folder.
      config: its config.
    """

    def __init__(self, folder: Path, config: ConfigDict) -> None:
        """Takes what `load` has read."""
        self.folder, self.config = folder, config
        self._latest: tuple[int, TrainState] | None = None

    def __repr__(self) -> str:
        """Says which run it is and what can be read of it."""
        return f"LoadedRun({str(self.folder)!r}, levels={self.levels()})"

    def levels(self) -> list[int]:
        """Lists the levels whose trained weights are there; 0 is the first.

        A run that does not prune level by level has level 0 alone. Weights that
        `run.keep` had deleted are not there.
        """
        directory = self.folder / "checkpoints"
        notes = directory.glob(f"level_*/{stages.TICKET}/last.json")
        found = (int(note.parts[-3].removeprefix("level_")) for note in notes)
        return sorted(n for n in found if (directory / _end(n)).is_dir())

    def params(
        self, level: Number | None = None, replicate: Number | None = 0
    ) -> Params:
        """Reads the weights with which a level's training ended.

        Args:
          level: times pruned, one of `levels()`; None for the last of them.
          replicate: its number, counted from 0; None for all, every leaf then leading
            with replicates.

        Returns:
          Parameters as the network has them, exactly zero outside the masks.

        Raises:
          TypeError: if `level` or `replicate` is no whole number.
          ValueError: if there is no such level or replicate, naming those there are;
            or if the weights are damaged.
          OSError: if the machine cannot read them.
        """
        return self.variables(level, replicate)["params"]

    def variables(
        self, level: Number | None = None, replicate: Number | None = 0
    ) -> dict[str, Any]:
        """Reads what the network is applied to.

        Args:
          level: as for `params`.
          replicate: as for `params`.

        Returns:
          "params" as from `params`, and "batch_stats": running statistics of
          BatchNorm, {} without.

        Raises:
          TypeError: as `params`.
          ValueError: as `params`.
          OSError: as `params`.
        """
        self._check_replicate(replicate)
        state = self._state(_one_of(level, self.levels(), self.folder))
        weights = transforms.forward_params(state.params, state.opt_state)
        found = {"params": weights, "batch_stats": state.batch_stats}
        return {
            name: _of(skips.without(each), replicate) for name, each in found.items()
        }

    def masks(self, level: Number | None = None, replicate: Number | None = 0) -> Masks:
        """Reads the masks of a level: where methods change them, those at its end.

        Args:
          level: as for `params`; also levels of a lottery run whose weights are not
            there, if their tickets are.
          replicate: as for `params`.

        Returns:
          A boolean array for each prunable leaf, None for others.

        Raises:
          TypeError: as `params`.
          ValueError: as `params`.
          OSError: as `params`.
        """
        self._check_replicate(replicate)
        trained, chosen = self.levels(), self._tickets()
        if level is None and trained:
            level = trained[-1]
        level = _one_of(level, sorted({*trained, *chosen}), self.folder)
        if level in trained:
            found = transforms.get_masks(self._state(level).opt_state)
        else:
            like, count = self._run.network.masks, self.config.replicates
            paths = [
                tickets.path_of(self.folder / "tickets", level, r) for r in range(count)
            ]
            each = [tickets.load(path, like) for path in paths]
            found = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        return _of(skips.without(found), replicate)

    def records(self) -> "pd.DataFrame":
        """Reads the records, one a row; fields that a record lacks are NaN.

        Raises:
          ValueError: if they are damaged.
        """
        import pandas as pd  # here and not above: it takes half a second

        rows = records.read(self.folder / "metrics.jsonl", fields=records.FIELDS)
        return pd.DataFrame(rows, columns=None if rows else list(records.FIELDS))

    def model(self) -> nn.Module:
        """Makes the network, to apply to what `variables` returns.

        Images are normalized by the mean and deviation of the training images before
        they come to the network, see `data.augment.normalize`.

        Raises:
          ValueError: if the run does not say how many classes there are and its data
            cannot be read.
        """
        return build.make_model(self.config, classes=self._run.dataset.classes)

    @functools.cached_property
    def _run(self) -> build.Run:
        return build.open_without_data(self.folder, self.config)

    def _state(self, level: int) -> TrainState:
        """Reads the end of a level; the last one read is kept."""
        if self._latest is None or self._latest[0] != level:
            self._latest = None  # before another one takes its memory
            self._latest = level, build.load_state(self._run, _end(level))
        return self._latest[1]

    def _tickets(self) -> list[int]:
        """Lists the levels of a lottery run all of whose tickets are there."""
        count, found = self.config.replicates, []
        if not self.config.lottery.levels:
            return found  # their masks may change while training
        for folder in (self.folder / "tickets").glob("level_*"):
            if match := re.fullmatch(r"level_(\d+)", folder.name):
                level = int(match[1])
                paths = [tickets.path_of(folder.parent, level, r) for r in range(count)]
                found += [level] if all(path.is_file() for path in paths) else []
        return found

    def _check_replicate(self, replicate: Number | None) -> None:
        if replicate is None:
            return
        if not _is_whole(replicate):
            raise TypeError(
                f"replicate: expected a whole number or None, got {replicate!r}"
            )
        if not 0 <= replicate < self.config.replicates:
            raise ValueError(
                f"replicate: expected a number in [0, {self.config.replicates}), or "
                f"None for all, got {replicate}"
            )


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _end(level: int) -> str:
    return f"level_{level:02d}/{stages.TICKET}/last"


def _one_of(level: Number | None, there: list[int], folder: Path) -> int:
    """Returns the level that is meant."""
    if level is not None and not _is_whole(level):
        raise TypeError(f"level: expected a whole number or None, got {level!r}")
    if not there:
        raise ValueError(
            f"{folder}: no level has been trained to its end there, or its weights "
            "were deleted (config.run.keep); expected at least one; train it on"
        )
    if level is not None and level not in there:
        raise ValueError(
            f"level: expected one of {there}, which are in {folder}, got {level}; "
            "others are not trained yet, or config.run.keep had them deleted"
        )
    return there[-1] if level is None else int(level)


def _of(tree: Any, replicate: Number | None) -> Any:
    """Takes a replicate of a tree [r ...], off the devices it was loaded to."""
    near = jax.tree.map(jnp.asarray, hosts.fetch(tree))
    if replicate is None:
        return near
    return jax.tree.map(lambda leaf: leaf[replicate], near)
