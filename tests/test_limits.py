"""Limits of CONTRIBUTING that ruff does not check: parameters and fields."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = ("jaxsparse", "experiments", "configs")
MAX_PARAMETERS, MAX_FIELDS = 8, 9
# Functions with the signature of another library.
SIGNATURES = {"convolve"}  # flax.linen.Conv.conv_general_dilated
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters(node: Function) -> int:
    """The number of parameters, without self and cls."""
    a = node.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs]
    return len([one for one in every if one.arg not in ("self", "cls")])


def fields(node: ast.ClassDef) -> int:
    """The number of fields of a record; 0 for other classes, as modules of linen."""
    kinds = {ast.unparse(each) for each in (*node.bases, *node.decorator_list)}
    if not any("NamedTuple" in kind or "dataclass" in kind for kind in kinds):
        return 0
    return sum(isinstance(each, ast.AnnAssign) for each in node.body)


def over(tree: ast.Module) -> Iterator[str]:
    """Yields the functions and records beyond a limit, with their numbers."""
    for node in ast.walk(tree):
        free = isinstance(node, Function) and node.name not in SIGNATURES
        if free and parameters(node) > MAX_PARAMETERS:
            yield f"{node.name}: {parameters(node)} parameters"
        if isinstance(node, ast.ClassDef) and fields(node) > MAX_FIELDS:
            yield f"{node.name}: {fields(node)} fields"


@pytest.mark.parametrize("folder", FOLDERS)
def test_few_parameters_and_fields(folder: str, root: Path) -> None:
    files = sorted((root / folder).rglob("*.py"))
    assert files
    found = {
        f"{path.relative_to(root)}: {one}"
        for path in files
        for one in over(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set()


def test_limits_are_read() -> None:
    names = ", ".join("abcdefghi")
    lines = "\n".join(f"    {name}: int" for name in "abcdefghij")
    text = f"class A(NamedTuple):\n{lines}\n    def f(self, {names}): ...\n"
    text += f"class B(nn.Module):\n{lines}\ndef convolve({names}): ...\n"
    assert list(over(ast.parse(text))) == ["A: 10 fields", "f: 9 parameters"]
