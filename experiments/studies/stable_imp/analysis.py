"""Analysis: accuracies and error barriers from records, angles from checkpoints.

Angles, pruning thresholds and histograms of weights are computed once and cached.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import cache, launcher, run_reader
from experiments.studies.run_reader import Reader
from experiments.studies.stable_imp import variants
from jaxsparse.analysis import connectivity, imp_rounds, pairwise, similarity
from jaxsparse.analysis.similarity import Solution

VERSION = 2  # of the computations from checkpoints; raised with every change to them
BINS = 600  # many, because variants with other limits are drawn in common bins
# In right angles, as the paper has them.
_angle = functools.partial(similarity.angular_distance, subspace="intersection")
_cosine = functools.partial(similarity.cosine_similarity, subspace="intersection")
_distance = functools.partial(similarity.l2_distance, subspace="intersection")
MEASURES = {"angles": _angle, "cosines": _cosine, "distances": _distance}


def measure(folder: Path, network: str, scale: str, data_dir: str) -> dict[str, Any]:
    """Measures the runs of a network that have ended; {} if there are none.

    Args:
      folder: directory of all runs.
      network: one of `variants.NETWORKS`.
      scale: one of `studies.SCALES`.
      data_dir: directory of prepared datasets; "" for the one in the configs.

    Returns:
      "variants" by their role in the claims ("small", "large", "repelled",
      "attracted", or their name); "onset" if it has ended; "warmup", two variants that
      differ in warm-up only; and "missing", the runs that have not ended and why.
    """
    runs = variants.of_network(network, scale)
    readers = run_reader.ended(runs, folder, data_dir)
    batches = variants.BATCHES[scale][network]
    roles = {f"batch_{batches.small}": "small", f"batch_{batches.large}": "large"}
    found: dict[str, Any] = {"variants": {}, "missing": launcher.missing(runs, folder)}
    for name, reader in readers.items():
        variant = name.removeprefix(f"{network}_")
        if variant == "onset":
            found["onset"] = of_onset(reader)
            continue
        kept = folder / "analysis" / f"{name}.json"
        found["variants"][roles.get(variant, variant)] = of_records(
            reader
        ) | cache.cached_json(
            kept,
            {"checkpoints": reader.hashes(ends(reader)), "version": VERSION},
            functools.partial(of_weights, reader),
            label=name,
        )
    half = variants.HALF_STABLE.get((network, scale))
    pair = {"plain": roles.get(f"batch_{half}", ""), "warm": f"batch_{half}_warmup"}
    found["warmup"] = {
        name: found["variants"][variant]
        for name, variant in pair.items()
        if variant in found["variants"]
    }
    return found if found["variants"] or "onset" in found else {}


def ends(reader: Reader) -> list[str]:
    """Returns the checkpoints at the end of all rounds, and the initial one.

    Args:
      reader: a run that has ended.
    """
    levels = sorted({row["level"] for row in reader.of_kind("level", variant="ticket")})
    return [*(f"level_{level:02d}/ticket/last" for level in levels), "init"]


def of_records(reader: Reader) -> dict[str, Any]:
    """Reads accuracies in percent, and error barriers of copies and of rounds.

    Args:
      reader: a run that has ended.
    """

    def accuracy(row: Any) -> float:
        return 100 * row["test_accuracy"]

    rows = reader.of_kind("level", variant="ticket")
    levels, ticket = run_reader.table(rows, "level", accuracy)
    _, remaining = run_reader.table(rows, "level", lambda r: 100 * r["density"])
    controls = reader.of_kind("level", variant="reinitialized")
    # Level 0 has no control: its tickets are dense.
    _, reinitialized = run_reader.table(controls, "level", accuracy)
    dense = np.full((len(ticket), 1), np.nan)
    if not controls:
        reinitialized = np.full((len(ticket), len(levels) - 1), np.nan)
    pairs = reader.of_kind("child_barrier")
    places, unstable = run_reader.table(pairs, "level", _instability("test"))
    _, on_train = run_reader.table(pairs, "level", _instability("train"))
    rounds = reader.of_kind("level_barrier")
    follows, rises = run_reader.table(rounds, "level", _rise)
    return {
        "levels": levels,
        "remaining": remaining.mean(axis=0).tolist(),
        "ticket": ticket.tolist(),
        "reinitialized": np.hstack([dense, reinitialized]).tolist(),
        "instability": dict(zip(places, unstable.T.tolist(), strict=True)),
        "train_instability": dict(zip(places, on_train.T.tolist(), strict=True)),
        "successive_levels": follows,
        "successive": rises.tolist(),
        "steps": max(row["step"] for row in rows),
        "epochs": max(row["epoch"] for row in rows),
        "batch": reader.config["data"]["batch_size"],
        "interpolation": reader.interpolation,
    }


def _instability(part: str) -> Any:
    return lambda row: 100 * row[f"{part}_instability"]


def _rise(row: Any) -> float:
    """Returns the rise of the test error above the worse of two rounds, in points."""
    error, alphas = np.asarray(row["test_error"]), row["alphas"]
    return 100 * float(connectivity.max_increase(error, alphas))


def of_onset(reader: Reader) -> list[dict[str, Any]]:
    """Reads the instability of each level by the update at which copies start.

    Args:
      reader: a run that has ended.
    """
    found = []
    pairs = reader.of_kind("child_barrier")
    for level in sorted({row["level"] for row in pairs}):
        rows = [
            row | {"start": int(row["stage"].rpartition("_")[2])}
            for row in pairs
            if row["level"] == level
        ]
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
    """Measures angles, distances and pruning thresholds of all rounds.

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
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *solutions)
    return np.asarray(pairwise.pairwise(of, stack), np.float64)


def _histograms(solutions: tuple[Solution, ...]) -> list[dict[str, Any]]:
    """Computes histograms of the weights of every round of the first seed."""
    every = [similarity.flatten(one, subspace="first") for one in solutions]
    limit = max(float(jnp.max(jnp.abs(vector))) for vector in every)
    found = []
    for solution in solutions:
        counts, edges = imp_rounds.histogram(solution, limit=limit, bins=BINS)
        found.append({"counts": counts.tolist(), "edges": edges.tolist()})
    return found
