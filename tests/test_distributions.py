"""Weights of each layer by each rule: exact totals, by hand, and what is refused."""

import math
from fractions import Fraction

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import flat_options
from hypothesis import strategies as st

from jaxsparse import (
    distributions,
    fan_axes,
    masks,
    prune,
    scores,
    select,
    transforms,
)


def ones(shape: int | tuple[int, ...], dtype: type = bool) -> jax.Array:
    return jax.device_put(np.ones(shape, dtype))  # which compiles nothing


LENET = {
    "a": {"kernel": ones((784, 300), np.float32), "bias": ones(300, np.float32)},
    "b": {"kernel": ones((300, 100), np.float32)},
    "c": {"kernel": ones((100, 10), np.float32)},
}
MASKS = {name: {"kernel": ones(LENET[name]["kernel"].shape)} for name in "abc"}
MASKS["a"]["bias"] = None
RULES = [
    distributions.uniform,
    distributions.erdos_renyi,
    distributions.erdos_renyi_kernel,
    distributions.balanced,
]
# Convolutions in one, two and three dimensions, and dense layers.
SHAPES = [(3, 3, 3, 16), (5, 16, 8), (2, 2, 2, 8, 4), (128, 64), (64, 10), (1, 1, 4, 4)]
NETWORK = {f"layer{i}": ones(shape) for i, shape in enumerate(SHAPES)}
some = hypothesis.settings(deadline=None, max_examples=25)
TOTAL = sum(math.prod(shape) for shape in SHAPES)


@some
@hypothesis.given(st.integers(0, 10**10), st.integers(0, 99_999))
def test_count_kept_rounds_the_exact_product(total: int, removed: int) -> None:
    exact = total * (1 - Fraction(removed, 100_000))
    got = distributions.count_kept(total, removed / 100_000)
    assert Fraction(-1, 2) < got - exact <= Fraction(1, 2)


def test_count_kept_where_floats_are_wrong() -> None:
    assert distributions.count_kept(5, 0.9) == 1  # one half, up
    assert distributions.count_kept(25_502_912, 0.999) == 25503
    assert distributions.count_kept(138_344_128, 0.9) == 13_834_413
    assert distributions.count_kept(7, 0.0) == 7


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), 90.0])
@pytest.mark.parametrize("rule", RULES)
def test_sparsities_outside_the_unit_interval(rule: object, sparsity: float) -> None:
    with pytest.raises(ValueError, match="sparsity: expected .*got"):
        rule(NETWORK, sparsity)


@pytest.mark.parametrize("rule", RULES)
@some
@hypothesis.given(thousandths=st.integers(0, 999))
def test_totals_are_exact_and_layers_fit(rule: object, thousandths: int) -> None:
    counts = rule(NETWORK, thousandths / 1000)
    assert sum(counts.values()) == distributions.count_kept(TOTAL, thousandths / 1000)
    for name, leaf in NETWORK.items():
        assert type(counts[name]) is int and 0 <= counts[name] <= leaf.size


@some
@hypothesis.given(thousandths=st.integers(0, 999))
def test_uniform_is_within_a_weight_of_its_share(thousandths: int) -> None:
    counts = distributions.uniform(NETWORK, thousandths / 1000)
    target = Fraction(sum(counts.values()), TOTAL)
    raised = {n for n, leaf in NETWORK.items() if leaf.size * target < 1}
    missing = sum(1 - NETWORK[name].size * target for name in raised)
    for name, leaf in NETWORK.items():
        if name in raised:
            assert counts[name] == 1
        else:
            assert abs(counts[name] - leaf.size * target) < 1 + missing


@pytest.mark.parametrize("rule", RULES)
@some
@hypothesis.given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    thousandths=st.integers(0, 999),
)
def test_every_layer_keeps_a_weight_and_the_total_is_exact(
    rule: object, sizes: list[int], thousandths: int
) -> None:
    network = {f"layer{i}": ones((n, 3)) for i, n in enumerate(sizes)}
    target = distributions.count_kept(3 * sum(sizes), thousandths / 1000)
    if target < sum(n > 0 for n in sizes):
        with pytest.raises(ValueError, match="expected one weight or more for each of"):
            rule(network, thousandths / 1000)
        return
    counts = rule(network, thousandths / 1000)
    assert sum(counts.values()) == target
    for name, leaf in network.items():
        assert min(1, leaf.size) <= counts[name] <= leaf.size


