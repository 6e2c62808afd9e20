"""The README does what it says: its code runs, its commands exist."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pages
import pytest
from flax import nnx

import jaxsparse
from configs import lth_digits
from jaxsparse import config, factory, masks, transforms


def blocks(root: Path, language: str) -> list[str]:
    return pages.blocks(root / "README.md", language)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Takes what the README registers out again."""
    yield
    for registry in (config.SCORES, config.METHODS, config.MODELS, config.DATASETS):
        for spec in registry.own():
            registry.remove(spec.name)


@pytest.fixture
def scope(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for code in blocks(root, "python"):
        if "wandb" not in code:
            exec(code, found)
    yield found


def test_set_up_commands(root: Path):
    commands = [line for block in blocks(root, "bash") for line in block.splitlines()]
    set_up = [line for line in commands if line.startswith("pip")]
    assert set_up == [
        "pip install -e . && "
        "python experiments/train.py --config=configs/lth_digits.py",
        "pip install -e '.[test]' && pytest",
    ]
    for name in re.findall(r"(?:configs|experiments)/\w+\.py", "\n".join(commands)):
        assert (root / name).exists(), name


def test_linen_loop_keeps_exact_zeros_and_counts(root: Path):
    found: dict[str, Any] = {}
    exec(blocks(root, "python")[0], found)
    held = transforms.get_masks(found["opt_state"])
    assert masks.num_active(held) == 125
    for name, layer in found["params"]["params"].items():
        kernel, mask = layer["kernel"], held["params"][name]["kernel"]
        assert not kernel[~mask].any()
    assert masks.num_active(transforms.ever_active(found["opt_state"])) > 125


def test_nnx_loop_prunes_to_its_sparsity(root: Path):
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root, "python")[:2]), found)
    assert masks.num_active(found["kept"]) == 250
    trained = nnx.state(found["network"], nnx.Param)
    for weights in (trained, found["weights"]):
        zeros = [int((leaf == 0).sum()) for leaf in jax.tree.leaves(weights)]
        assert sum(zeros) == 1000


def test_layouts(root: Path):
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root, "python")[:3]), found)
    # 48 of 96 weights in proportion to 8 (3 + 3 + 1 + 1) and 6 + 4: 41.5 and 6.5.
    kept = [layer.num_active for layer in masks.layer_counts(found["ticket"]).values()]
    assert kept == [42, 6]


def test_masks_at_initialization(root: Path):
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root, "python")[:4]), found)
    assert (
        masks.num_active(found["ticket"]) == masks.num_active(found["thinned"]) == 125
    )
    assert found["tx"].init(found["params"]).masks["params"]


def test_score(root: Path):
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root, "python")[:5]), found)
    assert jnp.flatnonzero(found["ticket"]["w"]).tolist() == [0, 1, 2]


def test_method(scope: dict[str, Any]):
    params = {"w": jax.random.normal(jax.random.key(0), (8, 4))}
    tx = scope["halve_every"](optax.sgd(0.1), n=3)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    state, kept = tx.init(params), []
    for _ in range(10):
        params, state = step(params, state)
        kept.append(masks.num_active(transforms.get_masks(state)))
        assert int((params["w"] != 0).sum()) == kept[-1]
    assert kept == [32, 32, 32, 16, 16, 16, 8, 8, 8, 4]


def test_records_are_sent_elsewhere(root: Path, monkeypatch: pytest.MonkeyPatch):
    sent: dict[str, float] = {}
    wandb = types.SimpleNamespace(log=sent.update, init=lambda project: None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    row = {"stage": "level_01/ticket", "replicate": 2, "test_accuracy": 0.5, "step": 3}

    def run(c: Any, folder: str, *, metric_writers: Any) -> None:
        assert c.name == "lth_digits"
        for send in metric_writers:
            send([row | {"kind": "level"}, row | {"kind": "time"}])

    monkeypatch.setattr(jaxsparse, "run", run, raising=False)
    (code,) = [code for code in blocks(root, "python") if "wandb" in code]
    exec(code, {})
    assert sent == {"level_01/ticket/replicate_2/level/test_accuracy": 0.5}


def test_network_and_dataset(scope: dict[str, Any], tmp_path: Path):
    c = lth_digits.get_config("quick")
    c.model.name, c.data.name, c.data.validation = "tiny", "noise", 20
    config.validate(c)
    factory.check_names(c)
    made = factory.make_experiment(c, factory.load_data(c), tmp_path)
    assert masks.size(made.task.masks) == 16 * 3
    assert made.trainer.epoch.steps == 3
