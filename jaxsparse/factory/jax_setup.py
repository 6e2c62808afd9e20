"""What a config asks of the process that runs it."""

import os
from pathlib import Path

import jax
from ml_collections import ConfigDict


def set_up_jax(config: ConfigDict) -> None:
    """Sets what must be set before JAX first looks at its devices."""
    if config.run.deterministic:
        old = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{old} --xla_gpu_deterministic_ops=true".strip()
    if config.run.compilation_cache and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path.home() / ".cache" / "jaxsparse" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
