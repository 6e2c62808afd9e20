"""Training networks of convolutions: by ways to compute them, and against PyTorch."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from experiments.benchmarks import fixtures, mnist, overhead, timing
from experiments.benchmarks.fixtures import Rig
from experiments.benchmarks.timing import Job, Table

UNIT = "steps/s"
PYTORCH = "PyTorch"
TOLERANCE = 1e-3  # of losses near 2.5, after normalisation by batches, in nats
# Batch size, and steps to a scan.
SIZES = MappingProxyType({"lenet_5": (128, 10), "resnet_20": (128, 5)})
CHECKED = 3  # batches on which losses are compared
NOTE = (
    "PyTorch trains on one batch of floats, without torch.compile; our rows besides "
    "draw orders, look images up, normalise them and count what is right."
)


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    sizes: Mapping[str, tuple[int, int]] = SIZES,
    count: int = 5,
) -> list[Table]:
    """Times training steps of LeNet-5 and ResNet-20.

    Args:
      seconds: for each row, over all repetitions.
      repetitions: turns of each row.
      sizes: batch size and steps to a scan, by network.
      count: of replicates of LeNet-5.
    """
    tables = []
    for network, (batch_size, steps) in sizes.items():
        # XLA's gradients in a scan take minutes on CPUs for deep networks.
        skips = network != "lenet_5" and overhead.on_cpu()
        jobs = {
            f"{by}, {words}": fixtures.trainer_job(
                _rig(network, by, batch_size, length, steps)
            )
            for by in ("library", "explicit")
            for words, length in (("dispatch", 1), (f"scan of {steps}", steps))
            if not (skips and by == "library" and length > 1)
        }
        title = f"{network}, batch {batch_size}"
        if network == "lenet_5":
            tables += [
                _table(f"Convolutions: {title}", jobs, seconds, repetitions),
                _replicates(title, batch_size, steps, count, seconds, repetitions),
            ]
        else:
            tables.append(
                _peers(network, title, batch_size, jobs, seconds, repetitions)
            )
    return tables


def _rig(
    network: str, by: str, batch_size: int, steps: int, epoch: int, **fields: object
) -> Rig:
    dataset = fixtures.random_dataset(
        fixtures.SHAPES[network], examples=batch_size * epoch
    )
    c = fixtures.recipe(network, replicates=1, batch_size=batch_size, steps=steps)
    if network == "lenet_5":
        c.model.padding = "VALID"
    c.run.conv_gradients = by
    c.update(fields)
    return fixtures.make(c, dataset)


def _table(
    title: str, jobs: dict[str, Job], seconds: float, repetitions: int, **more: object
) -> Table:
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    return timing.rate_table(title, rates, unit=UNIT, base=next(iter(rates)), **more)


def _replicates(
    title: str, size: int, steps: int, count: int, seconds: float, repetitions: int
) -> Table:
    """Times ways to map replicates."""

    def job(mapped: str) -> Job:
        run = {"replicate_mode": mapped}
        more = {"replicates": count, "run": run}
        return fixtures.trainer_job(
            _rig("lenet_5", "explicit", size, steps, steps, **more)
        )

    jobs = {name: job(name) for name in ("map", "unroll", "vmap")}
    rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
    title = f"{count} replicates: {title}, explicit"
    return timing.rate_table(title, rates, unit="replicate-steps/s", base="map")


def load_torch() -> ModuleType | None:
    """Imports what needs torch, which is optional."""
    if mnist.load_torch() is None:
        return None
    return importlib.import_module("experiments.benchmarks.torch_resnet")


def _peers(
    network: str,
    title: str,
    batch_size: int,
    jobs: dict[str, Job],
    seconds: float,
    repetitions: int,
) -> Table:
    """Times our ways, and PyTorch on the same weights where it is."""
    title, torch = f"Convolutions: {title}, 20 % of weights", load_torch()
    if torch is None:
        absent = {PYTORCH: mnist.MISSING}
        return _table(title, jobs, seconds, repetitions, absent=absent)
    rig = _rig(network, "auto", batch_size, 1, CHECKED)
    params, masks = mnist.first_replicate(rig)
    images, labels = (part[:batch_size] for part in rig.dataset.train)
    theirs = torch.jobs(params, masks, fixtures.normalized(images, rig.dataset), labels)
    every = {(name, ""): job for name, job in jobs.items()}
    every |= {(PYTORCH, name): job for name, job in theirs.items()}
    rates = timing.in_turns(every, seconds=seconds, repetitions=repetitions)
    chosen, settings = timing.best_settings(rates)
    same = mnist.discrepancy(rig, torch, steps=CHECKED, tolerance=TOLERANCE)
    note = " ".join([same, NOTE, *settings])
    base = next(iter(chosen))
    table = timing.rate_table(title, chosen, unit=UNIT, base=base, note=note)
    table.data["tried"] = {", ".join(key): rate for key, rate in rates.items()}
    return table
