import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxsparse import initializers, masks, rng

pytestmark = pytest.mark.keys_used_once


CONV = (3, 3, 40, 60)  # n = 21,600 weights
FAN_IN, FAN_OUT, N = 360, 540, 21_600
VARIANCES = {
    "kaiming_normal": 2 / FAN_IN,
    "kaiming_uniform": 2 / FAN_IN,
    "glorot_normal": 2 / (FAN_IN + FAN_OUT),
    "glorot_uniform": 2 / (FAN_IN + FAN_OUT),
    "lecun_normal": 1 / FAN_IN,
    "lecun_uniform": 1 / FAN_IN,
    "torch_default": 1 / (3 * FAN_IN),
}
UNIFORM = ("kaiming_uniform", "glorot_uniform", "lecun_uniform", "torch_default")
LIKE = {
    "conv": {
        "kernel": jax.ShapeDtypeStruct((3, 3, 2, 4), np.float32),
        "bias": jax.ShapeDtypeStruct((4,), np.float32),
    },
    "norm": {
        "scale": jax.ShapeDtypeStruct((4,), np.float32),
        "bias": jax.ShapeDtypeStruct((4,), np.float32),
    },
    "head": {
        "kernel": jax.ShapeDtypeStruct((4, 10), np.float32),
        "bias": jax.ShapeDtypeStruct((10,), np.float32),
    },
}
RANDOM = {"bias": "torch_default", "norm_scale": "uniform"}


@functools.cache
def kernel_of(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    like = {"kernel": jax.ShapeDtypeStruct(shape, np.float32)}
    params = initializers.initialize(like, kernel=name, key=jax.random.key(seed))
    return np.asarray(params["kernel"], np.float64)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", VARIANCES)
def test_kernels_have_the_moments_of_their_law(name: str):
    # n = 21,600; five standard errors: each of the 14 comparisons fails by chance once
    # in 1.7 million keys. The kurtosis is 3 for the normal and 1.8 for the uniform law.
    kernel, variance = kernel_of(name, CONV), VARIANCES[name]
    kurtosis = 1.8 if name in UNIFORM else 3.0
    assert abs(kernel.mean()) < 5 * math.sqrt(variance / N)
    error = abs(np.mean(kernel**2) / variance - 1)
    assert error < 5 * math.sqrt((kurtosis - 1) / N)


@pytest.mark.parametrize("name", sorted(set(VARIANCES) - set(UNIFORM)))
def test_normals_are_not_truncated(name: str):
    # That none of 21,600 normals lies beyond 3 standard deviations: exp(-58).
    assert np.abs(kernel_of(name, CONV)).max() > 3 * math.sqrt(VARIANCES[name])


@pytest.mark.parametrize("name", UNIFORM)
def test_uniforms_keep_their_bounds_and_reach_them(name: str):
    # That none of 21,600 lies in the last thousandth: 4e-10. The bound itself is
    # rounded to float32.
    bound = np.float32(math.sqrt(3 * VARIANCES[name])) * np.float32(1 + 2**-22)
    largest = np.abs(kernel_of(name, CONV)).max()
    assert 0.999 * bound < largest <= bound


def test_torch_default_is_one_over_the_root_of_the_inputs():
    params = initializers.initialize(
        {"kernel": jnp.zeros((100, 300)), "bias": jnp.zeros(300)},
        kernel="torch_default",
        bias="torch_default",
        key=jax.random.key(0),
    )
    # n = 30,000 weights and 300 biases; 1 - 0.1 and 1 - 1e-3 of the bound are missed
    # by chance in 0.9**300 = 2e-14 and 9e-14 of keys.
    for leaf, least in (("kernel", 0.0999), ("bias", 0.09)):
        assert least < jnp.max(jnp.abs(params[leaf])) <= 0.1


@pytest.mark.parametrize("shape", [(8, 8), (40, 7), (7, 40), (3, 3, 2, 5)])
def test_orthogonal_kernels_are_orthogonal(shape: tuple[int, ...]):
    matrix = kernel_of("orthogonal", shape).reshape(-1, shape[-1])
    rows, columns = matrix.shape
    gram = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-5)


def test_biases_and_scales_are_zeros_and_ones_by_default():
    params = initializers.initialize(LIKE, key=jax.random.key(0))
    for layer in params.values():
        np.testing.assert_array_equal(layer["bias"], 0.0)
    np.testing.assert_array_equal(params["norm"]["scale"], 1.0)


def test_biases_take_the_fan_of_the_kernel_beside_them():
    like = {
        "a": {"kernel": jnp.zeros((3, 3, 100, 1)), "bias": jnp.zeros(1000)},
        "b": {"kernel": jnp.zeros((4, 1)), "bias": jnp.zeros(1000)},
        "norm": {"scale": jnp.zeros(1000), "bias": jnp.zeros(1000)},
    }
    params = initializers.initialize(like, **RANDOM, key=jax.random.key(0))
    # n = 1000; none beyond 0.95 of the bound by chance: 0.95**1000 = 5e-23.
    for layer, bound in (("a", 1 / 30), ("b", 1 / 2)):
        largest = np.abs(params[layer]["bias"]).max()
        assert 0.95 * bound < largest <= np.float32(bound)
    np.testing.assert_array_equal(params["norm"]["bias"], 0.0)
    scale = params["norm"]["scale"]
    assert 0.0 <= scale.min() < 0.05 < 0.95 < scale.max() < 1.0


