"""Evaluates the network during training without making the devices wait."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsparse import metrics_log, multihost
from jaxsparse.training import evaluation, mask_stats, nonfinite, state_sharding
from jaxsparse.training.evaluation import Scores
from jaxsparse.training.metric_sums import SumBuffer
from jaxsparse.training.probe import MetricBuffer
from jaxsparse.training.stage_run import StageRun
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums


class Evaluator:
    """Dispatches evaluations, and writes their records one chunk later.

    An evaluation is dispatched before the next chunk, which takes over the buffers of
    the state. Its results are fetched by `report` after the next chunk was dispatched,
    so that the devices work while the host waits and writes.
    """

    def __init__(self, run: StageRun, sums: SumBuffer, measured: MetricBuffer) -> None:
        """Initializes an evaluator without pending evaluation.

        Args:
          run: the stage under way.
          sums: training metrics since the last record; emptied by each evaluation.
          measured: measurements of the probe, written before the records of the next
            evaluation.
        """
        self._run, self._sums, self._measured = run, sums, measured
        self._pending: Any = None

    def __call__(self, step: int, state: TrainState) -> None:
        """Dispatches the evaluation of a state, if one is due at this step.

        Args:
          step: training step of the state.
          state: state as placed for training.

        Raises:
          NonFiniteLoss: if training cannot continue and no chunk may be in flight
            beside an evaluation.
        """
        if not self._is_due(step):
            return
        trainer = self._run.trainer
        collected = state_sharding.gather_state(trainer.layout, state)
        # All work on this state is dispatched here, before the next chunk donates its
        # buffers.
        sets = {name: fn(collected) for name, fn in trainer.evaluate.items()}
        dynamic = trainer.records.dynamic_masks is not None
        stats = mask_stats.compute_mask_stats(collected) if dynamic else None
        # The learning rate of the last update: step counts completed updates.
        rate = trainer.records.learning_rate(np.int32(max(step - 1, 0)))
        self._pending = functools.partial(
            self._record, step, self._sums.take(), (sets, stats, rate)
        )
        if trainer.loop.max_inflight_calls == 1:
            self.report()

    def _is_due(self, step: int) -> bool:
        stage, loop = self._run.stage, self._run.trainer.loop
        if step in (stage.start, stage.stop) or step % loop.evaluate_every == 0:
            return True
        # A non-finite loss is recorded now and not at the next regular evaluation,
        # since training may end here.
        return not (loop.continue_on_nonfinite or self._sums.is_finite())

    def report(self, *_: Any) -> None:
        """Waits for the pending evaluation and writes its records.

        Args:
          *_: step and state of the caller, which are not used.

        Raises:
          NonFiniteLoss: if a loss is NaN or infinite and training cannot continue.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending()

    def _record(self, step: int, sums: SumBuffer, dispatched: Any) -> None:
        """Fetches an evaluation and writes its records.

        Args:
          step: training step of the evaluated state.
          sums: training metrics since the evaluation before.
          dispatched: evaluation of each set, by name; mask statistics, None for fixed
            masks; and the learning rate.
        """
        run, totals = self._run, sums.fetch()
        sets, stats, rate = multihost.to_host(dispatched)
        trained = totals and evaluation.average([MetricSums(*map(np.asarray, totals))])
        scores = {name: evaluation.average(each) for name, each in sets.items()}
        held = mask_stats.records(run, step, stats)
        mask_stats.warn_of_skipped(held, run.run_dir)
        scored = score_records(run, step, trained, scores, rate=float(rate))
        run.write(self._measured.flush() + scored + held)
        run.run_dir.progress.advance(step, note=_describe(trained, scores))
        nonfinite.check(run, step, {"training": trained} | scores)


def score_records(
    run: StageRun,
    step: int,
    trained: Scores | None,
    sets: Mapping[str, Scores],
    *,
    rate: float,
) -> list[metrics_log.Record]:
    """Returns one "train" and one "eval" record per replicate.

    Args:
      run: the stage under way.
      step: training step of the evaluated state.
      trained: training metrics since the last record; None before the first step, when
        there is no "train" record.
      sets: scores of the evaluated sets, by name.
      rate: learning rate of the last update.
    """
    rows: list[metrics_log.Record] = []
    for replicate in range(run.trainer.layout.replicates):
        mine = {"replicate": replicate}
        if trained:
            fields = _fields(trained, replicate, "") | {"learning_rate": rate}
            rows.append(run.record("train", step) | mine | fields)
        row = run.record("eval", step) | mine
        for name in ("validation", "test"):
            row |= _fields(sets.get(name), replicate, f"{name}_")
        rows.append(row)
    return rows


def _fields(scores: Scores | None, replicate: int, prefix: str) -> dict[str, Any]:
    """Returns the loss and accuracy of one replicate as record fields.

    Args:
      scores: scores of all replicates; None gives fields with the value None.
      replicate: number of the replicate.
      prefix: prefix of the field names, such as "test_".
    """
    names = (f"{prefix}loss", f"{prefix}accuracy")
    if scores is None:
        return dict.fromkeys(names)
    values = (float(scores.loss[replicate]), float(scores.accuracy[replicate]))
    return dict(zip(names, values, strict=True))


def _describe(trained: Scores | None, sets: Mapping[str, Scores]) -> str:
    """Formats mean loss and accuracies for the progress display."""
    parts = []
    if trained:
        finite = trained.loss[np.isfinite(trained.loss)]  # others may have failed
        parts = [f"loss {np.mean(finite) if finite.size else np.nan:.4f}"]
    parts += [f"{name} {np.mean(s.accuracy):.2%}" for name, s in sets.items()]
    return ", ".join(parts)
