"""What only an accelerator can be asked in reasonable time.

ResNets on images of CIFAR-10's size in float32 and bfloat16, against the fastest
product of matrices found here; what RigL adds to their steps; selection from 100
million weights; and a whole lottery run. On CPUs the section says so and stops.
"""

import functools
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.benchmarks import fixtures, overhead, selection, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import factory
from jaxsparse.runner import run as run_lib
from jaxsparse.training import progress
from jaxsparse.training.run_dir import RunDir

SHAPE = (32, 32, 3)
EXAMPLES = 50_000
NETWORKS = ("resnet_20", "cifar_resnet_18")
DTYPES = ("float32", "bfloat16")
COPIES = 9  # of ResNet-18's layers: 100,479,168 weights
CHAIN = 16  # products of matrices in one call


def measure(*, seconds: float, repetitions: int = 5) -> list[Table]:
    """Measures all of it, or says that there is no accelerator."""
    if overhead.on_cpu():
        row = ("no accelerator here",)
        note = (
            "On one: ResNet-20 and ResNet-18 on CIFAR-10 in float32 and bfloat16, with "
            "the fraction of the measured ceiling; RigL's cost; selection from 100 "
            "million weights; a short lottery run."
        )
        return [Table("Accelerator", ("",), [row], note, {})]
    both = {"seconds": seconds, "repetitions": repetitions}
    tables = [throughput(network, **both) for network in NETWORKS]
    tables += [rigl(network, **both) for network in NETWORKS]
    shapes = {
        f"{copy}/{name}": shape
        for copy in range(COPIES)
        for name, shape in selection.resnet_18().items()
    }
    what = f"{COPIES} times those of ResNet-18"
    tables += selection.measure(seconds=seconds, shapes=shapes, what=what)
    return [*tables, lottery(lottery_config(), repetitions=3)]


def cifar(
    network: str, *, batch_size: int, steps: int, dtype: str = "float32"
) -> ConfigDict:
    """Makes the config of training on CIFAR-10 as `configs/lth_cifar.py` does."""
    c = fixtures.recipe(network, replicates=1, batch_size=batch_size, steps=steps)
    c.data.crop_pad, c.data.flip = 4, True
    c.model.dtype = dtype
    c.optimizer.momentum, c.optimizer.weight_decay = 0.9, 1e-4
    return c


