"""Training throughput of ResNets on an accelerator, in images/s and FLOP/s.

Trains on images of CIFAR-10's size in float32 and bfloat16 by batch size, and ResNet-20
by number of replicates. The reference is the speed of a product of large matrices,
measured in the same run.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from experiments.benchmarks import fixtures, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse.data.dataset import Dataset

SHAPE = (32, 32, 3)
NETWORKS = ("resnet_20", "cifar_resnet_18")
DTYPES = ("float32", "bfloat16")
CHAIN = 16  # matrix products in one call
GIB = 2**30


def measure(*, seconds: float, repetitions: int = 5) -> list[Table]:
    """Measures ResNet-20 and ResNet-18, or returns a table that says why not.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
    """
    if fixtures.on_cpu():
        absent = "not measured: no accelerator"
        return [timing.absent_table("Training throughput", absent)]
    how = {"seconds": seconds, "repetitions": repetitions}
    by_network = [measure_network(network, **how) for network in NETWORKS]
    return [*by_network, measure_replicates(**how)]


def cifar(
    network: str,
    *,
    batch_size: int,
    steps: int,
    dtype: str = "float32",
    replicates: int = 1,
) -> ConfigDict:
    """Makes a config that trains on CIFAR-10 as `configs/lth_cifar.py` does.

    Args:
      network: name of the model.
      batch_size: examples in a step.
      steps: steps in a call.
      dtype: dtype of the activations.
      replicates: seeds that are trained at once.
    """
    sizes = {"replicates": replicates, "batch_size": batch_size, "steps": steps}
    c = fixtures.recipe(network, **sizes)
    c.data.crop_pad, c.data.flip = 4, True
    c.model.dtype = dtype
    c.optimizer.momentum, c.optimizer.weight_decay = 0.9, 1e-4
    return c


def measure_network(
    network: str,
    *,
    seconds: float,
    repetitions: int,
    dtypes: tuple[str, ...] = DTYPES,
    batch_sizes: tuple[int, ...] = (128, 512, 2048),
    examples: int = 50_000,
    steps: int = 50,
    side: int = 8192,
) -> Table:
    """Times training by dtype and batch size, and products of large matrices.

    Args:
      network: name of the model.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      dtypes: dtypes of the activations, and of the matrices.
      batch_sizes: examples in a step.
      examples: number of random images, all on the device.
      steps: steps in a call; fewer where an epoch has fewer.
      side: number of rows and columns of the matrices.
    """
    dataset = fixtures.random_dataset(SHAPE, examples=examples)
    jobs: dict[tuple[str, int], Job] = {(d, 0): product_job(d, side) for d in dtypes}
    costs, absent = {}, []
    for dtype in dtypes:
        for size in batch_sizes:
            length = min(steps, examples // size)
            c = cifar(network, batch_size=size, steps=length, dtype=dtype)
            job, reason = try_job(functools.partial(trainer_job, c, dataset))
            if job is None:
                absent.append((f"{dtype}, batch {size}", reason, "", "", "", ""))
                continue
            jobs[dtype, size] = job._replace(work=length * size)
            c = cifar(network, batch_size=size, steps=1, dtype=dtype)
            costs[dtype, size] = read_cost(c, dataset)
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    rows = [
        _row(dtype, size, values, costs.get((dtype, size)), rates[dtype, 0], side)
        for (dtype, size), values in rates.items()
    ]
    header = (
        *("", "images/s", "MFLOP an image", "TFLOP/s", "fraction of the product's"),
        "GiB of a step",
    )
    note = (
        "FLOPs are those of the training step before the compiler optimizes it, "
        "according to `cost_analysis` of the lowered program. (The compiler replaces "
        "convolutions by library calls, which are not counted.) Weights are float32. "
        "Products have JAX's default precision. The memory is that of the compiled "
        "step: its arguments, all images included, its results and its temporaries."
    )
    data = {
        "rates": {" ".join(map(str, name)): values for name, values in rates.items()},
        "costs": {" ".join(map(str, n)): cost._asdict() for n, cost in costs.items()},
    }
    title = f"Training throughput: {network}, images of CIFAR-10's size, one device"
    return Table(title, header, rows + absent, note, data)


class Cost(NamedTuple):
    """The cost of a training step.

    Attributes:
      flops: FLOPs of an image before the compiler optimizes the step; NaN where JAX
        does not know them.
      memory: bytes of the arguments, results and temporaries of the compiled step.
    """

    flops: float
    memory: int


def measure_replicates(
    *,
    seconds: float,
    repetitions: int,
    network: str = "resnet_20",
    counts: tuple[int, ...] = (1, 2, 4, 8, 16),
    batch_size: int = 128,
    examples: int = 50_000,
    steps: int = 50,
) -> Table:
    """Times training by number of replicates in one program.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      network: name of the model.
      counts: numbers of replicates, the first of which the others are compared with.
      batch_size: examples in a step of a replicate.
      examples: number of random images, all on the device.
      steps: steps in a call.
    """
    dataset = fixtures.random_dataset(SHAPE, examples=examples)
    jobs, absent = {}, {}
    for count in counts:
        c = cifar(network, batch_size=batch_size, steps=steps, replicates=count)
        job, reason = try_job(functools.partial(trainer_job, c, dataset))
        if job is None:
            absent[str(count)] = reason
        else:
            jobs[str(count)] = job._replace(work=steps * batch_size * count)
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    title = f"Training throughput: replicates of {network}, batch {batch_size}, float32"
    note = "Images of all replicates together, by number of replicates."
    return timing.rate_table(
        title, rates, unit="images/s", base=str(counts[0]), note=note, absent=absent
    )


def _row(
    dtype: str,
    size: int,
    values: list[float],
    cost: Cost | None,
    product: list[float],
    side: int,
) -> tuple[str, ...]:
    """Formats a row; `cost` is None for the matrix product."""
    if cost is None:
        speeds = timing.format_spread([value / 1e12 for value in values], 2)
        return (f"{dtype}, product of {side} x {side}", "", "", speeds, "1", "")
    speeds = [value * cost.flops / 1e12 for value in values]
    fractions = timing.ratios(speeds, [value / 1e12 for value in product])
    return (
        f"{dtype}, batch {size}",
        timing.format_spread(values),
        f"{cost.flops / 1e6:,.1f}",
        timing.format_spread(speeds, 2),
        timing.format_spread(fractions, 3),
        f"{cost.memory / GIB:.2f}",
    )


def trainer_job(c: ConfigDict, dataset: Dataset) -> Job:
    """Times the trainer's compiled call, after one call that compiles it.

    Args:
      c: the recipe.
      dataset: the dataset to train on.
    """
    job = fixtures.trainer_job(fixtures.make(c, dataset))
    job.run(1)
    return job


def try_job(make: Callable[[], Job]) -> tuple[Job | None, str]:
    """Makes a job, if the device has enough memory for it.

    Args:
      make: makes the job and runs it once.

    Returns:
      The job and "", or None and the reason.
    """
    try:
        return make(), ""
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None, "more than the device's memory"


def read_cost(c: ConfigDict, dataset: Dataset) -> Cost:
    """Reads the cost of a training step from its lowered and its compiled program.

    Args:
      c: the config; its calls have one step.
      dataset: what it trains on.
    """
    lowered = fixtures.lower_step(fixtures.make(c, dataset))
    flops = (lowered.cost_analysis() or {}).get("flops", float("nan"))
    memory = lowered.compile().memory_analysis()
    parts = ("argument", "output", "temp")
    sizes = [getattr(memory, f"{part}_size_in_bytes") for part in parts]
    shared = memory.alias_size_in_bytes  # results in the place of arguments
    return Cost(flops / c.data.batch_size, sum(sizes) - shared)


def product_job(dtype: str, side: int) -> Job:
    """Times a chain of products of square matrices, which is close to peak speed.

    Args:
      dtype: dtype of the matrices.
      side: number of rows and columns.
    """
    scale = side**-0.5  # keeps the size of the entries
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (side, side), dtype) * scale for key in keys)

    @jax.jit
    def chain(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, CHAIN, lambda _, x: x @ b, a)

    def run(count: int) -> None:
        x = a
        for _ in range(count):
            x = chain(x, b)
        jax.block_until_ready(x)

    return Job(run, 2.0 * side**3 * CHAIN)
