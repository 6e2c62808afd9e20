"""Opens earlier runs, and makes training start from their weights or masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import masks as masks_lib
from jaxsparse import metrics_log, multihost, transforms, tree
from jaxsparse.data import dataset as dataset_lib
from jaxsparse.data import fingerprint
from jaxsparse.data.data_pruning import score_files
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import components
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory.durations import make_durations, make_epoch
from jaxsparse.lottery import instability, tickets
from jaxsparse.lottery.task import TrainTask, dense_masks, first_state
from jaxsparse.tost import ghost_skips
from jaxsparse.training import checkpoints
from jaxsparse.training import state as state_lib
from jaxsparse.training import workdir as workdir_lib
from jaxsparse.training.optimizers import LearningRate
from jaxsparse.training.state import Seeds, TrainState
from jaxsparse.types import Masks


class TrainedRun(NamedTuple):
    """An earlier run, opened for reading.

    Attributes:
      folder: the run directory.
      config: its config.
      dataset: the data it was trained on.
      network: what was trained.
      seeds: random keys of its replicates.
      learning_rate: learning rate as a function of the training step.
    """

    folder: Path
    config: ConfigDict
    dataset: Dataset
    network: TrainTask
    seeds: Seeds
    learning_rate: LearningRate


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
            f"{folder}: no run is there ({error}); wanted a folder that "
            "experiments/train.py made"
        ) from error
    if execute:
        config_lib.kept.execute(folder)
    return config_lib.from_json(fields)


def open_run(
    folder: str | Path, *, data_dir: str = "", dataset: Dataset | None = None
) -> TrainedRun:
    """Opens a run together with its dataset.

    Args:
      folder: the run directory.
      data_dir: directory of prepared TFDS datasets; "" uses the one of the run.
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
        dataset = components.load_data(c)
        _check_data(folder, dataset)
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
    sizes = multihost.broadcast_from_primary(lambda: workdir_lib.recorded_sizes(folder))
    if sizes is not None:
        return _build(folder, c, dataset_lib.of_zeros(**sizes._asdict()))
    try:
        dataset = components.load_data(c)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{folder}: expected its {workdir_lib.DATA}, which says how many classes "
            f"there are and how large images are, got none; its data cannot be read "
            f"instead ({error}); give the command that trained it once more where the "
            "data are, which writes the file, and trains nothing if the run has ended"
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
    seeds = state_lib.make_seeds(**c.seeds, replicates=c.replicates)
    rate = components.make_rate(c, length)
    return TrainedRun(folder, c, dataset, network, seeds, rate)


def _check_data(folder: Path, dataset: Dataset) -> None:
    """Checks that the dataset has not changed since a run was trained.

    Args:
      folder: the run directory.
      dataset: the dataset as it is now.

    Raises:
      ValueError: if it differs from the fingerprint in the run directory.
    """

    def find() -> list[str]:
        if not (folder / workdir_lib.DATA).exists():
            return []
        return workdir_lib.changed_data(folder, fingerprint.of(dataset))

    found = multihost.broadcast_from_primary(find)
    if found:
        raise ValueError(
            f"{folder}: was trained on other examples than config.data has now: "
            f"{'; '.join(found)}; expected the same; restore them, or train it again"
        )


def load_state(run: TrainedRun, moment: str) -> TrainState:
    """Loads a checkpoint of a run, in the checkpoint layout.

    Args:
      run: a run opened with `open_run`.
      moment: name of a checkpoint, such as "init" or "level_00/ticket/last".

    Returns:
      The state. Leaves are [r ...], counters are scalars; in checkpoints of children,
      with c children per replicate, leaves are [r * c ...].

    Raises:
      ValueError: if it is corrupt or missing; the message lists the checkpoints that
        exist.
      OSError: if the machine cannot read it.
    """
    directory = run.folder / "checkpoints"
    # JAX's key-reuse checker would count a second checkpoint as a second use of the
    # keys.
    seeds = jax.tree.map(jax.random.clone, run.seeds)
    if f"/{instability.ARM}_" in moment:
        seeds = instability.copies(seeds, max(1, run.config.instability.copies))
    saved = checkpoints.read(directory, moment, first_state(run.network, seeds))
    if saved is None:
        notes = sorted(directory.rglob("*.json"))
        there = [str(note.relative_to(directory).with_suffix("")) for note in notes]
        raise ValueError(
            f"{run.folder}: no whole checkpoint {moment!r}; wanted one of {there}"
        )
    return saved.state


