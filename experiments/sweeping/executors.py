"""Runs the runs of a sweep by submitit, in local processes or on Slurm."""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from experiments.sweeping import gpus, monitor
from jaxsparse.training import run_lock, signals

SECONDS_BETWEEN_LOOKS = 1.0  # at the progress of the runs
DAY = 60 * 24  # in minutes, as all times of submitit


class Commands:
    """Commands that run one after the other, as one job.

    Each command continues where it was stopped. A job that is submitted again therefore
    does the rest of its work.
    """

    def __init__(
        self,
        commands: Sequence[tuple[Path, list[str]]],
        environment: Mapping[str, str | None] | None = None,
        codes: Path | None = None,
    ) -> None:
        """Stores the commands.

        Args:
          commands: pairs of a run directory and the command that runs there.
          environment: environment variables of the commands; None as a value removes a
            variable.
          codes: folder for the exit codes (see `monitor`); None not to write them.
        """
        self._commands, self._environment = list(commands), dict(environment or {})
        self._codes = codes
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> dict[str, int]:
        """Runs the commands, until one is stopped by a signal.

        Returns:
          The exit codes of all started commands, by name of the run directory.
        """
        codes: dict[str, int] = {}
        for folder, command in self._commands:
            self._write_code(folder.name, None)
            codes[folder.name] = code = self._run(folder, command)
            self._write_code(folder.name, code)
            if code in signals.STOPPED:
                break
        return codes

    def _write_code(self, name: str, code: int | None) -> None:
        if self._codes is not None:
            monitor.write_code(self._codes, name, code)

    def _run(self, folder: Path, command: list[str]) -> int:
        """Runs a command; again if another process was using its run directory."""
        changes = self._environment
        environment = os.environ | {k: v for k, v in changes.items() if v is not None}
        for name in (name for name, value in changes.items() if value is None):
            environment.pop(name, None)
        while True:
            _wait_for_lock(folder)
            print(shlex.join(command), flush=True)
            self._child = subprocess.Popen(command, env=environment)
            try:
                code = self._child.wait()
            except KeyboardInterrupt:
                self._stop()
                raise
            if not (code and _is_locked(folder)):
                return code

    def _stop(self) -> None:
        """Makes the child save its state and end."""
        if self._child is None or self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._child.pid, signal.SIGTERM)
            # Not `Popen.wait`: the interrupted call of it may hold its lock.
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Stops the running command and submits the job again.

        submitit calls this method before the time limit of a job.
        """
        self._stop()
        return submitit.helpers.DelayedSubmission(
            Commands(self._commands, self._environment, self._codes)
        )


def _wait_for_lock(folder: Path) -> None:
    """Waits while another process uses a run directory."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock, contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX)  # disks of some clusters have no locks


def _is_locked(folder: Path) -> bool:
    """True while a process uses a run directory."""
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except run_lock.TAKEN:
            return True
        except OSError:
            return False
    return False


def run_all(
    commands: Sequence[tuple[Path, list[str]]],
    *,
    executor: str,
    jobs: int,
    logs: Path,
    options: dict[str, Any],
) -> dict[str, int]:
    """Runs commands, some of them at once, and waits until all have ended.

    Args:
      commands: pairs of a run directory and the command that runs there.
      executor: one of `sweeping.EXECUTORS`. Local jobs divide the commands and the GPUs
        among them. On Slurm each command is a job of an array.
      jobs: number of jobs that run at once.
      logs: folder for the output of the jobs.
      options: options of submitit's `update_parameters`, such as timeout_min or, on
        Slurm, gpus_per_node and slurm_partition.

    Returns:
      The exit code of each command by name of its run directory: 1 if its job was lost,
      75 if it was not started.

    Raises:
      ValueError: if submitit refuses the options, if an option asks for GPUs of local
        jobs, or if there are fewer GPUs or TPUs than local jobs.
    """
    if not commands:
        return {}
    root = Path(__file__).resolve().parent.parent.parent
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for the jobs
    # A new folder each time, because submitit numbers local jobs from the start.
    logs = logs / str(time.time_ns())
    codes = logs / "codes"
    if executor == "slurm":
        parts = [[command] for command in commands]
        common = {"timeout_min": DAY, "slurm_array_parallelism": jobs}
        environments: list[dict[str, str | None]] = [{}] * len(parts)
    else:
        jobs = min(jobs, len(commands))
        parts = [list(commands[i::jobs]) for i in range(jobs)]
        common = {"timeout_min": 365 * DAY}  # local jobs have no time limit
        environments = _local_environments(jobs, options)
    launched = _submit(
        [Commands(p, e, codes) for p, e in zip(parts, environments, strict=True)],
        *(executor, logs),
        options=common | {"name": "jaxsparse"} | options,
        given=options,
    )
    print(f"the output of the runs is in {logs}", file=sys.stderr)
    found = {folder.name: signals.EXITS[signal.SIGTERM] for folder, _ in commands}
    try:
        _wait(launched, monitor.SweepProgress(len(commands)), codes)
        for job, part in zip(launched, parts, strict=True):
            found |= _exit_codes(job, part)
    except (KeyboardInterrupt, SystemExit):
        for job in launched:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                job.cancel()
        raise
    return found


def _local_environments(
    jobs: int, options: Mapping[str, Any]
) -> list[dict[str, str | None]]:
    if "gpus_per_node" in options:
        raise ValueError(
            "--option: expected no gpus_per_node for local jobs, each of which would "
            f"have the same GPUs, got {options['gpus_per_node']!r}; set {gpus.VISIBLE} "
            "to the GPUs that the jobs divide among them"
        )
    return gpus.divide(jobs, os.environ)  # submitit would hide them


def _submit(
    jobs: Sequence[Commands],
    executor: str,
    logs: Path,
    *,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
) -> list[Any]:
    try:
        submitting = submitit.AutoExecutor(logs, cluster=executor)
        submitting.update_parameters(**options)
        with submitting.batch():
            return [submitting.submit(job) for job in jobs]
    except Exception as error:  # submitit raises errors of many types
        raise ValueError(
            "--executor, --option: expected options of submitit's "
            f"AutoExecutor.update_parameters, got {executor!r} with {dict(given)}; "
            f"submitit says: {error}"
        ) from error


def _wait(launched: Sequence[Any], shown: monitor.SweepProgress, codes: Path) -> None:
    """Shows the progress until all jobs have ended."""
    try:
        while True:
            ended = all([job.done() for job in launched])
            shown.show(monitor.read_codes(codes))
            if ended:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        shown.close()


def _exit_codes(job: Any, part: Sequence[tuple[Path, list[str]]]) -> dict[str, int]:
    """Waits for a job, and returns the exit code of each of its commands.

    If several processes ran a command, its exit code is the largest of theirs.
    """
    try:
        each = job.results()
    except Exception as error:  # an error of the job, or the job is lost
        line = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"job {job.job_id}: {line}; see {job.paths.folder}", file=sys.stderr)
        return {folder.name: 1 for folder, _ in part}
    names = {name for codes in each for name in codes}
    return {name: max(codes.get(name, 1) for codes in each) for name in names}
