"""Single layers with all their gradients: convolutions, and BatchNorm with ReLU."""

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from experiments.benchmarks import mnist, rows, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse.models.convolutions import ORDER, convolve
from jaxsparse.models.normalization import BatchNorm

# Sides of images, and input and output channels of 3x3 convolutions with stride 1.
CONVOLUTIONS = ((32, 3, 16), (32, 16, 16), (16, 32, 32), (8, 64, 64), (16, 8, 8))
NORMALIZED = ((32, 16), (16, 32), (8, 64))  # sides and channels
LIBRARY, OURS = "library", "jaxsparse"

# A function of images and parameters to the outputs of a layer.
Layer = Callable[[jax.Array, Any], jax.Array]


def measure(
    *, seconds: float, repetitions: int = 5, batch_size: int = 128
) -> list[Table]:
    """Times layers, one compiled layer a call: in JAX, in jaxsparse and in PyTorch.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      batch_size: images.
    """
    how = {"seconds": seconds, "repetitions": repetitions}
    torch = mnist.load_torch("torch_layers")
    return [
        _table(
            f"3x3 convolutions with gradients, batch {batch_size}",
            convolutions(torch, batch_size),
            has_torch=torch is not None,
            **how,
        ),
        _table(
            f"BatchNorm and ReLU with gradients, batch {batch_size}",
            normalizations(torch, batch_size),
            has_torch=torch is not None,
            **how,
        ),
    ]


def convolutions(
    torch: ModuleType | None, batch_size: int
) -> dict[tuple[str, str], Mapping[str, Job]]:
    """Makes the jobs of all convolutions, by row, column and setting.

    Args:
      torch: the module `torch_layers`; None without PyTorch.
      batch_size: images.
    """
    library = functools.partial(lax.conv_general_dilated, dimension_numbers=ORDER)
    jobs: dict[tuple[str, str], Mapping[str, Job]] = {}
    for side, inputs, outputs in CONVOLUTIONS:
        row = f"{inputs} to {outputs} channels, {side}x{side}"
        x = random((batch_size, side, side, inputs))
        kernel = random((3, 3, inputs, outputs))
        for column, function in ((LIBRARY, library), (OURS, convolve)):
            jobs[row, column] = {"": job(padded(function), x, kernel)}
        if torch is not None:
            jobs[row, rows.PYTORCH] = torch.jobs(torch.convolution(kernel), x)
    return jobs


def padded(convolution: Callable[..., jax.Array]) -> Layer:
    """Makes a convolution with stride 1 that keeps the size of images.

    Args:
      convolution: function of images, kernel, strides and padding.
    """
    return lambda x, kernel: convolution(x, kernel, (1, 1), "SAME")


def normalizations(
    torch: ModuleType | None, batch_size: int
) -> dict[tuple[str, str], Mapping[str, Job]]:
    """Makes the jobs of all normalizations, by row, column and setting.

    Args:
      torch: the module `torch_layers`; None without PyTorch.
      batch_size: images.
    """
    jobs: dict[tuple[str, str], Mapping[str, Job]] = {}
    for side, channels in NORMALIZED:
        row = f"{channels} channels, {side}x{side}"
        x = random((batch_size, side, side, channels))
        for column, norm in ((LIBRARY, nn.BatchNorm), (OURS, BatchNorm)):
            layer, params = normalization(norm, channels)
            jobs[row, column] = {"": job(layer, x, params)}
        if torch is not None:
            jobs[row, rows.PYTORCH] = torch.jobs(torch.normalization(channels), x)
    return jobs


def normalization(norm: type[nn.BatchNorm], channels: int) -> tuple[Layer, Any]:
    """Makes BatchNorm with ReLU as a function, and its parameters.

    Args:
      norm: a class of linen modules.
      channels: number of channels.
    """
    module = norm(use_running_average=False)
    variables = module.init(jax.random.key(0), jnp.ones((1, 1, 1, channels)))

    def layer(x: jax.Array, params: Any) -> jax.Array:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        y, _ = module.apply(given, x, mutable="batch_stats")
        return nn.relu(y)

    return layer, variables["params"]


def random(shape: tuple[int, ...]) -> np.ndarray:
    """Draws float32 numbers, the same for the same shape.

    Args:
      shape: the shape.
    """
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def values(layer: Layer, x: Any, params: Any) -> Any:
    """Computes a layer, and the gradients of half the sum of its squared outputs.

    Args:
      layer: function of images and parameters.
      x: images or feature maps [b h w c].
      params: the parameters.

    Returns:
      The outputs, and the gradients by images and parameters.
    """
    y, pull = jax.vjp(layer, x, params)
    return y, *pull(y)


def job(layer: Layer, x: Any, params: Any) -> Job:
    """Times a compiled layer with its gradients.

    Args:
      layer: function of images and parameters.
      x: images or feature maps [b h w c].
      params: the parameters.
    """
    program = jax.jit(functools.partial(values, layer))
    inputs = jax.device_put((x, params))

    def run(count: int) -> None:
        for _ in range(count):
            made = program(*inputs)
        jax.block_until_ready(made)

    return Job(run, 1)


def _table(
    title: str,
    jobs: Mapping[tuple[str, str], Mapping[str, Job]],
    *,
    has_torch: bool,
    seconds: float,
    repetitions: int,
) -> Table:
    """Times jobs in turns, and makes their table: a row for each layer."""
    rates = timing.interleave(
        {
            (f"{row}, {column}", setting): made
            for (row, column), settings in jobs.items()
            for setting, made in settings.items()
        },
        seconds=seconds,
        repetitions=repetitions,
    )
    fastest, sentences = timing.best_settings(rates)
    times = timing.milliseconds(fastest)
    names = list(dict.fromkeys(row for row, _ in jobs))
    columns = list(dict.fromkeys(column for _, column in jobs))
    data: dict[str, Any] = {
        row: {"milliseconds": {c: times[f"{row}, {c}"] for c in columns}}
        for row in names
    }
    lines = [
        (row, *(timing.format_spread(t, 1) for t in data[row]["milliseconds"].values()))
        for row in names
    ]
    note = [
        "Times for outputs and gradients with respect to images and parameters. "
        "`library`: JAX's convolution and linen's BatchNorm; `jaxsparse`: what its "
        "networks use on CPUs. PyTorch also updates running statistics.",
        *sentences,
    ]
    if not has_torch:
        note.append(f"PyTorch: {rows.MISSING}.")
    return Table(
        title, ("", *(f"{c}, ms" for c in columns)), lines, " ".join(note), data
    )