def test_a_head_of_twenty_weights_keeps_one() -> None:
    network = {"body": ones((64, 20)), "head": ones((20, 1))}
    # 26 of 1300 weights are kept; the head's share is 0.4.
    assert distributions.uniform(network, 0.98) == {"body": 25, "head": 1}
    assert distributions.by_glob(network, {"head": 0.99}, otherwise=0.98)["head"] == 1


def test_uniform_counts_dense_layers_on_top() -> None:
    counts = distributions.uniform(MASKS, 0.9, dense=("c/*",))
    assert jax.tree.leaves(counts) == [23520, 3000, 1000]
    assert counts["a"]["bias"] is None


def test_erdos_renyi_of_lenet_by_hand() -> None:
    # Weights 1084, 400, 110 share 26620 at 90 %: the last layer's 1837 exceed its
    # 1000, so 25620 are shared by 1084 and 400: 18714.3 and 6905.7.
    expected = [18714, 6906, 1000]
    mask = MASKS
    for rule in (distributions.erdos_renyi, distributions.erdos_renyi_kernel):
        assert jax.tree.leaves(rule(mask, 0.9)) == expected
    # At 98 %, 5324: 3620.6, 1336.0 and 367.4. Floors leave one, for the first layer.
    assert jax.tree.leaves(distributions.erdos_renyi(mask, 0.98)) == [3621, 1336, 367]


def test_kernels_of_convolutions_weigh_in_their_space() -> None:
    network = {"a": ones((3, 3, 16, 32)), "b": ones((64, 128))}
    target = distributions.count_kept(4608 + 8192, 0.9)
    kernel = distributions.erdos_renyi_kernel(network, 0.9)
    assert kernel["a"] == round(Fraction(target * 54, 54 + 192))
    plain = distributions.erdos_renyi(network, 0.9)
    assert plain["a"] == round(Fraction(target * 9 * 48, 9 * 48 + 192))


def test_overfull_layers_become_dense_one_after_another() -> None:
    # First "c" (4 > its 1), and only then, with more to share, "b" as well.
    network = {
        name: ones(shape)
        for name, shape in {"a": (100, 100), "b": (4, 4), "c": (1, 1)}.items()
    }
    for sparsity in (0.3, 0.5, 0.9, 0.99):
        counts = distributions.erdos_renyi_kernel(network, sparsity)
        total = distributions.count_kept(10017, sparsity)
        left = Fraction(total - counts["b"] - counts["c"])
        assert counts["a"] == left
        if total > 500:
            assert (counts["b"], counts["c"]) == (16, 1)


def test_dense_layers_count_toward_the_total() -> None:
    mask = MASKS
    for rule in RULES[1:]:
        counts = rule(mask, 0.8, dense=("b/kernel",))
        assert counts["b"]["kernel"] == 30000
        assert sum(jax.tree.leaves(counts)) == distributions.count_kept(266200, 0.8)
        with pytest.raises(ValueError, match="got 30000 in the layers matching"):
            rule(mask, 0.9, dense=("b/*",))
        with pytest.raises(ValueError, match="expected patterns that match a leaf"):
            rule(mask, 0.9, dense=("head/*",))


def test_balanced_by_hand() -> None:
    # 26620 over three layers are 8873.3 each; the last has 1000, so 12810 are left.
    mask = MASKS
    assert jax.tree.leaves(distributions.balanced(mask, 0.9)) == [12810, 12810, 1000]
    # 2662: 887.3 each, and the one left over is for the first.
    assert jax.tree.leaves(distributions.balanced(mask, 0.99)) == [888, 887, 887]


