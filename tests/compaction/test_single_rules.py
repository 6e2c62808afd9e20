"""Networks that need one rule each: for constants, for what matters, for shifts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reductions
from helpers.reductions import Network, floats, relu, s_, unit
from jax import lax
from jax.extend import core
from jax.interpreters import mlir

from jaxsparse import compaction
from jaxsparse.types import Params

SOME = np.array([[True, False, True]])


def hidden(p: Params, x: Any) -> Any:
    """The sums of a layer behind one whose unit 1 is constant."""
    return relu(x @ p["a"] + p["c"]) @ p["b"]


def negated(p: Params, x: Any) -> Any:
    return relu(-hidden(p, x) + p["d"])


def selected(p: Params, x: Any) -> Any:
    return relu(jnp.where(SOME, hidden(p, x), 0.0) + p["d"])


def selected_by_an_input(p: Params, x: Any) -> Any:
    y = hidden(p, x)
    return jnp.where(x[:, :1] > 0, y, y) + p["d"]


def leaky(p: Params, x: Any) -> Any:
    y = jax.nn.leaky_relu(x @ p["a"] + p["c"])
    return jax.nn.elu(y @ p["b"] + p["d"])


def sorted_sums(p: Params, x: Any) -> Any:
    return jnp.sort(hidden(p, x), -1)


def convolved(p: Params, x: Any) -> Any:
    y = hidden(p, x)
    order = ("NHC", "HIO", "NHC")
    y = lax.conv_general_dilated(
        y, p["each"], (1,), "VALID", dimension_numbers=order, feature_group_count=3
    )
    return relu(y + p["d"])


def pooled(p: Params, x: Any) -> Any:
    y = lax.reduce_window(hidden(p, x), 0.0, lax.add, (1, 2, 1), (1, 1, 1), "VALID")
    return relu(y + p["d"])


def highest(p: Params, x: Any) -> Any:
    y = hidden(p, x)
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 1), (1, 1, 1), "VALID")


def summed_in_time(p: Params, x: Any) -> Any:
    return jnp.cumsum(relu(x @ p["a"] + p["c"]), 1) @ p["b"]


def looked_up(p: Params, x: Any) -> Any:
    y = relu(x["x"] @ p["a"] + p["c"])
    return y[x["i"]] @ p["b"]


def looked_up_twice(p: Params, x: Any) -> Any:
    return relu(p["table"][x[:, 0], x[:, 1]] + p["c"]) @ p["b"]


own = core.Primitive("own")  # runs only in compiled programs
own.def_abstract_eval(lambda x: x)
mlir.register_lowering(
    own, mlir.lower_fun(lambda x: 2 * x, multiple_results=False), platform="cpu"
)


def uncomputed(p: Params, x: Any) -> Any:
    return relu(x @ p["a"] * own.bind(p["c"])) @ p["b"]


def told_its_width(p: Params, x: Any) -> Any:
    return {"y": relu(x @ p["a"]) @ p["b"], "width": jnp.ones(p["a"].shape[1])}


def adds_its_width(p: Params, x: Any) -> Any:
    return hidden(p, x) + np.full((1, 3), p["a"].shape[1], np.float32)


def two_layers(p: Params, x: Any) -> Any:
    """Changes when both layers get smaller, but not when one of them does."""
    both = p["a"].shape[1] < 6 and p["b"].shape[1] < 3
    y = relu(relu(x @ p["a"] + p["c"]) @ p["b"]) @ p["e"]
    return y + np.full((1, 2), float(both), np.float32)


def refuses_a_width(p: Params, x: Any) -> Any:
    width = p["a"].shape[1]

    def scale(total: Any) -> Any:
        if width < 6:
            raise ValueError("too narrow")
        return np.float32(1)

    number = jax.pure_callback(scale, jax.ShapeDtypeStruct((), jnp.float32), x.sum())
    return hidden(p, x) * number


def ternary(p: Params, x: Any) -> Any:
    y = x @ p["a"] + p["c"]
    y = (y > 0.4).astype(jnp.float32) - (y < -0.4).astype(jnp.float32)
    return y @ p["b"] + p["d"]


def quaternary(p: Params, x: Any) -> Any:
    y = x @ p["a"] + p["c"]
    low, zero, high = ((y > z).astype(jnp.float32) for z in (-0.4, 0.0, 0.4))
    return (low + zero + high) @ p["b"] + p["d"]


def partly_with_a_bias(p: Params, x: Any) -> Any:
    y = hidden(p, x)
    return relu(jnp.concatenate([y[:, :1] + p["d"], y[:, 1:]], -1))


LAYERS = {"a": (4, 6), "c": (6,), "b": (6, 3), "d": (3,)}
CONSTANT = {"a": [s_[:, 1]]}
LEVELS, EMITTED = {"a": [s_[:, [1, 3, 4]]]}, {"c": {1: 0.5, 3: -0.5, 4: 0.3}}
UNREAD = {"b": [s_[1]]}
FIXED = {"c": {1: 0.5}}
COUPLED = (("a", 1), ("c", 0), ("b", 0))
GONE = unit(*COUPLED, of=(1,))
X, STEPS = floats((2, 4)), floats((2, 3, 4))
NO_BIAS = {name: LAYERS[name] for name in "acb"}
NETWORKS = {
    "a shift that is negated": Network(negated, LAYERS, X, CONSTANT, GONE, fixed=FIXED),
    "a shift that is selected": Network(
        selected, LAYERS, X, CONSTANT, GONE, fixed=FIXED
    ),
    "equal shifts of which an input selects": Network(
        selected_by_an_input, LAYERS, X, CONSTANT, GONE, fixed=FIXED
    ),
    "rectifiers that select": Network(
        leaky, LAYERS, X, CONSTANT, GONE, fixed={"c": {1: -0.5}}
    ),
    "a shift that is sorted": Network(
        sorted_sums, NO_BIAS, X, CONSTANT, {}, named="'sort'", fixed=FIXED
    ),
    "a shift in a depthwise convolution": Network(
        convolved, LAYERS | {"each": (2, 1, 3)}, STEPS, CONSTANT, GONE, fixed=FIXED
    ),
    "a shift that is pooled": Network(
        pooled, LAYERS, STEPS, CONSTANT, GONE, fixed=FIXED
    ),
    "a shift below a maximum": Network(
        highest,
        NO_BIAS,
        STEPS,
        CONSTANT,
        {},
        named="before 'reduce_window_max'",
        fixed=FIXED,
    ),
    "sums in time": Network(summed_in_time, NO_BIAS, STEPS, UNREAD, GONE),
    "rows chosen by an input": Network(
        looked_up, NO_BIAS, {"x": X, "i": jnp.array([1, 0, 1])}, UNREAD, GONE
    ),
    "a table of two indices": Network(
        looked_up_twice,
        {"table": (2, 3, 5), "c": (5,), "b": (5, 2)},
        jnp.array([[0, 2], [1, 0]]),
        {"table": [s_[:, :, 4]], "b": [s_[1]]},
        unit(("table", 2), ("c", 0), ("b", 0), of=(1, 4)),
        fixed={"c": {4: -0.5}},
    ),
    "a primitive of the user's own": Network(
        uncomputed, NO_BIAS, X, UNREAD, {}, named="'own', which is not followed"
    ),
    "an output as long as a layer": Network(
        told_its_width,
        {"a": (4, 6), "b": (6, 3)},
        X,
        UNREAD,
        {},
        named="outputs would have other shapes",
    ),
    "a width in an array": Network(
        adds_its_width, NO_BIAS, X, UNREAD, {}, named="outputs would change by"
    ),
    "a function that fails for a width": Network(
        refuses_a_width, NO_BIAS, X, UNREAD, {}, named="smaller network does not run"
    ),
    "layers of which only one may get smaller": Network(
        two_layers,
        {"a": (4, 6), "c": (6,), "b": (6, 3), "e": (3, 2)},
        X,
        {"b": [s_[1]], "e": [s_[2]]},
        {},
        named="outputs would change by",
    ),
    # Units 1, 3 and 4 emit 1, -1 and 0.
    "comparisons that are subtracted": Network(
        ternary, LAYERS, X, LEVELS, unit(*COUPLED, of=(1, 3, 4)), fixed=EMITTED
    ),
    # They emit 3, 0 and 2.
    "comparisons that are added": Network(
        quaternary, LAYERS, X, LEVELS, unit(*COUPLED, of=(1, 3, 4)), fixed=EMITTED
    ),
    # Unit 1 is only added to a sum with a bias, unit 3 only to one without.
    "units that need not stay together": Network(
        partly_with_a_bias,
        LAYERS | {"d": (1,)},
        X,
        {"a": [s_[:, [1, 3]]], "b": [s_[1, 1:], s_[3, 0]]},
        GONE,
        named="before 'max'",
        fixed={"c": {1: 0.5, 3: 0.5}},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_goes_and_what_stays(name: str) -> None:
    reductions.check(NETWORKS[name])


def test_a_unit_that_stays_counts_when_widths_are_rounded() -> None:
    """Unit 3 has to stay, so that without unit 1 an odd number would be left."""
    network = Network(
        lambda p, x: relu(hidden(p, x)),
        NO_BIAS,
        X,
        {"a": [s_[:, 3]], "b": [s_[1]]},
        GONE,
        fixed={"c": {3: 0.5}},
    )
    params, active = reductions.make(network)
    with jax.numpy_rank_promotion("allow"):
        for multiple, width in ((1, 5), (2, 6)):
            small = compaction.compact(
                network.apply, params, active, network.x, round_to=multiple
            )
            assert small.params["a"].shape == (4, width)


@pytest.mark.parametrize("stay", [(3,), (0, 3)])
def test_the_last_unit_goes_if_another_has_to_stay(stay: tuple[int, ...]) -> None:
    """Nothing reaches both layers, and what some units of the first emit is not 0."""
    emitted = dict.fromkeys(range(6), -0.5) | dict.fromkeys(stay, 0.5)
    network = Network(
        lambda p, x: relu(x @ p["e"]) @ p["f"] + relu(hidden(p, x)),
        NO_BIAS | {"e": (4, 5), "f": (5, 3)},
        X,
        {"a": [s_[:]], "e": [s_[:]]},
        {
            **unit(*COUPLED, of=tuple(i for i in range(6) if i not in stay)),
            **unit(("e", 1), ("f", 0), of=(1, 2, 3, 4)),
        },
        named="a",
        fixed={"c": emitted},
    )
    kept = reductions.check(network).report.kept
    cause = "a constant that no bias takes up before an output"
    expected = {(leaf, i, unit): cause for leaf, i in COUPLED for unit in stay}
    last = ("e", 1, 0), ("f", 0, 0)
    assert kept == expected | dict.fromkeys(last, "a layer keeps one unit")


def test_networks_of_integers_get_smaller() -> None:
    """Unit 1 emits 0, and unit 4 is unread."""
    rng = np.random.default_rng(4)
    params = {
        name: jnp.asarray(rng.integers(1, 5, shape))
        for name, shape in (("a", (4, 6)), ("b", (6, 3)))
    }
    active = {
        "a": jnp.ones((4, 6), bool).at[:, 1].set(False),
        "b": jnp.ones((6, 3), bool).at[4].set(False),
    }
    x = jnp.asarray(rng.integers(-4, 5, (2, 4)))
    small = compaction.compact(
        lambda p, x: relu(x @ p["a"]) @ p["b"], params, active, x
    )
    assert small.report.removed == unit(("a", 1), ("b", 0), of=(1, 4))
    left = np.array([0, 2, 3, 5])
    np.testing.assert_array_equal(small.params["a"], params["a"][:, left])
    np.testing.assert_array_equal(small.params["b"], params["b"][left])
    assert small.report.difference == 0


def test_a_bias_of_integers_takes_up_nothing() -> None:
    network = NETWORKS["a shift that is negated"]
    params, active = reductions.make(network)
    params["d"] = jnp.arange(3)
    with jax.numpy_rank_promotion("allow"):
        small = compaction.compact(network.apply, params, active, network.x)
    assert small.report.removed == {}
    assert set(small.report.kept.values()) == {
        "a constant that no bias takes up before 'max'"
    }
