"""Who may go on in a folder: the same experiment on the same data, or anyone, if no
step was trained there."""

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny
from ml_collections import ConfigDict

from jaxsparse import factory, metrics_log
from jaxsparse.data import datasets, digits
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.lottery.plan import LotteryPlan
from jaxsparse.lottery.rewinding import RewindPlan
from jaxsparse.runner import records
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.masks import level_masks
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.training import data_record, environment, workdir

SHORT = {"lottery.levels": 0, "training.duration": "4step", "evaluation.every": "4step"}


def claim(folder: Path, fields: dict[str, Any]) -> ConfigDict:
    """Opens a folder for a run, and trains nothing."""
    c = tiny.config(SHORT | fields)
    dataset = factory.load_data(c)
    with workdir.opened(folder, c, command="", execution_plan={}, dataset=dataset):
        pass
    return c


read_digits = digits.read


def blackened(*, data_dir: str | None = None) -> datasets.Read:
    train, test, classes = read_digits(data_dir=data_dir)
    images = np.array(train.images)
    images[np.random.default_rng(0).permutation(len(images))[:400]] = 0
    return train._replace(images=images), test, classes


def test_a_folder_without_a_step_is_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claim(tmp_path, {})
    for name in ("checkpoints/init/state", "tickets/level_00/replicate_0.npz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("what another config made")
    (tmp_path / "checkpoints" / "init.json").write_text("{}")
    row = {"kind": "eval", "stage": "level_00/ticket", "step": 0}
    metrics_log.append(tmp_path / "metrics.jsonl", [row])
    other = tiny.config(SHORT | {"optimizer.momentum": 0.5})
    workdir.check_same(tmp_path, other)
    claim(tmp_path, {"optimizer.momentum": 0.5})
    assert "no step was trained there; its run is begun anew" in caplog.text
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "tickets").exists()
    assert not (tmp_path / "metrics.jsonl").exists()
    assert (
        metrics_log.read_object(tmp_path / "config.json")["optimizer"]["momentum"]
        == 0.5
    )


@pytest.mark.parametrize("trace", ["record", "checkpoint"])
def test_a_folder_with_a_step_is_refused(tmp_path: Path, trace: str) -> None:
    claim(tmp_path, {})
    if trace == "record":
        row = {"kind": "train", "stage": "level_00/ticket", "step": 4}
        metrics_log.append(tmp_path / "metrics.jsonl", [row])
    else:
        note = tmp_path / "checkpoints" / "level_00" / "ticket" / "step_000000002.json"
        note.parent.mkdir(parents=True)
        note.write_text("damaged")
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    other = tiny.config(SHORT | {"optimizer.momentum": 0.5})
    with pytest.raises(ValueError, match=r"another experiment: config\.optimizer\.mom"):
        workdir.check_same(tmp_path, other)
    with pytest.raises(ValueError, match=r"another experiment: config\.optimizer\.mom"):
        claim(tmp_path, {"optimizer.momentum": 0.5})
    after = {path: path.stat() for path in tmp_path.rglob("*")}
    lock = tmp_path / ".lock"
    del before[lock], after[lock]
    assert {p: s.st_mtime_ns for p, s in after.items()} == {
        p: s.st_mtime_ns for p, s in before.items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/model.pt",
        "checkpoints/level_00/ticket/step_000000004/weights",  # its note is lost
        "tickets/level_01/replicate_0.npz",
        "config.json",
    ],
)
def test_nothing_is_removed_that_claiming_a_folder_does_not_leave(
    tmp_path: Path, name: str
) -> None:
    claim(tmp_path, {})
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"model_type": "of another program"}')
    before = (tmp_path / name).read_text()
    with pytest.raises(ValueError, match="another experiment|not the config of a run"):
        claim(tmp_path, {"optimizer.momentum": 0.5})
    assert (tmp_path / name).read_text() == before