def check(config: ConfigDict) -> None:
    """Checks that a warm start names a run, and that everything it provides is used.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if fields exclude each other or would have no effect; the message
        names the config field.
    """
    c, method = config.warm_start, config.sparse.method
    files = c.masks.endswith(".npz")
    # Ticket files are named by their own path and need no run.
    wants = bool(c.weights) or (bool(c.masks) and not files)
    if wants != bool(c.run):
        raise ValueError(
            f"config.warm_start.run: came {c.run!r} with weights {c.weights!r} and masks "
            f"{c.masks!r}; wanted a run's folder and what to take of it, or neither"
        )
    if c.replicate != -1 and not (c.weights or c.masks):
        raise ValueError(
            f"config.warm_start.replicate: came {c.replicate} and nothing to take of it; "
            "wanted -1, or warm_start.weights or warm_start.masks"
        )
    methods = config_lib.METHODS
    if c.masks and not methods.find(method).keeps_counts:
        known = [name for name, spec in methods.items() if spec.keeps_counts]
        raise ValueError(
            f"config.warm_start.masks: came {c.masks!r} with sparse.method {method!r}; "
            f"wanted one of {known}, which train the masks they are given"
        )
    _check_redraws(config)
    if c.weights and config.sparse.ablation == "reinitialized":
        raise ValueError(
            f"config.warm_start.weights: came {c.weights!r} with sparse.ablation "
            "'reinitialized', which draws others; wanted one of the two"
        )
    if c.masks:
        _check_nothing_chooses(config)
    if c.weights and (config.init.sparse_init or config.init.shared):
        raise ValueError(
            f"config.warm_start.weights: came {c.weights!r} with init.sparse_init "
            f"{config.init.sparse_init!r} and init.shared {config.init.shared}; wanted '' "
            "and False, which are for fresh weights"
        )


def _check_redraws(config: ConfigDict) -> None:
    """Checks that weights redrawn for their masks are used, and that options apply.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if they would not be used, or an option has no effect; the message
        names the config field.
    """
    c, lottery, plain = config.init, config.lottery, config_lib.default().init
    if c.sparse_init and (lottery.levels or lottery.rewind != "0step"):
        raise ValueError(
            f"config.init.sparse_init: came {c.sparse_init!r} with lottery.levels "
            f"{lottery.levels} and rewind {lottery.rewind!r}; wanted no levels: they "
            "rewind to weights drawn for dense layers"
        )
    if c.sparse_init and c.shared:
        raise ValueError(
            f"config.init.shared: came True with init.sparse_init {c.sparse_init!r}, which draws "
            "for the masks of each replicate; wanted one of the two"
        )
    if c.shared and config.seeds.first:
        raise ValueError(
            f"config.init.shared: came True with seeds.first {config.seeds.first}; "
            "wanted seeds.first 0, whose weights all replicates share"
        )
    for name in ("sparse_init_distribution", "sparse_init_scale"):
        if c[name] != plain[name] and not c.sparse_init.startswith("fan_"):
            raise ValueError(
                f"config.init.{name}: came {c[name]!r} with init.sparse_init {c.sparse_init!r}; "
                "wanted init.sparse_init 'fan_in', 'fan_out' or 'fan_average'"
            )


def _check_nothing_chooses(config: ConfigDict) -> None:
    """Checks that no field for choosing masks is set when masks are given.

    Args:
      config: a config with `warm_start.masks`.

    Raises:
      ValueError: if one is set; the message names the config field.
    """
    c, plain = config.sparse, config_lib.default().sparse
    for name in config_lib.METHODS.find(c.method).chooses:
        if c[name] != plain[name]:
            raise ValueError(
                f"config.sparse.{name}: came {c[name]!r} with warm_start.masks "
                f"{config.warm_start.masks!r}, which are taken as they are; wanted "
                f"{plain[name]!r}"
            )


