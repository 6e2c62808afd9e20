"""The LTH-MNIST workload in jaxsparse and in a plain PyTorch loop.

LeNet-300-100 with 20 % of its weights, batches of 128, SGD with learning rate 0.1.
"""

import functools
import importlib
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import fixtures, rows, timing
from experiments.benchmarks.fixtures import Fixture
from experiments.benchmarks.timing import Job, Table
from jaxsparse import factory, losses, replicates, transforms
from jaxsparse.data import augment, datasets
from jaxsparse.data.dataset import Dataset
from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.types import Masks, Params

TOLERANCE = 1e-4  # in nats, of losses near 2


def load_torch(name: str) -> ModuleType | None:
    """Imports a module of this package; None if torch, which is optional, is missing.

    Args:
      name: name of a module that imports torch.
    """
    try:
        return importlib.import_module(f"experiments.benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None


def load_data(data_dir: str | None, *, examples: int = 55_000) -> tuple[Dataset, str]:
    """Loads MNIST, or makes random images of its shape.

    Args:
      data_dir: folder of prepared datasets; None for random images.
      examples: number of random images.

    Returns:
      The dataset, and which of the two it is, in words.
    """
    if data_dir is None:
        shape = fixtures.SHAPES["lenet_300_100"]
        dataset = fixtures.random_dataset(shape, examples=examples)
        return dataset, "random uint8 of MNIST's shape"
    return datasets.load("mnist", data_dir=data_dir, validation=5000), "real MNIST"


def measure(
    *,
    seconds: float,
    data_dir: str | None = None,
    repetitions: int = 7,
    batch_size: int = 128,
    steps: int = 100,
    examples: int = 55_000,
    workers: tuple[int, ...] = (0, 2),
    compiles: bool = True,
) -> list[Table]:
    """Times every loop in turns.

    Args:
      seconds: time for each loop, over its repetitions.
      data_dir: folder of prepared datasets; None for random images.
      repetitions: turns of each loop.
      batch_size: examples in a step.
      steps: steps in a call.
      examples: number of random images.
      workers: numbers of DataLoader workers to try.
      compiles: whether to try torch.compile.
    """
    dataset, source = load_data(data_dir, examples=examples)

    def fixture(replicates: int) -> Fixture:
        sizes = {"replicates": replicates, "batch_size": batch_size, "steps": steps}
        return fixtures.make(fixtures.recipe("lenet_300_100", **sizes), dataset)

    one = fixture(1)
    jobs = {
        (rows.SINGLE, ""): fixtures.trainer_job(one),
        (rows.SEVERAL, ""): fixtures.trainer_job(fixture(5)),
        (rows.LIBRARY, ""): library_job(one, steps=steps),
    }
    absent = dict.fromkeys((rows.CACHED, rows.COMPILED, rows.LOADER), rows.MISSING)
    base, notes = rows.SINGLE, [f"Data: {source}."]
    with ExitStack() as stack:
        if (torch := load_torch("torch_loops")) is not None:
            theirs, absent = torch.jobs(
                *fixtures.first_replicate(one),
                dataset,
                batch_size=batch_size,
                steps=min(steps, 20),
                workers=workers,
                compiles=compiles,
                stack=stack,
            )
            jobs |= theirs
            base = rows.CACHED
            notes.append(compare_losses(one, torch.pytorch))
        rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    fastest, settings = timing.best_settings(rates)
    table = timing.rate_table(
        f"LTH-MNIST: LeNet-300-100, 20 % of weights, batch {batch_size}, SGD",
        fastest,
        unit="replicate-steps/s",
        base=base,
        note=" ".join([*notes, *settings]),
        absent=absent,
    )
    table.data["tried"] = {", ".join(key): rate for key, rate in rates.items()}
    return [table]


class Loop(NamedTuple):
    """Training with jaxsparse as a library, without its trainer.

    Attributes:
      tx: the sparse optimizer.
      step: from `(params, opt_state, images, labels)` to the next parameters, the next
        optimizer state and the loss.
    """

    tx: optax.GradientTransformationExtraArgs
    step: Callable[..., Any]


def library_loop(fixture: Fixture, masks: Masks) -> Loop:
    """Makes a sparse optimizer and a jitted step on uint8 batches.

    Args:
      fixture: an experiment with its state.
      masks: fixed masks of one replicate.
    """
    tx = transforms.fixed(optax.sgd(0.1), masks=masks)
    return Loop(tx, make_step(fixture, tx))


def make_step(
    fixture: Fixture,
    tx: optax.GradientTransformationExtraArgs,
    after: Callable[..., Any] = lambda params, opt_state: params,
) -> Callable[..., Any]:
    """Makes the step of a `Loop` with any optimizer.

    Args:
      fixture: the model and the dataset.
      tx: the optimizer.
      after: from `(params, opt_state)` to the parameters that are kept. Some libraries
        apply their masks there.
    """
    classes = fixture.dataset.classes
    model = factory.make_model(fixture.config, classes=classes, training=True)
    stats = replicates.take(fixture.state.batch_stats, 0)
    mean, std = fixture.dataset.mean, fixture.dataset.std

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, opt_state: Any, images: Any, labels: Any) -> Any:
        def loss(params: Params) -> Any:
            inputs = augment.normalize(images, mean=mean, std=std)
            variables = {"params": params, "batch_stats": stats}
            logits, _ = model.apply(
                variables, inputs, train=True, mutable=["batch_stats"]
            )
            return jnp.mean(losses.cross_entropy(logits, labels))

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return after(params, opt_state), opt_state, value

    return step


