"""Single layers with all their gradients: convolutions, and BatchNorm with ReLU."""

import functools
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

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


class Case(NamedTuple):
    """A layer of which there are several implementations: a row of a table.

    Attributes:
      row: name of the row.
      images: images or feature maps [b h w c].
      layers: layers of JAX with their parameters, by column.
      theirs: makes PyTorch's layer from the module `torch_layers`.
    """

    row: str
    images: np.ndarray
    layers: dict[str, tuple[Layer, Any]]
    theirs: Callable[[ModuleType], Any]


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
    tables = {
        "3x3 convolutions": convolutions(batch_size),
        "BatchNorm and ReLU": normalizations(batch_size),
    }
    return [
        _table(f"{name} with gradients, batch {batch_size}", cases, torch, **how)
        for name, cases in tables.items()
    ]


def convolutions(batch_size: int) -> Iterator[Case]:
    """Makes all convolutions.

    Args:
      batch_size: images.
    """
    library = functools.partial(lax.conv_general_dilated, dimension_numbers=ORDER)
    for side, inputs, outputs in CONVOLUTIONS:
        kernel = random((3, 3, inputs, outputs))
        yield Case(
            f"{inputs} to {outputs} channels, {side}x{side}",
            random((batch_size, side, side, inputs)),
            {LIBRARY: (padded(library), kernel), OURS: (padded(convolve), kernel)},
            lambda torch, kernel=kernel: torch.convolution(kernel),
        )


def padded(convolution: Callable[..., jax.Array]) -> Layer:
    """Makes a convolution with stride 1 that keeps the size of images.

    Args:
      convolution: function of images, kernel, strides and padding.
    """
    return lambda x, kernel: convolution(x, kernel, (1, 1), "SAME")


def normalizations(batch_size: int) -> Iterator[Case]:
    """Makes all normalizations.

    Args:
      batch_size: images.
    """
    for side, channels in NORMALIZED:
        norms = {LIBRARY: nn.BatchNorm, OURS: BatchNorm}
        yield Case(
            f"{channels} channels, {side}x{side}",
            random((batch_size, side, side, channels)),
            {name: normalization(norm, channels) for name, norm in norms.items()},
            lambda torch, channels=channels: torch.normalization(channels),
        )


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
    cases: Iterable[Case],
    torch: ModuleType | None,
    *,
    seconds: float,
    repetitions: int,
) -> Table:
    """Times layers in turns, and makes their table: a row for each case."""
    jobs, names, columns = {}, [], [LIBRARY, OURS]
    columns += [] if torch is None else [rows.PYTORCH]
    for case in cases:
        names.append(case.row)
        for column, (layer, params) in case.layers.items():
            jobs[f"{case.row}, {column}", ""] = job(layer, case.images, params)
        if torch is not None:
            theirs = torch.jobs(case.theirs(torch), case.images)
            for setting, made in theirs.items():
                jobs[f"{case.row}, {rows.PYTORCH}", setting] = made
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    fastest, sentences = timing.best_settings(rates)
    times = timing.milliseconds(fastest)
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
    if torch is None:
        note.append(f"PyTorch: {rows.MISSING}.")
    return Table(
        title, ("", *(f"{c}, ms" for c in columns)), lines, " ".join(note), data
    )
