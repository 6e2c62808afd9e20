"""Sets the options of JAX that a config requests."""

import os

import jax
from ml_collections import ConfigDict

from jaxsparse.data import cache_dir


def set_up_jax(config: ConfigDict) -> None:
    """Sets compiler flags and the compilation cache; call it before JAX uses a device.

    Args:
      config: a validated config. `run.deterministic` requests deterministic GPU
        kernels, `run.compilation_cache` a cache of all compiled programs on disk. Its
        folder and the shortest compilation that is cached are those of the environment
        variables JAX_COMPILATION_CACHE_DIR and
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS, where they are set.
    """
    if config.run.deterministic:
        old = os.environ.get("XLA_FLAGS", "")
        # XLA reads this variable once, when it first uses a device.
        os.environ["XLA_FLAGS"] = f"{old} --xla_gpu_deterministic_ops=true".strip()
    cache = cache_dir.find("compiled")
    if not config.run.compilation_cache or cache is None:
        return
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        # Also programs that compile fast: together they take as long as a slow one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
