"""The dense training of a run done again, to count forgetting events."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from jaxsparse import durations
from jaxsparse.data.data_pruning import forgetting as forgetting_lib
from jaxsparse.factory import experiment, warm_start
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.lottery import experiment as experiment_lib
from jaxsparse.lottery import stages
from jaxsparse.lottery.stages import Experiment
from jaxsparse.training import checkpoints, train
from jaxsparse.training import forgetting as replay
from jaxsparse.training.state import TrainState
from jaxsparse.training.train import RunDir, Stage


class ForgettingReplay(NamedTuple):
    """Forgetting events of a run.

    Attributes:
      counts: of each replicate and training example, see `forgetting.counts`.
      step: updates they were counted over.
      state: what training ended with, in the form of files.
      same: whether that is what the run has on file, bit for bit; None if it has
        nothing on file to compare.
    """

    counts: Float32[np.ndarray, "r n"]
    step: int
    state: TrainState
    same: bool | None


def count_forgetting(
    run: warm_start.TrainedRun, *, until: str = ""
) -> ForgettingReplay:
    """Trains the dense network of a run again, and counts forgetting events.

    From initialisation on, through what lies before the rewinding step, with the run's
    seeds, order of examples, augmentation and programs. An example is looked at when a
    batch brings it, with the logits of the training step: of the augmented image,
    before the update. Nothing is written.

    Args:
      run: what `open_run` returned.
      until: the length to count over, such as "20ep"; "" for level 0 to its end.

    Returns:
      The counts, and what training came to.

    Raises:
      ValueError: if the run begins with other training than that of level 0, has lost
        what it began with, or `until` lies outside of it.
      NonFinite: if a loss is NaN or infinite.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, after Toneva et al., arXiv:1812.05159.
    """
    if pretraining_lib.differs(run.config):
        raise ValueError(
            f"{run.folder}: its config.pretraining differs from training; wanted a run "
            "that trains on all the examples from the first update on; train one"
        )
    made = experiment.make_experiment(
        run.config, run.dataset, run.folder, per_example=True
    )
    stop = _stop(made, until)
    desk = _desk(run)
    events = replay.init(run.config.replicates, len(run.dataset.train.labels))
    held: list[bool] = []
    for stage in stages.every(made):
        if stage.level or stage.arm not in (stages.PRETRAINING, stages.TICKET):
            continue
        if stage.start >= stop:
            break
        # What the stage begins with is there, or this says that it is not.
        warm_start.load_state(run, "rewind" if stage.start else "init")
        trainer, fresh, keys = experiment_lib.beginning(made, desk, stage)
        state, events = replay.count_forgetting(
            trainer, fresh, events, stop=min(stop, stage.stop), keys=keys
        )
        held += _compare(desk, stage, state)
    counts = np.asarray(jax.vmap(forgetting_lib.counts)(events))
    return ForgettingReplay(counts, stop, state, all(held) if held else None)


def _stop(made: Experiment, until: str) -> int:
    """Reads at which update to end."""
    if not until:
        return made.plan.total
    stop = durations.to_steps(
        until, steps_per_epoch=made.trainer.epoch.steps, total=made.plan.total
    )
    if not 1 <= stop <= made.plan.total:
        raise ValueError(
            f"until: came {until!r}, which is {stop} updates; wanted 1 to "
            f"{made.plan.total}, those of the dense training"
        )
    return stop


def _desk(run: warm_start.TrainedRun) -> RunDir:
    return RunDir(
        metrics=run.folder / "metrics.jsonl",
        checkpoints=run.folder / "checkpoints",
        progress=None,  # no stage is trained by it
        should_stop=lambda: False,
    )


def _compare(run_dir: RunDir, stage: Stage, state: TrainState) -> list[bool]:
    """Says whether a state is the one on file, if there is one that can be compared."""
    step = int(state.step)
    name = train.saved_state_name(stage.name, step)
    if step == stage.stop:
        name = "rewind" if stage.arm == "pretraining" else f"{stage.name}/last"
    recorded = checkpoints.recorded_hash(run_dir.checkpoints, name)
    if recorded is None or not checkpoints.comparable(run_dir.checkpoints, name):
        return []
    return [recorded == checkpoints.digest(state)]
