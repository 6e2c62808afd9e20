"""Records of instability analysis: copies of a state, and successive levels."""

from typing import Any

from jaxsparse import multihost
from jaxsparse.lottery import instability
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.metrics_log import Record
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.stages import CHILDREN, TICKET, Stage
from jaxsparse.training.stage_run import StageRun, read_records
from jaxsparse.training.state import TrainState
from jaxsparse.types import Params


def compared_stage(saved: SavedStates, stage: Stage) -> Stage | None:
    """Returns the ticket with which a stage is compared at its end.

    Args:
      saved: states of earlier stages.
      stage: the stage.

    Returns:
      The ticket of the previous level for a ticket, and that of the level for its
      copies; None if the experiment compares no ticket here.
    """
    analysis = saved.experiment.instability
    if analysis is None:
        return None
    if stage.variant == CHILDREN and analysis.with_parent:
        return plan_lib.ticket(saved.plan, stage.level)
    if stage.variant == TICKET and stage.level and analysis.compare_levels:
        return plan_lib.ticket(saved.plan, stage.level - 1)
    return None


def records(saved: SavedStates, run: StageRun, state: TrainState) -> list[Record]:
    """Compares the copies of a stage, or a level with the previous one.

    Args:
      saved: states of earlier stages.
      run: the stage that has just been trained.
      state: its final state, in the checkpoint layout.

    Returns:
      The records of the comparison; [] if the experiment compares nothing here.

    Raises:
      LostState: if the state to compare with is missing or corrupt.
    """
    if run.stage.variant == CHILDREN:
        rows = pair_records(saved, run, _weights(state))
        judged = _judge(saved, run, rows)
        return [*rows, run.record("stability", run.stage.stop) | judged]
    source = compared_stage(saved, run.stage)
    if source is None:
        return []
    earlier, now = _weights(saved.end_of(source)), _weights(state)
    found = saved.experiment.instability.compare(earlier, now)
    begun = run.record("level_barrier", run.stage.stop)
    return [begun | {"replicate": r} | row for r, row in enumerate(found)]


def _weights(state: TrainState) -> tuple[Params, Any]:
    """Returns parameters and batch statistics, whole on every process."""
    return multihost.to_local((state.params, state.batch_stats))


def pair_records(saved: SavedStates, run: StageRun, ends: Any) -> list[Record]:
    """Compares copies of each replicate with each other or with their parent.

    Args:
      saved: states of earlier stages.
      run: the stage of the copies.
      ends: final parameters and batch statistics of the copies [r * c ...].

    Returns:
      One record for each pair and replicate, with the number of the replicate, the
      "pair" of the numbers of two copies, or of "parent" and the number of a copy,
      and the measurements of `InstabilityAnalysis.compare`.

    Raises:
      LostState: if the state of the parent is missing or corrupt.
    """
    found, copies = [], saved.plan.children.copies
    source = compared_stage(saved, run.stage)
    parent = None if source is None else _weights(saved.end_of(source))

    def network(which: Any) -> Any:
        if which == "parent":
            return parent
        return instability.of_child(ends, copies, which)

    pairs: list[tuple[Any, int]] = [*instability.pairs(copies)]
    if parent is not None:
        pairs = [("parent", copy) for copy in range(copies)]
    for a, b in pairs:
        measured = saved.experiment.instability.compare(network(a), network(b))
        for replicate, row in enumerate(measured):
            place = {"replicate": replicate, "pair": [a, b]}
            found.append(run.record("child_barrier", run.stage.stop) | place | row)
    return found


def _judge(saved: SavedStates, run: StageRun, rows: list[Record]) -> Record:
    """Determines whether copies are stable and their level is matching.

    Args:
      saved: states of earlier stages.
      run: the stage of the copies.
      rows: records of the comparisons of all pairs.

    Returns:
      Fields of the record: the step at which the copies started, and the result of
      `InstabilityAnalysis.judge`.
    """
    ended = read_records(saved.run_dir, kind="level", variant=TICKET)
    reached, dense = (
        [row["test_accuracy"] for row in ended if row["level"] == level]
        for level in (run.stage.level, 0)
    )
    # Matching compares with the dense network, which is level 0 unless training is
    # sparse from the start.
    to_match = run.stage.level and saved.experiment.task.first_masks is None
    found = saved.experiment.instability.judge(
        [row["test_instability"] for row in rows],
        reached,
        dense if to_match else None,
    )
    return {"start": run.stage.start} | found
