"""The stages of a run as pure descriptions, and what each of them starts from.

`stages` lists them in the order in which they run. Each stage is a pure function of the
seeds and of earlier stages: `weights_source`, `masks_source` and `state_source` name
the stages whose results it needs. `runner` trains them.
"""

from typing import NamedTuple

from jaxsparse.lottery import imp, rewinding
from jaxsparse.stages import CHILDREN, PRETRAINING, TICKET, TRAIN, Stage


class Children(NamedTuple):
    """Copies of a network that are trained for instability analysis.

    Attributes:
      copies: number of copies per replicate; 0 trains none.
      start_steps: training steps at which copies start, increasing.
      levels: levels of iterative magnitude pruning whose training the copies repeat.
    """

    copies: int = 0
    start_steps: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()


class LotteryPlan(NamedTuple):
    """Which stages a run has.

    Attributes:
      retraining: from which weights levels start, and for how many steps they train.
      rule: how each level prunes.
      levels: number of levels to prune; 0 trains without pruning rounds.
      controls: controls to train, names from `controls.NAMES`.
      control_levels: levels at which controls are trained; () selects all from 1.
      one_shot: whether every level is pruned by the final weights of level 0 instead of
        those of the previous level.
      reshuffle: whether each level visits the examples in a different order.
      children: copies trained for instability analysis.
      first_stage: name of the stage of level 0; "" for "train" in ordinary training,
        and "level_00/ticket" in a lottery-ticket run.
    """

    retraining: rewinding.RewindPlan
    rule: imp.PruningRule = imp.PruningRule()
    levels: int = 0
    controls: tuple[str, ...] = ()
    control_levels: tuple[int, ...] = ()
    one_shot: bool = False
    reshuffle: bool = False
    children: Children = Children()
    first_stage: str = ""


def is_lottery(plan: LotteryPlan) -> bool:
    """Returns whether a run has more stages than ordinary training.

    Args:
      plan: which stages the run has.
    """
    return bool(plan.levels or plan.retraining.rewind or plan.children.copies)


def stages(plan: LotteryPlan) -> list[Stage]:
    """Lists all stages in the order in which they run.

    Args:
      plan: which stages the run has.

    Examples:
      >>> [stage.name for stage in stages(LotteryPlan(rewinding.RewindPlan(0, 100)))]
      ['train']
      >>> two = LotteryPlan(rewinding.RewindPlan(10, 100), levels=1)
      >>> [stage.name for stage in stages(two)]
      ['pretraining', 'level_00/ticket', 'level_01/ticket']
    """
    found = [pretraining(plan)] if _has_pretraining(plan) else []
    chosen = plan.control_levels or tuple(range(1, plan.levels + 1))
    for level in range(plan.levels + 1):
        found.append(ticket(plan, level))
        for name in plan.controls:
            # Each level of `dense_continued` starts from the weights of the previous
            # one, so levels without other controls are trained as well.
            linked = name == "dense_continued" and 1 <= level <= max(chosen, default=0)
            if linked or level in chosen:
                found.append(control(plan, level, name))
        found += children(plan, level)
    return found


def _has_pretraining(plan: LotteryPlan) -> bool:
    """Returns whether a stage of its own ends at the rewinding step."""
    return bool(plan.retraining.rewind and not plan.retraining.whole_dense)


def pretraining(plan: LotteryPlan) -> Stage:
    """Returns the stage that ends at the rewinding step.

    Args:
      plan: which stages the run has.
    """
    return Stage(PRETRAINING, 0, PRETRAINING, 0, plan.retraining.rewind)


def ticket(plan: LotteryPlan, level: int) -> Stage:
    """Returns the stage that trains the ticket of a level.

    Args:
      plan: which stages the run has.
      level: level of iterative magnitude pruning; 0 is training before any pruning.
    """
    named = f"level_{level:02d}/{TICKET}"
    if level == 0:
        named = plan.first_stage or (named if is_lottery(plan) else TRAIN)
    return Stage(named, level, TICKET, *plan.retraining.span(level))


def control(plan: LotteryPlan, level: int, name: str) -> Stage:
    """Returns the stage that trains a control of a level.

    Args:
      plan: which stages the run has.
      level: level of iterative magnitude pruning, from 0.
      name: a name from `controls.NAMES`.
    """
    span = plan.retraining.span(level)
    return Stage(f"level_{level:02d}/{name}", level, name, *span)


