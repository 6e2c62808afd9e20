"""Studies: their runs are valid and comparable; the driver trains each of them once."""

import dataclasses
import importlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_studies

from experiments import studies
from experiments.studies import driver, methods, records, run_reader
from experiments.studies import report as report_lib
from experiments.studies import runs as runs_lib
from experiments.studies.driver import Task
from experiments.studies.records import Record
from experiments.studies.runs import Run, Scoring, read
from experiments.studies.runs import flags as as_flags
from jaxsparse import config, durations, factory, masks
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.training import preemption

STUDIES = [
    importlib.import_module(f"experiments.studies.{name}").STUDY
    for name in studies.NAMES
]


@pytest.mark.parametrize(
    ("study", "scale"),
    [(study, scale) for study in STUDIES for scale in studies.SCALES],
    ids=lambda value: getattr(value, "name", value),
)
def test_runs_are_valid_and_have_names_of_their_own(study: Any, scale: str) -> None:
    runs = study.all_runs(scale)
    assert len({run.name for run in runs}) == len(runs)
    assert runs or scale != "quick"
    hashes = set()
    for place, run in enumerate(runs):
        for words in as_flags(run.overrides):
            assert words.startswith("--config.")
            assert "\n" not in words
        c = read(run)
        config.validate(c)
        factory.check_names(c)
        assert run.part in (1, 2, 3)
        assert driver.count_networks(run) >= c.replicates
        # A run that others start from comes before them.
        wanted = [c.warm_start.run, c.warm_start.masks_run]
        wanted += [c.lottery.dense_run, c.pretraining.scores]
        needed = runs_lib.needs(run, runs[:place])
        assert len(needed) == sum(map(bool, wanted))
        hashes.add(records.recipe(run, runs, study.version))
    assert len(hashes) == len(runs)


def test_studies_are_found_by_name() -> None:
    for name, study in zip(studies.NAMES, STUDIES, strict=True):
        assert study.name == name
        assert study.description and study.title


@pytest.mark.parametrize("scale", ["quick", "cpu", "full"])
def test_every_method_is_compared(scale: str) -> None:
    runs = methods.STUDY.all_runs(scale)
    compared = {read(run).sparse.method for run in runs}
    others = {"one_shot", "sr_ste", "s_ste", "str", "continuous_sparsification"}
    others |= {"edge_popup", "gem_miner", "weight_sparse", "proximal_l1"}
    others |= {"srigl", "chts", "east", "dynadiag", "neurrev"}
    assert compared == config.METHODS.keys() - others


def total_of(c: Any) -> int:
    one = Examples(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int32))
    dataset = Dataset(one, one, one, 10, (0.0,), (1.0,))
    network = factory.make_network(
        c, dataset, factory.make_durations(c, steps_per_epoch=469)
    )
    return masks.size(network.masks)


def test_methods_of_a_sparsity_keep_the_same_number_of_weights() -> None:
    kept: dict[int, set[int]] = {95: set(), 98: set()}
    for run in methods.STUDY.all_runs("cpu"):
        c = read(run)
        place = run.name.rpartition("_")[2]
        if place == "dense" or "gmp_small" in run.name:
            assert (c.sparse.method, c.lottery.levels) == ("none", 0)
        elif "small_dense" in run.name:
            assert 0.99 < total_of(c) / (266_200 * (1 - int(place) / 100)) < 1.01
        elif c.lottery.levels:
            levels = durations.kept_per_level(
                266_200, fraction=c.lottery.fraction, levels=c.lottery.levels
            )
            kept[int(place)].add(levels[-1])
        else:
            kept[int(place)].add(round(266_200 * (1 - c.sparse.sparsity)))
    assert kept == {95: {13_310}, 98: {5_324}}


def test_levels_of_tickets_end_at_the_sparsity_of_the_other_methods() -> None:
    runs = methods.STUDY.all_runs("cifar16")
    assert {run.part for run in runs if run.name.endswith("_95")} == {1}
    for run in runs:
        c, place = read(run), run.name.rpartition("_")[2]
        if place == "dense" or "gmp_small" in run.name:
            continue
        if c.lottery.levels:
            left = (1 - c.lottery.fraction) ** c.lottery.levels
            assert left == pytest.approx(1 - int(place) / 100)
        elif c.sparse.method != "none":
            assert c.sparse.sparsity == int(place) / 100
        else:
            assert (c.model.name, c.model.width < 8) == ("resnet_8", True)


def of(folder: Path, *runs: Run, name: str = "tost") -> list[Task]:
    """Makes tasks of runs that are not trained."""
    study = dataclasses.replace(
        tiny_studies.as_tiny(STUDIES[0], runs), name=name, measure=lambda *args: {}
    )
    return tiny_studies.tasks(study, folder)


