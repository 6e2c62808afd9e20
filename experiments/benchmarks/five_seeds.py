"""The fastest way to train five seeds of ResNet-8 on the cores of one machine.

One process may use all cores, or each core may have a process of its own, which then
trains other seeds or another variant. At most `MOST_CORES` cores are used. Processes
are started once and take turns.
"""

import contextlib
import itertools
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from experiments.benchmarks import fixtures, small_resnet, timing
from experiments.benchmarks.timing import Table

TITLE = "Five seeds of ResNet-8, width 8, images of 16 x 16 x 3, on the cores"
MOST_CORES = 8  # used, so that processes of one core each do not fill the memory


class Way(NamedTuple):
    """A way to train.

    Attributes:
      name: the row of the table.
      processes: the cores of each process.
      replicates: seeds in the program of each process.
    """

    name: str
    processes: tuple[tuple[int, ...], ...]
    replicates: int


def ways(cores: Sequence[int], *, replicates: int = 5) -> list[Way]:
    """Lists the ways, of which the table compares all with the second.

    Args:
      cores: the cores to use.
      replicates: seeds where one program trains several.
    """
    together = f"{replicates} in one program"
    count = len(cores)
    one = f"1 process of {count} cores"
    each = f"{count} processes of 1 core"
    every = (tuple(cores),)
    single = tuple((core,) for core in cores)
    return [
        Way(f"{one}, seeds in turn", every, 1),
        Way(f"{one}, {together}", every, replicates),
        Way(f"{each}, seeds in turn", single, 1),
        Way(f"{each}, {together} each", single, replicates),
    ]


def measure(*, seconds: float, repetitions: int = 5) -> list[Table]:
    """Times each way, or returns a table that says why not.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
    """
    if not fixtures.on_cpu():
        return [timing.absent_table(TITLE, "not measured: only on CPUs")]
    if not hasattr(os, "sched_setaffinity"):
        reason = "not measured: this system cannot give a process cores"
        return [timing.absent_table(TITLE, reason)]
    cores = sorted(os.sched_getaffinity(0))[:MOST_CORES]
    if len(cores) < 2:
        reason = "not measured: one core cannot be divided among processes"
        return [timing.absent_table(TITLE, reason)]
    compared = ways(cores)
    started = {way.name: start(way) for way in compared}
    rates: dict[str, list[float]] = {name: [] for name in started}
    for _ in range(repetitions):
        for name, connections in started.items():
            rates[name].append(take_turn(connections, seconds / repetitions))
    for connection in itertools.chain(*started.values()):
        with contextlib.suppress(OSError):  # of a process that has ended
            connection.send(None)
    note = (
        "Steps of one seed in a second, all processes of a row together. Batches of "
        "128, 20 % of the weights, SGD. `reproduce.py` uses the cores of its process: "
        "start one on each core, with other runs in `--only`. Ratios are of the same "
        f"turns; at most {MOST_CORES} cores are used."
    )
    base = compared[1].name  # what `reproduce.py` does in one process
    return [timing.rate_table(TITLE, rates, unit="steps/s", base=base, note=note)]


def start(way: Way) -> list[Connection]:
    """Starts the processes of a way, and waits until each has compiled its program.

    Args:
      way: the way to train.
    """
    context = multiprocessing.get_context("spawn")  # JAX must not be forked
    connections = []
    for cores in way.processes:
        ours, theirs = context.Pipe()
        arguments = (theirs, cores, way.replicates)
        context.Process(target=serve, args=arguments, daemon=True).start()
        theirs.close()
        connections.append(ours)
    take_turn(connections, 0.0)
    return connections


def take_turn(connections: Sequence[Connection], seconds: float) -> float:
    """Has processes train at the same time, and adds up their rates.

    Args:
      connections: one to each process.
      seconds: time to train.

    Returns:
      Steps of one seed in a second.

    Raises:
      RuntimeError: if a process has ended.
    """
    time.sleep(timing.PAUSE)
    try:
        for connection in connections:
            connection.send(seconds)
        return sum(connection.recv() for connection in connections)
    except (EOFError, OSError):
        raise RuntimeError(
            "a process ended before its turn; see its error above"
        ) from None


def serve(
    connection: Connection,
    cores: Sequence[int],
    replicates: int,
    *,
    batch_size: int = 128,
    steps: int = 10,
) -> None:
    """Trains whenever asked to, until asked to stop.

    Args:
      connection: brings the seconds of each turn, and None to stop; takes the steps of
        one seed in a second.
      cores: the cores to use.
      replicates: seeds in one program.
      batch_size: examples in a step.
      steps: steps in a call.
    """
    os.sched_setaffinity(0, cores)  # before JAX starts as many threads as it has cores
    made = small_resnet.resnet_8(replicates, batch_size=batch_size, steps=steps)
    job = fixtures.trainer_job(made)
    job.run(1)  # compiles
    while (seconds := connection.recv()) is not None:
        start = time.perf_counter()
        work = elapsed = 0.0
        while work == 0 or elapsed < seconds:
            job.run(1)
            work += job.work
            elapsed = time.perf_counter() - start
        connection.send(work / elapsed)
