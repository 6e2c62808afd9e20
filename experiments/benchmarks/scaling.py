"""Training divided over devices: strong and weak scaling, and what devices exchange.

Strong scaling divides one batch over more devices; weak scaling gives each device a
batch of its own. What a compiled step computes, reads and sends holds wherever it is
compiled; times are given for real devices only, because forced host devices share the
cores of one machine. Where there is one device on a CPU, what is compiled is read in a
second process, which is made to show more.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.benchmarks import collectives, fixtures, timing
from experiments.benchmarks.timing import Table

ROOT = Path(__file__).resolve().parent.parent.parent
COUNTS = (1, 2, 4, 8)
NETWORKS = ("lenet_300_100", "resnet_20")
WAYS = {
    "strong": "one batch of {size} divided",
    "weak": "{size} examples on each device",
    "replicates": "one replicate on each device, batches of {size}",
}
PATIENCE = 1200  # seconds for the second process


class Case(NamedTuple):
    """One program.

    Attributes:
      network: one of `rigs.SHAPES`.
      way: one of `WAYS`.
      devices: how many train.
      size: examples in a batch; on each device in weak scaling.
    """

    network: str
    way: str
    devices: int
    size: int

    def rig(self, *, steps: int) -> fixtures.Rig:
        """Builds what trains, for calls of so many steps."""
        weak, many = self.way == "weak", self.way == "replicates"
        c = fixtures.recipe(
            self.network,
            replicates=self.devices if many else 1,
            batch_size=self.size * (self.devices if weak else 1),
            steps=steps,
            devices=self.devices,
        )
        shape, size = fixtures.SHAPES[self.network], c.data.batch_size
        return fixtures.make(c, fixtures.random_dataset(shape, examples=size * steps))

    @property
    def examples(self) -> int:
        """Examples that a step trains on, of all replicates."""
        return self.size * (1 if self.way == "strong" else self.devices)


def cases(
    networks: tuple[str, ...], size: int, devices: int
) -> Iterator[tuple[str, str, list[Case]]]:
    """Yields a network, a way, and what is compared, over devices that are there."""
    for network in networks:
        for way in WAYS:
            counts = [n for n in COUNTS if n <= devices]
            if way == "replicates":  # these exchange nothing, however many
                counts = [counts[0], counts[-1]]
            yield network, way, [Case(network, way, n, size) for n in counts]


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    networks: tuple[str, ...] = NETWORKS,
    size: int = 128,
    steps: int = 50,
) -> list[Table]:
    """Reads compiled steps, and times training where devices are real.

    Args:
      seconds: for each row that is timed, over its repetitions.
      repetitions: turns of each row.
      networks: which to train.
      size: examples in a batch; on each device in weak scaling.
      steps: in one call, where training is timed.
    """
    forced = jax.default_backend() == "cpu"
    if jax.device_count() > 1:
        tables = read_all(networks=networks, size=size)
    else:
        return _elsewhere(networks, size)
    if forced:
        return tables
    for network, way, compared in cases(networks, size, jax.device_count()):
        times = {"seconds": seconds, "repetitions": repetitions, "steps": steps}
        tables.append(_times(network, way, compared, **times))
    return tables


def _times(
    network: str,
    way: str,
    compared: list[Case],
    *,
    seconds: float,
    repetitions: int,
    steps: int,
) -> Table:
    """Times training on more and more devices."""
    jobs = {}
    for case in compared:
        job = fixtures.trainer_job(case.rig(steps=steps))
        jobs[case.devices] = job._replace(work=case.examples * steps)
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    rows = []
    for count, values in rates.items():
        gains = timing.ratios(values, rates[1])
        shares = [gain / count for gain in gains]
        cells = [timing.spread(values), timing.spread(gains, 2)]
        rows.append((str(count), *cells, timing.spread(shares, 2)))
    header = ("devices", "examples/s", "times those of one", "of which each device")
    title = f"Scaling, {_words(network, way, compared)}: times"
    data = {"rates": {str(count): values for count, values in rates.items()}}
    return Table(title, header, rows, "", data)


def _words(network: str, way: str, compared: list[Case]) -> str:
    return f"{way}, {network}, {WAYS[way].format(size=compared[0].size)}"


def read_all(*, networks: tuple[str, ...], size: int) -> list[Table]:
    """Reads the compiled steps of every way over the devices of this process."""
    return [
        _facts(network, way, compared)
        for network, way, compared in cases(networks, size, jax.device_count())
    ]


def _facts(network: str, way: str, compared: list[Case]) -> Table:
    found = [_read(case if case.devices > 1 else _alone(case)) for case in compared]
    one = found[0]["flops"]
    rows = [
        (
            str(case.devices),
            f"{facts['flops'] / 1e6:,.1f}",
            f"{facts['flops'] / one:.3f}",
            f"{facts['accessed'] / 1e6:,.1f}",
            ", ".join(f"{n} {kind}" for kind, n in facts["counts"].items()) or "none",
            f"{facts['bytes']:,}",
            f"{facts['sent']:,.0f}",
        )
        for case, facts in zip(compared, found, strict=True)
    ]
    header = (
        "devices",
        "MFLOP a device",
        "of one device's",
        "MB accessed a device",
        "collectives a step",
        "bytes in them",
        "bytes sent a device (ring)",
    )
    note = (
        f"One step, compiled. The network has {found[0]['params']:,} bytes of "
        "parameters, and of running statistics of BatchNorm "
        f"{found[0]['stats']:,}."
    )
    title = f"Scaling, {_words(network, way, compared)}: compiled"
    data = {str(c.devices): f for c, f in zip(compared, found, strict=True)}
    return Table(title, header, rows, note, data)


def _alone(case: Case) -> Case:
    """Returns the program of one device, which is the same in every way."""
    return case._replace(way="strong")


@functools.cache
def _read(case: Case) -> dict[str, Any]:
    return read(case)


def read(case: Case) -> dict[str, Any]:
    """Reads one compiled step.

    Returns:
      Of each device `flops` and bytes `accessed`; of collectives `counts` by kind,
      `bytes`, those `sent` by a device, and how many have `unknown` counts; and the
      bytes of one replicate's `params` and `stats`.
    """
    rig = case.rig(steps=1)
    compiled = fixtures.compile_step(rig)
    cost = compiled.cost_analysis()
    moved = collectives.add(collectives.read(compiled.as_text()))

    def size(tree: Any) -> int:
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        return whole // rig.config.replicates

    return {
        "flops": cost["flops"],
        "accessed": cost["bytes accessed"],
        "params": size(rig.state.params),
        "stats": size(rig.state.batch_stats),
    } | moved._asdict()


def _elsewhere(networks: tuple[str, ...], size: int) -> list[Table]:
    """Has a process with forced host devices read the programs.

    Raises:
      RuntimeError: with the end of what it said, if it fails.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    forced = f"--xla_force_host_platform_device_count={max(COUNTS)}"
    env = os.environ | {
        "XLA_FLAGS": f"{flags} {forced}".strip(),
        "NPROC": "32",  # fewer threads than devices wait for each other for ever
        "JAX_PLATFORMS": "cpu",
    }
    module = "experiments.benchmarks.scaling"
    done = subprocess.run(
        [sys.executable, "-m", module, str(size), *networks],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    note = (
        f" {max(COUNTS)} forced host devices, which share the cores of this machine "
        "and give no times worth quoting."
    )
    listed = json.loads(done.stdout.splitlines()[-1])
    return [
        Table(title, tuple(header), [tuple(row) for row in rows], first + note, data)
        for title, header, rows, first, data in listed
    ]


if __name__ == "__main__":
    print(json.dumps(read_all(networks=tuple(sys.argv[2:]), size=int(sys.argv[1]))))
