"""Stops training on a non-finite loss, or continues without the failed replicate."""

import logging
from collections.abc import Mapping

import numpy as np

from jaxsparse.training import preemption
from jaxsparse.training.evaluation import Scores
from jaxsparse.training.stage_run import StageRun, read_records

log = logging.getLogger(__name__)


def check(run: StageRun, step: int, scores: Mapping[str, Scores | None]) -> None:
    """Raises on a non-finite loss, or records the replicate as failed and continues.

    Args:
      run: the stage under way.
      step: training step of the scores.
      scores: scores of all replicates by name of the set; None where there are none.

    Raises:
      NonFiniteLoss: if a loss is not finite and `LoopSettings.continue_on_nonfinite` is
        False, or if no replicate with finite losses is left.
    """
    bad = {
        name: np.flatnonzero(~np.isfinite(each.loss)).tolist()
        for name, each in scores.items()
        if each is not None and not np.all(np.isfinite(each.loss))
    }
    if not bad:
        return
    if run.trainer.loop.continue_on_nonfinite:
        broken = sorted({r for each in bad.values() for r in each})
        _record_failure(run, step, broken)
        if len(broken) < run.trainer.layout.replicates:
            return
    name, replicates = next(iter(bad.items()))
    raise preemption.NonFiniteLoss(
        f"{run.stage.name}, step {step}: the {name} loss of replicates {replicates} is "
        "not finite; the last record was written; try a lower "
        "config.schedule.learning_rate, a longer config.schedule.warmup, or "
        "model.dtype float32; or have the other replicates go on without these "
        "(config.run.on_nonfinite)"
    )


def _record_failure(run: StageRun, step: int, broken: list[int]) -> None:
    """Writes a "failed" record for each broken replicate, once per stage."""
    # Read from the file, so that a resumed run does not record a failure twice.
    known = read_records(run.run_dir, kind="failed", stage=run.stage.name)
    marked = [row["replicate"] for row in known]
    new = [r for r in broken if r not in marked]
    run.write([run.record("failed", step) | {"replicate": r} for r in new])
    if new:
        log.warning(
            "%s, step %d: the loss of replicates %s is not finite; the others go on, "
            "and reports leave these out",
            *(run.stage.name, step, new),
        )
