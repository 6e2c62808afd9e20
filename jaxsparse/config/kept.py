"""Files that register what a run uses: kept in its folder, executed when it is opened.

Opening a run whose folder has such files executes them, so open only folders whose
origin you trust, or say that nothing is to be executed.
"""

import hashlib
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxsparse import metrics_log
from jaxsparse.config import registries

FOLDER = "registered"  # within that of a run

log = logging.getLogger(__name__)


def sources(config: ConfigDict) -> dict[str, str]:
    """Reads the files that registered what a config uses.

    What was registered in an interactive session has no file, and is left out: it must
    be registered again before its run is opened.

    Args:
      config: a config.

    Returns:
      Texts by the names that they are kept under.
    """
    used = {
        spec.file
        for registry in registries.EVERY
        for spec in registry.own()
        if spec.name in _named(config, registry)
    }
    found: dict[str, str] = {}
    for path in sorted(Path(file) for file in used if Path(file).is_file()):
        name, number = path.name, 0
        while name in found:
            number += 1
            name = f"{path.stem}_{number}.py"
        found[name] = path.read_text(encoding="utf-8")
    return found


def _named(config: ConfigDict, registry: registries.Registry[Any]) -> set[str]:
    """Lists the entries of a registry that a config names."""
    fields = [registry.field]
    if registry is registries.SCORES:
        fields.append("lottery.score")
    sections = (field.split(".") for field in fields)
    return {config[section][field] for section, field in sections}


def write(workdir: Path, config: ConfigDict) -> None:
    """Keeps the files that registered what a config uses; warns of changed ones."""
    for name, text in sources(config).items():
        path = workdir / FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") != text:
            log.warning(
                "%s: has changed since the run was begun; it goes on with what it is "
                "now",
                name,
            )
        path.parent.mkdir(exist_ok=True)
        metrics_log.write_atomically(path, text)


def execute(workdir: Path) -> None:
    """Executes the files that a run has kept, so that what it uses is registered.

    A file that has been executed in this process, here or by importing it, is not
    executed again.

    Raises:
      ValueError: naming a file that fails, such as one that registers a name that is
        taken by another function.
      OSError: if one cannot be read.
    """
    present = {
        Path(spec.file).read_text(encoding="utf-8")
        for registry in registries.EVERY
        for spec in registry.own()
        if spec.file and Path(spec.file).is_file()
    }
    for path in sorted((workdir / FOLDER).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text not in present:
            _execute(path, text)


def _execute(path: Path, text: str) -> None:
    name = f"kept_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where `inspect` looks for the text of classes
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a config is a program, and may fail in any way
        del sys.modules[name]
        raise ValueError(
            f"{path}: which registers what the run uses, cannot be executed: "
            f"{type(error).__name__}: {error}; make what it imports importable, or "
            "register the same yourself and open the run without executing it"
        ) from error
    finally:
        sys.dont_write_bytecode = writes
