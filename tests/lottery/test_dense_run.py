"""Level 0 that is taken from an earlier run, and what later levels make of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest
from helpers import tiny

import jaxsparse
from jaxsparse import config as config_lib
from jaxsparse import factory, masks, metrics_log
from jaxsparse.factory import dense_run
from jaxsparse.lottery import imp, tickets
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.stages import Stage
from jaxsparse.training import checkpoints, environment, train, workdir
from jaxsparse.training import state as state_lib
from jaxsparse.training.stage_run import StageRun

KEPT = "kept/level_00/ticket/step_000000004"
FIELDS = {
    "lottery.levels": 1,
    "lottery.controls": ("reinitialized", "shuffled_layers"),
    "lottery.dense_run": "../dense",
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of dense training, which saved its state at step 4."""
    folder = tmp_path_factory.mktemp("study")
    fields = {"lottery.levels": 0, "analysis.save_at": ("4step",)}
    made = tiny.with_loop(tiny.experiment(folder, fields), save_at_steps=(4,))
    c = tiny.config(fields)
    with workdir.opened(
        folder / "dense",
        c,
        command="",
        execution_plan=made.trainer.execution_plan,
        dataset=factory.load_data(c),
    ):
        run_lib.run(made, tiny.desk(folder / "dense"))
    return folder


def find(folder: Path, fields: dict[str, Any]) -> Experiment:
    """Builds a run that takes its level 0, with a compiled trainer of other tests."""
    c = tiny.config(FIELDS | fields)
    config_lib.validate(c)
    factory.check_names(c)
    lottery = {k: v for k, v in (FIELDS | fields).items() if k.startswith("lottery.")}
    made = tiny.experiment(folder, lottery)
    length = factory.make_durations(c, steps_per_epoch=made.trainer.epoch.steps)
    data = factory.load_data(c)
    found = dense_run.find(c, data, folder, made.plan, length)
    return made._replace(dense_run=found)


@pytest.fixture(scope="module")
def rewound(studies: Path) -> Path:
    """A run that rewinds to step 4 of the dense run."""
    folder, fields = studies / "rewound", {"lottery.rewind": "4step"}
    run_lib.run(find(folder, fields), tiny.desk(folder))
    (folder / "config.json").write_text(tiny.config(FIELDS | fields).to_json())
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    rows = metrics_log.read(folder / "metrics.jsonl")
    return [row for row in rows if row["kind"] != "timing"]


def hashes(folder: Path, made: Experiment) -> dict[str, str | None]:
    names = ["init", *(f"{stage.name}/last" for stage in tiny.stages(made))]
    return {
        name: checkpoints.recorded_hash(folder / "checkpoints", name) for name in names
    }


def check_alike(folder: Path, other: Path, made: Experiment) -> None:
    """Records but times, checkpoints and tickets of two runs are the same."""
    assert records(folder) == records(other)
    found = hashes(folder, made)
    assert None not in found.values() and found == hashes(other, made)
    for r in range(2):
        both = [tickets.path_of(each / "tickets", 1, r) for each in (folder, other)]
        assert both[0].read_bytes() == both[1].read_bytes()


def test_rewound_to_the_start_it_is_the_run_that_trains_its_level_0(
    studies: Path,
) -> None:
    folder, whole = studies / "taken", studies / "whole"
    control = {"lottery.controls": ("reinitialized",)}
    run_lib.run(made := find(folder, control), tiny.desk(folder))
    tiny.run(whole, FIELDS | control | {"lottery.dense_run": None})
    assert tiny.stages(made)[0] == Stage("level_00/ticket", 0, "ticket", 0, 12)
    check_alike(folder, whole, made)
    # The time was spent elsewhere.
    times = metrics_log.read(folder / "metrics.jsonl")
    times = [row["stage"] for row in times if row["kind"] == "timing"]
    assert times == [stage.name for stage in tiny.stages(made)[1:]]
    # The run that has ended is not touched.
    before = (folder / "metrics.jsonl").stat().st_mtime_ns
    run_lib.run(made, tiny.desk(folder))
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == before


