"""Laws of the gradient quotient, and of learning norms by it."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import initializers, masks

CLASSES = 4
PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
NOISE = initializers.gaussian_batches((16, 3, 2), CLASSES)


def zero() -> jax.Array:
    """A key, new to the check that none is used twice."""
    return jax.random.key(0)


def network(scale: float = 1.0, dtype: Any = jnp.float32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 2, 5), "hidden": (5, 8), "head": (8, CLASSES)}
    return {
        name: {
            "kernel": jnp.asarray(scale * rng.normal(size=shape), dtype),
            "bias": jnp.asarray(0.1 * rng.normal(size=shape[-1]), dtype),
        }
        for name, shape in shapes.items()
    }


def some_masks(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    everything = masks.ones(network())
    return jax.tree.map(lambda m: jnp.asarray(rng.random(m.shape) < 0.6), everything)


def loss(params: Any, batch: Any) -> Any:
    signals, labels = batch
    x = signals.astype(params["head"]["bias"].dtype)
    x = jnp.einsum("bki,kio->bo", x, params["conv"]["kernel"])
    x = jnp.tanh(x + params["conv"]["bias"][None])
    for name in ("hidden", "head"):
        x = x @ params[name]["kernel"] + params[name]["bias"][None]
        x = jnp.tanh(x) if name == "hidden" else x
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(x) * jax.nn.one_hot(labels, 4), axis=1))


def norms(tree: Any) -> np.ndarray:
    return np.array([np.linalg.norm(np.asarray(x)) for x in jax.tree.leaves(tree)])


def test_noise_is_normal_and_labels_uniform() -> None:
    images, labels = initializers.gaussian_batches((5000, 4), 5)(zero())
    # n = 20,000 and 5,000: six standard errors, chance 4e-9 for each of the 7.
    assert images.shape == (5000, 4) and images.dtype == jnp.float32
    assert abs(float(images.mean())) < 6 / 20_000**0.5
    assert abs(float(jnp.mean(images**2)) - 1) < 6 * (2 / 20_000) ** 0.5
    counts = np.bincount(labels, minlength=5)
    assert labels.shape == (5000,) and len(counts) == 5
    assert np.all(np.abs(counts - 1000) < 6 * (5000 * 0.2 * 0.8) ** 0.5)


def test_quotient_by_an_explicit_hessian() -> None:
    with jax.enable_x64(True):
        params, tree, batch = network(dtype=jnp.float64), some_masks(), NOISE(zero())
        measure = functools.partial(initializers.gradient_quotient, loss)
        got = jax.jit(measure, compiler_options=PLAINLY)(params, tree, batch)
        flat, unravel = jax.flatten_util.ravel_pytree(masks.apply(tree, params))
        ones = masks.apply(tree, jax.tree.map(jnp.ones_like, params))
        exists = np.asarray(jax.flatten_util.ravel_pytree(ones)[0]) > 0

        def slope(flat: Any) -> Any:
            g = jax.grad(lambda flat: loss(unravel(flat), batch))(flat)
            return g, g

        both = jax.jit(jax.jacobian(slope, has_aux=True), compiler_options=PLAINLY)
        hessian, g = (np.asarray(array)[exists] for array in both(flat))
        hessian = hessian[:, exists]
        below = g + 1e-5 * np.where(g >= 0, 1, -1)
        wanted = np.mean(np.abs(1 - (g - hessian @ g) / below))
        assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


def test_quotient_of_a_parabola_is_its_curvature() -> None:
    params = {"w": jnp.array([[1.0, -2.0, 5.0]]), "b": jnp.ones(2)}
    tree = {"w": jnp.array([[True, True, False]]), "b": None}
    curve = jnp.array([[0.5, 3.0, 100.0]])

    def parabola(params: Any, batch: Any) -> Any:
        return jnp.sum(curve * params["w"] ** 2) / 2 + jnp.sum(params["b"])

    measure = functools.partial(initializers.gradient_quotient, parabola)
    got = jax.jit(functools.partial(measure, epsilon=0.0))(params, tree, None)
    np.testing.assert_allclose(got, (0.5 + 3.0 + 0 + 0) / 4, rtol=1e-6)
    # A weight without a gradient counts as 1, one outside the mask not at all.
    flat = params | {"w": jnp.array([[0.0, -2.0, jnp.nan]])}
    np.testing.assert_allclose(
        jax.jit(measure)(flat, tree, None), (1 + 3.0) / 4, rtol=1e-4
    )


@functools.partial(jax.jit, compiler_options=PLAINLY)
def slope(params: Any, tree: Any, step: Any) -> Any:
    """The gradient of the quotient on the noise of a step."""
    noise = NOISE(jax.random.fold_in(zero(), step))
    return jax.grad(lambda p: initializers.gradient_quotient(loss, p, tree, noise))(
        params
    )


def by_tensors(params: Any, tree: Any, steps: int, rate: float, least: int) -> Any:
    """Learns norms as published: each step multiplies whole tensors."""
    params = on_masks(tree, params)
    memory = [0.0] * len(jax.tree.leaves(params))
    for step in range(steps):
        leaves, treedef = jax.tree.flatten(params)
        slopes = jax.tree.leaves(slope(params, tree, np.int32(step)))
        for i, (w, g) in enumerate(zip(leaves, slopes, strict=True)):
            if w.ndim < least:
                continue
            norm = float(np.linalg.norm(w))
            along = np.sum(w * np.asarray(g)) / norm
            memory[i] = 0.9 * memory[i] - rate * float(np.sign(along))
            leaves[i] = np.float32(w * ((norm + memory[i]) / norm))
        params = treedef.unflatten(leaves)
    return params


def on_masks(tree: Any, params: Any) -> Any:
    """The masked network in numpy."""
    return {
        name: {
            "kernel": np.where(tree[name]["kernel"], layer["kernel"], 0),
            "bias": np.asarray(layer["bias"]),
        }
        for name, layer in params.items()
    }


def learn(params: Any, tree: Any, **options: Any) -> Any:
    """Scales in one compiled program, compiled with little effort."""
    chosen = initializers.MetaInitOptions(**options)
    fn = functools.partial(
        initializers.metainit, loss, make_batch=NOISE, options=chosen
    )
    return jax.jit(fn, compiler_options=PLAINLY)(params, tree, key=zero())


@pytest.mark.parametrize("least", [1, 3])
def test_norms_are_those_of_the_published_loop(least: int) -> None:
    # At a rate of 0.3 the norms of biases pass zero on the way.
    params, tree = network(), some_masks()
    got = learn(params, tree, steps=12, learning_rate=0.3, min_ndim=least)
    wanted = by_tensors(params, tree, 12, 0.3, least)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, wanted
    )
    start = on_masks(tree, params)
    for now, was in zip(jax.tree.leaves(got), jax.tree.leaves(start), strict=True):
        assert np.any(now != was) == (was.ndim >= least)


def test_without_steps_or_tensors_to_scale_nothing_but_the_mask_changes() -> None:
    params, tree = network(), some_masks()
    start = on_masks(tree, params)
    for options in ({"steps": 0}, {"steps": 3, "min_ndim": 4}):
        still = learn(params, tree, **options)
        jax.tree.map(np.testing.assert_array_equal, still, start)


def test_directions_zeros_and_vectors_stay_and_the_quotient_falls() -> None:
    """One program of 200 steps."""
    params, tree = network(2.0), some_masks()
    start = on_masks(tree, params)
    got = learn(params, tree, steps=200, learning_rate=1e-2)
    assert jax.tree.structure(got) == jax.tree.structure(params)
    for name in params:
        np.testing.assert_array_equal(got[name]["bias"], params[name]["bias"])
        kept = np.asarray(tree[name]["kernel"])
        now = np.asarray(got[name]["kernel"], np.float64)
        was = np.asarray(start[name]["kernel"], np.float64)
        assert np.all(now[~kept] == 0) and np.all(now[kept] != 0)
        cosine = np.sum(now * was) / np.linalg.norm(now) / np.linalg.norm(was)
        assert abs(cosine - 1) < 1e-12
        ratios = now[kept] / was[kept]
        np.testing.assert_allclose(ratios, ratios.mean(), rtol=3e-7)
        assert abs(ratios.mean() - 1) > 1e-3
    batches = jax.vmap(NOISE)(jax.random.split(jax.random.key(9), 50))

    @jax.jit
    def typical(params: Any) -> Any:
        one = functools.partial(initializers.gradient_quotient, loss, params, tree)
        return jnp.median(jax.vmap(one)(batches))

    assert typical(got) < 0.5 * typical(params)


def test_jit_and_vmap_equal_a_loop() -> None:
    make = initializers.gaussian_batches((16, 4, 2), CLASSES)
    trees = [some_masks(seed)["head"] for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    seeds = jax.random.split(zero(), 3)

    options = initializers.MetaInitOptions(steps=5, learning_rate=0.1)
    head = network()["head"]

    def of_head(params: Any, batch: Any) -> Any:
        x = jnp.tanh(batch[0].reshape(len(batch[0]), -1) @ params["kernel"])
        return jnp.mean((x + params["bias"][None]) ** 2)

    def one(tree: Any, key: Any) -> Any:
        return initializers.metainit(
            of_head, head, tree, make_batch=make, key=key, options=options
        )

    together = jax.jit(jax.vmap(one), compiler_options=PLAINLY)(stacked, seeds)
    one_alone = jax.jit(one, compiler_options=PLAINLY)
    for i, tree in enumerate(trees):
        alone = one_alone(tree, seeds[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6),
            together,
            alone,
        )


def test_narrow_weights_and_tensors_of_zeros() -> None:
    params = network(dtype=jnp.bfloat16)
    params["hidden"]["kernel"] = jnp.zeros_like(params["hidden"]["kernel"])
    got = learn(params, some_masks(), steps=5, learning_rate=0.1)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(got))
    assert all(
        np.all(np.isfinite(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(got)
    )
    np.testing.assert_array_equal(got["hidden"]["kernel"], 0)


def test_equinox_models_and_lists() -> None:
    model = eqx.nn.Linear(6, CLASSES, key=zero())
    params, static = eqx.partition(model, eqx.is_inexact_array)
    tree = jax.tree.map(lambda m: m.at[0].set(False), masks.ones(params))

    def of_model(params: Any, batch: Any) -> Any:
        logits = jax.vmap(eqx.combine(params, static))(batch[0])
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    make = initializers.gaussian_batches((8, 6), CLASSES)
    learn = functools.partial(
        initializers.metainit,
        make_batch=make,
        options=initializers.MetaInitOptions(steps=3, learning_rate=0.1),
    )
    got = jax.jit(functools.partial(learn, of_model))(params, tree, key=zero())
    assert jax.tree.structure(got) == jax.tree.structure(params)
    assert np.all(np.asarray(got.weight[0]) == 0) and np.any(
        got.weight != params.weight
    )
    listed = learn(
        lambda p, b: jnp.mean(jnp.tanh(b[0] @ p[0]) ** 2),
        [jnp.ones((6, 2)), None],
        [jnp.ones((6, 2), bool), None],
        key=zero(),
    )
    assert np.any(listed[0] != 1) and listed[1] is None


def test_bad_numbers_are_refused() -> None:
    params, tree = network(), some_masks()
    with pytest.raises(ValueError, match="steps: expected .*got -1"):
        learn(params, tree, steps=-1)

    def broken(params: Any, batch: Any) -> Any:
        sizes = jax.tree.map(jnp.sum, params)
        return sizes["conv"]["kernel"] ** 2 + jnp.sum(params["head"]["kernel"] ** 0.5)

    with pytest.raises(ValueError, match=r"loss: expected .*\['head/kernel'\]"):
        initializers.metainit(
            broken,
            params,
            tree,
            make_batch=NOISE,
            key=zero(),
            options=initializers.MetaInitOptions(steps=2),
        )
