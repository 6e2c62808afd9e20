"""The script experiments/one_shot.py, on a run trained for the test."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import commands, tiny

from experiments import one_shot_pruning
from jaxsparse import factory, prune, select

SMALL = {
    "lottery.levels": 0,
    "model.features": (16, 12),
    "run.steps_per_call": 6,
    "data.validation": 50,
}
BY_OUTPUT = prune.LayerOptions(structure=select.fan_in(), distribution="uniform")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> factory.TrainedRun:
    folder = tmp_path_factory.mktemp("runs") / "dense"
    tiny.train(folder, SMALL)
    return factory.open_run(folder)


def measure(run: factory.TrainedRun, *sparsities: float, **options: Any) -> Any:
    state = factory.load_state(run, "train/last")
    options = {"examples": 100, "layers": BY_OUTPUT} | options
    return one_shot_pruning.measure(run, state, sparsities, **options)


def test_without_sparsity_all_methods_test_the_dense_networks(
    run: factory.TrainedRun,
) -> None:
    state = factory.load_state(run, "train/last")
    images, labels = run.dataset.test
    found = measure(run, 0.0)
    assert tuple(found) == one_shot_pruning.METHODS
    mean, std = run.dataset.mean, run.dataset.std
    x = ((np.asarray(images, float) / 255 - mean) / std).reshape(len(images), -1)
    for r in range(2):
        hidden = x
        for name in ("dense1", "dense2", "head"):
            layer = state.params[name]
            hidden = np.maximum(hidden, 0) if name != "dense1" else hidden
            hidden = hidden @ np.asarray(layer["kernel"][r], float) + np.asarray(
                layer["bias"][r]
            )
        hidden = hidden - np.log(np.exp(hidden).sum(axis=1, keepdims=True))
        loss = -hidden[np.arange(len(labels)), labels].mean()
        accuracy = np.mean(hidden.argmax(axis=1) == labels)
        for tested in found.values():
            assert tested.loss[r, 0] == pytest.approx(loss, rel=1e-3)
            assert tested.accuracy[r, 0] == pytest.approx(accuracy)


def test_the_table_has_what_was_measured(root: Path, run: factory.TrainedRun) -> None:
    words = ["experiments/one_shot.py", str(run.folder), "--examples=100"]
    words += ["--methods=magnitude", "--sparsities=0.5,0.8"]
    ((lines, code),) = commands.run_all(root, [words], "jaxsparse")
    assert code == 0, lines
    found = measure(run, 0.5, 0.8, methods=("magnitude",))
    *rows, last = lines[lines.index(next(x for x in lines if "sparsity" in x)) + 1 :]
    assert last == f"n = 2 replicates of {run.folder}"
    wanted = [
        [name, f"{sparsity:g}", f"{100 * tested.accuracy[:, i].mean():.2f}"]
        for name, tested in found.items()
        for i, sparsity in enumerate((0.5, 0.8))
    ]
    assert [row.split()[:3] for row in rows] == wanted