def test_later_levels_start_from_the_state_at_the_rewinding_step(
    studies: Path, rewound: Path, tmp_path: Path
) -> None:
    made = find(rewound, {"lottery.rewind": "4step"})
    assert [stage.name for stage in tiny.stages(made)][:2] == [
        *("level_00/ticket", "level_01/ticket")
    ]
    # Pruned, rewound and trained by hand.
    end, kept = (
        tiny.load(studies / "dense", f"{name}", made)
        for name in ("train/last", "kept/train/step_000000004")
    )
    dense = jax.tree.map(lambda leaf: leaf[None].repeat(2, 0), made.task.masks)
    keys = made.seeds.masks
    ticket = imp.prune(end.params, dense, level=1, rule=made.plan.rule, keys=keys)
    fresh = state_lib.start(
        made.task.tx, kept.params, kept.batch_stats, ticket, step=4, keys=keys
    )
    final, _ = train.fit(
        made.trainer,
        fresh,
        stage=Stage("by_hand", 1, "ticket", 4, 12),
        keys=made.seeds.data,
        run_dir=tiny.desk(tmp_path),
    )
    found = hashes(rewound, made)
    assert checkpoints.digest(final) == found["level_01/ticket/last"]
    assert checkpoints.digest(end) == found["level_00/ticket/last"]
    start = jaxsparse.load(rewound).start_params(1, None)
    tiny.check_equal(start, masks.apply(ticket, kept.params))
    first = tiny.load(rewound, "init", made)
    tiny.check_equal(jaxsparse.load(rewound).start_params(0, None), first.params)


def test_it_is_the_run_that_trains_the_same_stages(
    rewound: Path, tmp_path: Path
) -> None:
    """The controls as well, if nothing is taken but all stages are trained."""
    fields = FIELDS | {"lottery.rewind": "4step"}
    made = tiny.run(tmp_path, fields)
    assert made.dense_run is None
    check_alike(rewound, tmp_path, made)


def test_what_was_taken_and_is_lost_is_trained(rewound: Path, tmp_path: Path) -> None:
    shutil.copytree(rewound, folder := tmp_path / "run")
    fields = FIELDS | {"lottery.rewind": "4step", "lottery.levels": 2}
    shutil.rmtree(folder / "checkpoints" / KEPT)
    made = tiny.run(folder, fields)  # level 2 starts from the lost state
    found = hashes(folder, made)
    assert found["level_02/ticket/last"] is not None
    assert (
        hashes(rewound, made).items() - {(name, None) for name in found if "02" in name}
        <= found.items()
    )
    assert (folder / "checkpoints" / KEPT).is_dir()


