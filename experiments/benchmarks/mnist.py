"""The LTH-MNIST work, in this code and in a plain PyTorch loop.

LeNet-300-100 with 20 % of its weights, batches of 128, SGD with rate 0.1.
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
from experiments.benchmarks.fixtures import Rig
from experiments.benchmarks.timing import Job, Table
from jaxsparse import factory, losses, transforms
from jaxsparse.data import augment, datasets
from jaxsparse.data.dataset import Dataset
from jaxsparse.training.scan_chunks import EpochSpec
from jaxsparse.types import Masks, Params

MISSING = "not installed: pip install -e '.[benchmark]'"

TOLERANCE = 1e-4  # of losses near 2, in nats


def load_torch() -> ModuleType | None:
    """Imports what needs torch, which is optional."""
    try:
        return importlib.import_module("experiments.benchmarks.pytorch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None


def load_data(data_dir: str | None, *, examples: int = 55_000) -> tuple[Dataset, str]:
    """Returns MNIST, or noise of its shape, and which of the two it is."""
    if data_dir is None:
        dataset = fixtures.random_dataset(
            fixtures.SHAPES["lenet_300_100"], examples=examples
        )
        return dataset, "random uint8 of MNIST's shape"
    return datasets.load("mnist", data_dir=data_dir, validation=5000), "real MNIST"


def measure(
    *,
    data_dir: str | None,
    seconds: float,
    repetitions: int = 7,
    batch_size: int = 128,
    steps: int = 100,
    examples: int = 55_000,
    workers: tuple[int, ...] = (0, 2),
    compiles: bool = True,
) -> list[Table]:
    """Times every loop in turns.

    Args:
      data_dir: folder of prepared datasets; None for random images.
      seconds: for each loop, over all repetitions.
      repetitions: turns of each loop.
      batch_size: examples a step.
      steps: in one call.
      examples: number of random images.
      workers: numbers of DataLoader workers to try.
      compiles: whether to try torch.compile.
    """
    dataset, which = load_data(data_dir, examples=examples)

    def rig(replicates: int) -> Rig:
        sizes = {"replicates": replicates, "batch_size": batch_size, "steps": steps}
        return fixtures.make(fixtures.recipe("lenet_300_100", **sizes), dataset)

    one = rig(1)
    jobs = {
        (rows.SINGLE, ""): fixtures.trainer_job(one),
        (rows.SEVERAL, ""): fixtures.trainer_job(rig(5)),
        (rows.LIBRARY, ""): library_job(one, steps=steps),
    }
    torch = load_torch()
    with ExitStack() as ending:
        if torch is None:
            absent, notes = (
                dict.fromkeys((rows.CACHED, rows.COMPILED, rows.LOADER), MISSING),
                [],
            )
        else:
            params, masks = first_replicate(one)
            theirs, absent = torch.jobs(
                params,
                masks,
                dataset,
                batch_size=batch_size,
                steps=min(steps, 20),
                workers=workers,
                compiles=compiles,
                ending=ending,
            )
            jobs |= theirs
            notes = [discrepancy(one, torch)]
        rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    chosen, settings = timing.best_settings(rates)
    base = rows.SINGLE if torch is None else rows.CACHED
    table = timing.rate_table(
        f"LTH-MNIST: LeNet-300-100, 20 % of weights, batch {batch_size}, SGD",
        chosen,
        unit="replicate-steps/s",
        base=base,
        note=" ".join([f"Data: {which}.", *notes, *settings]),
        absent=absent,
    )
    table.data["tried"] = {", ".join(key): rate for key, rate in rates.items()}
    return [table]


def first_replicate(rig: Rig) -> tuple[Params, Masks]:
    """Returns weights and masks of the first replicate."""
    masks = transforms.get_masks(rig.state.opt_state)
    return jax.tree.map(lambda leaf: leaf[0], (rig.state.params, masks))


class Loop(NamedTuple):
    """The README's way of training, without any of the trainer.

    Attributes:
      tx: the sparse optimiser.
      step: `(params, opt_state, images, labels)` to the next two and the loss.
    """

    tx: optax.GradientTransformationExtraArgs
    step: Callable[..., Any]


def library_loop(rig: Rig, masks: Masks) -> Loop:
    """Makes a sparse optimiser and a jitted step on uint8 batches."""
    tx = transforms.fixed(optax.sgd(0.1), masks=masks)
    return Loop(tx, step_with(rig, tx))


def step_with(
    rig: Rig, tx: optax.GradientTransformationExtraArgs, after: Any = None
) -> Callable[..., Any]:
    """Makes the step of a `Loop` with any optimiser.

    Args:
      rig: what gives the data.
      tx: the optimiser.
      after: `(params, opt_state)` to the parameters that are kept, for optimisers that
        need it; None for none.
    """
    model = factory.make_model(rig.config, classes=rig.dataset.classes, training=True)
    stats = jax.tree.map(lambda leaf: leaf[0], rig.state.batch_stats)
    mean, std = rig.dataset.mean, rig.dataset.std

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
        params = params if after is None else after(params, opt_state)
        return params, opt_state, value

    return step


def library_job(rig: Rig, *, steps: int) -> Job:
    """Feeds numpy batches to the jitted step; nothing is resident on the device."""
    params, masks = first_replicate(rig)
    loop = library_loop(rig, masks)
    opt_state = loop.tx.init(params)
    images, labels = rig.dataset.train
    size = rig.config.data.batch_size
    draw = np.random.default_rng(0)
    whole = EpochSpec(len(labels) // size, size, size)
    asked = fixtures.calls(whole, steps=1, batch_size=size)
    order, number = np.empty(0, int), -1

    def run(count: int) -> None:
        nonlocal params, opt_state, order, number
        for _ in range(count * steps):
            call = next(asked)
            if call.epoch != number:
                order, number = draw.permutation(len(labels)), call.epoch
            rows = order[call.first : call.first + size]
            params, opt_state, _ = loop.step(
                params, opt_state, images[rows], labels[rows]
            )
        jax.block_until_ready(params)

    return Job(run, steps)


def discrepancy(
    rig: Rig, torch: ModuleType, *, steps: int = 5, tolerance: float = TOLERANCE
) -> str:
    """Trains both networks on the same batches and words how far they are apart.

    Args:
      rig: what is trained, and on what.
      torch: the module with its twin, whose `losses` trains that.
      steps: how many batches.
      tolerance: of losses, in nats.
    """
    params, masks = first_replicate(rig)
    size = rig.config.data.batch_size
    images, labels = (part[: steps * size] for part in rig.dataset.train)
    images = images.reshape(steps, size, *images.shape[1:])
    labels = labels.reshape(steps, size)
    loop = library_loop(rig, masks)
    floats = fixtures.normalized(images, rig.dataset)
    theirs = torch.losses(params, masks, floats, labels)
    opt_state, ours = loop.tx.init(params), []
    with jax.default_matmul_precision("highest"):
        for x, y in zip(images, labels, strict=True):
            params, opt_state, value = loop.step(params, opt_state, x, y)
            ours.append(float(value))
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    verdict = "as they should" if apart < tolerance else "WHICH IS TOO MUCH"
    return (
        f"The same weights on the same batches: over {steps} steps the losses of JAX "
        f"and PyTorch differ by at most {apart:.1e} ({verdict})."
    )
