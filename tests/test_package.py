"""What the package offers on import, and what it imports for that."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import jaxsparse

# Packages that come with the extra `experiments`.
OPTIONAL = (
    *("grain", "matplotlib", "pandas", "pyarrow", "seaborn", "sklearn", "submitit"),
    "tensorboardX",
)
# Everything that works without them: all modules but those of reports.
LIGHT = """
import importlib, pkgutil, sys
for name in {optional!r}:
    sys.modules[name] = None  # as if it were not installed
import jaxsparse
assert "jax" not in sys.modules, "import jaxsparse imports jax"
jaxsparse.transforms.rigl
for module in pkgutil.walk_packages(jaxsparse.__path__, "jaxsparse."):
    if not module.name.startswith("jaxsparse.reports"):
        importlib.import_module(module.name)
try:
    jaxsparse.data.datasets.load("digits")
except ModuleNotFoundError as error:
    print(error)
"""


def test_only_reports_import_optional_packages() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIGHT.format(optional=OPTIONAL)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == (
        "the digits dataset: expected the packages sklearn, which are not installed; "
        "run pip install -e '.[experiments]' in the project's folder"
    )


def test_dir_lists_modules_and_functions() -> None:
    names = dir(jaxsparse)
    modules = {module.name for module in pkgutil.iter_modules(jaxsparse.__path__)}
    assert modules < set(names)
    assert {"load", "run", "register_score"} < set(names)
    assert all(getattr(jaxsparse, name) is not None for name in names)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(jaxsparse.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {alias.name for line in block.body for alias in line.names}
    assert seen == set(dir(jaxsparse)) - {"__version__"}


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(jaxsparse, "no_such_module")
    assert not hasattr(jaxsparse, "__wrapped__")