def one(name: str, part: int = 1, **fields: Any) -> Run:
    given = {key.replace("__", "."): value for key, value in fields.items()}
    return Run(name, tiny_studies.RECIPE, given, part=part)


def test_a_run_that_fails_keeps_no_other_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    seen = []

    def complete(task: Task) -> None:
        seen.append(task.run.name)
        if task.run.name != "c":
            raise ValueError("what is wrong")

    monkeypatch.setattr(driver, "complete", complete)
    assert driver.run_all(of(tmp_path, one("a"), one("b"), one("c"))) == ["a", "b"]
    assert seen == ["a", "b", "c"]
    assert "error: a: what is wrong" in capsys.readouterr().err


def test_a_run_that_is_stopped_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "complete", stopped)
    with pytest.raises(preemption.Preempted) as stop:
        driver.run_all(of(tmp_path, one("a"), one("b")))
    assert stop.value.code == 75


def stopped(task: Task) -> None:
    raise preemption.Preempted("level 1", signal.SIGTERM)


def record_of(task: Task) -> Record:
    return Record(records.recipe(task.run, task.others, task.study.version), {})


def test_a_run_is_done_while_its_record_fits(tmp_path: Path) -> None:
    (task,) = of(tmp_path, one("a"))
    path = records.path_of(task.places.records, task.run)
    assert not driver.is_done(task)
    records.save(path, record_of(task))
    assert driver.is_done(task)
    (other,) = of(tmp_path, one("a", lottery__levels=3))
    assert not driver.is_done(other)  # another recipe
    (same,) = of(tmp_path, one("a", run__devices=2))
    assert driver.is_done(same)  # results do not depend on the field
    newer = dataclasses.replace(task.study, version=2)
    assert not driver.is_done(dataclasses.replace(task, study=newer))
    path.write_text(path.read_text()[:-9])
    assert not driver.is_done(task)  # damaged


def test_converted_records_fit_no_recipe_but_have_measurements(root: Path) -> None:
    study = next(one for one in STUDIES if one.name == "gradient_flow")
    kept = root / "experiments" / "results" / study.name / "cpu" / "records"
    runs = study.all_runs("cpu")
    tasks = [Task(study, r, runs, driver.Places(kept, kept, "")) for r in runs]
    converted = {
        path.stem
        for path in kept.glob("*.json")
        if records.load(path).recipe == records.CONVERTED
    }
    assert converted <= {run.name for run in runs}
    assert not [
        t.run.name for t in tasks if driver.is_done(t) and t.run.name in converted
    ]
    assert converted <= records.load_all(kept, runs, study.version).keys()


def test_the_recipe_includes_those_of_runs_it_starts_from(tmp_path: Path) -> None:
    def recipe(levels: int) -> str:
        runs = one("a", lottery__levels=levels), one("b", warm_start__run="../a")
        return record_of(of(tmp_path, *runs)[1]).recipe

    assert recipe(1) != recipe(2)


def test_a_lost_run_is_trained_again_for_those_that_start_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(
        driver.runs_lib, "train", lambda c, folder: trained.append(folder.name)
    )
    monkeypatch.setattr(
        run_reader, "has_ended", lambda run, folder: folder.name in trained
    )
    first, second = of(tmp_path, one("a"), one("b", warm_start__run="../a"))
    records.save(records.path_of(first.places.records, first.run), record_of(first))
    assert driver.is_done(first)
    driver.train(second.run, second.others, second.places)
    assert trained == ["a", "b"]
    driver.train(second.run, second.others, second.places)
    assert trained == ["a", "b"]


def test_scores_are_computed_once_after_their_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, checked = [], []

    def describe(request: Any) -> tuple[Any, ...]:
        return request.run.name, request.score, request.options.batch_size

    def save(request: Any) -> None:
        asked.append(describe(request))
        request.out.parent.mkdir()
        request.out.write_text("scores")

    monkeypatch.setattr(driver.scoring, "save", save)
    monkeypatch.setattr(
        driver.scoring, "check", lambda request: checked.append(describe(request))
    )
    monkeypatch.setattr(run_reader, "has_ended", lambda run, folder: True)
    wanted = Scoring("el2n", "scores/a.npz", {"batch_size": 50})
    task, reads = of(
        tmp_path,
        one("a")._replace(scoring=(wanted,)),
        one("b", pretraining__scores="../scores/a.npz"),
    )
    assert runs_lib.needs(reads.run, reads.others) == [task.run]
    for _ in range(2):
        driver.train(task.run, task.others, task.places)
    assert asked == checked == [("a", "el2n", 50)]


