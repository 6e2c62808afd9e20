"""Whole experiments: their stages, what they leave, and that nothing is done twice."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.campaigns import some

from jaxsparse import factory, masks, metrics_log
from jaxsparse.lottery import tickets
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.stages import Stage
from jaxsparse.training import checkpoints, preemption, train

CONTROLLED = {"lottery.controls": ("reinitialized", "dense_continued")}


def names_of(**fields: Any) -> list[str]:
    made = tiny.experiment(Path(), {f"lottery.{k}": v for k, v in fields.items()})
    return [stage.name for stage in tiny.stages(made)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three levels with two controls, without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    tiny.run(folder, CONTROLLED | {"lottery.levels": 3})
    return folder


def scientific(folder: Path, *, levels: int = 3) -> list[str]:
    """All records but times, up to a level."""
    rows = metrics_log.read(folder / "metrics.jsonl")
    return sorted(
        metrics_log.to_line(row)
        for row in rows
        if row["kind"] != "timing" and row["level"] <= levels
    )


def state_of(folder: Path) -> dict[str, bytes | int]:
    """Every file but the records: its time of change, to see whether it was touched."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was trained again")

    monkeypatch.setattr(train, "fit", never)


def test_stages_in_order() -> None:
    assert names_of(levels=0) == ["train"]
    assert names_of(levels=1, rewind="1step") == [
        "pretraining",
        "level_00/ticket",
        "level_01/ticket",
    ]
    assert names_of(levels=2, controls=("random_mask", "reinitialized")) == [
        "level_00/ticket",
        "level_01/ticket",
        "level_01/random_mask",
        "level_01/reinitialized",
        "level_02/ticket",
        "level_02/random_mask",
        "level_02/reinitialized",
    ]


def test_controls_at_chosen_levels_and_what_continued_training_needs() -> None:
    chosen = names_of(
        levels=4, controls=("random_mask", "dense_continued"), control_levels=(1, 3)
    )
    assert [name for name in chosen if "ticket" not in name] == [
        "level_01/random_mask",
        "level_01/dense_continued",
        "level_02/dense_continued",
        "level_03/random_mask",
        "level_03/dense_continued",
    ]


def test_a_config_becomes_the_experiment_it_says(tmp_path: Path) -> None:
    fields = {
        "lottery.levels": 7,
        "lottery.rewind": "25%",
        "lottery.retrain": "finetune",
        "lottery.finetune_length": "1ep",
        "lottery.fraction": 0.3,
        "lottery.scope": "layer",
        "lottery.layer_fractions": (("head/*", 0.15),),
        "lottery.exclude": ("dense2/*",),
        "lottery.score": "random",
        "lottery.one_shot": True,
        "lottery.controls": ("random_mask",),
        "lottery.control_levels": (2, 7),
        "data.reshuffle_each_level": True,
        "run.keep_checkpoints": "needed",
    }
    c = tiny.config(fields)
    made = factory.make_experiment(c, factory.load_data(c), tmp_path)
    assert made.plan.retraining[:4] == (3, 12, "finetune", 6)
    assert made.plan.rule == (
        *(0.3, "exact", "layer", (("head/*", 0.15),), ("dense2/*",), "random", 0.0),
    )
    plan = made.plan
    assert (plan.levels, plan.controls, plan.control_levels) == (
        *(7, ("random_mask",), (2, 7)),
    )
    assert plan.one_shot
    assert plan.reshuffle
    assert made.delete_weights


def test_what_a_run_records(whole: Path) -> None:
    made = tiny.experiment(whole, CONTROLLED | {"lottery.levels": 3})
    rows = metrics_log.read(whole / "metrics.jsonl")
    levels = [row for row in rows if row["kind"] == "level"]
    named = [(row["level"], row["variant"], row["replicate"]) for row in levels]
    arms = {0: ["ticket"]} | dict.fromkeys((1, 2, 3), ["ticket", *made.plan.controls])
    assert named == [(n, arm, r) for n in arms for arm in arms[n] for r in (0, 1)]
    for row in levels:
        dense = row["variant"] == "dense_continued"
        kept = 50200 if dense else round(50200 * 0.8 ** row["level"])
        assert (row["kept"], row["total"]) == (kept, 50200)
        assert row["density"] == kept / 50200
        assert sum(layer[0] for layer in row["layers"].values()) == kept
        evals = [
            r
            for r in rows
            if r["kind"] == "eval"
            and (r["stage"], r["replicate"]) == (row["stage"], row["replicate"])
        ]
        assert [r["step"] for r in evals] == [0, 6, 12]
        best = min(evals, key=lambda r: r["validation_loss"])
        assert row["early_stop_step"] == best["step"]
        assert row["early_stop_test_accuracy"] == best["test_accuracy"]
        assert row["test_accuracy"] == evals[-1]["test_accuracy"]
    times = [row for row in rows if row["kind"] == "timing"]
    assert [row["stage"] for row in times] == [
        stage.name for stage in tiny.stages(made)
    ]
    assert all("seconds" not in row for row in rows if row["kind"] != "timing")
    # It learns: ten classes, so chance is 0.1.
    assert np.mean([row["test_accuracy"] for row in levels]) > 0.4


