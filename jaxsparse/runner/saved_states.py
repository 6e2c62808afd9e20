"""Loads and caches the states with which the stages of a run begin and end."""

import functools

from jaxsparse import multihost
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner import old_runs, task
from jaxsparse.runner.experiment import Experiment
from jaxsparse.stages import Stage, end_name, saved_state_name
from jaxsparse.training import checkpoints, state_sharding
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.stage_run import StageRun
from jaxsparse.training.state import TrainState


class LostState(ValueError):
    """A saved state that another stage needs is missing or corrupt.

    Attributes:
      stage: the stage that saves the state when it is trained again.
      name: name of the checkpoint.
    """

    def __init__(self, stage: Stage, name: str, run_dir: RunDir) -> None:
        """Initializes the error.

        Args:
          stage: the stage that saves the state.
          name: name of the checkpoint.
          run_dir: output files of the run, for the message.
        """
        self.stage, self.name = stage, name
        super().__init__(
            f"{run_dir.folder}: expected the checkpoint {name}, got none that is "
            "intact; continue the run with experiments/train.py, which trains "
            f"{stage.name} again"
        )


class SavedStates:
    """The states of an experiment's stages in a run directory.

    All results are on disk; the object only caches them, and loads them when they are
    needed.

    Attributes:
      experiment: the parts of the run.
      plan: its stages, with the names that the run directory uses.
      run_dir: output files of the run.
      writes: whether the run directory may be changed.
      init: initial state, dense, in the checkpoint layout.
    """

    def __init__(
        self, experiment: Experiment, run_dir: RunDir, *, writes: bool = True
    ) -> None:
        """Loads the initial state of a run, or makes it.

        Args:
          experiment: the parts of the run.
          run_dir: output files of the run.
          writes: whether the run directory may be changed. If False, nothing in it is,
            and a corrupt checkpoint raises CorruptFile.
        """
        self.experiment, self.run_dir, self.writes = experiment, run_dir, writes
        self.plan = old_runs.with_recorded_names(experiment.plan, run_dir.folder)
        self.init = self._make_init()
        # By variant: name of the latest final checkpoint, and that state; under "kept"
        # the latest state that was loaded from within a stage. The next stages start
        # from these states, so that most are never loaded.
        self._latest: dict[str, tuple[str, TrainState]] = {}

    def _make_init(self) -> TrainState:
        """Makes the initial state, or loads it if a checkpoint exists."""
        layout = self.experiment.trainer.layout
        made = task.first_state(
            self.experiment.task,
            self.experiment.seeds,
            put=functools.partial(state_sharding.put_start, layout),
        )
        made = state_sharding.to_checkpoint_layout(layout, made)
        # The recorded state takes precedence: a resumed run continues from its bits
        # even if this machine draws others.
        saved = self._load("init", made)
        if saved is not None:
            return saved.state
        if self.writes:
            checkpoints.save(self.run_dir.checkpoints, "init", made)
        return made

    def _load(self, name: str, like: TrainState) -> checkpoints.Checkpoint | None:
        """Loads a checkpoint; corrupt ones are renamed only if writing is allowed."""
        load = checkpoints.load if self.writes else checkpoints.read
        return load(self.run_dir.checkpoints, name, like)

    def end_of(self, stage: Stage) -> TrainState:
        """Returns the final state of a stage, in the checkpoint layout.

        Args:
          stage: a stage that has ended.

        Raises:
          LostState: if it is missing or corrupt.
          CorruptFile: if it is corrupt and the run directory may not be changed.
        """
        return self._latest_of(stage.variant, stage, end_name(stage))

    def at_step(self, stage: Stage, step: int) -> TrainState:
        """Returns a saved state of a stage, in the checkpoint layout.

        Args:
          stage: a stage that has passed the step.
          step: training step of the state: one of `plan.saved_steps`, or the last of
            the stage.

        Raises:
          LostState: if it is missing or corrupt.
          CorruptFile: if it is corrupt and the run directory may not be changed.
        """
        if step == stage.stop:
            return self.end_of(stage)
        return self._latest_of("kept", stage, saved_state_name(stage.name, step))

    def _latest_of(self, place: str, stage: Stage, name: str) -> TrainState:
        """Returns a state that a stage saved, which is then the latest of its place.

        Args:
          place: key of `_latest`.
          stage: the stage that saved it.
          name: name of its checkpoint.

        Raises:
          LostState: if it is missing or corrupt.
          CorruptFile: if it is corrupt and the run directory may not be changed.
        """
        found, state = self._latest.get(place, ("", self.init))
        if found == name:
            return state
        saved = self._load(name, self.init)
        if saved is None:
            raise LostState(stage, name, self.run_dir)
        self._latest[place] = (name, saved.state)
        return saved.state

    def has_ended(self, stage: Stage) -> bool:
        """Returns whether the final state of a stage was written.

        Args:
          stage: the stage. Its weights may have been deleted since.
        """
        return checkpoints.exists(self.run_dir.checkpoints, end_name(stage))

    def save_end(self, run: StageRun, state: TrainState) -> None:
        """Saves the final state of a stage, which marks the stage as ended.

        Args:
          run: the stage, all of whose records are written.
          state: its final state, in the checkpoint layout.
        """
        name = end_name(run.stage)
        extra = {"records": run.sync_records()}
        packed = run.trainer.loop.pack_ends
        directory = self.run_dir.checkpoints
        checkpoints.save(directory, name, state, extra, packed=packed)
        checkpoints.clear(self.run_dir.checkpoints, run.stage.name)
        self._latest[run.stage.variant] = (name, state)

    def delete_unneeded(self, stage: Stage) -> None:
        """Deletes checkpoints that a finished stage made unnecessary.

        Checkpoints within the stage are deleted if its final state is on disk. If the
        experiment asks for it, the final weights of earlier levels that no later stage
        needs are deleted too; their metadata stay.

        Args:
          stage: a stage that has ended.
        """
        directory = self.run_dir.checkpoints
        end = directory / end_name(stage)
        if multihost.broadcast_from_primary(end.exists):
            checkpoints.clear(directory, stage.name)
        if not self.experiment.delete_weights:
            return
        outdated = plan_lib.outdated(self.plan, stage)
        if outdated is not None:
            checkpoints.delete_weights(directory, end_name(outdated))
