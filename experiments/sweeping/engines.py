"""Who runs the runs of a grid: submitit, in local processes or on Slurm."""

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

ENGINES = ("local", "slurm")


class Commands:
    """Commands that run one after the other, as one job.

    Each continues where it was stopped, so that a job that is given again does what is
    left to do.
    """

    def __init__(self, commands: Sequence[tuple[Path, list[str]]]) -> None:
        """Takes commands, each with the folder that it works in."""
        self._commands = list(commands)
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> dict[str, int]:
        """Runs them; returns with what each ended, by the name of its folder."""
        codes = {}
        for folder, command in self._commands:
            _wait_for(folder)
            print(shlex.join(command), flush=True)
            self._child = subprocess.Popen(command)
            codes[folder.name] = self._child.wait()
        return codes

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Saves what runs when time is up, and asks for more; submitit calls this."""
        if self._child is not None:
            self._child.terminate()
            self._child.wait()
        return submitit.helpers.DelayedSubmission(Commands(self._commands))


def _wait_for(folder: Path) -> None:
    """Waits while another process is at work in the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


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
      engine: one of `ENGINES`. Locally each of the jobs has its part of the commands;
        on Slurm each command is a job of an array.
      jobs: how many run at once.
      logs: folder of what jobs print.
      options: of submitit's `update_parameters`, such as timeout_min, gpus_per_node
        or slurm_partition.

    Returns:
      With what each command ended, by the name of its folder; 1 for those whose job was
      lost.
    """
    if not commands:
        return {}
    root = Path(__file__).resolve().parent.parent.parent
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for what submitit starts
    executor = submitit.AutoExecutor(folder=logs, cluster=engine)
    common = {"timeout_min": 60 * 24, "name": "jaxsparse"}
    if engine == "slurm":
        common["slurm_array_parallelism"] = jobs
        parts = [[command] for command in commands]
    else:
        parts = [list(commands[i::jobs]) for i in range(min(jobs, len(commands)))]
    executor.update_parameters(**common | options)
    with executor.batch():
        launched = [executor.submit(Commands(part)) for part in parts]
    codes: dict[str, int] = {}
    try:
        for job, part in zip(launched, parts, strict=True):
            try:
                codes |= job.result()
            except (submitit.core.utils.UncompletedJobError, RuntimeError) as error:
                line = str(error).splitlines()[0]
                print(f"job {job.job_id}: {line}; see {logs}", file=sys.stderr)
                codes |= {folder.name: 1 for folder, _ in part}
    except KeyboardInterrupt:
        for job in launched:
            job.cancel()
        raise
    return codes
