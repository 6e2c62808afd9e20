"""Type checkers understand the package: a correct script passes, a wrong one fails."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
import jax
import jax.numpy as jnp
import optax

import jaxsparse
from jaxsparse import masks, prune, transforms

params = {"kernel": jax.random.normal(jax.random.key(0), (8, 4)), "bias": jnp.zeros(4)}
tx = transforms.rigl(optax.adamw(1e-3), sparsity=0.75, end_step=1000)
opt_state = tx.init(params)
updates, opt_state = tx.update(params, opt_state, params)
params = optax.apply_updates(params, updates)
active: int = masks.num_active(transforms.get_masks(opt_state))
ticket = prune.prune(params, 0.75)
fixed = jaxsparse.transforms.fixed(optax.sgd(0.1), masks=ticket)
"""
# Mistakes in place of parts of the script, and what the error of each contains.
WRONG = {
    "sparsity=0.75": ("sparsty=0.75", 'No parameter named "sparsty"'),
    "active: int": ("active: str", 'declared type "str"'),
    "masks=ticket": ("mask=ticket", 'No parameter named "mask"'),
}


def errors(scripts: dict[str, str], root: Path, folder: Path) -> dict[str, list[str]]:
    """The errors that one run of pyright finds in scripts, by name."""
    for name, script in scripts.items():
        (folder / f"{name}.py").write_text(script)
    settings = {"extraPaths": [str(root)], "include": [f"{n}.py" for n in scripts]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath"]
    run = subprocess.run(
        [*command, sys.executable, "--project", str(folder)],
        capture_output=True,
        text=True,
    )
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == len(scripts)
    found: dict[str, list[str]] = {name: [] for name in scripts}
    for each in report["generalDiagnostics"]:
        if each["severity"] == "error":
            found[Path(each["file"]).stem].append(each["message"])
    return found


@pytest.mark.skipif(
    importlib.util.find_spec("pyright") is None, reason="pyright comes with [docs]"
)
def test_a_script_of_a_user(root: Path, tmp_path: Path) -> None:
    wrong = SCRIPT
    for right, (mistake, _) in WRONG.items():
        assert right in wrong
        wrong = wrong.replace(right, mistake)
    found = errors({"script": SCRIPT, "wrong": wrong}, root, tmp_path)
    assert found["script"] == []
    words = "\n".join(found["wrong"])
    assert [error for _, error in WRONG.values() if error not in words] == []


def test_the_script_runs() -> None:
    scope: dict[str, object] = {}
    exec(SCRIPT, scope)
    assert scope["active"] == 8
