"""The README does what it says: its code runs, its commands and studies exist."""

import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import jaxsparse
from experiments import studies
from experiments.sweeping import points
from jaxsparse import config, factory, masks, metrics_log, transforms

# The extension guide; a test of its examples is left out where the page is not.
GUIDE = Path("jaxsparse") / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Removes what the examples register."""
    yield
    for registry in (config.SCORES, config.METHODS, config.MODELS, config.DATASETS):
        for spec in registry.own():
            registry.remove(spec.name)


@pytest.fixture
def guide(root: Path) -> list[str]:
    """The examples of the extension guide."""
    if not (root / GUIDE).exists():
        pytest.skip(f"there is no {GUIDE}")
    return blocks(root / GUIDE, "python")


def example(guide: list[str], text: str) -> dict[str, Any]:
    """Runs the one example that contains a text."""
    (code,) = [code for code in guide if text in code]
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope


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
            assert given["scale"] in ("cpu", "full")
    assert named == {*studies.NAMES, "NAME"}


def test_results_of_the_papers_exist(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    results = re.findall(r"\]\((experiments/results/[^)]*)\)", text)
    assert results
    assert [path for path in results if not (root / path).exists()] == []


def test_linen_loop_keeps_exact_zeros_and_counts(root: Path) -> None:
    found: dict[str, Any] = {}
    exec(blocks(root / "README.md", "python")[0], found)
    held = transforms.get_masks(found["opt_state"])
    assert masks.num_active(held) == 125
    for name, layer in found["params"]["params"].items():
        kernel, mask = layer["kernel"], held["params"][name]["kernel"]
        assert not kernel[~mask].any()
    assert masks.num_active(transforms.ever_active(found["opt_state"])) > 125


def test_nnx_loop_prunes_to_its_sparsity(root: Path) -> None:
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root / "README.md", "python")), found)
    assert masks.num_active(found["ticket"]) == 250
    trained = nnx.state(found["network"], nnx.Param)
    zeros = [int((leaf == 0).sum()) for leaf in jax.tree.leaves(trained)]
    assert sum(zeros) == 1000


def test_score(guide: list[str]) -> None:
    (ticket,) = example(guide, "register_score")["ticket"].values()
    assert np.flatnonzero(ticket).tolist() == [0, 1, 2]


def test_method(guide: list[str]) -> None:
    halve_every = example(guide, "def halve_every")["halve_every"]
    params = {"w": jax.random.normal(jax.random.key(0), (8, 4))}
    tx = halve_every(optax.sgd(0.1), update_every=3)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    state, active = tx.init(params), []
    for _ in range(10):
        params, state = step(params, state)
        active.append(masks.num_active(transforms.get_masks(state)))
        assert int((params["w"] != 0).sum()) == active[-1]
    assert active == [32, 32, 32, 16, 16, 16, 8, 8, 8, 4]


def test_records_are_sent_elsewhere(
    guide: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, float] = {}
    wandb = types.SimpleNamespace(log=sent.update, init=lambda project: None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    row = {"stage": "level_01/ticket", "replicate": 2, "test_accuracy": 0.5, "step": 3}

    def run(c: Any, folder: str, *, metric_writers: Any) -> None:
        assert c.name == "lth_digits"
        for send in metric_writers:
            send([row | {"kind": "level"}, row | {"kind": "time"}])

    monkeypatch.setattr(jaxsparse, "run", run, raising=False)
    example(guide, "import wandb")
    assert sent == {"level_01/ticket/replicate_2/level/test_accuracy": 0.5}


USES = """

def get_config(variant=""):
    from tests import tiny

    own = {"static": {"sparse.pai_score": "nearest"}, "lottery": {"lottery.levels": 1}}
    fields = {
        "data.name": "noise",
        "data.train_examples": 0,
        "model.name": "tiny",
        "lottery.levels": 0,
        "lottery.score": "nearest",
        "sparse.method": "none" if variant == "lottery" else variant,
        "sparse.update_every": "4step" if variant == "halve_every" else "100step",
    }
    return tiny.config(fields | own.get(variant, {}))
"""


@pytest.mark.parametrize("variant", ["static", "halve_every", "lottery"])
def test_examples_train_from_one_file(
    variant: str, guide: list[str], root: Path, tmp_path: Path
) -> None:
    """The guide's score, methods, network and dataset, through the training program."""
    codes = [code for code in guide if "jaxsparse.register_" in code]
    (tmp_path / "my.py").write_text("\n".join(codes) + USES)
    done = subprocess.run(
        [
            *(sys.executable, "experiments/train.py", "--noreport"),
            *(
                f"--config={tmp_path / 'my.py'}:{variant}",
                f"--workdir={tmp_path / 'w'}",
            ),
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = metrics_log.read(tmp_path / "w" / "metrics.jsonl")
    kept = {(r["level"], r["kept"]) for r in rows if r["kind"] == "level"}
    # 152 weights: 16 x 8 and 8 x 3.
    expected = {
        "static": {(0, 15)},
        "halve_every": {(0, 19)},  # 16 + 3: halved after 4, 8 and 12 of 16 updates
        "lottery": {(0, 152), (1, 121)},
    }
    assert kept == expected[variant]
    with pytest.raises(ValueError, match="unknown '"):
        jaxsparse.load(tmp_path / "w", execute=False).masks()
    opened = jaxsparse.load(tmp_path / "w")  # nothing is registered in this process
    ticket, params = opened.masks(), opened.params()
    assert sorted(params) == ["dense", "head"]
    assert int(masks.size(opened.masks(0))) == 152
    for layer in params:
        assert not np.any(params[layer]["kernel"][~ticket[layer]["kernel"]])
    assert opened.model().classes == 3
    recorded = metrics_log.read_object(tmp_path / "w" / "environment.json")
    assert recorded["registered"]["score"]["nearest"]["label"] == "nearest to one"
    again = factory.open_run(str(tmp_path / "w"))  # and with its dataset
    assert again.dataset.train.images.shape == (160, 4, 4, 1)
