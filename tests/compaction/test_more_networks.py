"""Networks of other kinds: what goes, what stays, and what is named as the reason."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from helpers import reductions
from helpers.reductions import Network, floats, relu, s_, unit
from jax import lax

from jaxsparse import compaction
from jaxsparse.types import Params


def grouped(p: Params, x: Any) -> Any:
    x = lax.conv_general_dilated(
        relu(x @ p["a"]),
        p["k"],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=p["a"].shape[1] // p["k"].shape[2],
    )
    return relu(x).mean((1, 2)) @ p["b"]


def truncated(p: Params, x: Any) -> Any:
    x = relu(x @ p["a"] + p["c"]).astype(jnp.int32).astype(jnp.float32)
    return x @ p["b"] + p["d"]


def transposed(p: Params, x: Any) -> Any:
    x = lax.conv_transpose(x, p["k"], (2, 2), "SAME") + p["c"]
    return relu(x).mean((1, 2)) @ p["b"]


def stacked(p: Params, x: Any) -> Any:
    def block(x: Any, layer: Params) -> tuple[Any, None]:
        y = jnp.tanh(x @ layer["in"] + layer["bias"])
        return x + y @ layer["out"] + layer["add"], None

    return lax.scan(block, x, p)[0]


def embedded(p: Params, tokens: Any) -> Any:
    return relu(p["table"][tokens] @ p["a"]).sum(1)


def recurrent(p: Params, x: Any) -> Any:
    def cell(h: Any, x: Any) -> tuple[Any, Any]:
        h = jnp.tanh(x @ p["x"] + h @ p["h"] + p["bias"])
        return h, h @ p["out"]

    start = jnp.zeros((x.shape[0], p["h"].shape[0]))
    return lax.scan(cell, start, jnp.moveaxis(x, 1, 0))[1]


def lstm(p: Params, x: Any) -> Any:
    def cell(carry: Any, x: Any) -> tuple[Any, Any]:
        c, h = carry
        i, f, g, o = jnp.split(x @ p["x"] + h @ p["h"] + p["bias"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    start = (jnp.zeros((x.shape[0], p["h"].shape[0])),) * 2
    return lax.scan(cell, start, jnp.moveaxis(x, 1, 0))[1][-1] @ p["out"]


def gated(p: Params, x: Any) -> Any:
    a, b = jnp.split(x @ p["both"], 2, -1)
    return (a * jax.nn.sigmoid(b + p["gate"])) @ p["out"]


def outputs(p: Params, x: Any) -> Any:
    y = relu(x @ p["a"] + p["c"])
    return {"first": y @ p["b"], "second": (y @ p["d"]).argmax(-1)}


def tied(p: Params, x: Any) -> Any:
    return jnp.tanh(x @ p["a"] + p["c"]) @ p["a"].T


def layer_norm(p: Params, x: Any) -> Any:
    y = relu(x @ p["a"])
    y = y - y.mean(-1, keepdims=True)
    return y @ p["b"]


def mean_of_units(p: Params, x: Any) -> Any:
    y = relu(x @ p["a"])
    return y @ p["b"] + y.mean(-1, keepdims=True)


def softmax(p: Params, x: Any) -> Any:
    return jax.nn.softmax(x @ p["a"]) @ p["b"]


def sorted_units(p: Params, x: Any) -> Any:
    return jnp.sort(relu(x @ p["a"]), -1) @ p["b"]


def standardized(p: Params, x: Any) -> Any:
    kernel = p["b"] / jnp.sqrt((p["b"] ** 2).sum(0, keepdims=True) + 1e-3)
    return relu(x @ p["a"]) @ kernel


def no_bias(p: Params, x: Any) -> Any:
    return relu(relu(x @ p["a"] + p["c"]) @ p["b"]) @ p["d"]


def applied_twice(p: Params, x: Any) -> Any:
    def layers(x: Any) -> Any:
        return relu(relu(x @ p["a"] + p["c"]) @ p["b"] + p["d"])

    return (layers(x) - layers(2 * x)) @ p["e"]


def fed_cell(p: Params, x: Any) -> Any:
    h = jnp.zeros((x.shape[0], p["h"].shape[0]))
    for step in range(3):
        h = jnp.tanh(relu(x[:, step] @ p["a"] + p["c"]) @ p["b"] + h @ p["h"] + p["d"])
    return h @ p["e"]


def applied_otherwise(p: Params, x: Any) -> Any:
    y = relu(x @ p["a"] + p["c"])
    return relu(y @ p["b"] + p["d"]) - relu(2 * y @ p["b"] + p["d"])


def fixed_widths(p: Params, x: Any) -> Any:
    return relu(x @ p["a"].reshape(4, 6)) @ p["b"]


def repeated(p: Params, x: Any) -> Any:
    y = relu(x @ p["a"])
    y = lax.while_loop(lambda y: y.sum() < 9.0, lambda y: 1.5 * y + 0.1, y)
    return y @ p["b"]


def branched(p: Params, x: Any) -> Any:
    y = relu(x @ p["a"])
    return lax.cond(x.sum() > 0, jnp.sin, jnp.cos, y) @ p["b"]


def low_rank(p: Params, x: Any) -> Any:
    return x @ (p["a"] @ p["b"])


def unread(p: Params, x: Any) -> Any:
    return relu(x @ p["a"]) @ p["b"]


TWO = {"a": (4, 6), "b": (6, 3)}
BOTH = (("a", 1), ("b", 0))
NETWORKS = {
    "grouped convolution": Network(
        grouped,
        {"a": (2, 8), "k": (2, 2, 4, 6), "b": (6, 3)},
        floats((2, 4, 4, 2)),
        {"b": [s_[0:3], s_[4]]},
        {"a": {1: (0, 1, 2, 3)}, "k": {3: (0, 1, 2)}, "b": {0: (0, 1, 2)}},
    ),
    "transposed convolution": Network(
        transposed,
        {"k": (3, 3, 2, 5), "c": (5,), "b": (5, 3)},
        floats((2, 4, 4, 2)),
        {"k": [s_[..., 3]], "b": [s_[1]]},
        unit(("k", 3), ("c", 0), ("b", 0), of=(1,)),
        named="before an output",
    ),
    "stacked blocks": Network(
        stacked,
        {"in": (3, 4, 5), "bias": (3, 5), "out": (3, 5, 4), "add": (3, 4)},
        floats((2, 4)),
        # Unit 0 is unread, 1 has no inputs, 2 is dead in one of three layers only.
        {"out": [s_[:, 0], s_[1, 2]], "in": [s_[:, :, 1]]},
        unit(("in", 2), ("bias", 1), ("out", 1), of=(0, 1)),
    ),
    "embedding": Network(
        embedded,
        {"table": (7, 5), "a": (5, 3)},
        jnp.array([[0, 6, 2], [3, 3, 1]]),
        {"table": [s_[:, 1]], "a": [s_[4]]},
        unit(("table", 1), ("a", 0), of=(1, 4)),
    ),
    "recurrent cell": Network(
        recurrent,
        {"x": (3, 5), "h": (5, 5), "bias": (5,), "out": (5, 2)},
        floats((2, 4, 3)),
        # Unit 0 is unread. Unit 1 has no inputs, but it is 0 before the first step.
        {"h": [s_[0], s_[:, 1]], "out": [s_[0]], "x": [s_[:, 1]]},
        unit(("x", 1), ("h", 0), ("h", 1), ("bias", 0), ("out", 0), of=(0,)),
        named="before an output",
    ),
    "LSTM": Network(
        lstm,
        {"x": (3, 16), "h": (4, 16), "bias": (16,), "out": (4, 2)},
        floats((2, 3, 3)),
        {"h": [s_[2]], "out": [s_[2]]},
        {
            **unit(("x", 1), ("bias", 0), of=(2, 6, 10, 14)),
            "h": {0: (2,), 1: (2, 6, 10, 14)},
            "out": {0: (2,)},
        },
    ),
    "gates": Network(
        gated,
        {"both": (4, 10), "gate": (5,), "out": (5, 3)},
        floats((2, 4)),
        # Unit 0 is multiplied by 0, the gate of unit 1 is constant.
        {"both": [s_[:, 0], s_[:, 6]]},
        {"both": {1: (0, 5)}, "gate": {0: (0,)}, "out": {0: (0,)}},
    ),
    "several outputs": Network(
        outputs,
        {"a": (4, 6), "c": (6,), "b": (6, 3), "d": (6, 3)},
        floats((2, 4)),
        {"b": [s_[[0, 1]]], "d": [s_[[1, 2]]]},
        unit(("a", 1), ("c", 0), ("b", 0), ("d", 0), of=(1,)),
    ),
    "tied weights": Network(
        tied,
        {"a": (4, 5), "c": (5,)},
        floats((2, 4)),
        {"a": [s_[:, 2]]},
        unit(("a", 1), ("c", 0), of=(2,)),
    ),
    "a cast to integers": Network(
        # The unit emits 1, not 1.7.
        truncated,
        {"a": (4, 6), "c": (6,), "b": (6, 2), "d": (2,)},
        floats((2, 4)),
        {"a": [s_[:, 1]]},
        unit(("a", 1), ("c", 0), ("b", 0), of=(1,)),
        fixed={"c": {1: 1.7}},
    ),
    "normalized units": Network(
        layer_norm,
        TWO,
        floats((2, 4)),
        {"a": [s_[:, 1]], "b": [s_[2]]},
        {},
        named="'reduce_sum' over units",
    ),
    "mean of units": Network(
        mean_of_units, TWO, floats((2, 4)), {"a": [s_[:, 1]]}, {}, named="'div' by 6"
    ),
    "softmax over units": Network(
        softmax,
        TWO,
        floats((2, 4)),
        {"a": [s_[:, 1]], "b": [s_[3]]},
        {},
        named="'reduce_max' and 'reduce_sum' over units",
    ),
    "sorted units": Network(
        sorted_units, TWO, floats((2, 4)), {"a": [s_[:, 1]]}, {}, named="'sort'"
    ),
    "standardized kernel": Network(
        # The norm of a column does not see a row of zeros.
        standardized,
        TWO,
        floats((2, 4)),
        {"a": [s_[:, 1]], "b": [s_[2]]},
        unit(*BOTH, of=(2,)),
        named="before 'dot_general'",
    ),
    "no bias to fold into": Network(
        no_bias,
        {"a": (4, 6), "c": (6,), "b": (6, 5), "d": (5, 2)},
        floats((2, 4)),
        {"a": [s_[:, [1, 3]]]},
        unit(("a", 1), ("c", 0), ("b", 0), of=(3,)),
        named="before 'max'",
        fixed={"c": {1: 0.5, 3: -0.5}},
    ),
    "a layer applied twice": Network(
        applied_twice,
        {"a": (4, 6), "c": (6,), "b": (6, 5), "d": (5,), "e": (5, 2)},
        floats((2, 4)),
        {"a": [s_[:, [1, 3]]]},
        unit(("a", 1), ("c", 0), ("b", 0), of=(1, 3)),
        fixed={"c": {1: 0.5, 3: -0.5}},
    ),
    "a layer before every step of a cell": Network(
        fed_cell,
        {"a": (3, 6), "c": (6,), "b": (6, 5), "h": (5, 5), "d": (5,), "e": (5, 2)},
        floats((2, 3, 3)),
        {"a": [s_[:, 1]]},
        unit(("a", 1), ("c", 0), ("b", 0), of=(1,)),
        fixed={"c": {1: 0.5}},
    ),
    "a bias that would have to take up two constants": Network(
        applied_otherwise,
        {"a": (4, 6), "c": (6,), "b": (6, 5), "d": (5,)},
        floats((2, 4)),
        {"a": [s_[:, 1]]},
        {},
        named="before 'max'",
        fixed={"c": {1: 0.5}},
    ),
    "widths in the code": Network(
        fixed_widths, TWO, floats((2, 4)), {"b": [s_[1]]}, {}, named="smaller leaves"
    ),
    "a loop of unknown length": Network(
        repeated, TWO, floats((2, 4)), {"b": [s_[1]]}, {}, named="'while', which is"
    ),
    "a branch chosen by an input": Network(
        branched, TWO, floats((2, 4)), {"b": [s_[1]]}, {}, named="'cond', which is"
    ),
    "low rank": Network(
        low_rank,
        TWO,
        floats((2, 4)),
        {"a": [s_[:, 1]], "b": [s_[2]]},
        unit(*BOTH, of=(1, 2)),
        named="before 'dot_general'",  # no input reaches the other units either
    ),
    "a leaf that nothing reads": Network(
        unread,
        TWO | {"other": (4, 4)},
        floats((2, 4)),
        {"b": [s_[1]]},
        unit(*BOTH, of=(1,)),
        named="no operation reads the leaf",
    ),
    "a layer without weights": Network(
        unread,
        TWO,
        floats((2, 4)),
        {"a": [s_[:]]},
        unit(*BOTH, of=(1, 2, 3, 4, 5)),
        named="a layer keeps one unit",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_goes_and_what_stays(name: str) -> None:
    reductions.check(NETWORKS[name])


def valid(p: Params, x: Any) -> Any:
    order = ("NHWC", "HWIO", "NHWC")
    x = relu(
        lax.conv_general_dilated(x, p["k"], (1, 1), "VALID", dimension_numbers=order)
        + p["c"].reshape(1, 1, 1, -1)
    )
    x = lax.conv_general_dilated(x, p["l"], (1, 1), "VALID", dimension_numbers=order)
    return relu(x + p["d"].reshape(1, 1, 1, -1)).mean((1, 2)) @ p["e"]


def test_constants_are_folded_as_exactly_in_float64() -> None:
    network = Network(
        valid,
        {"k": (2, 2, 2, 4), "c": (4,), "l": (2, 2, 4, 3), "d": (3,), "e": (3, 2)},
        floats((2, 4, 4, 2)),
        {"k": [s_[..., 1]]},
        unit(("k", 3), ("c", 0), ("l", 2), of=(1,)),
        fixed={"c": {1: 0.3}},
    )
    with jax.enable_x64(True):
        params, active = reductions.make(network)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        x = jnp.asarray(network.x, jnp.float64)
        small = compaction.compact(valid, params, active, x)
        assert small.params["l"].shape == (2, 2, 3, 3)
        assert small.params["l"].dtype == jnp.float64
        assert small.report.difference < 1e-14


@pytest.mark.parametrize(
    ("name", "units"), [("normalized units", (1, 2)), ("softmax over units", (1, 3))]
)
def test_units_of_a_statistic_are_listed(name: str, units: tuple[int, ...]) -> None:
    """A unit without inputs, and one that the next layer does not read."""
    network = NETWORKS[name]
    params, active = reductions.make(network)
    small = compaction.compact(network.apply, params, active, network.x)
    expected = {(leaf, axis, unit) for leaf, axis in BOTH for unit in units}
    assert small.report.kept.keys() == expected


def test_units_that_only_a_normalized_layer_reads_are_listed() -> None:
    """Unit 2 of the first layer is read by unit 1 of the second, which is unread."""

    def apply(p: Params, x: Any) -> Any:
        return layer_norm({"a": p["b"], "b": p["c"]}, relu(x @ p["a"]))

    network = Network(
        apply,
        {"a": (4, 3), "b": (3, 5), "c": (5, 2)},
        floats((2, 4)),
        {"b": [s_[2, [0, 2, 3, 4]]], "c": [s_[1]]},
        {},
        named="'reduce_sum' over units",
    )
    kept = reductions.check(network).report.kept
    assert kept.keys() == {("a", 1, 2), ("b", 0, 2), ("b", 1, 1), ("c", 0, 1)}


def test_a_sum_that_is_an_output_is_no_statistic() -> None:
    """It reads all units, as a layer would; no unit stays in spite of its weights."""
    network = Network(
        lambda p, x: relu(x @ p["a"]).sum(-1),
        {"a": (4, 6)},
        floats((2, 4)),
        {"a": [s_[:, 1]]},
        {"a": {1: (1,)}},
    )
    reductions.check(network)
