"""The script experiments/one_shot.py, on a run trained for the test."""

import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import commands, tiny

from experiments import one_shot_pruning
from jaxsparse import factory, masks, prune, select, transforms
from jaxsparse.factory import trained_run

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


def linear(params: Any, x: Any) -> Any:
    return x @ params["kernel"]


def test_methods_are_those_of_their_names() -> None:
    draw = np.random.default_rng(0)
    mixed = draw.normal(size=(40, 8)) @ draw.normal(size=(8, 8))
    x = jnp.asarray(mixed.astype(np.float32))
    params = {"kernel": jnp.asarray(draw.normal(size=(8, 6)).astype(np.float32))}
    call, layers = (linear, params, 0.5, x), {"layers": BY_OUTPUT}
    wanted = {
        "magnitude": masks.apply(prune.prune(params, 0.5, **layers), params),
        "wanda": masks.apply(prune.wanda(*call, **layers), params),
        "obs": prune.obs(*call, **layers).params,
        "alps": prune.alps(*call, **layers).params,
    }
    assert tuple(wanted) == one_shot_pruning.METHODS
    for name, pruned in wanted.items():
        found = one_shot_pruning.prune_once(name, *call, BY_OUTPUT)
        np.testing.assert_array_equal(found["kernel"], pruned["kernel"])
    assert len({np.asarray(one["kernel"]).tobytes() for one in wanted.values()}) == 4


def test_without_sparsity_all_methods_test_the_dense_networks(
    run: factory.TrainedRun,
) -> None:
    state = factory.load_dense(run)
    found = one_shot_pruning.measure(
        *(run, state, (0.0,)), examples=100, layers=BY_OUTPUT
    )
    assert tuple(found) == one_shot_pruning.METHODS
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    ends = [row for row in map(json.loads, lines) if row["kind"] == "level"]
    assert [row["replicate"] for row in ends] == [0, 1]
    for tested in found.values():
        loss, accuracy = (
            [[row[f"test_{name}"]] for row in ends] for name in ("loss", "accuracy")
        )
        np.testing.assert_allclose(tested.loss, loss, rtol=1e-3)
        np.testing.assert_allclose(tested.accuracy, accuracy, rtol=1e-6)


def test_examples_are_evenly_spaced_and_zeros_are_counted() -> None:
    images = np.arange(10)
    assert one_shot_pruning.evenly_spaced(images, 4).tolist() == [0, 2, 5, 7]
    assert one_shot_pruning.evenly_spaced(images, 99).tolist() == images.tolist()
    params = {"kernel": jnp.array([[0.0, 1.0], [2.0, 3.0]]), "bias": jnp.zeros(2)}
    assert one_shot_pruning.sparsity_of(params, masks.is_kernel) == 0.25


def test_a_sparse_network_is_refused(
    run: factory.TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = factory.load_dense(run)
    held = transforms.get_masks(state.opt_state)
    pruned = masks.tree_map(lambda mask: mask.at[:, 0, 0].set(False), held)
    opt_state = transforms.replace_masks(state.opt_state, pruned)
    sparse = state._replace(opt_state=opt_state)
    monkeypatch.setattr(trained_run, "load_state", lambda run, moment: sparse)
    size = masks.size(held)
    message = f"a dense network in train/last of .*, got masks with {size - 6:,} of "
    with pytest.raises(ValueError, match=message):
        factory.load_dense(run)


def test_the_table_has_a_row_for_each_method_and_sparsity(
    root: Path, run: factory.TrainedRun
) -> None:
    words = ["experiments/one_shot.py", str(run.folder), "--examples=100"]
    words += ["--methods=magnitude,wanda", "--sparsities=0.5,0.8"]
    ((lines, code),) = commands.run_all(root, [words], "jaxsparse")
    assert code == 0, lines
    *rows, last = lines[lines.index(next(x for x in lines if "sparsity" in x)) + 1 :]
    assert last == f"n = 2 replicates of {run.folder}"
    numbers = r"\d+\.\d{2} ± \d+\.\d{2} +\d+\.\d{4} ± \d+\.\d{4}"
    names = [(name, s) for name in ("magnitude", "wanda") for s in ("0.5", "0.8")]
    assert len(rows) == len(names)
    for row, (name, sparsity) in zip(rows, names, strict=True):
        assert re.fullmatch(rf"{name} +{re.escape(sparsity)} +{numbers}", row), row
