from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse.analysis.hessian import eigenvalues as eigenvalues_lib
from jaxsparse.analysis.hessian import hvp, lanczos, param_subspace, slq

pytestmark = pytest.mark.keys_used_once


KEY = 11


def rotated(eigenvalues: Any, seed: int = 0) -> np.ndarray:
    n = len(eigenvalues)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (turn * np.asarray(eigenvalues)) @ turn.T


def as_product(matrix: Any) -> Any:
    held = jnp.asarray(matrix, jnp.float32)
    return jax.tree_util.Partial(jnp.matmul, held)


def key() -> Any:
    return jax.random.key(KEY)


# Of 100 values each, so that one program serves them all.
SPECTRA = {
    "negative": np.linspace(-10, -1, 100),
    "both signs": np.r_[-5.0, -4.0, np.linspace(-0.1, 0.1, 96), 7.0, 8.0],
    "clustered": np.r_[
        -2.0 - 1e-2 * np.arange(3), np.zeros(94), 3 + 1e-2 * np.arange(3)
    ],
    "decaying": np.logspace(-12, 3, 100),
    "bulk and outliers": np.r_[np.random.default_rng(0).normal(size=98), 20.0, 30.0],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_both_ends_agree_with_the_known_spectrum(name: str) -> None:
    wanted = np.sort(SPECTRA[name])
    radius = np.abs(wanted).max()
    found = lanczos.extremes(
        as_product(rotated(wanted)), wanted.size, top=2, bottom=2, steps=80, key=key()
    )
    top, bottom = wanted[::-1][:2], wanted[:2]
    np.testing.assert_allclose(found.top, top, atol=1e-5 * radius)
    np.testing.assert_allclose(found.bottom, bottom, atol=1e-5 * radius)
    for residual in (found.top_residuals, found.bottom_residuals):
        assert np.all(residual < 1e-3 * radius)


@pytest.mark.parametrize("steps", [3, 30])
def test_each_value_is_within_its_residual_of_an_eigenvalue(steps: int) -> None:
    wanted = SPECTRA["both signs"]
    found = lanczos.extremes(
        as_product(rotated(wanted)),
        wanted.size,
        top=2,
        bottom=1,
        steps=steps,
        key=key(),
    )
    values = np.r_[found.top, found.bottom]
    residuals = np.r_[found.top_residuals, found.bottom_residuals]
    apart = np.abs(values[:, None] - wanted[None]).min(axis=1)
    assert np.all(apart <= residuals + 1e-5)
    assert steps > 3 or residuals.max() > 1e-2


def test_the_basis_stays_orthonormal_on_an_ill_conditioned_matrix() -> None:
    steps = 100
    matrix = rotated(np.logspace(-12, 3, 100))
    found = jax.jit(lanczos.tridiagonalize, static_argnums=2)(
        as_product(matrix), jax.random.normal(key(), (100,)), steps
    )
    good = int(found.steps)
    basis = np.asarray(found.basis, np.float64)
    gram = basis @ basis.T
    wanted = np.diag((np.arange(steps) < good).astype(float))
    np.testing.assert_allclose(gram, wanted, atol=2e-6)
    small = (
        np.diag(found.diagonal)
        + np.diag(found.off_diagonal, 1)
        + np.diag(found.off_diagonal, -1)
    )
    np.testing.assert_allclose(basis @ matrix @ basis.T, small, atol=2e-3)
    assert good >= 30
    # The largest eigenvalue is there once, as it should be, and not again.
    assert np.sum(np.linalg.eigvalsh(small) > 990) == 1


FEW = {
    "identity": (np.eye(40), [1.0]),
    "zero": (np.zeros((40, 40)), [0.0]),
    "rank one": (np.outer(np.arange(40.0), np.arange(40.0)), [0.0, 20540.0]),
    "diagonal, three values": (
        np.diag(np.repeat([-1.0, 2.0, 5.0], [20, 10, 10])),
        None,
    ),
    "rotated, three values": (rotated(np.repeat([-1.0, 2.0, 5.0], [20, 10, 10])), None),
    "one by one": (np.array([[-3.0]]), [-3.0]),
}


@pytest.mark.parametrize("name", FEW)
def test_an_invariant_subspace_leaves_neither_nan_nor_ghosts(name: str) -> None:
    matrix, wanted = FEW[name]
    wanted = np.asarray([-1.0, 2.0, 5.0] if wanted is None else wanted)
    n, radius = len(matrix), max(np.abs(wanted).max(), 1e-30)
    found = lanczos.extremes(
        as_product(matrix), n, top=4, bottom=4, steps=10, key=key()
    )
    values = np.r_[found.top, found.bottom]
    assert 1 <= found.steps <= 10 and values.size
    assert np.all(np.isfinite(np.r_[values, found.top_residuals]))
    assert np.abs(values[:, None] - wanted[None]).min(axis=1).max() <= 1e-5 * radius
    assert np.r_[found.top_residuals, found.bottom_residuals].max() <= 1e-5 * radius
    assert abs(found.top[0] - wanted.max()) <= 1e-5 * radius
    assert abs(found.bottom[0] - wanted.min()) <= 1e-5 * radius
    nodes = slq.density(as_product(matrix), n, probes=3, steps=10, key=key())
    assert np.all(np.isfinite(nodes.nodes)) and np.all(nodes.weights >= 0)
    np.testing.assert_allclose(nodes.weights.sum(axis=1), 1.0, atol=1e-12)
    apart = np.abs(nodes.nodes[..., None] - wanted).min(axis=-1)
    assert np.max(nodes.weights * apart) <= 1e-5 * radius
    assert all(np.isfinite(value) for value in slq.summarize(nodes).values())


@pytest.mark.parametrize("seed", range(8))
def test_no_node_leaves_the_spectrum_and_none_of_weight_its_eigenvalues(
    seed: int,
) -> None:
    # Vectors of signs and diagonals give rounding that stays in the invariant space.
    draws = np.random.default_rng(seed)
    few = draws.choice([-5.0, -1.0, 0.0, 1e-3, 2.0, 100.0], 4)
    wanted = draws.choice(few, 40)
    matrix = np.diag(wanted) if seed % 2 else rotated(wanted, seed)
    radius = np.abs(wanted).max()
    found = slq.density(as_product(matrix), 40, probes=3, steps=20, key=key())
    nodes = found.nodes[found.weights > 0]
    assert nodes.max() <= wanted.max() + 1e-5 * radius
    assert nodes.min() >= wanted.min() - 1e-5 * radius
    apart = np.abs(found.nodes[..., None] - wanted).min(axis=-1)
    assert np.max(found.weights * apart) <= 1e-5 * radius


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_the_size_of_the_matrix_does_not_matter(size: float) -> None:
    wanted = size * np.r_[-4.0, np.linspace(0, 1, 30), 9.0]
    found = lanczos.extremes(
        as_product(rotated(wanted)), wanted.size, top=1, bottom=1, steps=25, key=key()
    )
    np.testing.assert_allclose([*found.top, *found.bottom], wanted[[-1, 0]], rtol=1e-5)


def test_replicates_run_together() -> None:
    matrices = np.stack([rotated(SPECTRA["negative"][:20], i) for i in (0, 1)])
    matrices = matrices.astype(np.float32)
    start = np.ones(20, np.float32)

    def steps(matrix: Any) -> Any:
        return lanczos.tridiagonalize(lambda v: matrix @ v, jnp.asarray(start), 6)

    together = jax.jit(jax.vmap(steps))(matrices)
    for i in (0, 1):
        alone = jax.jit(steps)(matrices[i])
        np.testing.assert_allclose(together.diagonal[i], alone.diagonal, atol=1e-4)
        np.testing.assert_allclose(
            together.off_diagonal[i], alone.off_diagonal, atol=1e-4
        )


def test_density_integrates_to_one_and_has_the_moments_of_the_matrix() -> None:
    wanted = np.r_[np.random.default_rng(0).normal(size=200), 20.0, 30.0]
    matrix = rotated(wanted)
    found = slq.density(as_product(matrix), wanted.size, probes=30, steps=40, key=key())
    grid = np.linspace(-20, 50, 20_001)
    curve = slq.smooth(found, grid, 0.3)
    assert abs(np.trapezoid(curve, grid) - 1.0) < 1e-6
    for power in (1, 2, 3):
        samples = np.sum(found.weights * found.nodes**power, axis=1)
        error = samples.std(ddof=1) / np.sqrt(samples.size)
        assert error > 0
        assert abs(samples.mean() - np.mean(wanted**power)) < 4 * error
    numbers = slq.summarize(found)
    exact = eigenvalues_lib.summarize(wanted)
    for name in ("trace", "negative_fraction", "negative_mass"):
        apart = abs(numbers[name] - exact[name])
        # The quadrature has an error of its own, of the order of 1 / steps.
        own = {"trace": 1e-3, "negative_fraction": 0.02, "negative_mass": 0.01}[name]
        assert apart < 4 * numbers[f"{name}_error"] + own, name
    np.testing.assert_allclose(numbers["max"], exact["max"], rtol=1e-5)


@pytest.mark.parametrize("n", [2, 50])
def test_with_all_steps_a_probe_has_its_exact_moments(n: int) -> None:
    matrix = rotated(np.random.default_rng(n).normal(size=n))
    found = slq.density(as_product(matrix), n, probes=2, steps=99, key=key())
    signs = [
        np.asarray(jax.random.rademacher(k, (n,), jnp.float32), np.float64)
        for k in jax.random.split(key(), 2)
    ]
    assert found.nodes.shape == (2, n)
    for v, nodes, weights in zip(signs, found.nodes, found.weights, strict=True):
        for power in (1, 2, 3):
            wanted = v @ np.linalg.matrix_power(matrix, power) @ v / n
            np.testing.assert_allclose(
                np.sum(weights * nodes**power), wanted, atol=1e-4
            )


def test_the_trace_is_exact_for_a_diagonal_and_unbiased_else() -> None:
    diagonal = jnp.asarray(np.arange(-7, 30), jnp.float32)
    found = slq.trace(lambda v: diagonal * v, 37, probes=3, key=key())
    assert found == (float(diagonal.sum()), 0.0)
    matrix = rotated(SPECTRA["both signs"])
    many = slq.trace(as_product(matrix), len(matrix), probes=600, key=key())
    assert abs(many.mean - np.trace(matrix)) < 4 * many.error
    few = slq.trace(as_product(matrix), len(matrix), probes=3, key=key())
    signs = [
        np.asarray(jax.random.rademacher(k, (len(matrix),), jnp.float32), np.float64)
        for k in jax.random.split(key(), 3)
    ]
    forms = np.asarray([v @ matrix @ v for v in signs])
    wanted = [forms.mean(), np.sqrt(np.sum((forms - forms.mean()) ** 2) / 2 / 3)]
    np.testing.assert_allclose(few, wanted, rtol=1e-4)
    # The variance is known: twice the squares off the diagonal.
    off = np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)
    np.testing.assert_allclose(many.error, np.sqrt(2 * off / 600), rtol=0.15)


