"""The README does what it says: its code runs, its commands exist."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from configs import lth_digits
from jaxsparse import build, config, masks, transforms
from jaxsparse.data import datasets


def blocks(root: Path, language: str) -> list[str]:
    text = (root / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def scope(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    models, readers = dict(build.MODELS), dict(datasets.READERS)
    for code in blocks(root, "python"):
        exec(code, found)
    found["models"], found["readers"] = models, readers
    yield found
    build.MODELS.clear()
    build.MODELS.update(models)
    datasets.READERS.clear()
    datasets.READERS.update(readers)


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
    assert masks.kept(held) == 125
    for name, layer in found["params"]["params"].items():
        kernel, mask = layer["kernel"], held["params"][name]["kernel"]
        assert not kernel[~mask].any()
    assert masks.kept(transforms.ever_active(found["opt_state"])) > 125


def test_nnx_loop_prunes_to_its_sparsity(root: Path):
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root, "python")[:2]), found)
    held = transforms.get_masks(found["opt_state"])
    assert masks.kept(held) == 250
    zeros = [int((leaf == 0).sum()) for leaf in jax.tree.leaves(found["weights"])]
    assert sum(zeros) == 1000


def test_masks_at_initialisation(root: Path):
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root, "python")[:3]), found)
    assert masks.kept(found["ticket"]) == masks.kept(found["thinned"]) == 125
    assert found["tx"].init(found["params"]).masks["params"]


def test_score(root: Path):
    found: dict[str, Any] = {}
    exec("\n".join(blocks(root, "python")[:4]), found)
    assert jnp.flatnonzero(found["ticket"]["w"]).tolist() == [0, 1, 2]


def test_method(scope: dict[str, Any]):
    params = {"w": jax.random.normal(jax.random.key(0), (8, 4))}
    tx = scope["halve_every"](3, optax.sgd(0.1))

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    state, kept = tx.init(params), []
    for _ in range(10):
        params, state = step(params, state)
        kept.append(masks.kept(transforms.get_masks(state)))
        assert int((params["w"] != 0).sum()) == kept[-1]
    assert kept == [32, 32, 32, 16, 16, 16, 8, 8, 8, 4]


def test_network_and_dataset(scope: dict[str, Any], tmp_path: Path):
    c = lth_digits.get_config("quick")
    c.model.name, c.data.name, c.data.validation = "tiny", "noise", 20
    config.validate(c)
    build.check_names(c)
    made = build.make_experiment(c, build.load_data(c), tmp_path)
    assert masks.total(made.network.masks) == 16 * 3
    assert made.trainer.epoch.steps == 3
