"""Exact orthogonal initialisation: sparse kernels that are orthogonal as they stand.

Random rotations of two coordinates at a time fill an identity until as many weights
are there as wanted, so masks and weights come at once. Masks that others chose cannot
in general be orthogonal; for those there is `redrawing`.

It runs on the host, in numpy: which weights one rotation fills depends on all before.
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
    """Draws every leaf that has a count, and its mask, as `sparse_orthogonal` does.

    Each leaf draws with a key of its name. Not for use under `jit`.

    Args:
      params: any tree of parameters; of leaves with a count only names, shapes and
        dtypes are used.
      counts: how many weights to keep of each leaf, such as those from
        `distributions.divide`; None for a leaf to leave alone.
      gain: as in `sparse_orthogonal`.
      exact_count: as in `sparse_orthogonal`.
      dense_center: as in `sparse_orthogonal`.
      axes: as in `redraw`. The counts of stacked layers and of groups differ by one
        weight at most.
      key: one key for the whole network.

    Returns:
      Parameters and masks with the nesting of `params`; leaves without a count are the
      very objects that came, with the mask None.

    Raises:
      ValueError: as `sparse_orthogonal`, naming the leaf.

    Examples:
      >>> dense = masks.dense(params)
      >>> counts = distributions.divide("erk", dense, 0.9)
      >>> params, ticket = exact_orthogonal(params, counts, key=jax.random.key(0))
    """
    layouts = fan_axes.of_tree(params, axes)
    fitted = tree.match_structure(
        counts, params, fields=("counts", "params"), shapes=False
    )

    def one(name: str, leaf: Any, count: Any) -> Any:
        if count is None:
            return leaf, None
        arguments.integer(0)(f"counts: {name}", count)
        layout, mine = layouts[name], rng_lib.leaf_key(key, name)
        fans = fan_axes.fans(layout, name, leaf.shape)
        draw = functools.partial(
            sparse_orthogonal,
            (*fans.positions, fans.inputs, fans.outputs),
            gain=gain,
            exact_count=exact_count,
            dense_center=dense_center,
            dtype=leaf.dtype,
        )
        each, more = divmod(int(count), max(fans.stack, 1))
        drawn_with = [mine] if fans.stack == 1 else jax.random.split(mine, fans.stack)
        try:
            both = zip(
                *(draw(each + (i < more), key=k) for i, k in enumerate(drawn_with)),
                strict=True,
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return tuple(
            fan_axes.from_matrices(layout, name, jnp.stack(matrices), leaf.shape)
            for matrices in both
        )

    pairs = tree.map_with_names(one, params, fitted)
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
    r"""Draws a sparse kernel that is orthogonal as it stands, and its mask.

    With :math:`r` the smaller and :math:`m` the larger number of features, begin with
    the first :math:`r` of :math:`m` unit vectors as rows. Until there are `count`
    weights, take two of the :math:`m` columns and an angle in :math:`[0, 2\pi)`, all
    uniform, and rotate the columns by it. Rows stay orthonormal throughout, whatever
    the mask: :math:`W^T W = g^2 I` or :math:`W W^T = g^2 I`, the smaller, for gain
    :math:`g`.

    A convolution has one such matrix in its central tap, at (k - 1) // 2, and zeros in
    all others: a delta-orthogonal kernel. The matrix gets the density that the kernel
    is to have; zeros anywhere, chosen uniformly, then join the mask until the kernel
    keeps `count`.

    One rotation adds at most r weights, so a matrix comes within r / 2 of its count, as
    the better of the two counts around it is taken. The mask of a kernel of three axes
    or more has then exactly `count`, unless its matrix alone has more, as can happen
    with one tap or `dense_center`. No kernel has fewer than r.

    A 4096 x 4096 matrix takes 2, 4, 7 and 13 rotations for each of its m columns to be
    2 %, 50 %, 99 % and completely full, each of r weights: 1 to 5 seconds on one core
    of a CPU. Memory is some 30 bytes a weight.

    Args:
      shape: the kernel's, [..., i, o].
      count: weights wanted, in [0, size].
      gain: what every singular value is to be.
      exact_count: have the mask keep exactly `count`, whatever the shape: stop before
        the matrix has more, and let zeros join the mask of a matrix too.
      dense_center: put more of the weights where they are not zero: the matrix of a
        convolution with n taps and the density d gets min(n d, sqrt(d)).
      dtype: of the weights; rotations are in float64 and then rounded.
      key: what to draw with; numpy draws, so its version matters.

    Returns:
      Weights and mask. Weights outside the mask are 0, and so may be some inside.

    Raises:
      ValueError: if `shape` has fewer than two axes or an empty one, `count` is not in
        [0, size], or `exact_count` is wanted of a count below r.

    Examples:
      >>> weights, mask = sparse_orthogonal((8, 8), 20, key=jax.random.key(0))
      >>> bool(jnp.allclose(weights.T @ weights, jnp.eye(8), atol=1e-6))
      True

    Deviations:
      Followed is the authors' code, whose defaults are those here. `exact_count` is no
      part of it; `dense_center` is, for residual networks and VGG. There a density that
      is not in [0, 1] gives the identity and a warning, and kernels of even size are
      refused.

    References:
      Nowak, Gniecki, Szatkowski, Tabor. Sparser, Better, Deeper, Stronger: Improving
      Static Sparse Training with Exact Orthogonal Initialization. 2024.
      arXiv:2406.01755. Pairs, angles, when to stop, the central tap and the zeros that
      join were read in the authors' code.

      Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington. Dynamical Isometry and a Mean
      Field Theory of CNNs. 2018. arXiv:1806.05393, algorithm 2: delta-orthogonal.
    """
    _check(shape, count, exact_count)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    wanted = _matrix_count(shape, count, dense_center)
    matrix, filled = _rotate(rng, shape[-2:], wanted, count if exact_count else None)
    weights, mask = np.zeros(shape, jnp.dtype(dtype)), np.zeros(shape, bool)
    center = tuple((size - 1) // 2 for size in shape[:-2])
    weights[center], mask[center] = np.where(filled, gain * matrix, 0.0), filled
    missing = count - int(np.count_nonzero(mask))
    if missing > 0 and (exact_count or len(shape) > 2):
        zeros = np.flatnonzero(~mask)
        joining = rng.choice(zeros, size=missing, replace=False)
        mask.reshape(-1)[joining] = True
    return jnp.asarray(weights), jnp.asarray(mask)


def _check(shape: tuple[int, ...], count: int, exact_count: bool) -> None:
    """Refuses shapes and counts that no orthogonal kernel has."""
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"shape: got {shape}; wanted a kernel's, [..., i, o], of 1 up")
    if not 0 <= count <= math.prod(shape):
        raise ValueError(
            f"count: got {count} of a kernel of shape {shape}; wanted 0 to "
            f"{math.prod(shape)}"
        )
    if exact_count and count < min(shape[-2:]):
        raise ValueError(
            f"count: got exactly {count} for shape {shape}; wanted at least "
            f"{min(shape[-2:])}, one for each row of an orthogonal matrix; keep more, "
            "or pass exact_count=False for the identity"
        )


def _matrix_count(shape: tuple[int, ...], count: int, dense_center: bool) -> float:
    """Says how many of a kernel's weights its central matrix is to have."""
    taps, pairs = math.prod(shape[:-2]), math.prod(shape[-2:])
    if dense_center:
        return min(float(count), math.sqrt(count * pairs / taps))
    return count / taps


def _rotate(
    rng: np.random.Generator,
    features: tuple[int, ...],
    wanted: float,
    most: int | None,
) -> tuple[Float[np.ndarray, "i o"], Bool[np.ndarray, "i o"]]:
    """Rotates an identity until it has the wanted count, or next would exceed `most`.

    Returns:
      The matrix, and where its weights are; these are followed by themselves, as a
      product of many sines may round to zero.
    """
    small, large = sorted(features)
    # The columns to rotate lie as rows, which are contiguous.
    matrix, filled = np.eye(large, small), np.eye(large, small, dtype=bool)
    kept = small
    while kept < wanted:
        first = rng.integers(large)
        second = (first + rng.integers(1, large)) % large
        angle = rng.uniform(0.0, 2.0 * np.pi)
        more = kept + int(np.count_nonzero(filled[first] ^ filled[second]))
        over = most is not None and more > most
        if over or wanted - kept < more - wanted:
            break
        rotation = np.array(
            [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        )
        pair = [first, second]
        matrix[pair] = rotation @ matrix[pair]
        filled[pair] |= filled[[second, first]]
        kept = more
    if features[0] < features[1]:
        return matrix.T, filled.T
    return matrix, filled