def test_the_hessian_of_a_network_has_the_ends_of_its_matrix() -> None:
    params = {"a": {"w": jnp.full((6, 5), 0.3)}, "b": {"w": jnp.full((5, 1), -0.2)}}
    params = jax.tree.map(lambda x: x + jax.random.normal(key(), x.shape), params)
    mask = jax.tree.map(lambda x: x > -0.5, params)
    data = jax.random.normal(jax.random.key(2), (7, 6))

    def loss(params: Any, x: Any) -> Any:
        return jnp.mean((jnp.tanh(x @ params["a"]["w"]) @ params["b"]["w"] - 1.0) ** 2)

    space = param_subspace.make(params, mask)
    product = hvp.operator(loss, space, data, batch_size=3)
    n = param_subspace.size(space)
    wanted = np.linalg.eigvalsh(np.stack([product(row) for row in jnp.eye(n)]))
    found = lanczos.extremes(product, n, top=2, bottom=2, steps=n, key=key())
    np.testing.assert_allclose(found.top, wanted[::-1][:2], atol=1e-4)
    np.testing.assert_allclose(found.bottom, wanted[:2], atol=1e-4)


def test_faults_are_named() -> None:
    # The programs of the invariant subspaces above.
    bad = as_product(np.full((40, 40), np.nan))
    with pytest.raises(ValueError, match="expected a finite first product"):
        lanczos.extremes(bad, 40, steps=10, key=key())
    with pytest.raises(ValueError, match="expected a finite first product"):
        slq.density(bad, 40, probes=3, steps=10, key=key())
    with pytest.raises(ValueError, match="product: expected finite numbers"):
        slq.trace(bad, 40, key=key())
    with pytest.raises(ValueError, match="probes: expected .*got 1"):
        slq.trace(bad, 5, probes=1, key=key())
    with pytest.raises(ValueError, match="steps: expected .*got 0"):
        lanczos.extremes(bad, 5, steps=0, key=key())
    with pytest.raises(ValueError, match="steps: expected .*got 0"):
        slq.density(bad, 5, steps=0, key=key())
    good = slq.Quadrature(np.ones((2, 1)), np.ones((2, 1)), 1, "float32")
    with pytest.raises(ValueError, match="width: expected .*got 0"):
        slq.smooth(good, [0.0], 0.0)


