"""Lays a run out on devices, as its config describes it."""

import functools

import jax
from ml_collections import ConfigDict

from jaxsparse.runner.task import TrainTask, first_state
from jaxsparse.training import mesh, state_sharding
from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.state import Seeds


def make_layout(config: ConfigDict, epoch: EpochSpec) -> MeshLayout:
    """Makes the device mesh for the batch sizes of an epoch.

    Args:
      config: a validated config.
      epoch: number of steps and batch sizes of an epoch.
    """
    # An epoch of one step has no full batch, only a last one.
    sizes = [epoch.batch_size] * (epoch.steps > 1) + [epoch.last_batch]
    return mesh.make_layout(
        replicates=config.replicates,
        batch_sizes=sizes,
        parallelism=config.run.parallelism,
        devices=config.run.devices,
        fsdp=_fsdp(config),
    )


def _fsdp(config: ConfigDict) -> mesh.FSDPSpec | None:
    """Returns how parameters are sharded over devices; None to keep them whole."""
    c = config.run
    if not c.fsdp:
        return None
    return mesh.FSDPSpec(tuple(map(tuple, c.fsdp_rules)), c.fsdp_min_size)


def shard_task(task: TrainTask, layout: MeshLayout, seeds: Seeds) -> TrainTask:
    """Makes a task initialize its states sharded.

    No device ever holds a whole copy of a sharded parameter, not even during
    initialization.

    Args:
      task: what is trained.
      layout: mesh of devices and placement of arrays on it.
      seeds: random keys of all replicates.

    Returns:
      The task; unchanged if parameters are not sharded.

    Raises:
      ValueError: if a sharding rule does not fit the weights; the message names the
        config field.
    """
    if layout.division is None:
        return task
    like = jax.eval_shape(functools.partial(first_state, task), seeds)
    # Also on one device, where nothing is sharded: it checks the rules.
    where = state_sharding.state_shardings(layout, like)
    if not layout.divides:
        return task
    return task._replace(
        initialize=jax.jit(
            task.initialize, out_shardings=(where.params, where.batch_stats)
        ),
        place=functools.partial(state_sharding.constrain, layout),
    )
