"""The parts of a lottery-ticket experiment, and its stages in the order they run.

Each stage is a pure function of the seeds and of earlier stages:

    pretraining                  dense, from initialization to the rewinding step k
    level_00/ticket              dense, from step k to the end
    level_01/ticket              pruned by the final weights of level_00, from step k
    level_01/reinitialized, ...  controls of that level
    level_01/children_000000500  copies trained from step 500 with other SGD noise
    level_02/ticket              ...
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxsparse.lottery import imp, instability, rewinding
from jaxsparse.lottery.task import TrainTask
from jaxsparse.training.state import Seeds
from jaxsparse.training.train import Stage, Trainer

TICKET = "ticket"
PRETRAINING = "pretraining"


class Experiment(NamedTuple):
    """The parts of a lottery-ticket experiment.

    Attributes:
      trainer: settings and compiled functions with which stages train.
      network: the network, its optimizer and its initialization.
      seeds: random keys of all replicates.
      plan: from which weights levels start, and for how many steps they train.
      rule: how each level prunes.
      levels: number of levels to prune; 0 trains the dense network only.
      controls: controls to train, names from `controls.NAMES`.
      control_levels: levels at which controls are trained; () selects all from 1.
      one_shot: whether every level is pruned by the final weights of level 0 instead of
        those of the previous level.
      fresh_order: whether each level visits the examples in a different order.
      thin: whether to delete the weights of levels that no later stage needs.
      tickets: directory of the ticket files.
      children: how instability is analyzed; None omits the analysis.
      pretrainer: trainer for the steps before the rewinding step; None uses `trainer`.
      repelled: dtype in which the final weights of earlier levels are stored for the
        penalty of `training.solution_penalty`; None trains without it.
    """

    trainer: Trainer
    network: TrainTask
    seeds: Seeds
    plan: rewinding.RewindPlan
    rule: imp.PruningRule
    levels: int
    controls: tuple[str, ...]
    control_levels: tuple[int, ...]
    one_shot: bool
    fresh_order: bool
    thin: bool
    tickets: Path
    children: instability.InstabilityAnalysis | None = None
    pretrainer: Trainer | None = None
    repelled: Any = None


def every(experiment: Experiment) -> Iterator[Stage]:
    """Yields all stages in the order in which they run.

    Args:
      experiment: the parts of the experiment.
    """
    if experiment.plan.rewind:
        yield pretraining(experiment)
    chosen = experiment.control_levels or tuple(range(1, experiment.levels + 1))
    for level in range(experiment.levels + 1):
        yield of_level(experiment, level, TICKET)
        for name in experiment.controls:
            # Each level of `dense_continued` starts from the weights of the previous
            # one, so levels without other controls are trained as well.
            linked = name == "dense_continued" and 1 <= level <= max(chosen, default=0)
            if linked or level in chosen:
                yield of_level(experiment, level, name)
        if experiment.children is not None:
            yield from instability.stages(
                experiment.children,
                level=level,
                **experiment.plan.span(level)._asdict(),
            )


def pretraining(experiment: Experiment) -> Stage:
    """Returns the stage that ends at the rewinding step."""
    return Stage(PRETRAINING, 0, PRETRAINING, 0, experiment.plan.rewind)


def of_level(experiment: Experiment, level: int, variant: str) -> Stage:
    """Returns the stage of a level's ticket or of one of its controls.

    Args:
      experiment: the parts of the experiment.
      level: level of iterative magnitude pruning, from 0.
      variant: "ticket" or a name from `controls.NAMES`.
    """
    span = experiment.plan.span(level)
    return Stage(f"level_{level:02d}/{variant}", level, variant, span.start, span.stop)


def end_name(stage: Stage) -> str:
    """Returns the name of a stage's final checkpoint."""
    return "rewind" if stage.arm == PRETRAINING else f"{stage.name}/last"


def stage_name(end: str) -> str:
    """Returns the name of the stage with a given final checkpoint."""
    return PRETRAINING if end == "rewind" else end.removesuffix("/last")
