"""Rescales initial weights by GradInit factors, which are learned once per run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsparse import metrics_log, multihost, old_names, tree
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.types import Masks, Params

FILE = "gradinit.json"
_REMEDY = "restore it, or begin anew with another --workdir"


def rescale(
    saved: SavedStates, params: Params, batch_stats: Any, masks: Masks
) -> Params:
    """Multiplies initial weights by their GradInit factors.

    The factors are read from the run's file, or learned and written there. They are per
    tensor, so weights that are masked now and become active later are rescaled too.

    Args:
      saved: states of the run.
      params: initial weights [r ...].
      batch_stats: batch statistics [r ...].
      masks: masks [r ...].

    Returns:
      Rescaled weights [r ...].

    Raises:
      ValueError: if the file of factors is damaged, or of another network or number of
        replicates.
    """
    path = saved.run_dir.folder / FILE
    found = old_names.find_file(saved.run_dir.folder, FILE)
    if multihost.broadcast_from_primary(found.exists):
        text = multihost.broadcast_from_primary(
            lambda: found.read_text(encoding="utf-8")
        )
    else:
        seeds = jax.tree.map(jax.random.clone, saved.experiment.seeds)
        learn = saved.experiment.task.start.rescale
        text = _to_json(multihost.to_host(learn(params, batch_stats, masks, seeds)))
        if saved.writes:
            multihost.on_primary(lambda: metrics_log.write_atomically(path, text))
    rows = _from_json(found, text)
    count = saved.experiment.trainer.layout.replicates
    _check_rows(found, rows, names=tree.names(params), count=count)

    factors = tree.map_with_names(
        lambda name, leaf: np.asarray([row[name] for row in rows], leaf.dtype), params
    )
    return _times(params, factors)


@jax.jit
def _times(params: Params, factors: Any) -> Params:
    """Multiplies each leaf [r ...] by its factors [r]."""
    return jax.tree.map(
        lambda leaf, factor: leaf * factor.reshape(-1, *(1,) * (leaf.ndim - 1)),
        params,
        factors,
    )


def _from_json(path: Path, text: str) -> list[dict[str, float]]:
    """Parses the factors of each replicate, by name of the leaf.

    Args:
      path: path of the file, for the error message.
      text: content of the file.

    Raises:
      ValueError: if the content is not what `_to_json` returned.
    """
    try:
        return [
            {name: float(factor) for name, factor in row["factors"].items()}
            for row in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a list with the factors of each replicate, got another "
            f"content ({error}); {_REMEDY}"
        ) from error


def _check_rows(
    path: Path, rows: list[dict[str, float]], *, names: Sequence[str], count: int
) -> None:
    """Checks that there is one factor for each leaf of each replicate.

    Args:
      path: path of the file, for the error message.
      rows: factors of each replicate, by name of the leaf.
      names: names of all leaves.
      count: number of replicates.

    Raises:
      ValueError: if there are too few factors, or others.
    """
    if len(rows) != count:
        raise ValueError(
            f"{path}: expected the factors of {count} replicates, got those of "
            f"{len(rows)}; {_REMEDY}"
        )
    for replicate, row in enumerate(rows):
        missing = [name for name in names if name not in row]
        others = [name for name in row if name not in names]
        if missing or others:
            raise ValueError(
                f"{path}: replicate {replicate}: expected one factor for each of "
                f"{list(names)}, got none for {missing} and some for {others}; "
                f"{_REMEDY}"
            )


def _to_json(found: Any) -> str:
    """Formats the result of GradInit with one object per replicate.

    Args:
      found: `tost.gradinit.GradInitResult` on the host, leaves [r ...].
    """
    rows = [
        {
            "objective": objective.tolist(),
            "constrained": constrained.tolist(),
            "factors": {
                name: float(factor[r])
                for name, factor in tree.named_leaves(found.factors).items()
            },
        }
        for r, (objective, constrained) in enumerate(
            zip(found.objective, found.constrained, strict=True)
        )
    ]
    return json.dumps(rows, indent=1) + "\n"
