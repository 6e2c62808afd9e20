"""Who runs the runs of a grid: submitit, in local processes or on Slurm."""

import contextlib
import fcntl
import importlib.util
import itertools
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

from experiments.sweeping import showing
from jaxsparse import multihost
from jaxsparse.training import run_lock, signals

GPUS = "CUDA_VISIBLE_DEVICES"
CARDS = Path("/proc/driver/nvidia/gpus")  # where the driver lists them
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# What has JAX leave memory of a GPU to other processes: a fraction, by its new name or
# the old one, or one of these values.
FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
SHARES = (
    ("XLA_PYTHON_CLIENT_PREALLOCATE", ("0", "false")),
    ("XLA_PYTHON_CLIENT_ALLOCATOR", ("platform",)),
)
SECONDS_BETWEEN_LOOKS = 1.0  # at how far the runs are
YEAR = 60 * 24 * 365  # minutes, for local jobs, which end when they end


class Commands:
    """Commands that run one after the other, as one job.

    Each continues where it was stopped, so that a job that is given again does what is
    left to do.
    """

    def __init__(
        self,
        commands: Sequence[tuple[Path, list[str]]],
        environment: Mapping[str, str | None] | None = None,
        notes: Path | None = None,
    ) -> None:
        """Takes commands, each with the folder that it works in.

        Args:
          commands: what to run.
          environment: variables that they are to have; None for those that they are
            not to have.
          notes: folder to note in what was begun and has ended; None for no notes.
        """
        self._commands, self._changes = list(commands), dict(environment or {})
        self._notes = notes
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> dict[str, int]:
        """Runs them, up to one that was told to stop.

        Returns:
          With what each that was begun ended, by the name of its folder.
        """
        codes: dict[str, int] = {}
        for folder, command in self._commands:
            self._note(folder.name, None)
            codes[folder.name] = code = self._run(folder, command)
            self._note(folder.name, code)
            if code in signals.STOPPED:
                break
        return codes

    def _note(self, name: str, code: int | None) -> None:
        if self._notes is not None:
            showing.note(self._notes, name, code)

    def _run(self, folder: Path, command: list[str]) -> int:
        """Runs one, again if another process was at work in its folder first."""
        environment = os.environ | {k: v for k, v in self._changes.items() if v}
        for name in (name for name, value in self._changes.items() if value is None):
            environment.pop(name, None)
        while True:
            _wait_for(folder)
            print(shlex.join(command), flush=True)
            self._child = subprocess.Popen(command, env=environment)
            try:
                code = self._child.wait()
            except KeyboardInterrupt:
                self._stop()
                raise
            if not (code and _is_taken(folder)):
                return code

    def _stop(self) -> None:
        """Has the child save and end. Its lock may be held here by `wait`."""
        if self._child is None or self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._child.pid, signal.SIGTERM)
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Saves what runs when time is up, and asks for more; submitit calls this."""
        self._stop()
        return submitit.helpers.DelayedSubmission(
            Commands(self._commands, self._changes, self._notes)
        )


def _wait_for(folder: Path) -> None:
    """Waits while another process is at work in the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock, contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX)  # disks of some clusters know no locks


