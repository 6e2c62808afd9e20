"""Matrix products and convolutions as a product of one matrix with columns.

Every layer computes `restore(matrix @ columns(x))` with a weight matrix [out, in] and
the columns [in, n] of its input: one column for each position at which the weights are
applied. The functions work on arrays of JAX, and those of products on arrays of NumPy
too.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from jax import lax


class Product(NamedTuple):
    """A `dot_general` without batch axes, of a signal and a weight.

    Attributes:
      contracted: axes of the signal that are summed, in the order of the inputs.
      free: its other axes.
      sizes: sizes of its other axes.
      outputs: sizes of the axes of the weight that are not summed.
      weight_first: whether the weight is the first operand.
    """

    contracted: tuple[int, ...]
    free: tuple[int, ...]
    sizes: tuple[int, ...]
    outputs: tuple[int, ...]
    weight_first: bool

    def columns(self, x: Any) -> Any:
        """Returns the columns [in, n] of a signal.

        Args:
          x: the signal.
        """
        return x.transpose(self.contracted + self.free).reshape(
            -1, math.prod(self.sizes)
        )

    def restore(self, y: Any) -> Any:
        """Returns the result of the product in its own shape.

        Args:
          y: products with all columns, [out, n].
        """
        if self.weight_first:
            return y.reshape(self.outputs + self.sizes)
        # Transposed as a matrix, which NumPy does without a copy.
        return y.T.reshape(self.sizes + self.outputs)


class Convolution(NamedTuple):
    """A convolution with one group and without dilation of its input.

    Attributes:
      image: order of the axes of the input: batch, channels, then positions.
      output: order of the axes of the output, in the same way.
      window: size of the kernel along each position.
      strides: steps of the window.
      dilation: distance of the window's entries.
      padding: entries added before and after each position; may be negative.
      batch: batch size.
      positions: sizes of the output along each position.
    """

    image: tuple[int, ...]
    output: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    batch: int
    positions: tuple[int, ...]

    def columns(self, x: Any) -> Any:
        """Returns the columns [in, n]: the patches of the input.

        The inputs are numbered with the position in the window first and the channels
        last.

        Args:
          x: images.
        """
        x = x.transpose((self.image[1], self.image[0], *self.image[2:]))
        spread = ((0, 0, 0), (0, 0, 0), *((a, b, 0) for a, b in self.padding))
        if any(pair != (0, 0) for pair in self.padding):
            x = lax.pad(x, np.zeros((), x.dtype), spread)
        shifted = []
        for place in itertools.product(*map(range, self.window)):
            start = [i * step for i, step in zip(place, self.dilation, strict=True)]
            stop = [
                first + (size - 1) * stride + 1
                for first, size, stride in zip(
                    start, self.positions, self.strides, strict=True
                )
            ]
            part = lax.slice(
                x, (0, 0, *start), (*x.shape[:2], *stop), (1, 1, *self.strides)
            )
            shifted.append(part.reshape(x.shape[0], -1))
        return shifted[0] if len(shifted) == 1 else lax.concatenate(shifted, 0)

    def restore(self, y: Any) -> Any:
        """Returns the result of the convolution in its own shape.

        Args:
          y: products with all columns, [out, n].
        """
        y = y.reshape(y.shape[0], self.batch, *self.positions)
        order = {axis: i for i, axis in enumerate(self.output)}
        places = [order[axis] for axis in range(y.ndim)]
        return y.transpose([{0: 1, 1: 0}.get(i, i) for i in places])


Geometry = Product | Convolution


def of_product(params: dict[str, Any], signal: Any, weight: Any, *, first: bool) -> Any:
    """Describes a product of a signal and a weight.

    Args:
      params: parameters of the equation.
      signal: shape of the signal.
      weight: the weight.
      first: whether the weight is the first operand.

    Returns:
      The geometry and the matrix [out, in]; None if there are batch axes.
    """
    contract, batch = params["dimension_numbers"]
    if batch[0]:
        return None
    of_weight, of_signal = contract if first else contract[::-1]
    free = tuple(i for i in range(len(signal)) if i not in of_signal)
    rest = tuple(i for i in range(weight.ndim) if i not in of_weight)
    outputs = tuple(weight.shape[i] for i in rest)
    matrix = weight.transpose(rest + tuple(of_weight)).reshape(math.prod(outputs), -1)
    sizes = tuple(signal[i] for i in free)
    return Product(tuple(of_signal), free, sizes, outputs, first), matrix


def of_convolution(
    params: dict[str, Any], signal: Any, weight: Any, result: Any
) -> Any:
    """Describes a convolution of images with a weight.

    Args:
      params: parameters of the equation.
      signal: shape of the images.
      weight: the kernel.
      result: shape of the output.

    Returns:
      The geometry and the matrix [out, in]; None for grouped and transposed ones.
    """
    groups = params["feature_group_count"], params["batch_group_count"]
    if groups != (1, 1) or any(n != 1 for n in params["lhs_dilation"]):
        return None
    numbers = params["dimension_numbers"]
    kernel, output = numbers.rhs_spec, tuple(numbers.out_spec)
    window = tuple(weight.shape[i] for i in kernel[2:])
    matrix = weight.transpose((kernel[0], *kernel[2:], kernel[1]))
    geometry = Convolution(
        tuple(numbers.lhs_spec),
        output,
        window,
        tuple(params["window_strides"]),
        tuple(params["rhs_dilation"]),
        tuple(map(tuple, params["padding"])),
        signal[numbers.lhs_spec[0]],
        tuple(result[i] for i in output[2:]),
    )
    return geometry, matrix.reshape(matrix.shape[0], -1)
