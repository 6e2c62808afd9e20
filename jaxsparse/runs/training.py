"""Training what a config says, to the end, continuing where it was stopped."""

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxsparse import build, hosts
from jaxsparse import config as config_lib
from jaxsparse.lottery import experiment, stages
from jaxsparse.reports import folder as report_folder
from jaxsparse.runs import opening
from jaxsparse.training import events, interrupt, progress
from jaxsparse.training import workdir as workdir_lib
from jaxsparse.training.loop import Desk, MetricWriter


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    metric_writers: Sequence[MetricWriter] = (),
    report: bool = False,
) -> opening.LoadedRun:
    """Trains what a config says, as `experiments/train.py` does, and opens the run.

    The same call again continues a run that was stopped, or returns one that has
    ended. Call it from the main thread: Ctrl-C and SIGTERM save everything and stop.

    Args:
      config: what to train, such as `get_config()` of a config file returns.
      workdir: folder of the run; made if it is not there.
      metric_writers: what records are sent to besides the run's files, in order; see
        `training.loop.MetricWriter`.
      report: whether to write a report at the end, to `workdir`/report.

    Returns:
      The run, open for reading.

    Raises:
      TypeError: if an argument is of another type, naming it.
      ValueError: if a field is wrong, or the folder belongs to another experiment.
      OSError: if data cannot be read or results cannot be written.
      interrupt.Stopped: if a signal stopped it.
      interrupt.NonFinite: if a loss is NaN or infinite.

    Examples:
      >>> from configs import lth_digits
      >>> run = jaxsparse.run(lth_digits.get_config(), "runs/digits")
      >>> run.params(level=3)["head"]["kernel"].shape
      (100, 10)
    """
    if not isinstance(config, ConfigDict):
        raise TypeError(
            f"config: got {type(config).__name__}; expected a ConfigDict, such as "
            "get_config() of a config file returns"
        )
    for writer in metric_writers:
        if not callable(writer):
            raise TypeError(
                f"metric_writers: got {writer!r}; expected functions of a list of "
                "records"
            )
    folder = opening.to_folder(workdir, argument="workdir")
    train(config, folder, metric_writers=metric_writers, report=report)
    return opening.load(folder)


def train(
    config: ConfigDict,
    folder: Path,
    *,
    metric_writers: Sequence[MetricWriter] = (),
    report: bool = False,
) -> None:
    """Trains as `run` does, and opens nothing; arguments and errors are as there."""
    hosts.join()
    config_lib.check_names(config)
    config_lib.validate(config)
    build.check_names(config)
    build.set_up_jax(config)
    hosts.do(lambda: workdir_lib.check_same(folder, config))
    if report and hosts.first():  # before training, not at its end
        report_folder.check(folder / "report")
    dataset = build.load_data(config)
    made = build.make_experiment(config, dataset, folder)
    command = shlex.join(["python", *sys.argv])
    arrangement = made.trainer.arrangement
    with workdir_lib.opened(
        folder, config, command=command, arrangement=arrangement, dataset=dataset
    ):
        _train_stages(config, made, folder, metric_writers)
        if not (report and hosts.first()):
            return
        # Here and not above: what is wrong with a config is said without this import.
        from jaxsparse.reports import page

        say(f"report: {page.write([folder], folder / 'report')}")


def _train_stages(
    config: ConfigDict,
    made: stages.Experiment,
    folder: Path,
    metric_writers: Sequence[MetricWriter],
) -> None:
    """Trains every stage that has not ended."""
    shown_by = []
    if config.run.tensorboard and hosts.first():
        shown_by = [_events(config, folder)]
    desk = Desk(
        metrics=folder / "metrics.jsonl",
        checkpoints=folder / "checkpoints",
        progress=None,
        should_stop=lambda: False,
        metric_writers=(*shown_by, *metric_writers),
    )
    count, done = sum(1 for _ in stages.every(made)), experiment.done(made, desk)
    out = sys.stderr if hosts.first() else io.StringIO()
    say(f"run: {folder}")
    shown = progress.Progress(count, done, out=out)
    try:
        with interrupt.listening() as asked:
            experiment.run(made, desk._replace(progress=shown, should_stop=asked))
    finally:
        shown.close()
        for writer in shown_by:
            writer.close()


def _events(config: ConfigDict, folder: Path) -> events.Events:
    """Makes what shows a run in TensorBoard."""
    return events.Events(
        folder / "tensorboard",
        replicates=config.replicates,
        levels=config.lottery.levels,
        hyperparameters=config_lib.scientific(config),
    )


def say(line: str) -> None:
    """Prints a line for people, from one process."""
    if hosts.first():
        print(line, file=sys.stderr)