@some
@hypothesis.given(thousandths=st.integers(0, 999))
def test_balanced_layers_are_equal_or_whole(thousandths: int) -> None:
    counts = distributions.balanced(NETWORK, thousandths / 1000)
    most = max(counts.values())
    for name, leaf in NETWORK.items():
        assert counts[name] == leaf.size or most - counts[name] <= 1


def test_all_layers_dense() -> None:
    everything = jax.tree.map(lambda leaf: leaf.size, NETWORK)
    for rule in RULES:
        assert rule(NETWORK, 0.0) == everything
        assert rule(NETWORK, 0.0, dense=("*",)) == everything
    assert distributions.uniform(NETWORK, 0.5, dense=("*",)) == everything


def test_equal_remainders_go_to_the_earlier_layer() -> None:
    network = {name: ones((3, 1)) for name in "abc"}
    assert distributions.uniform(network, 0.5) == {"a": 2, "b": 2, "c": 1}


def test_a_layer_without_inputs_and_outputs_is_refused() -> None:
    network = {"v": ones(4), "w": ones((4, 4))}
    assert distributions.uniform(network, 0.5) == {"v": 2, "w": 8}
    for rule in RULES[1:]:
        with pytest.raises(ValueError, match="v: expected two or more axes"):
            rule(network, 0.5)


def test_counts_go_straight_to_selection() -> None:
    mask = MASKS
    scores = {"a": {"kernel": LENET["a"]["kernel"], "bias": None}}
    scores |= {n: {"kernel": LENET[n]["kernel"]} for n in "bc"}
    counts = distributions.erdos_renyi(mask, 0.9)
    shapes = jax.eval_shape(lambda s: select.top_k_per_layer(s, counts), scores)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, mask)
    small = {"b": scores["b"]}
    few = {"b": counts["b"]}
    kept = masks.layer_counts(select.top_k_per_layer(small, few))
    assert [layer.num_active for layer in kept.values()] == [6906]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"a": -1}, ValueError, "expected 0 to 20 weights for a, its size, got -1"),
        ({"b": 10**6}, ValueError, "expected 0 to 30 weights for b, its size, got 1"),
        ({"c": 3}, ValueError, "for the leaves .*, got counts for"),
        ({"b": None}, ValueError, "for the leaves .*, got counts for"),
        ({"a": 2.0}, TypeError, "expected an integer number of weights for a, got 2.0"),
        (
            {"a": True},
            TypeError,
            "expected an integer number of weights for a, got True",
        ),
        ({"a": "2"}, TypeError, "expected an integer number of weights for a, got '2'"),
        ({"a": [2]}, ValueError, "for the leaves .*, got counts for"),
        ({"a": jnp.ones(2, int)}, TypeError, "expected an integer number of weights"),
    ],
)
def test_a_function_that_returns_no_counts_is_refused_everywhere(
    changed: dict, error: type[Exception], message: str
) -> None:
    params = {"a": ones((4, 5), np.float32), "b": ones((5, 6), np.float32)}

    def distribution(masks: dict, sparsity: float) -> dict:
        return {"a": 2, "b": 6} | changed

    sgd, options = optax.sgd(0.1), {"sparsity": 0.8, "distribution": distribution}
    options["prunable"] = ("*",)
    when = {"begin_step": 1, "end_step": 3, "update_every": 1}
    calls = {
        "divide": lambda: distributions.divide(
            distribution, masks.ones(params, prunable=("*",)), 0.8
        ),
        "prune": lambda: flat_options.call(prune.prune, params, **options),
        "iterate": lambda: flat_options.call(
            prune.prune_iteratively,
            params,
            **options,
            score=scores.magnitude,
            iterations=2,
        ),
    }
    for make, more in (
        (transforms.sparse_evolution, {}),
        (transforms.rigl, {"end_step": 9, "update_every": 2}),
        (transforms.mest, {"end_step": 9, "update_every": 2}),
        (transforms.snfs, {"end_step": 9, "update_every": 2}),
        (transforms.granet, when),
        (transforms.gradual_magnitude, when),
        (transforms.one_shot_magnitude, {"step": 1}),
        (transforms.ac_dc, when),
        (transforms.straight_through, {}),
        (transforms.top_kast, {"backward_sparsity": 0.5}),
    ):
        calls[make.__name__] = lambda make=make, more=more: jax.eval_shape(
            flat_options.call(make, sgd, **options, **more).init, params
        )
    for name, call in calls.items():
        with pytest.raises(error, match=message):
            call()
            raise AssertionError(f"{name} accepted {changed}")


