"""Networks trained by short runs, and their sizes and times before and after."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import jaxsparse
from configs import dense_cifar16, gmp_cifar16, lth_cifar16, lth_mnist, rigl_mnist
from experiments.benchmarks import inference, row_origins, timing
from experiments.benchmarks.timing import Job
from jaxsparse import compaction, export, masks

BATCHES = (1, 256)
VERSIONS = ("jax", "jaxlib", "numpy")
Row = dict[str, Any]


def _short(config: ConfigDict, name: str, duration: str) -> ConfigDict:
    """One seed, and no checkpoints on the way."""
    config.name, config.replicates = name, 1
    config.training.duration = duration
    config.evaluation.every = duration
    config.run.checkpoint_every = None
    config.run.tensorboard = False
    return config


def _ticket() -> ConfigDict:
    config = _short(lth_mnist.get_config(), "ticket", "500step")
    config.lottery.levels, config.lottery.controls = 18, ()  # 0.8**18 = 1.8 %
    return config


def _residual_ticket() -> ConfigDict:
    config = _short(lth_cifar16.get_config(), "residual_ticket", "400step")
    config.lottery.levels, config.lottery.controls = 7, ()
    config.lottery.fraction = 1 - 0.1 ** (1 / 4)  # four levels leave 10 %, seven 1.8 %
    return config


def _gradual(sparsity: float) -> ConfigDict:
    config = _short(gmp_cifar16.get_config(), f"gmp_{sparsity}", "400step")
    config.sparse.sparsity = sparsity
    return config


def _fan_in() -> ConfigDict:
    config = _short(rigl_mnist.get_config(), "fan_in", "1000step")
    config.sparse.structure, config.sparse.sparsity = "fan_in", 0.98
    config.sparse.update_every = "100step"
    return config


def _channels() -> ConfigDict:
    config = _short(dense_cifar16.get_config(), "channels", "400step")
    config.sparse.method, config.sparse.pai_score = "static", "magnitude"
    config.sparse.structure, config.sparse.sparsity = "coupled_channels", 0.5
    return config


class Network(NamedTuple):
    """A network of the page.

    Attributes:
      recipe: makes the config of its run.
      level: number of pruning rounds; None for the last one. Networks of several
        levels share one run.
    """

    recipe: Callable[[], ConfigDict]
    level: int | None = None


NETWORKS = {
    "LeNet-300-100, ticket of level 18, 500 steps a level": Network(_ticket),
    **{
        f"ResNet-8 at 16x16, ticket of level {level}, 400 steps a level": Network(
            _residual_ticket, level
        )
        for level in (4, 5, 7)
    },
    **{
        f"ResNet-8 at 16x16, GMP to {sparsity:.0%}, 400 steps".replace("%", " %"): (
            Network(functools.partial(_gradual, sparsity))
        )
        for sparsity in (0.9, 0.95, 0.98)
    },
    "LeNet-300-100, RigL with constant fan-in at 98 %, 1,000 steps": Network(_fan_in),
    "ResNet-8 at 16x16, half of the coupled channels at initialization, 400 steps": (
        Network(_channels)
    ),
}


def train(name: str, workdir: Path, data_dir: str) -> Any:
    """Trains a network, or opens its run if it has ended.

    Args:
      name: a key of `NETWORKS`.
      workdir: folder of the runs.
      data_dir: folder of prepared datasets.
    """
    config = NETWORKS[name].recipe()
    config.data.dir = data_dir
    return jaxsparse.run(config, workdir / config.name)


def measure(name: str, run: Any, *, seconds: float) -> Row:
    """Compacts a trained network, exports it, and times both networks in turns.

    Args:
      name: a key of `NETWORKS`.
      run: its run.
      seconds: time for each network and batch size.
    """
    images, level = run.example_images()[:1], NETWORKS[name].level
    variables = run.variables(level)
    small = compaction.compact_run(run, images, level)
    before, after = small.report.parameters
    row: Row = {"network": name, "sparsity": masks.sparsity(run.masks(level))}
    row |= {"accuracy": _accuracy(run, level)}
    row |= {"parameters": before, "parameters_after": after}
    counts = small.report.multiply_adds or (None, None)
    row |= dict(zip(("macs", "macs_after"), counts, strict=True))
    row["difference"] = small.report.difference
    row |= _files(small, images) | row_origins.record(VERSIONS)
    for batch in BATCHES:
        shape = (batch, *images.shape[1:])
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        jobs = {
            key: _job(module, leaves, x)
            for key, module, leaves in (
                ("before", run.model(), variables),
                ("after", small.module, small.params),
            )
        }
        rates = timing.interleave(
            jobs, seconds=seconds, repetitions=inference.TURNS, pause=inference.PAUSE
        )
        for key, each in timing.milliseconds(rates).items():
            row[f"ms_{batch}_{key}"] = timing.format_spread(each, 3)
        ratios = timing.ratios(rates["after"], rates["before"])
        row[f"ratio_{batch}"] = timing.format_spread(ratios, 2)
    return row


def _accuracy(run: Any, level: int | None) -> float:
    """Returns the test accuracy at the end of a level."""
    rows = run.records()
    rows = rows[rows["kind"] == "eval"]
    last = rows[rows["level"] == (rows["level"].max() if level is None else level)]
    return float(last.sort_values("step")["test_accuracy"].iloc[-1])


def _job(module: Any, variables: Any, x: np.ndarray) -> Job:
    """The forward pass compiled by XLA."""
    program = jax.jit(functools.partial(module.apply, train=False))
    weights = jax.device_put(variables)

    def repeat(count: int) -> None:
        for _ in range(count):
            np.asarray(program(weights, x))

    return Job(repeat, 1)


def _files(small: compaction.Compacted, images: Any) -> Row:
    """Writes the compacted network as ONNX and safetensors, and returns the sizes.

    `export.onnx` raises an error if ONNX Runtime computes other outputs than JAX, and
    the packed file is read again and compared.
    """
    apply = jax.jit(functools.partial(small.module.apply, train=False))
    given = {k: v for k, v in small.params.items() if jax.tree.leaves(v)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        packed = export.safetensors(path, given, {"params": small.masks})
        loaded = export.from_safetensors(path, given)
        jax.tree.map(np.testing.assert_array_equal, loaded.params, given)
        size = export.onnx(Path(folder) / "small.onnx", apply, given, images)
    return {"onnx_bytes": size, "safetensors_bytes": packed}