def test_residuals_are_those_of_a_large_network() -> None:
    """At a size at which sums are divided among threads, against float64."""
    draws, sizes = np.random.default_rng(0), ((784, 300), (300, 10))
    params = {
        str(i): jnp.asarray(draws.normal(size=s) * (2 / s[0]) ** 0.5, jnp.float32)
        for i, s in enumerate(sizes)
    }
    images = jnp.asarray(draws.normal(size=(100, 784)), jnp.float32)
    labels = jnp.arange(100) % 10

    def loss(params: Any, batch: Any) -> jax.Array:
        x, y = batch
        logits = jax.nn.log_softmax(jax.nn.relu(x @ params["0"]) @ params["1"])
        return -jnp.mean(jnp.take_along_axis(logits, jnp.expand_dims(y, 1), 1))

    held = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    space = param_subspace.make(params, held)
    product = hvp.operator(loss, space, (images, labels))
    n = param_subspace.size(space)
    with jax.default_matmul_precision("highest"):
        found = lanczos.extremes(product, n, top=2, bottom=0, steps=12, key=key())
        start = jax.random.normal(key(), (n,))
        run = lanczos.tridiagonalize(product, start, 12)
        values, turns = lanczos.ritz(run)
        multiply = jax.jit(product)
        for place, residual in enumerate(found.top_residuals, start=1):
            vector = turns[:, -place] @ np.asarray(run.basis, np.float64)
            vector = vector / np.linalg.norm(vector)
            image = np.asarray(multiply(jnp.asarray(vector, jnp.float32)), np.float64)
            wanted = np.linalg.norm(image - values[-place] * vector)
            assert residual == pytest.approx(wanted, rel=0.05, abs=1e-4 * values[-1])
