"""Type checkers understand the package, and the tests check the types of arguments."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import optax
import pytest
from helpers import type_checks
from jaxtyping import Array, Float

from jaxsparse import transforms
from jaxsparse.transforms import update_schedules

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


def test_arrays_of_another_rank_are_refused() -> None:
    schedule = update_schedules.UpdateSchedule(0, 2, 9)
    assert update_schedules.should_update(schedule, jnp.int32(2))
    with pytest.raises(jaxtyping.TypeCheckError):
        update_schedules.should_update(schedule, jnp.ones(2, jnp.int32))


def test_leaves_of_another_type_are_refused() -> None:
    params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    tx = transforms.straight_through(optax.sgd(0.1), sparsity=0.5)
    state = tx.init(params)
    transforms.forward_params(params, state)
    whole = params | {"bias": jnp.ones(4, jnp.int32)}
    with pytest.raises(jaxtyping.TypeCheckError):
        transforms.forward_params(whole, state)
    with pytest.raises(jaxtyping.TypeCheckError):  # a nested function
        tx.init(whole)


def returns(given: str, returned: str) -> Callable[[Array], Array]:
    """Makes a nested function that returns its argument, with these annotations."""

    @jaxtyping.jaxtyped(typechecker=type_checks.check)
    def same(x: Float[Array, given]) -> Float[Array, returned]:
        return x

    return same


def test_nested_functions_are_checked_by_their_own_annotations() -> None:
    vector, matrix = jnp.ones(3), jnp.ones((3, 3))
    for _ in range(2):  # made anew, their checks are not
        assert returns("n", "n")(vector) is vector
        assert returns("n m", "n m")(matrix) is matrix
        for given, returned in (("n m", "n m"), ("n", "n n")):
            with pytest.raises(jaxtyping.TypeCheckError):
                returns(given, returned)(vector)