def test_values_that_were_not_finite_are_nan_in_tables() -> None:
    norms = {(0, 0): 1.0, (1, 0): None, (0, 5): 3.0, (1, 5): 4.0}
    rows = [
        {"replicate": r, "step": step, "norm": norm}
        for (r, step), norm in norms.items()
    ]
    steps, values = run_reader.table(rows, "step", lambda row: row["norm"])
    assert steps == [0, 5]
    np.testing.assert_array_equal(values, [[1, 3], [np.nan, 4]])


def test_parts_come_first_and_studies_take_turns(tmp_path: Path) -> None:
    tasks = of(tmp_path, one("a1"), one("a2"), one("a3", part=2), name="a")
    tasks += of(tmp_path, one("b1"), one("b2", part=2), one("b3"), name="b")
    names = [task.run.name for task in driver.in_order(tasks)]
    assert names == ["a1", "b1", "a2", "b3", "a3", "b2"]


def test_networks_are_counted_over_levels_controls_and_copies() -> None:
    run = one(
        "a",
        replicates=3,
        lottery__levels=4,
        lottery__controls=("reinitialized", "random_mask"),
        lottery__control_levels=(2, 4),
        instability__copies=2,
        instability__start_steps=("0step", "2step"),
        instability__levels=(0, 4),
    )
    assert driver.count_networks(run) == 3 * (5 + 2 * 2 + 2 * 2 * 2)


def test_the_time_left_is_estimated_from_the_runs_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 3600.0])
    monkeypatch.setattr(driver.time, "monotonic", lambda: next(now))
    tasks = of(
        tmp_path, one("a"), one("b"), one("c", lottery__levels=5)
    )  # 6, 6 and 12 networks
    pace = driver.Pace(tasks)
    assert pace.describe(tasks[0]) == "[0 of 3 done] tost: a"
    pace.add(tasks[0])
    # What has passed of a run that has not ended, when stopped, does not count.
    words = pace.describe(tasks[1])
    assert words == "[1 of 3 done] tost: b; about 3.0 h for the 2 left"


def test_before_the_first_run_ends_the_pace_is_that_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = of(tmp_path, one("a"), one("b"), one("c", lottery__levels=5))
    first = tasks[0]
    wanted = records.recipe(first.run, first.others, first.study.version)
    path = records.path_of(first.places.records, first.run)
    records.save(path, Record(wanted, {}, networks=6, seconds=1800.0))
    monkeypatch.setattr(driver, "complete", stopped)
    with pytest.raises(preemption.Preempted):
        driver.run_all(tasks)
    # 6 and 12 networks at 12 an hour.
    assert driver.Pace(tasks).left_words() == "; about 1.5 h for the 2 left"


def test_pages_say_how_long_training_took_and_on_what() -> None:
    made = {"jax": "0.10.2", "device": "cpu"}
    old = Record(records.CONVERTED, {})
    first = Record("a", {}, 10, 3600.0, made)
    second = Record("b", {}, 1200, 5400.0, made | {"processor": "A processor"})
    assert records.describe([old]) == ""
    assert records.describe([first, second]) == (
        "Training the 1,210 networks took 2.5 hours, summed over processes and without "
        "what was measured afterward, on a CPU (1 of the runs), A processor (1 of the "
        "runs) (JAX 0.10.2)."
    )
    gpu = second._replace(made_with=second.made_with | {"device": "NVIDIA H200"})
    assert "afterward, on NVIDIA H200 (JAX" in records.describe([gpu])
    assert "the 10 networks of 1 of these runs took 1.0" in records.describe(
        [old, first]
    )


def test_the_time_is_up(capsys: pytest.CaptureFixture) -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with driver.stopping_after(1e-6):
            for _ in range(200):
                if told:
                    break
                time.sleep(0.01)
        assert told == [signal.SIGTERM]
        with driver.stopping_after(None):
            pass
        with driver.stopping_after(1.0):  # and is not any more
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "the time is up" in capsys.readouterr().err


def test_numbers_of_records_are_rounded_and_nan_is_null(tmp_path: Path) -> None:
    path = tmp_path / "records" / "a.json"
    record = Record("hash", {"x": [1 / 3, float("nan"), 2], "y": {1: 0.1}})
    records.save(path, record)
    text = json.loads(path.read_text())
    assert text["measured"] == {"x": [0.3333333, None, 2], "y": {"1": 0.1}}
    kept = records.load(path)
    # Floats also in a list that no array is made of, as a mean and its deviation.
    assert kept.measured["x"][::2] == [0.3333333, 2] and np.isnan(kept.measured["x"][1])
    assert records.load(tmp_path / "nothing.json") is None


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    runs = [Run(name, "configs/gmp_mnist.py:quick", {}) for name in "abc"]
    with pytest.raises(
        ValueError, match="expected the dataset 'mnist', prepared by TFDS, in"
    ):
        driver.check_data(runs, str(tmp_path))
    driver.check_data([one("b")], "")  # digits are part of a package
    config.register_dataset("own_data", lambda data_dir: None)
    try:  # where a reader of the user's own looks is for it to know
        driver.check_data([one("c", data__name="own_data")], str(tmp_path))
    finally:
        config.DATASETS.remove("own_data")


