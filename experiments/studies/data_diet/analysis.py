"""Analysis: accuracies, per-example barriers and curvature of every variant.

Accuracies are read from records. Per-example barriers are computed between the dense
network and its two copies, one vector a seed, and kept beside the JSON; the largest
eigenvalue of the Hessian of the training loss is computed after pre-training and after
dense training.
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
VERSION = 1  # of the computations from checkpoints; raised with every change to them
END = "level_00/ticket/last"
THRESHOLDS = (0.0, claims.CONNECTED)  # of a barrier in nats
BATCH = 250
HESSIAN_EXAMPLES = {"quick": 100, "cpu": 500, "full": 2000}
HESSIAN_STEPS = {"quick": 5, "cpu": 20, "full": 50}
BINS = np.arange(-2.0, 8.5, 0.5)  # of the histogram of barriers, as the authors have


def measure(folder: Path, network: str, scale: str, data_dir: str) -> dict[str, Any]:
    """Measures the runs of a network that have ended; {} if there are none.

    Args:
      folder: directory of all runs.
      network: one of `variants.NETWORKS`.
      scale: one of `studies.SCALES`.
      data_dir: directory of prepared datasets; "" for the one in the configs.

    Returns:
      "variants", measurements by variant; "usual", the main size of subsets;
      "missing", the runs that have not ended and why; and "scored", how many networks
      scored the examples, and after how many updates.
    """
    runs = variants.of_network(network, scale)[1:]
    readers = run_reader.ended(runs, folder, data_dir)

    @functools.cache
    def functions() -> factory.EvalFns:
        # All variants train one network: its functions are compiled once.
        first = next(iter(readers.values()))
        stats = jax.tree.map(lambda leaf: leaf[0], first.state(END).batch_stats)
        return factory.make_eval_fns(first.run.config, first.run.dataset, stats)

    found: dict[str, Any] = {"usual": variants.SIZES[scale][network].usual}
    found["variants"] = {}
    found["missing"] = launcher.missing(runs, folder)
    scored = run_reader.ended(variants.of_network(network, scale)[:1], folder, data_dir)
    for reader in scored.values():
        rows = reader.of_kind("level", variant="ticket")
        found["scored"] = (len(rows), rows[0]["step"])
    for name, reader in readers.items():
        kept = folder / "analysis"
        hashes = reader.hashes([began(reader), END, copies(reader)])
        of = {"checkpoints": hashes, "version": VERSION}
        sizes = {"examples": HESSIAN_EXAMPLES[scale], "steps": HESSIAN_STEPS[scale]}
        found["variants"][name.removeprefix(f"{network}_")] = (
            of_records(reader)
            | cache.cached_json(
                kept / f"{name}.json",
                of,
                functools.partial(
                    of_barriers, reader, functions, kept / f"{name}_barriers.npy"
                ),
                label=f"{name}: barriers",
            )
            | cache.cached_json(
                kept / f"{name}_hessian.json",
                of | sizes,
                functools.partial(of_curvature, reader, functions, **sizes),
                label=f"{name}: curvature",
            )
        )
    return found if found["variants"] else {}


def began(reader: Reader) -> str:
    """Returns the checkpoint that all levels of a run start from."""
    return "init" if reader.run.config.lottery.rewind == "0step" else "rewind"


def copies(reader: Reader) -> str:
    """Returns the checkpoint of the copies of the dense network."""
    rows = reader.of_kind("child_barrier", level=0)
    stages = {row["stage"] for row in rows}
    return f"{min(stages)}/last"


def of_records(reader: Reader) -> dict[str, Any]:
    """Reads accuracies in percent: of all levels, and after pre-training.

    Args:
      reader: a run that has ended.
    """

    def accuracy(row: Any) -> float:
        return 100 * row["test_accuracy"]

    rows = reader.of_kind("level", variant="ticket")
    levels, ticket = run_reader.table(rows, "level", accuracy)
    _, remaining = run_reader.table(rows, "level", lambda r: 100 * r["density"])
    start = rows[0]["start_step"]
    evals = reader.of_kind("eval", level=0, step=start)
    early = [row for row in evals if row["variant"] in ("pretraining", "ticket")]
    _, pretrained = run_reader.table(early, "step", accuracy)
    pairs = reader.of_kind("child_barrier", level=0)
    _, unstable = run_reader.table(
        pairs, "level", lambda row: 100 * row["test_instability"]
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
        "interpolation": reader.interpolation,
    }


def of_barriers(reader: Reader, functions: Functions, kept: Path) -> dict[str, Any]:
    """Computes every training example's barrier, averaged over the pairs of a seed.

    Args:
      reader: a run that has ended.
      functions: makes the functions of its network.
      kept: file for the vectors [seeds n], float64.

    Returns:
      By seed: "mean_barrier" in nats, and "connected" and "connected_0", fractions of
      examples up to a threshold, averaged over pairs; "by_class" the fractions of each
      class at the first; the counts of a histogram of all examples of all pairs, as
      published, whose outer bins are open; and "examples", their number.
    """
    run, parent = reader.run, reader.state(END)
    weights = [
        example_scores.weights(state)
        for state in (parent, reader.state(copies(reader)))
    ]
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

    Args:
      reader: a run that has ended.
      functions: makes the functions of its network.
      examples: how many of the first training examples are used.
      steps: steps of Lanczos' method.

    Returns:
      By seed, "sharpness_start" at the start of levels and "sharpness_end" at the end
      of dense training.
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
    """Computes the largest eigenvalue by Lanczos' method."""
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
