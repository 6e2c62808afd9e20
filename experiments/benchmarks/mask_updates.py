"""The cost of mask updates: of one at 11 million weights, and of one in 100 steps."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import bare_scan, fixtures, selection, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import transforms

SPARSITY = 0.9
EVERY = 100  # steps between mask updates where their cost is amortized
# Mask updates of a gradual schedule, after which a job starts again.
UPDATES = bare_scan.RESTART
Wrap = Callable[[Any, int], Any]  # from an optimizer and the steps between updates


def _gradual(inner: Any, every: int, **options: Any) -> Any:
    return transforms.gradual_magnitude(
        inner,
        sparsity=SPARSITY,
        begin_step=0,
        end_step=UPDATES * every,
        update_every=every,
        **options,
    )


CONSTANT = transforms.DropGrowOptions(drop_schedule="constant")


def _dynamic(method: Any, updates: transforms.DropGrowOptions = CONSTANT) -> Wrap:
    def wrap(inner: Any, every: int, **options: Any) -> Any:
        return method(
            inner,
            sparsity=SPARSITY,
            update_every=every,
            begin_step=0,
            updates=updates,
            **options,
        )

    return wrap


rigl = _dynamic(transforms.rigl)

METHODS: dict[str, Wrap] = {
    "magnitude, per layer": _gradual,
    "magnitude, global": functools.partial(
        _gradual, layers=transforms.LayerOptions(distribution="global")
    ),
    "SET": _dynamic(transforms.sparse_evolution),
    "SET, not by sign": _dynamic(
        transforms.sparse_evolution,
        transforms.SparseEvolutionOptions(drop_schedule="constant", drop_by_sign=False),
    ),
    "RigL": rigl,
    "SNFS with redistribution": _dynamic(transforms.snfs),
}
AMORTIZED = ("magnitude, global", "SET", "RigL")


def measure(
    *,
    seconds: float,
    repetitions: int = 3,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    networks: tuple[str, ...] | None = None,
    batch_size: int = 128,
) -> list[Table]:
    """Times mask updates alone, and training with one in 100 steps.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      shapes: shapes of the kernels by name; None for those of ResNet-18.
      networks: networks that are trained; None for LeNet-300-100 and, on accelerators,
        ResNet-20. On CPUs its step takes so long that a mask update is lost in noise.
      batch_size: examples in a step.
    """
    shapes = selection.resnet_18() if shapes is None else shapes
    if networks is None:
        networks = ("lenet_300_100", *(() if fixtures.on_cpu() else ("resnet_20",)))
    how = {"seconds": seconds, "repetitions": max(repetitions, 5)}
    return [
        _alone(shapes, seconds=seconds, repetitions=repetitions),
        *(
            amortized(network, replicates, batch_size=batch_size, **how)
            for network in networks
            for replicates in (1, 4)
        ),
    ]


def normal_kernels(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> Any:
    """Draws normal kernels of the given shapes; also used as their gradients.

    Args:
      shapes: shape of the kernel by name of the layer.
      seed: seed of the generator.
    """
    generator = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.asarray(generator.standard_normal(shape, np.float32))}
        for name, shape in shapes.items()
    }


def _alone(
    shapes: Mapping[str, tuple[int, ...]], *, seconds: float, repetitions: int
) -> Table:
    """Times steps of plain SGD with and without a mask update."""
    params, grads = normal_kernels(shapes), normal_kernels(shapes, seed=1)
    rows, data = [], {}
    for name, wrap in METHODS.items():
        # A late mask update of a gradual schedule, and a step after the schedule.
        gradual = name.startswith("magnitude")
        tx, seldom = (wrap(optax.sgd(0.1), every) for every in (1, 10**6))
        late, end = (UPDATES * 4 // 5, UPDATES + 1) if gradual else (0, 1)
        jobs = {
            "with": step_job(tx, params, grads, skip=late),
            "without": step_job(tx if gradual else seldom, params, grads, skip=end),
        }
        rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
        times = timing.milliseconds(rates)
        extra = [a - b for a, b in zip(times["with"], times["without"], strict=True)]
        cells = [times["with"], times["without"], extra]
        rows.append((name, *(timing.format_spread(cell, 0) for cell in cells)))
        data[name] = {"milliseconds": times}
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    header = ("", "step with a mask update, ms", "step without, ms", "difference, ms")
    title = f"A mask update: {total:,} weights in {len(shapes)} layers (ResNet-18)"
    note = (
        "Around `optax.sgd(0.1)`, 90 % sparse. Every step starts from the same state, "
        "the copy of which is not timed. Of `magnitude`, the mask update is late in a "
        "gradual schedule, to 89.3 %, and the step without one follows the schedule."
    )
    return Table(title, header, rows, note, data)


def step_job(tx: Any, params: Any, grads: Any, skip: int = 0) -> Job:
    """Times an optimizer step, from the same state in every call.

    Args:
      tx: the optimizer.
      params: initial parameters.
      grads: the gradient of every step.
      skip: steps that are made beforehand, with these gradients.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, grads: Any) -> Any:
        params, opt_state = state
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = tx.init(params)
    start = (transforms.stored_params(params, opt_state), opt_state)
    for _ in range(skip):
        start = step(jax.tree.map(jnp.copy, start), grads)
    return bare_scan.repeat(step, start, grads)


def amortized(
    network: str, replicates: int, *, batch_size: int, seconds: float, repetitions: int
) -> Table:
    """Times scans over 100 steps, one of which updates the masks; `fixed` updates none.

    Args:
      network: one of `fixtures.SHAPES`.
      replicates: number of vmapped replicates.
      batch_size: examples in a step.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
    """
    inner = optax.sgd(0.1, momentum=0.9)
    optimizers = {"dense": inner, "fixed": transforms.fixed(inner)}
    optimizers |= {name: METHODS[name](inner, EVERY) for name in AMORTIZED}
    c = fixtures.recipe(network, replicates=replicates, batch_size=batch_size)
    shape = fixtures.SHAPES[network]
    jobs = {
        name: bare_scan.scan_job(c, tx, shape, steps=EVERY)
        for name, tx in optimizers.items()
    }
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    several = f", {replicates} vmapped replicates" if replicates > 1 else ""
    title = f"A mask update in {EVERY} steps: {network}, batch {batch_size}{several}"
    note = (
        "SGD with momentum; `fixed` has all weights and keeps its masks. SET and RigL "
        f"are 90 % sparse. `magnitude` has all weights at first; each scan of {EVERY} "
        f"steps makes one of {UPDATES} mask updates to 90 %, of which the shown time "
        "has only the first ones."
    )
    return timing.cost_table(title, rates, unit="steps/s", base="dense", note=note)
