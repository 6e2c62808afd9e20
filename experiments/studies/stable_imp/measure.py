"""Measure: accuracies and error barriers from records; angles from weights."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.studies import run_reader
from experiments.studies.run_reader import Reader
from jaxsparse import replicates
from jaxsparse.analysis import imp_rounds, mode_connectivity, pairwise, similarity
from jaxsparse.analysis.similarity import Solution
from jaxsparse.stages import TICKET

BINS = 600  # many, because variants with other limits are drawn in common bins
# In right angles, as the paper has them.
_angle = functools.partial(similarity.angular_distance, subspace="intersection")
_cosine = functools.partial(similarity.cosine_similarity, subspace="intersection")
_distance = functools.partial(similarity.l2_distance, subspace="intersection")
MEASURES = {"angles": _angle, "cosines": _cosine, "distances": _distance}


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      What `of_records` reads, "onset" from `of_onset`, and for runs that prune what
      `of_weights` measures.
    """
    del other
    found = of_records(reader) | {"onset": of_onset(reader)}
    if found["levels"][-1]:
        found |= of_weights(reader)
    return found


def ends(reader: Reader) -> list[str]:
    """Returns the checkpoints at the end of all levels, and the initial one.

    Args:
      reader: a run that has ended.
    """
    levels = sorted({row["level"] for row in reader.tickets()})
    return [*map(reader.end, levels), "init"]


def of_records(reader: Reader) -> dict[str, Any]:
    """Reads accuracies in percent, and error barriers of copies and of levels.

    Args:
      reader: a run that has ended.

    Returns:
      By seed and level: "ticket", and "controls" by name, NaN where there are none;
      "instability" and "train_instability" by level; "successive", the rise of the
      error from the level before, at "successive_levels".
    """
    found = reader.levels()
    names = {row["variant"] for row in reader.of_kind("level")} - {TICKET}
    controls = {}
    for name in sorted(names):
        of_control = reader.of_kind("level", variant=name)
        places, values = run_reader.table(of_control, "level", run_reader.accuracy)
        # Only some levels have controls, and level 0 has none: its tickets are dense.
        every = np.full(np.shape(found["ticket"]), np.nan)
        every[:, [found["levels"].index(place) for place in places]] = values
        controls[name] = every.tolist()
    # Copies from the earliest start; `of_onset` has all of them.
    barriers = reader.of_kind("child_barrier")
    first = min(map(_start, barriers), default=0)
    pairs = [row for row in barriers if _start(row) == first]
    places, unstable = run_reader.table(pairs, "level", _instability("test"))
    _, on_train = run_reader.table(pairs, "level", _instability("train"))
    levels = reader.of_kind("level_barrier")
    follows, rises = run_reader.table(levels, "level", _rise)
    return found | {
        "controls": controls,
        "instability": dict(zip(places, unstable.T.tolist(), strict=True)),
        "train_instability": dict(zip(places, on_train.T.tolist(), strict=True)),
        "successive_levels": follows,
        "successive": rises.tolist(),
        "batch": reader.config["data"]["batch_size"],
    }


def _start(row: Any) -> int:
    """Returns the update at which the copies of a record started."""
    return int(row["stage"].rpartition("_")[2])


def _instability(part: str) -> Any:
    return lambda row: 100 * row[f"{part}_instability"]


def _rise(row: Any) -> float:
    """Returns the rise of the test error above the worse of two levels, in points."""
    error, alphas = np.asarray(row["test_error"]), row["alphas"]
    return 100 * float(mode_connectivity.max_increase(error, alphas))


def of_onset(reader: Reader) -> list[dict[str, Any]]:
    """Reads the instability of each level by the update at which copies start.

    Args:
      reader: a run that has ended.
    """
    found = []
    pairs = reader.of_kind("child_barrier")
    for level in sorted({row["level"] for row in pairs}):
        rows = [row | {"start": _start(row)} for row in pairs if row["level"] == level]
        steps, test = run_reader.table(rows, "start", _instability("test"))
        parts = {
            "train": _instability("train"),
            "l2": lambda row: row["l2"],
            "disagreement": lambda row: 100 * row["disagreement"],
        }
        more = {
            name: run_reader.table(rows, "start", of)[1] for name, of in parts.items()
        }
        found.append(
            {"level": level, "steps": steps, "instability": test.tolist()}
            | {name: values.tolist() for name, values in more.items()}
            | {"interpolations": of_interpolations(rows), "updates": rows[0]["step"]}
            | {"batch": reader.config["data"]["batch_size"]}
        )
    return found


def of_interpolations(rows: list[Any]) -> list[dict[str, Any]]:
    """Averages the errors over the pairs of each seed, by where copies start.

    Args:
      rows: records of barriers between copies, with "start".
    """
    found = []
    for step in sorted({row["start"] for row in rows}):
        here = [row for row in rows if row["start"] == step]
        seeds = sorted({row["replicate"] for row in here})
        errors = [
            np.mean([r["test_error"] for r in here if r["replicate"] == seed], axis=0)
            for seed in seeds
        ]
        entry = {"step": step, "alphas": here[0]["alphas"]}
        found.append(entry | {"error": (100 * np.asarray(errors)).tolist()})
    return found


def of_weights(reader: Reader) -> dict[str, Any]:
    """Measures angles, distances and pruning thresholds of all levels.

    Args:
      reader: a run that has ended.
    """
    names = ends(reader)
    each = [reader.solutions(name) for name in names]
    by_seed = list(zip(*each, strict=True))
    found: dict[str, Any] = {"labels": [*map(str, range(len(names) - 1)), "init"]}
    for name, of in MEASURES.items():
        found[name] = [_matrix(of, solutions).tolist() for solutions in by_seed]
    found["angles"] = (np.asarray(found["angles"]) * 2 / np.pi).tolist()
    cuts = [
        [
            imp_rounds.pruning_threshold(before, after.masks)
            for before, after in zip(solutions[:-2], solutions[1:-1], strict=True)
        ]
        for solutions in by_seed
    ]
    found["thresholds"] = [[one.largest_pruned for one in line] for line in cuts]
    found["histograms"] = _histograms(by_seed[0][:-1])
    return found


def _matrix(of: Any, solutions: tuple[Solution, ...]) -> np.ndarray:
    return np.asarray(pairwise.pairwise(of, replicates.stack(solutions)), np.float64)


def _histograms(solutions: tuple[Solution, ...]) -> list[dict[str, Any]]:
    """Computes histograms of the weights of every level of the first seed."""
    every = [similarity.flatten(one, subspace="first") for one in solutions]
    limit = max(float(jnp.max(jnp.abs(vector))) for vector in every)
    found = []
    for solution in solutions:
        counts, edges = imp_rounds.histogram(solution, limit=limit, bins=BINS)
        found.append({"counts": counts.tolist(), "edges": edges.tolist()})
    return found
