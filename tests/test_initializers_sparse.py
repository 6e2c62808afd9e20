"""Laws of fans and of drawing for given masks."""

import functools
import math
from typing import Any

import equinox as eqx
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from jaxsparse import fan_axes, initializers, masks
from jaxsparse import rng as rng_lib

pytestmark = pytest.mark.keys_used_once


SHAPES = [(1, 1), (3, 5), (3, 3, 4, 6), (2, 1, 3, 2, 4), (0, 3)]
FANS = ("in", "out", "average")
PLAINLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def zero() -> jax.Array:
    """A key, new to the check that none is used twice."""
    return jax.random.key(0)


def fans_by_loop(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts connections one at a time."""
    into, out = np.zeros(mask.shape[-1], int), np.zeros(mask.shape[-2], int)
    for place in zip(*np.nonzero(mask), strict=True):
        into[place[-1]] += 1
        out[place[-2]] += 1
    return into, out


def fan_of_each(mask: np.ndarray, fan: str) -> np.ndarray:
    """Returns the fan of every weight, at least 1."""
    into, out = fans_by_loop(mask)
    values = np.zeros(mask.shape)
    for place in np.ndindex(mask.shape):
        pair = {"in": into[place[-1]], "out": out[place[-2]]}
        pair["average"] = (pair["in"] + pair["out"]) / 2
        values[place] = max(1, pair[fan])
    return values


def uneven(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A mask whose outputs range from nothing kept to everything."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < np.linspace(0, 1, shape[-1])
    mask[..., 0], mask[..., -1] = False, True
    return mask


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    st.sampled_from(SHAPES),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0.2, 0.7, 1]),
)
def test_fans_are_those_of_a_loop(shape: Any, seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < density
    mask[..., rng.random(shape[-1]) < 0.2] = False
    mask[..., rng.random(shape[-2]) < 0.2, :] = False
    got = jax.jit(initializers.sparse_fans)(jnp.asarray(mask))
    for one, wanted in zip(got, fans_by_loop(mask), strict=True):
        assert one.dtype == jnp.int32
        np.testing.assert_array_equal(one, wanted)


def test_fans_under_jit_and_vmap() -> None:
    stack = np.stack([uneven((3, 3, 4, 6), seed) for seed in range(4)])
    into, out = jax.jit(jax.vmap(initializers.sparse_fans))(jnp.asarray(stack))
    for i, mask in enumerate(stack):
        np.testing.assert_array_equal(into[i], fans_by_loop(mask)[0])
        np.testing.assert_array_equal(out[i], fans_by_loop(mask)[1])


def test_fans_of_a_vector_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"mask: expected that of a kernel.*got shape \(3,\)"
    ):
        initializers.sparse_fans(jnp.ones(3, bool))


REPEATS = 400


@pytest.mark.parametrize(
    ("fan", "distribution", "shape"),
    [
        ("in", "normal", (30, 20)),
        ("out", "normal", (3, 3, 4, 6)),
        ("average", "normal", (3, 3, 4, 6)),
        ("in", "uniform", (3, 3, 4, 6)),
        ("out", "uniform", (30, 20)),
    ],
)
def test_variance_of_each_neuron(fan: str, distribution: str, shape: Any) -> None:
    # The squares of f weights in 400 draws are a chi-square of n = 400 f degrees, n at
    # least 400, if normal; those of uniforms scatter less. All neurons of all
    # cases together (under 500 of them) fail by chance in fewer than 1e-6 of keys.
    mask, scale = uneven(shape), 1.7
    draw = initializers.per_neuron(fan=fan, distribution=distribution, scale=scale)
    draw_one = functools.partial(draw, jnp.asarray(mask), jnp.float32)
    draw_many = jax.vmap(lambda key: draw_one(key=key))
    many = jax.jit(draw_many, compiler_options=PLAINLY)(
        jax.random.split(zero(), REPEATS)
    )
    many = np.asarray(many, np.float64)
    assert np.all(many[:, ~mask] == 0) and np.all(many[:, mask] != 0)
    unit = many / np.sqrt(scale / fan_of_each(mask, fan))
    space = tuple(range(unit.ndim - 2))
    for axis, counts in zip((-2, -1), fans_by_loop(mask), strict=True):
        squares = np.sum(unit**2, axis=(*space, axis))
        n = REPEATS * counts[counts > 0]
        low, high = stats.chi2.ppf([1e-9, 1 - 1e-9], n[:, None]).T
        assert np.all((low < squares[counts > 0]) & (squares[counts > 0] < high))
    if distribution == "uniform":
        assert 1.7 < np.abs(unit).max() <= math.sqrt(3) * (1 + 1e-6)
    else:  # n > 40,000: that all are below 3.5 is as likely as exp(-18)
        assert np.abs(unit).max() > 3.5
    # Six standard errors; what the draws have in common would show in the mean.
    assert abs(unit[:, mask].mean()) < 6 / math.sqrt(REPEATS * mask.sum())


@pytest.mark.parametrize(
    ("base", "fan"),
    [("glorot_uniform", "in"), ("lecun_normal", "out"), ("orthogonal", "average")],
)
def test_rescaled_is_proportional_to_the_dense_draw(base: str, fan: str) -> None:
    mask = uneven((3, 3, 6, 8))
    whole = fan_of_each(np.ones_like(mask), fan)
    gain = np.sqrt(whole / fan_of_each(mask, fan))
    rules = [
        initializers.rescaled(rule, fan=fan)
        for rule in (base, initializers.KERNELS[base])
    ]

    @functools.partial(jax.jit, compiler_options=PLAINLY)
    def draw(mask: Any) -> Any:
        dense = initializers.KERNELS[base](zero(), mask.shape, jnp.float32)
        return dense, *(rule(mask, jnp.float32, key=zero()) for rule in rules)

    dense, got, again = draw(jnp.asarray(mask))
    np.testing.assert_allclose(got, np.where(mask, dense * gain, 0), rtol=1e-6)
    np.testing.assert_array_equal(again, got)


@pytest.mark.parametrize(
    ("base", "fan", "law"),
    [
        ("lecun_normal", "in", {"distribution": "normal"}),
        ("kaiming_uniform", "in", {"distribution": "uniform", "scale": 2.0}),
        ("glorot_normal", "average", {"distribution": "normal"}),
        ("glorot_uniform", "average", {"distribution": "uniform"}),
    ],
)
def test_rescaled_variance_scaling_is_per_neuron(base: str, fan: str, law: Any) -> None:
    # The same numbers from the same key, as JAX draws both from the standard law.
    rules = (
        initializers.rescaled(base, fan=fan),
        initializers.per_neuron(fan=fan, **law),
    )

    @functools.partial(jax.jit, compiler_options=PLAINLY)
    def draw(mask: Any) -> Any:
        return [rule(mask, jnp.float32, key=zero()) for rule in rules]

    one, two = draw(jnp.asarray(uneven((3, 3, 6, 8))))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_layer_scaled_and_masked_in_closed_form() -> None:
    mask = uneven((3, 3, 6, 8))
    dense = np.asarray(initializers.KERNELS["glorot_uniform"](zero(), mask.shape))
    plain = initializers.masked()(jnp.asarray(mask), jnp.float32, key=zero())
    np.testing.assert_array_equal(plain, np.where(mask, dense, 0))
    layer = initializers.layer_scaled()(jnp.asarray(mask), jnp.float32, key=zero())
    wanted = np.where(mask, dense, 0) / math.sqrt(mask.mean())
    np.testing.assert_allclose(layer, wanted, rtol=1e-6)
    nothing = initializers.layer_scaled()(
        jnp.zeros((3, 4), bool), jnp.float32, key=zero()
    )
    np.testing.assert_array_equal(nothing, 0)


def test_rules_agree_on_a_full_mask() -> None:
    rules = (
        initializers.masked(),
        initializers.layer_scaled(),
        *(initializers.rescaled("glorot_uniform", fan=fan) for fan in FANS),
    )

    @functools.partial(jax.jit, compiler_options=PLAINLY)
    def draw(mask: Any) -> Any:
        dense = initializers.KERNELS["glorot_uniform"](zero(), mask.shape, jnp.float32)
        return dense, [rule(mask, jnp.float32, key=zero()) for rule in rules]

    dense, drawn = draw(jnp.ones((3, 3, 4, 5), bool))
    for kernel in drawn:
        np.testing.assert_array_equal(kernel, dense)


def outputs_of(draw: initializers.SparseInitializer, mask: np.ndarray) -> np.ndarray:
    """Returns the standard deviation of every output for standard normal inputs.

    It is the norm of the output's weights.
    """
    weights = jax.jit(lambda mask: draw(mask, jnp.float32, key=zero()))(mask)
    return np.linalg.norm(np.asarray(weights, np.float64), axis=0)


def test_outputs_have_unit_variance_whatever_the_connections() -> None:
    # Every output keeps 400 weights or more, so that its standard deviation scatters by
    # 1 / sqrt(800) = 0.035 with the weights: within 0.22 by six standard errors, which
    # 64 outputs leave by chance in 1.3e-7 of keys.
    rng = np.random.default_rng(0)
    density = np.linspace(0.15, 1.0, 64)
    mask = rng.random((4096, 64)) < density
    mask[:, 0] = False
    counts = mask.sum(axis=0)[1:]
    assert counts.min() > 400
    for draw in (
        initializers.per_neuron(fan="in"),
        initializers.per_neuron(fan="in", distribution="uniform"),
        initializers.rescaled("lecun_normal"),
    ):
        spread = outputs_of(draw, mask)
        assert spread[0] == 0 and np.all(np.abs(spread[1:] - 1) < 0.22)
    shrunk = outputs_of(initializers.masked("lecun_normal"), mask)[1:]
    assert np.all(np.abs(shrunk / np.sqrt(counts / 4096) - 1) < 0.22)
    layer = outputs_of(initializers.layer_scaled("lecun_normal"), mask)[1:]
    assert layer[0] < 0.6 and layer[-1] > 1.2


def test_relu_networks_keep_their_signal_with_scale_two() -> None:
    # Ten layers of width 512 at density 0.1: the mean square of 64 x 512 outputs. Its
    # logarithm scatters by about sqrt(10 * 5 / 512) = 0.3, so that 2 is exp(6 * 0.3).
    rng = np.random.default_rng(0)
    tree = [jnp.asarray(rng.random((512, 512)) < 0.1) for _ in range(10)]
    like = [jax.ShapeDtypeStruct(mask.shape, jnp.float32) for mask in tree]
    inputs = jax.random.normal(jax.random.key(1), (64, 512))

    def last(weights: Any) -> float:
        x = inputs
        for kernel in weights[:-1]:
            x = jax.nn.relu(x @ kernel)
        return float(jnp.mean((x @ weights[-1]) ** 2)) / 2

    aware = last(initializers.sparsity_aware(like, tree, scale=2.0, key=zero()))
    plain = last(
        initializers.redraw(
            like, tree, initializers.masked("kaiming_normal"), key=zero()
        )
    )
    assert math.exp(-1.8) < aware < math.exp(1.8)
    assert math.exp(-1.8) < plain * 10**10 < math.exp(1.8)


def linen_like() -> dict[str, Any]:
    return {
        "conv": {"kernel": jnp.ones((3, 3, 4, 6)), "bias": jnp.full(6, 0.5)},
        "head": {"kernel": jnp.ones((6, 5), jnp.bfloat16), "bias": jnp.ones(5)},
    }


def masks_for(params: Any, seed: int = 0) -> Any:
    everything = masks.ones(params)
    return jax.tree.map(lambda leaf: jnp.asarray(uneven(leaf.shape, seed)), everything)


RULES = {
    "per_neuron": initializers.per_neuron(),
    "rescaled": initializers.rescaled("glorot_uniform", fan="average"),
    "layer_scaled": initializers.layer_scaled(),
    "masked": initializers.masked(),
}


@pytest.mark.parametrize("name", ["per_neuron", "masked"])
def test_trees_keep_what_has_no_mask_and_draw_by_name(name: str) -> None:
    params = linen_like()
    tree = masks_for(params)
    drawn = initializers.redraw(params, tree, RULES[name], key=zero())
    for layer in params:
        assert drawn[layer]["bias"] is params[layer]["bias"]
        mask, kernel = tree[layer]["kernel"], drawn[layer]["kernel"]
        assert kernel.dtype == params[layer]["kernel"].dtype
        assert np.all(np.asarray(kernel)[~np.asarray(mask)] == 0)
        key = rng_lib.leaf_key(zero(), f"{layer}/kernel")
        wanted = RULES[name](mask, jnp.float32, key=key).astype(kernel.dtype)
        np.testing.assert_array_equal(kernel, wanted)


def test_vmap_over_keys_and_masks_equals_a_loop() -> None:
    params = linen_like()
    trees = [masks_for(params, seed) for seed in range(3)]
    seeds = jax.random.split(zero(), 3)

    @functools.partial(jax.jit, compiler_options=PLAINLY)
    def draw(tree: Any, key: Any) -> Any:
        one = functools.partial(initializers.redraw, params, tree)
        return [one(rule, key=jax.random.clone(key)) for rule in RULES.values()]

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    together = jax.vmap(draw)(stacked, seeds)
    for i, tree in enumerate(trees):
        alone = draw(tree, seeds[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone
        )


def test_sparsity_aware_is_redraw_per_neuron() -> None:
    params = linen_like()
    law = {"fan": "average", "distribution": "uniform", "scale": 2.0}
    one = initializers.sparsity_aware(params, masks_for(params), **law, key=zero())
    rule = initializers.per_neuron(**law)
    two = initializers.redraw(params, masks_for(params), rule, key=zero())
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_lists_and_shapes_are_parameters_too() -> None:
    like = [jax.ShapeDtypeStruct((4, 6), jnp.float16), [jnp.ones(3), None]]
    tree = [jnp.asarray(uneven((4, 6))), [None, None]]
    drawn = initializers.sparsity_aware(like, tree, key=zero())
    assert drawn[0].shape == (4, 6) and drawn[0].dtype == jnp.float16
    assert drawn[1][0] is like[1][0] and drawn[1][1] is None


def test_equinox_kernels_have_outputs_first() -> None:
    def make() -> Any:
        layers = [
            eqx.nn.Conv2d(3, 8, 3, key=zero()),
            eqx.nn.Linear(40, 30, key=jax.random.key(1)),
        ]
        return eqx.filter(eqx.nn.Sequential(layers), eqx.is_inexact_array)

    params = jax.eval_shape(make)
    rng = np.random.default_rng(2)

    def keep(leaf: Any) -> Any:  # everything of the first output, of the others little
        few = rng.random(leaf.shape) < 0.1
        few[0] = True
        return jnp.asarray(few)

    tree = jax.tree.map(keep, masks.ones(params))
    ones = initializers.rescaled(jax.nn.initializers.ones)
    drawn = initializers.redraw(params, tree, ones, axes=fan_axes.EQUINOX, key=zero())
    assert jax.tree.structure(drawn) == jax.tree.structure(params)
    for was, now, mask in zip(params.layers, drawn.layers, tree.layers, strict=True):
        assert now.bias is was.bias
        kept = np.asarray(mask.weight)
        space = tuple(range(1, kept.ndim))
        gain = np.sqrt(
            kept[0].size / np.maximum(1, kept.sum(axis=space, keepdims=True))
        )
        np.testing.assert_allclose(now.weight, np.where(kept, gain, 0), rtol=1e-6)


def test_narrow_weights_are_drawn_wide() -> None:
    mask = jnp.asarray(uneven((40, 30)))

    @functools.partial(jax.jit, static_argnums=1, compiler_options=PLAINLY)
    def draw(mask: Any, dtype: Any) -> Any:
        return {n: rule(mask, dtype, key=zero()) for n, rule in RULES.items()}

    wide, narrow = draw(mask, jnp.float32), draw(mask, jnp.bfloat16)
    for name in RULES:
        assert narrow[name].dtype == jnp.bfloat16, name
        rounded = np.asarray(wide[name]).astype(jnp.bfloat16)
        np.testing.assert_array_equal(narrow[name], rounded)
    with jax.enable_x64(True):
        drawn = jax.eval_shape(
            lambda mask: RULES["per_neuron"](mask, jnp.float64, key=zero()), mask
        )
        assert drawn.dtype == jnp.float64


def test_names_that_are_not_are_refused_with_those_known() -> None:
    with pytest.raises(
        ValueError, match="fan: expected one of in, out, av.*got 'fanin'"
    ):
        initializers.per_neuron(fan="fanin")
    with pytest.raises(
        ValueError, match="fan: expected one of in, out, av.*got 'both'"
    ):
        initializers.rescaled("lecun_normal", fan="both")
    with pytest.raises(
        ValueError, match="expected one of normal, uniform.*got 'cauchy'"
    ):
        initializers.per_neuron(distribution="cauchy")
    with pytest.raises(ValueError, match="scale: expected .*got 0.0"):
        initializers.per_neuron(scale=0.0)
    for make in (initializers.rescaled, initializers.layer_scaled, initializers.masked):
        with pytest.raises(ValueError, match="base: expected one of kaimi.*got 'he'"):
            make("he")


def test_leaves_that_do_not_fit_are_named() -> None:
    params = {"a": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}
    draw = functools.partial(initializers.sparsity_aware, params, key=zero())
    none = {"kernel": None, "bias": None}
    with pytest.raises(
        ValueError, match=r"masks: a/kernel: expected shape .*got \(3, 4\)"
    ):
        draw({"a": none | {"kernel": jnp.ones((3, 4), bool)}})
    with pytest.raises(
        ValueError, match=r"a/bias: expected two or more axes, .* got shape \(3,\)"
    ):
        draw({"a": none | {"bias": jnp.ones(3, bool)}})
    with pytest.raises(
        ValueError, match="a/kernel: expected two or more axes, .* different"
    ):
        draw({"a": none | {"kernel": jnp.ones((4, 3), bool)}}, axes="iio")
    with pytest.raises(ValueError):
        draw({"b": none})
