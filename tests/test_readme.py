"""The README does what it says: its code runs, its commands and studies exist."""

import re
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import tiny

import jaxsparse
from configs import lth_digits
from experiments import studies
from experiments.sweeping import points
from jaxsparse import masks, transforms


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_it_is_short(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_set_up_commands(root: Path) -> None:
    commands = [
        line for b in blocks(root / "README.md", "bash") for line in b.splitlines()
    ]
    assert commands == [
        "pip install -e '.[experiments]' && "
        "python experiments/train.py --config=configs/lth_digits.py",
        "pip install -e '.[test]' && pytest",
    ]


def test_commands_of_the_papers_exist(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"\| `(\w+\.py) ([^`]*)` \|", text)
    named = set()
    for script, flags in commands:
        assert (root / "experiments" / script).exists()
        given = dict(re.findall(r"--(\w+)=(\S+)", flags))
        if script == "train.py":
            assert points.make([given["config"]], [], [], seeds=1)
        else:
            named.add(given["study"])
            assert given["scale"] in ("cpu", "cifar16", "full")
    assert named == {*studies.NAMES, "NAME"}


def test_results_of_the_papers_exist(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    results = re.findall(r"\]\((experiments/results/[^)]*)\)", text)
    assert results
    assert [path for path in results if not (root / path).exists()] == []


def test_linen_loop_keeps_exact_zeros_and_nnx_loop_prunes(root: Path) -> None:
    linen, nnx_loop = blocks(root / "README.md", "python")[1:]
    found: dict[str, Any] = {}
    exec(linen, found)
    held = transforms.get_masks(found["opt_state"])
    assert masks.num_active(held) == 125
    for name, layer in found["params"]["params"].items():
        kernel, mask = (
            np.asarray(t) for t in (layer["kernel"], held["params"][name]["kernel"])
        )
        assert not kernel[~mask].any()
    assert masks.num_active(transforms.ever_active(found["opt_state"])) > 125
    exec(nnx_loop, found)
    assert masks.num_active(transforms.get_masks(found["optimizer"].opt_state)) == 200
    trained = nnx.state(found["network"], nnx.Param)
    zeros = [int((np.asarray(leaf) == 0).sum()) for leaf in jax.tree.leaves(trained)]
    assert sum(zeros) == 800


def test_the_callback_sees_weights_of_all_replicates(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, Any]] = []
    wandb = types.SimpleNamespace(
        log=logged.append, init=lambda project: None, Histogram=np.array
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.chdir(tmp_path)
    brief = {
        "model.name": "lenet_300_100",
        "lottery.levels": 0,
        "run.steps_per_call": 6,
    }
    monkeypatch.setattr(lth_digits, "get_config", lambda: tiny.config(brief))
    exec(blocks(root / "README.md", "python")[0], {})
    assert [row["step"] for row in logged] == [0, 6, 12]
    assert {row["head"].shape for row in logged} == {(2, 100, 10)}
    run = jaxsparse.load(tmp_path / "runs" / "tickets")
    last = run.params(level=0, replicate=None)["head"]["kernel"]
    np.testing.assert_array_equal(logged[-1]["head"], last)
