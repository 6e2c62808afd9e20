"""Imports go downwards only, and never in a circle."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

# From the bottom. A module or package may import whatever lies below it.
LAYERS = (
    ("old_names", "launchers", "rng"),
    (
        *("types", "tree", "metrics_log", "multihost", "durations", "stages"),
        *("extras", "replicates", "npz_files"),
    ),
    ("config", "arguments"),
    (
        *("masks", "select", "scores", "distributions", "initializers"),
        *("fan_axes", "apportionment", "layer_counts"),
        *("models", "data", "connectivity", "coupling", "losses"),
    ),
    ("layer_options", "flops"),
    ("transforms", "prune", "tost", "compaction"),
    ("lottery", "reports", "analysis", "export", "predict"),
    ("training",),
    ("runner",),
    ("factory",),
    ("runs",),
)
# Within a layer nothing imports anything, but that all of layer 1 may import masks.
SIDEWAYS = {
    (name, "masks")
    for name in ("select", "scores", "distributions", "initializers", "connectivity")
}
SIDEWAYS |= {("fan_axes", "masks"), ("layer_counts", "masks")}
SIDEWAYS |= {("distributions", name) for name in ("apportionment", "layer_counts")}
SIDEWAYS |= {("coupling", "connectivity"), ("select", "coupling")}
SIDEWAYS |= {(name, "fan_axes") for name in ("select", "distributions", "initializers")}
# These import less than their layer allows.
ONLY = {
    "models": set(),
    "data": {"metrics_log", "config", "extras"},
    "reports": {"metrics_log", "config", "old_names", "stages"},
}
FOREIGN = {"reports": {"jax", "jaxlib", "flax", "optax", "orbax", "jaxtyping"}}


def imported(source: str) -> set[str]:
    """Lists what a file imports, by dotted name, wherever in it that happens."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(name: str) -> str:
    return name.split(".")[1]


def height(name: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if name in layer]
    assert len(found) == 1, f"{name}: expected 1 layer, got {len(found)}"
    return found[0]


def faults(sources: dict[str, str]) -> list[str]:
    """Words every forbidden import of files given by dotted name."""
    graph: dict[str, set[str]] = {}
    wrong = []
    for module, source in sources.items():
        names = imported(source)
        mine = part(module)
        outside = {name.split(".")[0] for name in names}
        wrong += [f"{module}: {n}" for n in FOREIGN.get(mine, set()) & outside]
        wrong += [f"{module}: {n}" for n in outside & {"configs", "experiments"}]
        ours = {n for n in names if n.startswith("jaxsparse.")}
        # "jaxsparse.masks.apply" is a name in a module, "jaxsparse.masks" a module.
        targets = {n if n in sources else n.rpartition(".")[0] for n in ours}
        graph[module] = targets
        for target in sorted(targets):
            theirs = part(target)
            if theirs == mine:
                continue
            below = height(theirs) < height(mine) or (mine, theirs) in SIDEWAYS
            if not below or theirs not in ONLY.get(mine, {theirs}):
                wrong.append(f"{module}: {target}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        wrong.append(f"cycle: {error.args[1]}")
    return wrong


def read(root: Path) -> dict[str, str]:
    sources = {}
    for path in sorted((root / "jaxsparse").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if name != "jaxsparse":
            sources[name] = path.read_text(encoding="utf-8")
    return sources


def test_every_import_goes_downwards(root: Path) -> None:
    sources = read(root)
    assert len(sources) > 40
    assert faults(sources) == []


def test_the_package_itself_imports_nothing_but_python(root: Path) -> None:
    tree = ast.parse((root / "jaxsparse" / "__init__.py").read_text(encoding="utf-8"))
    # What only type checkers read is never imported; see test_package.py.
    tree.body = [
        node
        for node in tree.body
        if not isinstance(node, ast.If) or ast.unparse(node.test) != "TYPE_CHECKING"
    ]
    names = {name.split(".")[0] for name in imported(ast.unparse(tree))}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("sources", "wrong"),
    [
        ({"jaxsparse.masks": "import jaxsparse.factory"}, "upward"),
        ({"jaxsparse.masks": "from jaxsparse import training"}, "upward"),
        ({"jaxsparse.scores": "from jaxsparse import select"}, "sideways"),
        ({"jaxsparse.lottery.a": "from jaxsparse.reports import page"}, "sideways"),
        ({"jaxsparse.models.a": "from jaxsparse import types"}, "more than allowed"),
        ({"jaxsparse.reports.a": "def f():\n import jax.numpy"}, "JAX in reports"),
        ({"jaxsparse.data.a": "from configs import lth_digits"}, "a config"),
        (
            {
                "jaxsparse.training.a": "from jaxsparse.training import b",
                "jaxsparse.training.b": "from jaxsparse.training.a import f",
            },
            "a circle",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_check_finds_each_kind_of_fault(sources: dict, wrong: str) -> None:
    targets = {"factory": "", "training": "", "select": "", "types": ""}
    known = {f"jaxsparse.{name}": text for name, text in targets.items()}
    known |= {"jaxsparse.reports.page": ""} | sources
    assert len(faults(known)) == 1, wrong
