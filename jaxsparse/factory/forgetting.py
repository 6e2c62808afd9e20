"""Replays the dense training of a run to count forgetting events."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from jaxsparse import durations
from jaxsparse.data.data_pruning import forgetting as forgetting_lib
from jaxsparse.factory import experiment, prediction, trained_run
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory.durations import make_durations, make_epoch
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.runner.start import replay_start
from jaxsparse.stages import PRETRAINING, TICKET, Stage, end_name, saved_state_name
from jaxsparse.training import checkpoints
from jaxsparse.training import forgetting as replay
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.state import TrainState


class ForgettingReplay(NamedTuple):
    """Result of replaying training.

    Attributes:
      counts: number of forgetting events of each replicate and training example, as
        `data_pruning.forgetting.counts` defines it.
      step: number of training steps over which they were counted.
      state: final state of the replay, in the checkpoint layout: leaves lead with the
        replicate axis, counters are scalars.
      same: whether all compared states equal those that the run saved, bit for bit;
        None if the run has none to compare.
    """

    counts: Float32[np.ndarray, "r n"]
    step: int
    state: TrainState
    same: bool | None


def count_forgetting(
    run: trained_run.TrainedRun, *, until: str = ""
) -> ForgettingReplay:
    """Replays the dense training of a run and counts forgetting events.

    The replay starts at initialization and includes the steps before the rewinding
    step. It uses the run's seeds, order of examples, augmentation and compiled
    functions. An example is evaluated when a batch contains it, with the logits of the
    training step: those of the augmented image, before the update. Nothing is written.

    Args:
      run: a run opened with `open_run`.
      until: duration to count over, such as "20ep"; "" for all of level 0.

    Returns:
      The counts, and the final state of the replay.

    Raises:
      ValueError: if the run has a pretraining that differs from training, if the state
        from which it started is lost, or if `until` exceeds its dense training.
      NonFiniteLoss: if a loss is NaN or infinite.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, after Toneva et al., arXiv:1812.05159.
    """
    prediction.check_classes(run.config, "forgetting")
    if pretraining_lib.differs(run.config):
        raise ValueError(
            f"{run.folder}: expected a run that trains on all examples from the first "
            "update on, got one whose config.pretraining differs from training; train "
            "another"
        )
    stop = forgetting_steps(run, until=until)
    made = experiment.make_experiment(
        run.config, run.dataset, run.folder, per_example=True
    )
    # Loaded for its error message only, which lists the checkpoints that exist.
    trained_run.load_state(run, "init")
    saved = SavedStates(made, RunDir(run.folder), writes=False)
    events = replay.init(run.config.replicates, len(run.dataset.train.labels))
    held: list[bool] = []
    for stage in plan_lib.stages(saved.plan):
        if stage.level or stage.variant not in (PRETRAINING, TICKET):
            continue
        if stage.start >= stop:
            break
        if stage.start:
            trained_run.load_state(run, "rewind")  # also for its message
        trainer, fresh, keys = replay_start(saved, stage)
        state, events = replay.count_forgetting(
            trainer, fresh, events, stop=min(stop, stage.stop), keys=keys
        )
        held += _compare(saved.run_dir, stage, state)
    counts = np.asarray(jax.vmap(forgetting_lib.counts)(events))
    return ForgettingReplay(counts, stop, state, all(held) if held else None)


def forgetting_steps(run: trained_run.TrainedRun, *, until: str = "") -> int:
    """Returns the number of training steps over which `count_forgetting` counts.

    Args:
      run: a run opened with `open_run`.
      until: duration to count over, such as "20ep"; "" for all of level 0.

    Raises:
      ValueError: if the duration is invalid, or not between 1 step and the dense
        training.
    """
    steps = make_epoch(run.config, len(run.dataset.train.labels)).steps
    total = make_durations(run.config, steps_per_epoch=steps).total
    if not until:
        return total
    stop = durations.to_steps(until, steps_per_epoch=steps, total=total)
    if not 1 <= stop <= total:
        raise ValueError(
            f"until: expected 1 to {total} updates, those of the dense training, got "
            f"{until!r}, which is {stop} updates; choose a length within"
        )
    return stop


def _compare(run_dir: RunDir, stage: Stage, state: TrainState) -> list[bool]:
    """Compares a replayed state with the checkpoint of the same step, by hash.

    Args:
      run_dir: files of the run.
      stage: stage that was replayed.
      state: state of the replay.

    Returns:
      [True] or [False]; [] if the run saved no state at that step, or in a layout whose
      hash cannot be compared.
    """
    step = int(state.step)
    at_end = step == stage.stop
    name = end_name(stage) if at_end else saved_state_name(stage.name, step)
    recorded = checkpoints.recorded_hash(run_dir.checkpoints, name)
    if recorded is None or not checkpoints.comparable(run_dir.checkpoints, name):
        return []
    return [recorded == checkpoints.digest(state)]