def test_a_run_that_has_ended_is_not_started_again(tmp_path: Path) -> None:
    run = Run("a", "configs/gmp_mnist.py:quick", {"sparse.sparsity": 0.5})
    folder = tmp_path / "a"
    note = folder / "checkpoints" / "level_00" / "ticket" / "last.json"
    assert run_reader.status(run, folder) == "not started"
    note.parent.mkdir(parents=True)
    (folder / "config.json").write_text(read(run).to_json())
    assert run_reader.status(run, folder) == "in progress"
    note.write_text('{"hash": "0", "step": 3, "extra": {}}')
    assert run_reader.has_ended(run, folder)
    other = run._replace(overrides={"sparse.sparsity": 0.6})
    assert run_reader.status(other, folder) == "has other settings"
    same = run._replace(overrides=run.overrides | {"run.devices": 2})
    assert run_reader.has_ended(same, folder)


def test_a_run_has_ended_only_while_what_it_started_from_is_there(
    tmp_path: Path,
) -> None:
    study = importlib.import_module("experiments.studies.gradient_flow").STUDY
    (run,) = (r for r in study.all_runs("quick") if r.name == "lenet_scratch")
    variant, pruned = (
        tmp_path / name / "checkpoints" / "level_00" / "ticket" / "last.json"
        for name in ("lenet_scratch", "lenet_prune")
    )
    for note in (variant, pruned):
        note.parent.mkdir(parents=True)
        note.write_text('{"hash": "0", "step": 3, "extra": {}}')
    folder = tmp_path / run.name
    (folder / "config.json").write_text(read(run).to_json())
    began = {"starts_from": {"checkpoints": {"level_00/ticket/last": "0"}}}
    text = json.dumps({"arrangement": began})
    (folder / "environment.json").write_text(text)
    assert run_reader.has_ended(run, folder)
    pruned.write_text('{"hash": "1", "step": 3, "extra": {}}')
    assert not run_reader.has_ended(run, folder)


def test_pages_replace_those_of_earlier_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = of(tmp_path, one("a"))
    page, kept = tmp_path / "page", tmp_path / "kept"

    def write(self: Any, scale: str, records: Path, folder: Path) -> Path:
        folder.mkdir()
        for name in ("mnist.md", "mnist.svg", "mnist_rounds.png", "index.html"):
            (folder / name).write_text(name)
        return folder / "index.html"

    monkeypatch.setattr(type(task.study), "report", write)
    (kept / "records").mkdir(parents=True)
    (kept / "records" / "a.json").write_text("{}")
    (kept / "mnist_old.png").write_text("old")
    assert task.study.keep_report("cpu", page, kept) == page / "index.html"
    assert {path.name for path in kept.iterdir()} == {
        *("records", "mnist.md", "mnist_rounds.png")
    }
    assert os.listdir(kept / "records") == ["a.json"]


def test_a_page_names_the_runs_that_are_not_measured(tmp_path: Path) -> None:
    tasks = of(tmp_path, one("mnist_a"), one("mnist_b"), one("mnist_c"))
    seen = []

    def section(setting: str, scale: str, measured: Any) -> report_lib.Section:
        seen.append(sorted(measured))
        return report_lib.Section(setting, "A title", lines=["One line."])

    study = dataclasses.replace(tasks[0].study, section=section)
    for count, task in enumerate(tasks[1:], start=1):
        records.save(records.path_of(tmp_path, task.run), record_of(task))
        page = study.report("quick", tmp_path, tmp_path / f"page{count}")
    assert seen == [["b"], ["b", "c"]]
    lines = page.with_name("mnist.md").read_text().split("\n")
    assert lines[2:7:2] == [
        "One line.",
        "Made by `python experiments/reproduce.py --study=tost --scale=quick "
        "--data_dir=DIR`.",
        "Of 3 runs of this setting, 2 are measured. With the others, verdicts may "
        "change, since p-values are corrected over all claims that can be judged. Not "
        "measured: `mnist_a`.",
    ]
    records.save(records.path_of(tmp_path, tasks[0].run), record_of(tasks[0]))
    page = study.report("quick", tmp_path, tmp_path / "page3")
    assert "Not measured" not in page.with_name("mnist.md").read_text()