def apply_warm_start(
    config: ConfigDict, network: TrainTask, seeds: Seeds, workdir: Path
) -> tuple[TrainTask, dict[str, Any]]:
    """Makes a network start from the weights or masks of an earlier run.

    Args:
      config: a validated config.
      network: what is trained.
      seeds: random keys of its replicates.
      workdir: the run directory, to which the path of the earlier run is relative.

    Returns:
      The network with its new start. Also the hashes of what it starts from, for the
      record: "weights" and "masks" of the arrays, and "checkpoints", by name, of the
      files that contain them or select the training examples.

    Raises:
      ValueError: if the earlier run, checkpoint or file is missing or damaged, or
        belongs to another network.
    """
    c, origin = config.warm_start, {}
    if c.run:
        run = open_run((workdir / c.run).resolve(), data_dir=config.data.dir)
    if c.weights:
        state = load_state(run, c.weights)
        found = _take((state.params, state.batch_stats), config, "weights")
        found = _anywhere(found)
        weights = _with_ghosts(
            found, lambda: network.initialize(jax.random.clone(seeds.init)), "weights"
        )
        # The hash is that of the other run's arrays, before ghost skips are added.
        origin["weights"] = checkpoints.digest(found)
        network = network._replace(first_weights=lambda keys: weights)
    if c.masks.endswith(".npz"):
        masks = _from_files(c.masks, config, network, seeds)
    elif c.masks:
        held = transforms.get_masks(load_state(run, c.masks).opt_state)
        dense = dense_masks(network, config.replicates)
        held = ghost_skips.strip_ghosts(_anywhere(_take(held, config, "masks")))
        masks = _of_layers(held, ghost_skips.strip_ghosts(dense))
        (masks,) = _with_ghosts((masks,), lambda: (dense,), "masks")
    if c.masks:
        origin["masks"] = checkpoints.digest(masks)
        network = network._replace(first_masks=lambda *start: masks)
    recorded = recorded_hashes(config, workdir)
    return network, origin | ({"checkpoints": recorded} if recorded else {})


def _anywhere(tree: Any) -> Any:
    """Copies arrays to the host and back, so that no program is bound to their devices.

    Loaded arrays are committed to their devices, and JAX rejects programs that mix them
    with arrays on other devices.

    Args:
      tree: arrays.
    """
    return jax.tree.map(jnp.asarray, multihost.to_host(tree))


def recorded_hashes(config: ConfigDict, workdir: Path) -> dict[str, str | None]:
    """Returns the hashes of the files that a run starts from.

    These are checkpoints and the scores of examples. No checkpoint is opened: its hash
    is in its metadata.

    Args:
      config: a validated config.
      workdir: the run directory, to which other paths are relative.

    Returns:
      Hashes by name of the checkpoint or file; None for a missing one.
    """
    c = config.warm_start
    names = {name for name in (c.weights, c.masks) if name and c.run}
    directory = (workdir / c.run).resolve() / "checkpoints"
    found = {
        name: checkpoints.recorded_hash(directory, name)
        for name in sorted(names)
        if not name.endswith(".npz")
    }
    scores = pretraining_lib.score_file(config, workdir)
    if scores is not None:
        held = score_files.digest(scores) if scores.is_file() else None
        found[config.pretraining.scores] = held
    return found