def children(plan: LotteryPlan, level: int) -> list[Stage]:
    """Lists the stages that train copies of a level.

    Args:
      plan: which stages the run has.
      level: level of the ticket whose training the copies repeat.

    Returns:
      One stage for each starting step within the level's training; none for levels that
      are not analyzed. Copies of level 0 may also start during the pretraining.
      Levels above do not differ from level 0 there.
    """
    wanted, span = plan.children, plan.retraining.span(level)
    if not wanted.copies or level not in wanted.levels:
        return []
    return [
        Stage(f"level_{level:02d}/{CHILDREN}_{at:09d}", level, CHILDREN, at, span.stop)
        for at in wanted.start_steps
        if at < span.stop and (not level or at >= span.start)
    ]


def saved_steps(plan: LotteryPlan, stage: Stage) -> tuple[int, ...]:
    """Lists the steps at which a stage must save its state for others to start from.

    Args:
      plan: which stages the run has.
      stage: any stage.

    Returns:
      Training steps, increasing: those at which copies start, and the rewinding step
      if it is within the stage.
    """
    if stage.variant not in (TICKET, PRETRAINING):
        return ()
    wanted, retraining = plan.children, plan.retraining
    copied = wanted.copies and stage.level in wanted.levels
    steps = set(wanted.start_steps if copied else ())
    if not stage.level and not retraining.keeps_weights:
        steps.add(retraining.rewind)
    return tuple(sorted(at for at in steps if stage.start < at < stage.stop))


def masks_source(plan: LotteryPlan, level: int) -> Stage:
    """Returns the ticket by whose final weights the masks of a level are chosen.

    Args:
      plan: which stages the run has.
      level: level of iterative magnitude pruning, at least 1.
    """
    return ticket(plan, 0 if plan.one_shot else level - 1)


def weights_source(plan: LotteryPlan, stage: Stage) -> tuple[Stage, int] | None:
    """Returns the stage, and its training step, with whose weights a stage starts.

    Args:
      plan: which stages the run has.
      stage: a ticket, or a control that does not draw new weights.

    Returns:
      The stage and the step, which is most often the stage's last; None for the initial
      weights of the run.
    """
    if stage.variant == "dense_continued":
        level = stage.level - 1
        found = control(plan, level, stage.variant) if level else ticket(plan, 0)
    elif stage.level and plan.retraining.keeps_weights:
        found = masks_source(plan, stage.level)
    elif _has_pretraining(plan):
        found = pretraining(plan)
    elif stage.start and stage.level:
        return ticket(plan, 0), stage.start
    else:
        return None
    return found, found.stop


def ancestors(plan: LotteryPlan, stage: Stage) -> list[Stage]:
    """Lists the stages by which the masks and weights of a stage were found.

    Args:
      plan: which stages the run has.
      stage: a stage that is trained.

    Returns:
      The stages before it: the pretraining, and tickets of lower levels. The dense
      network that is trained on (`dense_continued`) has itself at lower levels instead.
      Copies have those of the ticket that they copy, without that ticket: it may go on
      and diverge after they have begun.
    """
    found: list[Stage] = []
    now = stage
    while now.level:
        if now.variant == "dense_continued":
            now, _ = weights_source(plan, now)
        else:
            now = masks_source(plan, now.level)
        found.append(now)
    if _has_pretraining(plan) and stage.variant != PRETRAINING:
        found.append(pretraining(plan))
    return found


def state_source(plan: LotteryPlan, stage: Stage) -> Stage:
    """Returns the stage during whose training copies start.

    Args:
      plan: which stages the run has.
      stage: a stage of copies.
    """
    own = ticket(plan, stage.level)
    return pretraining(plan) if stage.start < own.start else own


def outdated(plan: LotteryPlan, stage: Stage) -> Stage | None:
    """Returns the stage whose final weights no later stage needs.

    Args:
      plan: which stages the run has.
      stage: a stage that has just ended.

    Returns:
      A stage that ended before, or the stage itself; None if all weights are needed.
    """
    level = stage.level
    if not level:
        return None
    if stage.variant == TICKET:
        # Not the previous level: the controls of this level may start from its weights.
        return ticket(plan, level - 2) if level > 2 else None
    if stage.variant == "dense_continued":
        return control(plan, level - 1, stage.variant) if level > 1 else None
    # No stage starts from the weights of any other control.
    return stage