def test_other_layers_do_not_matter():
    few = {"head": LIKE["head"]}
    some = initializers.initialize(few, **RANDOM, key=jax.random.key(0))
    every = initializers.initialize(LIKE, **RANDOM, key=jax.random.key(0))
    assert_trees_equal(some["head"], every["head"])


def test_each_leaf_draws_from_the_key_of_its_name():
    key = jax.random.key(5)
    params = initializers.initialize(LIKE, kernel="lecun_uniform", key=key)
    want = jax.nn.initializers.lecun_uniform()(
        rng.leaf_key(key, "head/kernel"), (4, 10), jnp.float32
    )
    np.testing.assert_array_equal(params["head"]["kernel"], want)


def test_equal_shapes_and_other_keys_draw_other_values():
    like = {name: {"kernel": jnp.zeros((8, 8))} for name in ("dense1", "dense2")}
    one = initializers.initialize(like, key=jax.random.key(0))
    two = initializers.initialize(like, key=jax.random.key(1))
    kernels = [layer["kernel"] for tree in (one, two) for layer in tree.values()]
    assert len(np.unique(np.stack(kernels))) == 4 * 64


@pytest.mark.parametrize("name", ["torch_default", "orthogonal"])
def test_vmap_over_keys_equals_a_loop(name: str):
    draw = functools.partial(initializers.initialize, LIKE, kernel=name, **RANDOM)
    seeds = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(lambda key: draw(key=key)))(seeds)
    one = jax.jit(lambda key: draw(key=key))
    apart = jax.tree.map(lambda *leaves: np.stack(leaves), *map(one, seeds))
    assert_trees_equal(together, apart)


def test_shapes_and_values_are_equally_good_likenesses():
    params = initializers.initialize(LIKE, **RANDOM, key=jax.random.key(0))
    again = initializers.initialize(params, **RANDOM, key=jax.random.key(0))
    assert_trees_equal(params, again)


def test_dtypes_are_kept_and_drawn_in_float32():
    like = {"kernel": jax.ShapeDtypeStruct((50, 50), jnp.bfloat16)}
    narrow = initializers.initialize(like, key=jax.random.key(0))["kernel"]
    assert narrow.dtype == jnp.bfloat16
    wide = jnp.asarray(kernel_of("kaiming_normal", (50, 50)), jnp.float32)
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", initializers.KERNELS)
def test_every_rule_keeps_shape_and_dtype(name: str):
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        like = jax.tree.map(lambda s, d=dtype: jax.ShapeDtypeStruct(s.shape, d), LIKE)
        draw = functools.partial(initializers.initialize, like, kernel=name, **RANDOM)
        out = jax.eval_shape(lambda key, draw=draw: draw(key=key), jax.random.key(0))
        same = jax.tree.map(
            lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), out, like
        )
        assert all(jax.tree.leaves(same))


def test_linen_embeddings_and_nnx_states_are_recognized():
    model = nn.Embed(5, 3)
    like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(2, jnp.int32))
    params = initializers.initialize(like["params"], key=jax.random.key(0))
    assert params["embedding"].shape == (5, 3)
    _, state = nnx.split(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    drawn = initializers.initialize(state, key=jax.random.key(0))
    assert jax.tree.structure(drawn) == jax.tree.structure(state)
    assert masks.names(drawn) == ["bias", "kernel"]


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("kernel", "kaiming_normal, kaiming_uniform"),
        ("bias", "zeros, torch_default"),
        ("norm_scale", "ones, uniform"),
    ],
)
def test_unknown_names_are_refused_with_those_known(field: str, known: str):
    with pytest.raises(ValueError, match=f"{field}: expected one of {known}.*got 'he'"):
        initializers.initialize(LIKE, **{field: "he"}, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "leaf"),
    [
        ("gamma", jnp.ones(3)),
        ("kernel", jnp.ones(3)),
        ("bias", jnp.ones(3, jnp.int32)),
    ],
)
def test_leaves_without_a_rule_are_named(name: str, leaf: jax.Array):
    with pytest.raises(ValueError, match=f"template: layer/{name}: expected"):
        initializers.initialize({"layer": {name: leaf}}, key=jax.random.key(0))


def test_leaves_may_begin_as_zeros_and_the_others_stay() -> None:
    like = {
        "a": {"kernel": jnp.zeros((3, 2)), "scale": jnp.zeros(2)},
        "b": {"kernel": jnp.zeros((3, 2)), "scale": jnp.zeros(2)},
    }
    key = jax.random.key(0)
    plain = initializers.initialize(like, key=key)
    found = initializers.initialize(like, zero_init=("*/scale", "b/*"), key=key)
    np.testing.assert_array_equal(found["a"]["kernel"], plain["a"]["kernel"])
    for leaf in (found["a"]["scale"], *found["b"].values()):
        assert not np.any(np.asarray(leaf))
    with pytest.raises(ValueError, match="zero_init: expected patterns .*got 'c'"):
        initializers.initialize(like, zero_init=("c",), key=key)
