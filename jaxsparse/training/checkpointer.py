"""Saves the training state within a stage, and stops training on request."""

import time

from jaxsparse.stages import saved_state_name
from jaxsparse.training import checkpoints, preemption, state_sharding
from jaxsparse.training.evaluator import Evaluator
from jaxsparse.training.metric_sums import SumBuffer
from jaxsparse.training.probe import MetricBuffer
from jaxsparse.training.stage_run import StageRun
from jaxsparse.training.state import TrainState


def save_for_analysis(run: StageRun, step: int, state: TrainState) -> None:
    """Saves the state if this is one of the steps requested for later analyses.

    Args:
      run: the stage under way.
      step: training step of the state.
      state: state as placed for training.
    """
    if step in run.trainer.loop.save_at_steps:
        collected = state_sharding.gather_state(run.trainer.layout, state)
        name = saved_state_name(run.stage.name, step)
        checkpoints.save(run.run_dir.checkpoints, name, collected)


class Checkpointer:
    """Saves checkpoints from which an interrupted stage is resumed.

    `decide` is called before the evaluation of a step and the object itself after it: a
    checkpoint counts the records on disk, so they are written first.
    """

    def __init__(
        self,
        run: StageRun,
        step: int,
        seconds: float,
        sums: SumBuffer,
        measured: MetricBuffer,
        evaluator: Evaluator,
    ) -> None:
        """Initializes the object when a stage starts or continues.

        Args:
          run: the stage under way.
          step: training step at which the stage starts or continues.
          seconds: time spent on the stage in earlier sessions.
          sums: training metrics since the last record, stored in checkpoints.
          measured: measurements of the probe, written before each checkpoint.
          evaluator: its pending evaluation is written before each checkpoint.
        """
        self._run, self._sums = run, sums
        self._measured, self._evaluator = measured, evaluator
        self._began = time.monotonic() - seconds
        self._last = step  # step of the latest checkpoint
        self._saves, self._stop_signal = False, 0

    def seconds(self) -> float:
        """Returns the time spent on the stage so far, over all sessions."""
        return time.monotonic() - self._began

    def decide(self, step: int, state: TrainState) -> None:
        """Decides whether to save at this step, and fetches the metrics if necessary.

        Args:
          step: training step at the end of a chunk.
          state: state at this step, which is not used.
        """
        del state
        run, loop = self._run, self._run.trainer.loop
        within = step < run.stage.stop
        # Polled at every chunk, since all processes must call it equally often.
        number = run.run_dir.should_stop()
        self._stop_signal = number if within else 0
        due = within and _is_crossed(loop.checkpoint_every, self._last, step)
        self._saves = due or bool(self._stop_signal)
        if self._saves or len(self._sums) >= loop.max_inflight_calls:
            self._sums.fetch()
            run.run_dir.progress.advance(step)

    def __call__(self, step: int, state: TrainState) -> None:
        """Saves a checkpoint if `decide` has decided so.

        Args:
          step: training step of the state.
          state: state as placed for training.

        Raises:
          Preempted: if a stop was requested, after the checkpoint was saved.
          NonFiniteLoss: if the pending evaluation has a loss that is not finite.
        """
        if not self._saves:
            return
        self._evaluator.report()
        self._run.write(self._measured.flush())
        self._save(state)
        self._last = step
        if self._stop_signal:
            where = f"{self._run.stage.name}, step {step}"
            raise preemption.Preempted(where, self._stop_signal)

    def _save(self, state: TrainState) -> None:
        """Saves a checkpoint, and deletes all earlier ones of the stage but the last.

        The previous checkpoint stays as a fallback.
        """
        run, directory = self._run, self._run.run_dir.checkpoints
        # Listed before saving: the first is the previous checkpoint.
        earlier = checkpoints.within(directory, run.stage.name)
        collected = state_sharding.gather_state(run.trainer.layout, state)
        name = f"{run.stage.name}/step_{int(collected.step):09d}"
        totals = self._sums.totals
        extra = {"sums": totals and list(totals), "seconds": self.seconds()}
        extra["records"] = run.sync_records()
        checkpoints.save(directory, name, collected, extra)
        for old in earlier[1:]:
            checkpoints.delete(directory, old)


def _is_crossed(every: int, before: int, now: int) -> bool:
    """Returns whether a multiple of `every` lies in (before, now]; False if it is 0."""
    return bool(every) and now // every > before // every