def test_a_finished_run_is_not_touched_and_may_grow(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short"
    fields = CONTROLLED | {"lottery.levels": 1}
    tiny.run(short, fields)
    before = state_of(short)
    with monkeypatch.context() as patch:
        forbid_training(patch)
        tiny.run(short, fields)
    assert state_of(short) == before
    tiny.run(short, CONTROLLED)  # of two levels
    after = state_of(short)
    grown = ("metrics.jsonl", "stages.json")
    kept = {k: v for k, v in before.items() if k not in grown}
    assert {name: after[name] for name in kept} == kept
    assert scientific(short) == scientific(whole, levels=2)
    grown = tiny.experiment(short, CONTROLLED)
    assert run_lib.count_ended(tiny.stages(grown), tiny.desk(short)) == 7


def hashes(folder: Path) -> dict[str, str | None]:
    names = [
        str(path.relative_to(folder / "checkpoints").with_suffix(""))
        for path in (folder / "checkpoints").rglob("*.json")
        if checkpoints.exists(path.parent, path.stem)
    ]
    return {
        name: checkpoints.recorded_hash(folder / "checkpoints", name)
        for name in sorted(names)
    }


@pytest.mark.parametrize("every", some(["", "4step"], always=["4step"]))
def test_a_run_stopped_between_any_calls_ends_in_the_same_bits(
    tmp_path: Path, every: str
) -> None:
    fields = CONTROLLED | {"lottery.rewind": "5step", "lottery.levels": 1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny.run(whole, fields)
    made = tiny.experiment(parts, fields)
    every = 4 if every else 0
    made = tiny.with_loop(made, checkpoint_every=every, max_inflight_calls=3)
    stops = 0
    for allowed in (1, 2, 1, 3, 1000):
        calls = iter(range(allowed))
        desk = tiny.desk(parts, lambda calls=calls: next(calls, None) is None)
        try:
            run_lib.run(made, desk)
        except preemption.Preempted as stop:
            stops += 1
            assert ", step " in str(stop)
    assert stops >= 4
    assert scientific(parts) == scientific(whole)
    assert hashes(parts) == hashes(whole)
    assert not list(parts.rglob("step_*"))


@pytest.mark.campaign
def test_four_devices_by_jit_and_by_pmap_end_in_the_same_bits(tmp_path: Path) -> None:
    for parallelism in ("jit", "pmap"):
        fields = {
            "replicates": 1,
            "run.devices": 4,
            "run.parallelism": parallelism,
            "data.flip": True,
            "training.duration": "1ep",
            "schedule.milestones": (),
            "lottery.levels": 1,
        }
        tiny.run(tmp_path / parallelism, fields)
    assert scientific(tmp_path / "jit") == scientific(tmp_path / "pmap")
    assert hashes(tmp_path / "jit") == hashes(tmp_path / "pmap")


@pytest.mark.parametrize("place", some([0.01, 0.3, 0.5, 0.7, 0.99], always=[0.5]))
def test_a_damaged_ticket_is_chosen_again(
    whole: Path, tmp_path: Path, place: float, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = tickets.path_of(folder / "tickets", 3, 1)
    sound = path.read_bytes()
    content = bytearray(sound)
    content[int(place * len(content))] ^= 0x40
    path.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        made = tiny.run(folder, {"lottery.levels": 4})
    like = made.task.masks
    chosen = tickets.load(path, like)
    path.write_bytes(sound)
    tiny.check_equal(chosen, tickets.load(path, like))


def test_thinned_weights_are_not_missed(whole: Path, tmp_path: Path) -> None:
    thin = tmp_path / "thin"
    tiny.run(thin, CONTROLLED, delete_weights=True)

    def held(folder: Path) -> set[str]:
        return {
            name for name in hashes(folder) if (folder / "checkpoints" / name).exists()
        }

    assert held(whole) == set(hashes(whole))
    assert held(thin) == {
        "init",
        "level_00/ticket/last",
        "level_01/ticket/last",  # controls of level 2 might have started from it
        "level_02/ticket/last",
        "level_02/dense_continued/last",
    }
    # A level more needs only what was kept.
    tiny.run(thin, CONTROLLED | {"lottery.levels": 3}, delete_weights=True)
    assert scientific(thin) == scientific(whole)
    assert hashes(thin) == hashes(whole)


def test_thinning_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Controls that start from the weights of the level before need them still.
    seen: list[str] = []
    fit = train.fit

    def spy(*args: Any, stage: Stage, **kwargs: Any) -> Any:
        seen.append(stage.name)
        return fit(*args, stage=stage, **kwargs)

    monkeypatch.setattr(train, "fit", spy)
    fields = {
        "lottery.retrain": "learning_rate_rewind",
        "lottery.controls": ("shuffled_layers",),
    }
    tiny.run(tmp_path, fields, delete_weights=True)
    assert len(seen) == len(set(seen)) == 5


def test_what_a_kill_left_of_an_ended_stage_is_cleared(tmp_path: Path) -> None:
    tiny.run(tmp_path, {"lottery.levels": 0})
    stage = tmp_path / "checkpoints" / "train"
    before = sorted(stage.iterdir())
    for name in ("step_000000004", "step_000000008.corrupt-0"):
        (stage / name).mkdir()
        (stage / name / "state").write_text("rest")
    (stage / "step_000000008.json").write_text('{"hash": ""}')
    tiny.run(tmp_path, {"lottery.levels": 0})
    # What is corrupt is kept for whoever wants to know why.
    kept = stage / "step_000000008.corrupt-0"
    assert sorted(stage.iterdir()) == sorted([*before, kept])


def test_initial_weights_of_other_bits_are_refused(tmp_path: Path) -> None:
    made = tiny.run(tmp_path, {"lottery.levels": 0})
    checkpoints.delete_weights(tmp_path / "checkpoints", "init")
    other = _with_weights(made, lambda leaf: -leaf)
    with pytest.raises(ValueError, match="checkpoint .*init: expected the bits with"):
        run_lib.run(other, tiny.desk(tmp_path))


def _with_weights(made: Experiment, change: Callable[[Any], Any]) -> Experiment:
    """Changes the initial weights of an experiment."""

    def initialize(keys: Any) -> Any:
        params, stats = made.task.initialize(keys)
        return jax.tree.map(change, params), stats

    return made._replace(task=made.task._replace(initialize=initialize))


def test_a_loss_that_is_not_finite_stops_after_its_record(tmp_path: Path) -> None:
    made = tiny.experiment(tmp_path)
    # Weights so large that the loss overflows in training.
    made = _with_weights(made, lambda leaf: leaf * np.float32(1e10))
    with pytest.raises(
        preemption.NonFiniteLoss,
        match=r"^level_00/ticket, step \d+: the training loss of replicates \[0, 1\]",
    ) as caught:
        run_lib.run(made, tiny.desk(tmp_path))
    assert "\n" not in str(caught.value)
    rows = metrics_log.read(tmp_path / "metrics.jsonl")
    assert rows[-1]["kind"] == "eval"
    assert [row["loss"] for row in rows if row["kind"] == "train"][-2:] == [None, None]
    assert not checkpoints.exists(tmp_path / "checkpoints", "level_00/ticket/last")


@pytest.mark.campaign
def test_replicates_are_those_of_a_run_with_more_of_them(tmp_path: Path) -> None:
    # The programs differ, so only what is exact is compared: counts, and what comes
    # before training.
    for count in (2, 3):
        tiny.run(tmp_path / str(count), {"replicates": count, "lottery.levels": 1})
    rows = [metrics_log.read(tmp_path / str(n) / "metrics.jsonl") for n in (2, 3)]
    first = [
        [r for r in each if r["kind"] == "eval" and r["step"] == 0][:2] for each in rows
    ]
    for a, b in zip(*first, strict=True):
        assert a["test_accuracy"] == b["test_accuracy"]
        assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-5)
    kept = [{r["kept"] for r in each if r["kind"] == "level"} for each in rows]
    assert kept[0] == kept[1] == {50200, 40160}


def test_a_stage_says_what_it_is() -> None:
    made = tiny.experiment(Path(), {"lottery.rewind": "5step"})
    every = tiny.stages(made)
    assert every[0] == Stage("pretraining", 0, "pretraining", 0, 5)
    assert every[2] == Stage("level_01/ticket", 1, "ticket", 5, 12)
    assert masks.size(made.task.masks) == 50200
