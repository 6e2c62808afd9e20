"""Measure: test accuracies of the last level, of tickets and of controls."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.studies import run_reader
from experiments.studies.run_reader import Reader
from experiments.studies.signs import variants
from jaxsparse import replicates, transforms, tree


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: opens another run of the study.

    Returns:
      "accuracy", by seed the test accuracy of the last level in percent; "controls",
      the same of each control; "steps" of the last level; and "remaining", the
      percentage of its weights. Of masks on other weights also "flipped", by seed the
      percentage of kept weights that end with another sign than they began; and of
      those that are or are not aligned "overlap", see `overlap`.
    """
    rows = reader.last()
    level = rows[0]["level"]
    controls: dict[str, list[float]] = {}
    for row in sorted(reader.of_kind("level"), key=lambda row: row["replicate"]):
        if row["level"] == level and row["variant"] != rows[0]["variant"]:
            controls.setdefault(row["variant"], []).append(run_reader.accuracy(row))
    found = {
        "accuracy": list(map(run_reader.accuracy, rows)),
        "controls": controls,
        "steps": rows[0]["step"],
        "remaining": 100 * rows[0]["density"],
    }
    if variants.has_given_masks(reader.name):
        found["flipped"] = flipped(reader)
    if variants.is_of_other(reader.name):
        found["overlap"] = overlap(reader, other(variants.OTHER))
    return found


def flipped(reader: Reader) -> list[float]:
    """Returns the percentage of kept weights whose sign changes in training, by seed.

    Args:
      reader: a run that trains given masks, and saves the weights of step 0.
    """
    ends = [_weights(reader, moment) for moment in (reader.saved(0), reader.end())]
    return [
        share(mask, {name: first[name] * last[name] < 0 for name in mask})
        for mask, first, last in zip(_masks(reader), *ends, strict=True)
    ]


def overlap(reader: Reader, other: Reader) -> list[float]:
    """Returns how many kept weights are among the largest of a dense network, by seed.

    Args:
      reader: a run that trains given masks.
      other: a run of dense networks.

    Returns:
      Percentages of the kept weights that are among as many weights of their layer
      with the largest final magnitudes in the dense network.
    """
    dense = _weights(other, other.end())
    return [
        share(mask, {n: largest(weights[n], kept.sum()) for n, kept in mask.items()})
        for mask, weights in zip(_masks(reader), dense, strict=True)
    ]


def largest(weights: np.ndarray, count: int) -> np.ndarray:
    """Marks the weights of largest magnitude, of equal ones the first.

    Args:
      weights: weights of a layer.
      count: number of weights to mark.
    """
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")
    chosen = np.zeros(weights.size, bool)
    chosen[order[:count]] = True
    return chosen.reshape(weights.shape)


def share(mask: Mapping[str, np.ndarray], marked: Mapping[str, np.ndarray]) -> float:
    """Returns the percentage of the kept weights that are marked.

    Args:
      mask: kept weights of each layer.
      marked: marked weights of each layer.
    """
    each = [marked[name][kept] for name, kept in mask.items()]
    return 100 * float(np.mean(np.concatenate(each)))


def _masks(reader: Reader) -> list[dict[str, np.ndarray]]:
    """Returns the final masks by seed and layer."""
    held = transforms.get_masks(reader.state(reader.end()).opt_state)
    return _by_seed(held)


def _weights(reader: Reader, moment: str) -> list[dict[str, np.ndarray]]:
    """Returns the weights with which the network computes, by seed and leaf."""
    state = reader.state(moment)
    return _by_seed(transforms.forward_params(state.params, state.opt_state))


def _by_seed(leaves: Any) -> list[dict[str, np.ndarray]]:
    return [
        {name: np.asarray(leaf) for name, leaf in tree.named_leaves(one).items()}
        for one in replicates.split(leaves)
    ]
