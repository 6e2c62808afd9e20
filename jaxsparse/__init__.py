"""Sparse neural networks in JAX: masks as pytrees, sparsity as an optax wrapper.

Import modules and not single names: `from jaxsparse import masks, select, transforms`.
After `import jaxsparse`, all modules are there too: `jaxsparse.transforms.rigl`.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
import warnings
from typing import TYPE_CHECKING, Any

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

# Functions of the top level by their modules.
_FUNCTIONS = {
    "load": "jaxsparse.runs",
    "register_dataset": "jaxsparse.config",
    "register_method": "jaxsparse.config",
    "register_model": "jaxsparse.config",
    "register_reparameterization": "jaxsparse.config",
    "register_score": "jaxsparse.config",
    "run": "jaxsparse.runs",
}


def __getattr__(name: str) -> Any:
    """Imports modules and functions of the package on first use.

    So `import jaxsparse` alone imports neither JAX nor any other package, and
    `jaxsparse.transforms.rigl` works without a further import.
    """
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    module = f"{__name__}.{name}"
    if name.startswith("_") or importlib.util.find_spec(module) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(module)


def __dir__() -> list[str]:
    """Lists the modules and functions of the package, imported or not."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted({*modules, *_FUNCTIONS, "__version__"})


if TYPE_CHECKING:  # the same names, for type checkers and editors
    # isort: off
    from jaxsparse import (
        analysis as analysis,
        apportionment as apportionment,
        arguments as arguments,
        compaction as compaction,
        config as config,
        connectivity as connectivity,
        coupling as coupling,
        data as data,
        distributions as distributions,
        durations as durations,
        export as export,
        extras as extras,
        factory as factory,
        fan_axes as fan_axes,
        flops as flops,
        initializers as initializers,
        launchers as launchers,
        layer_counts as layer_counts,
        layer_options as layer_options,
        losses as losses,
        lottery as lottery,
        masks as masks,
        metrics_log as metrics_log,
        models as models,
        multihost as multihost,
        npz_files as npz_files,
        old_names as old_names,
        predict as predict,
        prune as prune,
        replicates as replicates,
        reports as reports,
        rng as rng,
        runner as runner,
        runs as runs,
        scores as scores,
        select as select,
        stages as stages,
        tost as tost,
        training as training,
        transforms as transforms,
        tree as tree,
        types as types,
    )
    from jaxsparse.config import (
        register_dataset as register_dataset,
        register_method as register_method,
        register_model as register_model,
        register_reparameterization as register_reparameterization,
        register_score as register_score,
    )
    from jaxsparse.runs import load as load, run as run
    # isort: on
