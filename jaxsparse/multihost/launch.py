"""Starts and connects the processes of a run."""

import logging
import os
from collections.abc import Mapping

import jax

from jaxsparse.launchers import BY_HAND, cluster, on_tpu

log = logging.getLogger(__name__)


def initialize(environment: Mapping[str, str] = os.environ) -> None:
    """Connects the processes of a run, if there are several.

    Must be called before any other use of JAX that initializes its backends.

    Does nothing in a process that is connected already.

    Args:
      environment: environment variables of the process, which tell how it was started.

    Raises:
      ValueError: if only some variables of `BY_HAND` are set or they are invalid, or if
        JAX cannot find the other processes.
      RuntimeError: if the other processes do not connect within five minutes.
    """
    if jax.distributed.is_initialized():
        return
    cluster_arguments = cluster(environment)
    if cluster_arguments is None and not on_tpu(environment):
        return
    try:
        jax.distributed.initialize(**(cluster_arguments or {}))
    except ValueError as error:
        # TPU chips without metadata of other hosts: a single TPU VM.
        if cluster_arguments is None:
            log.info("no other hosts of a TPU are known of: %s", error)
            return
        raise ValueError(
            "environment: expected a cluster that JAX detects, got none of those it "
            f"supports ({error}); set {', '.join(BY_HAND)} in every process"
        ) from error
