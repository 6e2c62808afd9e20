"""The benchmark of single layers: the same values in JAX, here and in PyTorch."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn

from experiments.benchmarks import mnist, rows, single_layers
from jaxsparse.models.convolutions import convolve
from jaxsparse.models.normalization import BatchNorm

COLUMNS = (single_layers.LIBRARY, single_layers.OURS)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_layers, "CONVOLUTIONS", ((4, 2, 3),))
    monkeypatch.setattr(single_layers, "NORMALIZED", ((4, 3),))


def measured(*, batch_size: int = 2) -> Any:
    return single_layers.measure(seconds=0.0, repetitions=2, batch_size=batch_size)


def test_a_table_has_a_column_for_each_library(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "load_torch", lambda name: None)
    tables = measured()
    for table, row in zip(
        tables, ("2 to 3 channels, 4x4", "3 channels, 4x4"), strict=True
    ):
        (times,) = (table.data[name]["milliseconds"] for name in table.data)
        assert list(table.data) == [row] and list(times) == [*COLUMNS]
        assert all(len(values) == 2 for values in times.values())
        assert table.header == ("", *(f"{column}, ms" for column in COLUMNS))
        assert table.note.endswith(f"PyTorch: {rows.MISSING}.")


def test_values_and_gradients_are_those_of_pytorch(small: None) -> None:
    pytest.importorskip("torch")
    layers = mnist.load_torch("torch_layers")
    assert layers is not None
    tables = measured()
    assert [table.header[-1] for table in tables] == ["PyTorch, ms"] * 2

    x, kernel = (single_layers.random(size) for size in ((2, 5, 5, 4), (3, 3, 4, 6)))
    y, of_x, of_kernel = pytorch(layers, layers.convolution(kernel), x)
    layer = single_layers.padded(convolve)
    ours = jax.jit(lambda *args: single_layers.values(layer, *args))(x, kernel)
    close(ours, (y, of_x, of_kernel.transpose(2, 3, 1, 0)))

    y, of_x, *of_params = pytorch(layers, layers.normalization(4), x)
    for norm in (nn.BatchNorm, BatchNorm):
        layer, params = single_layers.normalization(norm, 4)
        program = jax.jit(lambda *args, f=layer: single_layers.values(f, *args))
        *found, mine = program(x, params)
        close(found, (y, of_x))
        close((mine["scale"], mine["bias"]), of_params)


def pytorch(layers: Any, layer: Any, x: np.ndarray) -> list[np.ndarray]:
    """Returns outputs, and gradients by images and parameters, with channels last."""
    y, of_x, *rest = (
        each.detach().numpy() for each in layers.values(layer, layers.as_images(x))
    )
    return [np.moveaxis(y, 1, -1), np.moveaxis(of_x, 1, -1), *rest]


def close(found: Any, wanted: Any) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-3, atol=2e-4)
