"""What `train.py` does once its command line is right; importing this imports JAX."""

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments.command_line import fail
from jaxsparse import build, config, hosts
from jaxsparse.lottery import experiment, stages
from jaxsparse.reports import folder as report_folder
from jaxsparse.training import events, interrupt, progress, signals, workdir
from jaxsparse.training.loop import Desk, MetricWriter


def run(
    c: ConfigDict,
    folder: Path,
    *,
    report: bool = True,
    metric_writers: Sequence[MetricWriter] = (),
) -> None:
    """Runs the experiment, and words every expected failure in one line.

    Args:
      c: a config that `config.validate` has passed.
      folder: of the run.
      report: whether to write a report at the end.
      metric_writers: what records are sent to besides the run's files, in order; see
        `MetricWriter`.
    """
    try:
        hosts.join()
        if not hosts.many():  # JAX may have taken the signal to itself for nothing
            signals.end_when_told()
        config.validate(c)
        build.check_names(c)
        build.set_up_jax(c)
        hosts.do(lambda: workdir.check_same(folder, c))
        _run(c, folder, report=report, metric_writers=metric_writers)
    except interrupt.Stopped as stop:
        say(f"stopped at {stop}; the same command continues there")
        sys.exit(stop.code)
    except KeyboardInterrupt:
        print("interrupted; the same command continues the run", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, interrupt.NonFinite) as error:
        fail(str(error))
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        fail(f"{str(error).splitlines()[0]}; the same command continues the run")


def _run(
    c: ConfigDict,
    folder: Path,
    *,
    report: bool,
    metric_writers: Sequence[MetricWriter],
) -> None:
    """Builds everything, takes the folder, trains, and writes the report."""
    if report and hosts.first():  # before training, not at its end
        report_folder.check(folder / "report")
    dataset = build.load_data(c)
    made = build.make_experiment(c, dataset, folder)
    command = shlex.join(["python", *sys.argv])
    arrangement = made.trainer.arrangement
    with workdir.opened(
        folder, c, command=command, arrangement=arrangement, dataset=dataset
    ):
        train(c, made, folder, metric_writers)
        if not (report and hosts.first()):  # a study has one of its own
            return
        # Here and not above: what is wrong with a launch is said without this import.
        from jaxsparse.reports import page

        say(f"report: {page.write([folder], folder / 'report')}")


def train(
    c: ConfigDict,
    made: experiment.Experiment,
    folder: Path,
    metric_writers: Sequence[MetricWriter] = (),
) -> None:
    """Runs every stage that has not ended."""
    shown_by = [_events(c, folder)] if c.run.tensorboard and hosts.first() else []
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


def _events(c: ConfigDict, folder: Path) -> events.Events:
    """Makes what shows a run in TensorBoard."""
    return events.Events(
        folder / "tensorboard",
        replicates=c.replicates,
        levels=c.lottery.levels,
        hyperparameters=config.scientific(c),
    )


def say(line: str) -> None:
    """Prints a line for people, from one process."""
    if hosts.first():
        print(line, file=sys.stderr)
