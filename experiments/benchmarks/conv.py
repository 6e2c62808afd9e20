"""Training networks with convolutions: ways to compute them, and PyTorch."""

from types import ModuleType
from typing import Any

from experiments.benchmarks import fixtures, mnist, rows, timing
from experiments.benchmarks.fixtures import Fixture
from experiments.benchmarks.timing import Job, Table

TOLERANCE = 1e-3  # in nats, of losses near 2.5 after batch normalization
CHECKED = 3  # batches on which the losses are compared
NOTE = (
    "PyTorch trains on one batch of floats, without torch.compile. The other rows also "
    "shuffle, gather and normalize images and count correct predictions."
)


def measure(*, seconds: float, repetitions: int = 5) -> list[Table]:
    """Times training steps of LeNet-5 and ResNet-20, on batches of 128.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
    """
    how = {"seconds": seconds, "repetitions": repetitions}
    return [
        lenet(batch_size=128, steps=10, **how),
        lenet_replicates(batch_size=128, steps=10, count=5, **how),
        resnet(batch_size=128, steps=5, **how),
    ]


def lenet(*, batch_size: int, steps: int, seconds: float, repetitions: int) -> Table:
    """Times LeNet-5 by gradients of convolutions, and by single steps or scans.

    Args:
      batch_size: examples in a step.
      steps: steps in a scan.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
    """
    jobs = _jobs("lenet_5", batch_size, steps)
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    title = f"Gradients of convolutions: lenet_5, batch {batch_size}"
    return timing.rate_table(title, rates, unit="steps/s", base=next(iter(rates)))


def lenet_replicates(
    *, batch_size: int, steps: int, count: int, seconds: float, repetitions: int
) -> Table:
    """Times the ways in which LeNet-5 computes several replicates.

    Args:
      batch_size: examples in a step.
      steps: steps in a scan.
      count: number of replicates.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
    """

    def job(mode: str) -> Job:
        c = recipe("lenet_5", "explicit", batch_size, steps)
        c.replicates, c.run.replicate_mode = count, mode
        return fixtures.trainer_job(make(c, examples=batch_size * steps))

    jobs = {mode: job(mode) for mode in ("map", "unroll", "vmap")}
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    title = f"{count} replicates: lenet_5, batch {batch_size}, explicit"
    return timing.rate_table(title, rates, unit="replicate-steps/s", base="map")


def resnet(*, batch_size: int, steps: int, seconds: float, repetitions: int) -> Table:
    """Times ResNet-20, and PyTorch on the same weights where it is installed.

    Args:
      batch_size: examples in a step.
      steps: steps in a scan.
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
    """
    jobs = {
        (row, ""): job for row, job in _jobs("resnet_20", batch_size, steps).items()
    }
    torch, absent, notes = mnist.load_torch("torch_resnet"), {}, []
    if torch is None:
        absent[rows.PYTORCH] = rows.MISSING
    else:
        fixture = make(
            recipe("resnet_20", "auto", batch_size, 1), examples=batch_size * CHECKED
        )
        theirs, notes = pytorch_jobs(torch, fixture, batch_size=batch_size)
        jobs |= theirs
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    fastest, settings = timing.best_settings(rates)
    table = timing.rate_table(
        f"Gradients of convolutions: resnet_20, batch {batch_size}, 20 % of weights",
        fastest,
        unit="steps/s",
        base=next(iter(fastest)),
        note=" ".join([*notes, *settings]),
        absent=absent,
    )
    table.data["tried"] = {", ".join(key): rate for key, rate in rates.items()}
    return table


def pytorch_jobs(
    torch: ModuleType, fixture: Fixture, *, batch_size: int
) -> tuple[dict[tuple[str, str], Job], list[str]]:
    """Makes the jobs of PyTorch, and compares its losses with those of jaxsparse.

    Args:
      torch: the module `torch_resnet`.
      fixture: one replicate of a CIFAR ResNet, in calls of one step, with `CHECKED`
        batches of examples.
      batch_size: examples in a step.

    Returns:
      The jobs by row and setting, and the sentences of the table's note.
    """
    images, labels = (part[:batch_size] for part in fixture.dataset.train)
    floats = fixtures.normalized(images, fixture.dataset)
    theirs = torch.jobs(*fixtures.first_replicate(fixture), floats, labels)
    same = mnist.compare_losses(fixture, torch, steps=CHECKED, tolerance=TOLERANCE)
    jobs = {(rows.PYTORCH, setting): job for setting, job in theirs.items()}
    return jobs, [same, NOTE]


def _jobs(network: str, batch_size: int, steps: int) -> dict[str, Job]:
    """Makes jobs by `run.conv_gradients`, as single steps and as scans."""
    jobs = {}
    for gradients in ("library", "explicit"):
        for name, length in (("single steps", 1), (f"scan of {steps}", steps)):
            # Deep networks take minutes with XLA's own gradients in a scan on CPUs.
            slow = network != "lenet_5" and fixtures.on_cpu()
            if slow and gradients == "library" and length > 1:
                continue
            c = recipe(network, gradients, batch_size, length)
            fixture = make(c, examples=batch_size * steps)
            jobs[f"{gradients}, {name}"] = fixtures.trainer_job(fixture)
    return jobs


def recipe(network: str, gradients: str, batch_size: int, steps: int) -> Any:
    """Makes a config for one replicate.

    Args:
      network: a name of `model.name`.
      gradients: value of `run.conv_gradients`.
      batch_size: examples in a batch.
      steps: steps in a call.
    """
    c = fixtures.recipe(network, replicates=1, batch_size=batch_size, steps=steps)
    if network == "lenet_5":
        c.model.padding = "VALID"
    c.run.conv_gradients = gradients
    return c


def make(c: Any, *, examples: int) -> Fixture:
    """Makes the experiment of a config on random images.

    Args:
      c: from `recipe`.
      examples: number of training examples.
    """
    shape = fixtures.SHAPES[c.model.name]
    return fixtures.make(c, fixtures.random_dataset(shape, examples=examples))
