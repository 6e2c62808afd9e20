"""The examples of the extension guide, jaxsparse/README.md, work as they say."""

import dataclasses
import os
import runpy
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pages
import pytest
from helpers.campaigns import some

import jaxsparse
from experiments.studies import driver
from experiments.studies.runs import read
from jaxsparse import config, factory, masks, metrics_log, runs, transforms
from jaxsparse.training import state

REGISTRIES = config.REGISTRIES


def unregister() -> None:
    for registry in REGISTRIES:
        for spec in registry.own():
            registry.remove(spec.name)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    yield
    unregister()


def example(root: Path, mark: str) -> str:
    """The one example of the guide that contains a text."""
    page = root / "jaxsparse" / "README.md"
    (code,) = [code for code in pages.blocks(page, "python") if mark in code]
    return code


def run_example(root: Path, mark: str) -> dict[str, Any]:
    """The names that an example, which needs no other, defines."""
    scope: dict[str, Any] = {}
    exec(example(root, mark), scope)
    return scope


def test_the_score_keeps_the_weights_nearest_to_one(root: Path) -> None:
    ticket = run_example(root, "register_score")["ticket"]
    assert np.flatnonzero(ticket["kernel"]).tolist() == [0, 1, 2]


def train(tx: Any, steps: int) -> Iterator[tuple[Any, Any]]:
    """Yields masks and parameters of an 8 × 4 layer, before and after each step."""
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 4))}
    held = jax.jit(tx.init)(params)
    params = masks.apply(transforms.get_masks(held), params)

    @jax.jit
    def step(params: Any, held: Any) -> Any:
        # The gradient is largest where weights are large, and never zero.
        grads = jax.tree.map(lambda w: w + 0.1, params)
        updates, held = tx.update(grads, held, params)
        return optax.apply_updates(params, updates), held

    for _ in range(steps + 1):
        yield jax.tree.map(
            np.asarray, (transforms.get_masks(held)["kernel"], params["kernel"])
        )
        params, held = step(params, held)


def test_the_text_is_read_from_its_file(root: Path, tmp_path: Path) -> None:
    run_example(root, '"novel"')
    (tmp_path / "novel.txt").write_text("It was a dark and stormy night. " * 10)
    c = config.default()
    c.data.name, c.data.dir, c.data.context = "novel", str(tmp_path), 15
    c.model.name = "decoder"
    factory.check_names(c)
    first = factory.load_data(c).train.images[0]
    assert bytes(first.reshape(-1)) == b"It was a dark an"


def test_the_reparameterization_keeps_signs(root: Path) -> None:
    kernel = run_example(root, "register_reparameterization")["params"]["kernel"]
    start = np.array([[0.5, -0.5], [2.0, -2.0]])
    np.testing.assert_array_equal(np.sign(kernel), np.sign(start))
    assert (np.abs(kernel) < np.abs(start)).tolist() == [[True, False], [True, True]]
    c = config.default()
    c.sparse.reparameterization = "fixed_signs"
    config.validate(c)
    factory.check_names(c)


def test_the_projection_keeps_one_input_of_each_neuron(root: Path) -> None:
    tx = run_example(root, '"one_input"')["one_input"](optax.adam(0.1))
    for step, (mask, weights) in enumerate(train(tx, 3)):
        assert (mask.sum(axis=0) == (1 if step else 8)).all()
        np.testing.assert_array_equal(mask, weights != 0)


def test_the_pruning_method_halves_the_weights(root: Path) -> None:
    halve_every = run_example(root, '"halve_every"')["halve_every"]
    counts = []
    for mask, kernel in train(halve_every(optax.sgd(0.1), update_every=3), steps=10):
        assert not np.any(kernel[~mask])
        counts.append(int(mask.sum()))
    assert counts == [32, 32, 32, 32, 16, 16, 16, 8, 8, 8, 4]


def test_the_regrowth_method_keeps_the_count_and_replaces_a_fifth(root: Path) -> None:
    regrow = run_example(root, '"regrow"')["regrow"]
    tx = regrow(optax.sgd(0.1, momentum=0.9), sparsity=0.5, update_every=2)
    found = list(train(tx, steps=6))
    changed = []
    for (before, _), (after, kernel) in zip(found, found[1:], strict=False):
        assert after.sum() == 16 and not np.any(kernel[~after])
        changed.append(int((before & ~after).sum()))
    assert changed == [0, 0, 3, 0, 3, 0]


