"""jaxsparse and other pruning libraries, where they are installed.

jaxpruner (Lee et al., 2023, arXiv:2304.14082) is the best-known library for JAX, and
`torch.nn.utils.prune` is part of PyTorch. Two libraries are left out: torch-pruning
removes whole channels and has no masks of weights, and sparsimony requires NumPy 1. A
library that fails is a row with its error.
"""

import importlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import (
    fixtures,
    mask_updates,
    mnist,
    rows,
    selection,
    timing,
)
from experiments.benchmarks.timing import Job, Table
from jaxsparse import masks as masks_lib
from jaxsparse import select, transforms
from jaxsparse.data import augment

SPARSITY = 0.9
OURS, JAXPRUNER = "jaxsparse", "jaxpruner"
TORCH = "PyTorch, torch.nn.utils.prune"
ABSENT = {
    JAXPRUNER: "not installed: pip install "
    "git+https://github.com/google-research/jaxpruner",
    TORCH: rows.MISSING,
}


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch_size: int = 128,
    steps: int = 100,
) -> list[Table]:
    """Times a selection, a mask update and sparse training steps in each library.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      shapes: shapes of the pruned layers by name; None for those of ResNet-18.
      batch_size: examples in a training step.
      steps: training steps in a call.
    """
    shapes = selection.resnet_18() if shapes is None else shapes
    how = {"seconds": seconds, "repetitions": repetitions}
    jaxpruner = _load("jax_pruner", "jaxpruner")
    torch = _load("torch_prune", "torch")
    with jaxpruner.restored() if jaxpruner else nullcontext("") as note:
        return [
            _select(jaxpruner, torch, shapes, note=note, **how),
            _mask_update(jaxpruner, shapes, note=note, **how),
            _train(jaxpruner, torch, batch_size, steps, note=note, **how),
        ]


def _load(name: str, package: str) -> ModuleType | None:
    """Imports the module that needs a package; None if that is impossible."""
    try:
        return importlib.import_module(f"experiments.benchmarks.{name}")
    except Exception as error:  # packages of incompatible versions fail in many ways
        if getattr(error, "name", None) != package:
            reason = f"cannot be imported: {type(error).__name__}: {error}"
            ABSENT[{"jaxpruner": JAXPRUNER, "torch": TORCH}[package]] = reason
        return None


def compare(
    title: str,
    makers: Mapping[str, Callable[[], Job] | None],
    *,
    seconds: float,
    repetitions: int,
    note: str,
) -> Table:
    """Times the jobs that can be made and run, and gives the reasons for the others.

    Args:
      title: what was measured.
      makers: by library the function that makes its job; None if it is not installed.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      note: how to read the table.
    """
    jobs, absent = {}, {}
    for name, make in makers.items():
        if make is None:
            absent[name] = ABSENT[name]
            continue
        try:
            job = make()
            job.run(1)
        except Exception as error:  # libraries of other versions fail in many ways
            if name == OURS:
                raise
            line = (str(error).splitlines() or [""])[0]
            absent[name] = f"fails here: {type(error).__name__}: {line[:120]}"
            continue
        jobs[name] = job
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    times = timing.milliseconds(rates)
    table_rows = [
        (
            name,
            timing.format_rates(values),
            timing.format_spread(timing.ratios(values, times[OURS]), 2),
        )
        for name, values in times.items()
    ]
    table_rows += [(name, reason, "") for name, reason in absent.items()]
    header = ("", "ms", f"time as a multiple of {OURS}")
    data = {"milliseconds": times, "absent": absent}
    return Table(title, header, table_rows, note, data)


