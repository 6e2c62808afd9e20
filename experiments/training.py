"""What `train.py` does once its command line is right; importing this imports JAX."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments.command_line import fail
from jaxsparse import multihost, runs
from jaxsparse.runs.training import say
from jaxsparse.training import preemption, signals
from jaxsparse.training.run_dir import Callback, MetricWriter


def run(
    c: ConfigDict,
    folder: Path,
    *,
    report: bool = True,
    metric_writers: Sequence[MetricWriter] = (),
    callbacks: Sequence[Callback] = (),
) -> None:
    """Runs the experiment, and words every expected failure in one line.

    Args:
      c: a config.
      folder: of the run.
      report: whether to write a report at the end.
      metric_writers: functions that receive the records in addition to the run's files,
        in this order; see `MetricWriter`.
      callbacks: functions of the training step and state, called during training in
        this order; see `Callback`.
    """
    try:
        multihost.initialize()
        if (
            not multihost.is_multiprocess()
        ):  # JAX may have taken the signal to itself for nothing
            signals.end_when_told()
        runs.train(
            c,
            folder,
            report=report,
            metric_writers=metric_writers,
            callbacks=callbacks,
        )
    except preemption.Preempted as stop:
        say(f"stopped at {stop}; the same command continues there")
        sys.exit(stop.code)
    except KeyboardInterrupt:
        print("interrupted; the same command continues the run", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, preemption.NonFiniteLoss) as error:
        fail(str(error))
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        fail(f"{str(error).splitlines()[0]}; the same command continues the run")
