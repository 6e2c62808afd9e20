"""What the study reads of its runs, and measures of the networks they ended with.

Of every arm: accuracies from its records; per-example barriers between the dense
network and its two children, one vector a seed, kept beside the JSON; and the largest
eigenvalue of the Hessian of the training loss, after pre-training and after dense
training.
"""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import cache, launcher, run_reader
from experiments.studies.data_diet import claims, variants
from experiments.studies.run_reader import Reader
from jaxsparse import factory, metrics_log
from jaxsparse.analysis import connectivity
from jaxsparse.analysis.hessian import hvp, lanczos, param_subspace
from jaxsparse.data.dataset import Examples
from jaxsparse.factory import example_scores

Functions = Callable[[], factory.EvalFns]
VERSION = 1  # of what is computed of checkpoints: to be raised with every change to it
END = "level_00/ticket/last"
THRESHOLDS = (0.0, claims.CONNECTED)  # of a barrier in nats
BATCH = 250
HESSIAN_EXAMPLES = {"quick": 100, "cpu": 500, "full": 2000}
HESSIAN_STEPS = {"quick": 5, "cpu": 20, "full": 50}
BINS = np.arange(-2.0, 8.5, 0.5)  # of the histogram of barriers, as the authors have


def measure(folder: Path, network: str, scale: str, data_dir: str) -> dict[str, Any]:
    """Reads and measures the arms of a network that have ended; {} if there is none."""
    runs = variants.of_network(network, scale)[1:]
    readers = run_reader.ended(runs, folder, data_dir)

    @functools.cache
    def functions() -> factory.EvalFns:
        # All arms train one network, and programs are compiled once for a function.
        first = next(iter(readers.values()))
        stats = jax.tree.map(lambda leaf: leaf[0], first.state(END).batch_stats)
        return factory.make_eval_fns(first.run.config, first.run.dataset, stats)

    found: dict[str, Any] = {"usual": variants.SIZES[scale][network].usual, "arms": {}}
    found["missing"] = launcher.missing(runs, folder)
    scored = run_reader.ended(variants.of_network(network, scale)[:1], folder, data_dir)
    for reader in scored.values():
        rows = reader.of_kind("level", arm="ticket")
        found["scored"] = (len(rows), rows[0]["step"])
    for name, reader in readers.items():
        arm, kept = name.removeprefix(f"{network}_"), folder / "analysis"
        marks = reader.marks([began(reader), END, children(reader)])
        of = {"checkpoints": marks, "version": VERSION}
        sizes = {"examples": HESSIAN_EXAMPLES[scale], "steps": HESSIAN_STEPS[scale]}
        found["arms"][arm] = (
            of_records(reader)
            | cache.once(
                kept / f"{name}.json",
                of,
                functools.partial(
                    of_barriers, reader, functions, kept / f"{name}_barriers.npy"
                ),
                label=f"{name}: barriers",
            )
            | cache.once(
                kept / f"{name}_hessian.json",
                of | sizes,
                functools.partial(of_curvature, reader, functions, **sizes),
                label=f"{name}: curvature",
            )
        )
    return found if found["arms"] else {}


def began(reader: Reader) -> str:
    """Names the checkpoint that all levels of a run start from."""
    return "init" if reader.run.config.lottery.rewind == "0step" else "rewind"


def children(reader: Reader) -> str:
    """Names the checkpoint of the children of the dense network."""
    stages = {row["stage"] for row in reader.of_kind("segment", level=0)}
    return f"{min(stages)}/last"


def of_records(reader: Reader) -> dict[str, Any]:
    """Reads accuracies in percent: of all levels, and after pre-training."""

    def accuracy(row: Any) -> float:
        return 100 * row["test_accuracy"]

    rows = reader.of_kind("level", arm="ticket")
    levels, ticket = run_reader.table(rows, "level", accuracy)
    _, remaining = run_reader.table(
        rows, "level", lambda r: 100 * r["weights_remaining"]
    )
    start = rows[0]["start_step"]
    evals = reader.of_kind("eval", level=0, step=start)
    early = [row for row in evals if row["arm"] in ("pretraining", "ticket")]
    _, pretrained = run_reader.table(early, "step", accuracy)
    segments = reader.of_kind("segment", level=0)
    _, unstable = run_reader.table(
        segments, "level", lambda row: 100 * row["test_instability"]
    )
    return {
        "levels": levels,
        "remaining": remaining.mean(axis=0).tolist(),
        "ticket": ticket.tolist(),
        "pretrained": pretrained[:, 0].tolist(),
        "instability": unstable[:, 0].tolist(),
        "rewind": start,
        "steps": max(row["step"] for row in rows),
        "epochs": max(row["epoch"] for row in rows),
        "segment": reader.segment,
    }


