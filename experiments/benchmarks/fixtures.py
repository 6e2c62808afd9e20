"""The experiments that the benchmarks time.

A fixture is an experiment as `experiments/train.py` makes it, with a pruned state, but
without a run directory. Functions here turn it into timed jobs or compiled programs.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.benchmarks.timing import Job
from jaxsparse import config, factory, replicates, scores, select, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.runner.experiment import Experiment
from jaxsparse.training import placement, state_sharding
from jaxsparse.training import state as state_lib
from jaxsparse.training.chunk_plan import EpochSpec, ScanChunk
from jaxsparse.training.state import TrainState
from jaxsparse.types import Masks, Params

DENSITY = 0.2  # about the density of a ticket after seven levels

SHAPES = {
    "lenet_300_100": (28, 28, 1),
    "lenet_5": (28, 28, 1),
    "resnet_20": (32, 32, 3),
}


class Fixture(NamedTuple):
    """An experiment and a state to train.

    Attributes:
      experiment: what `factory.make_experiment` returned.
      dataset: what it trains on.
      config: the config that it was made from.
      state: the state before the first step, sparse, in the layout of checkpoints.
    """

    experiment: Experiment
    dataset: Dataset
    config: ConfigDict
    state: TrainState


def on_cpu() -> bool:
    """True on CPUs, where convolutions are slow and benchmarks are made short."""
    return jax.default_backend() == "cpu"


def random_dataset(
    shape: tuple[int, ...], *, examples: int, classes: int = 10
) -> Dataset:
    """Makes a dataset of random uint8 images, on which steps take as long as on others.

    Args:
      shape: shape [h w c] of an image.
      examples: number of training examples.
      classes: number of classes.
    """
    generator = np.random.default_rng(0)

    def draw(n: int) -> Examples:
        images = generator.integers(0, 256, (n, *shape), np.uint8)
        return Examples(images, generator.integers(0, classes, n).astype(np.int32))

    channels = shape[-1]
    mean, std = (0.5,) * channels, (0.25,) * channels
    return Dataset(draw(examples), draw(0), draw(64), classes, mean, std)


def normalized(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Returns uint8 images [... h w c] of a dataset as float32, on the host.

    Args:
      images: uint8 images [... h w c].
      dataset: the dataset, with mean and standard deviation of each channel.
    """
    mean, std = (np.float32(part) for part in (dataset.mean, dataset.std))
    return (images.astype(np.float32) / 255 - mean) / std


def recipe(
    network: str,
    *,
    replicates: int,
    batch_size: int,
    steps: int = 1,
    devices: int = 1,
) -> ConfigDict:
    """Makes the config of the LTH-MNIST protocol (SGD 0.1) with another network.

    Args:
      network: one of `SHAPES`, or another name of a model.
      replicates: seeds that are trained at once.
      batch_size: examples in a step.
      steps: steps in a call, as one scan. A call of one step has no loop.
      devices: number of devices.
    """
    c = config.default()
    c.replicates = replicates
    c.data.batch_size = batch_size
    c.data.drop_last = True
    c.model.name = network
    c.init.bias = "torch_default"
    c.schedule.learning_rate = 0.1
    c.run.devices = devices
    # A scan even where the automatic choice would be single steps.
    c.run.steps_per_call, c.run.scan = steps, True
    return c


def make(c: ConfigDict, dataset: Dataset) -> Fixture:
    """Makes the experiment, and prunes its network once by magnitude.

    If `c.sparse` trains sparsely from the start, the masks are those of its method.

    Args:
      c: the recipe.
      dataset: the dataset to train on.
    """
    experiment = factory.make_experiment(c, dataset, Path("unused"))
    network, seeds = experiment.task, experiment.seeds
    params, stats = network.initialize(seeds.init)
    if network.first_masks is None:
        masks = jax.jit(jax.vmap(lambda p: prune(p, network.masks)))(params)
    else:
        masks = network.first_masks(params, stats, seeds)
    state = state_lib.start(network.tx, params, stats, masks, step=0, keys=seeds.masks)
    return Fixture(experiment, dataset, c, state)


