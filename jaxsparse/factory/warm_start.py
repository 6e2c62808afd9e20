"""Makes training start from the weights or masks of an earlier run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import masks as masks_lib
from jaxsparse import multihost, replicates, transforms, tree
from jaxsparse.factory import mask_alignment
from jaxsparse.factory.durations import config_context
from jaxsparse.factory.trained_run import (
    TrainedRun,
    load_state,
    open_run,
    open_without_data,
    read_config,
)
from jaxsparse.factory.warm_start_checks import is_ticket_file
from jaxsparse.factory.warm_start_hashes import recorded_hashes
from jaxsparse.lottery import elastic, tickets
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
      of the arrays, or "unaligned_masks" if they are aligned, and "checkpoints", by
      name, of the files that contain them or select the training examples.

    Raises:
      ValueError: if the earlier run, checkpoint or file is missing or damaged, or
        belongs to another network; or if a network to align by is not dense.
    """
    c, origin = config.warm_start, {}
    run = _open(c.run, config, workdir)
    if run is not None and c.weights:
        state = load_state(run, c.weights)
        found = _taken((state.params, state.batch_stats), config, "weights", run)
        # The hash is that of the other run's arrays, before blocks are repeated or
        # dropped and ghost skips are added.
        origin["weights"] = checkpoints.digest(found)

        def make() -> tuple[Any, Any]:
            return network.initialize(jax.random.clone(seeds.init))

        weights = _with_ghosts(_to_depth(found, make, config), make, "weights")
        start = network.start._replace(first_weights=lambda keys: weights)
        network = network._replace(start=start)
    if c.masks:
        if is_ticket_file(c.masks):
            masks = _from_files(c.masks, config, network, seeds)
        else:
            ticket = _open(c.masks_run, config, workdir, data=False) or run
            masks = _load_masks(ticket, config)
            if c.align:
                # Another device may round to other permutations. A run that has begun
                # trains the masks of its own ticket files.
                origin["unaligned_masks"] = checkpoints.digest(masks)
                masks = _align(masks, ticket, run, config)
            masks = _fit_masks(masks, config, network)
        if not c.align:
            origin["masks"] = checkpoints.digest(masks)
        network = network._replace(first_masks=lambda *start: masks)
    recorded = recorded_hashes(config, workdir)
    return network, origin | ({"checkpoints": recorded} if recorded else {})


def _open(
    folder: str | None, config: ConfigDict, workdir: Path, *, data: bool = True
) -> TrainedRun | None:
    """Opens another run; None if unset.

    Args:
      folder: its directory, relative to the run directory.
      config: a validated config.
      workdir: the run directory.
      data: whether its dataset is loaded. If not, zeros take its place.
    """
    if not folder:
        return None
    path = (workdir / folder).resolve()
    if data:
        return open_run(path, data_dir=config.data.dir)
    there = read_config(path)
    there.data.dir = config.data.dir or there.data.dir
    return open_without_data(path, there)


def _load_masks(ticket: TrainedRun, config: ConfigDict) -> Masks:
    """Loads the masks [r ...] of an earlier run, without those of ghost skips.

    Args:
      ticket: the run of the masks.
      config: a validated config; `warm_start.masks` names the checkpoint.
    """
    state = load_state(ticket, config.warm_start.masks)
    held = _taken(transforms.get_masks(state.opt_state), config, "masks", ticket)
    return ghost_skips.strip_ghosts(held)


def _align(
    held: Masks, ticket: TrainedRun, run: TrainedRun, config: ConfigDict
) -> Masks:
    """Aligns masks [r ...] to the run of the weights.

    Args:
      held: the masks.
      ticket: the run of the masks.
      run: the run of the weights.
      config: a validated config with `warm_start.align`.
    """
    both = []
    for each in (ticket, run):
        found = _taken(mask_alignment.load_variables(each), config, "weights", each)
        params, stats = map(ghost_skips.strip_ghosts, found)
        both.append({"params": params} | ({"batch_stats": stats} if stats else {}))
    return mask_alignment.align(config, held, *both, run)


def _fit_masks(held: Masks, config: ConfigDict, network: TrainTask) -> Masks:
    """Fits masks [r ...] of an earlier run to this network.

    Args:
      held: the masks.
      config: a validated config.
      network: the network to train.
    """
    dense = dense_masks(network.masks, config.replicates)
    (held,) = _to_depth((held,), lambda: (dense,), config)
    masks = _of_layers(held, ghost_skips.strip_ghosts(dense))
    (masks,) = _with_ghosts((masks,), lambda: (dense,), "masks")
    return masks


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
