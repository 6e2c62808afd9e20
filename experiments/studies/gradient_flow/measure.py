"""Measure: accuracy, gradient flow, distances and curvature of a run.

What compares a run with the pruned solution is measured here too, since weights are not
kept: that solution is the one whose masks the run trains, seed by seed or that of the
seed in `warm_start.replicate`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import run_reader
from experiments.studies.gradient_flow import curvature, initialization, variants
from experiments.studies.run_reader import Reader
from jaxsparse import factory, replicates
from jaxsparse.analysis import mode_connectivity, pairwise, predictions, similarity
from jaxsparse.data import dataset
from jaxsparse.factory import instability

EXAMPLES = 10_000  # of interpolations
SKETCH = 256  # random projections, which keep distances to within a tenth


class RunFunctions(NamedTuple):
    """A run with the functions of its network.

    Attributes:
      reader: the run.
      functions: functions of its network.
      pruned: the run whose masks it trains; None for a run that prunes, or is dense.
      has_norm: whether the network has batch normalization.
    """

    reader: Reader
    functions: factory.EvalFns
    pruned: Reader | None
    has_norm: bool

    @property
    def moments(self) -> dict[str, str]:
        """Names of the checkpoints at the start and at the end of training."""
        return {"start": self.reader.saved(0), "end": self.reader.end()}

    @property
    def seeds(self) -> range:
        """The seeds of the run."""
        return range(self.reader.run.config.replicates)

    def of_pruned(self, values: Sequence[Any]) -> list[Any]:
        """Returns, for each seed, the value of the one whose masks it trains.

        Args:
          values: of the seeds of the pruning run.
        """
        chosen = self.reader.run.config.warm_start.replicate
        return [values[seed if chosen is None else chosen] for seed in self.seeds]


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: opens the pruning run.

    Returns:
      "steps", "prediction", "gradient", and where the run has them "change",
      "interpolations", "distances", "sketches" and "curvature"; of the run that prunes
      also "starts" and "signals".
    """
    start = reader.run.config.warm_start.run
    run_fns = RunFunctions(
        reader,
        reader.functions(),
        other(start.removeprefix("../")) if start else None,
        bool(jax.tree.leaves(reader.state(reader.end()).batch_stats)),
    )
    name = variants.variant_of(reader.name)
    found = {
        "steps": max(row["step"] for row in reader.of_kind("eval")),
        "prediction": of_predictions(run_fns),
        "gradient": of_gradient(run_fns),
        "change": of_changes(reader),
        "sketches": of_sketches(run_fns),
    }
    if run_fns.pruned is not None:
        found["distances"] = of_distances(run_fns)
        found["interpolations"] = {
            moment: of_interpolation(run_fns, moment)
            for moment in variants.INTERPOLATED.get(name, ())
        }
    if name == "prune":
        found["starts"] = initialization.of_starts(run_fns)
        if not run_fns.has_norm:  # which fixes the standard deviation
            found["signals"] = initialization.of_signals(run_fns)
    if name in curvature.VARIANTS:
        found["curvature"] = curvature.of_states(run_fns)
    return found


def _logits(run_fns: RunFunctions, reader: Reader) -> np.ndarray:
    """Computes the logits [seeds n k] of the final networks on the test set."""
    images = run_fns.reader.run.dataset.test.images
    logits = instability.make_logits(run_fns.functions, images)
    state = reader.state(reader.end())
    each = replicates.split((state.params, state.batch_stats))
    return np.stack([logits(*one) for one in each])


def of_predictions(run_fns: RunFunctions) -> dict[str, Any]:
    """Measures accuracies in percent, and disagreements among seeds.

    Args:
      run_fns: the run.

    Returns:
      "accuracy" and "with_pruned" by seed; of pairs of seeds "disagreement", "kl" and
      "js", each a mean and a standard deviation; "ensemble", the gain of the ensemble
      over its members in points, and "ensemble_without", that without each seed.
    """
    labels = run_fns.reader.run.dataset.test.labels
    stack = _logits(run_fns, run_fns.reader)
    right = np.mean(np.argmax(stack, axis=-1) == labels, axis=-1)
    found: dict[str, Any] = {"accuracy": (100 * right).tolist()}

    def gain(members: Sequence[int]) -> float:
        chosen = jnp.asarray(stack[list(members)])
        scores = predictions.ensemble_scores(chosen, jnp.asarray(labels))
        return 100 * (float(scores.accuracy) - float(right[list(members)].mean()))

    everyone = list(run_fns.seeds)
    if len(everyone) > 1:
        found["ensemble"] = gain(everyone)
        for name in ("disagreement", "kl_divergence", "js_divergence"):
            matrix = pairwise.pairwise(getattr(predictions, name), jnp.asarray(stack))
            over = pairwise.over_pairs(np.asarray(matrix))
            found[name.removesuffix("_divergence")] = [over.mean, over.sd]
    if len(everyone) > 2:
        found["ensemble_without"] = [
            gain([r for r in everyone if r != out]) for out in everyone
        ]
    if run_fns.pruned is not None:
        theirs = run_fns.of_pruned(_logits(run_fns, run_fns.pruned))
        found["with_pruned"] = [
            float(predictions.disagreement(*map(jnp.asarray, pair)))
            for pair in zip(stack, theirs, strict=True)
        ]
    return found


