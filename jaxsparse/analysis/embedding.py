"""Projection: solutions as points in the plane. On the host, in numpy and out."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key, Shaped
from scipy.spatial import distance
from sklearn import decomposition, manifold

from jaxsparse import arguments


class Embedding(NamedTuple):
    """Points whose distances resemble given ones.

    Attributes:
      points: one row each, centred, along their principal axes.
      stress: sum over pairs of the squared difference between the distance of the
        points and the given one.
      relative_stress: square root of stress over the sum of squared given distances;
        0 is perfect, 0.05 good, 0.2 poor (after Kruskal).
    """

    points: Float[np.ndarray, "m d"]
    stress: float
    relative_stress: float


class Components(NamedTuple):
    """Points on the axes along which they vary most.

    Attributes:
      points: one row each, centred.
      explained: fraction of the variance along each axis, in [0, 1]; NaN if there is
        none.
      axes: the axes in the space of the vectors, orthonormal rows.
    """

    points: Float[np.ndarray, "m d"]
    explained: Float[np.ndarray, "d"]
    axes: Float[np.ndarray, "d n"]


@arguments.check(
    dimensions=arguments.integer(1),
    starts=arguments.integer(1),
    iterations=arguments.integer(1),
    tolerance=arguments.number(0),
)
def mds(
    distances: Shaped[np.ndarray, "..."],
    *,
    dimensions: int = 2,
    starts: int = 16,
    iterations: int = 1000,
    tolerance: float = 1e-9,
    key: Key[Array, ""],
) -> Embedding:
    """Places points so that their distances resemble given ones: metric MDS.

    Scikit-learn's SMACOF runs from several random starts, and the least stress wins.
    Points are then turned and mirrored in a way that their distances decide, which
    keeps every distance.

    Args:
      distances: [m m], symmetric, zero on the diagonal, as from `pairs.pairwise`.
      dimensions: axes of the points, 1 or more.
      starts: random starts, 1 or more.
      iterations: at most, from each start.
      tolerance: relative decrease of the stress at which to stop, 0 or more. It is
        applied to distances scaled to a mean square of 1.
      key: decides the starts.

    Returns:
      Points in the order of the matrix.

    Raises:
      ValueError: if the distances are not such a matrix of 2 or more points, or another
        argument is out of range.

    Examples:
      >>> matrix = pairs.pairwise(similarity.l2_distance, solutions)
      >>> mds(np.asarray(matrix), key=jax.random.key(0)).points

    Deviations:
      Whether Evci et al. (2020), arXiv:2010.03533, use metric MDS is unknown.

    References:
      de Leeuw. Applications of Convex Analysis to Multidimensional Scaling. 1977.
      Kruskal. Nonmetric Multidimensional Scaling: A Numerical Method. 1964.
    """
    given = _check_distances(distances)
    scale = float(np.max(given))
    if scale == 0:
        return Embedding(np.zeros((len(given), dimensions)), 0.0, 0.0)
    scale *= float(np.sqrt(np.mean((given / scale) ** 2)))
    points, _ = manifold.smacof(
        given / scale,
        n_components=dimensions,
        n_init=starts,
        max_iter=iterations,
        eps=tolerance,
        random_state=int(jax.random.bits(key, dtype=np.uint32)),
    )
    points = _turned(points)
    wanted = distance.squareform(given / scale, checks=False)
    stress = float(np.sum((distance.pdist(points) - wanted) ** 2))
    relative = (stress / float(np.sum(wanted**2))) ** 0.5
    return Embedding(points * scale, stress * scale**2, relative)


def _check_distances(distances: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "m m"]:
    """Returns distances in float64 and exactly symmetric, and refuses what is none."""
    given = np.asarray(distances, np.float64)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or len(given) < 2:
        raise ValueError(
            f"distances: got shape {given.shape}; wanted (m, m) with m of 2 or more"
        )
    if not np.all(np.isfinite(given)) or np.any(given < 0):
        raise ValueError("distances: wanted finite numbers of 0 or more everywhere")
    slack = 1e-5 * np.max(given)
    if np.any(np.abs(given - given.T) > slack) or np.any(np.diag(given) > slack):
        raise ValueError(
            "distances: wanted a symmetric matrix with zeros on the diagonal; of a "
            "measure that is not symmetric take the mean of both directions"
        )
    given = (given + given.T) / 2
    np.fill_diagonal(given, 0.0)
    return given


def _turned(points: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    """Centres points and turns them to their principal axes."""
    centred = points - np.mean(points, axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    turned = np.zeros_like(centred)
    turned[:, : sizes.size] = left * sizes
    return turned * _signs(turned)


def _signs(points: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "d"]:
    """Returns the signs with which the farthest point of each axis is on its right."""
    farthest = np.argmax(np.abs(points), axis=0)
    picked = points[farthest, np.arange(points.shape[1])]
    return np.where(picked < 0, -1.0, 1.0).astype(points.dtype)


@arguments.check(dimensions=arguments.integer(1))
def pca(vectors: Shaped[np.ndarray, "..."], *, dimensions: int = 2) -> Components:
    """Projects vectors on the axes along which they vary most, by scikit-learn.

    Memory is a few times that of the vectors. Axes are mirrored such that the point
    farthest along each has a positive coordinate.

    Args:
      vectors: [m n], one row each, as from `similarity.flatten`.
      dimensions: axes to keep, from 1 to the smaller of m and n.

    Returns:
      Points in the order of the rows, in the dtype of the vectors or float64.

    Raises:
      ValueError: if the vectors are not finite or not in rows, or there are fewer than
        two of them or than `dimensions`.

    Examples:
      >>> vectors = jax.vmap(similarity.flatten)(similarity.Solution(params, masks))
      >>> pca(np.asarray(vectors)).points
    """
    given = np.asarray(vectors)
    if not np.issubdtype(given.dtype, np.floating):
        given = given.astype(np.float64)
    if given.ndim != 2 or len(given) < 2 or not np.all(np.isfinite(given)):
        raise ValueError(
            f"vectors: got shape {given.shape}; wanted two rows or more, of finite "
            "numbers"
        )
    if dimensions > min(given.shape):
        raise ValueError(
            f"dimensions: got {dimensions}; wanted 1 to {min(given.shape)}, as vectors "
            f"have shape {given.shape}"
        )
    model = decomposition.PCA(n_components=dimensions, svd_solver="full")
    with np.errstate(invalid="ignore"):
        points = model.fit_transform(given)
    signs = _signs(points)
    return Components(
        points * signs,
        model.explained_variance_ratio_,
        model.components_ * signs[:, None],
    )
