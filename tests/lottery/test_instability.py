"""Instability analysis: copies that differ in nothing but the noise of SGD."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from jaxsparse import config as config_lib
from jaxsparse import factory, masks, metrics_log, transforms
from jaxsparse.factory import instability as factory_instability
from jaxsparse.factory.experiment import make_plan
from jaxsparse.lottery import instability
from jaxsparse.runner import run as run_lib
from jaxsparse.runner import task
from jaxsparse.runner.masks import level_masks
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.stages import saved_state_name
from jaxsparse.training import checkpoints, preemption

pytestmark = pytest.mark.keys_used_once


FIELDS = {
    "lottery.levels": 1,
    "model.features": (8,),
    "instability.copies": 3,
    "instability.start_steps": ("0step", "5step"),
    "instability.levels": (0, 1),
    "instability.compare_levels": True,
    "instability.points": 5,
    "instability.examples": 60,
    "evaluation.every": "6step",
    "data.validation": 0,
    "run.steps_per_call": 1,
}
STAGES = [
    "level_00/ticket",
    "level_00/children_000000000",
    "level_00/children_000000005",
    "level_01/ticket",
    "level_01/children_000000000",
    "level_01/children_000000005",
]


def make(folder: Path, fields: dict[str, Any]) -> Any:
    c = tiny.config(fields)
    config_lib.validate(c)
    factory.check_names(c)
    return factory.make_experiment(c, factory.load_data(c), folder)


def replan(made: Any, fields: dict[str, Any]) -> Any:
    """Changes the stages of an experiment, and keeps its compiled functions."""
    c = tiny.config(FIELDS | fields)
    length = factory.make_durations(c, steps_per_epoch=made.trainer.epoch.steps)
    return made._replace(plan=make_plan(c, length))


def ends(folder: Path, made: Any, stage: str) -> Any:
    """The state that a stage ended with, of as many replicates as trained in it."""
    count = made.instability.trainer.layout.replicates if "children" in stage else 2
    seeds = jax.tree.map(
        lambda keys: jax.random.split(jax.random.clone(keys)[0], count), made.seeds
    )
    like = task.first_state(made.task, seeds)
    saved = checkpoints.load(folder / "checkpoints", f"{stage}/last", like)
    assert saved is not None
    return saved.state


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("stability")
    made = make(folder, FIELDS)
    run_lib.run(made, tiny.desk(folder))
    (folder / "config.json").write_text(tiny.config(FIELDS).to_json())
    return folder, made


def test_all_children_of_a_run_are_opened(trained: tuple[Path, Any]) -> None:
    folder, made = trained
    run = factory.open_run(folder)
    assert run.config.replicates == 2
    tiny.check_equal(
        factory.load_state(run, f"{STAGES[1]}/last"), ends(folder, made, STAGES[1])
    )


def test_stages_follow_their_level(trained: tuple[Path, Any]) -> None:
    _, made = trained
    found = tiny.stages(made)
    assert [stage.name for stage in found] == STAGES
    assert [stage.start for stage in found] == [0, 0, 5, 0, 0, 5]
    assert {stage.stop for stage in found} == {12}


def test_each_child_has_noise_of_its_own() -> None:
    parents = jax.random.split(jax.random.key(0), 2)
    few = jax.random.key_data(instability.data_keys(parents, 2))
    many = jax.random.key_data(instability.data_keys(parents.copy(), 3))
    assert few.tolist() == many[jnp.array([0, 1, 3, 4])].tolist()
    every = [*many.tolist(), *jax.random.key_data(parents).tolist()]
    assert len({tuple(key) for key in every}) == 8


def test_children_end_apart_and_each_is_one_alone(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    """A child is what a run with its data key comes to, bit for bit."""
    folder, made = trained
    found = ends(folder, made, STAGES[1])
    leaf = np.asarray(jax.tree.leaves(found.params)[0])
    assert len({row.tobytes() for row in leaf}) == 6
    keys = instability.data_keys(made.seeds.data, 3)
    alone = replan(made, {"lottery.levels": 0, "instability.copies": 0})
    alone = alone._replace(instability=None)
    for child in (0, 2):
        picked = keys[jnp.array([child, 3 + child])]
        mine = alone._replace(seeds=alone.seeds._replace(data=picked))
        workdir = tmp_path / str(child)
        run_lib.run(mine, tiny.desk(workdir))
        state = tiny.load(workdir, "train/last", mine)
        of = jax.tree.map(lambda leaf, c=child: leaf[c::3], found.params)
        tiny.check_equal(state.params, of)


def test_children_begin_where_training_was(trained: tuple[Path, Any]) -> None:
    folder, made = trained
    session = SavedStates(made, tiny.desk(folder))
    known = {stage.name: stage for stage in tiny.stages(made)}
    for level in (0, 1):
        begun = tiny.start(session, known[f"level_{level:02d}/children_000000005"])
        assert int(begun.step) == 5
        kept = tiny.load(folder, saved_state_name(f"level_{level:02d}/ticket", 5), made)
        wanted = instability.copies(kept.params, 3)
        tiny.check_equal(begun.params, wanted)
        held = transforms.get_masks(begun.opt_state)
        tiny.check_equal(held, instability.copies(level_masks(session, level), 3))
    begun = tiny.start(session, known["level_01/children_000000000"])
    dense = tiny.load(folder, "init", made)
    held = instability.copies(level_masks(session, 1), 3)
    tiny.check_equal(
        begun.params, masks.apply(held, instability.copies(dense.params, 3))
    )


def test_masked_weights_of_children_stay_zero(trained: tuple[Path, Any]) -> None:
    folder, made = trained
    state = ends(folder, made, STAGES[4])
    held = transforms.get_masks(state.opt_state)
    tiny.check_equal(state.params, masks.apply(held, state.params))
    assert masks.num_active(held) < masks.size(held)


def test_what_lies_between_two_is_recorded(trained: tuple[Path, Any]) -> None:
    folder, made = trained
    rows = metrics_log.read(folder / "metrics.jsonl")
    segments = [row for row in rows if row["kind"] == "child_barrier"]
    assert len(segments) == 4 * 2 * 3  # stages, replicates, pairs
    last = {
        (row["stage"], row["replicate"]): row["test_accuracy"]
        for row in rows
        if row["kind"] == "eval" and row["step"] == 12
    }
    for row in segments:
        assert row["alphas"] == [0.0, 0.25, 0.5, 0.75, 1.0]
        for end, child in zip((0, -1), row["pair"], strict=True):
            place = (row["stage"], 3 * row["replicate"] + child)
            assert 1 - row["test_error"][end] == pytest.approx(last[place])
        rise = (
            max(row["test_error"]) - (row["test_error"][0] + row["test_error"][-1]) / 2
        )
        assert row["test_instability"] == pytest.approx(rise)
    state = ends(folder, made, STAGES[1])
    row = segments[0]
    assert (row["replicate"], row["pair"]) == (0, [0, 1])
    apart = sum(
        float(np.sum(np.square(np.asarray(leaf[0] - leaf[1], float))))
        for leaf in jax.tree.leaves(state.params)
    )
    assert row["l2"] == pytest.approx(apart**0.5, rel=1e-5)
    assert row["disagreement"] == row["different"] / 50
    successive = [row for row in rows if row["kind"] == "level_barrier"]
    assert [(row["stage"], row["replicate"]) for row in successive] == [
        ("level_01/ticket", 0),
        ("level_01/ticket", 1),
    ]


def test_verdicts_are_those_of_the_pairs(trained: tuple[Path, Any]) -> None:
    folder, _ = trained
    rows = metrics_log.read(folder / "metrics.jsonl")
    found = [row for row in rows if row["kind"] == "stability"]
    assert [(row["stage"], row["start"]) for row in found] == [
        (STAGES[1], 0),
        (STAGES[2], 5),
        (STAGES[4], 0),
        (STAGES[5], 5),
    ]
    reached = [
        [
            row["test_accuracy"]
            for row in rows
            if row["kind"] == "level" and row["level"] == level
        ]
        for level in (0, 1)
    ]
    drop = float(np.mean(reached[0]) - np.mean(reached[1]))
    for row in found:
        pairs = [
            one["test_instability"]
            for one in rows
            if one["kind"] == "child_barrier" and one["stage"] == row["stage"]
        ]
        assert row["pairs"] == len(pairs) == 6
        assert row["instability"] == pytest.approx(np.mean(pairs))
        assert row["instability_sd"] == pytest.approx(np.std(pairs, ddof=1))
        assert row["stable"] == bool(round(np.mean(pairs), 12) < 0.02)
        # The dense network has nothing to match.
        assert row["matching"] is (
            None if row["level"] == 0 else round(drop, 12) < 0.002
        )


@pytest.mark.parametrize(
    ("dense", "stable", "matching"),
    [([0.92], False, None), ([0.92], True, True), ([0.9221], True, False)],
)
def test_a_verdict_keeps_to_its_thresholds(
    dense: list[float], stable: bool, matching: bool | None
) -> None:
    instabilities = [0.019] if stable else [0.019, 0.021]
    known = None if matching is None else dense
    found = factory_instability.judge(instabilities, [0.92], known)
    assert (found["stable"], found["matching"]) == (stable, matching)
    assert (found["instability_sd"] is None) == stable  # of a single pair


def test_a_copy_is_compared_with_the_network_that_it_copies(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    """One copy of each replicate, against parent and child compared by hand."""
    fields = {"instability.copies": 1, "instability.pairs": "parent"}
    fields |= {"instability.start_steps": ("0step",), "lottery.levels": 0}
    fields |= {"instability.levels": (0,), "instability.compare_levels": False}
    made = make(tmp_path, FIELDS | fields)
    # Its copies are as many as its replicates, whose compiled functions exist already.
    assert made.instability.trainer.layout == trained[1].trainer.layout
    analysis = trained[1].instability._replace(
        trainer=trained[1].trainer,
        with_parent=made.instability.with_parent,
        compare_levels=False,
    )
    made = made._replace(trainer=trained[1].trainer, instability=analysis)
    run_lib.run(made, tiny.desk(tmp_path))
    parent, child = (tiny.load(tmp_path, f"{stage}/last", made) for stage in STAGES[:2])
    measured = analysis.compare(
        *((state.params, state.batch_stats) for state in (parent, child))
    )
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    found = [row for row in rows if row["kind"] == "child_barrier"]
    assert [row["pair"] for row in found] == [["parent", 0], ["parent", 0]]
    assert [row["replicate"] for row in found] == [0, 1]
    for r, row in enumerate(found):
        assert measured[r].items() <= row.items()
        own = [
            jax.tree.map(lambda leaf, r=r: leaf[r], s.params) for s in (parent, child)
        ]
        apart = jax.tree.map(lambda a, b: float(np.sum(np.square(a - b))), *own)
        assert row["l2"] == pytest.approx(sum(jax.tree.leaves(apart)) ** 0.5, rel=1e-5)
        assert row["l2"] > 0
        last = [
            one["test_accuracy"]
            for one in rows
            if (one["kind"], one["step"], one.get("replicate")) == ("eval", 12, r)
        ]
        ends = (row["test_error"][0], row["test_error"][-1])
        assert [1 - error for error in ends] == pytest.approx(last)
    (verdict,) = (row for row in rows if row["kind"] == "stability")
    assert verdict["pairs"] == 2


def test_equal_noise_makes_equal_children(
    trained: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(keys: Any, count: int) -> Any:
        return jnp.repeat(keys, count)

    monkeypatch.setattr(instability, "data_keys", same)
    made = replan(trained[1], {"instability.levels": (0,), "lottery.levels": 0})
    run_lib.run(made, tiny.desk(tmp_path))
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    rows = [row for row in rows if row["kind"] == "child_barrier"]
    assert len(rows) == 2 * 2 * 3  # stages, replicates, pairs
    for row in rows:
        assert (row["l2"], row["different"]) == (0, 0)
        assert row["train_instability"] == row["test_instability"] == 0
        assert len(set(row["test_error"])) == 1


def test_children_that_were_stopped_come_out_the_same(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    whole, made = trained
    ended = tmp_path / "checkpoints/level_00/ticket/last.json"
    lost = tmp_path / "checkpoints" / saved_state_name("level_00/ticket", 5)
    stopped, removed = 0, False
    while True:
        # Each session is asked to stop after some calls of whatever it trains.
        calls = iter(range(1000))
        try:
            run_lib.run(made, tiny.desk(tmp_path, lambda c=calls: next(c) >= 13))
            break
        except preemption.Preempted:
            stopped += 1
        if ended.exists() and not removed:
            # What children from the middle begin with is trained again.
            shutil.rmtree(lost)
            removed = True
    assert stopped >= 3
    assert removed and lost.is_dir()
    for name in STAGES:
        hashes = [
            checkpoints.recorded_hash(folder / "checkpoints", f"{name}/last")
            for folder in (whole, tmp_path)
        ]
        assert hashes[0] == hashes[1] is not None
    both = [
        [
            row
            for row in metrics_log.read(folder / "metrics.jsonl")
            if row["kind"] == kind
        ]
        for kind in ("child_barrier", "stability", "level_barrier", "eval")
        for folder in (whole, tmp_path)
    ]
    assert both[0::2] == both[1::2]


def test_children_of_pretraining_begin_before_levels_do(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    fields = {
        "lottery.rewind": "4step",
        "instability.start_steps": ("0step", "2step", "4step", "6step"),
    }
    found = [stage.name for stage in tiny.stages(replan(trained[1], fields))]
    assert [name for name in found if "children" in name] == [
        *(f"level_00/children_{step:09d}" for step in (0, 2, 4, 6)),
        *(f"level_01/children_{step:09d}" for step in (4, 6)),
    ]
    few = {
        "lottery.levels": 0,
        "instability.levels": (0,),
        "instability.start_steps": ("2step",),
    }
    made = replan(trained[1], fields | few)
    run_lib.run(made, tiny.desk(tmp_path))
    kept = tiny.load(tmp_path, saved_state_name("pretraining", 2), made)
    session = SavedStates(made, tiny.desk(tmp_path))
    stage = next(s for s in tiny.stages(made) if s.start == 2)
    tiny.check_equal(
        tiny.start(session, stage).params, instability.copies(kept.params, 3)
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"instability.copies": 1},
            r"instability\.copies: expected .*2 to 1000, .*'copies', got 1",
        ),
        (
            {"instability.copies": 1001},
            r"instability\.copies: expected .*0 to 1000, got 1001",
        ),
        (
            {"instability.pairs": "parent"},
            r"instability\.pairs: expected 'copies' with instability\.copies 0",
        ),
        (
            FIELDS | {"instability.pairs": "parent"},
            r"instability\.start_steps: expected \(0,\), .*level 0, .*got step 5",
        ),
        (
            FIELDS
            | {"instability.pairs": "parent", "lottery.rewind": "5step"}
            | {"instability.start_steps": ("2step", "5step")},
            r"instability\.start_steps: expected \(5,\), .*level 0, .*got step 2",
        ),
        ({"instability.points": 2}, r"instability\.points: expected .*from 3 .*got 2"),
        (
            {"instability.points": 9},
            r"instability\.points: expected 30 with .*copies 0",
        ),
        (
            FIELDS | {"sparse.method": "static", "lottery.levels": 0},
            r"instability\.copies: expected no .* with sparse\.method 'static', got 3",
        ),
        (
            {"instability.compare_levels": True, "lottery.levels": 0},
            r"instability\.compare_levels: expected False with lottery\.levels 0",
        ),
        (FIELDS | {"instability.levels": (2,)}, r"instability\.levels: .*got \(2,\)"),
        (
            FIELDS | {"instability.start_steps": ("12step",)},
            r"instability\.start_steps: .*got \(12,\)",
        ),
        (
            FIELDS | {"instability.start_steps": ()},
            r"instability\.start_steps: .*got \(\)",
        ),
        (
            FIELDS | {"lottery.rewind": "6step"},
            r"instability\.start_steps: .*lottery\.rewind\), got \(0, 5\)",
        ),
        (
            {
                "instability.compare_levels": True,
                "instability.start_steps": ("5step",),
                "lottery.levels": 1,
            },
            r"instability\.start_steps: .*got \('5step',\)",
        ),
        (
            FIELDS
            | {"lottery.retrain": "finetune", "lottery.finetune_length": "4step"},
            r"instability\.levels: .* lottery\.retrain 'finetune', .*got \(0, 1\)",
        ),
        (
            FIELDS | {"lottery.rewind": "4step", "pretraining.label_noise": 0.5},
            r"instability\.start_steps: .*config\.pretraining, got \(0, 5\)",
        ),
    ],
)
def test_bad_fields_are_named(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, fields)
