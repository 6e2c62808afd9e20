"""The time in which each study can be rerun at its smallest scale."""

import tempfile
from pathlib import Path

import jax

from experiments import studies
from experiments.benchmarks import commands, timing
from experiments.benchmarks.timing import Table

TITLE = "reproduce.py --scale=quick"


def measure(
    *,
    seconds: float,
    data_dir: str | None = None,
    repetitions: int = 1,
    names: tuple[str, ...] = studies.NAMES,
) -> list[Table]:
    """Times `reproduce.py --scale=quick` of each study.

    Args:
      seconds: not used: a study takes as long as it takes.
      data_dir: folder of prepared datasets; None for the default one.
      repetitions: times that each study is rerun.
      names: names of the studies.
    """
    del seconds
    if jax.default_backend() == "tpu":
        return [timing.absent_table(TITLE, commands.NO_TPU)]
    where = [f"--data_dir={data_dir}"] if data_dir else []
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repetitions):
            root = Path(folder) / str(number)
            for name, found in times.items():
                done = commands.run(
                    *("experiments/reproduce.py", f"--study={name}", "--scale=quick"),
                    *(f"--workdir={root / name}", *where),
                    cache=root / "programs",
                )
                found.append(done.total)
    rows = [(name, timing.format_spread(found)) for name, found in times.items()]
    note = (
        "One command that trains and measures all runs of the study in one process, "
        "and writes its report. The cache of programs is empty before the first study, "
        "and later ones find some of theirs in it; decoded images are cached."
    )
    return [Table(TITLE, ("study", "s"), rows, note, {"seconds": times})]
