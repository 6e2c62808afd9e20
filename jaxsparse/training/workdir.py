"""The folder of a run: what is in it, and who may write there.

    config.json       the resolved config
    environment.json  command, versions, devices and commit of each session
    data.json         the fingerprint of the examples, see `data.fingerprint`
    metrics.jsonl     the records
    tensorboard/      the same as events
    checkpoints/      see `checkpoints`
    tickets/          masks of each level
    registered/       files that register what the config uses, see `config.kept`
    report/           figures and tables

A folder belongs to one experiment. It is continued by the same one, on the same data,
and refused to any other, unless no step was trained in it: then it is begun anew. Two
processes never write there at once.
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
from jaxsparse import hosts, records
from jaxsparse.data import datasets, fingerprint
from jaxsparse.data.examples import Dataset
from jaxsparse.training import checkpoints

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxsparse", "numpy")

# What locking a file raises that another process has locked; anything else is a disk
# that knows no locks.
TAKEN = (BlockingIOError, PermissionError)
DATA = "data.json"
SECONDS_BEHIND = 60  # that a shared folder may be behind
# How the names begin of what a run has in these folders before its first step.
BEFORE_STEPS = {"checkpoints": "init", "tickets": "level_00"}

log = logging.getLogger(__name__)


@contextmanager
def opened(
    workdir: Path,
    config: ConfigDict,
    *,
    command: str,
    arrangement: Mapping[str, Any],
    dataset: Dataset | None = None,
) -> Iterator[None]:
    """Takes possession of a folder for one session of an experiment.

    Args:
      workdir: the folder; made if it is not there.
      config: the resolved config.
      command: the command line, for the record.
      arrangement: how work is laid out on the devices, for the record.
      dataset: what is trained on, which must not change between sessions; None to
        neither record nor compare it.

    Raises:
      ValueError: if the folder belongs to another experiment, naming the fields that
        differ, if the data are not those it was begun with, or if another process is
        at work in it.
      OSError: if it cannot be written to.
    """
    locks: list[Any] = []
    hosts.do(lambda: locks.append(_take(workdir)))
    try:
        resolved = json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)

        def write() -> None:
            check_same(workdir, config)
            data = None if dataset is None else _describe(dataset, config)
            try:
                _check_start(workdir, arrangement)
                _check_data(workdir, data)
                same = not _differences(workdir, config)
            except ValueError:
                same = False
                if has_trained(workdir):
                    raise
            if not same:
                _begin_anew(workdir)
            records.write_atomically(workdir / "config.json", resolved + "\n")
            config_lib.kept.write(workdir, config)
            if data is not None:
                text = json.dumps(data, indent=1) + "\n"
                records.write_atomically(workdir / DATA, text)
            _write_environment(workdir / "environment.json", command, arrangement)

        hosts.do(write)
        _check_shared(workdir / "config.json")
        yield
    finally:
        for lock in locks:
            lock.close()


def _describe(dataset: Dataset, config: ConfigDict) -> dict[str, Any]:
    """Returns the fingerprint of examples, and of the files they were read from."""
    c = config.data
    # Of images left in files contents are not read; what a user's own function reads
    # is for it to know.
    own = c.name in config_lib.DATASETS and c.name not in datasets.READERS
    known = not c.size and not own
    files = fingerprint.of_files(c.name, data_dir=c.dir or None) if known else None
    return fingerprint.of(dataset) | {"files": files}


def _check_shared(written: Path) -> None:
    """Refuses a folder that other processes do not see."""
    patience = time.monotonic() + SECONDS_BEHIND
    while not written.exists() and time.monotonic() < patience:
        time.sleep(0.2)
    if not hosts.all_have(written if written.exists() else None):
        raise ValueError(
            f"--workdir: {written.parent} is not one folder for all processes, of "
            "which the first writes there; wanted one on a disk that all hosts share"
        )


def _take(workdir: Path) -> Any:
    """Makes a folder if it is not there, and locks it."""
    checkpoints.check_path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise OSError(
            f"--workdir: {workdir} cannot be written to ({error.strerror}); wanted a "
            "folder of yours on a disk with room; choose one with --workdir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except TAKEN as error:
        lock.close()
        raise ValueError(
            f"--workdir: another process is running in {workdir}; wait for it to end, "
            "or choose another --workdir; if its machine is gone and a network's disk "
            f"still keeps its lock, remove {workdir / '.lock'}"
        ) from error
    except OSError as error:  # disks of some clusters know no locks
        log.warning(
            "--workdir: %s cannot be locked (%s); nothing keeps a second process from "
            "writing there too",
            *(workdir, error.strerror),
        )
    return lock


def check_same(workdir: Path, config: ConfigDict) -> None:
    """Refuses a folder of another experiment; changes nothing.

    Raises:
      ValueError: naming the scientific fields that differ; or if checkpoints could not
        be read again under its path.
    """
    checkpoints.check_path(workdir)
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
    """Lists the scientific fields in which a folder's config differs from another."""
    path = workdir / "config.json"
    if not path.exists():
        return []
    try:
        old = records.read_object(path)
    except ValueError as error:
        raise ValueError(f"--workdir: {error}, or choose another --workdir") from error
    if not isinstance(old.get("training"), dict):
        raise ValueError(
            f"--workdir: {path} is no config of a run; expected an empty folder, or "
            "that of a run; choose another --workdir"
        )
    return list(config_lib.differences(old, json.loads(config.to_json())))