def of_gradient(run_fns: RunFunctions) -> dict[str, Any]:
    """Reads the gradient flow that was recorded during training.

    Args:
      run_fns: the run.
    """
    rows = run_fns.reader.of_kind("gradient_norm")
    steps, norms = run_reader.table(rows, "step", lambda row: row["norm"])
    _, effective = run_reader.table(rows, "step", _effective)
    rate = run_fns.reader.run.learning_rate
    rates = np.asarray([float(rate(jnp.int32(step))) for step in steps])
    return {
        "steps": steps,
        "norm": norms.tolist(),
        "effective": effective.tolist(),
        "decrease": (rates * norms**2).tolist(),
    }


def of_changes(reader: Reader) -> dict[str, Any]:
    """Reads the gradient norm before and after mask updates; {} without any.

    Args:
      reader: the run.
    """
    updated = reader.of_kind("mask_update")
    if not updated:
        return {}
    late, after = run_reader.table(updated, "step", lambda row: row["norm"])
    rows = reader.of_kind("gradient_norm")
    steps, norms = run_reader.table(rows, "step", lambda row: row["norm"])
    changes = [step - 1 for step in late]
    before = norms[:, [steps.index(step) for step in changes]]
    return {
        "steps": changes,
        "before": before.tolist(),
        "after": after.tolist(),
    }


def _effective(row: Any) -> float:
    """Averages the norms of kernels; see `gradient_flow.effective_gradient_flow`.

    NaN if one was not finite, which is recorded as null.
    """
    norms = [norm for name, norm in row["layers"].items() if name.endswith("kernel")]
    return float(np.mean(np.asarray(norms, float)))


def of_interpolation(run_fns: RunFunctions, moment: str) -> dict[str, Any]:
    """Evaluates networks on the interpolation from a run to the pruned solution.

    Args:
      run_fns: the run.
      moment: "start" or "end" of its training.
    """
    train = run_fns.reader.run.dataset.train
    images, labels = dataset.first(train, min(EXAMPLES, len(train.labels)))
    estimated = instability.re_estimated(run_fns.functions, images)
    theirs = run_fns.pruned.solutions(run_fns.pruned.end())
    each = [
        mode_connectivity.along_path(
            run_fns.functions.evaluate,
            one.params,
            pruned.params,
            examples=(jnp.asarray(images), jnp.asarray(labels)),
            batch_size=instability.BATCH,
            by="scan",
            batch_stats=estimated if run_fns.has_norm else None,
        )
        for one, pruned in zip(
            run_fns.reader.solutions(run_fns.moments[moment]),
            run_fns.of_pruned(theirs),
            strict=True,
        )
    ]
    return {
        "examples": len(labels),
        "alphas": each[0].alphas.tolist(),
        "loss": [one.loss.tolist() for one in each],
        "error": [(100 * one.error).tolist() for one in each],
    }


def of_distances(run_fns: RunFunctions) -> dict[str, list[float]]:
    """Measures L2 distances from the pruned solution, by moment and seed.

    Args:
      run_fns: the run.
    """
    theirs = run_fns.of_pruned(run_fns.pruned.solutions(run_fns.pruned.end()))
    return {
        moment: [
            float(similarity.l2_distance(*pair))
            for pair in zip(run_fns.reader.solutions(name), theirs, strict=True)
        ]
        for moment, name in run_fns.moments.items()
    }


def of_sketches(run_fns: RunFunctions) -> dict[str, list[list[float]]]:
    """Projects solutions to a few random directions, the same for all runs.

    Distances of projections are close to those of solutions (Johnson and Lindenstrauss
    1984), so that the map of solutions needs no weights.

    Args:
      run_fns: the run.

    Returns:
      By moment, projections [seeds 256]. Networks of other sizes cannot be compared.
    """
    found = {}
    for moment, name in run_fns.moments.items():
        solutions = run_fns.reader.solutions(name)
        flat = [
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one.params)])
            for one in solutions
        ]
        random = np.random.default_rng(0)
        total = np.zeros((len(flat), SKETCH))
        for first in range(0, len(flat[0]), 4096):
            part = np.stack(flat)[:, first : first + 4096]
            total += part @ random.standard_normal((part.shape[1], SKETCH))
        found[moment] = (total / np.sqrt(SKETCH)).tolist()
    return found
