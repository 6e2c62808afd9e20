"""The tutorials run, and what they show is what their text says."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsparse import config, masks, metrics_log, runs, transforms

TUTORIALS = Path("experiments") / "tutorials"


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Removes what a tutorial registers."""
    yield
    for registry in (config.SCORES, config.METHODS):
        for spec in registry.own():
            registry.remove(spec.name)


def run(root: Path, name: str) -> dict[str, Any]:
    """Runs a tutorial in the working directory; returns its names."""
    path = root / TUTORIALS / name
    scope: dict[str, Any] = {"__name__": path.stem}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    return scope


def test_all_tutorials_are_tested(root: Path) -> None:
    found = {path.name for path in (root / TUTORIALS).iterdir() if path.suffix == ".py"}
    assert found == {"first_ticket.py", "optax_loop.py", "own_method.py"}
    for name in found:
        text = (root / TUTORIALS / name).read_text(encoding="utf-8")
        assert text.startswith("# %% [markdown]\n# # ")


def test_first_ticket(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    found = run(root, "first_ticket.py")
    assert np.allclose(found["density"], [1, 0.3, 0.09, 0.027], 1e-3)
    accuracy = found["accuracy"]
    last = {
        variant: accuracy[f"level_03/{variant}"]
        for variant in ("ticket", "random_mask")
    }
    assert last["ticket"] > last["random_mask"] + 0.05
    assert (tmp_path / "runs" / "first_ticket" / "accuracy.png").exists()
    trained = found["trained"]
    row = trained[(trained.stage == "level_03/ticket") & (trained.replicate == 0)]
    assert np.isclose(found["correct"].mean(), row.test_accuracy.item())


def test_optax_loop(root: Path) -> None:
    found = run(root, "optax_loop.py")
    # 7,400 weights of the linen network, 3,700 of the nnx network.
    assert masks.num_active(found["active"]) == 740
    assert masks.num_active(transforms.ever_active(found["opt_state"])) > 740
    for trained, kept in (("params", "active"), ("pruned", "snip_masks")):
        params = found[trained]["params"]
        for name, layer in params.items():
            assert not layer["kernel"][~found[kept]["params"][name]["kernel"]].any()
        predicted = found["model"].apply(found[trained], found["test_x"]).argmax(-1)
        assert np.mean(predicted == found["test_labels"]) > 0.85
    for kept in ("snip_masks", "synflow_masks"):
        assert masks.num_active(found[kept]) == 740
    held = transforms.get_masks(found["fixed_state"])
    same = jax.tree.map(jnp.array_equal, held, found["snip_masks"])
    assert all(jax.tree.leaves(same))
    assert masks.num_active(found["nnx_masks"]) == 740
    trained = nnx.state(found["network"], nnx.Param)
    for weights, kept in ((found["nnx_weights"], 740), (trained, 370)):
        zeros = [int((leaf == 0).sum()) for leaf in jax.tree.leaves(weights)]
        assert sum(zeros) == 3700 - kept
    # 48 of 96 weights in proportion to 8 (3 + 3 + 1 + 1) and 6 + 4: 41.5 and 6.5.
    counts = [
        count.num_active for count in masks.layer_counts(found["erk_masks"]).values()
    ]
    assert counts == [42, 6]


def test_own_score(root: Path) -> None:
    lamp = run(root, "own_method.py")["lamp"]
    weight = jnp.array([[1.0, -2.0], [3.0, 5.0]])
    mask = jnp.array([[True, True], [True, False]])
    scores = lamp({"w": weight, "b": jnp.ones(2)}, {"w": mask, "b": None})
    expected = np.array([[1 / 14, 4 / 13], [9 / 9, 0]])
    np.testing.assert_allclose(scores["w"], expected, rtol=1e-6)
    assert scores["b"] is None
    zeros = lamp({"w": jnp.zeros((2, 2))}, {"w": mask})
    assert jnp.array_equal(zeros["w"], jnp.zeros((2, 2)))


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("", {(0, 5020)}), ("lottery", {(0, 50200), (1, 25100), (2, 12550)})],
)
def test_own_method_trains(
    preset: str, expected: set[tuple[int, int]], root: Path, tmp_path: Path
) -> None:
    module = runpy.run_path(str(root / TUTORIALS / "own_method.py"))
    c = module["get_config"](preset)
    if preset == "lottery":
        c.training.duration = "4ep"  # fewer than the tutorial's, enough to learn
    runs.train(c, tmp_path / "run")
    check_levels(tmp_path / "run", expected)


@pytest.mark.campaign
def test_own_method_trains_by_the_script(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "experiments/train.py", "--noreport"),
            f"--config={TUTORIALS / 'own_method.py'}",
            f"--workdir={tmp_path}",
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    check_levels(tmp_path, {(0, 5020)})


def check_levels(folder: Path, expected: set[tuple[int, int]]) -> None:
    """Compares the levels of a run and the weights that each kept; all have learned."""
    rows = metrics_log.read(folder / "metrics.jsonl")
    levels = [row for row in rows if row["kind"] == "level"]
    assert {(row["level"], row["kept"]) for row in levels} == expected
    assert min(row["test_accuracy"] for row in levels) > 0.8


def test_own_method_checks_its_presets(root: Path) -> None:
    get_config = run(root, "own_method.py")["get_config"]
    config.validate(get_config("static"))
    with pytest.raises(ValueError, match="got typo"):
        get_config("typo")
