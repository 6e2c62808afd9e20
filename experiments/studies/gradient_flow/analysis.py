"""Analysis: measurements of runs that have ended, each part kept as a JSON file.

A part is computed again only if its inputs have changed: the final weights of variants,
by their hash, the number of examples, the kind of device, or `VERSION`. A variant that
has not ended is left out, and its parts are computed once it has. Everything is
computed in full float32, whatever a device uses by default.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import cache
from experiments.studies.gradient_flow import curvature, initialization, variants
from experiments.studies.gradient_flow.runs_reader import NetworkRuns
from jaxsparse import metrics_log
from jaxsparse.analysis import (
    connectivity,
    embedding,
    pairwise,
    predictions,
    similarity,
)

# Of the computations here and in `curvature`; raised with every change to them.
VERSION = 1

# Starts of interpolations to the pruned solution: variant and moment.
STARTS = (
    ("lt", "start"),
    ("lt", "end"),
    ("scratch", "start"),
    ("scratch", "end"),
    ("scratch_plus", "end"),
    ("rigl", "end"),
    ("prune_restart", "end"),
)
RE_ESTIMATED = 10  # batches of 1,000, for the statistics of batch normalization
EXAMPLES = {"quick": 2000, "cpu": 10_000, "full": 60_000}
MAPPED = ("prune", "lt", "scratch", "scratch_plus", "rigl")


def logits(runs: NetworkRuns, variant: str) -> np.ndarray:
    """Computes the logits [seeds n k] of a variant on the test set, once.

    Args:
      runs: runs of a network.
      variant: one of its variants.
    """
    mark = runs.hashes(variant)[variant][:12]
    path = _folder(runs) / f"logits_{variant}_{mark}.npy"
    if path.exists():
        with contextlib.suppress(ValueError, EOFError):  # damaged: computed again
            return np.load(path)
    apply = jax.jit(runs.functions(variant).logits)
    test = runs.run(variant).dataset.test
    state = runs.state(variant)
    weights = (state.params, state.batch_stats)
    found = np.stack(
        [
            np.concatenate(
                [
                    np.asarray(apply(*one, test.images[first : first + 1000]))
                    for first in range(0, len(test.labels), 1000)
                ]
            )
            for one in (
                jax.tree.map(lambda leaf, r=r: leaf[r], weights)
                for r in runs.seeds(variant)
            )
        ]
    )
    content = io.BytesIO()
    np.save(content, found)
    metrics_log.write_atomically(path, content.getvalue())
    return found


def of_predictions(runs: NetworkRuns) -> dict[str, Any]:
    """Measures the accuracy of every variant, and disagreements among its seeds.

    Args:
      runs: runs of a network.
    """
    found = {}
    labels = runs.run("prune").dataset.test.labels
    pruned = jnp.asarray(logits(runs, "prune")[0])
    for variant in runs.variants:
        stack = jnp.asarray(logits(runs, variant))
        # The pruned solution is not compared with itself.
        others = stack[1:] if variant == "prune" else stack
        right = np.mean(np.argmax(np.asarray(stack), axis=-1) == labels, axis=-1)
        entry: dict[str, Any] = {"accuracy": (100 * right).tolist()}
        if len(stack) > 1:
            ensemble = predictions.ensemble_scores(stack, jnp.asarray(labels))
            entry["ensemble"] = 100 * float(ensemble.accuracy)
            for name in ("disagreement", "kl_divergence", "js_divergence"):
                matrix = pairwise.pairwise(getattr(predictions, name), stack)
                over = pairwise.over_pairs(np.asarray(matrix))
                entry[name.removesuffix("_divergence")] = [over.mean, over.sd]
        entry["with_pruned"] = [
            float(predictions.disagreement(one, pruned)) for one in others
        ]
        found[variant] = entry
        if variant == "prune":
            # The one from which all others take their masks.
            found["pruned"] = {"accuracy": entry["accuracy"][:1]}
    return found


def of_gradients(runs: NetworkRuns) -> dict[str, Any]:
    """Reads the gradient flow that was recorded during training.

    Args:
      runs: runs of a network.
    """
    found: dict[str, Any] = {"gradient": {}, "changes": {}}
    for variant in runs.variants:
        rows = runs.records(variant, "gradient_norm")
        steps, norms = _by_seed(rows, lambda row: row["norm"])
        _, effective = _by_seed(rows, _effective)
        rate = runs.run(variant).learning_rate
        rates = np.asarray([float(rate(jnp.int32(step))) for step in steps])
        found["gradient"][variant] = {
            "steps": steps,
            "norm": norms.tolist(),
            "effective": effective.tolist(),
            "decrease": (rates * norms**2).tolist(),
        }
        late, after = _by_seed(
            runs.records(variant, "mask_update"), lambda row: row["norm"]
        )
        if late:
            changes = [step - 1 for step in late]
            before = norms[:, [steps.index(step) for step in changes]]
            found["changes"][variant] = {
                "steps": changes,
                "before": before.tolist(),
                "after": after.tolist(),
            }
    return found


def _effective(row: dict[str, Any]) -> float:
    """Averages the norms of kernels; see `gradient_flow.effective_gradient_flow`."""
    norms = [norm for name, norm in row["layers"].items() if name.endswith("kernel")]
    return float(np.mean(norms))


def _by_seed(
    rows: Sequence[dict[str, Any]], measure: Callable[[dict[str, Any]], float]
) -> tuple[list[int], np.ndarray]:
    steps = sorted({row["step"] for row in rows})
    places = {step: place for place, step in enumerate(steps)}
    seeds = 1 + max((row["replicate"] for row in rows), default=-1)
    values = np.full((seeds, len(steps)), np.nan)
    for row in rows:
        values[row["replicate"], places[row["step"]]] = measure(row)
    return steps, values


def of_interpolation(runs: NetworkRuns, variant: str, moment: str) -> dict[str, Any]:
    """Evaluates networks on the interpolation from a variant to the pruned solution.

    Args:
      runs: runs of a network.
      variant: one of its variants.
      moment: "start" or "end" of its training.
    """
    train = runs.run("prune").dataset.train
    examples = runs.examples(EXAMPLES[runs.scale])
    stats = None
    if runs.has_batch_norm:
        shape = (RE_ESTIMATED, 1000, *train.images.shape[1:])
        batches = jnp.asarray(train.images[: RE_ESTIMATED * 1000]).reshape(shape)
        stats = connectivity.ReEstimated(runs.functions().statistics, batches)
    end = runs.solution("prune", "end", 0).params
    # All tickets have the same initial weights.
    seeds = [0] if (variant, moment) == ("lt", "start") else runs.seeds(variant)
    each = [
        connectivity.along_path(
            runs.functions().evaluate,
            runs.solution(variant, moment, r).params,
            end,
            examples=examples,
            batch_size=1000,
            by="scan",
            batch_stats=stats,
        )
        for r in seeds
    ]
    return {
        "variant": variant,
        "moment": moment,
        "examples": len(examples[1]),
        "alphas": each[0].alphas.tolist(),
        "loss": [one.loss.tolist() for one in each],
        "error": [(100 * one.error).tolist() for one in each],
    }


def of_distances(runs: NetworkRuns) -> dict[str, Any]:
    """Measures distances between solutions, and embeds them in the plane.

    Args:
      runs: runs of a network.
    """
    chosen = [("prune", "end", 0)]
    for variant in MAPPED[1:]:
        if variant in runs.variants:
            starts = [0] if variant == "lt" else runs.seeds(variant)
            chosen += [(variant, "start", r) for r in starts]
            chosen += [(variant, "end", r) for r in runs.seeds(variant)]
    if len(chosen) < 2:
        return {}
    each = [runs.solution(*place) for place in chosen]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    matrix = np.asarray(pairwise.pairwise(similarity.l2_distance, stack), np.float64)
    found = embedding.mds((matrix + matrix.T) / 2, key=jax.random.key(0))
    return {
        "labels": [f"{variant} {moment} {r}" for variant, moment, r in chosen],
        "groups": [f"{variant} {moment}" for variant, moment, _ in chosen],
        "matrix": matrix.tolist(),
        "points": found.points.tolist(),
        "relative_stress": float(found.relative_stress),
    }


def measure(folder: Path, network: str, scale: str, data_dir: str) -> dict[str, Any]:
    """Measures the runs of a network that have ended; {} without a pruning run.

    Args:
      folder: directory of all runs.
      network: one of `variants.NETWORKS`.
      scale: one of `studies.SCALES`.
      data_dir: directory of prepared datasets; "" for the one in the configs.

    Returns:
      Each part by name; "curvature" by variant; "steps", the updates of the runs.

    Raises:
      ValueError: if a state is lost, or variants have other masks than the pruning run.
    """
    runs = NetworkRuns(folder, network, scale, data_dir)
    if "prune" not in runs.variants:
        return {}
    runs.check()
    with jax.default_matmul_precision(cache.PRECISION):
        return _measure(runs)


def _measure(runs: NetworkRuns) -> dict[str, Any]:
    """Computes or reads every part."""
    once = functools.partial(_once, runs)
    mapped = [variant for variant in MAPPED if variant in runs.variants]
    found: dict[str, Any] = {
        "steps": max(row["step"] for row in runs.records("prune", "eval")),
        "predictions": once("predictions", of_predictions, runs.variants),
        "gradients": of_gradients(runs),
        "starts": once("starts", initialization.of_starts, ["prune"]),
        "distances": once("distances", of_distances, mapped),
        # Batch normalization fixes the standard deviation.
        "signals": {}
        if runs.has_batch_norm
        else once("signals", initialization.of_signals, ["prune"]),
    }
    examples = {"examples": EXAMPLES[runs.scale]}
    found["interpolations"] = {
        f"{variant}_{moment}": once(
            f"interpolation_{variant}_{moment}",
            functools.partial(of_interpolation, variant=variant, moment=moment),
            ["prune", variant],
            **examples,
        )
        for variant, moment in STARTS
        if variant in runs.variants
    }
    examples = {"examples": curvature.EXAMPLES[runs.scale]}
    found["curvature"] = {
        variant: {
            "states": [
                once(
                    "_".join(["curvature", variant, *map(str, place)]).rstrip("_"),
                    functools.partial(curvature.spectrum, variant=variant, place=place),
                    [variant],
                    **examples,
                )
                for place in curvature.places(runs, variant)
            ]
        }
        for variant in curvature.VARIANTS
        if variant in runs.variants and runs.network in variants.CURVED
    }
    return found


def _folder(runs: NetworkRuns) -> Path:
    return runs.folder / "analysis" / runs.network


def _once(
    runs: NetworkRuns,
    name: str,
    compute: Callable[[NetworkRuns], Any],
    on: Sequence[str],
    **sizes: Any,
) -> Any:
    """Reads a part with the same inputs from its file, or computes it."""
    of = {"variants": runs.hashes(*on), **sizes, "version": VERSION}
    return cache.cached_json(
        _folder(runs) / f"{name}.json",
        of,
        functools.partial(compute, runs),
        label=f"{runs.network}: {name}",
    )
