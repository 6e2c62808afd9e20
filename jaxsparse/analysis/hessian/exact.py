"""The full Hessian of a small network, and all its eigenvalues.

The Hessian is computed layer by layer. For each layer only its own columns are
computed, and in these only the rows of this layer and of the layers that follow; the
other entries follow by symmetry. Layers with convolutions come first: the columns of
all other layers, which are usually the majority, then need no derivative of a
convolution.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.analysis.hessian import eigenvalues as eigenvalues_lib
from jaxsparse.analysis.hessian import hvp, param_subspace

Group = tuple[int, ...]
COLUMNS_AT_ONCE = 32


class Hessian(NamedTuple):
    """A Hessian in the coordinates of a subspace.

    Attributes:
      matrix: symmetric matrix, [n, n] in float64, on the host.
      asymmetry: Frobenius norm of the antisymmetric part that was removed from the
        entries that were computed twice; it measures the rounding error of the
        products.
      examples: number of examples over which the loss was averaged.
      dtype: dtype in which the products were computed.
    """

    matrix: Float[np.ndarray, "n n"]
    asymmetry: float
    examples: int
    dtype: np.dtype


def spectrum(
    loss: hvp.Loss,
    space: param_subspace.Subspace,
    batches: PyTree,
    *,
    batch_size: int | None = None,
    columns_at_once: int | None = None,
    both_halves: bool = False,
    vectors: bool = False,
) -> eigenvalues_lib.Spectrum:
    """Computes all eigenvalues of the Hessian in a subspace.

    Args:
      loss: called as `loss(params, batch)`; returns the mean over the batch of a twice
        differentiable function of each example.
      space: coordinates and the point at which to differentiate, from
        `param_subspace.make`.
      batches: examples, a tree whose leaves begin with the axis of examples.
      batch_size: examples per microbatch, 1 or more; None for all examples at once.
      columns_at_once: columns to compute together, 1 or more; None for 1 where they
        pass through convolutions, and 32 elsewhere.
      both_halves: whether to compute the entries that follow by symmetry too, so that
        `asymmetry` covers the whole matrix.
      vectors: whether to return the eigenvectors too.

    Returns:
      The eigenvalues, by `numpy.linalg.eigh` in float64.

    Raises:
      ValueError: if the leaves of `batches` do not begin with one axis of 1 or more
        examples, if `batch_size` or `columns_at_once` is less than 1, or if the Hessian
        is not finite, naming the layer.

    Deviations:
      The figures of the paper use all 60,000 training examples; here `batches`
      determines the examples. The spectrum does not include the masked coordinates.
      `eigenvalues.dense` adds their zero eigenvalues, as `is_dense_spectrum=True` does
      in the authors' code.

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, section on the Hessian spectrum.
    """
    hessian = matrix(
        loss,
        space,
        batches,
        batch_size=batch_size,
        columns_at_once=columns_at_once,
        both_halves=both_halves,
    )
    if vectors:
        eigenvalues, eigenvectors = np.linalg.eigh(hessian.matrix)
    else:
        eigenvalues, eigenvectors = np.linalg.eigvalsh(hessian.matrix), None
    return eigenvalues_lib.Spectrum(
        eigenvalues=eigenvalues,
        n=eigenvalues.size,
        zeros_added=0,
        examples=hessian.examples,
        dtype=hessian.dtype.name,
        asymmetry=hessian.asymmetry,
        vectors=eigenvectors,
    )


@arguments.check(
    loss=arguments.function,
    space=arguments.instance(param_subspace.Subspace),
    columns_at_once=arguments.optional(arguments.integer(1)),
)
def matrix(
    loss: hvp.Loss,
    space: param_subspace.Subspace,
    batches: PyTree,
    *,
    batch_size: int | None = None,
    columns_at_once: int | None = None,
    both_halves: bool = False,
) -> Hessian:
    """Computes the Hessian in a subspace.

    Leaves whose names differ only in the last part form a layer. A layer with a leaf of
    more than two axes counts as a convolution. With other naming schemes the result is
    the same, but takes longer.

    Args:
      loss: called as `loss(params, batch)`; returns the mean over the batch of a twice
        differentiable function of each example.
      space: coordinates and the point at which to differentiate, from
        `param_subspace.make`.
      batches: examples, a tree whose leaves begin with the axis of examples.
      batch_size: examples per microbatch, 1 or more; None for all examples at once.
      columns_at_once: columns to compute together, 1 or more. None for 1 where they
        pass through convolutions, since XLA on a CPU runs convolutions with many
        kernels at once slowly, and 32 elsewhere.
      both_halves: whether to compute the entries that follow by symmetry too, so that
        `asymmetry` covers the whole matrix.

    Returns:
      The symmetrized matrix. It takes 8 n^2 bytes on the host, and n^2 elements in the
      dtype of the coordinates on the device that computes the products.

    Raises:
      ValueError: if the leaves of `batches` do not begin with one axis of 1 or more
        examples, if `batch_size` or `columns_at_once` is less than 1, or if the Hessian
        is not finite, naming the layer.
    """
    data = hvp.microbatches(batches, batch_size)
    groups = _groups(space)
    ends = np.cumsum(param_subspace.sizes(space))
    positions = [
        np.arange(end - n, end)
        for end, n in zip(ends, param_subspace.sizes(space), strict=True)
    ]
    result = np.zeros((param_subspace.size(space), param_subspace.size(space)))
    norm = 0.0  # squared, of the antisymmetric part (A - A^T) / 2
    for i, group in enumerate(groups):
        # Rows of earlier layers are known by symmetry from the columns of these layers.
        remaining = groups[:i] * both_halves + groups[i + 1 :]
        order = sum(remaining, group)
        max_width = columns_at_once or _at_once(space, order)
        block = _columns(
            jax.tree_util.Partial(loss), space, data, group, order, max_width
        )
        columns = np.concatenate([positions[leaf] for leaf in group])
        rows = np.concatenate([positions[leaf] for leaf in order])
        block = np.asarray(block, np.float64)
        _check(block, space, group)
        result[np.ix_(columns, rows)] = block
        if not both_halves:
            diagonal_block = block[:, : columns.size]
            norm += np.sum((diagonal_block - diagonal_block.T) ** 2) / 4
            result[np.ix_(rows, columns)] = block.T
            result[np.ix_(columns, columns)] = (diagonal_block + diagonal_block.T) / 2
    if both_halves:
        norm = np.sum((result - result.T) ** 2) / 4
        result = (result + result.T) / 2
    return Hessian(
        result, float(np.sqrt(norm)), hvp.count(data), param_subspace.dtype(space)
    )


def _groups(space: param_subspace.Subspace) -> list[Group]:
    """Groups the positions of nonempty leaves by layer, convolutions first."""
    names = masks_lib.names(space.params)
    layers: dict[str, Group] = {}
    for position, (name, size) in enumerate(
        zip(names, param_subspace.sizes(space), strict=True)
    ):
        if size:
            layer = name.rpartition("/")[0] or name
            layers[layer] = (*layers.get(layer, ()), position)
    return sorted(layers.values(), key=lambda group: not _convolves(space, group))


def _convolves(space: param_subspace.Subspace, positions: Group) -> bool:
    leaves = jax.tree.leaves(space.params)
    return any(leaves[position].ndim > 2 for position in positions)


def _at_once(space: param_subspace.Subspace, positions: Group) -> int:
    return 1 if _convolves(space, positions) else COLUMNS_AT_ONCE


def _check(block: Float[np.ndarray, "_ _"], space: Any, group: Group) -> None:
    """Raises ValueError if an entry is not finite."""
    if not np.all(np.isfinite(block)):
        names = [masks_lib.names(space.params)[position] for position in group]
        raise ValueError(
            "loss: expected a finite Hessian, got NaN or infinity in the columns of "
            f"{names}; look for overflow, or a root or logarithm of zero, in the loss"
        )


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _columns(
    loss: hvp.Loss,
    space: param_subspace.Subspace,
    data: hvp.Microbatches,
    group: Group,
    order: Group,
    max_width: int,
) -> Float[Array, "columns rows"]:
    """Computes the Hessian columns of one layer, in the rows of the leaves of `order`.

    Args:
      loss: the mean loss over a batch.
      space: coordinates and point.
      data: the examples.
      group: positions of the leaves of the layer.
      order: positions of the leaves whose rows are computed; begins with `group`.
      max_width: maximum number of columns to compute together.

    Returns:
      The columns, one per row of the result.
    """
    # Leaves stay separate arguments. With one vector of all coordinates, every column
    # would differentiate the whole network, not only what depends on `group`.
    point = param_subspace.pieces(space, space.params)
    start = [point[position] for position in group]
    n = sum(piece.shape[0] for piece in start)
    num_chunks = -(-n // max_width)
    # Equal widths, so that one shape is compiled with as little padding as possible.
    width = -(-n // num_chunks)
    numbers = jnp.arange(num_chunks * width).reshape(num_chunks, width)
    bounds = np.cumsum([piece.shape[0] for piece in start])[:-1]

    def columns_of_batch(batch: Any) -> Float[Array, "columns rows"]:
        def gradient(moved: list[Array]) -> Float[Array, "rows"]:
            def value(at: list[Array]) -> Float[Array, ""]:
                return loss(
                    param_subspace.join(space, dict(zip(order, at, strict=True))), batch
                )

            constants = [point[position] for position in order[len(group) :]]
            return jnp.concatenate(jax.grad(value)(moved + constants))

        _, linearized = jax.linearize(gradient, start)

        # Numbers of n and more select no coordinate: `unit` and the column are zero,
        # and the column is cut off below.
        def column(number: Array) -> Float[Array, "rows"]:
            unit = (jnp.arange(n) == number).astype(start[0].dtype)
            return linearized(jnp.split(unit, bounds))

        if width == 1:
            return lax.map(column, numbers[:, 0])
        columns = lax.map(jax.vmap(column), numbers)
        return columns.reshape(num_chunks * width, -1)[:n]

    return hvp.mean(columns_of_batch, data)
