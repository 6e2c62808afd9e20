"""Measure: accuracies, counts of weights and the cost of training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.studies import run_reader
from experiments.studies.run_reader import Reader
from jaxsparse import replicates
from jaxsparse.analysis import soups
from jaxsparse.analysis.similarity import Solution
from jaxsparse.factory import instability


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      By seed: "accuracy" in percent, "kept", "effective" and "total", numbers of
      weights; "layers", the percentage of each layer that is kept, averaged; "curve"
      and "explored", accuracies and percentages of weights that were ever active, by
      step; "training_flops", [] where unknown, and "interpolated", whether densities
      between evaluations were interpolated for them. Of networks that were pruned over
      levels also "re_estimated", accuracies with statistics of BatchNorm as those of
      `of_soups`. Of a run with particles, all but "curve", "explored", "re_estimated"
      and "each", accuracies of particles, are of the groups: "accuracy" is that of
      `of_soups`, and training includes all particles.
    """
    del other
    found = of_records(reader)
    lottery = reader.config["lottery"]
    if lottery["levels"]:
        found["re_estimated"] = of_soups(reader, 1)
    particles = lottery.get("particles", 1)
    if particles == 1:
        return found
    grouped = {
        name: found[name][::particles] for name in ("kept", "effective", "total")
    }
    flops = [
        None if one is None else particles * one for one in found["training_flops"]
    ]
    return (
        found
        | grouped
        | {"accuracy": of_soups(reader, particles), "each": found["accuracy"]}
        | {"training_flops": flops[::particles]}
    )


def of_soups(reader: Reader, particles: int) -> list[float]:
    """Measures the mean network of each group of particles.

    The statistics of BatchNorm are estimated anew on training examples.

    Args:
      reader: a run that has ended.
      particles: number of consecutive replicates in a group.

    Returns:
      Test accuracies in percent, one for each group.
    """
    functions, data = reader.functions(), reader.run.dataset
    solutions = reader.solutions(reader.end(reader.config["lottery"]["levels"]))
    estimated = instability.re_estimated(functions, data.train.images)
    statistics = jax.jit(estimated.at)
    logits = instability.make_logits(functions, data.test.images)

    def accuracy(group: Solution) -> float:
        params = soups.average(group.params, group.masks)
        scores = logits(params, statistics(params))
        right = np.argmax(scores, axis=-1) == data.test.labels
        return 100 * float(np.mean(right))

    return [
        accuracy(replicates.stack(solutions[first : first + particles]))
        for first in range(0, len(solutions), particles)
    ]


def of_records(reader: Reader) -> dict[str, Any]:
    """Reads what is recorded of every replicate.

    Args:
      reader: a run that has ended.
    """
    rows = reader.last()
    counts = [r for r in reader.last("mask_stats") if r.get("ever_active") is not None]
    explored = run_reader.table(
        counts, "step", lambda row: 100 * row["ever_active"] / row["total"]
    )
    names, flops = rows[0]["layers"], reader.last("flops")
    return {
        "training_flops": [row["training_flops"] for row in flops],
        "interpolated": any(row["interpolated"] for row in flops),
        "accuracy": list(map(run_reader.accuracy, rows)),
        "kept": [row["kept"] for row in rows],
        "effective": [row["effective_params"] for row in rows],
        "total": [row["total"] for row in rows],
        "layers": {
            name: float(
                np.mean([100 * np.divide(*row["layers"][name]) for row in rows])
            )
            for name in names
        },
        "curve": reader.curve(),
        "explored": (explored[0], explored[1].tolist()),
    }
