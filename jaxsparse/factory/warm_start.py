"""Makes training start from the weights or masks of an earlier run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import masks as masks_lib
from jaxsparse import multihost, replicates, transforms, tree
from jaxsparse.data.data_pruning import score_files
from jaxsparse.factory import dense_run, mask_alignment
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory.durations import config_context
from jaxsparse.factory.trained_run import TrainedRun, load_state, open_run
from jaxsparse.factory.warm_start_checks import is_ticket_file
from jaxsparse.lottery import elastic, tickets
from jaxsparse.runner import old_runs
from jaxsparse.runner.task import TrainTask, dense_masks
from jaxsparse.tost import ghost_skips
from jaxsparse.training import checkpoints
from jaxsparse.training import state as state_lib
from jaxsparse.training.state import Seeds
from jaxsparse.types import Masks


def apply_warm_start(
    config: ConfigDict, network: TrainTask, seeds: Seeds, workdir: Path
) -> tuple[TrainTask, dict[str, Any]]:
    """Makes a network start from the weights or masks of an earlier run.

    Args:
      config: a validated config.
      network: the network to train.
      seeds: random keys of its replicates.
      workdir: the run directory, to which the path of the earlier run is relative.

    Returns:
      The network with its new start, and hashes for the record: "weights" and "masks"
      of the arrays, and "checkpoints", by name, of the files that contain them or
      select the training examples.

    Raises:
      ValueError: if the earlier run, checkpoint or file is missing or damaged, or
        belongs to another network.
    """
    c, origin = config.warm_start, {}
    run = _open(c.run, config, workdir)
    if run is not None and c.weights:
        state = load_state(run, c.weights)
        found = _taken((state.params, state.batch_stats), config, "weights", run)
        found = _to_depth(
            found, lambda: network.initialize(jax.random.clone(seeds.init)), config
        )
        weights = _with_ghosts(
            found, lambda: network.initialize(jax.random.clone(seeds.init)), "weights"
        )
        # The hash is that of the other run's arrays, before ghost skips are added.
        origin["weights"] = checkpoints.digest(found)
        start = network.start._replace(first_weights=lambda keys: weights)
        network = network._replace(start=start)
    if c.masks:
        if is_ticket_file(c.masks):
            masks = _from_files(c.masks, config, network, seeds)
        else:
            ticket = _open(c.masks_run, config, workdir) or run
            masks = _load_masks(ticket, run, config, network)
        origin["masks"] = checkpoints.digest(masks)
        network = network._replace(first_masks=lambda *start: masks)
    recorded = recorded_hashes(config, workdir)
    return network, origin | ({"checkpoints": recorded} if recorded else {})


def _open(folder: str | None, config: ConfigDict, workdir: Path) -> TrainedRun | None:
    """Opens another run, whose path is relative to the run directory; None if unset."""
    if not folder:
        return None
    return open_run((workdir / folder).resolve(), data_dir=config.data.dir)


def _load_masks(
    ticket: TrainedRun, run: TrainedRun, config: ConfigDict, network: TrainTask
) -> Masks:
    """Loads the masks [r ...] of an earlier run, and fits them to this network.

    Args:
      ticket: the run of the masks.
      run: the run of the weights, to which `warm_start.align` aligns the masks.
      config: a validated config; `warm_start.masks` names the checkpoint.
      network: the network to train.
    """
    state = load_state(ticket, config.warm_start.masks)
    held = _taken(transforms.get_masks(state.opt_state), config, "masks", ticket)
    held = ghost_skips.strip_ghosts(held)
    if config.warm_start.align:
        theirs, ours = (_solution(each, config) for each in (ticket, run))
        held = mask_alignment.align(config, held, theirs, ours, run)
    dense = dense_masks(network.masks, config.replicates)
    (held,) = _to_depth((held,), lambda: (dense,), config)
    masks = _of_layers(held, ghost_skips.strip_ghosts(dense))
    (masks,) = _with_ghosts((masks,), lambda: (dense,), "masks")
    return masks


def _solution(run: TrainedRun, config: ConfigDict) -> dict[str, Any]:
    """Loads the variables [r ...] of the final dense network of an earlier run."""
    state = load_state(run, mask_alignment.DENSE)
    params = transforms.forward_params(state.params, state.opt_state)
    found = _taken((params, state.batch_stats), config, "weights", run)
    params, stats = map(ghost_skips.strip_ghosts, found)
    return {"params": params} | ({"batch_stats": stats} if stats else {})


def _to_depth(
    found: tuple[Any, ...], make: Callable[[], tuple[Any, ...]], config: ConfigDict
) -> tuple[Any, ...]:
    """Transfers trees of another run to the depth of this network, if it is to be.

    Args:
      found: trees of the other run, such as parameters and batch statistics.
      make: makes the trees of this network; only names are used.
      config: a validated config; `warm_start.depth` names the rule.

    Raises:
      ValueError: if the networks are of different families.
    """
    rule = config.warm_start.depth
    if not rule:
        return found
    with config_context("warm_start.depth"):
        return tuple(
            elastic.change_depth(*map(ghost_skips.strip_ghosts, pair), rule=rule)
            for pair in zip(found, jax.eval_shape(make), strict=True)
        )


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
    of_masks = [c.masks] if c.masks and not is_ticket_file(c.masks) else []
    ticket = c.masks_run or c.run
    dense = [mask_alignment.DENSE] if c.align else []
    found = _hashes(workdir, c.run, [c.weights, *dense] if c.weights else [])
    for name, held in _hashes(workdir, ticket, [*of_masks, *dense]).items():
        # Of the same name in two runs, that of the ticket gets the path of its run.
        found[f"{c.masks_run}/{name}" if c.masks_run else name] = held
    found = dict(sorted(found.items()))
    found |= dense_run.recorded_hashes(config, workdir)
    scores = pretraining_lib.score_file(config, workdir)
    if scores is not None:
        held = score_files.digest(scores) if scores.is_file() else None
        found[config.pretraining.scores] = held
    return found


def _hashes(workdir: Path, folder: str | None, names: list[str]) -> dict[str, Any]:
    """Returns the hashes of checkpoints of another run by name; None for missing."""
    directory = (workdir / (folder or "")).resolve() / "checkpoints"
    return {name: old_runs.recorded_hash(directory, name) for name in names}


def _taken(tree: Any, config: ConfigDict, field: str, run: TrainedRun) -> Any:
    """Selects the requested replicates of a tree [r ...].

    Args:
      tree: arrays of the earlier run.
      config: a validated config; `warm_start.replicate` selects one replicate for all,
        or None the replicates with the same numbers.
      field: "weights" or "masks", for the message.
      run: the earlier run.

    Raises:
      ValueError: if the earlier run does not have such a replicate.
    """
    count, chosen = len(jax.tree.leaves(tree)[0]), config.warm_start.replicate
    first = config.seeds.first
    end = first + config.replicates
    if (end if chosen is None else chosen + 1) > count:
        raise ValueError(
            f"config.warm_start.replicate: expected one of the {count} replicates that "
            f"the {field} of {run.folder} have, got {chosen} for replicates "
            f"{first} to {end - 1}; choose one below {count}, or train fewer replicates"
        )
    rows = jnp.arange(first, end) if chosen is None else jnp.int32(chosen)
    rows = jnp.broadcast_to(rows, config.replicates)
    return jax.tree.map(lambda leaf: leaf[rows], _anywhere(tree))


def _with_ghosts(
    found: tuple[Any, ...], make: Callable[[], tuple[Any, ...]], field: str
) -> tuple[Any, ...]:
    """Adds this network's ghost skips to trees of another run, and removes the other's.

    Ghost skips of the other run are kept if both networks have the same ones. Nothing
    is computed unless ghost skips are missing.

    Args:
      found: trees of the other run, such as parameters and batch statistics.
      make: makes the trees of this network, for their ghost skips.
      field: "weights" or "masks", for messages.

    Raises:
      ValueError: if other leaves differ in name or shape.
    """
    expected = jax.eval_shape(make)
    if alike := jax.tree.structure(found) == jax.tree.structure(expected):
        plain = expected
    else:
        found, plain = (
            tuple(map(ghost_skips.strip_ghosts, trees)) for trees in (found, expected)
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
      network: the network to train.
      seeds: random keys of its replicates.

    Returns:
      Masks [r ...].

    Raises:
      ValueError: if a file is missing, damaged, or of another network.
    """
    chosen = config.warm_start.replicate
    own = range(config.seeds.first, config.seeds.first + config.replicates)
    numbers = [r if chosen is None else chosen for r in own]
    params = jax.eval_shape(network.initialize, seeds.init)[0]
    one = state_lib.of_one(params)
    each = []
    for path in (name.replace("{replicate}", str(r)) for r in numbers):
        packed = tickets.read(path)
        # The ticket determines which leaves have masks; `_of_layers` adapts them to
        # this network.
        like = masks_lib.ones(one, prunable=lambda leaf, _, of=packed: leaf in of)
        each.append(_of_layers(masks_lib.unpack(packed, like), network.masks))
    masks = replicates.stack(each)
    dense = dense_masks(network.masks, config.replicates)
    _check_alike(masks, dense, "masks")
    return masks


def _check_alike(found: Any, expected: Any, field: str) -> None:
    """Checks that two trees have leaves of the same names and shapes.

    Args:
      found: tree of the other run.
      expected: tree of this network.
      field: "weights" or "masks", for the message.

    Raises:
      ValueError: naming the first leaf that differs.
    """
    found_shapes, expected_shapes = (
        {name: leaf.shape for name, leaf in tree.named_leaves(each).items()}
        for each in (found, expected)
    )
    for name in sorted(found_shapes.keys() | expected_shapes.keys()):
        if found_shapes.get(name) != expected_shapes.get(name):
            raise ValueError(
                f"config.warm_start.{field}: expected {name} of shape "
                f"{expected_shapes.get(name)}, got {found_shapes.get(name)}; choose a "
                "run of the same network"
            )