def test_whole_numbers_of_numpy_are_counts_and_zeros_warn() -> None:
    network = {"a": ones((4, 5)), "b": ones((5, 6))}
    counts = distributions.divide(
        lambda masks, sparsity: {"a": np.int64(2), "b": jnp.int32(6)}, network, 0.8
    )
    assert counts == {"a": 2, "b": 6}
    assert all(type(count) is int for count in counts.values())
    with pytest.warns(UserWarning, match=r"got 0 for \['a'\]"):
        distributions.divide(lambda m, s: {"a": 0, "b": 6}, network, 0.8)


def test_stacked_layers_and_groups_are_matrices_of_their_own() -> None:
    # Twelve 8x8 layers in one leaf keep twelve times what one keeps.
    network = {"many": ones((12, 8, 8)), "one": ones((8, 8))}
    for rule in RULES[1:3]:
        counts = rule(network, 0.9, axes={"many": "sio"})
        assert counts == {"many": 77, "one": 6}  # 83.2 in 12 to 1: 76.8 and 6.4
    # In four groups each output sees 2 of 8 inputs: 4 (2 + 4) against 8 + 16.
    network = {"grouped": ones((2, 16)), "plain": ones((8, 16))}
    counts = distributions.erdos_renyi(network, 0.9, axes={"grouped": "io/4"})
    assert counts == {"grouped": 8, "plain": 8}
    # A channel that sees itself is full at any density above 1 / (1 + 1).
    network = {"deep": ones((3, 3, 1, 4)), "wide": ones((64, 64))}
    counts = distributions.erdos_renyi(network, 0.9, axes={"deep": fan_axes.DEPTHWISE})
    assert counts["deep"] == 36


@pytest.mark.parametrize("name", ["er", "erk", "balanced", "uniform"])
def test_maps_of_attention_count_like_dense_layers(name: str) -> None:
    heads = {"query": (64, 8, 8), "key": (64, 8, 8), "value": (64, 8, 8)}
    shapes = heads | {"out": (8, 8, 64), "dense": (64, 64)}
    network = {layer: {"kernel": ones(s)} for layer, s in shapes.items()}
    counts = distributions.NAMES[name](network, 0.9)
    assert sum(jax.tree.leaves(counts)) == 2048
    assert set(jax.tree.leaves(counts)) == {409, 410}


def test_a_layout_says_what_names_do_not() -> None:
    other = {"b": ones((40, 9))}
    network = {"a": {"weight": ones((16, 2, 3, 3))}} | other
    flax = {"a": {"kernel": ones((3, 3, 2, 16))}} | other
    for rule in RULES[1:3]:
        told = rule(network, 0.9, axes={"a/weight": fan_axes.EQUINOX})
        assert jax.tree.leaves(told) == jax.tree.leaves(rule(flax, 0.9))
        assert jax.tree.leaves(told) == jax.tree.leaves(
            rule(network, 0.9, axes={"a/*": "oi..."})
        )


def test_many_sparsities_are_divided_as_each_of_them() -> None:
    masks = {name: jnp.ones((n + 2, 3 * n), bool) for n, name in enumerate("cab", 2)}
    dense = ("b",)
    assert list(distributions.named.DIVIDERS) == list(distributions.NAMES)
    for name, function in distributions.NAMES.items():
        divide = distributions.make_divider(name, masks, dense=dense)
        for sparsity in (0.0, 0.1, Fraction(1, 3), 0.35):
            wanted = function(masks, sparsity, dense=dense)
            assert divide(sparsity) == wanted
            assert distributions.divide(name, masks, sparsity, dense=dense) == wanted
