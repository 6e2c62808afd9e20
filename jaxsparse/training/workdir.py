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
same time, where the file system supports locks (`run_lock`).
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import metrics_log, multihost
from jaxsparse.data import fingerprint
from jaxsparse.data.dataset import Dataset
from jaxsparse.training import data_record, environment, run_lock, run_paths

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
    multihost.on_primary(lambda: locks.append(run_lock.acquire(workdir)))
    try:

        def write() -> None:
            check_same(workdir, config)
            data = None if dataset is None else data_record.describe(dataset, config)
            _reuse_or_clear(workdir, config, data, execution_plan)
            _write_config(workdir, config)
            if data is not None:
                data_record.write(workdir, data)
            environment.write(workdir / environment.FILE, command, execution_plan)

        multihost.on_primary(write)
        check_shared(workdir / "config.json")
        yield
    finally:
        for lock in locks:
            lock.close()


def _reuse_or_clear(
    workdir: Path,
    config: ConfigDict,
    data: fingerprint.Fingerprint | None,
    execution_plan: Mapping[str, Any],
) -> None:
    """Removes the files of another run that did not train a step.

    Args:
      workdir: the run directory.
      config: the resolved config.
      data: fingerprint of the examples; None compares none.
      execution_plan: how the work is laid out, with hashes of what the run starts from.

    Raises:
      ValueError: if the run directory does not match and a step was trained there.
    """
    try:
        environment.check_start(workdir, execution_plan)
        data_record.check(workdir, data)
        same = not _differences(workdir, config)
    except ValueError:
        if has_trained(workdir):
            raise
        same = False
    if not same:
        _begin_anew(workdir)


def _write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes the config, and the files that register what it uses."""
    resolved = json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)
    metrics_log.write_atomically(workdir / "config.json", resolved + "\n")
    config_lib.kept.write(workdir, config)


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
            f"--workdir: expected the config.json of the run in {workdir}, got none; "
            "restore it, or choose another --workdir"
        )
    found = _differences(workdir, config)
    if found and has_trained(workdir):
        each = "; ".join(
            f"config.{name}: there {a!r}, here {b!r}" for name, a, b in found
        )
        raise ValueError(
            f"--workdir: expected equal scientific fields in {workdir}, got another "
            f"experiment: {each}; choose another --workdir, or leave it out for a "
            "directory named by the config"
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
            f"--workdir: expected an empty directory or that of a run, got {path}, "
            "which is not the config of a run; choose another --workdir"
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
    for name in ("metrics.jsonl", "gradinit.json", "rescaling.json", data_record.FILE):
        (workdir / name).unlink(missing_ok=True)


def check_shared(written: Path) -> None:
    """Checks that every process sees a file that the primary process has written.

    Args:
      written: path of the file.

    Raises:
      ValueError: if a process does not see it after `SECONDS_BEHIND` seconds.
    """
    patience = time.monotonic() + SECONDS_BEHIND
    while not written.exists() and time.monotonic() < patience:
        time.sleep(0.2)
    if not multihost.on_all(written if written.exists() else None):
        raise ValueError(
            "--workdir: expected one folder on a disk that all hosts share, got "
            f"{written.parent}, in which not all processes see what the first wrote; "
            "choose another"
        )