def test_taking_is_repeated_after_a_kill(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = find(studies / "killed", {"lottery.rewind": "4step"})
    level_0 = plan_lib.ticket(made.plan, 0)
    run = StageRun(made.trainer, level_0, tiny.desk(tmp_path))
    copy, copied = checkpoints.copy, []

    def interrupted(*given: Any, **more: Any) -> None:
        copied.append(given[3])
        if len(copied) == 3:
            (tmp_path / "checkpoints" / given[3]).mkdir(parents=True)
            raise KeyboardInterrupt
        copy(*given, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "copy", interrupted)
        run_lib.dense_run.take(made.dense_run, run)
    assert copied == ["init", KEPT, "level_00/ticket/last"]
    assert not checkpoints.exists(tmp_path / "checkpoints", "level_00/ticket/last")
    run_lib.dense_run.take(made.dense_run, run)
    rows = records(tmp_path)
    assert rows == [
        row | {"stage": "level_00/ticket"} for row in records(studies / "dense")
    ]
    note = checkpoints.recorded_extra(tmp_path / "checkpoints", "level_00/ticket/last")
    assert note == {"records": len(rows)}
    tiny.check_equal(
        tiny.load(tmp_path, "level_00/ticket/last", made),
        tiny.load(studies / "dense", "train/last", made),
    )


def test_a_run_knows_what_it_was_taken_from(studies: Path, tmp_path: Path) -> None:
    shutil.copytree(studies / "dense", tmp_path / "dense")
    c, folder = tiny.config(FIELDS), tmp_path / "run"
    made = factory.make_experiment(c, factory.load_data(c), folder)
    assert made.plan.retraining.whole_dense
    assert made.dense_run == (tmp_path / "dense", "train", ())
    plan = made.trainer.execution_plan
    recorded = factory.recorded_hashes(c, folder)
    assert plan["starts_from"] == {"checkpoints": recorded}
    assert set(recorded) == {"init", "train/last"} and None not in recorded.values()
    folder.mkdir()
    environment.write(folder / environment.FILE, "", plan)
    note = tmp_path / "dense" / "checkpoints" / "train" / "last.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"hash": "0"}))
    plan = factory.make_experiment(c, factory.load_data(c), folder)
    with pytest.raises(ValueError, match="--workdir: expected checkpoints .* began"):
        environment.check_start(folder, plan.trainer.execution_plan)
    assert factory.recorded_hashes(c, folder) != recorded


def change_config(folder: Path, fields: dict[str, Any]) -> None:
    c = factory.read_config(folder)
    c.update_from_flattened_dict(fields)
    (folder / "config.json").write_text(c.to_json())


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing": (
        lambda dense: shutil.rmtree(dense),
        {},
        "expected the directory of a run, got none",
    ),
    "not ended": (
        lambda dense: (dense / "checkpoints" / "train" / "last.json").unlink(),
        {},
        "expected a run whose dense training has ended, .*whose training has not",
    ),
    "without its records": (
        lambda dense: (dense / "metrics.jsonl").write_text(""),
        {},
        "expected a run whose dense training has ended, .*records are incomplete",
    ),
    "restarted at a rewinding step": (
        lambda dense: shutil.copy(
            dense / "checkpoints" / "init.json", dense / "checkpoints" / "rewind.json"
        ),
        {},
        r"expected .*without a new optimizer .*lottery\.rewind '0step'; choose",
    ),
    "another schedule": (
        lambda dense: change_config(dense, {"schedule.learning_rate": 0.2}),
        {},
        r"expected a run with schedule\.learning_rate 0\.1, got .* with 0\.2",
    ),
    "fewer replicates": (
        lambda dense: change_config(dense, {"replicates": 1}),
        {},
        "expected a run with replicates 2, got .* with 1",
    ),
    "another step": (
        lambda dense: None,
        {"lottery.rewind": "5step"},
        "expected .*dense to have .*step_000000005, got none; .*'5step' in .*save_at",
    ),
    "deleted weights": (
        lambda dense: shutil.rmtree(dense / "checkpoints" / "train" / "last"),
        {},
        "expected .*dense to have .*train/last, got none; train that run again",
    ),
    "other data": (
        lambda dense: (dense / "data.json").write_text(
            (dense / "data.json").read_text().replace('"classes": 10', '"classes": 9')
        ),
        {},
        "expected the examples that the run was trained on, got others: ",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_another_dense_run_is_refused(
    fault: str, studies: Path, tmp_path: Path
) -> None:
    break_it, fields, message = WRONG[fault]
    shutil.copytree(studies / "dense", tmp_path / "dense")
    break_it(tmp_path / "dense")
    with pytest.raises(ValueError, match=rf"^config\.lottery\.dense_run: .*{message}"):
        find(tmp_path / "run", fields)


def test_fields_of_later_levels_may_differ(studies: Path) -> None:
    fields = {"lottery.fraction": 0.5, "lottery.score": "random", "name": "other"}
    fields |= {"lottery.rewind": "4step", "solution_penalty.strength": 1.0}
    fields |= {"lottery.retrain": "learning_rate_rewind"}
    # The weights at the rewinding step are not needed.
    assert find(studies / "later", fields).dense_run.steps == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lottery.levels": 0, "lottery.controls": ()}, r"lottery\.levels 0"),
        (
            {"lottery.levels": 0, "lottery.controls": (), "instability.copies": 2}
            | {"sparse.method": "static"},
            r"sparse\.method 'static'",
        ),
        (
            {"warm_start.run": "../dense", "warm_start.weights": "init"},
            r"warm_start\.run '../dense'",
        ),
        (
            {"lottery.rewind": "4step", "pretraining.label_noise": 0.5},
            r"another pretraining",
        ),
    ],
)
def test_combinations_are_refused(fields: dict[str, Any], message: str) -> None:
    words = rf"config\.lottery\.dense_run: expected None with {message}.*'\.\./dense'"
    with pytest.raises(ValueError, match=words):
        dense_run.check(tiny.config(FIELDS | fields))
