"""What the study reads of its runs, and measures of the weights that they ended with.

Records of training have accuracies, and what lies between children or rounds that
follow each other; angles, thresholds and histograms are computed of checkpoints, once.
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

VERSION = 2  # of what is computed of checkpoints: to be raised with every change to it
BINS = 600  # fine, as arms with other limits are drawn in common bins
# In right angles, as the paper has them.
_angle = functools.partial(similarity.angular_distance, subspace="intersection")
_cosine = functools.partial(similarity.cosine_similarity, subspace="intersection")
_distance = functools.partial(similarity.l2_distance, subspace="intersection")
MEASURES = {"angles": _angle, "cosines": _cosine, "distances": _distance}


def measure(folder: Path, network: str, scale: str, data_dir: str) -> dict[str, Any]:
    """Reads and measures the arms of a network that have ended.

    Returns:
      "arms" by what they are to the claims ("small", "large", "repelled", "attracted",
      or their name), "onset" if that has ended, "warmup", two arms that differ in it
      alone, and "missing", what has not ended and why; {} if nothing has.
    """
    runs = variants.of_network(network, scale)
    readers = run_reader.ended(runs, folder, data_dir)
    batches = variants.BATCHES[scale][network]
    roles = {f"batch_{batches.small}": "small", f"batch_{batches.large}": "large"}
    found: dict[str, Any] = {"arms": {}, "missing": launcher.missing(runs, folder)}
    for name, reader in readers.items():
        arm = name.removeprefix(f"{network}_")
        if arm == "onset":
            found["onset"] = of_onset(reader)
            continue
        kept = folder / "analysis" / f"{name}.json"
        found["arms"][roles.get(arm, arm)] = of_arm(reader) | cache.once(
            kept,
            {"checkpoints": reader.marks(ends(reader)), "version": VERSION},
            functools.partial(of_weights, reader),
            label=name,
        )
    half = variants.HALF_STABLE.get((network, scale))
    pair = {"plain": roles.get(f"batch_{half}", ""), "warm": f"batch_{half}_warmup"}
    found["warmup"] = {
        name: found["arms"][arm] for name, arm in pair.items() if arm in found["arms"]
    }
    return found if found["arms"] or "onset" in found else {}


def ends(reader: Reader) -> list[str]:
    """Names the checkpoints with which the rounds of a run ended, and its beginning."""
    levels = sorted({row["level"] for row in reader.of_kind("level", arm="ticket")})
    return [*(f"level_{level:02d}/ticket/last" for level in levels), "init"]


def of_arm(reader: Reader) -> dict[str, Any]:
    """Reads accuracies in percent, and what lies between children and rounds."""

    def accuracy(row: Any) -> float:
        return 100 * row["test_accuracy"]

    rows = reader.of_kind("level", arm="ticket")
    levels, ticket = run_reader.table(rows, "level", accuracy)
    _, remaining = run_reader.table(
        rows, "level", lambda r: 100 * r["weights_remaining"]
    )
    controls = reader.of_kind("level", arm="reinitialized")
    # Level 0 has no control: its tickets are dense.
    _, reinitialized = run_reader.table(controls, "level", accuracy)
    dense = np.full((len(ticket), 1), np.nan)
    if not controls:
        reinitialized = np.full((len(ticket), len(levels) - 1), np.nan)
    segments = reader.of_kind("segment")
    places, unstable = run_reader.table(segments, "level", _instability("test"))
    _, on_train = run_reader.table(segments, "level", _instability("train"))
    follows, rises = run_reader.table(reader.of_kind("successive"), "level", _rise)
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
        "segment": reader.segment,
    }


def _instability(part: str) -> Any:
    return lambda row: 100 * row[f"{part}_instability"]


def _rise(row: Any) -> float:
    """Takes how far the test error rises above the worse of two rounds, in points."""
    error, alphas = np.asarray(row["test_error"]), row["alphas"]
    return 100 * float(connectivity.max_increase(error, alphas))


def of_onset(reader: Reader) -> list[dict[str, Any]]:
    """Reads how stable children are, by the update that they begin at, a level each."""
    found = []
    segments = reader.of_kind("segment")
    for level in sorted({row["level"] for row in segments}):
        rows = [
            row | {"began": int(row["stage"].rpartition("_")[2])}
            for row in segments
            if row["level"] == level
        ]
        steps, test = run_reader.table(rows, "began", _instability("test"))
        parts = {
            "train": _instability("train"),
            "l2": lambda row: row["l2"],
            "disagreement": lambda row: 100 * row["disagreement"],
        }
        more = {
            name: run_reader.table(rows, "began", of)[1] for name, of in parts.items()
        }
        found.append(
            {"level": level, "steps": steps, "instability": test.tolist()}
            | {name: values.tolist() for name, values in more.items()}
            | {"segments": of_segments(rows), "updates": rows[0]["step"]}
            | {"batch": reader.config["data"]["batch_size"]}
        )
    return found


def of_segments(rows: list[Any]) -> list[dict[str, Any]]:
    """Averages the errors on the segments of each seed, by where children began."""
    found = []
    for step in sorted({row["began"] for row in rows}):
        here = [row for row in rows if row["began"] == step]
        seeds = sorted({row["replicate"] for row in here})
        errors = [
            np.mean([r["test_error"] for r in here if r["replicate"] == seed], axis=0)
            for seed in seeds
        ]
        entry = {"step": step, "alphas": here[0]["alphas"]}
        found.append(entry | {"error": (100 * np.asarray(errors)).tolist()})
    return found


def of_weights(reader: Reader) -> dict[str, Any]:
    """Measures the solutions of all rounds: how they lie, and where they are cut."""
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
    """Counts the weights of every round of the first seed by their value."""
    every = [similarity.flatten(one, subspace="first") for one in solutions]
    limit = max(float(jnp.max(jnp.abs(vector))) for vector in every)
    found = []
    for solution in solutions:
        counts, edges = imp_rounds.histogram(solution, limit=limit, bins=BINS)
        found.append({"counts": counts.tolist(), "edges": edges.tolist()})
    return found
