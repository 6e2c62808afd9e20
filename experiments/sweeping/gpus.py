"""Divides the GPUs of a machine among the local jobs of a sweep."""

import importlib.util
import itertools
from collections.abc import Mapping
from pathlib import Path

from jaxsparse import launchers

VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = Path("/proc/driver/nvidia/gpus")  # where the driver lists them
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# With one of these, a JAX process leaves memory of a GPU to others: a fraction, by its
# new or old name, or one of the given values.
MEMORY_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
MEMORY_SHARING = (
    ("XLA_PYTHON_CLIENT_PREALLOCATE", ("0", "false")),
    ("XLA_PYTHON_CLIENT_ALLOCATOR", ("platform",)),
)


def divide(
    jobs: int, environment: Mapping[str, str], *, driver: Path = DRIVER
) -> list[dict[str, str | None]]:
    """Divides the GPUs of this machine among local jobs.

    Args:
      jobs: number of jobs that run at once.
      environment: environment variables; CUDA_VISIBLE_DEVICES may restrict the GPUs.
      driver: folder with an entry for each GPU.

    Returns:
      For each job the value of CUDA_VISIBLE_DEVICES: some GPUs of its own, or all of
      them if there is one job or if JAX cannot use GPUs. Jobs share a GPU only if the
      environment makes JAX leave memory to others.

    Raises:
      ValueError: if there are fewer GPUs than jobs, or a TPU, which serves one process.
    """
    visible = environment.get(VISIBLE)
    undivided: list[dict[str, str | None]] = [{VISIBLE: visible}] * jobs
    if jobs == 1 or environment.get("JAX_PLATFORMS") == "cpu":
        return undivided
    if _is_installed("libtpu") and launchers.on_tpu(environment):
        raise ValueError(
            f"--jobs: expected 1 on a TPU, which serves one process, got {jobs}; give "
            "--jobs=1, or set JAX_PLATFORMS=cpu"
        )
    if not any(map(_is_installed, PLUGINS)):
        return undivided
    gpus = _list(visible, driver)
    if not gpus:
        return undivided
    if jobs <= len(gpus):
        return [{VISIBLE: ",".join(gpus[i::jobs])} for i in range(jobs)]
    shares = any(environment.get(name) for name in MEMORY_FRACTIONS) or any(
        environment.get(name, "").lower() in values for name, values in MEMORY_SHARING
    )
    if shares:
        return [{VISIBLE: gpus[i % len(gpus)]} for i in range(jobs)]
    raise ValueError(
        f"--jobs: expected at most {len(gpus)}, the number of GPUs, because a process "
        f"takes most of a GPU's memory, got {jobs}; give fewer, set "
        f"{MEMORY_FRACTIONS[0]}=0.4, for example, so that two jobs share a GPU, or set "
        "JAX_PLATFORMS=cpu"
    )


def _list(visible: str | None, driver: Path) -> list[str]:
    """Lists the visible GPUs, by number or by UUID."""
    if visible is None:
        return [str(i) for i in range(len(list(driver.glob("*"))))]
    names = map(str.strip, visible.split(","))
    # CUDA ignores whatever follows an invalid name, such as -1.
    return list(itertools.takewhile(lambda name: name and name[0] != "-", names))


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
