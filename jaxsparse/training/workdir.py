"""The run directory: its files, and who may write to it.

    config.json       the resolved config
    environment.json  command, versions, devices and commit of each session
    data.json         the fingerprint of the examples, see `data.fingerprint`
    metrics.jsonl     the records
    tensorboard/      the records as TensorBoard events
    checkpoints/      see `checkpoints`
    tickets/          masks of each level
    registered/       files that register what the config uses, see `config.kept`
    report/           figures and tables

A run directory belongs to one experiment. Only the same experiment on the same data can
continue it. Another one is rejected, unless no step was trained there: then the
directory is reused from the start. A lock prevents two processes from writing at the
same time, where the file system supports locks.
"""

import fcntl
import json
import logging
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import metrics_log, multihost
from jaxsparse.data import datasets, fingerprint
from jaxsparse.data.dataset import Dataset
from jaxsparse.training import run_paths

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxsparse", "numpy")

# Errors of locking a file that another process has locked; other errors mean that the
# disk does not support locks.
TAKEN = (BlockingIOError, PermissionError)
DATA = "data.json"
SECONDS_BEHIND = 60  # maximum delay of a shared directory between hosts
# A run's first files in these directories have names that begin like this. They exist
# before its first step.
BEFORE_STEPS = {"checkpoints": "init", "tickets": "level_00"}

log = logging.getLogger(__name__)


@contextmanager
def opened(
    workdir: Path,
    config: ConfigDict,
    *,
    command: str,
    execution_plan: Mapping[str, Any],
    dataset: Dataset | None = None,
) -> Iterator[None]:
    """Locks and prepares a run directory for one session of an experiment.

    Args:
      workdir: the run directory; created if it does not exist.
      config: the resolved config.
      command: the command line, for the record.
      execution_plan: how the work is laid out on the devices, for the record.
      dataset: the data, which must not change between sessions; None neither records
        nor compares them.

    Raises:
      ValueError: if the directory belongs to another experiment (the message names the
        fields that differ), if the data differ from those it started with, or if
        another process uses it.
      OSError: if it cannot be written.
    """
    # A list, because only the primary process holds a lock.
    locks: list[Any] = []
    multihost.on_primary(lambda: locks.append(_take(workdir)))
    try:
        resolved = json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)

        def write() -> None:
            check_same(workdir, config)
            data = None if dataset is None else _describe(dataset, config)
            try:
                _check_start(workdir, execution_plan)
                _check_data(workdir, data)
                same = not _differences(workdir, config)
            except ValueError:
                # A directory that does not match is only reused if no step was trained
                # there.
                same = False
                if has_trained(workdir):
                    raise
            if not same:
                _begin_anew(workdir)
            metrics_log.write_atomically(workdir / "config.json", resolved + "\n")
            config_lib.kept.write(workdir, config)
            if data is not None:
                text = json.dumps(data, indent=1) + "\n"
                metrics_log.write_atomically(workdir / DATA, text)
            _write_environment(workdir / "environment.json", command, execution_plan)

        multihost.on_primary(write)
        _check_shared(workdir / "config.json")
        yield
    finally:
        for lock in locks:
            lock.close()


def _describe(dataset: Dataset, config: ConfigDict) -> dict[str, Any]:
    """Returns the fingerprint of the examples and of the files they were read from."""
    c = config.data
    # The contents of images that stay in files are not read. Which files a user's own
    # reader opens is unknown here.
    own = c.name in config_lib.DATASETS and c.name not in datasets.READERS
    known = not c.image_size and not own
    files = fingerprint.of_files(c.name, data_dir=c.dir or None) if known else None
    return fingerprint.of(dataset) | {"files": files}


def _check_shared(written: Path) -> None:
    """Checks that every process sees a file that the primary process has written.

    Raises:
      ValueError: if a process does not see it after `SECONDS_BEHIND` seconds.
    """
    patience = time.monotonic() + SECONDS_BEHIND
    while not written.exists() and time.monotonic() < patience:
        time.sleep(0.2)
    if not multihost.on_all(written if written.exists() else None):
        raise ValueError(
            f"--workdir: {written.parent} is not one folder for all processes, of "
            "which the first writes there; wanted one on a disk that all hosts share"
        )


