"""Sets the options of JAX that a config requests."""

import os

import jax
from ml_collections import ConfigDict

from jaxsparse.data import cache_dir


def set_up_jax(config: ConfigDict) -> None:
    """Sets compiler flags and the compilation cache; call it before JAX uses a device.

    Args:
      config: a validated config. `run.deterministic` requests deterministic GPU
        kernels, `run.compilation_cache` a cache of compiled programs on disk, unless
        the environment variable JAX_COMPILATION_CACHE_DIR already names one.
    """
    if config.run.deterministic:
        old = os.environ.get("XLA_FLAGS", "")
        # XLA reads this variable once, when it first uses a device.
        os.environ["XLA_FLAGS"] = f"{old} --xla_gpu_deterministic_ops=true".strip()
    cache = cache_dir.find("compiled")
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if config.run.compilation_cache and cache is not None and not named:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        # Also fast ones: together they take as long as a slow one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