def throughput(
    network: str,
    *,
    seconds: float,
    repetitions: int,
    dtypes: tuple[str, ...] = DTYPES,
    batch_sizes: tuple[int, ...] = (128, 512, 2048),
    examples: int = EXAMPLES,
    steps: int = 50,
    side: int = 8192,
) -> Table:
    """Times training by dtype and batch size, against products of large matrices.

    Args:
      network: which to train.
      seconds: for each row, over its repetitions.
      repetitions: turns of each row.
      dtypes: of activations; and of the matrices.
      batch_sizes: examples a step.
      examples: number of random images, all on the device.
      steps: in one call, fewer where an epoch has fewer.
      side: of the square matrices.
    """
    dataset = fixtures.random_dataset(SHAPE, examples=examples)
    jobs: dict[tuple[str, int], Job] = {(d, 0): product_job(d, side) for d in dtypes}
    flops, absent = {}, {}
    for dtype in dtypes:
        for size in batch_sizes:
            length = min(steps, examples // size)
            c = cifar(network, batch_size=size, steps=length, dtype=dtype)
            job, reason = _tried(functools.partial(_job, c, dataset))
            if job is None:
                absent[dtype, size] = reason
                continue
            jobs[dtype, size] = job._replace(work=length * size)
            c = cifar(network, batch_size=size, steps=1, dtype=dtype)
            flops[dtype, size] = _flops(c, dataset) / size
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    rows = []
    for (dtype, size), values in rates.items():
        if not size:
            cells = ("", "", timing.spread([v / 1e12 for v in values], 2), "1")
            rows.append((f"{dtype}, product of {side} x {side}", *cells))
            continue
        each = flops[dtype, size]
        speeds = [value * each / 1e12 for value in values]
        ceiling = [value / 1e12 for value in rates[dtype, 0]]
        rows.append(
            (
                f"{dtype}, batch {size}",
                timing.spread(values),
                f"{each / 1e6:,.1f}",
                timing.spread(speeds, 2),
                timing.spread(timing.ratios(speeds, ceiling), 3),
            )
        )
    rows += [
        (f"{dtype}, batch {size}", reason, "", "", "")
        for (dtype, size), reason in absent.items()
    ]
    header = ("", "images/s", "MFLOP an image", "TFLOP/s", "of the product's")
    note = (
        "FLOPs are those of the training step before the compiler optimises it, as "
        "`cost_analysis` of the lowered program counts them: library calls, which "
        "replace convolutions later, are not counted. Weights are float32 always; "
        "products have JAX's default precision."
    )
    data = {" ".join(map(str, name)): values for name, values in rates.items()}
    title = f"Training {network} on images of CIFAR-10's size, one device"
    return Table(title, header, rows, note, {"rates": data})


def _job(c: ConfigDict, dataset: Any) -> Job:
    job = fixtures.trainer_job(fixtures.make(c, dataset))
    job.run(1)
    return job


def _tried(make: Callable[[], Job]) -> tuple[Job | None, str]:
    """Makes a job and runs it once, or says that the device has no room for it."""
    try:
        return make(), ""
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None, "more than the device's memory"


def _flops(c: ConfigDict, dataset: Any) -> float:
    cost = fixtures.lower_step(fixtures.make(c, dataset)).cost_analysis()
    return (cost or {}).get("flops", float("nan"))


def product_job(dtype: str, side: int) -> Job:
    """Multiplies square matrices, each product with the next: the ceiling."""
    scale = side**-0.5  # entries stay as large as they are
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


def rigl(
    network: str,
    *,
    seconds: float,
    repetitions: int,
    batch_size: int = 128,
    steps: int = 100,
    examples: int = EXAMPLES,
) -> Table:
    """Times calls of the trainer in which RigL changes masks once, and never.

    Args:
      network: which to train.
      seconds: for each row, over its repetitions.
      repetitions: turns of each row.
      batch_size: examples a step.
      steps: in one call, and between changes.
      examples: number of random images.
    """
    dataset = fixtures.random_dataset(SHAPE, examples=examples)
    ways: Mapping[str, dict[str, Any]] = {
        "fixed masks": {"method": "static"},
        "RigL, no change": {"method": "rigl", "update_every": f"{10**7}step"},
        f"RigL, a change in {steps} steps": {
            "method": "rigl",
            "update_every": f"{steps}step",
        },
    }
    jobs = {}
    for name, fields in ways.items():
        c = cifar(network, batch_size=batch_size, steps=steps)
        c.sparse.update(fields)
        c.sparse.distribution = "uniform"
        if c.sparse.method == "rigl":
            c.sparse.drop_schedule = "constant"
        jobs[name] = fixtures.trainer_job(fixtures.make(c, dataset))
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    rows = [
        (
            name,
            timing.spread(values, 0 if min(values) >= 20 else 2),
            timing.spread(timing.ratios(rates["fixed masks"], values), 3),
        )
        for name, values in rates.items()
    ]
    header = ("", "steps/s", "time as a multiple of fixed masks")
    title = f"RigL in training: {network}, batch {batch_size}, 90 % sparse"
    return Table(title, header, rows, "The trainer's programs.", {"rates": rates})


def lottery_config() -> ConfigDict:
    """Makes a short lottery run: ResNet-20, 3 replicates, 3 levels of 1,000 steps."""
    c = cifar("resnet_20", batch_size=128, steps=100)
    c.replicates = 3
    c.training.duration = "1000step"
    c.evaluation.every = "500step"
    c.lottery.levels = 3
    c.lottery.rewind = "100step"
    c.run.checkpoint_every = ""
    return c


def lottery(c: ConfigDict, *, repetitions: int, examples: int = EXAMPLES) -> Table:
    """Times whole lottery runs, from building to the last checkpoint.

    Args:
      c: what to run.
      repetitions: runs after the first, which may compile.
      examples: number of random images.
    """
    dataset = fixtures.random_dataset(SHAPE, examples=examples)
    first, *later = (_whole_run(c, dataset) for _ in range(repetitions + 1))
    rows = [
        ("first run", f"{first:,.1f}"),
        ("runs after it", timing.spread(later, 1)),
    ]
    trained = (
        f"{c.model.name}, replicates: {c.replicates}, levels: {c.lottery.levels} of "
        f"{c.training.duration}, batch {c.data.batch_size}"
    )
    note = (
        "Random images. Each run is built, compiled, trained, evaluated, pruned and "
        "saved; the process has imported all it needs, and keeps compiled programs "
        "only where JAX_COMPILATION_CACHE_DIR names a folder for them."
    )
    data = {"seconds": [first, *later]}
    title = f"A whole lottery run: {trained}"
    return Table(title, ("", "seconds"), rows, note, data)


def _whole_run(c: ConfigDict, dataset: Any) -> float:
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as name,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
    ):
        folder = Path(name)
        made = factory.make_experiment(c, dataset, folder)
        shown = progress.Progress(c.lottery.levels + 1, 0, out=nowhere)
        run_lib.run(made, RunDir(folder, shown))
        return time.perf_counter() - began
