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

_WRONG = "0.10.2"  # of jaxlib
_FLAG = "--xla_cpu_experimental_ynn_fusion_type="  # of nothing


def _have_sums_right() -> None:
    """Keeps jaxlib 0.10.2 from summing wrongly on CPUs (jax-ml/jax#39103).

    It hands some sums to a library that gets them wrong, without a word; with the flag
    it computes all itself. (Keeping sums alone from it made other numbers infinite.)
    XLA reads its flags once, when JAX first looks at devices.
    """
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if version != _WRONG or "ynn_fusion_type" in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}".strip()
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        warnings.warn(
            f"jaxlib {version} computes some sums wrongly on CPUs, and has begun "
            "already: import jaxsparse before anything is computed, set "
            f"XLA_FLAGS={_FLAG}, or take another version",
            stacklevel=3,
        )


_have_sums_right()

# Functions at the top level, imported when they are first asked for.
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