def _take(workdir: Path) -> Any:
    """Creates a run directory if it does not exist, and locks it.

    Returns:
      The open lock file; closing it releases the lock.

    Raises:
      ValueError: if another process holds the lock.
      OSError: if the directory cannot be written.
    """
    run_paths.check(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise OSError(
            f"--workdir: {workdir} cannot be written to ({error.strerror}); wanted a "
            "folder of yours on a disk with room; choose one with --workdir"
        ) from error
    try:
        # The system releases this lock when the process ends, however it ends.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except TAKEN as error:
        lock.close()
        raise ValueError(
            f"--workdir: another process is running in {workdir}; wait for it to end, "
            "or choose another --workdir; if its machine is gone and a network's disk "
            f"still keeps its lock, remove {workdir / '.lock'}"
        ) from error
    except OSError as error:  # file systems of some clusters do not support locks
        log.warning(
            "--workdir: %s cannot be locked (%s); nothing keeps a second process from "
            "writing there too",
            *(workdir, error.strerror),
        )
    return lock


def check_same(workdir: Path, config: ConfigDict) -> None:
    """Checks that a run directory does not belong to another experiment.

    Changes nothing on disk.

    Args:
      workdir: the run directory.
      config: the resolved config.

    Raises:
      ValueError: if scientific fields of the config differ (the message names them) and
        a step was trained there, or if checkpoints could not be read back under this
        path.
    """
    run_paths.check(workdir)
    if not (workdir / "config.json").exists() and has_trained(workdir):
        raise ValueError(
            f"--workdir: {workdir} holds a run without its config.json; wanted it "
            "restored, or another --workdir"
        )
    found = _differences(workdir, config)
    if found and has_trained(workdir):
        each = "; ".join(
            f"config.{name}: there {a!r}, here {b!r}" for name, a, b in found
        )
        raise ValueError(
            f"--workdir: {workdir} holds another experiment: {each}; wanted equal "
            "scientific fields; choose another --workdir, or leave it out for a folder "
            "named by the config"
        )


def _differences(workdir: Path, config: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Lists the scientific fields in which a directory's config differs from another.

    Returns:
      Names of the fields, with their values in the directory and in `config`; [] if the
      directory has no config.
    """
    path = workdir / "config.json"
    if not path.exists():
        return []
    try:
        old = config_lib.renames.read(path)
    except ValueError as error:
        raise ValueError(f"--workdir: {error}, or choose another --workdir") from error
    if not isinstance(old.get("training"), dict):
        raise ValueError(
            f"--workdir: {path} is no config of a run; expected an empty folder, or "
            "that of a run; choose another --workdir"
        )
    return list(config_lib.differences(old, json.loads(config.to_json())))


def has_trained(workdir: Path) -> bool:
    """Returns whether the files of a run directory show that a step was trained.

    A directory that a run only created, before it was rejected, may be reused. Any file
    in `checkpoints` and `tickets` that no such run leaves counts as trained, also one
    without its note or of another program, so that it is never removed.

    Args:
      workdir: the run directory.

    Raises:
      ValueError: if its records are corrupt.
      OSError: if they cannot be read.
    """
    for name, begins in BEFORE_STEPS.items():
        there = (workdir / name).iterdir() if (workdir / name).exists() else ()
        if not all(path.name.startswith(begins) for path in there):
            return True
    rows = metrics_log.read(workdir / "metrics.jsonl")
    return any(row.get("kind") != "eval" or row.get("step") for row in rows)


def _begin_anew(workdir: Path) -> None:
    """Removes the files of a run that did not train a step."""
    log.warning("%s: no step was trained there; its run is begun anew", workdir)
    for name in ("checkpoints", "tickets", config_lib.kept.FOLDER):
        if (workdir / name).exists():
            shutil.rmtree(workdir / name)
    for name in ("metrics.jsonl", "rescaling.json", DATA):
        (workdir / name).unlink(missing_ok=True)


def _check_data(workdir: Path, data: fingerprint.Fingerprint | None) -> None:
    """Checks that the examples are those that a run started with.

    Raises:
      ValueError: if they differ; the message says how.
    """
    if data is None:
        return
    found = changed_data(workdir, data)
    if found:
        raise ValueError(
            f"config.data: the examples are not those that {workdir} was begun with: "
            f"{'; '.join(found)}; expected the same; restore them, or choose another "
            "--workdir"
        )


def changed_data(workdir: Path, data: fingerprint.Fingerprint) -> list[str]:
    """Describes how examples differ from those of a run.

    Args:
      workdir: the run directory.
      data: fingerprint of the examples, from `fingerprint.of`.

    Returns:
      One description per difference; [] if there is none, or if the run did not record
      a fingerprint.

    Raises:
      ValueError: if the recorded fingerprint is corrupt.
    """
    path = workdir / DATA
    if not path.exists():  # older versions did not record it
        return []
    try:
        return fingerprint.differences(metrics_log.read_object(path), data)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; restore it, or remove it to go on without a comparison"
        ) from error


def recorded_sizes(workdir: Path) -> fingerprint.Sizes | None:
    """Reads the sizes of the data that a run started with.

    Args:
      workdir: the run directory.

    Returns:
      The sizes; None if the run did not record a fingerprint.

    Raises:
      ValueError: if the recorded fingerprint is corrupt.
    """
    path = workdir / DATA
    if not path.exists():
        return None
    try:
        return fingerprint.sizes(metrics_log.read_object(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; restore it, or give the run's command again without it"
        ) from error


def starts_from(workdir: Path) -> dict[str, Any]:
    """Returns the recorded hashes of what a run was warm-started from.

    Args:
      workdir: the run directory.

    Returns:
      Hashes by name; {} if there are none or they cannot be read.
    """
    try:
        found = metrics_log.read_object(workdir / "environment.json")
        return dict(found["arrangement"].get("starts_from", {}))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _check_start(workdir: Path, execution_plan: Mapping[str, Any]) -> None:
    """Checks that the run or scores this run was warm-started from have not changed.

    Raises:
      ValueError: if a hash differs from the recorded one.
    """
    old, new = starts_from(workdir), execution_plan.get("starts_from", {})
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            raise ValueError(
                f"config.warm_start, {name}: {workdir} began with {old[name]}, and now "
                f"they are {new[name]}; wanted the same: restore the run, or the "
                "scores, that this one starts from, or choose another --workdir"
            )


def _write_environment(
    path: Path, command: str, execution_plan: Mapping[str, Any]
) -> None:
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
        "commit": _commit(),
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


def _commit() -> str | None:
    """Returns the commit of the running code, marked "dirty" if files were changed.

    Returns:
      Output of `git describe`; None outside of a git repository.
    """
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