def _is_taken(folder: Path) -> bool:
    """Says whether a process is at work in the folder of a run."""
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
    engine: str,
    jobs: int,
    logs: Path,
    options: dict[str, Any],
) -> dict[str, int]:
    """Runs commands, so many at once, and waits for all.

    Args:
      commands: each with the folder that it works in.
      engine: one of `sweeping.ENGINES`. Locally each of the jobs has its part of the
        commands and of the GPUs; on Slurm each command is a job of an array.
      jobs: how many run at once.
      logs: folder of what jobs print.
      options: of submitit's `update_parameters`, such as timeout_min or, on Slurm,
        gpus_per_node and slurm_partition.

    Returns:
      With what each command ended, by the name of its folder; 1 for those whose job was
      lost, and 75 for those that were not begun.

    Raises:
      ValueError: if submitit cannot launch them with these options, if local jobs are
        to have GPUs by an option, or if they are more than there are GPUs or TPUs for.
    """
    if not commands:
        return {}
    root = Path(__file__).resolve().parent.parent.parent
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for what submitit starts
    common: dict[str, Any] = {"timeout_min": 60 * 24, "name": "jaxsparse"}
    environments: list[dict[str, str | None]] = [{}] * len(commands)
    if engine == "slurm":
        common["slurm_array_parallelism"] = jobs
        parts = [[command] for command in commands]
    else:
        common["timeout_min"] = YEAR
        jobs = min(jobs, len(commands))
        parts = [list(commands[i::jobs]) for i in range(jobs)]
        if "gpus_per_node" in options:
            raise ValueError(
                "--option: came 'gpus_per_node' for local jobs, of which each would "
                f"have the first so many; wanted {GPUS}, whose GPUs they share out"
            )
        environments = divide_gpus(jobs, os.environ)  # submitit would hide them
    try:
        # A folder for each launch: the numbers of local jobs come again.
        folder_of_logs = logs / str(time.time_ns())
        executor = submitit.AutoExecutor(folder_of_logs, cluster=engine)
        executor.update_parameters(**common | options)
        with executor.batch():
            launched = [
                executor.submit(Commands(part, has, folder_of_logs / "notes"))
                for part, has in zip(parts, environments, strict=True)
            ]
    except Exception as error:  # of many kinds, as to what is wrong
        raise ValueError(
            f"--engine, --option: came {engine!r} with {options}, and submitit says: "
            f"{error}; wanted what its AutoExecutor.update_parameters takes"
        ) from error
    codes = {folder.name: 75 for folder, _ in commands}
    print(f"what the runs print goes to {folder_of_logs}", file=sys.stderr)
    shown = showing.SweepProgress(len(commands), jobs=jobs)
    try:
        _wait(launched, shown, folder_of_logs / "notes")
        for job, part in zip(launched, parts, strict=True):
            codes |= _result(job, part)
    except (KeyboardInterrupt, SystemExit):
        for job in launched:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                job.cancel()
        raise
    return codes


def _wait(launched: Sequence[Any], shown: showing.SweepProgress, notes: Path) -> None:
    """Shows how far the runs are until all jobs have ended."""
    try:
        while True:
            ended = all([job.done() for job in launched])
            shown.show(showing.read(notes))
            if ended:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        shown.close()


def divide_gpus(
    jobs: int, environment: Mapping[str, str], *, cards: Path = CARDS
) -> list[dict[str, str | None]]:
    """Says which GPUs each local job sees.

    Args:
      jobs: how many run at once.
      environment: variables; CUDA_VISIBLE_DEVICES may name those to be shared out.
      cards: folder with an entry for each GPU.

    Returns:
      For each job the variable that says so: GPUs of its own; all of them for one job,
      or where JAX has no way to use them. Several jobs have one together only where
      JAX is told to leave memory to others.

    Raises:
      ValueError: if there are fewer GPUs than jobs, or a TPU, which serves one process.
    """
    named = environment.get(GPUS)
    whole: list[dict[str, str | None]] = [{GPUS: named}] * jobs
    if jobs == 1 or environment.get("JAX_PLATFORMS") == "cpu":
        return whole
    if _has("libtpu") and multihost.on_tpu(environment):
        raise ValueError(
            f"--jobs: came {jobs} on a TPU, which serves one process; wanted 1, or "
            "JAX_PLATFORMS=cpu"
        )
    if not any(map(_has, PLUGINS)):
        return whole
    if named is None:
        there = [str(i) for i in range(len(list(cards.glob("*"))))]
    else:  # CUDA stops at the first that it does not know, as -1
        words = map(str.strip, named.split(","))
        there = list(itertools.takewhile(lambda w: w and w[0] != "-", words))
    if not there:
        return whole
    if jobs <= len(there):
        return [{GPUS: ",".join(there[i::jobs])} for i in range(jobs)]
    shares = any(environment.get(name) for name in FRACTIONS) or any(
        environment.get(name, "").lower() in wanted for name, wanted in SHARES
    )
    if shares:
        return [{GPUS: there[i % len(there)]} for i in range(jobs)]
    raise ValueError(
        f"--jobs: came {jobs} with {len(there)} GPUs; wanted at most as many, as a "
        f"process takes most of a GPU's memory; or {FRACTIONS[0]}=0.4, say, so that "
        "two share one; or JAX_PLATFORMS=cpu"
    )


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _result(job: Any, part: Sequence[tuple[Path, list[str]]]) -> dict[str, int]:
    """Waits for a job; of several processes that ran one command, the worst counts."""
    try:
        each = job.results()
    except Exception as error:  # what a job raised, or that it is lost
        line = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"job {job.job_id}: {line}; see {job.paths.folder}", file=sys.stderr)
        return {folder.name: 1 for folder, _ in part}
    names = {name for codes in each for name in codes}
    return {name: max(codes.get(name, 1) for codes in each) for name in names}