def of_barriers(reader: Reader, functions: Functions, kept: Path) -> dict[str, Any]:
    """Computes every training example's barrier, averaged over the pairs of a seed.

    Args:
      reader: the arm.
      functions: makes those of its network.
      kept: file that gets the vectors [seeds n], float64.

    Returns:
      By seed: "mean_barrier" in nats, and "connected" and "connected_0", fractions of
      examples up to a threshold, averaged over pairs; "by_class" the fractions of each
      class at the first; the counts of a histogram of all examples of all pairs, as
      published, whose outer bins are open; and how many "examples" there are.
    """
    run, parent = reader.run, reader.state(END)
    copies = reader.state(children(reader))
    weights = [example_scores.weights(state) for state in (parent, copies)]
    count = run.config.instability.copies
    examples = Examples(*map(np.asarray, run.dataset.train))
    vectors, single = [], []
    for r in range(run.config.replicates):
        places = [(0, r), *((1, r * count + c) for c in range(count))]
        ends = [_end(weights[which], row) for which, row in places]
        pairs = example_scores.example_barriers(
            functions(), ends, examples, batch_size=BATCH
        )
        vectors.append(pairs.mean(axis=0))
        single.append(pairs)
    every = np.stack(vectors)
    buffer = io.BytesIO()
    np.save(buffer, every)
    metrics_log.write_atomically(kept, buffer.getvalue())
    none, near = THRESHOLDS
    pooled = np.concatenate(single)
    by_class = connectivity.by_class(
        pooled.reshape(-1),
        np.tile(examples.labels, len(pooled)),
        run.dataset.classes,
        near,
    )
    edges = np.concatenate([[-np.inf], BINS, [np.inf]])
    return {
        "mean_barrier": every.mean(axis=1).tolist(),
        "connected": [
            connectivity.connected_fraction(p.reshape(-1), near) for p in single
        ],
        "connected_0": [
            connectivity.connected_fraction(p.reshape(-1), none) for p in single
        ],
        "by_class": by_class.connected.tolist(),
        "histogram": np.histogram(pooled, bins=edges)[0].tolist(),
        "examples": every.shape[1],
    }


def _end(weights: example_scores.Weights, row: int) -> tuple[Any, Any]:
    held = (weights.params, weights.batch_stats)
    return jax.tree.map(lambda leaf: leaf[row], held)


def of_curvature(
    reader: Reader, functions: Functions, *, examples: int, steps: int
) -> dict[str, Any]:
    """Computes the largest eigenvalue of the Hessian of the dense training loss.

    Returns:
      By seed, "sharpness_start" where levels start and "sharpness_end" where the dense
      network ended, on the first training examples.
    """
    run, found = reader.run, {}
    train = run.dataset.train
    batch = (jnp.asarray(train.images[:examples]), jnp.asarray(train.labels[:examples]))
    for field, name in (("start", began(reader)), ("end", END)):
        state = reader.state(name)
        networks = example_scores.weights(state)
        found[f"sharpness_{field}"] = [
            _sharpness(
                functions().loss,
                jax.tree.map(lambda leaf, r=r: leaf[r], networks),
                batch,
                steps,
            )
            for r in range(run.config.replicates)
        ]
    return found


def _sharpness(
    loss: Any, network: example_scores.Weights, batch: Any, steps: int
) -> float:
    """Computes the largest eigenvalue by Lanczos."""
    space = param_subspace.make(network.params, network.masks)
    product = hvp.operator(loss, space, batch, batch_size=len(batch[1]))
    ends = lanczos.extremes(
        product,
        param_subspace.size(space),
        top=1,
        bottom=1,
        steps=steps,
        key=jax.random.key(0),
    )
    return float(np.max(ends.top))
