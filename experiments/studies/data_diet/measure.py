"""Measure: accuracies, per-example barriers and curvature of a run.

Accuracies are read from records. Per-example barriers are computed between the dense
network and its copies; the largest eigenvalue of the Hessian of the training loss is
computed after pre-training and after dense training.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import run_reader
from experiments.studies.data_diet import claims
from experiments.studies.run_reader import Reader
from jaxsparse import factory, replicates
from jaxsparse.analysis import mode_connectivity
from jaxsparse.analysis.hessian import hvp, lanczos, param_subspace
from jaxsparse.data.dataset import Examples
from jaxsparse.factory import example_scores
from jaxsparse.stages import PRETRAINING, TICKET

THRESHOLDS = (0.0, claims.CONNECTED)  # of a barrier in nats
BATCH = 250
# Examples and steps of Lanczos' method, by the number of training examples.
HESSIAN = {1000: (100, 5), 5000: (500, 20), 60_000: (500, 20)}
BINS = np.arange(-2.0, 8.5, 0.5)  # of the histogram of barriers, as the authors have


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      Of the run whose networks score, "scored": how many, and after how many updates.
      Of all others, what `of_records`, `of_barriers` and `of_curvature` return.
    """
    del other
    if reader.name.endswith("_scored"):
        rows = reader.tickets()
        return {"scored": (len(rows), rows[0]["step"])}
    functions = reader.functions()
    count = len(reader.run.dataset.train.labels)
    nearest = min((size for size in HESSIAN if size >= count), default=max(HESSIAN))
    examples, steps = HESSIAN[nearest]
    return (
        of_records(reader)
        | of_barriers(reader, functions)
        | of_curvature(reader, functions, examples=examples, steps=steps)
    )


def began(reader: Reader) -> str:
    """Returns the checkpoint that all levels of a run start from.

    Args:
      reader: the reader of the run.
    """
    return "init" if reader.run.config.lottery.rewind == "0step" else "rewind"


def copies(reader: Reader) -> str:
    """Returns the checkpoint of the copies of the dense network.

    Args:
      reader: the reader of the run.
    """
    rows = reader.of_kind("child_barrier", level=0)
    stages = {row["stage"] for row in rows}
    return f"{min(stages)}/last"


def of_records(reader: Reader) -> dict[str, Any]:
    """Reads accuracies in percent: of all levels, and after pre-training.

    Args:
      reader: a run that has ended.
    """
    found = reader.levels()
    evals = reader.of_kind("eval", level=0, step=found["rewind"])
    early = [row for row in evals if row["variant"] in (PRETRAINING, TICKET)]
    _, pretrained = run_reader.table(early, "step", run_reader.accuracy)
    pairs = reader.of_kind("child_barrier", level=0)
    _, unstable = run_reader.table(
        pairs, "level", lambda row: 100 * row["test_instability"]
    )
    return found | {
        "pretrained": pretrained[:, 0].tolist(),
        "instability": unstable[:, 0].tolist(),
    }


def of_barriers(reader: Reader, functions: factory.EvalFns) -> dict[str, Any]:
    """Computes every training example's barrier, averaged over the pairs of a seed.

    Args:
      reader: a run that has ended.
      functions: functions of its network.

    Returns:
      By seed: "mean_barrier" in nats, and "connected" and "connected_0", fractions of
      examples up to a threshold, averaged over pairs; "by_class" the fractions of each
      class at the first; the counts of a histogram of all examples of all pairs, as
      published, whose outer bins are open; and "examples", their number.
    """
    run = reader.run
    weights = [
        example_scores.weights(reader.state(name))
        for name in (reader.end(), copies(reader))
    ]
    count = run.config.instability.copies
    examples = Examples(*map(np.asarray, run.dataset.train))
    parents, children = (replicates.split(w._replace(masks=None)) for w in weights)
    vectors, single = [], []
    for r, parent in enumerate(parents):
        ends = [one[:2] for one in (parent, *children[r * count : (r + 1) * count])]
        pairs = example_scores.example_barriers(
            functions, ends, examples, batch_size=BATCH
        )
        vectors.append(pairs.mean(axis=0))
        single.append(pairs)
    every = np.stack(vectors)
    none, near = THRESHOLDS
    pooled = np.concatenate(single)
    by_class = mode_connectivity.by_class(
        pooled.reshape(-1),
        np.tile(examples.labels, len(pooled)),
        run.dataset.classes,
        near,
    )
    edges = np.concatenate([[-np.inf], BINS, [np.inf]])
    return {
        "mean_barrier": every.mean(axis=1).tolist(),
        "connected": [
            mode_connectivity.connected_fraction(p.reshape(-1), near) for p in single
        ],
        "connected_0": [
            mode_connectivity.connected_fraction(p.reshape(-1), none) for p in single
        ],
        "by_class": by_class.connected.tolist(),
        "histogram": np.histogram(pooled, bins=edges)[0].tolist(),
        "examples": every.shape[1],
    }


def of_curvature(
    reader: Reader, functions: factory.EvalFns, *, examples: int, steps: int
) -> dict[str, Any]:
    """Computes the largest eigenvalue of the Hessian of the dense training loss.

    Args:
      reader: a run that has ended.
      functions: functions of its network.
      examples: how many of the first training examples are used.
      steps: steps of Lanczos' method.

    Returns:
      By seed, "sharpness_start" at the start of levels and "sharpness_end" at the end
      of dense training; and "hessian_examples".
    """
    run, found = reader.run, {"hessian_examples": examples}
    train = run.dataset.train
    batch = (jnp.asarray(train.images[:examples]), jnp.asarray(train.labels[:examples]))
    for field, name in (("start", began(reader)), ("end", reader.end())):
        state = reader.state(name)
        networks = example_scores.weights(state)
        found[f"sharpness_{field}"] = [
            _sharpness(functions.loss, one, batch, steps)
            for one in replicates.split(networks)
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
