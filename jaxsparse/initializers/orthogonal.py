"""Exact orthogonal initialization: sparse kernels that are orthogonal with their zeros.

An identity matrix is rotated in random pairs of coordinates until it has the given
number of nonzero elements, so weights and masks result together. Given masks generally
allow no orthogonal kernel; for those, see `reinitialize`.

The functions run on the host with NumPy, because the elements that a rotation fills
depend on all rotations before it.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from jaxsparse import arguments, fan_axes, tree
from jaxsparse import rng as rng_lib
from jaxsparse.types import Counts, Masks


@arguments.check(params=arguments.weights, gain=arguments.number())
def exact_orthogonal(
    params: Any,
    counts: Counts,
    *,
    gain: float = 1.0,
    exact_count: bool = False,
    dense_center: bool = False,
    axes: fan_axes.Axes = None,
    key: Key[Array, ""],
) -> tuple[Any, Masks]:
    """Draws weights and a mask for every leaf with a count, by `sparse_orthogonal`.

    Each leaf is drawn with a key that depends on its name. Cannot be used under `jit`.

    Args:
      params: any tree of parameters. Only names, shapes and dtypes of leaves with a
        count are used.
      counts: number of weights to keep in each leaf, such as from
        `distributions.divide`; None for leaves that are not changed.
      gain: value of every singular value of a kernel.
      exact_count: whether each mask keeps exactly its count, whatever the kernel's
        shape. If False, the count of a matrix may be off by r / 2, and no kernel has
        fewer than r weights, where r is the smaller of the numbers of inputs and
        outputs.
      dense_center: whether to put more of a convolution's weights into its central
        position, where they are not zero: with n positions and the density d, the
        central matrix has the density min(n d, sqrt(d)) instead of d.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes. The
        matrices of stacked layers and grouped convolutions are drawn separately; their
        counts differ by at most one weight.
      key: typed key for the whole network.

    Returns:
      Parameters and masks with the nesting of `params`. Leaves without a count are
      returned unchanged, as the same objects, with the mask None.

    Raises:
      ValueError: if a leaf has fewer than two axes or an empty one, its count is out of
        range, `exact_count` is combined with a count below r, or counts and parameters
        have different leaves; the message names the leaf.
      TypeError: if a count is not an integer.

    Examples:
      >>> dense = masks.ones(params)
      >>> counts = distributions.divide("erk", dense, 0.9)
      >>> params, ticket = exact_orthogonal(params, counts, key=jax.random.key(0))
    """
    layouts = fan_axes.of_tree(params, axes)
    fitted = tree.match_structure(
        counts, params, fields=("counts", "params"), shapes=False
    )

    def draw_leaf(name: str, leaf: Any, count: Any) -> Any:
        if count is None:
            return leaf, None
        arguments.integer(0)(f"counts: {name}", count)
        layout, own_key = layouts[name], rng_lib.leaf_key(key, name)
        fans = fan_axes.fans(layout, name, leaf.shape)
        draw = functools.partial(
            sparse_orthogonal,
            (*fans.positions, fans.inputs, fans.outputs),
            gain=gain,
            exact_count=exact_count,
            dense_center=dense_center,
            dtype=leaf.dtype,
        )
        # `extra` matrices get one weight above the quotient.
        each, extra = divmod(int(count), max(fans.stack, 1))
        keys = [own_key] if fans.stack == 1 else jax.random.split(own_key, fans.stack)
        try:
            drawn_pairs = zip(
                *(draw(each + (i < extra), key=k) for i, k in enumerate(keys)),
                strict=True,
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return tuple(
            fan_axes.from_matrices(layout, name, jnp.stack(matrices), leaf.shape)
            for matrices in drawn_pairs
        )

    pairs = tree.map_with_names(draw_leaf, params, fitted)
    # Leaves of `params` end the traversal, so each pair is passed whole. The default
    # argument binds the number at this iteration.
    drawn, masks = (
        jax.tree.map(lambda _, pair, number=number: pair[number], params, pairs)
        for number in (0, 1)
    )
    return drawn, masks


@arguments.check(count=arguments.integer(), gain=arguments.number())
def sparse_orthogonal(
    shape: tuple[int, ...],
    count: int,
    *,
    gain: float = 1.0,
    exact_count: bool = False,
    dense_center: bool = False,
    dtype: DTypeLike = jnp.float32,
    key: Key[Array, ""],
) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
    r"""Draws a sparse orthogonal kernel and its mask.

    Let :math:`r` be the smaller and :math:`m` the larger number of features. The first
    :math:`r` of :math:`m` unit vectors are the rows of a matrix. Until it has `count`
    weights, two of the :math:`m` columns and an angle in :math:`[0, 2\pi)` are drawn,
    all uniformly, and the columns are rotated by the angle. The rows stay orthonormal,
    whatever the mask: with the gain :math:`g`, :math:`W^T W = g^2 I` or
    :math:`W W^T = g^2 I`, whichever product is the smaller matrix.

    A convolution has such a matrix at its central position (k - 1) // 2 and zeros at
    all others; this is a delta-orthogonal kernel. The density of the matrix is that
    requested for the kernel. Zeros at positions drawn uniformly are then added to the
    mask until it has `count` entries.

    One rotation adds at most r weights. The better of the two counts around the
    requested one is taken, so a matrix is within r / 2 of its count. The mask of a
    kernel with three or more axes then has exactly `count` entries, unless its matrix
    alone has more, as can happen with a single position or with `dense_center`. No
    kernel has fewer than r weights.

    A 4096 x 4096 matrix takes 2, 4, 7 and 13 rotations for each of its m columns until
    it is 2%, 50%, 99% and completely full. Each rotation processes r weights: 1 to 5
    seconds in total on one CPU core. It takes about 30 bytes of memory per weight.

    Args:
      shape: shape of the kernel, [..., i, o].
      count: number of weights to keep, from 0 to the size of the kernel.
      gain: value of every singular value.
      exact_count: whether the mask keeps exactly `count` weights, whatever the shape.
        Rotations then stop before the matrix has more, and zeros are added to the mask
        of a matrix, too.
      dense_center: whether to put more of the weights into the central position, where
        they are not zero: with n positions and the density d, the matrix of a
        convolution has the density min(n d, sqrt(d)).
      dtype: dtype of the weights. Rotations are computed in float64 and then rounded.
      key: typed key. It seeds NumPy's generator, so the result depends on NumPy's
        version.

    Returns:
      Weights and mask of the given shape. Weights outside the mask are 0; some inside
      it may be 0, too.

    Raises:
      ValueError: if `shape` has fewer than two axes or an empty one, `count` is not
        between 0 and the size, or `exact_count` is combined with a count below r.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> weights, mask = sparse_orthogonal((8, 8), 20, key=jax.random.key(0))
      >>> bool(jnp.allclose(weights.T @ weights, jnp.eye(8), atol=1e-6))
      True

    Deviations:
      The algorithm is that of the authors' code, with its defaults. `exact_count` is
      not part of that code; `dense_center` is, for residual networks and VGG. That code
      handles a density outside [0, 1] by a warning and the identity, and rejects
      kernels of even size.

    References:
      Nowak, Gniecki, Szatkowski, Tabor. Sparser, Better, Deeper, Stronger: Improving
      Static Sparse Training with Exact Orthogonal Initialization. 2024.
      arXiv:2406.01755. The pairs, the angles, the stopping rule, the central position
      and the added zeros follow the authors' code.

      Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington. Dynamical Isometry and a Mean
      Field Theory of CNNs. 2018. arXiv:1806.05393, algorithm 2: delta-orthogonal.
    """
    _check(shape, count, exact_count)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    target = _matrix_count(shape, count, dense_center)
    matrix, filled = _rotate(rng, shape[-2:], target, count if exact_count else None)
    weights, mask = np.zeros(shape, jnp.dtype(dtype)), np.zeros(shape, bool)
    center = tuple((size - 1) // 2 for size in shape[:-2])
    weights[center], mask[center] = np.where(filled, gain * matrix, 0.0), filled
    num_missing = count - int(np.count_nonzero(mask))
    if num_missing > 0 and (exact_count or len(shape) > 2):
        zeros = np.flatnonzero(~mask)
        added = rng.choice(zeros, size=num_missing, replace=False)
        mask.reshape(-1)[added] = True
    return jnp.asarray(weights), jnp.asarray(mask)


def _check(shape: tuple[int, ...], count: int, exact_count: bool) -> None:
    """Checks that an orthogonal kernel of this shape and count exists.

    Raises:
      ValueError: if the shape or the count is out of range.
    """
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"shape: expected that of a kernel, [..., i, o], without axes of length 0, "
            f"got {shape}"
        )
    if not 0 <= count <= math.prod(shape):
        raise ValueError(
            f"count: expected 0 to {math.prod(shape)} for a kernel of shape {shape}, "
            f"got {count}"
        )
    if exact_count and count < min(shape[-2:]):
        raise ValueError(
            f"count: expected at least {min(shape[-2:])}, one for each row of an "
            f"orthogonal matrix, got exactly {count} for shape {shape}; keep more "
            "weights, or pass exact_count=False for the identity"
        )


def _matrix_count(shape: tuple[int, ...], count: int, dense_center: bool) -> float:
    """Computes the requested number of weights of a kernel's central matrix."""
    taps, pairs = math.prod(shape[:-2]), math.prod(shape[-2:])
    if dense_center:
        return min(float(count), math.sqrt(count * pairs / taps))
    return count / taps


