"""The part of `train.py` that imports JAX, after its command line was checked."""

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
    first_line: str = "",
) -> None:
    """Runs an experiment, and exits with one line after every expected error.

    Args:
      c: the config.
      folder: the run directory.
      report: whether to write a report at the end.
      metric_writers: called with lists of records, in order, after these were written
        to the run directory; see `MetricWriter`.
      callbacks: called with the training step and state, in order; see `Callback`.
      first_line: printed by the first process before anything else; "" if that is done.
    """
    try:
        multihost.initialize()
        if first_line:
            say(first_line)
        if not multihost.is_multiprocess():
            signals.end_when_told()  # JAX may have replaced the handler
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
    except jax.errors.JaxRuntimeError as error:  # most often out of memory
        fail(f"{str(error).splitlines()[0]}; the same command continues the run")
