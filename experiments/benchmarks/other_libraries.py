"""jaxsparse and other pruning libraries, where they are installed.

jaxpruner (Lee et al., 2023, arXiv:2304.14082) is the best-known library for JAX, and
`torch.nn.utils.prune` is part of PyTorch. Two libraries are left out: torch-pruning
removes whole channels and has no masks of weights, and sparsimony requires NumPy 1. A
library that fails is a row with its error.
"""

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import (
    bare_scan,
    fixtures,
    libraries,
    mask_updates,
    mnist,
    selection,
    state_size,
)
from experiments.benchmarks.timing import Job, Table
from jaxsparse import masks as masks_lib
from jaxsparse import select, transforms
from jaxsparse.data import augment

SPARSITY = 0.9
BATCHED = (
    "A plain `jax.vmap` batches all of jaxpruner's state, also the number of the step, "
    "and turns its conditional into a select: every step computes a mask update. In "
    "the last row the replicates share that number, as in jaxsparse, and the "
    "conditional remains."
)
PACKED = (
    "jaxpruner's packed masks are left out: a training step with them fails for fixed "
    "masks and for RigL."
)


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch_size: int = 128,
    steps: int = 100,
) -> list[Table]:
    """Compares selections, mask updates, training and optimizer states of libraries.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      shapes: shapes of the pruned layers by name; None for those of ResNet-18.
      batch_size: examples in a training step.
      steps: training steps in a call, and between two mask updates.
    """
    shapes = selection.resnet_18() if shapes is None else shapes
    how = {"seconds": seconds, "repetitions": repetitions}
    jaxpruner = libraries.load("jax_pruner", "jaxpruner")
    torch = libraries.load("torch_prune", "torch")
    with jaxpruner.restored() if jaxpruner else nullcontext("") as note:
        return [
            _select(jaxpruner, torch, shapes, note=note, **how),
            _mask_update(jaxpruner, shapes, note=note, **how),
            *(
                _amortized(jaxpruner, count, batch_size, steps, note=note, **how)
                for count in (1, 4)
            ),
            _train(jaxpruner, torch, batch_size, steps, note=note, **how),
            _state(jaxpruner, shapes),
        ]


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
        kept[libraries.OURS] = masks_lib.num_active(largest(params, count))
        return fixtures.call_job(lambda: largest(params, count))

    def make_jaxpruner() -> Job:
        masks = jaxpruner.selection(SPARSITY)
        found = jax.tree.leaves(masks(params))
        kept[libraries.JAXPRUNER] = sum(int(np.count_nonzero(mask)) for mask in found)
        return fixtures.call_job(lambda: masks(params))

    def make_torch() -> Job:
        vector = np.concatenate([np.asarray(leaf).reshape(-1) for leaf in leaves])
        job, count_kept = torch.select_job(vector, SPARSITY)
        kept[libraries.TORCH] = count_kept()
        return job

    makers = {
        libraries.OURS: make_ours,
        libraries.JAXPRUNER: jaxpruner and make_jaxpruner,
        libraries.TORCH: torch and make_torch,
    }
    title = f"Other libraries: global selection of 10 % of {total:,} weights"
    table = libraries.compare(title, makers, note=note, **how)
    counts = ", ".join(f"{name} {number:,}" for name, number in kept.items())
    table.data["kept"] = kept
    note = f"Weights kept, {count:,} expected: {counts}. {threads(torch)}{note}"
    return table._replace(note=note.strip())


def threads(torch: ModuleType | None) -> str:
    """Returns a sentence on the threads of PyTorch; "" without it.

    Args:
      torch: the module `torch_prune`, or None.
    """
    if torch is None:
        return ""
    return f"PyTorch uses {torch.pytorch.plural(torch.THREADS, 'thread')}. "


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

    makers = {
        libraries.OURS: make_ours,
        libraries.JAXPRUNER: jaxpruner and make_jaxpruner,
    }
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    title = f"Other libraries: a mask update of RigL, {total:,} weights"
    note = (
        "Around `optax.sgd(0.1)`, 90 % of each layer pruned. A mask update drops 30 % "
        f"of the weights; neither library updates the weights in that step. {note}"
    )
    return libraries.compare(title, makers, note=note.strip(), **how)


def _amortized(
    jaxpruner: ModuleType | None,
    count: int,
    batch_size: int,
    steps: int,
    *,
    note: str,
    **how: Any,
) -> Table:
    network = "lenet_300_100"
    c = fixtures.recipe(network, replicates=count, batch_size=batch_size)
    shape = fixtures.SHAPES[network]
    inner = optax.sgd(0.1, momentum=0.9)

    def make(tx: Any, **options: Any) -> Job:
        return bare_scan.scan_job(c, tx, shape, steps=steps, **options)

    def make_ours() -> Job:
        layers = transforms.LayerOptions(distribution="uniform")
        return make(mask_updates.rigl(inner, steps, layers=layers))

    def make_jaxpruner(**options: Any) -> Job:
        tx, after = jaxpruner.rigl(inner, sparsity=SPARSITY, every=steps)
        return make(tx, after=after, **options)

    makers = {
        libraries.DENSE: lambda: make(inner),
        libraries.OURS: make_ours,
        libraries.JAXPRUNER: jaxpruner and make_jaxpruner,
    }
    if jaxpruner and count > 1:
        shared = {"axes_of": jaxpruner.shared_step}
        makers[libraries.SHARED_STEP] = functools.partial(make_jaxpruner, **shared)
        note = f"{BATCHED} {note}"
    several = f", {count} vmapped replicates" if count > 1 else ""
    title = (
        f"Other libraries: RigL with a mask update in {steps} steps, LeNet-300-100, "
        f"batch {batch_size}{several}"
    )
    note = (
        f"Times of one step, in scans of {steps} steps on one batch. SGD with "
        f"momentum, 90 % of each layer pruned. {note}"
    )
    return libraries.compare(
        title, makers, note=note.strip(), base=libraries.DENSE, **how
    )


def _state(
    jaxpruner: ModuleType | None, shapes: Mapping[str, tuple[int, ...]]
) -> Table:
    """Counts the bytes that fixed masks and RigL add to the state of SGD."""
    optimizers = {
        f"{libraries.OURS}, {name}": wrap(state_size.INNER, 100)
        for name, wrap in state_size.METHODS.items()
        if "magnitude" not in name
    }
    absent = {}
    if jaxpruner:
        how = {"sparsity": SPARSITY}
        fixed, _ = jaxpruner.fixed(state_size.INNER, **how)
        rigl, _ = jaxpruner.rigl(state_size.INNER, every=100, **how)
        optimizers[f"{libraries.JAXPRUNER}, fixed"] = fixed
        optimizers[f"{libraries.JAXPRUNER}, RigL"] = rigl
    else:
        absent[libraries.JAXPRUNER] = libraries.ABSENT[libraries.JAXPRUNER]
    title = "Other libraries: state beyond the optimizer's, "
    return state_size.table(title, optimizers, shapes, note=PACKED, absent=absent)


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
        libraries.OURS: make_ours,
        libraries.JAXPRUNER: jaxpruner and make_jaxpruner,
        libraries.TORCH: torch and make_torch,
    }
    title = (
        f"Other libraries: {steps} sparse training steps, LeNet-300-100, "
        f"batch {batch_size}"
    )
    note = f"On one batch, in single steps, plain SGD. {threads(torch)}{note}"
    return libraries.compare(title, makers, note=note.strip(), **how)


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
