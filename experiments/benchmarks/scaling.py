"""Training on several devices: strong and weak scaling, and their communication.

Strong scaling divides one batch among more devices. Weak scaling gives each device a
batch of its own. The FLOPs and the collectives of a compiled step are the same wherever
it is compiled. Times are measured on real devices only, because forced host devices
share the cores of one machine. Where there is only one device, the programs are
compiled for forced host devices in a second process.
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
MODES = {
    "strong": "one batch of {size} divided",
    "weak": "{size} examples on each device",
    "replicates": "one replicate on each device, batches of {size}",
}
TIMEOUT = 1200  # seconds for the second process


class Case(NamedTuple):
    """A program.

    Attributes:
      network: one of `fixtures.SHAPES`.
      mode: one of `MODES`.
      devices: number of devices.
      size: examples in a batch; in weak scaling, on each device.
    """

    network: str
    mode: str
    devices: int
    size: int

    def fixture(self, *, steps: int) -> fixtures.Fixture:
        """Makes the experiment, with the given number of steps in a call.

        Args:
          steps: training steps in a call.
        """
        weak, many = self.mode == "weak", self.mode == "replicates"
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
        """Number of examples in a step, over all replicates."""
        return self.size * (1 if self.mode == "strong" else self.devices)

    @property
    def title(self) -> str:
        """The mode, the network and the batches in words."""
        batches = MODES[self.mode].format(size=self.size)
        return f"{self.mode}, {self.network}, {batches}"


def cases(networks: tuple[str, ...], size: int, devices: int) -> Iterator[list[Case]]:
    """Yields the programs of each table, by number of devices.

    Args:
      networks: names of networks.
      size: examples in a batch.
      devices: number of devices that exist.
    """
    for network in networks:
        for mode in MODES:
            counts = [n for n in COUNTS if n <= devices]
            if mode == "replicates":  # these exchange nothing, however many
                counts = [counts[0], counts[-1]]
            yield [Case(network, mode, n, size) for n in counts]


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    networks: tuple[str, ...] = NETWORKS,
    size: int = 128,
    steps: int = 50,
) -> list[Table]:
    """Describes compiled steps, and times training on real devices.

    Args:
      seconds: time for each row that is timed, over its repetitions.
      repetitions: turns of each row.
      networks: networks to train.
      size: examples in a batch; in weak scaling, on each device.
      steps: steps in a call where training is timed.
    """
    if jax.device_count() == 1:
        return _describe_elsewhere(networks, size)
    tables = describe_all(networks=networks, size=size)
    if not fixtures.on_cpu():
        tables += [
            time_training(row, seconds=seconds, repetitions=repetitions, steps=steps)
            for row in cases(networks, size, jax.device_count())
        ]
    return tables


def time_training(
    compared: list[Case], *, seconds: float, repetitions: int, steps: int
) -> Table:
    """Times training on an increasing number of devices.

    Args:
      compared: the programs, of which the first uses one device.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      steps: steps in a call.
    """
    jobs = {}
    for case in compared:
        job = fixtures.trainer_job(case.fixture(steps=steps))
        jobs[case.devices] = job._replace(work=case.examples * steps)
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    rows = []
    for count, values in rates.items():
        speedups = timing.ratios(values, rates[1])
        efficiencies = [speedup / count for speedup in speedups]
        cells = [timing.format_spread(x, 2) for x in (speedups, efficiencies)]
        rows.append((str(count), timing.format_spread(values), *cells))
    header = ("devices", "examples/s", "speedup", "efficiency")
    title = f"Scaling, {compared[0].title}: times"
    data = {"rates": {str(count): values for count, values in rates.items()}}
    return Table(title, header, rows, "", data)


def describe_all(*, networks: tuple[str, ...], size: int) -> list[Table]:
    """Describes the compiled steps of every mode on the devices of this process.

    Args:
      networks: networks to train.
      size: examples in a batch.
    """
    return [_describe(row) for row in cases(networks, size, jax.device_count())]


def _describe(compared: list[Case]) -> Table:
    # The program of one device is the same in every mode, and compiled once.
    alone = [c if c.devices > 1 else c._replace(mode="strong") for c in compared]
    facts = [_read_once(case) for case in alone]
    rows = [
        (
            str(case.devices),
            f"{fact['flops'] / 1e6:,.1f}",
            f"{fact['flops'] / facts[0]['flops']:.3f}",
            f"{fact['accessed'] / 1e6:,.1f}",
            ", ".join(f"{n} {kind}" for kind, n in fact["counts"].items()) or "none",
            f"{fact['bytes']:,}",
        )
        for case, fact in zip(compared, facts, strict=True)
    ]
    header = (
        "devices",
        "MFLOP a device",
        "relative to one device",
        "MB accessed a device",
        "collectives a step",
        "bytes in them",
    )
    nested = sum(fact["nested"] for fact in facts)
    note = (
        f"One compiled step. The network has {facts[0]['params']:,} bytes of "
        f"parameters and {facts[0]['stats']:,} bytes of running statistics of "
        "BatchNorm."
    )
    if nested:
        note += f" {nested} collectives are in loops or branches, and counted once."
    data = {str(c.devices): fact for c, fact in zip(compared, facts, strict=True)}
    return Table(f"Scaling, {compared[0].title}: compiled", header, rows, note, data)


@functools.cache
def _read_once(case: Case) -> dict[str, Any]:
    return read(case)


def read(case: Case) -> dict[str, Any]:
    """Reads a compiled step.

    Args:
      case: what is compiled.

    Returns:
      Of one device the `flops`, the bytes `accessed`, and the `counts`, `bytes` and
      number of `nested` collectives (see `collectives.Collectives`); the bytes of the
      `params` and batch `stats` of one replicate.
    """
    fixture = case.fixture(steps=1)
    compiled = fixtures.lower_step(fixture).compile()
    cost = compiled.cost_analysis()

    def size(tree: Any) -> int:
        total = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        return total // fixture.config.replicates

    return {
        "flops": cost["flops"],
        "accessed": cost["bytes accessed"],
        "params": size(fixture.state.params),
        "stats": size(fixture.state.batch_stats),
    } | collectives.read(compiled.as_text())._asdict()


def _describe_elsewhere(networks: tuple[str, ...], size: int) -> list[Table]:
    """Describes the programs for forced host devices, in a second process.

    Raises:
      RuntimeError: if the process fails, with the end of its output.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    forced = f"--xla_force_host_platform_device_count={max(COUNTS)}"
    env = os.environ | {
        "XLA_FLAGS": f"{flags} {forced}".strip(),
        "NPROC": "32",  # with fewer threads than devices, the devices deadlock
        "JAX_PLATFORMS": "cpu",
    }
    module = "experiments.benchmarks.scaling"
    done = subprocess.run(
        [sys.executable, "-m", module, str(size), *networks],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    forced_note = (
        f" Compiled for {max(COUNTS)} forced host devices, which share the cores of "
        "this machine and are therefore not timed."
    )
    return [
        Table(title, tuple(header), [tuple(row) for row in rows], note + forced_note, d)
        for title, header, rows, note, d in json.loads(done.stdout.splitlines()[-1])
    ]


if __name__ == "__main__":
    print(json.dumps(describe_all(networks=tuple(sys.argv[2:]), size=int(sys.argv[1]))))
