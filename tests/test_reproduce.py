"""Studies: their runs are valid, comparable, and started as they say."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.studies import (
    SCALES,
    data_diet,
    gradient_flow,
    launcher,
    sparse_training,
    stable_imp,
    tost,
)
from experiments.studies.runs import Run
from experiments.studies.runs import flags as as_flags
from jaxsparse import config, durations, factory, masks
from jaxsparse.data.dataset import Dataset, Examples

MODULES = (data_diet, gradient_flow, sparse_training, stable_imp, tost)
STUDIES = [module.STUDY for module in MODULES]


def read(run: Run, root: Path) -> Any:
    """Makes a run's config, with its overrides as the command line would set them."""
    assert (root / run.config.partition(":")[0]).exists()
    for words in as_flags(run.overrides):
        assert words.startswith("--config.")
        assert "\n" not in words
    return launcher.read(run)


@pytest.mark.parametrize(
    ("study", "scale"), [(study, scale) for study in STUDIES for scale in SCALES]
)
def test_runs_are_valid_and_have_names_of_their_own(
    study: Any, scale: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    runs = study.runs(scale)
    assert len({run.name for run in runs}) == len(runs)
    for place, run in enumerate(runs):
        c = read(run, root)
        config.validate(c)
        factory.check_names(c)
        # A run that others start from comes before them.
        before = {f"../{earlier.name}" for earlier in runs[:place]}
        assert {c.warm_start.run, c.lottery.dense_run} - {None} <= before


@pytest.mark.parametrize("scale", SCALES)
def test_every_method_is_compared(
    scale: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    methods = {read(run, root).sparse.method for run in sparse_training.runs(scale)}
    assert methods == config.METHODS.keys() - {"one_shot", "sr_ste"}


def total_of(c: Any) -> int:
    one = Examples(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int32))
    dataset = Dataset(one, one, one, 10, (0.0,), (1.0,))
    network = factory.make_network(
        c, dataset, factory.make_durations(c, steps_per_epoch=469)
    )
    return masks.size(network.masks)


def test_methods_of_a_sparsity_keep_the_same_number_of_weights(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    kept: dict[int, set[int]] = {95: set(), 98: set()}
    for run in sparse_training.runs("cpu"):
        c = read(run, root)
        place = run.name.rpartition("_")[2]
        if place == "dense":
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


def test_a_run_that_fails_keeps_no_other_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fake(command: list[str]) -> int:
        seen.append(command)
        return 3 - len(seen)

    monkeypatch.setattr(launcher, "_call", fake)
    runs = [
        Run(name, "configs/gmp_mnist.py:quick", {"sparse.sparsity": 0.5})
        for name in "abc"
    ]
    assert launcher.run_all(runs, tmp_path, "data") == ["a", "b"]
    assert [command[-1] for command in seen] == [
        f"--workdir={tmp_path / name}" for name in "abc"
    ]
    assert seen[0][0] == sys.executable
    assert "--config.sparse.sparsity=0.5" in seen[0]
    assert f"--config.data.dir={Path('data').resolve()}" in seen[0]


def test_a_study_that_is_interrupted_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_call", lambda command: 130)
    with pytest.raises(SystemExit) as ended:
        launcher.run_all([Run("a", "x", {}), Run("b", "x", {})], tmp_path, "")
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_a_signal_lets_the_run_save_and_ends_the_study(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    child = (
        "import os, pathlib, signal, sys, time\n"
        f"said = pathlib.Path({str(said)!r})\n"
        "def save(*_):\n"
        "    time.sleep(0.5)\n"  # longer than a killed child would have
        "    said.write_text('saved')\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"os.kill(os.getppid(), {int(number)})\n"
        "time.sleep(60)\n"
    )
    script = [sys.executable, "-c", child]
    monkeypatch.setattr(launcher, "_script", lambda name, *words: script)
    monkeypatch.setattr(launcher, "has_ended", lambda run, workdir: False)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        launcher.run_all([Run("a", "x", {}), Run("b", "x", {})], tmp_path, "")
    assert ended.value.code == code
    assert said.read_text() == "saved"
    assert signal.getsignal(number) == before


def test_data_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    runs = [Run(name, "configs/gmp_mnist.py:quick", {}) for name in "abc"]
    with pytest.raises(
        ValueError, match="expected the dataset 'mnist', prepared by TFDS, in"
    ):
        launcher.check_data(runs, str(tmp_path))
    launcher.check_data([Run("a", "configs/lth_digits.py", {})], str(tmp_path))
    config.register_dataset("own_data", lambda data_dir: None)
    try:  # where a reader of the user's own looks is for it to know
        own = Run("a", "configs/lth_digits.py", {"data.name": "own_data"})
        launcher.check_data([own], str(tmp_path))
    finally:
        config.DATASETS.remove("own_data")


def test_a_run_that_has_ended_is_not_started_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    run = Run("a", "configs/gmp_mnist.py:quick", {"sparse.sparsity": 0.5})
    folder = tmp_path / "a"
    note = folder / "checkpoints" / "level_00" / "ticket" / "last.json"
    assert not launcher.has_ended(run, folder)
    note.parent.mkdir(parents=True)
    (folder / "config.json").write_text(launcher.read(run).to_json())
    assert not launcher.has_ended(run, folder)
    note.write_text('{"hash": "0", "step": 3, "extra": {}}')
    assert launcher.has_ended(run, folder)
    other = run._replace(overrides={"sparse.sparsity": 0.6})
    assert not launcher.has_ended(other, folder)
    assert launcher.has_ended(
        run._replace(overrides=run.overrides | {"run.devices": 2}), folder
    )


def test_a_run_has_ended_only_while_what_it_began_from_is_there(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    (run,) = (r for r in gradient_flow.STUDY.runs("quick") if r.name == "lenet_scratch")
    arm, pruned = (
        tmp_path / name / "checkpoints" / "level_00" / "ticket" / "last.json"
        for name in ("lenet_scratch", "lenet_prune")
    )
    for note in (arm, pruned):
        note.parent.mkdir(parents=True)
        note.write_text('{"hash": "0", "step": 3, "extra": {}}')
    folder = tmp_path / run.name
    (folder / "config.json").write_text(launcher.read(run).to_json())
    began = {"starts_from": {"checkpoints": {"level_00/ticket/last": "0"}}}
    text = json.dumps({"arrangement": began})
    (folder / "environment.json").write_text(text)
    assert launcher.has_ended(run, folder)
    pruned.write_text('{"hash": "1", "step": 3, "extra": {}}')
    assert not launcher.has_ended(run, folder)


def test_choices_are_checked() -> None:
    some = launcher.choose(sparse_training.STUDY, "quick", ["mnist_dense"])
    assert [run.name for run in some] == ["mnist_dense"]
    with pytest.raises(
        ValueError, match="--only: expected names of .*mnist_dense.*'nothing'"
    ):
        launcher.choose(sparse_training.STUDY, "quick", ["nothing"])


def test_tables_and_figures_are_copied(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    for name in ("methods.md", "methods.svg", "exploration.png", "index.html"):
        (report / name).write_text(name)
    launcher.copy(report, tmp_path / "results", sparse_training.STUDY.results)
    copied = {path.name for path in (tmp_path / "results").iterdir()}
    assert copied == {"methods.md", "exploration.png"}
