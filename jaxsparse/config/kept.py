"""Copies of the user's files that register the entries of a run, in its directory.

Opening a run executes these files, so that the entries of its config are registered
again. Open only run directories whose origin you trust, or open them with
`execute=False`.
"""

import hashlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jaxsparse import metrics_log
from jaxsparse.config import registries

FOLDER = "registered"  # folder in the run directory

log = logging.getLogger(__name__)


def sources(config: ConfigDict) -> dict[str, str]:
    """Reads the files that registered the entries used by a config.

    Entries registered in an interactive session have no file and are left out; they
    must be registered again before the run is opened.

    Args:
      config: a config.

    Returns:
      Content of the files, by the names of their copies. Files of the same name are
      numbered.
    """
    used = {
        spec.file
        for registry in registries.REGISTRIES
        for spec in registry.own()
        if spec.name in _named(config, registry)
    }
    found: dict[str, str] = {}
    for path in sorted(Path(file) for file in used if Path(file).is_file()):
        name, number = path.name, 0
        # Files in different folders may have the same name.
        while name in found:
            number += 1
            name = f"{path.stem}_{number}.py"
        found[name] = path.read_text(encoding="utf-8")
    return found


def _named(config: ConfigDict, registry: registries.Registry[Any]) -> set[str]:
    """Returns the names of the entries of a registry that a config uses."""
    fields = [registry.field]
    if registry is registries.SCORES:
        fields.append("lottery.score")
    sections = (field.split(".") for field in fields)
    named = {config[section][field] for section, field in sections}
    return named - {None}  # no reparameterization


def write(workdir: Path, config: ConfigDict) -> None:
    """Copies the files that registered the entries of a config to a run directory.

    A copy that differs from the current file is replaced, with a warning.

    Args:
      workdir: the run directory.
      config: config of the run.
    """
    for name, text in sources(config).items():
        path = workdir / FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") != text:
            log.warning(
                "%s: expected the file with which the run was started, got a changed "
                "one; the run continues with the changed file",
                name,
            )
        path.parent.mkdir(exist_ok=True)
        metrics_log.write_atomically(path, text)


def execute(workdir: Path) -> None:
    """Executes the files in a run directory that register the entries of the run.

    A file is not executed if the same text was already executed or imported in this
    process.

    Args:
      workdir: the run directory.

    Raises:
      ValueError: if a file fails, for example because it registers a name that another
        function has; the message names the file.
      OSError: if a file cannot be read.
    """
    # Compared by text, since the copy and the original file have different paths.
    present = {
        Path(spec.file).read_text(encoding="utf-8")
        for registry in registries.REGISTRIES
        for spec in registry.own()
        if spec.file and Path(spec.file).is_file()
    }
    for path in sorted((workdir / FOLDER).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text not in present:
            _execute(path, text)


def _execute(path: Path, text: str) -> None:
    try:
        import_file(path, text)
    except Exception as error:  # a config is a program, and may fail in any way
        raise ValueError(
            f"{path}: expected a file that registers what the run uses, got "
            f"{type(error).__name__}: {error}; install what it imports, or register "
            "the same entries yourself and open the run with execute=False"
        ) from error


def import_file(path: Path, key: str) -> ModuleType:
    """Executes a file that no package contains, as a module.

    Args:
      path: the file. No `__pycache__` is written beside it.
      key: text that identifies the module: a module of the same key is replaced.

    Raises:
      ValueError: if it is no Python file.
      Exception: whatever the file raises.
    """
    name = f"file_{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # `inspect` needs it to find the source of classes
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
    return module
