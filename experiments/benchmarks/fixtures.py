"""What `experiments/train.py` would run for a network, without a run around it.

A rig is an experiment as `build` makes it, a state with 20 % of the weights kept, and
the calls that train it on.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.benchmarks.timing import Job
from jaxsparse import config, factory, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.runner.experiment import Experiment
from jaxsparse.training import mesh, state_sharding
from jaxsparse.training import state as state_lib
from jaxsparse.training.scan_chunks import EpochSpec, ScanChunk
from jaxsparse.training.state import TrainState
from jaxsparse.types import Masks, Params

DENSITY = 0.2  # about what is left after seven levels

SHAPES = {
    "lenet_300_100": (28, 28, 1),
    "lenet_5": (28, 28, 1),
    "resnet_20": (32, 32, 3),
}


class Rig(NamedTuple):
    """An experiment, and a state to train.

    Attributes:
      experiment: as `build` makes it.
      dataset: what it trains on.
      config: what it was made from.
      state: sparse and fresh, in the form of files.
    """

    experiment: Experiment
    dataset: Dataset
    config: ConfigDict
    state: TrainState


def random_dataset(
    shape: tuple[int, ...], *, examples: int, classes: int = 10
) -> Dataset:
    """Makes uint8 noise of the shape of a dataset; steps take as long as on images."""
    draw = np.random.default_rng(0)

    def part(n: int) -> Examples:
        images = draw.integers(0, 256, (n, *shape), np.uint8)
        return Examples(images, draw.integers(0, classes, n).astype(np.int32))

    channels = shape[-1]
    half, quarter = (0.5,) * channels, (0.25,) * channels
    return Dataset(part(examples), part(0), part(64), classes, half, quarter)


def normalized(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Returns uint8 images [... h w c] of a dataset as float32, on the host."""
    mean, std = (np.float32(part) for part in (dataset.mean, dataset.std))
    return (images.astype(np.float32) / 255 - mean) / std


def recipe(
    network: str,
    *,
    replicates: int,
    batch_size: int,
    steps: int = 1,
    devices: int = 1,
    by: str = "jit",
) -> ConfigDict:
    """Makes the config of the LTH-MNIST protocol (SGD 0.1), with another network.

    Args:
      network: one of `SHAPES`.
      replicates: seeds trained at once.
      batch_size: examples a step.
      steps: in each call, scanned; one has no loop around it.
      devices: how many to use.
      by: "jit" or "pmap".
    """
    c = config.default()
    c.replicates = replicates
    c.data.batch_size = batch_size
    c.data.drop_last = True
    c.model.name = network
    c.init.bias = "torch_default"
    c.schedule.learning_rate = 0.1
    c.run.devices = devices
    c.run.parallelism = by
    c.run.steps_per_call, c.run.dispatch = steps, "scan"  # also where that is slow
    return c


def make(c: ConfigDict, dataset: Dataset) -> Rig:
    """Builds the experiment and prunes its network once, by magnitude.

    Networks that `c.sparse` trains sparsely from the start begin with its masks.
    """
    experiment = factory.make_experiment(c, dataset, Path("unused"))
    network, seeds = experiment.task, experiment.seeds
    params, stats = network.initialize(seeds.init)
    if network.first_masks is None:
        masks = jax.jit(jax.vmap(lambda p: prune(p, network.masks)))(params)
    else:
        masks = network.first_masks(params, stats, seeds)
    state = state_lib.start(network.tx, params, stats, masks, step=0, keys=seeds.masks)
    return Rig(experiment, dataset, c, state)


def prune(params: Params, masks: Masks) -> Masks:
    """Keeps the largest 20 % of the weights."""
    kept = round(DENSITY * masks_lib.size(masks))
    return select.top_k_global(scores.magnitude(params, masks), kept)


def trainer_job(rig: Rig) -> Job:
    """Trains by the trainer's own program of usual calls, a fresh order an epoch."""
    trainer, layout = rig.experiment.trainer, rig.experiment.trainer.layout
    steps, size = trainer.loop.steps_per_call, rig.config.data.batch_size
    program = trainer.compiled_steps(steps, size)
    keys = rig.experiment.seeds.data
    placed = mesh.shard_replicates(layout, keys)
    asked = calls(trainer.epoch, steps=steps, batch_size=size)
    served = trainer.feed.iterate(keys, asked)
    state = state_sharding.shard_state(layout, jax.tree.map(jnp.copy, rig.state))
    # As in `build`: forced host devices hang if many collectives are in flight.
    waits = jax.default_backend() == "cpu" and layout.mesh.size > 1

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            _, data = next(served)
            state, tally = program(state, data, placed)
            if waits:
                jax.block_until_ready(tally)
        jax.block_until_ready(state)

    return Job(run, steps * rig.config.replicates)


def compile_step(rig: Rig) -> jax.stages.Compiled:
    """Compiles the trainer's program of one step, to look at it."""
    return lower_step(rig).compile()


def lower_step(rig: Rig) -> jax.stages.Lowered:
    """Lowers the trainer's program of one step, as it is before it is optimised.

    Raises:
      ValueError: if the rig's calls have more, so that there is a loop around it.
    """
    trainer, size = rig.experiment.trainer, rig.config.data.batch_size
    if trainer.loop.steps_per_call != 1:
        raise ValueError(f"calls have {trainer.loop.steps_per_call} steps; wanted 1")
    keys = rig.experiment.seeds.data
    served = trainer.feed.iterate(keys, calls(trainer.epoch, steps=1, batch_size=size))
    _, data = next(served)
    state = state_sharding.shard_state(
        trainer.layout, jax.tree.map(jnp.copy, rig.state)
    )
    placed = mesh.shard_replicates(trainer.layout, keys)
    program = jax.jit(trainer.compiled_steps(1, size), donate_argnums=0)
    return program.lower(state, data, placed)


def calls(epoch: EpochSpec, *, steps: int, batch_size: int) -> Iterator[ScanChunk]:
    """Yields calls of so many steps without end, those of an epoch's full batches.

    Raises:
      ValueError: if an epoch has fewer.
    """
    if steps > epoch.steps:
        raise ValueError(f"steps: got {steps}; wanted at most {epoch.steps}, an epoch")
    for number in itertools.count():
        for first in range(0, epoch.steps - steps + 1, steps):
            step = number * epoch.steps + first
            yield ScanChunk(step, steps, number, first * batch_size, batch_size)
