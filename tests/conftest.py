"""What every test runs under: strict JAX, four CPU devices, a compilation cache.

Most of the time goes into compiling programs that run once, so LLVM does not optimize
them. `OPTIMIZED=1 pytest` has most of them compiled as users do.
"""

import atexit
import gc
import importlib
import importlib.metadata
import itertools
import os
import tempfile
import threading

os.environ.setdefault("NPROC", "32")  # multi-device CPU programs hang without it
FAST = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
# The older emitters compile a training step in a quarter of the time. Other versions
# may not have them, and XLA ends the process at a flag that it does not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FAST["xla_cpu_use_fusion_emitters"] = "false"
for flag, value in FAST.items():
    given = os.environ.get("XLA_FLAGS", "")
    if not os.environ.get("OPTIMIZED") and flag not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{flag}={value}".strip()

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

# One for each process and those it starts: JAX lets one read what another has half
# written.
CACHE = "JAX_COMPILATION_CACHE_DIR"
cache = os.environ.get(CACHE) or Path.home() / ".cache" / "jaxsparse" / "compiled"
worker = os.environ.get("PYTEST_XDIST_WORKER", "")
os.environ[CACHE] = str(Path(cache) / worker)

# One for all workers, which have it from the process that starts them.
if not os.environ.get("JAXSPARSE_CACHE_DIR"):
    decoded = tempfile.TemporaryDirectory(prefix="jaxsparse-tests-")
    os.environ["JAXSPARSE_CACHE_DIR"] = decoded.name
    atexit.register(decoded.cleanup)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from helpers import type_checks  # noqa: E402, F401

# An example's first call compiles, which takes as long as the machine is busy.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
# The suite is many small programs, each soon compiled and sooner read.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# JAX keeps millions of objects that live to the end, which Python looks through each
# time it looks for garbage.
gc.set_threshold(50_000, 20, 100)


def reuse_contexts() -> None:
    """Lowers ten programs in one MLIR context, which takes long to make.

    JAX does so by itself from version 0.12 on.
    """
    from jax._src.interpreters import mlir

    make = mlir.make_ir_context
    held = threading.local()

    def of_thread() -> Any:
        if getattr(held, "left", 0) == 0:
            held.context, held.left = make(), 10
        held.left -= 1
        return held.context

    mlir.make_ir_context = of_thread


if importlib.metadata.version("jax").startswith("0.10."):
    reuse_contexts()


ROOT = Path(__file__).resolve().parent.parent


MAPS = Path("/proc/self/maps")  # Linux only
# Every compiled program takes some, and a process may have 65,530.
MOST_MAPS = 40_000
TESTS = itertools.count()


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """Forgets compiled programs before they crash the process by their number."""
    yield
    if next(TESTS) % 8:
        return
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def keys_used_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Has a second use of a random key fail, in modules with the mark of this name.

    The check takes a twentieth of the time of all tests, so one module of each kind of
    draw has it: initializers, scores, augmentation, training, a whole run.
    """
    with jax.debug_key_reuse(bool(request.node.get_closest_marker("keys_used_once"))):
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def four_devices() -> None:
    """Starts JAX, once jaxsparse has set what JAX reads when it starts.

    jaxsparse is not imported above, since jaxtyping only makes modules check shapes
    that are imported after this file.
    """
    importlib.import_module("jaxsparse")
    if jax.device_count() != 4:
        pytest.exit(f"the tests need 4 CPU devices, JAX shows {jax.device_count()}")
