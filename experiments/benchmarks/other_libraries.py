"""jaxsparse beside other libraries that prune, where they are installed.

jaxpruner (Lee et al., 2023, arXiv:2304.14082) is the best-known one for JAX, and
`torch.nn.utils.prune` is what PyTorch brings. Not here: torch-pruning, which removes
whole channels and has no masks of weights, and sparsimony, which requires numpy 1.
Before each row is timed it runs once; if it fails, the row says how.
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

from experiments.benchmarks import fixtures, mask_updates, mnist, selection, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import masks as masks_lib
from jaxsparse import select
from jaxsparse.data import augment

SPARSITY = 0.9
OURS, JAXPRUNER = "jaxsparse", "jaxpruner"
TORCH = "PyTorch, torch.nn.utils.prune"
ABSENT = {
    JAXPRUNER: "not installed: pip install "
    "git+https://github.com/google-research/jaxpruner",
    TORCH: mnist.MISSING,
}


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch_size: int = 128,
    steps: int = 100,
) -> list[Table]:
    """Times a selection, a change of masks and a sparse step in each library.

    Args:
      seconds: for each row, over its repetitions.
      repetitions: turns of each row.
      shapes: of the layers that are pruned; ResNet-18's if None.
      batch_size: examples in a step of training.
      steps: of training in one call.
    """
    shapes = selection.resnet_18() if shapes is None else shapes
    both = {"seconds": seconds, "repetitions": repetitions}
    jaxpruner = _load("jax_pruner", "jaxpruner")
    torch = _load("torch_prune", "torch")
    with jaxpruner.restored() if jaxpruner else nullcontext("") as note:
        return [
            _select(jaxpruner, torch, shapes, note=note, **both),
            _change(jaxpruner, shapes, note=note, **both),
            _step(jaxpruner, torch, batch_size, steps, note=note, **both),
        ]


def _load(name: str, package: str) -> ModuleType | None:
    """Imports the module that needs a package; None if that cannot be."""
    try:
        return importlib.import_module(f"experiments.benchmarks.{name}")
    except Exception as error:  # of what it imports, in versions that do not fit
        if getattr(error, "name", None) != package:
            absent = f"cannot be imported: {type(error).__name__}: {error}"
            ABSENT[{"jaxpruner": JAXPRUNER, "torch": TORCH}[package]] = absent
        return None


def compare(
    title: str,
    makers: Mapping[str, Callable[[], Job] | None],
    *,
    seconds: float,
    repetitions: int,
    note: str,
) -> Table:
    """Times what can be made and run; says of the rest why it cannot.

    Args:
      title: what is done.
      makers: by library what makes its job; None if it is not installed.
      seconds: for each row, over its repetitions.
      repetitions: turns of each row.
      note: how to read it.
    """
    jobs, absent = {}, {}
    for name, make in makers.items():
        if make is None:
            absent[name] = ABSENT[name]
            continue
        try:
            job = make()
            job.run(1)
        except Exception as error:  # other versions of libraries fail in many ways
            if name == OURS:
                raise
            line = (str(error).splitlines() or [""])[0]
            absent[name] = f"fails here: {type(error).__name__}: {line[:120]}"
            continue
        jobs[name] = job
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    times = {name: [1000 / rate for rate in values] for name, values in rates.items()}
    rows = []
    for name, found in times.items():
        digits = 0 if min(found) >= 20 else 2
        multiples = timing.ratios(found, times[OURS])
        cells = timing.spread(found, digits), timing.spread(multiples, 2)
        rows.append((name, *cells))
    rows += [(name, reason, "") for name, reason in absent.items()]
    header = ("", "ms", f"time as a multiple of {OURS}")
    return Table(title, header, rows, note, {"milliseconds": times, "absent": absent})


def _select(
    jaxpruner: ModuleType | None,
    torch: ModuleType | None,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    note: str,
    **both: Any,
) -> Table:
    params = mask_updates.draw(shapes)
    leaves = jax.tree.leaves(params)
    total = sum(leaf.size for leaf in leaves)
    count = total - round(SPARSITY * total)
    kept = {}

    @jax.jit
    def largest(params: Any, count: Any) -> Any:
        return select.top_k_global(jax.tree.map(jnp.abs, params), count)

    def ours() -> Job:
        kept[OURS] = masks_lib.num_active(largest(params, count))
        return _calls(lambda: largest(params, count))

    def jaxpruners() -> Job:
        masks = jaxpruner.selection(SPARSITY)
        found = jax.tree.leaves(masks(params))
        kept[JAXPRUNER] = sum(int(np.count_nonzero(mask)) for mask in found)
        return _calls(lambda: masks(params))

    def torchs() -> Job:
        vector = np.concatenate([np.asarray(leaf).reshape(-1) for leaf in leaves])
        job, counted = torch.select_job(vector, SPARSITY)
        kept[TORCH] = counted()
        return job

    makers = {
        OURS: ours,
        JAXPRUNER: jaxpruner and jaxpruners,
        TORCH: torch and torchs,
    }
    title = f"Peers: keep 10 % of {total:,} weights by magnitude, all together"
    table = compare(title, makers, note=note, **both)
    counts = ", ".join(f"{name} {number:,}" for name, number in kept.items())
    table.data["kept"] = kept
    return table._replace(
        note=f"Weights kept, of {count:,} wanted: {counts}. {note}".strip()
    )


def _calls(call: Callable[[], Any]) -> Job:
    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(call())

    return Job(run, 1)


def _change(
    jaxpruner: ModuleType | None,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    note: str,
    **both: Any,
) -> Table:
    params, grads = mask_updates.draw(shapes), mask_updates.draw(shapes, seed=1)
    inner = optax.sgd(0.1)

    def ours() -> Job:
        tx = mask_updates.rigl(inner, 1, distribution="uniform")
        return mask_updates.update_job(tx, params, grads)

    def theirs() -> Job:
        return jaxpruner.rigl_job(inner, params, grads, sparsity=SPARSITY)

    makers = {OURS: ours, JAXPRUNER: jaxpruner and theirs}
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    title = f"Peers: an update in which RigL changes the masks of {total:,} weights"
    said = (
        "Around `optax.sgd(0.1)`, 90 % of each layer pruned; 30 % of the weights go at "
        f"a change, at which neither library makes the optimiser's step. {note}"
    )
    return compare(title, makers, note=said.strip(), **both)


def _step(
    jaxpruner: ModuleType | None,
    torch: ModuleType | None,
    batch_size: int,
    steps: int,
    *,
    note: str,
    **both: Any,
) -> Table:
    dataset = fixtures.random_dataset((28, 28, 1), examples=batch_size)
    c = fixtures.recipe("lenet_300_100", replicates=1, batch_size=batch_size)
    rig = fixtures.make(c, dataset)
    params, masks = mnist.first_replicate(rig)
    images, labels = map(jnp.asarray, dataset.train)

    def ours() -> Job:
        loop = mnist.library_loop(rig, masks)
        opt_state = loop.tx.init(params)
        return _one_batch(loop.step, params, opt_state, (images, labels), steps)

    def jaxpruners() -> Job:
        tx, after = jaxpruner.fixed(optax.sgd(0.1), sparsity=1 - fixtures.DENSITY)
        step = mnist.step_with(rig, tx, after=after)
        return _one_batch(step, params, tx.init(params), (images, labels), steps)

    def torchs() -> Job:
        floats = augment.normalize(images, mean=dataset.mean, std=dataset.std)
        arrays = np.array(floats), dataset.train.labels
        return torch.step_job(params, masks, *arrays, steps=steps)._replace(work=1)

    makers = {
        OURS: ours,
        JAXPRUNER: jaxpruner and jaxpruners,
        TORCH: torch and torchs,
    }
    title = f"Peers: {steps} sparse training steps, LeNet-300-100, batch {batch_size}"
    said = f"On one batch, dispatched one by one, plain SGD, default threads. {note}"
    return compare(title, makers, note=said.strip(), **both)


def _one_batch(
    step: Callable[..., Any],
    params: Any,
    opt_state: Any,
    batch: tuple[Any, Any],
    steps: int,
) -> Job:
    """Trains on a batch so many times in each call, which is one piece of work."""
    state = jax.tree.map(jnp.copy, (params, opt_state))

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count * steps):
            *state, _ = step(*state, *batch)
        jax.block_until_ready(state)

    return Job(run, 1)
