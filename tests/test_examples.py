"""The examples of all docstrings run and print what they say."""

import doctest
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import jaxsparse
from jaxsparse import config

FOLDER = Path(jaxsparse.__file__).parent
FILES = [
    path.relative_to(FOLDER.parent)
    for path in sorted(FOLDER.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
# Packages that examples need and that the extra `test` does not install.
NEEDED = {"jaxsparse.export.torch_weights.torch_state_dict": "torch"}
FLAGS = (
    doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Names that examples may use without defining them: modules, and a network."""
    modules = {
        module.name: getattr(jaxsparse, module.name)
        for module in pkgutil.iter_modules(jaxsparse.__path__)
    }
    model = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(4)])
    inputs = jnp.ones((2, 6))
    params = model.init(jax.random.key(0), inputs)

    def loss(params: Any, inputs: Any) -> Any:
        return jnp.mean(model.apply(params, inputs) ** 2)

    return modules | {
        "flax": flax,
        "inputs": inputs,
        "jax": jax,
        "jaxsparse": jaxsparse,
        "jnp": jnp,
        "loss": loss,
        "model": model,
        "nn": nn,
        "nnx": nnx,
        "np": np,
        "optax": optax,
        "params": params,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples write: they share one folder, so that a run is trained once."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Removes what an example registered."""
    yield
    for registry in config.REGISTRIES:
        for spec in registry.own():
            registry.remove(spec.name)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples(
    file: Path,
    names: dict[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    own = {
        k: v for k, v in vars(module).items() if getattr(v, "__module__", "") == name
    }
    # In an example `masks` is the module of this name, also where its file imports it
    # under another name; what the file itself defines comes first.
    found = doctest.DocTestFinder(exclude_empty=True).find(
        module, name, globs=vars(module) | names | own
    )
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    output: list[str] = []
    for test in found:
        if test.name in NEEDED and not importlib.util.find_spec(NEEDED[test.name]):
            continue
        runner.run(test, out=output.append)
    results = runner.summarize(verbose=False)
    assert results.attempted
    assert not results.failed, "".join(output)
