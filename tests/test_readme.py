"""The README does what it says: its code runs, its commands exist."""

import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxsparse
from configs import lth_digits
from experiments.sweeping import points
from jaxsparse import config, factory, masks, metrics_log, transforms


def blocks(root: Path, language: str) -> list[str]:
    text = (root / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


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


def commands_of(root: Path, script: str) -> list[list[str]]:
    """The arguments of every command of the README that runs a script."""
    lines = "\n".join(blocks(root, "bash")).replace("\\\n", " ").splitlines()
    found = [re.search(rf"experiments/{script} ([^\"|&#]*)", line) for line in lines]
    return [shlex.split(match[1]) for match in found if match]


@pytest.mark.parametrize("script", ["train", "sweep"])
def test_recipes_and_fields_of_commands_are_there(root: Path, script: str) -> None:
    every = commands_of(root, f"{script}.py")
    assert every
    for arguments in every:
        given = [argument.removeprefix("--").partition("=") for argument in arguments]
        named = lambda name: [v for n, _, v in given if n == name]  # noqa: B023, E731
        fields = [
            f"{name.removeprefix('config.')}={value}"
            for name, _, value in given
            if name.startswith("config.")
        ]
        assert points.make(named("config"), named("vary"), fields, seeds=1)


def test_flags_of_commands_are_there(root: Path) -> None:
    for path in (root / "experiments").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        known = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))
        known |= set(re.findall(r"command_line\.(data_dir|seeds|workdir)\(", text))
        for arguments in commands_of(root, path.name):
            flags = [a for a in arguments if a.startswith("--")]
            names = {flag.removeprefix("--").partition("=")[0] for flag in flags}
            assert {name.partition(".")[0] for name in names} <= known, arguments


def test_commands_for_many_hosts_reach_what_they_are_for(
    root: Path, tmp_path: Path
) -> None:
    # Programs that are not here: ssh runs no command, but has bash read it.
    programs = {
        "gcloud": 'case "$*" in *" ssh "*) bash -n -c "${!##--command=}";; esac\n',
        "sbatch": 'SLURM_JOB_ID=7 bash -c "${!#}"\n',
        "srun": "exit 75\n",  # stopped by a notice
        "scontrol": "",
    }
    said = tmp_path / "said"
    for name, does in programs.items():
        (tmp_path / name).write_text(
            f'#!/usr/bin/env bash\nset -e\necho "{name} $*" >> {said}\n{does}'
        )
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    many = [b for b in blocks(root, "bash") if "gcloud" in b or "sbatch" in b]
    for block in many:
        subprocess.run(
            ["bash", "-e", "-c", block], env=os.environ | {"PATH": path}, check=True
        )
    lines = said.read_text().splitlines()
    workers = [re.search(r"--worker=(\w+)", line) for line in lines]
    assert [found[1] for found in workers if found] == ["all", "all", "0", "all", "0"]
    assert lines[-1] == "scontrol requeue 7"
    assert [line.split()[0] for line in lines[-3:-1]] == ["sbatch", "srun"]


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
    kept = [layer.kept for layer in masks.layer_counts(found["ticket"]).values()]
    assert kept == [42, 6]


def test_masks_at_initialisation(root: Path):
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
def test_examples_train_from_one_file(variant: str, root: Path, tmp_path: Path) -> None:
    """The README's score, method, network and dataset, through the training program."""
    codes = [code for code in blocks(root, "python") if "jaxsparse.register_" in code]
    given = "import jax.numpy as jnp\n" + "\n".join(codes) + USES
    (tmp_path / "my.py").write_text(given)
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
    wanted = {
        "static": {(0, 5)},  # a tenth of 48
        "halve_every": {(0, 6)},  # halved after 4, 8 and 12 of 16 updates
        "lottery": {(0, 48), (1, 38)},
    }
    assert kept == wanted[variant]
    with pytest.raises(ValueError, match="unknown '"):
        jaxsparse.load(tmp_path / "w", execute=False).masks()
    opened = jaxsparse.load(tmp_path / "w")  # nothing is registered in this process
    kept = opened.masks()
    params = opened.params()
    assert [*params] == ["head"]
    assert int(masks.size(opened.masks(0))) == 48
    assert not np.any(params["head"]["kernel"][~kept["head"]["kernel"]])
    assert opened.model().classes == 3
    recorded = metrics_log.read_object(tmp_path / "w" / "environment.json")[
        "registered"
    ]
    assert recorded["score"]["nearest"]["label"] == "nearest to one"
    again = factory.open_run(str(tmp_path / "w"))  # and with its dataset
    assert again.dataset.train.images.shape == (160, 4, 4, 1)
