"""Sparse neural networks in JAX: masks as pytrees, sparsity as an optax wrapper.

Import the modules, not names: `from jaxsparse import masks, select, transforms`.
"""

import importlib
import importlib.metadata
import os
import sys
import warnings
from typing import Any

__version__ = "0.1.0"

_WRONG = "0.10.2"  # jaxlib version with the fault
_FLAG = "--xla_cpu_experimental_ynn_fusion_type="  # empty: for no fusion type


def _have_sums_right() -> None:
    """Works around wrong sums of jaxlib 0.10.2 on CPUs (jax-ml/jax#39103).

    This jaxlib passes some sums to a library that silently computes them wrongly. The
    flag `_FLAG` makes XLA compute all of them itself. Excluding only sums from the
    library turned other results infinite.

    The flag is appended to the environment variable XLA_FLAGS. Nothing is changed for
    other versions of jaxlib, or if XLA_FLAGS already sets this option.

    Warns:
      UserWarning: if JAX backends are initialized already, so that the flag has no
        effect.
    """
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if version != _WRONG or "ynn_fusion_type" in flags:
        return
    # XLA reads its flags only once, when the first JAX backend is initialized.
    os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}".strip()
    # JAX has no public function for this check. If its private module is not imported
    # yet, no backend can be initialized.
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        warnings.warn(
            f"jaxsparse: expected to be imported before JAX starts, since jaxlib "
            f"{version} computes some sums incorrectly on CPUs without a flag, got a "
            "running JAX backend; import jaxsparse before computing anything, set "
            f"XLA_FLAGS={_FLAG}, or install another version",
            stacklevel=3,
        )


_have_sums_right()

# Functions of the top level by their modules. They are imported on first use, so that
# `import jaxsparse` alone imports neither JAX nor any other package.
_LAZY = {
    "load": "jaxsparse.runs",
    "register_dataset": "jaxsparse.config",
    "register_method": "jaxsparse.config",
    "register_model": "jaxsparse.config",
    "register_score": "jaxsparse.config",
    "run": "jaxsparse.runs",
}


def __getattr__(name: str) -> Any:
    """Imports the functions of the top level on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
