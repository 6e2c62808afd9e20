"""The rules on code in CONTRIBUTING.md: sizes, and tests of public names only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

LINES, ARGUMENTS, FIELDS = 350, 8, 9
FOLDERS = ("jaxsparse", "experiments", "configs")
# Functions with the signature of a function of another library.
FOREIGN = {"jaxsparse/models/convolutions.py: convolve"}  # lax.conv_general_dilated
# Linen modules: their fields are the options of a network, each with a default.
MODULES = {
    "ConvNet",
    "DecoderLM",
    "LeNet5",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "VGG",
    "ViT",
    "WideResNet",
}


def files(root: Path) -> Iterator[tuple[str, str]]:
    """Yields the path and the text of every Python file of the project."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The number of arguments of a function, without `self`."""
    a = node.args
    listed = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    return len({each.arg for each in listed if each} - {"self", "cls"})


def fields(node: ast.ClassDef) -> int:
    """The number of annotated fields of a class."""
    return sum(isinstance(each, ast.AnnAssign) for each in node.body)


def too_large(text: str) -> Iterator[str]:
    """Yields the names of functions and classes that are over a limit."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if arguments(node) > ARGUMENTS:
                yield node.name
        elif isinstance(node, ast.ClassDef) and fields(node) > FIELDS:
            yield node.name


def test_functions_and_records_are_small(root: Path) -> None:
    found = {
        f"{path}: {name}" for path, text in files(root) for name in too_large(text)
    }
    modules = {each for each in found if each.startswith("jaxsparse/models/")}
    modules -= FOREIGN
    assert {each.rpartition(" ")[2] for each in modules} == MODULES
    assert found - modules == FOREIGN


def test_files_are_short(root: Path) -> None:
    lengths = {path: len(text.splitlines()) for path, text in files(root)}
    assert {path: n for path, n in lengths.items() if n > LINES} == {}


def test_arguments_and_fields_are_counted() -> None:
    eight = "def f(a, /, b, *c, d=1, **e): ...\nclass R:\n" + "  x: int\n" * 9
    assert list(too_large(eight)) == []
    more = (
        "class R:\n"
        + "  x: int\n" * 10
        + "  def g(self, a, b, c, d, e, f, g, h): ...\n"
    )
    assert list(too_large(more)) == ["R"]
    assert list(too_large("async def f(a, b, c, d, e, f, g, *, h, i): ...")) == ["f"]


# Public methods of named tuples.
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
# Known: the sentence on the rules of verdicts, which a page has.
KNOWN = {"tests/test_study_report.py": ["_RULES"]}


def private_names(text: str) -> Iterator[str]:
    """Yields the private names of this project that a test imports or replaces."""
    nodes = list(ast.walk(ast.parse(text)))
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = getattr(node, "module", None) or alias.name
                if name.partition(".")[0] in FOLDERS:
                    modules.add((alias.asname or alias.name).partition(".")[0])
    yield from sorted(name for name in modules if name.startswith("_"))
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=str(name)):
                own = module in modules and name not in NAMED_TUPLE
                if own and re.match("_[^_]", name):
                    yield name
            case ast.Call(
                args=[ast.Name(id=module), ast.Constant(value=str(name)), *_]
            ):
                if module in modules and re.match("_[^_]", name):
                    yield name


def test_tests_use_public_names_only(root: Path) -> None:
    found = {
        path.relative_to(root).as_posix(): names
        for path in sorted((root / "tests").rglob("*.py"))
        if (names := list(private_names(path.read_text(encoding="utf-8"))))
    }
    assert found == KNOWN
    used = (
        "from jaxsparse import b, _c\nb._d, os._exit, b._fields\nm.setattr(b, '_e', 1)"
    )
    assert sorted(private_names(used)) == ["_c", "_d", "_e"]