def has_trained(workdir: Path) -> bool:
    """Says whether a step was trained in a folder, as far as anything there shows it.

    A folder that a run only claimed, and in which it was then refused, may be reused.
    What no claim leaves there, also without its note, or of another program, counts as
    trained, so that it is never removed.

    Raises:
      ValueError: if its records are damaged.
      OSError: if they cannot be read.
    """
    for name, begins in BEFORE_STEPS.items():
        there = (workdir / name).iterdir() if (workdir / name).exists() else ()
        if not all(path.name.startswith(begins) for path in there):
            return True
    rows = records.read(workdir / "metrics.jsonl")
    return any(row.get("kind") != "eval" or row.get("step") for row in rows)


def _begin_anew(workdir: Path) -> None:
    """Removes what a run wrote that did not train a step."""
    log.warning("%s: no step was trained there; its run is begun anew", workdir)
    for name in ("checkpoints", "tickets", config_lib.kept.FOLDER):
        if (workdir / name).exists():
            shutil.rmtree(workdir / name)
    for name in ("metrics.jsonl", "rescaling.json", DATA):
        (workdir / name).unlink(missing_ok=True)


def _check_data(workdir: Path, data: fingerprint.Fingerprint | None) -> None:
    """Refuses to go on with other examples than a run was begun with."""
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
    """Words how examples differ from those of a run; [] if it did not record any.

    Args:
      workdir: folder of the run.
      data: what `fingerprint.of` returns of the examples.

    Raises:
      ValueError: if what was recorded is damaged.
    """
    path = workdir / DATA
    if not path.exists():  # a run of an older version
        return []
    try:
        return fingerprint.differences(records.read_object(path), data)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; restore it, or remove it to go on without a comparison"
        ) from error


def recorded_sizes(workdir: Path) -> fingerprint.Sizes | None:
    """Reads the sizes of the data that a run was begun with; None if not recorded.

    Raises:
      ValueError: if what was recorded is damaged.
    """
    path = workdir / DATA
    if not path.exists():
        return None
    try:
        return fingerprint.sizes(records.read_object(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; restore it, or give the run's command again without it"
        ) from error


def starts_from(workdir: Path) -> dict[str, Any]:
    """Returns the hashes a run was recorded to start from; empty for none."""
    try:
        found = records.read_object(workdir / "environment.json")
        return dict(found["arrangement"].get("starts_from", {}))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _check_start(workdir: Path, arrangement: Mapping[str, Any]) -> None:
    """Refuses to go on where the run that this one started from has changed."""
    old, new = starts_from(workdir), arrangement.get("starts_from", {})
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            raise ValueError(
                f"config.start, {name}: {workdir} began with {old[name]}, and now they "
                f"are {new[name]}; wanted the same: restore the run, or the scores, "
                "that this one starts from, or choose another --workdir"
            )


def _write_environment(
    path: Path, command: str, arrangement: Mapping[str, Any]
) -> None:
    earlier = []
    if path.exists():
        try:
            old = records.read_object(path)
            earlier = [*old.pop("earlier", []), old]
        except (ValueError, TypeError) as error:
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
        "arrangement": dict(arrangement),
        "registered": config_lib.describe(),
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
    }
    text = json.dumps(now | {"earlier": earlier}, indent=2)
    records.write_atomically(path, text + "\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Returns the commit of the code that runs, marked if it was changed since."""
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
