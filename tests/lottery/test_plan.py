"""Which stages a run has, and what each starts from: pure, nothing is trained."""

from typing import Any

import pytest

from jaxsparse.lottery import plan as plan_lib
from jaxsparse.lottery.plan import Children, LotteryPlan
from jaxsparse.lottery.rewinding import RewindPlan
from jaxsparse.stages import Stage, end_name, stage_name

PLAIN = RewindPlan(0, 12)
LATE = RewindPlan(5, 12)
KEEPS = RewindPlan(5, 12, "learning_rate_rewind")
WHOLE = RewindPlan(5, 12, whole_dense=True)
EVERYTHING = LotteryPlan(
    KEEPS,
    levels=4,
    controls=("random_mask", "dense_continued"),
    children=Children(2, (0, 3, 5, 7), (0, 2)),
)


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        (LotteryPlan(PLAIN), ["train"]),
        (LotteryPlan(LATE), ["pretraining", "level_00/ticket"]),
        (LotteryPlan(WHOLE, levels=1), ["level_00/ticket", "level_01/ticket"]),
        (LotteryPlan(PLAIN, levels=1), ["level_00/ticket", "level_01/ticket"]),
        (
            LotteryPlan(PLAIN, children=Children(2, (4,), (0,))),
            ["level_00/ticket", "level_00/children_000000004"],
        ),
        (LotteryPlan(PLAIN, first_stage="level_00/ticket"), ["level_00/ticket"]),
        (
            LotteryPlan(PLAIN, levels=1, first_stage="train"),
            ["train", "level_01/ticket"],
        ),
    ],
)
def test_ordinary_training_is_one_stage(plan: LotteryPlan, names: list[str]) -> None:
    found = plan_lib.stages(plan)
    assert [stage.name for stage in found] == names
    assert [stage_name(end_name(stage)) for stage in found] == names


def needed(plan: LotteryPlan, stage: Stage) -> list[Stage]:
    """Everything that a stage needs, by the functions that say so."""
    if stage.variant == "pretraining":
        return []
    found = [plan_lib.masks_source(plan, stage.level)] if stage.level else []
    if stage.variant == "children":
        return [*found, plan_lib.state_source(plan, stage)]
    source = plan_lib.weights_source(plan, stage)
    return [*found, *([source[0]] if source else [])]


@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"one_shot": True}, {"retraining": LATE}, {"retraining": WHOLE}),
        {"control_levels": (3,)},
    ],
)
def test_stages_need_earlier_stages_only(changes: dict[str, Any]) -> None:
    plan = EVERYTHING._replace(**changes)
    stages = plan_lib.stages(plan)
    assert len({stage.name for stage in stages}) == len(stages)
    for place, stage in enumerate(stages):
        assert set(needed(plan, stage)) <= set(stages[:place]), stage.name


@pytest.mark.parametrize(
    "changes", [{}, {"one_shot": True}, {"retraining": LATE}, {"retraining": WHOLE}]
)
def test_ancestors_are_all_that_is_needed(changes: dict[str, Any]) -> None:
    plan = EVERYTHING._replace(children=Children(), **changes)
    for stage in plan_lib.stages(plan):
        found = plan_lib.ancestors(plan, stage)
        assert stage not in found and len(set(found)) == len(found)
        if stage.variant != "dense_continued":  # which takes no masks of tickets
            whole = {each for one in (stage, *found) for each in needed(plan, one)}
            assert set(found) == whole, stage.name


@pytest.mark.parametrize(
    ("one_shot", "variant", "names"),
    [
        (False, "ticket", ["level_01/ticket", "level_00/ticket"]),
        (False, "random_mask", ["level_01/ticket", "level_00/ticket"]),
        (False, "dense_continued", ["level_01/dense_continued", "level_00/ticket"]),
        (True, "ticket", ["level_00/ticket"]),
        (True, "random_mask", ["level_00/ticket"]),
        (True, "dense_continued", ["level_01/dense_continued", "level_00/ticket"]),
    ],
)
def test_ancestors_are_of_tickets_or_of_the_dense_network(
    one_shot: bool, variant: str, names: list[str]
) -> None:
    plan = EVERYTHING._replace(one_shot=one_shot)
    for stage in plan_lib.stages(plan):
        if stage.level == 2 and stage.variant == variant:
            found = plan_lib.ancestors(plan, stage)
            assert [each.name for each in found] == [*names, "pretraining"]


@pytest.mark.parametrize(
    "changes", [{}, {"one_shot": True}, {"retraining": LATE}, {"retraining": WHOLE}]
)
def test_deleted_weights_are_not_needed_later(changes: dict[str, Any]) -> None:
    plan = EVERYTHING._replace(children=Children(), **changes)
    stages = plan_lib.stages(plan)
    deleted: set[Stage] = set()
    for stage in stages:
        assert not deleted & set(needed(plan, stage)), stage.name
        deleted |= {plan_lib.outdated(plan, stage)} - {None}
    assert {stage.variant for stage in deleted} == {
        *("ticket", "random_mask", "dense_continued")
    }


def test_parents_save_what_children_start_from() -> None:
    saved = {
        (stage.name, step)
        for stage in plan_lib.stages(EVERYTHING)
        for step in plan_lib.saved_steps(EVERYTHING, stage)
    }
    assert saved == {
        *(("pretraining", 3), ("level_00/ticket", 7), ("level_02/ticket", 7))
    }
    started = [s for s in plan_lib.stages(EVERYTHING) if s.variant == "children"]
    assert [(s.level, s.start) for s in started] == [
        *((0, 0), (0, 3), (0, 5), (0, 7), (2, 5), (2, 7))
    ]
    for stage in started:
        own = plan_lib.ticket(EVERYTHING, stage.level)
        if stage.start not in (0, own.start):
            source = plan_lib.state_source(EVERYTHING, stage)
            assert (source.name, stage.start) in saved


def test_a_whole_level_0_saves_what_later_levels_start_from() -> None:
    plan = EVERYTHING._replace(retraining=WHOLE)
    stages = {stage.name: stage for stage in plan_lib.stages(plan)}
    first, later = stages["level_00/ticket"], stages["level_01/ticket"]
    assert (first.start, first.stop, later.start) == (0, 12, 5)
    assert plan_lib.saved_steps(plan, first) == (3, 5, 7)
    assert plan_lib.saved_steps(plan, stages["level_02/ticket"]) == (7,)
    assert plan_lib.weights_source(plan, first) is None
    for name in ("level_01/ticket", "level_04/ticket"):
        assert plan_lib.weights_source(plan, stages[name]) == (first, 5)
    kept = plan._replace(retraining=KEEPS._replace(whole_dense=True))
    alone = kept._replace(children=Children())
    assert plan_lib.saved_steps(alone, first) == ()
    assert plan_lib.weights_source(kept, later) == (first, 12)