@pytest.mark.parametrize("content", ["[]", "null", "3", "{", '"a"'])
def test_foreign_files_are_one_error_or_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    c = claim(tmp_path, {})
    (tmp_path / "environment.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        claim(tmp_path, {})
    assert "earlier sessions are in environment.json.damaged-" in caplog.text
    (aside,) = tmp_path.glob("environment.json.damaged-*")
    assert aside.read_text() == content
    assert environment.starts_from(tmp_path) == {}
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: .*restore"):
        workdir.check_same(tmp_path, c)
    with pytest.raises(ValueError, match="expected the directory of a run"):
        factory.read_config(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json: .*restore"):
        claim(tmp_path, {})


def test_changed_data_are_refused_once_a_step_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    claim(folder, {})
    row = {"kind": "train", "stage": "train", "step": 4}
    metrics_log.append(folder / "metrics.jsonl", [row])
    recorded = (folder / data_record.FILE).read_text()
    claim(folder, {})  # the same data
    assert (folder / data_record.FILE).read_text() == recorded
    monkeypatch.setattr(digits, "read", blackened)
    words = r"data: expected the examples .*train: images differ among examples \d+ to"
    with pytest.raises(ValueError, match=words):
        claim(folder, {})
    assert (folder / data_record.FILE).read_text() == recorded
    # Nor can its weights be read for what was trained on other examples.
    with pytest.raises(ValueError, match="expected the examples .*train:"):
        factory.open_run(folder)
    # An older run did not record its data, and does so when it is continued.
    (folder / data_record.FILE).unlink()
    claim(folder, {})
    assert json.loads((folder / data_record.FILE).read_text())["classes"] == 10


REFUSED = [
    ({"sparse.dense": ("hed/kernel",)}, "sparse"),
    ({"sparse.layer_sparsity": (("hed/kernel", 0.5),)}, "sparse"),
    ({"sparse.dense": ("dense1*",), "sparse.pai_score": "magnitude"}, "keeps"),
    ({"sparse.pai_score": "snip", "sparse.score_batches": 100}, "score_batches"),
    ({"sparse.structure": "groups 7"}, "sparse"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_chooses_masks_is_refused_before_a_folder_is_claimed(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    static = {"sparse.method": "static", "sparse.sparsity": 0.9}
    c = tiny.config(SHORT | static | fields)
    factory.check_names(c)
    with pytest.raises(ValueError, match=words):
        factory.make_experiment(c, factory.load_data(c), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_test_examples_are_refused_before_a_folder_is_claimed(
    tmp_path: Path,
) -> None:
    c = tiny.config(SHORT)
    dataset = factory.load_data(c)
    empty = type(dataset.test)(*(array[:0] for array in dataset.test))
    with pytest.raises(
        ValueError, match="expected a dataset with test examples, got 'digits'"
    ):
        factory.make_experiment(c, dataset._replace(test=empty), tmp_path)


def spoiled(made: Any) -> Any:
    """Lets the first replicate begin with a NaN."""
    initialize = made.task.initialize

    def spoil(keys: Any) -> Any:
        params, stats = initialize(keys)
        name = next(iter(params))
        kernel = params[name]["kernel"].at[0, 0, 0].set(np.nan)
        return {**params, name: {**params[name], "kernel": kernel}}, stats

    return made._replace(task=made.task._replace(initialize=spoil))


def test_a_broken_replicate_lets_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"run.on_nonfinite": "continue", "lottery.levels": 1}
    c = tiny.config(fields)
    loop = factory.make_experiment(c, factory.load_data(c), tmp_path).trainer.loop
    assert loop.continue_on_nonfinite
    whole = tiny.experiment(tmp_path, {"lottery.levels": 1})
    whole = tiny.with_loop(whole, continue_on_nonfinite=True)
    made = spoiled(whole)
    with workdir.opened(tmp_path / "run", c, command="", execution_plan={}):
        run_lib.run(made, tiny.desk(tmp_path / "run"))
    run_lib.run(whole, tiny.desk(tmp_path / "whole"))
    rows, sound = (
        metrics_log.read(tmp_path / name / "metrics.jsonl") for name in ("run", "whole")
    )
    failed = [row for row in rows if row["kind"] == "failed"]
    assert [(row["stage"], row["replicate"]) for row in failed] == [
        ("level_00/ticket", 0)
    ]
    levels = [row for row in rows if row["kind"] == "level"]
    assert [row.get("failed", False) for row in levels] == [True, False] * 2
    # To the others nothing has happened, to the bit.
    for found, wanted in ((rows, sound), (sound, rows)):
        others = [
            row
            for row in found
            if row.get("replicate") == 1 and row["kind"] != "timing"
        ]
        assert others and all(row in wanted for row in others)
    assert caplog.text.count("the others go on, and reports leave these out") == 1

    from jaxsparse.reports import records as report_records
    from jaxsparse.reports import tables

    (run,) = report_records.read_runs([tmp_path / "run"])
    assert set(tables.levels_table([run])["n"]) == {1}
    assert run.failed[0] == "replicate 0 in level_00/ticket, by update 0"


@pytest.mark.parametrize(
    ("broken", "one_shot", "failed"),
    [
        # Of the controls, only dense training that continues depends on its own.
        ("level_03/reinitialized", False, {"level_03/reinitialized"}),
        (
            "level_03/dense_continued",
            False,
            {"level_03/dense_continued", "level_04/dense_continued"},
        ),
        (
            "level_03/ticket",
            False,
            {"level_03/ticket", "level_04/ticket", "level_04/reinitialized"},
        ),
        # All masks are chosen by level 0.
        ("level_03/ticket", True, {"level_03/ticket"}),
    ],
)
def test_what_depends_on_a_broken_stage_has_failed(
    tmp_path: Path, broken: str, one_shot: bool, failed: set[str]
) -> None:
    controls = ("reinitialized", "dense_continued")
    plan = LotteryPlan(RewindPlan(0, 12), levels=4, controls=controls)
    plan = plan._replace(one_shot=one_shot)
    stages = {stage.name: stage for stage in plan_lib.stages(plan)}
    one = stages[broken]
    row = {"kind": "failed", "stage": one.name, "step": 2, "replicate": 1}
    row |= {"level": one.level, "variant": one.variant}
    metrics_log.append(tmp_path / "metrics.jsonl", [row])
    found = {
        name: records.failed_replicates(tiny.desk(tmp_path), plan, stage)
        for name, stage in stages.items()
    }
    assert found == {name: [1] if name in failed else [] for name in stages}


def test_all_stages_depend_on_the_pretraining(tmp_path: Path) -> None:
    plan = LotteryPlan(RewindPlan(5, 12), levels=1, controls=("random_mask",))
    row = {"kind": "failed", "stage": "pretraining", "step": 2, "replicate": 0}
    row |= {"level": 0, "variant": "pretraining"}
    metrics_log.append(tmp_path / "metrics.jsonl", [row])
    for stage in plan_lib.stages(plan):
        assert records.failed_replicates(tiny.desk(tmp_path), plan, stage) == [0]


def test_any_numbers_of_a_broken_replicate_allow_masks_by_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"model.name": "resnet_8", "model.width": 2, "lottery.levels": 1}
    c = tiny.config(fields | {"lottery.score": "synflow"})
    made = factory.make_experiment(c, factory.load_data(c), tmp_path)
    row = {"kind": "failed", "stage": "level_00/ticket", "step": 2, "replicate": 0}
    row |= {"level": 0, "variant": "ticket"}
    metrics_log.append(tmp_path / "metrics.jsonl", [row])

    def masks_of(**first: float) -> Any:
        """Those of level 1, where these are in parts of the first replicate."""
        saved = SavedStates(made, tiny.desk(tmp_path), writes=False)
        spoiled = {
            part: jax.tree.map(
                lambda leaf, number=number: leaf.at[0].set(number),
                getattr(saved.init, part),
            )
            for part, number in first.items()
        }
        end = saved.init._replace(**spoiled)
        monkeypatch.setattr(SavedStates, "end_of", lambda self, stage: end)
        return level_masks(saved, 1)

    initial = masks_of()  # of both replicates
    tiny.check_equal(masks_of(batch_stats=0.5), initial)
    tiny.check_equal(masks_of(batch_stats=np.nan), initial)
    tiny.check_equal(masks_of(params=np.nan), initial)
    tiny.check_equal(masks_of(params=1e38), initial)  # whose flow would overflow
