"""Products with sparse weights, compiled by Numba, for dense layers and convolutions.

A convolution with few active weights needs no patches: the entry of an output at every
position is a sum of shifted copies of its input channels. The input is stored as
planes, one for each channel and each remainder of a position by the stride. Every
weight then multiplies one contiguous piece of a plane. A dense layer is the case of
planes that are not shifted.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import lax
from jaxtyping import Float

from jaxsparse import extras
from jaxsparse.predict.geometry import Convolution, Geometry, Product

BLOCK = 2048  # entries of an output that are summed together, 8 KB of float32


class Planes(NamedTuple):
    """Sizes of the planes of a convolution.

    Attributes:
      sizes: size of a plane along each position.
      shifts: for each entry of the window, in order, which remainder it reads and at
        which distance from the position of the output.
    """

    sizes: tuple[int, ...]
    shifts: tuple[tuple[int, int], ...]


def is_available() -> bool:
    """Says whether Numba, of the extra `predict`, is installed."""
    try:
        extras.require("numba", purpose="the form 'direct'", extra="predict")
    except ModuleNotFoundError:
        return False
    return True


@functools.cache
def kernel() -> Callable[..., None]:
    """Compiles the product; called with the arrays of `Direct`, [out, b, n] last."""
    import numba

    def multiply(
        starts: Any, planes: Any, shifts: Any, values: Any, x: Any, out: Any
    ) -> None:
        length = out.shape[2]
        for image in range(out.shape[1]):
            for low in range(0, length, BLOCK):
                size = min(BLOCK, length - low)
                for row in range(out.shape[0]):
                    total = out[row, image, low : low + size]
                    total[:] = 0
                    for i in range(starts[row], starts[row + 1]):
                        first = shifts[i] + low
                        piece = x[planes[i], image, first : first + size]
                        weight = values[i]
                        for k in range(size):
                            total[k] += weight * piece[k]

    # Contraction makes one instruction of a product and a sum; nothing else changes.
    # Type checks of the package in tests wrap functions, which Numba cannot compile.
    options = {"fastmath": {"contract"}, "nogil": True}
    return numba.njit(**options)(inspect.unwrap(multiply))


def planes_of(geometry: Convolution) -> Planes:
    """Describes the planes of a convolution.

    Args:
      geometry: the convolution.
    """
    window = zip(geometry.window, geometry.dilation, strict=True)
    reach = [(size - 1) * step for size, step in window]
    sizes = tuple(
        count + far // stride
        for count, far, stride in zip(
            geometry.positions, reach, geometry.strides, strict=True
        )
    )
    shifts = []
    for place in itertools.product(*map(range, geometry.window)):
        start = [i * step for i, step in zip(place, geometry.dilation, strict=True)]
        rest = [i % stride for i, stride in zip(start, geometry.strides, strict=True)]
        whole = [i // stride for i, stride in zip(start, geometry.strides, strict=True)]
        shifts.append(
            (_flat(rest, geometry.strides), _flat(whole, sizes)),
        )
    return Planes(sizes, tuple(shifts))


def _flat(index: Any, sizes: Any) -> int:
    """Returns the number of an index in an array of some sizes."""
    number = 0
    for i, size in zip(index, sizes, strict=True):
        number = number * size + i
    return number


def spread(geometry: Geometry, x: Any) -> Any:
    """Returns the planes [planes, b, n] of a signal; may be traced.

    Args:
      geometry: the layer.
      x: the signal.
    """
    if isinstance(geometry, Product):
        columns = geometry.columns(x)
        return columns.reshape(columns.shape[0], 1, -1)
    sizes = planes_of(geometry).sizes
    x = x.transpose((geometry.image[1], geometry.image[0], *geometry.image[2:]))
    pads = [(0, 0, 0), (0, 0, 0)]
    strides = geometry.strides
    for size, count, stride, (before, _) in zip(
        x.shape[2:], sizes, strides, geometry.padding, strict=True
    ):
        # Cut or padded at the end to a multiple of the stride.
        pads.append((before, count * stride - size - before, 0))
    x = lax.pad(x, np.zeros((), x.dtype), pads)
    split = [each for pair in zip(sizes, strides, strict=True) for each in pair]
    x = x.reshape(*x.shape[:2], *split)
    number = len(sizes)
    rests = [3 + 2 * i for i in range(number)]
    wholes = [2 + 2 * i for i in range(number)]
    x = x.transpose((0, *rests, 1, *wholes))
    return x.reshape(-1, geometry.batch, math.prod(sizes))


def gather(geometry: Geometry, y: Any) -> Any:
    """Returns the result of a layer in its own shape; may be traced.

    Args:
      geometry: the layer.
      y: products, [out, b, n], as `Direct` computes them.
    """
    if isinstance(geometry, Product):
        return geometry.restore(y.reshape(y.shape[0], -1))
    sizes = planes_of(geometry).sizes
    shape = (*y.shape[:2], geometry.positions[0], *sizes[1:])
    y = y.reshape(shape)
    parts = tuple(slice(count) for count in geometry.positions)
    return geometry.restore(y[(slice(None), slice(None), *parts)])


class Direct:
    """A sparse matrix that is multiplied with planes on the host, on one core."""

    def __init__(self, matrix: Float[np.ndarray, "out in"], geometry: Geometry) -> None:
        """Stores the active weights.

        Args:
          matrix: weights, zero where they are pruned.
          geometry: the layer.
        """
        rows, inputs = np.nonzero(matrix)
        counts = np.bincount(rows, minlength=len(matrix))
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._values = matrix[rows, inputs]
        if isinstance(geometry, Product):
            self._planes, self._shifts = inputs, np.zeros_like(inputs)
            self._size, self._length = None, None
        else:
            planes = planes_of(geometry)
            remainders = math.prod(geometry.strides)
            channels = matrix.shape[1] // len(planes.shifts)
            places, channel = np.divmod(inputs, channels)
            shifts = np.asarray(planes.shifts).reshape(-1, 2)[places]
            self._planes = channel * remainders + shifts[:, 0]
            self._shifts = shifts[:, 1]
            rest = planes.sizes[1:]
            self._size = geometry.positions[0] * math.prod(rest)
            # Up to the last position of an output, so that nothing behind is read.
            last = [count - 1 for count in geometry.positions]
            self._length = _flat(last, planes.sizes) + 1

    def __call__(self, planes: Any) -> np.ndarray:
        """Returns the products, [out, b, n].

        Args:
          planes: array of NumPy or JAX, [planes, b, n].
        """
        x = np.ascontiguousarray(planes)
        size = self._size or x.shape[2]
        out = np.empty((len(self._starts) - 1, x.shape[1], size), np.float32)
        part = out[:, :, : self._length or size]
        kernel()(self._starts, self._planes, self._shifts, self._values, x, part)
        return out
