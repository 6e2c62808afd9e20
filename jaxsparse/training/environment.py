"""Records the environment of each session of a run: command, versions and devices."""

import json
import logging
import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxsparse import config as config_lib
from jaxsparse import metrics_log

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxsparse", "numpy")
FILE = "environment.json"

log = logging.getLogger(__name__)


def starts_from(workdir: Path) -> dict[str, Any]:
    """Returns the recorded hashes of what a run started from.

    Args:
      workdir: the run directory.

    Returns:
      Hashes by name; {} if there are none or they cannot be read.
    """
    try:
        found = metrics_log.read_object(workdir / FILE)
        return dict(found["arrangement"].get("starts_from", {}))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def check_start(workdir: Path, execution_plan: Mapping[str, Any]) -> None:
    """Checks that the run or scores that this run started from have not changed.

    Args:
      workdir: the run directory.
      execution_plan: how the work is laid out, with the present hashes under
        "starts_from" if the run starts from a file of another run.

    Raises:
      ValueError: if a hash differs from the recorded one.
    """
    old, new = starts_from(workdir), execution_plan.get("starts_from", {})
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            raise ValueError(
                f"--workdir: expected {name} with hash {old[name]}, with which "
                f"{workdir} began, got {new[name]}; restore the run or the scores that "
                "it starts from, or choose another --workdir"
            )


def write(path: Path, command: str, execution_plan: Mapping[str, Any]) -> None:
    """Writes the environment of this session, and keeps those of earlier ones.

    Args:
      path: path of environment.json.
      command: the command line.
      execution_plan: how the work is laid out on the devices.
    """
    earlier = []
    if path.exists():
        try:
            old = config_lib.renames.read(path)
            earlier = [*old.pop("earlier", []), old]
        except (ValueError, TypeError) as error:
            # Never overwritten: the file of earlier sessions is renamed even if it is
            # corrupt.
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
            log.warning("%s; earlier sessions are in %s", error, aside.name)
    now = {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "processor": platform.processor() or platform.machine(),
        "arrangement": dict(execution_plan),
        "registered": config_lib.describe(),
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
    }
    text = json.dumps(now | {"earlier": earlier}, indent=2)
    metrics_log.write_atomically(path, text + "\n")


def _version(package: str) -> str | None:
    """Returns the installed version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit(folder: Path = Path(__file__).parent) -> str | None:
    """Returns the commit of code, marked "dirty" if files were changed.

    Args:
      folder: a folder of the code; by default that of the running code.

    Returns:
      Output of `git describe`; None outside of a git repository.
    """
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
