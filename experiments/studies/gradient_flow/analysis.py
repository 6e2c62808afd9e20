"""What the study measures on runs that have ended, each part kept as a JSON file.

A part is computed again only if what it was computed of has changed: the weights that
arms ended with, by their hash, how many examples are looked at, the kind of device, or
`VERSION`. An arm that has not ended is left out, and its parts are computed when it
has. All is computed in full float32, whatever a device would do by itself.
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
from experiments.studies.gradient_flow import curvature, variants
from experiments.studies.gradient_flow.runs_reader import Study
from jaxsparse import factory, initializers, metrics_log
from jaxsparse import masks as masks_lib
from jaxsparse.analysis import (
    connectivity,
    embedding,
    gradient_flow,
    pairwise,
    predictions,
    similarity,
)

# Of what is computed here and in `curvature`: to be raised with every change to it.
VERSION = 1

# Ends of segments to the pruned solution: arm and moment.
SEGMENTS = (
    ("lt", "start"),
    ("lt", "end"),
    ("scratch", "start"),
    ("scratch", "end"),
    ("scratch_plus", "end"),
    ("rigl", "end"),
    ("prune_restart", "end"),
)
RE_ESTIMATED = 10  # batches of 1,000 that BatchNorm's statistics are taken from
SEGMENT_EXAMPLES = {"quick": 2000, "cpu": 10_000, "full": 60_000}
FLOW_EXAMPLES = 1000  # as many as the norm of the gradient is recorded on in training
MAPPED = ("prune", "lt", "scratch", "scratch_plus", "rigl")


def logits(study: Study, arm: str) -> np.ndarray:
    """Computes the logits [r n k] of an arm on the test set, once."""
    mark = study.mark(arm)[arm][:12]
    path = _folder(study) / f"logits_{arm}_{mark}.npy"
    if path.exists():
        with contextlib.suppress(ValueError, EOFError):  # damaged: computed again
            return np.load(path)
    apply = jax.jit(study.functions(arm).logits)
    test = study.run(arm).dataset.test
    state = study.state(arm)
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
                for r in study.seeds(arm)
            )
        ]
    )
    content = io.BytesIO()
    np.save(content, found)
    metrics_log.write_atomically(path, content.getvalue())
    return found


def of_predictions(study: Study) -> dict[str, Any]:
    """Says for every arm how right it is, and how alike its seeds predict."""
    found = {}
    labels = study.run("prune").dataset.test.labels
    pruned = jnp.asarray(logits(study, "prune")[0])
    for arm in study.arms:
        stack = jnp.asarray(logits(study, arm))
        # The pruned solution itself is no match for itself.
        others = stack[1:] if arm == "prune" else stack
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
        found[arm] = entry
        if arm == "prune":
            # The one that all others take their masks from.
            found["pruned"] = {"accuracy": entry["accuracy"][:1]}
    return found


def of_gradients(study: Study) -> dict[str, Any]:
    """Collects the gradient flow that was recorded during training."""
    found: dict[str, Any] = {"gradient": {}, "changes": {}}
    for arm in study.arms:
        rows = study.records(arm, "gradient")
        steps, norms = _by_seed(rows, lambda row: row["norm"])
        _, effective = _by_seed(rows, _effective)
        rate = study.run(arm).learning_rate
        rates = np.asarray([float(rate(jnp.int32(step))) for step in steps])
        found["gradient"][arm] = {
            "steps": steps,
            "norm": norms.tolist(),
            "effective": effective.tolist(),
            "decrease": (rates * norms**2).tolist(),
        }
        late, after = _by_seed(study.records(arm, "change"), lambda row: row["norm"])
        if late:
            changes = [step - 1 for step in late]
            before = norms[:, [steps.index(step) for step in changes]]
            found["changes"][arm] = {
                "steps": changes,
                "before": before.tolist(),
                "after": after.tolist(),
            }
    return found


def _effective(row: dict[str, Any]) -> float:
    """Averages the norms of kernels: see `gradient_flow.effective_gradient_flow`."""
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


def of_starts(study: Study) -> dict[str, list[float]]:
    """Takes the norm of the gradient at initialisation, each seed on its own mask.

    The arms of training share the mask of one pruning run, and tickets their weights
    besides. Here every pruning run gives a mask: its own initial weights under it are
    the ticket, and fresh ones what training from scratch would begin with.
    """
    network, batch = study.run("prune").network, study.examples(FLOW_EXAMPLES)
    loss = study.functions().loss

    @jax.jit
    def norm(params: Any, masks: Any) -> Any:
        grads = gradient_flow.gradient(loss, params, masks, batch)
        return gradient_flow.measure(grads, masks).norm

    draws = {
        "scratch": initializers.masked("glorot_uniform"),
        "scratch_plus": initializers.per_neuron(fan="in", scale=1.0),
        "liu": initializers.layer_scaled("glorot_uniform"),
    }
    found: dict[str, list[float]] = {name: [] for name in ("lt", *draws)}
    for r in study.seeds("prune"):
        masks = study.solution("prune", "end", r).masks
        own = study.solution("prune", "start", r).params
        found["lt"].append(float(norm(masks_lib.apply(masks, own), masks)))
        fresh = _fresh(network, r)
        for name, draw in draws.items():
            key = jax.random.key(100 + r)
            params = initializers.redraw(fresh, masks, draw, key=key)
            found[name].append(float(norm(params, masks)))
    return found


def _fresh(network: Any, seed: int) -> Any:
    """Draws the weights of a dense network."""
    keys = jax.random.split(jax.random.key(seed), 1)
    params, _ = jax.tree.map(lambda leaf: leaf[0], network.initialize(keys))
    return params


def of_segment(study: Study, arm: str, moment: str) -> dict[str, Any]:
    """Evaluates the networks on the way from an arm to the pruned solution."""
    train = study.run("prune").dataset.train
    examples = study.examples(SEGMENT_EXAMPLES[study.scale])
    stats = None
    if study.normalises:
        shape = (RE_ESTIMATED, 1000, *train.images.shape[1:])
        batches = jnp.asarray(train.images[: RE_ESTIMATED * 1000]).reshape(shape)
        stats = connectivity.ReEstimated(study.functions().statistics, batches)
    end = study.solution("prune", "end", 0).params
    # Tickets all start from one place.
    seeds = [0] if (arm, moment) == ("lt", "start") else study.seeds(arm)
    each = [
        connectivity.along_path(
            study.functions().evaluate,
            study.solution(arm, moment, r).params,
            end,
            examples=examples,
            batch_size=1000,
            by="scan",
            batch_stats=stats,
        )
        for r in seeds
    ]
    return {
        "arm": arm,
        "moment": moment,
        "examples": len(examples[1]),
        "alphas": each[0].alphas.tolist(),
        "loss": [one.loss.tolist() for one in each],
        "error": [(100 * one.error).tolist() for one in each],
    }


def of_distances(study: Study) -> dict[str, Any]:
    """Measures how far solutions lie from each other, and draws them as a map."""
    chosen = [("prune", "end", 0)]
    for arm in MAPPED[1:]:
        if arm in study.arms:
            starts = [0] if arm == "lt" else study.seeds(arm)
            chosen += [(arm, "start", r) for r in starts]
            chosen += [(arm, "end", r) for r in study.seeds(arm)]
    if len(chosen) < 2:
        return {}
    each = [study.solution(*place) for place in chosen]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    matrix = np.asarray(pairwise.pairwise(similarity.l2_distance, stack), np.float64)
    found = embedding.mds((matrix + matrix.T) / 2, key=jax.random.key(0))
    return {
        "labels": [f"{arm} {moment} {r}" for arm, moment, r in chosen],
        "groups": [f"{arm} {moment}" for arm, moment, _ in chosen],
        "matrix": matrix.tolist(),
        "points": found.points.tolist(),
        "relative_stress": float(found.relative_stress),
    }


def of_signals(study: Study) -> dict[str, Any]:
    """Sends random inputs through networks of the pruned masks, by initialisation."""
    run, (_, masks) = study.run("prune"), study.solution("prune", "end", 0)
    model = factory.make_model(run.config, classes=run.dataset.classes)
    activations = gradient_flow.captured(model)
    shape = run.dataset.train.images.shape[1:]
    draws = {
        "dense": None,
        "masked": initializers.masked("glorot_uniform"),
        "layer": initializers.layer_scaled("glorot_uniform"),
        "fan_in": initializers.per_neuron(fan="in", scale=1.0),
        "fan_in_he": initializers.per_neuron(fan="in", scale=2.0),
    }
    found = {}
    for name, draw in draws.items():
        signals = []
        for r in range(5):
            params = _fresh(run.network, r)
            if draw is not None:
                key = jax.random.key(100 + r)
                params = initializers.redraw(params, masks, draw, key=key)
            key = jax.random.key(200 + r)
            signals.append(gradient_flow.propagate(activations, params, shape, key=key))
        found[name] = {
            "output": [float(one.output) for one in signals],
            "layers": {
                layer: [float(one.layers[layer]) for one in signals]
                for layer in signals[0].layers
            },
            "neurons": {
                layer: np.asarray(stds, np.float64).tolist()
                for layer, stds in signals[0].neurons.items()
            },
        }
    return found


def measure(study: Study) -> dict[str, Any]:
    """Computes all parts that there are arms for, or reads them.

    Returns:
      What each part found, by name; "curvature" by arm.

    Raises:
      ValueError: if a state that is needed is lost, or arms do not belong together.
    """
    if "prune" not in study.arms:
        return {}
    study.check()
    with jax.default_matmul_precision(cache.PRECISION):
        return _measure(study)


def _measure(study: Study) -> dict[str, Any]:
    """Computes or reads every part."""
    once = functools.partial(_once, study)
    scratch = [arm for arm in MAPPED if arm in study.arms]
    found: dict[str, Any] = {
        "predictions": once("predictions", of_predictions, study.arms),
        "gradients": of_gradients(study),
        "starts": once("starts", of_starts, ["prune"]),
        "distances": once("distances", of_distances, scratch),
        # What is normalised keeps its deviation.
        "signals": {} if study.normalises else once("signals", of_signals, ["prune"]),
    }
    examples = {"examples": SEGMENT_EXAMPLES[study.scale]}
    found["segments"] = {
        f"{arm}_{moment}": once(
            f"segment_{arm}_{moment}",
            functools.partial(of_segment, arm=arm, moment=moment),
            ["prune", arm],
            **examples,
        )
        for arm, moment in SEGMENTS
        if arm in study.arms
    }
    examples = {"examples": curvature.EXAMPLES[study.scale]}
    found["curvature"] = {
        arm: {
            "states": [
                once(
                    "_".join(["curvature", arm, *map(str, place)]).rstrip("_"),
                    functools.partial(curvature.at, arm=arm, place=place),
                    [arm],
                    **examples,
                )
                for place in curvature.places(study, arm)
            ]
        }
        for arm in curvature.ARMS
        if arm in study.arms and study.network in variants.CURVED
    }
    return found


def _folder(study: Study) -> Path:
    return study.folder / "analysis" / study.network


def _once(
    study: Study,
    name: str,
    compute: Callable[[Study], Any],
    on: Sequence[str],
    **sizes: Any,
) -> Any:
    """Reads a part that was computed of the same, else computes and keeps it."""
    of = {"arms": study.mark(*on), **sizes, "version": VERSION}
    return cache.once(
        _folder(study) / f"{name}.json",
        of,
        functools.partial(compute, study),
        label=f"{study.network}: {name}",
    )
