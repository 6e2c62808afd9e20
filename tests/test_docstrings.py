"""Every public name has a docstring, and it explains every argument."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxsparse

FOLDER = Path(jaxsparse.__file__).parent
TUTORIALS = "tutorials"  # notebooks, which explain their functions in the text
FILES = [
    path.relative_to(FOLDER.parent)
    for folder in (FOLDER, FOLDER.parent / "experiments")
    for path in sorted(folder.rglob("*.py"))
    if not path.name.startswith("_") or path.name == "__init__.py"
    if path.relative_to(folder).parts[0] != TUTORIALS
]
# Functions of these modules share arguments, which the text of the module explains.
SHARED = {
    f"jaxsparse/arguments/{module}.py": {"name", "value"}
    for module in ("numeric", "trees", "values")
} | {
    f"experiments/studies/{study}/evidence.py": {"found"}
    for study in ("gradient_flow", "stable_imp")
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Public = Function | ast.ClassDef


def public(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple]:
    """Yields the names and nodes of public functions and classes, and of methods."""
    for node in tree.body:
        if isinstance(node, Public) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{node.name}.")


def arguments(node: Function) -> set[str]:
    """The names of a function's arguments."""
    a = node.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    return {argument.arg for argument in every if argument} - {"self", "cls"}


def explained(docstring: str) -> set[str]:
    """The names in the section Args of a docstring."""
    section = re.search(r"^Args:\n((?:  .*\n|\n)+)", docstring + "\n", re.MULTILINE)
    lines = section[1].splitlines() if section else []
    found = [re.match(r"  \*{0,2}(\w+): \S", line) for line in lines]
    return {match[1] for match in found if match}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_docstrings_explain_every_argument(file: Path) -> None:
    tree = ast.parse((FOLDER.parent / file).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{file}: the module has no docstring"
    missing = []
    for name, node in public(tree):
        docstring = ast.get_docstring(node)
        if not docstring:
            missing.append(name)
        elif isinstance(node, Function):
            unexplained = arguments(node) ^ explained(docstring)
            unexplained -= SHARED.get(file.as_posix(), set())
            missing += [f"{name}: {each}" for each in unexplained if each[0] != "_"]
    assert missing == []


# Arguments of other libraries that docstrings mention.
FOREIGN = {
    *("transpose_kernel", "conv_general_dilated"),  # flax
    "check_vma",  # jax
    "is_dense_spectrum",  # the code of Evci et al.
}


def given(docstring: str) -> set[str]:
    """The names to which code in a docstring gives a value, as in `name=value`."""
    code = " ".join(re.findall(r"`([^`]+)`", docstring))
    return set(re.findall(r"(?<![\w.\-/])([A-Za-z_]\w*)=(?!=)", code))


def test_arguments_that_docstrings_give_exist() -> None:
    known, found = set(FOREIGN), []
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                known |= arguments(node)
            if isinstance(node, ast.ClassDef):  # fields of records
                fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
                known |= {each.target.id for each in fields}
            if isinstance(node, Public | ast.Module):
                names = given(ast.get_docstring(node) or "")
                found += [(path.name, getattr(node, "name", ""), n) for n in names]
    assert [each for each in found if each[-1] not in known] == []
    assert given("By `b=True`, `f(a=1, c)` and `d == 2`: x=3.") == {"a", "b"}


def test_sections_are_read() -> None:
    docstring = "Adds.\n\nArgs:\n  a: one,\n    b: in a line of a.\n  *rest: others.\n"
    assert explained(docstring) == {"a", "rest"}
    [function] = ast.parse("def f(a, /, b, *rest, c=1, _d=2, **more): ...").body
    assert isinstance(function, ast.FunctionDef)
    assert arguments(function) == {"a", "b", "rest", "c", "_d", "more"}