def test_records_reach_the_metric_writer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, float] = {}
    wandb = types.SimpleNamespace(log=logged.update, init=lambda project: None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    row = {"stage": "level_01/ticket", "replicate": 2, "test_accuracy": 0.5, "step": 3}

    def run(c: Any, folder: str, *, metric_writers: Any) -> None:
        assert c.name == "lth_digits"
        for write in metric_writers:
            write([row | {"kind": "level"}, row | {"kind": "timing"}])

    monkeypatch.setattr(jaxsparse, "run", run, raising=False)
    run_example(root, "import wandb")
    assert logged == {"level_01/ticket/replicate_2/level/test_accuracy": 0.5}


def test_the_study_trains_measures_and_reports(root: Path, tmp_path: Path) -> None:
    study = run_example(root, "STUDY = ")["STUDY"]
    assert [run.name for run in study.all_runs("cpu")] == ["digits_set", "digits_rigl"]
    for run in study.all_runs("cpu"):
        config.validate(read(run))
    brief = {"training.duration": "4step", "evaluation.every": "4step"}
    brief |= {"sparse.update_every": "2step", "run.tensorboard": False}
    (_, run) = [
        r._replace(overrides=r.overrides | brief) for r in study.all_runs("quick")
    ]
    study = dataclasses.replace(study, runs=lambda setting, scale: [run])
    places = driver.Places(tmp_path, tmp_path / "records", "")
    assert driver.run_all([driver.Task(study, run, [run], places)]) == []
    study.report("quick", tmp_path / "records", tmp_path / "report")
    text = (tmp_path / "report" / "digits.md").read_text(encoding="utf-8")
    assert "| rigl | 0." in text


USES = """

def get_config(preset=""):
    from tests.helpers import tiny

    own = {"static": {"sparse.pai_score": "nearest"}, "lottery": {"lottery.levels": 1}}
    fields = {
        "data.name": "noise",
        "data.train_examples": 0,
        "model.name": "tiny",
        "model.hidden": 4,
        "lottery.levels": 0,
        "lottery.score": "nearest",
        "sparse.method": "none" if preset == "lottery" else preset,
        "sparse.update_every": "100step" if preset == "static" else "4step",
    }
    return tiny.config(fields | own.get(preset, {}))
"""
# Of 16 × 4 + 4 × 3 weights; each layer on its own for the two methods.
KEPT = {
    "static": {(0, 8)},  # a tenth of 76
    "halve_every": {(0, 8 + 1)},  # halved after 4, 8 and 12 of 16 steps
    "regrow": {(0, 6 + 1)},
    "lottery": {(0, 76), (1, 61)},
}


@pytest.fixture
def config_file(root: Path, tmp_path: Path) -> Path:
    """A config file with the score, the methods, the network and the dataset."""
    codes = pages.blocks(root / "jaxsparse" / "README.md", "python")
    codes = [code for code in codes if "jaxsparse.register_" in code]
    path = tmp_path / "my.py"
    path.write_text("\n".join(codes) + USES)
    return path


def test_a_score_chooses_the_masks_of_a_network_of_ones_own(config_file: Path) -> None:
    c = runpy.run_path(str(config_file))["get_config"]("static")
    config.validate(c)
    factory.check_names(c)
    length = factory.make_durations(c, steps_per_epoch=8)
    task = factory.make_network(c, factory.load_data(c), length)
    seeds = state.make_seeds(init=0, data=0, masks=0, replicates=2)
    params, stats = task.initialize(seeds.init)
    assert task.first_masks is not None
    held = task.first_masks(params, stats, seeds)
    assert sorted(held) == ["dense", "head"]
    for r in range(2):
        distances, kept = (
            np.concatenate([np.ravel(tree[layer]["kernel"][r]) for layer in held])
            for tree in (jax.tree.map(lambda leaf: abs(leaf - 1), params), held)
        )
        assert kept.sum() == 8  # the tenth of 76
        assert distances[kept].max() <= distances[~kept].min()


# A method; test_tutorials.py trains a lottery by a score and a method that prunes.
@pytest.mark.parametrize("preset", some(KEPT, always=("regrow",)))
def test_entries_of_one_config_file_train(
    preset: str, config_file: Path, tmp_path: Path
) -> None:
    c = runpy.run_path(str(config_file))["get_config"](preset)
    runs.train(c, tmp_path / "run")
    unregister()
    check_run(tmp_path / "run", preset)


@pytest.mark.campaign
def test_entries_of_a_config_file_train_by_the_script(
    config_file: Path, root: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "experiments/train.py", "--noreport"),
            *(f"--config={config_file}:static", f"--workdir={tmp_path / 'run'}"),
            "--config.model.hidden=4",
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check_run(tmp_path / "run", "static")


def check_run(folder: Path, preset: str) -> None:
    """Opens a run in a process in which nothing is registered."""
    rows = metrics_log.read(folder / "metrics.jsonl")
    kept = {(r["level"], r["kept"]) for r in rows if r["kind"] == "level"}
    assert kept == KEPT[preset]
    with pytest.raises(ValueError, match="expected a registered"):
        jaxsparse.load(folder, execute=False).masks()
    run = jaxsparse.load(folder)
    ticket, params = run.masks(), run.params()
    assert sorted(params) == ["dense", "head"]
    for layer in params:
        assert not np.any(params[layer]["kernel"][~ticket[layer]["kernel"]])
    assert run.model().classes == 3
    environment = metrics_log.read_object(folder / "environment.json")
    assert environment["registered"]["score"]["nearest"]["label"] == "nearest to one"
