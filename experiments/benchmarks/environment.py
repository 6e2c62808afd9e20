"""The machine and the versions that a benchmark ran with, and its result files."""

import importlib.util
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks import timing
from experiments.benchmarks.timing import Table
from jaxsparse import metrics_log
from jaxsparse.training import environment

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "jaxpruner")


def describe(argv: Sequence[str]) -> dict[str, Any]:
    """Describes the command, the machine, the versions and the load of the machine.

    Args:
      argv: the command line. `--data_dir` is left out of the description.
    """
    kinds = [device.device_kind for device in jax.local_devices()]
    flags = [a for a in argv[1:] if not a.lstrip("-").startswith("data_dir")]
    return {
        "command": f"python experiments/benchmark.py {shlex.join(flags)}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": environment.commit() or "unknown",
        "backend": jax.default_backend(),
        "devices": f"{len(kinds)} x {kinds[0]}",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
        "load_at_start": load(),
    }


def load() -> str:
    """Returns the load averages over 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


def processor() -> str:
    """Returns the name of the processor, or of its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"model name\s*:\s*(.+)", text)
    return match.group(1) if match else platform.machine()


def version(package: str) -> str:
    """Returns the version of a package, or words for a package without one.

    Args:
      package: name of the package.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        found = importlib.util.find_spec(package)
    if found is None:
        return "not installed"
    path = Path(found.origin or "none")
    tracked = subprocess.run(
        ["git", "ls-files", "--error-unmatch", str(path)],
        cwd=path.parent,
        capture_output=True,
        check=False,
    )
    # Not the commit of a repository around a folder that git ignores.
    commit = None if tracked.returncode else environment.commit(path.parent)
    return f"of commit {commit}" if commit else "unknown version"


def markdown(facts: dict[str, Any]) -> str:
    """Formats what `describe` returned as a Markdown list.

    Args:
      facts: from `describe`.
    """
    flat = facts | {
        "versions": ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    }
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in flat.items()]
    return "## Benchmark\n\n" + "\n".join(lines) + "\n"


def save(
    folder: Path, facts: dict[str, Any], tables: Sequence[Table], *, suffix: str = ""
) -> Path:
    """Writes the tables as Markdown and, with every repetition, as JSON.

    Args:
      folder: folder of the two files; made if it does not exist.
      facts: what `describe` returned.
      tables: what was measured.
      suffix: end of the files' names, for a run of some benchmarks only; "" for all.

    Returns:
      The path of the Markdown file.
    """
    kind = facts["devices"].partition(" x ")[2]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{kind} {suffix}".lower()).strip("-")
    path = folder / f"benchmark-{slug}.md"
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join([markdown(facts), *(timing.markdown(t) for t in tables)])
    metrics_log.write_atomically(path, text)
    text = json.dumps(content(facts, tables), indent=1) + "\n"
    metrics_log.write_atomically(path.with_suffix(".json"), text)
    return path


def content(facts: dict[str, Any], tables: Sequence[Table]) -> dict[str, Any]:
    """Returns the content of the JSON file: the facts, and the data of all tables.

    Args:
      facts: from `describe`.
      tables: tables with different titles.
    """
    return facts | {"tables": {table.title: table.data for table in tables}}