def _rotate(
    rng: np.random.Generator,
    features: tuple[int, ...],
    target: float,
    limit: int | None,
) -> tuple[Float[np.ndarray, "i o"], Bool[np.ndarray, "i o"]]:
    """Rotates an identity until it has the target count or would exceed a limit.

    Args:
      rng: random generator of the pairs and angles.
      features: numbers of inputs and outputs.
      target: number of weights to approximate.
      limit: largest number of weights allowed; None for no limit.

    Returns:
      The matrix [i, o] and a boolean array of its nonzero positions. The latter are
      tracked separately, since products of many sines and cosines may round to zero.
    """
    small, large = sorted(features)
    # Transposed, so that the two columns of a rotation are contiguous in memory.
    matrix, filled = np.eye(large, small), np.eye(large, small, dtype=bool)
    kept = small
    while kept < target:
        first = rng.integers(large)
        # Uniform among the other columns.
        second = (first + rng.integers(1, large)) % large
        angle = rng.uniform(0.0, 2.0 * np.pi)
        # A rotation fills a position in both columns if it is filled in one of them.
        after = kept + int(np.count_nonzero(filled[first] ^ filled[second]))
        # Stop at the count nearest to the target, before or after this rotation.
        exceeds = limit is not None and after > limit
        if exceeds or target - kept < after - target:
            break
        rotation = np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        )
        pair = [first, second]
        matrix[pair] = rotation @ matrix[pair]
        filled[pair] |= filled[[second, first]]
        kept = after
    if features[0] < features[1]:
        return matrix.T, filled.T
    return matrix, filled