def library_job(fixture: Fixture, *, steps: int) -> Job:
    """Times the library's step on NumPy batches, which are copied to the device.

    Args:
      fixture: an experiment with its state.
      steps: training steps in a call.
    """
    params, masks = fixtures.first_replicate(fixture)
    loop = library_loop(fixture, masks)
    opt_state = loop.tx.init(params)
    images, labels = fixture.dataset.train
    size = fixture.config.data.batch_size
    generator = np.random.default_rng(0)
    epoch = EpochSpec(len(labels) // size, size, size)
    chunks = fixtures.calls(epoch, steps=1, batch_size=size)
    order, number = np.empty(0, int), -1

    def run(count: int) -> None:
        nonlocal params, opt_state, order, number
        for _ in range(count * steps):
            chunk = next(chunks)
            if chunk.epoch != number:
                order, number = generator.permutation(len(labels)), chunk.epoch
            rows = order[chunk.first : chunk.first + size]
            params, opt_state, _ = loop.step(
                params, opt_state, images[rows], labels[rows]
            )
        jax.block_until_ready(params)

    return Job(run, steps)


def compare_losses(
    fixture: Fixture, torch: ModuleType, *, steps: int = 5, tolerance: float = TOLERANCE
) -> str:
    """Trains both networks on the same batches, and says how far their losses differ.

    Args:
      fixture: what is trained.
      torch: `pytorch` or `torch_resnet`, whose `losses` trains the same network.
      steps: number of batches.
      tolerance: largest accepted difference of losses, in nats.
    """
    params, masks = fixtures.first_replicate(fixture)
    size = fixture.config.data.batch_size
    images, labels = (part[: steps * size] for part in fixture.dataset.train)
    images = images.reshape(steps, size, *images.shape[1:])
    labels = labels.reshape(steps, size)
    loop = library_loop(fixture, masks)
    floats = fixtures.normalized(images, fixture.dataset)
    theirs = torch.losses(params, masks, floats, labels)
    opt_state, ours = loop.tx.init(params), []
    with jax.default_matmul_precision("highest"):
        for x, y in zip(images, labels, strict=True):
            params, opt_state, value = loop.step(params, opt_state, x, y)
            ours.append(float(value))
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    verdict = "as expected" if difference < tolerance else "MORE THAN EXPECTED"
    return (
        f"From the same weights on the same {steps} batches the losses of JAX and "
        f"PyTorch differ by at most {difference:.1e} ({verdict})."
    )
