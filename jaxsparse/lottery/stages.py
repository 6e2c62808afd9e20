"""What an experiment is made of, and the stages in which it runs.

Each stage is a pure function of the seeds and of stages before it:

    pretraining                  dense, from initialisation to the rewinding step k
    level_00/ticket              dense, from k to the end
    level_01/ticket              pruned by the weights of level_00, from k to the end
    level_01/reinitialized, ...  controls of that level
    level_01/children_000000500  copies that train from update 500 with other noise
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
    """Everything a lottery run is made of.

    Attributes:
      trainer: what every stage trains with.
      network: what is trained.
      seeds: keys of every replicate.
      plan: what levels start from, and for how long they train.
      rule: how a level prunes.
      levels: times to prune.
      controls: names from `controls.NAMES`.
      control_levels: levels that get controls; () for all from 1.
      one_shot: whether every level is pruned by the weights of level 0.
      fresh_order: whether each level sees the examples in an order of its own.
      thin: whether to delete the weights of levels that nothing needs any more.
      tickets: folder of ticket files.
      children: how stability is analysed; None for not at all.
      pretrainer: what trains up to the rewinding step; None for `trainer`.
      repelled: dtype in which the ends of all levels before are held, for a level to
        be repelled from; None for no such thing.
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
    """Yields all stages in the order they run."""
    if experiment.plan.rewind:
        yield pretraining(experiment)
    chosen = experiment.control_levels or tuple(range(1, experiment.levels + 1))
    for level in range(experiment.levels + 1):
        yield of_level(experiment, level, TICKET)
        for name in experiment.controls:
            # Continued training goes on from one level to the next.
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
    """Makes the stage up to the rewinding step."""
    return Stage(PRETRAINING, 0, PRETRAINING, 0, experiment.plan.rewind)


def of_level(experiment: Experiment, level: int, variant: str) -> Stage:
    """Makes a stage of a level, of its ticket or a control."""
    span = experiment.plan.span(level)
    return Stage(f"level_{level:02d}/{variant}", level, variant, span.start, span.stop)


def end_name(stage: Stage) -> str:
    """Names the checkpoint that a stage ends with."""
    return "rewind" if stage.arm == PRETRAINING else f"{stage.name}/last"


def stage_name(end: str) -> str:
    """Names the stage that ends with a checkpoint."""
    return PRETRAINING if end == "rewind" else end.removesuffix("/last")
