"""Opens earlier runs to read their config, dataset, network and checkpoints."""

from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import masks as masks_lib
from jaxsparse import metrics_log, multihost, transforms
from jaxsparse.data import dataset as dataset_lib
from jaxsparse.data import fingerprint
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import components, input_data
from jaxsparse.factory.durations import make_durations, make_epoch
from jaxsparse.lottery import instability
from jaxsparse.runner import old_runs
from jaxsparse.runner.task import TrainTask, first_state
from jaxsparse.stages import CHILDREN
from jaxsparse.training import checkpoints, data_record
from jaxsparse.training.optimizers import LearningRate
from jaxsparse.training.state import Seeds, TrainState

DENSE = "train/last"  # final network before any pruning round; also of a lottery


class TrainedRun(NamedTuple):
    """An earlier run, opened for reading.

    Attributes:
      folder: the run directory.
      config: its config.
      dataset: the data it was trained on.
      network: the network that was trained.
      seeds: random keys of its replicates.
      learning_rate: learning rate as a function of the training step.
      rewind: rewinding step of its levels; 0 for initialization.
    """

    folder: Path
    config: ConfigDict
    dataset: Dataset
    network: TrainTask
    seeds: Seeds
    learning_rate: LearningRate
    rewind: int = 0


def read_config(folder: Path, *, execute: bool = True) -> ConfigDict:
    """Reads the config of a run, and registers what it uses.

    Args:
      folder: the run directory.
      execute: whether to execute the Python files in the run directory that register
        scores, methods, networks or datasets; see `config.kept`.

    Returns:
      The config.

    Raises:
      ValueError: if the directory contains no run, or one of its files fails.
      OSError: if the machine cannot read it.
    """
    path = folder / "config.json"
    try:
        fields = multihost.broadcast_from_primary(lambda: config_lib.renames.read(path))
    except (OSError, ValueError) as error:
        # A disk that fails, or a missing permission, does not mean that there is no
        # run.
        if metrics_log.is_of_machine(error):
            raise
        raise ValueError(
            f"{folder}: expected the directory of a run, got none ({error}); give a "
            "directory that experiments/train.py made"
        ) from error
    if execute:
        config_lib.kept.execute(folder)
    return config_lib.from_json(fields)


def open_run(
    folder: str | Path, *, data_dir: str | None = None, dataset: Dataset | None = None
) -> TrainedRun:
    """Opens a run together with its dataset.

    Args:
      folder: the run directory.
      data_dir: directory of prepared TFDS datasets; None uses the one of the run.
      dataset: the data it was trained on, if already loaded; they are then not compared
        with the recorded fingerprint.

    Returns:
      The run.

    Raises:
      ValueError: if the directory contains no run, or its dataset is missing or has
        changed since.
    """
    folder = Path(folder)
    c = read_config(folder)
    if data_dir:
        c.data.dir = data_dir
    if dataset is None:
        dataset = input_data.load_data(c)
        check_data(folder, dataset)
    return _build(folder, c, dataset)


def open_without_data(folder: str | Path, c: ConfigDict) -> TrainedRun:
    """Opens a run with images and labels of zeros in place of its dataset.

    Their numbers and shapes are read from data.json in the run directory. Runs of older
    versions have no such file; for these the dataset is loaded.

    Args:
      folder: the run directory.
      c: the config of the run.

    Returns:
      The run.

    Raises:
      ValueError: if the run recorded no sizes and its dataset cannot be loaded.
    """
    folder = Path(folder)
    sizes = multihost.broadcast_from_primary(lambda: data_record.recorded_sizes(folder))
    if sizes is not None:
        return _build(folder, c, dataset_lib.of_zeros(**sizes._asdict()))
    try:
        dataset = input_data.load_data(c)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{folder}: expected {data_record.FILE}, which has the number of classes "
            f"and the size of images, got none, and its dataset cannot be loaded "
            f"({error}); repeat the command that trained the run where the data are, "
            "which writes the file, and trains nothing if the run has ended"
        ) from error
    return _build(folder, c, dataset)


def _build(folder: Path, c: ConfigDict, dataset: Dataset) -> TrainedRun:
    """Makes the network, seeds and learning rate of a run.

    Args:
      folder: the run directory.
      c: the config of the run.
      dataset: its dataset, or zeros of the same shape.
    """
    steps = make_epoch(c, len(dataset.train.labels)).steps
    length = make_durations(c, steps_per_epoch=steps)
    network = components.make_network(c, dataset, length)
    seeds = components.make_seeds(c)
    rate = components.make_rate(c, length)
    return TrainedRun(folder, c, dataset, network, seeds, rate, length.lottery.rewind)


def check_data(folder: Path, dataset: Dataset) -> None:
    """Checks that the dataset has not changed since a run was trained.

    Args:
      folder: the run directory.
      dataset: the dataset as it is now.

    Raises:
      ValueError: if it differs from the fingerprint in the run directory.
    """

    def find() -> list[str]:
        if not (folder / data_record.FILE).exists():
            return []
        return data_record.differences(folder, fingerprint.of(dataset))

    found = multihost.broadcast_from_primary(find)
    if found:
        raise ValueError(
            f"{folder}: expected the examples that the run was trained on, got others: "
            f"{'; '.join(found)}; restore them, or train the run again"
        )


def load_state(run: TrainedRun, moment: str) -> TrainState:
    """Loads a checkpoint of a run, in the checkpoint layout.

    Args:
      run: a run opened with `open_run`.
      moment: name of a checkpoint, such as "init", "train/last" or
        "level_01/ticket/last". "train" and "level_00/ticket" both name the stage of
        level 0.

    Returns:
      The state. Leaves are [r ...], counters are scalars; in checkpoints of copies,
      with c copies per replicate, leaves are [r * c ...].

    Raises:
      ValueError: if it is corrupt or missing; the message lists the checkpoints that
        exist.
      OSError: if the machine cannot read it.
    """
    directory = run.folder / "checkpoints"
    moment = multihost.broadcast_from_primary(
        lambda: old_runs.recorded_name(directory, moment)
    )
    # JAX's key-reuse checker would count a second checkpoint as a second use of the
    # keys.
    seeds = jax.tree.map(jax.random.clone, run.seeds)
    if f"/{CHILDREN}_" in moment:
        seeds = instability.copies(seeds, max(1, run.config.instability.copies))
    saved = checkpoints.read(directory, moment, first_state(run.network, seeds))
    if saved is None:
        notes = sorted(directory.rglob("*.json"))
        there = [str(note.relative_to(directory).with_suffix("")) for note in notes]
        raise ValueError(
            f"{run.folder}: expected one of the checkpoints {there}, got {moment!r}, "
            "which is missing or corrupt"
        )
    return saved.state


def load_dense(run: TrainedRun) -> TrainState:
    """Loads the trained dense network of a run, before any pruning round.

    Args:
      run: a run of ordinary training, or a lottery-ticket run.

    Returns:
      The state [r ...] at the end of training, or of level 0 of a lottery-ticket run.

    Raises:
      ValueError: if the checkpoint is corrupt or missing, or its network is not dense.
      OSError: if the machine cannot read it.
    """
    state = load_state(run, DENSE)
    masks = multihost.to_local(transforms.get_masks(state.opt_state))
    active, size = masks_lib.num_active(masks), masks_lib.size(masks)
    if active < size:
        raise ValueError(
            f"expected a dense network in {DENSE} of {run.folder}, got masks with "
            f"{active:,} of {size:,} weights active; choose a run with sparse.method "
            "'none', dense or of lottery tickets"
        )
    return state
