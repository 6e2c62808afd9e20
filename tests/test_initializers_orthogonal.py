"""Laws of exact orthogonal initialization."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import distributions, initializers, masks, rng

pytestmark = pytest.mark.keys_used_once


MATRICES = [(40, 40), (60, 25), (25, 60), (1, 9), (9, 1), (1, 1), (2, 2)]
DENSITIES = (0.0, 0.01, 0.1, 0.37, 0.9, 1.0)
CONVS = [(3, 3, 12, 20), (3, 3, 20, 12), (5, 4, 6, 6), (3, 8, 8), (2, 2, 9, 5)]


def gram(matrix: np.ndarray) -> np.ndarray:
    """Multiplies a matrix with its transpose, to the smaller square."""
    matrix = np.asarray(matrix, np.float64)
    tall = matrix.shape[0] >= matrix.shape[1]
    return matrix.T @ matrix if tall else matrix @ matrix.T


def draw(shape: Any, count: int, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    key = jax.random.key(seed)
    both = initializers.sparse_orthogonal(shape, count, **options, key=key)
    weights, mask = (np.array(array) for array in both)
    assert weights.shape == mask.shape == shape and mask.dtype == bool
    assert np.all(weights[~mask] == 0)
    return weights, mask


@pytest.mark.parametrize("gain", [1.0, 1.4])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("shape", MATRICES)
def test_matrices_are_orthogonal_and_near_their_count(
    shape: Any, exact: bool, gain: float
) -> None:
    small = min(shape)
    for seed, density in enumerate(DENSITIES):
        count = max(small, round(density * shape[0] * shape[1]))
        weights, mask = draw(shape, count, seed, gain=gain, exact_count=exact)
        wanted = gain**2 * np.eye(small)
        np.testing.assert_allclose(gram(weights), wanted, atol=1e-5)
        if exact:
            assert mask.sum() == count
        else:
            assert abs(int(mask.sum()) - count) <= small / 2
            assert np.all(weights[mask] != 0)


def test_an_identity_is_the_least() -> None:
    weights, mask = draw((6, 4), 0)
    np.testing.assert_array_equal(weights, np.eye(6, 4))
    assert mask.sum() == 4


@pytest.mark.parametrize("dense_center", [False, True])
@pytest.mark.parametrize("shape", CONVS)
def test_convolutions_have_their_matrix_in_the_central_tap(
    shape: Any, dense_center: bool
) -> None:
    pairs, size = shape[-2] * shape[-1], int(np.prod(shape))
    center = tuple((k - 1) // 2 for k in shape[:-2])
    for density in (0.05, 0.2, 0.6, 1.0):
        count = round(density * size)
        weights, mask = draw(
            shape, count, dense_center=dense_center, exact_count=dense_center
        )
        assert mask.sum() == count
        matrix = weights[center].copy()
        np.testing.assert_allclose(gram(matrix), np.eye(min(shape[-2:])), atol=1e-5)
        weights[center] = 0
        assert np.all(weights == 0)
        share = min(density * size / pairs, density**0.5) if dense_center else density
        wanted = max(share * pairs, min(shape[-2:]))
        assert abs(np.count_nonzero(matrix) - wanted) <= min(shape[-2:])


def test_a_convolution_keeps_the_norm_of_its_input() -> None:
    weights, _ = draw((3, 3, 6, 10), 200)
    x = jax.random.normal(jax.random.key(1), (2, 7, 7, 6))
    y = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(weights),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    norms = jnp.linalg.norm(y, axis=-1), jnp.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_zeros_join_the_mask_uniformly() -> None:
    # Each of the eight taps around the center, of 36 zeros, gets about 200 x 10 in 200
    # draws: hypergeometric and so less scattered than Poisson. Six standard errors of
    # that are left by chance in fewer than 1e-7 of keys.
    shape, repeats = (3, 3, 6, 6), 200
    total = np.zeros((3, 3))
    for seed in range(repeats):
        _, mask = draw(shape, 100, seed)
        total += mask.sum(axis=(2, 3))
    total[1, 1] = np.nan
    mean = np.nanmean(total)
    assert np.nanmax(np.abs(total - mean)) < 6 * np.sqrt(mean)


def test_angles_are_uniform() -> None:
    # A full 2 x 2 matrix is one rotation: over 500 draws cosine and sine have mean 0
    # and standard error sqrt(1/2/500), cosine squared 1/2 and sqrt(1/8/500). Six of
    # these are left by chance in fewer than 1e-8 of keys.
    drawn = np.stack([draw((2, 2), 4, seed)[0] for seed in range(500)])
    np.testing.assert_allclose(np.linalg.det(drawn), 1, rtol=1e-6)
    cosine, sine = drawn[:, 0, 0], drawn[:, 0, 1]
    for sample, spread in ((cosine, 0.5), (sine, 0.5), (cosine**2 - 0.5, 0.125)):
        assert abs(sample.mean()) < 6 * (spread / 500) ** 0.5


def test_a_key_says_everything() -> None:
    one, same, other = (draw((20, 20), 90, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_are_rounded_from_float64(dtype: Any) -> None:
    weights, _ = draw((20, 20), 90, dtype=dtype)
    wide, _ = draw((20, 20), 90)
    assert weights.dtype == dtype
    error = np.abs(weights.astype(np.float64) - wide).max()
    assert error <= float(jnp.finfo(dtype).eps)


def test_trees_of_counts() -> None:
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 6, 8)), "bias": jnp.full(8, 0.5)},
        "head": {"kernel": jnp.ones((30, 10)), "bias": jnp.ones(10)},
    }
    counts = distributions.divide("uniform", masks.ones(params), 0.8)
    key = jax.random.key(7)
    drawn, found = initializers.exact_orthogonal(
        params, counts, exact_count=True, key=key
    )
    for layer in params:
        assert drawn[layer]["bias"] is params[layer]["bias"]
        assert found[layer]["bias"] is None
        shape = params[layer]["kernel"].shape
        wanted = initializers.sparse_orthogonal(
            shape,
            counts[layer]["kernel"],
            exact_count=True,
            key=rng.leaf_key(key, f"{layer}/kernel"),
        )
        np.testing.assert_array_equal(drawn[layer]["kernel"], wanted[0])
        np.testing.assert_array_equal(found[layer]["kernel"], wanted[1])
    assert masks.num_active(found) == sum(jax.tree.leaves(counts))
    jax.tree.map(np.testing.assert_array_equal, masks.apply(found, drawn), drawn)


def test_equinox_and_lists() -> None:
    conv = eqx.nn.Conv2d(4, 6, 3, key=jax.random.key(0))
    params = eqx.partition(conv, eqx.is_inexact_array)[0]
    counts = jax.tree.map(lambda leaf: 60, masks.ones(params))
    drawn, found = initializers.exact_orthogonal(
        params, counts, axes="oi...", key=jax.random.key(0)
    )
    assert drawn.weight.shape == (6, 4, 3, 3) and int(found.weight.sum()) == 60
    np.testing.assert_allclose(gram(drawn.weight[:, :, 1, 1]), np.eye(4), atol=1e-5)
    (kernel, bias), (mask, nothing) = initializers.exact_orthogonal(
        [jnp.ones((5, 5)), None], [12, None], key=jax.random.key(0)
    )
    assert kernel.shape == mask.shape == (5, 5) and bias is None and nothing is None


def test_counts_that_cannot_be_are_refused_by_name() -> None:
    params = {"head": {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(4)}}

    def attempt(kernel: Any, bias: Any = None, **options: Any) -> None:
        counts = {"head": {"kernel": kernel, "bias": bias}}
        initializers.exact_orthogonal(params, counts, **options, key=jax.random.key(0))

    with pytest.raises(
        ValueError, match="counts: head/kernel: expected an int.*got -1"
    ):
        attempt(-1)
    with pytest.raises(ValueError, match="head/kernel: count: expected .*got 25"):
        attempt(25)
    with pytest.raises(
        ValueError, match="head/kernel: count: expected .*got exactly 3 for shape"
    ):
        attempt(3, exact_count=True)
    with pytest.raises(
        ValueError, match=r"head/bias: expected two .* got shape \(4,\)"
    ):
        attempt(None, 2)
    for shape in ((3,), (3, 0)):
        with pytest.raises(ValueError, match="shape: expected .*got"):
            initializers.sparse_orthogonal(shape, 0, key=jax.random.key(0))