def _take(tree: Any, config: ConfigDict, field: str) -> Any:
    """Selects the requested replicates of a tree [r ...].

    Args:
      tree: arrays of the earlier run.
      config: a validated config; `warm_start.replicate` selects one replicate for all, or -1
        the replicates with the same numbers.
      field: what the tree contains, for the message.

    Raises:
      ValueError: if the earlier run does not have such a replicate.
    """
    there, wanted = len(jax.tree.leaves(tree)[0]), config.warm_start.replicate
    first = config.seeds.first
    end = first + config.replicates
    if wanted >= there or (wanted == -1 and end > there):
        raise ValueError(
            f"config.warm_start.replicate: came {wanted} for {config.replicates} "
            f"replicates from number {first}; the {field} of {config.warm_start.run} are "
            f"those of {there}; wanted one in [0, {there}), or replicates among these"
        )
    rows = jnp.arange(first, end) if wanted == -1 else jnp.int32(wanted)
    rows = jnp.broadcast_to(rows, config.replicates)
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _with_ghosts(
    found: tuple[Any, ...], make: Callable[[], tuple[Any, ...]], field: str
) -> tuple[Any, ...]:
    """Adds this network's ghost skips to trees of another run, and removes the other's.

    Ghost skips of the other run are kept if both networks have the same ones. Nothing
    is computed unless ghost skips are missing.

    Args:
      found: trees of the other run, such as parameters and batch statistics.
      make: makes the trees of this network, for their ghost skips.
      field: what the trees contain, for messages.

    Raises:
      ValueError: if other leaves differ in name or shape.
    """
    wanted = jax.eval_shape(make)
    if alike := jax.tree.structure(found) == jax.tree.structure(wanted):
        plain = wanted
    else:
        found, plain = (
            tuple(map(ghost_skips.strip_ghosts, trees)) for trees in (found, wanted)
        )
    for pair in zip(found, plain, strict=True):
        _check_alike(*pair, field)
    if alike:
        return found
    return tuple(
        ghost_skips.merge_ghosts(*pair) for pair in zip(make(), found, strict=True)
    )


def _of_layers(found: Masks, like: Masks) -> Masks:
    """Fits masks of another run to the layers that have masks in this network.

    A missing mask means that the layer is dense. Masks of all True may therefore be
    dropped, and missing ones added. Trees of another structure are returned unchanged,
    so that the caller rejects them.

    Args:
      found: masks of the other run.
      like: dense masks of this network.
    """

    def is_leaf(leaf: Any) -> bool:
        return leaf is None

    def one(there: Any, here: Any) -> Any:
        if there is None and here is not None:
            return here
        return None if here is None and there is not None and there.all() else there

    structures = {jax.tree.structure(tree, is_leaf=is_leaf) for tree in (found, like)}
    if len(structures) > 1:
        return found
    return jax.tree.map(one, found, like, is_leaf=is_leaf)


def _from_files(
    name: str, config: ConfigDict, network: TrainTask, seeds: Seeds
) -> Masks:
    """Reads masks from ticket files, one per replicate.

    Args:
      name: path of the files; "{replicate}" in it is replaced by the replicate's
        number.
      config: a validated config.
      network: what is trained.
      seeds: random keys of its replicates.

    Returns:
      Masks [r ...].

    Raises:
      ValueError: if a file is missing, damaged, or of another network.
    """
    chosen = config.warm_start.replicate
    own = range(config.seeds.first, config.seeds.first + config.replicates)
    numbers = [r if chosen == -1 else chosen for r in own]
    params = jax.eval_shape(network.initialize, seeds.init)[0]
    one = state_lib.of_one(params)
    each = []
    for path in (name.replace("{replicate}", str(r)) for r in numbers):
        packed = tickets.read(path)
        # The ticket determines which leaves have masks; `_of_layers` adapts them to
        # this network.
        like = masks_lib.ones(one, prunable=lambda leaf, _, of=packed: leaf in of)
        each.append(_of_layers(masks_lib.unpack(packed, like), network.masks))
    masks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    dense = dense_masks(network, config.replicates)
    _check_alike(masks, dense, "masks")
    return masks


def _check_alike(found: Any, wanted: Any, field: str) -> None:
    """Checks that two trees have leaves of the same names and shapes.

    Args:
      found: tree of the other run.
      wanted: tree of this network.
      field: what the trees contain, for the message.

    Raises:
      ValueError: naming the first leaf that differs.
    """
    there, here = (
        {name: leaf.shape for name, leaf in tree.named_leaves(each).items()}
        for each in (found, wanted)
    )
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"config.warm_start.{field}: {name} has shape {there.get(name)} there and "
                f"{here.get(name)} here; wanted a run of the same network"
            )
