"""Trains a run to its end; continues it if it was stopped."""

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import factory, multihost
from jaxsparse.lottery import experiment, stages
from jaxsparse.reports import folder as report_folder
from jaxsparse.runs import opening
from jaxsparse.training import preemption, progress, tensorboard
from jaxsparse.training import workdir as workdir_lib
from jaxsparse.training.train import MetricWriter, RunDir


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    metric_writers: Sequence[MetricWriter] = (),
    report: bool = False,
) -> opening.LoadedRun:
    """Trains the run of a config, as `experiments/train.py` does, and opens it.

    Repeating the call continues a run that was stopped, and returns one that has ended.
    Call it from the main thread: Ctrl-C and SIGTERM save everything and stop.

    Args:
      config: what to train, such as the result of a config file's `get_config()`.
      workdir: the run directory; created if it does not exist.
      metric_writers: functions that receive the records in addition to the run's files,
        in this order; see `training.train.MetricWriter`.
      report: whether to write a report to `workdir`/report at the end.

    Returns:
      The run, opened for reading.

    Raises:
      TypeError: if an argument has the wrong type, naming it.
      ValueError: if a config field is wrong, or the directory belongs to another
        experiment.
      OSError: if data cannot be read or results cannot be written.
      preemption.Preempted: if a signal stopped it; everything is saved.
      preemption.NonFiniteLoss: if a loss is NaN or infinite.

    Examples:
      >>> from configs import lth_digits
      >>> config = lth_digits.get_config("quick")
      >>> config.training.duration, config.lottery.levels = "1ep", 1
      >>> config.lottery.controls = ()
      >>> run = jaxsparse.run(config, "runs/digits")
      >>> run.levels()
      [0, 1]
      >>> run.params(level=1, replicate=1)["head"]["kernel"].shape
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
    """Trains the run of a config without opening it afterwards.

    Args:
      config: what to train.
      folder: the run directory; created if it does not exist.
      metric_writers: functions that receive the records in addition to the run's files,
        in this order; see `training.train.MetricWriter`.
      report: whether to write a report to `folder`/report at the end.

    Raises:
      ValueError: if a config field is wrong, or the directory belongs to another
        experiment.
      OSError: if data cannot be read or results cannot be written.
      preemption.Preempted: if a signal stopped it; everything is saved.
      preemption.NonFiniteLoss: if a loss is NaN or infinite.
    """
    # First, because processes must join before JAX uses a device.
    multihost.initialize()
    config_lib.check_names(config)
    config_lib.validate(config)
    factory.check_names(config)
    factory.set_up_jax(config)
    # Before data are loaded, so that a directory of another experiment is rejected at
    # once.
    multihost.on_primary(lambda: workdir_lib.check_same(folder, config))
    if report and multihost.is_primary():  # fail before training
        report_folder.check(folder / "report")
    dataset = factory.load_data(config)
    made = factory.make_experiment(config, dataset, folder)
    command = shlex.join(["python", *sys.argv])
    arrangement = made.trainer.arrangement
    with workdir_lib.opened(
        folder, config, command=command, arrangement=arrangement, dataset=dataset
    ):
        _train_stages(config, made, folder, metric_writers)
        if not (report and multihost.is_primary()):
            return
        # Imported here, so that errors in a config are reported without waiting for it.
        from jaxsparse.reports import page

        say(f"report: {page.write([folder], folder / 'report')}")


def _train_stages(
    config: ConfigDict,
    made: stages.Experiment,
    folder: Path,
    metric_writers: Sequence[MetricWriter],
) -> None:
    """Trains all stages that have not ended, with progress display and signal handling.

    Args:
      config: a validated config.
      made: the experiment of the config.
      folder: the run directory.
      metric_writers: functions that receive the records in addition to the run's files.
    """
    shown_by = []
    if config.run.tensorboard and multihost.is_primary():
        shown_by = [_events(config, folder)]
    # Progress and stop signal are set below: counting finished stages needs the paths
    # first.
    desk = RunDir(
        metrics=folder / "metrics.jsonl",
        checkpoints=folder / "checkpoints",
        progress=None,
        should_stop=lambda: False,
        metric_writers=(*shown_by, *metric_writers),
    )
    count, done = sum(1 for _ in stages.every(made)), experiment.done(made, desk)
    out = sys.stderr if multihost.is_primary() else io.StringIO()
    say(f"run: {folder}")
    shown = progress.Progress(count, done, out=out)
    try:
        with preemption.listening() as asked:
            experiment.run(made, desk._replace(progress=shown, should_stop=asked))
    finally:
        shown.close()
        for writer in shown_by:
            writer.close()


def _events(config: ConfigDict, folder: Path) -> tensorboard.TensorBoardWriter:
    """Makes the writer of TensorBoard events of a run.

    Args:
      config: a validated config.
      folder: the run directory.
    """
    return tensorboard.TensorBoardWriter(
        folder / "tensorboard",
        replicates=config.replicates,
        levels=config.lottery.levels,
        hyperparameters=config_lib.scientific(config),
    )


def say(line: str) -> None:
    """Prints a line to stderr, on the primary process only.

    Args:
      line: the line, without a line break.
    """
    if multihost.is_primary():
        print(line, file=sys.stderr)
