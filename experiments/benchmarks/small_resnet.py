"""Training ResNet-8 of width 8 on small images: alone, five at once, and in PyTorch."""

from experiments.benchmarks import conv, fixtures, mnist, rows, timing
from experiments.benchmarks.fixtures import Fixture
from experiments.benchmarks.timing import Job, Table

SHAPE = (16, 16, 3)
SINGLE = "1 replicate"


def resnet_8(count: int, *, batch_size: int, steps: int) -> Fixture:
    """Makes the experiment on random images.

    Args:
      count: replicates in one program.
      batch_size: examples in a step.
      steps: steps in a call.
    """
    sizes = {"replicates": count, "batch_size": batch_size, "steps": steps}
    c = fixtures.recipe("resnet_8", **sizes)
    c.model.width = 8
    examples = batch_size * max(steps, conv.CHECKED)
    return fixtures.make(c, fixtures.random_dataset(SHAPE, examples=examples))


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    batch_size: int = 128,
    steps: int = 20,
    replicates: int = 5,
) -> list[Table]:
    """Times the trainer's calls, per step of one replicate.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      batch_size: examples in a step.
      steps: steps in a call.
      replicates: number of replicates in one program.
    """
    several = f"{replicates} replicates in one program"
    ours = {
        name: resnet_8(count, batch_size=batch_size, steps=steps)
        for name, count in ((SINGLE, 1), (several, replicates))
    }
    jobs: dict[tuple[str, str], Job] = {
        (name, ""): fixtures.trainer_job(made) for name, made in ours.items()
    }
    absent, notes = {}, []
    torch = mnist.load_torch("torch_resnet")
    if torch is None:
        absent[rows.PYTORCH] = rows.MISSING
    else:
        made = resnet_8(1, batch_size=batch_size, steps=1)
        theirs, notes = conv.pytorch_jobs(torch, made, batch_size=batch_size)
        jobs |= theirs
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    fastest, settings = timing.best_settings(rates)
    times = timing.milliseconds(fastest)
    multiples = {name: timing.ratios(times[name], times[SINGLE]) for name in times}
    lines = [
        (
            name,
            timing.format_spread(values, 2),
            timing.format_spread(multiples[name], 2),
        )
        for name, values in times.items()
    ]
    lines += [(name, reason, "") for name, reason in absent.items()]
    side, _, channels = SHAPE
    return [
        Table(
            title=f"ResNet-8, width 8, images of {side} x {side} x {channels}",
            header=("", "ms for a step of a replicate", f"as a multiple of {SINGLE}"),
            rows=lines,
            note=" ".join(
                [
                    f"Batches of {batch_size}, 20 % of the weights, SGD; scans of "
                    f"{steps} steps.",
                    *notes,
                    *settings,
                ]
            ),
            data={"milliseconds": times, "absent": absent},
        )
    ]
