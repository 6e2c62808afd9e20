"""Trains a run to its end; continues it if it was stopped."""

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import factory, multihost
from jaxsparse.reports import folder as report_folder
from jaxsparse.runner import run as run_lib
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runs import opening, paths
from jaxsparse.training import preemption, progress, tensorboard
from jaxsparse.training import workdir as workdir_lib
from jaxsparse.training.run_dir import Callback, MetricWriter, RunDir


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    metric_writers: Sequence[MetricWriter] = (),
    callbacks: Sequence[Callback] = (),
    report: bool = False,
) -> opening.LoadedRun:
    """Trains the run of a config, as `experiments/train.py` does, and opens it.

    Repeating the call continues a run that was stopped, and returns one that has ended.
    Call it from the main thread: Ctrl-C and SIGTERM save everything and stop.

    Args:
      config: what to train, such as the result of a config file's `get_config()`.
      workdir: the run directory; created if it does not exist.
      metric_writers: functions that receive the records in addition to the run's files,
        in this order; see `training.run_dir.MetricWriter`.
      callbacks: functions of the training step and state, called during training in
        this order; see `training.run_dir.Callback`.
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
            f"config: expected a ConfigDict, got {type(config).__name__}; get_config() "
            "of a config file returns one"
        )
    _check_callable("metric_writers", metric_writers, "a list of records")
    _check_callable("callbacks", callbacks, "a step and a state")
    folder = paths.to_folder(workdir, argument="workdir")
    train(
        config,
        folder,
        metric_writers=metric_writers,
        callbacks=callbacks,
        report=report,
    )
    return opening.load(folder)


def _check_callable(argument: str, given: Sequence[object], takes: str) -> None:
    """Checks that an argument contains functions.

    Args:
      argument: name of the argument, for the message.
      given: its value.
      takes: arguments of the functions, for the message.

    Raises:
      TypeError: if one is no function.
    """
    for function in given:
        if not callable(function):
            raise TypeError(
                f"{argument}: expected functions of {takes}, got {function!r}; pass a "
                "list of functions"
            )


def train(
    config: ConfigDict,
    folder: Path,
    *,
    metric_writers: Sequence[MetricWriter] = (),
    callbacks: Sequence[Callback] = (),
    report: bool = False,
) -> None:
    """Trains the run of a config without opening it afterward.

    Args:
      config: what to train.
      folder: the run directory; created if it does not exist.
      metric_writers: functions that receive the records in addition to the run's files,
        in this order; see `training.run_dir.MetricWriter`.
      callbacks: functions of the training step and state, called during training in
        this order; see `training.run_dir.Callback`.
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
    plan = made.trainer.execution_plan
    with workdir_lib.opened(
        folder, config, command=command, execution_plan=plan, dataset=dataset
    ):
        run_dir = RunDir(
            folder, metric_writers=tuple(metric_writers), callbacks=tuple(callbacks)
        )
        _train_stages(config, made, run_dir)
        if not (report and multihost.is_primary()):
            return
        # Imported here, so that errors in a config are reported without waiting for it.
        from jaxsparse.reports import page

        say(f"report: {page.write([folder], folder / 'report')}")


def _train_stages(config: ConfigDict, made: Experiment, run_dir: RunDir) -> None:
    """Trains all stages that have not ended, with progress display and signal handling.

    Args:
      config: a validated config.
      made: the experiment of the config.
      run_dir: output files of the run.
    """
    events = []
    if config.run.tensorboard and multihost.is_primary():
        events = [_events(config, run_dir.folder)]
    run_dir = run_dir._replace(metric_writers=(*events, *run_dir.metric_writers))
    stages = run_lib.list_stages(made, run_dir)
    out = sys.stderr if multihost.is_primary() else io.StringIO()
    done = run_lib.count_ended(stages, run_dir)
    shown = progress.Progress(len(stages), done, out=out)
    try:
        with preemption.listening() as asked:
            run_lib.run(made, run_dir._replace(progress=shown, should_stop=asked))
    finally:
        shown.close()
        for writer in events:
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
