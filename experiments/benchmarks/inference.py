"""Times of predictions: one network, sparsity and batch size by all methods."""

import ctypes
import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import inference_networks, row_origins, timing
from experiments.benchmarks.inference_networks import Network
from experiments.benchmarks.timing import Job
from jaxsparse import compaction, export, extras, predict
from jaxsparse.predict import forms

BASE = "JAX, dense"
# The methods, and whether their masks have a constant number of inputs.
METHODS = {
    BASE: False,
    "predict.auto": False,
    "SciPy CSR": False,
    "Numba direct": False,
    "condensed, constant fan-in": True,
    "predict.auto, constant fan-in": True,
    "PyTorch, dense": False,
    "PyTorch CSR": False,
    "ONNX Runtime, dense": False,
}
VERSIONS = ("jax", "numpy", "scipy", "numba", "torch", "onnxruntime")
PACKAGES = {"PyTorch": "torch", "ONNX": "onnxruntime", "Numba": "numba"}
MOST_DIFFERENCE = 1e-3  # of logits, relative to the largest
# Turns of each method; fewer where calls are long.
TURNS, FEW_TURNS, LARGE_BATCH = 5, 3, 256
PAUSE = 0.01
# Options of mallopt in malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
Row = dict[str, Any]


def measure(name: str, sparsity: float, batch: int, *, seconds: float) -> list[Row]:
    """Times all methods in turns.

    Args:
      name: name of the network.
      sparsity: fraction of zeros.
      batch: number of images.
      seconds: time for each method, over all turns; at least one call in each turn.

    Returns:
      A row for each method: median, shortest and longest milliseconds of a call, the
      same of the ratio of dense JAX's time to it within turns, and the machine.

    Raises:
      RuntimeError: if a method computes other logits than JAX.
    """
    networks = {
        constant: inference_networks.make(name, sparsity, batch, constant=constant)
        for constant in (False, True)
    }
    jobs, notes = {}, {}
    for method, constant in METHODS.items():
        network = networks[constant]
        package = PACKAGES.get(method.replace(",", "").split()[0])
        try:
            if package:
                extras.require(package, purpose=method)
        except ModuleNotFoundError:
            notes[method] = f"not measured: {package} is not installed"
            continue
        run, notes[method] = make(method, network)
        if run is None:
            continue
        _check(method, network, run)
        jobs[method] = Job(functools.partial(_repeat, run), 1)
    turns = FEW_TURNS if batch >= LARGE_BATCH else TURNS
    rates = timing.interleave(jobs, seconds=seconds, repetitions=turns, pause=PAUSE)
    times = timing.milliseconds(rates)
    origin, rows = row_origins.record(VERSIONS), []
    for method in METHODS:
        row: Row = {"network": name, "sparsity": sparsity, "batch": batch}
        row |= {"method": method, "note": notes[method]} | origin
        if method in times:
            ratios = timing.ratios(rates[method], rates[BASE])
            row |= _spread("ms", times[method]) | _spread("ratio", ratios)
        rows.append(row)
    return rows


def keep_memory() -> None:
    """Has the C library keep freed memory, if it is the one of GNU.

    Otherwise it returns large arrays to the system and asks for them again at every
    call, which costs a page fault for each 4 KB.
    """
    try:
        library = ctypes.CDLL(None)
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1)):
            library.mallopt(option, value)
    except (OSError, AttributeError, TypeError):  # another C library
        return


def _repeat(run: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        run()


def _spread(name: str, values: list[float]) -> Row:
    every = (statistics.median(values), min(values), max(values))
    return {
        key: float(f"{value:.4g}")
        for key, value in zip((name, f"{name}_low", f"{name}_high"), every, strict=True)
    }


def _check(method: str, network: Network, run: Callable[[], Any]) -> None:
    """Raises an error if a method computes other logits than JAX."""
    expected = np.asarray(jax.jit(network.apply)(network.variables, network.images))
    gap = np.abs(np.asarray(run()) - expected).max() / np.abs(expected).max()
    if not gap <= MOST_DIFFERENCE:
        raise RuntimeError(f"{method}: expected the logits of JAX, got {gap} of them")


def make(method: str, network: Network) -> tuple[Callable[[], Any] | None, str]:
    """Makes the function that a method calls for each batch.

    Args:
      method: name of the method.
      network: the network and its images.

    Returns:
      The function, None if the method has nothing to do here; and a note on what it
      does.
    """
    variables, images = network.variables, network.images
    given = (network.apply, variables, network.masks, images)
    if method == BASE:
        program, weights = jax.jit(network.apply), jax.device_put(variables)
        return lambda: np.asarray(program(weights, images)), ""
    has_condensed = network.variables["params"].keys() & {"dense1", "patches"}
    if METHODS[method] and not has_condensed:
        return None, "not measured: only for dense layers"
    if method.startswith("predict.auto"):
        small = compaction.compact_linen(
            *(network.model, variables, network.masks, images[:1]), train=False
        )
        predictor = predict.auto(
            small.apply, small.params, small.masks, images, seconds=0.02
        )
        return lambda: predictor(images), _describe(small, predictor)
    if method.startswith("PyTorch"):
        from experiments.benchmarks import inference_torch

        below = forms.MOST_DENSITY if "CSR" in method else 0.0
        return inference_torch.predictor(network, csr_below=below), ""
    if method.startswith("ONNX"):
        return _onnx(network), ""
    form = {"SciPy CSR": "csr", "Numba direct": "direct"}.get(method, "condensed")
    predictor = predict.fixed(*given, form=form)
    counted = [*predictor.forms.values()].count(form)
    return lambda: predictor(images), f"{counted} of {len(predictor.forms)} layers"


def _describe(small: compaction.Compacted, predictor: predict.Predictor) -> str:
    """Words what `predict.auto` has chosen."""
    (whole,) = [t for t in predictor.trials if t.part == "whole" and t.chosen]
    before, after = small.report.parameters
    removed = f"; compaction removed {1 - after / before:.1%} of the parameters"
    return whole.form.replace("compacted", "dense") + (
        removed if after < before else ""
    )


def _onnx(network: Network) -> Callable[[], Any]:
    """Loads the network in ONNX Runtime, on one thread."""
    import tempfile
    from pathlib import Path

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    apply = jax.jit(network.apply)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export.onnx(path, apply, network.variables, network.images, dynamic_batch=False)
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    return lambda: session.run(None, {"input_0": network.images})[0]