def _select(
    jaxpruner: ModuleType | None,
    torch: ModuleType | None,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    note: str,
    **how: Any,
) -> Table:
    params = mask_updates.normal_kernels(shapes)
    leaves = jax.tree.leaves(params)
    total = sum(leaf.size for leaf in leaves)
    count = total - round(SPARSITY * total)
    kept = {}

    @jax.jit
    def largest(params: Any, count: Any) -> Any:
        return select.top_k_global(jax.tree.map(jnp.abs, params), count)

    def make_ours() -> Job:
        kept[OURS] = masks_lib.num_active(largest(params, count))
        return fixtures.call_job(lambda: largest(params, count))

    def make_jaxpruner() -> Job:
        masks = jaxpruner.selection(SPARSITY)
        found = jax.tree.leaves(masks(params))
        kept[JAXPRUNER] = sum(int(np.count_nonzero(mask)) for mask in found)
        return fixtures.call_job(lambda: masks(params))

    def make_torch() -> Job:
        vector = np.concatenate([np.asarray(leaf).reshape(-1) for leaf in leaves])
        job, count_kept = torch.select_job(vector, SPARSITY)
        kept[TORCH] = count_kept()
        return job

    makers = {
        OURS: make_ours,
        JAXPRUNER: jaxpruner and make_jaxpruner,
        TORCH: torch and make_torch,
    }
    title = f"Other libraries: global selection of 10 % of {total:,} weights"
    table = compare(title, makers, note=note, **how)
    counts = ", ".join(f"{name} {number:,}" for name, number in kept.items())
    table.data["kept"] = kept
    note = f"Weights kept, {count:,} expected: {counts}. {note}".strip()
    return table._replace(note=note)


def _mask_update(
    jaxpruner: ModuleType | None,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    note: str,
    **how: Any,
) -> Table:
    params = mask_updates.normal_kernels(shapes)
    grads = mask_updates.normal_kernels(shapes, seed=1)
    inner = optax.sgd(0.1)

    def make_ours() -> Job:
        layers = transforms.LayerOptions(distribution="uniform")
        tx = mask_updates.rigl(inner, 1, layers=layers)
        return mask_updates.step_job(tx, params, grads)

    def make_jaxpruner() -> Job:
        return jaxpruner.rigl_job(inner, params, grads, sparsity=SPARSITY)

    makers = {OURS: make_ours, JAXPRUNER: jaxpruner and make_jaxpruner}
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    title = f"Other libraries: a mask update of RigL, {total:,} weights"
    note = (
        "Around `optax.sgd(0.1)`, 90 % of each layer pruned. A mask update drops 30 % "
        f"of the weights; neither library updates the weights in that step. {note}"
    )
    return compare(title, makers, note=note.strip(), **how)


def _train(
    jaxpruner: ModuleType | None,
    torch: ModuleType | None,
    batch_size: int,
    steps: int,
    *,
    note: str,
    **how: Any,
) -> Table:
    dataset = fixtures.random_dataset((28, 28, 1), examples=batch_size)
    c = fixtures.recipe("lenet_300_100", replicates=1, batch_size=batch_size)
    fixture = fixtures.make(c, dataset)
    params, masks = fixtures.first_replicate(fixture)
    batch = tuple(map(jnp.asarray, dataset.train))

    def make_ours() -> Job:
        loop = mnist.library_loop(fixture, masks)
        opt_state = loop.tx.init(params)
        return _training_job(loop.step, params, opt_state, batch, steps)

    def make_jaxpruner() -> Job:
        tx, after = jaxpruner.fixed(optax.sgd(0.1), sparsity=1 - fixtures.DENSITY)
        step = mnist.make_step(fixture, tx, after=after)
        return _training_job(step, params, tx.init(params), batch, steps)

    def make_torch() -> Job:
        floats = augment.normalize(batch[0], mean=dataset.mean, std=dataset.std)
        arrays = np.array(floats), dataset.train.labels
        return torch.step_job(params, masks, *arrays, steps=steps)

    makers = {
        OURS: make_ours,
        JAXPRUNER: jaxpruner and make_jaxpruner,
        TORCH: torch and make_torch,
    }
    title = (
        f"Other libraries: {steps} sparse training steps, LeNet-300-100, "
        f"batch {batch_size}"
    )
    note = f"On one batch, in single steps, plain SGD, default threads. {note}"
    return compare(title, makers, note=note.strip(), **how)


def _training_job(
    step: Callable[..., Any],
    params: Any,
    opt_state: Any,
    batch: tuple[Any, Any],
    steps: int,
) -> Job:
    """Times training on one batch; a call of `steps` steps is one unit of work."""
    state = jax.tree.map(jnp.copy, (params, opt_state))

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count * steps):
            *state, _ = step(*state, *batch)
        jax.block_until_ready(state)

    return Job(run, 1)