def prune(params: Params, masks: Masks) -> Masks:
    """Returns masks of the largest weights, `DENSITY` of them all.

    Args:
      params: weights of one replicate.
      masks: masks of all prunable weights, with the structure of the masks that are
        returned.
    """
    count = round(DENSITY * masks_lib.size(masks))
    return select.top_k_global(scores.magnitude(params, masks), count)


def first_replicate(fixture: Fixture) -> tuple[Params, Masks]:
    """Returns the weights and the masks of the first replicate.

    Args:
      fixture: an experiment with its state, from `make`.
    """
    masks = transforms.get_masks(fixture.state.opt_state)
    return replicates.take((fixture.state.params, masks), 0)


def trainer_job(fixture: Fixture) -> Job:
    """Times the trainer's compiled call, on batches in a new order each epoch.

    Args:
      fixture: an experiment with its state, from `make`.
    """
    trainer, layout = fixture.experiment.trainer, fixture.experiment.trainer.layout
    steps, size = trainer.loop.steps_per_call, fixture.config.data.batch_size
    program = trainer.compiled_steps(steps, size)
    keys = fixture.experiment.seeds.data
    sharded_keys = placement.shard_replicates(layout, keys)
    chunks = calls(trainer.epoch, steps=steps, batch_size=size)
    inputs = trainer.feed.iterate(keys, chunks)
    state = state_sharding.shard_state(layout, jax.tree.map(jnp.copy, fixture.state))
    # As in the trainer: forced host devices hang if many collectives are in flight.
    waits = on_cpu() and layout.mesh.size > 1

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            _, data = next(inputs)
            state, sums = program(state, data, sharded_keys)
            if waits:
                jax.block_until_ready(sums)
        jax.block_until_ready(state)

    return Job(run, steps * fixture.config.replicates)


def call_job(call: Callable[[], Any]) -> Job:
    """Times calls of a function; the result of each is waited for.

    Args:
      call: the function; it returns arrays.
    """

    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(call())

    return Job(run, 1)


def lower_step(fixture: Fixture) -> jax.stages.Lowered:
    """Lowers the trainer's program of one step, before the compiler optimizes it.

    Args:
      fixture: an experiment with its state, from `make`, with one step in a call.

    Raises:
      ValueError: if the calls of the fixture have more steps, and therefore a loop.
    """
    trainer, size = fixture.experiment.trainer, fixture.config.data.batch_size
    if trainer.loop.steps_per_call != 1:
        raise ValueError(
            f"steps: expected 1 in a call, got {trainer.loop.steps_per_call}; make the "
            "fixture with steps=1"
        )
    keys = fixture.experiment.seeds.data
    inputs = trainer.feed.iterate(keys, calls(trainer.epoch, steps=1, batch_size=size))
    _, data = next(inputs)
    copy = jax.tree.map(jnp.copy, fixture.state)
    state = state_sharding.shard_state(trainer.layout, copy)
    sharded_keys = placement.shard_replicates(trainer.layout, keys)
    program = jax.jit(trainer.compiled_steps(1, size), donate_argnums=0)
    return program.lower(state, data, sharded_keys)


def calls(epoch: EpochSpec, *, steps: int, batch_size: int) -> Iterator[ScanChunk]:
    """Yields calls of equal length without end, from the full batches of each epoch.

    Args:
      epoch: the length of an epoch.
      steps: steps in a call.
      batch_size: examples in a step.

    Raises:
      ValueError: if an epoch has fewer steps than a call.
    """
    if steps > epoch.steps:
        raise ValueError(
            f"steps: expected at most {epoch.steps}, the steps of an epoch, got "
            f"{steps}; give more examples"
        )
    for number in itertools.count():
        for first in range(0, epoch.steps - steps + 1, steps):
            step = number * epoch.steps + first
            yield ScanChunk(step, steps, number, first * batch_size, batch_size)
