"""Studies: their runs are valid, comparable, and started as they say."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest

from experiments.studies import launching, sparse_training
from experiments.studies.runs import Run
from experiments.studies.runs import flags as as_flags
from jaxsparse import build, config, masks, schedules, transforms
from jaxsparse.data.examples import Dataset, Examples

SCALES = sparse_training.SCALES


def read(run: Run, root: Path) -> Any:
    """Makes a run's config, with its overrides as the command line would set them."""
    path, _, variant = run.config.partition(":")
    assert (root / path).exists()
    c = importlib.import_module(f"configs.{Path(path).stem}").get_config(variant)
    for words in as_flags(run.overrides):
        assert words.startswith("--config.")
        assert "\n" not in words
    c.update_from_flattened_dict(run.overrides)
    return c


@pytest.mark.parametrize("scale", SCALES)
def test_runs_are_valid_and_have_names_of_their_own(
    scale: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(root)
    runs = sparse_training.runs(scale)
    assert len({run.name for run in runs}) == len(runs)
    methods = set()
    for run in runs:
        c = read(run, root)
        config.validate(c)
        build.check_names(c)
        methods.add(c.sparse.method)
    assert methods == build.METHODS.keys() - {"one_shot", "sr_ste"}


def total_of(c: Any) -> int:
    one = Examples(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int32))
    dataset = Dataset(one, one, one, 10, (0.0,), (1.0,))
    tx = transforms.fixed(optax.identity())
    network = build.make_network(c, dataset, lambda dense: (tx, lambda inner, key: tx))
    return masks.total(network.masks)


def test_arms_of_a_sparsity_keep_the_same_number_of_weights(
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
            levels = schedules.kept_per_level(
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

    def fake(command: list[str], check: bool) -> Any:
        assert not check
        seen.append(command)
        return subprocess.CompletedProcess(command, 3 - len(seen))

    monkeypatch.setattr(launching.subprocess, "run", fake)
    runs = [
        Run(name, "configs/gmp_mnist.py:quick", {"sparse.sparsity": 0.5})
        for name in "abc"
    ]
    assert launching.run_all(runs, tmp_path, "data") == ["a", "b"]
    assert [command[-1] for command in seen] == [
        f"--workdir={tmp_path / name}" for name in "abc"
    ]
    assert seen[0][0] == sys.executable
    assert "--config.sparse.sparsity=0.5" in seen[0]
    assert f"--config.data.dir={Path('data').resolve()}" in seen[0]


def test_a_study_that_is_interrupted_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(command: list[str], check: bool) -> Any:
        return subprocess.CompletedProcess(command, 130)

    monkeypatch.setattr(launching.subprocess, "run", fake)
    with pytest.raises(SystemExit) as ended:
        launching.run_all([Run("a", "x", {}), Run("b", "x", {})], tmp_path, "")
    assert ended.value.code == 130


def test_choices_are_checked() -> None:
    some = launching.choose(sparse_training, "quick", ["mnist_dense"])
    assert [run.name for run in some] == ["mnist_dense"]
    with pytest.raises(ValueError, match="--scale: 'huge'; wanted one of"):
        launching.choose(sparse_training, "huge", [])
    with pytest.raises(ValueError, match="--only: .*'nothing'.*mnist_dense"):
        launching.choose(sparse_training, "quick", ["nothing"])


def test_tables_and_figures_are_copied(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    for name in ("methods.md", "methods.svg", "exploration.png", "index.html"):
        (report / name).write_text(name)
    launching.copy(report, tmp_path / "results")
    copied = {path.name for path in (tmp_path / "results").iterdir()}
    assert copied == {"methods.md", "exploration.png"}
