from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from jaxsparse.analysis import embedding, pairwise, similarity


def spread(points: Any) -> np.ndarray:
    return distance.squareform(distance.pdist(points))


def test_mds_recovers_a_planar_configuration() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-6, 1.0, 1e6):
        planar = scale * rng.normal(size=(12, 2))
        found = embedding.mds(spread(planar), starts=4, key=jax.random.key(0))
        assert found.points.shape == (12, 2) and found.points.dtype == np.float64
        np.testing.assert_allclose(
            spread(found.points), spread(planar), atol=5e-3 * scale
        )
        assert found.relative_stress < 1e-3


def test_stress_is_that_of_the_points() -> None:
    """A regular simplex of 5 does not fit the plane."""
    given = 3.0 * (1 - np.eye(5))
    found = embedding.mds(given, starts=4, key=jax.random.key(1))
    off = distance.pdist(found.points) - 3.0
    np.testing.assert_allclose(found.stress, np.sum(off**2), rtol=1e-9)
    relative = np.sqrt(found.stress / (10 * 9.0))
    np.testing.assert_allclose(found.relative_stress, relative, rtol=1e-9)
    assert found.relative_stress > 0.2
    whole = embedding.mds(given, dimensions=4, starts=4, key=jax.random.key(1))
    assert whole.points.shape == (5, 4) and whole.relative_stress < 1e-3


def test_more_starts_are_never_worse_and_keys_decide() -> None:
    rng = np.random.default_rng(3)
    given = spread(rng.normal(size=(10, 9)))
    one, again, many = (
        embedding.mds(given, starts=starts, key=jax.random.key(5))
        for starts in (1, 1, 8)
    )
    np.testing.assert_array_equal(one.points, again.points)
    assert many.stress <= one.stress
    other = embedding.mds(given, starts=1, key=jax.random.key(6))
    assert np.any(other.points != one.points)


def test_points_lie_along_their_principal_axes() -> None:
    given = spread(np.random.default_rng(0).normal(size=(9, 5)))
    points = embedding.mds(given, starts=2, key=jax.random.key(0)).points
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
    scatter = points.T @ points
    assert abs(scatter[0, 1]) < 1e-9 and scatter[0, 0] >= scatter[1, 1]
    assert np.all(points.max(axis=0) >= -points.min(axis=0))


def test_coincident_and_too_few_points() -> None:
    none = embedding.mds(np.zeros((3, 3)), key=jax.random.key(0))
    assert none.relative_stress == 0 and np.all(np.isfinite(none.points))
    two = embedding.mds(
        np.array([[0.0, 2.0], [2.0, 0.0]]), dimensions=3, key=jax.random.key(0)
    )
    assert two.points.shape == (2, 3)
    np.testing.assert_allclose(spread(two.points)[0, 1], 2.0, rtol=1e-3)


def test_mds_of_solutions_by_their_distances() -> None:
    params = {"w": jax.random.normal(jax.random.key(0), (6, 4, 4))}
    matrix = pairwise.pairwise(similarity.l2_distance, similarity.Solution(params))
    found = embedding.mds(np.asarray(matrix), dimensions=5, key=jax.random.key(0))
    np.testing.assert_allclose(spread(found.points), matrix, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("distances", "fields", "word"),
    [
        (np.ones((2, 3)), {}, "distances: expected shape"),
        (np.zeros((1, 1)), {}, "distances: expected shape"),
        (np.array([[0, np.nan], [np.nan, 0]]), {}, "distances: expected finite"),
        (np.array([[0.0, -1.0], [-1.0, 0.0]]), {}, "distances: expected finite"),
        (np.array([[0.0, 1.0], [2.0, 0.0]]), {}, "distances: expected a symmetric"),
        (np.ones((2, 2)), {}, "distances: expected a symmetric"),
        (1 - np.eye(2), {"dimensions": 0}, "dimensions: expected .*got 0"),
        (1 - np.eye(2), {"starts": 0}, "starts: expected .*got 0"),
        (1 - np.eye(2), {"iterations": 0}, "iterations: expected .*got 0"),
        (1 - np.eye(2), {"tolerance": -1.0}, "tolerance: expected .*got -1.0"),
    ],
)
def test_bad_distances_are_refused(distances: Any, fields: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        embedding.mds(distances, **fields, key=jax.random.key(0))


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 6), st.integers(1, 9)),
        elements=st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-3),
    )
)
def test_pca_in_full_keeps_distances_and_orders_axes(vectors: np.ndarray) -> None:
    full = min(vectors.shape)
    found = embedding.pca(vectors, dimensions=full)
    size = 1e-9 * (1 + np.max(np.abs(vectors)))
    np.testing.assert_allclose(
        distance.pdist(found.points), distance.pdist(vectors), atol=size, rtol=1e-6
    )
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(full), atol=1e-9)
    if np.any(vectors != vectors[:1]):
        np.testing.assert_allclose(np.sum(found.explained), 1, rtol=1e-6)
        assert np.all(np.diff(found.explained) <= 1e-12)


def test_pca_equals_the_eigenvectors_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8, 30)) * np.geomspace(1, 100, 30)
    found = embedding.pca(vectors, dimensions=3)
    centered = vectors - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centered.T @ centered)
    wanted = centered @ axes[:, ::-1][:, :3]
    np.testing.assert_allclose(np.abs(found.points), np.abs(wanted), rtol=1e-6)
    shares = values[::-1][:3] / values.sum()
    np.testing.assert_allclose(found.explained, shares, rtol=1e-9)
    assert np.all(found.points.max(axis=0) >= -found.points.min(axis=0))
    rebuilt = embedding.pca(vectors, dimensions=8)
    np.testing.assert_allclose(rebuilt.points @ rebuilt.axes, centered, atol=1e-9)


def test_pca_of_stacked_solutions_and_of_no_variance() -> None:
    params = {"w": jnp.ones((3, 2, 2)).at[1].set(2.0), "b": jnp.zeros((3, 2))}
    vectors = jax.vmap(similarity.flatten)(similarity.Solution(params))
    found = embedding.pca(np.asarray(vectors))
    assert found.points.dtype == np.float32
    np.testing.assert_allclose(found.points[:, 0], [-2 / 3, 4 / 3, -2 / 3], rtol=1e-5)
    np.testing.assert_allclose(found.explained, [1, 0], atol=1e-6)
    same = embedding.pca(np.ones((3, 4)))
    assert np.all(same.points == 0) and np.all(np.isnan(same.explained))
    whole = embedding.pca(np.array([[0, 0], [3, 4]]), dimensions=1)
    np.testing.assert_allclose(np.abs(whole.points[:, 0]), 2.5)


@pytest.mark.parametrize(
    ("vectors", "dimensions", "word"),
    [
        (np.ones(3), 1, "vectors: expected .*got shape"),
        (np.ones((1, 3)), 1, "vectors: expected .*got shape"),
        (np.full((2, 3), np.inf), 1, "vectors: expected .*got shape"),
        (np.ones((2, 3)), 3, "dimensions: expected 1 to 2.*got 3"),
        (np.ones((2, 3)), 0, "dimensions: expected .*got 0"),
    ],
)
def test_bad_vectors_are_refused(vectors: Any, dimensions: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        embedding.pca(vectors, dimensions=dimensions)
