"""Stages of a run, and the names of their checkpoints.

A stage is an interval of training with its own start state and masks. Ordinary training
is the single stage `train`. The stages of a lottery-ticket run are listed by
`lottery.plan`:

    pretraining                  dense, from initialization to the rewinding step k
    level_00/ticket              dense, from step k to the end
    level_01/ticket              pruned by the final weights of level_00, from step k
    level_01/reinitialized, ...  controls of that level
    level_01/children_000000500  copies trained from step 500 with other SGD noise
    level_02/ticket              ...

If level 0 is that of another run (`lottery.dense_run`), it has all steps of dense
training, and there is no stage `pretraining`.
"""

from typing import NamedTuple

TRAIN = "train"  # name of the only stage of ordinary training
# Variants, next to the names of controls in `lottery.controls`.
TICKET = "ticket"
PRETRAINING = "pretraining"
CHILDREN = "children"


class Stage(NamedTuple):
    """A named interval of training.

    Attributes:
      name: prefix of the stage's records and checkpoints, such as "level_03/ticket".
      level: level of iterative magnitude pruning: number of pruning rounds before this
        stage, from 0.
      variant: "ticket", "pretraining", "children", or the name of a control. Ordinary
        training counts as the ticket of level 0.
      start: training step at which the stage begins, counted from initialization.
      stop: training step at which the stage ends; `stop - start` steps are trained.
    """

    name: str
    level: int
    variant: str
    start: int
    stop: int


def end_name(stage: Stage) -> str:
    """Returns the name of a stage's final checkpoint.

    Args:
      stage: the stage.

    Examples:
      >>> end_name(Stage("level_03/ticket", 3, "ticket", 0, 100))
      'level_03/ticket/last'
    """
    return "rewind" if stage.variant == PRETRAINING else f"{stage.name}/last"


def level_end(level: int, *, levels: int) -> str:
    """Returns the name of the final checkpoint of a level.

    Args:
      level: the level, from 0, the dense network of a lottery-ticket run.
      levels: number of levels that the run prunes; 0 for ordinary training.

    Examples:
      >>> level_end(0, levels=0), level_end(3, levels=5)
      ('train/last', 'level_03/ticket/last')
    """
    return f"level_{level:02d}/{TICKET}/last" if levels else f"{TRAIN}/last"


def last_ends(levels: int) -> tuple[str, ...]:
    """Returns the names that the final checkpoint of a run's last level may have.

    Args:
      levels: number of levels to prune, at least 0.

    Returns:
      One name, or two for a run that does not prune: older versions named the only
      stage of such a run "level_00/ticket".
    """
    ticket = f"level_{levels:02d}/{TICKET}/last"
    return (ticket,) if levels else (level_end(0, levels=0), ticket)


def stage_name(end: str) -> str:
    """Returns the name of the stage with a given final checkpoint.

    Args:
      end: name of a final checkpoint, as `end_name` returns it.
    """
    return PRETRAINING if end == "rewind" else end.removesuffix("/last")


def saved_state_name(stage: str, step: int) -> str:
    """Returns the name of the checkpoint with a state saved for analyses.

    Args:
      stage: name of the stage, such as "level_03/ticket".
      step: training step of the state.

    Examples:
      >>> saved_state_name("level_03/ticket", 500)
      'kept/level_03/ticket/step_000000500'
    """
    return f"kept/{stage}/step_{step:09d}"
