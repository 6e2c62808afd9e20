"""Coupled axes through operations that only move entries, one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsparse import coupling
from jaxsparse.coupling import layout_rules
from jaxsparse.coupling.program import trace
from jaxsparse.types import Params

X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
THREE = {"a": (4, 3), "b": (3, 2)}
# Which unit owns each index of an axis, such as that of "a1", the second axis of "a".
Owners = dict[str, list[int]]


def outer(u: Any, v: Any) -> Any:
    """Multiplies units pairwise: an axis of which both factors can get shorter."""
    return (u[:, :, None] * v[:, None, :]).reshape(len(u), -1)


def merged(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, x: operation(outer(x @ p["a"], x @ p["v"])) @ p["b"]


def simple(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, x: operation(x @ p["a"]) @ p["b"]


def pair(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, x: operation(x @ p["a"], x @ p["c"]) @ p["b"]


def sizes(inner: int, v: int = 2) -> dict[str, tuple[int, ...]]:
    return {"a": (4, 3), "v": (4, v), "b": (inner, 2)}


# Functions, shapes of their leaves, and their groups, worked out by hand.
CASES: dict[str, tuple[Callable[..., Any], dict, list[Owners]]] = {
    "broadcast": (
        simple(lambda y: lax.broadcast_in_dim(y, (2, 5, 3), (0, 2)).sum(1)),
        THREE,
        [{"a1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "broadcast of one unit": (
        simple(lambda y: y[:, 1:] * jnp.broadcast_to(y[:, :1], (2, 2))),
        {"a": (4, 3), "b": (2, 2)},
        [{"a1": [-1, 0, 1], "b0": [0, 1]}],
    ),
    "concatenate beside units": (
        pair(lambda y, z: lax.concatenate([y, z], 0).reshape(2, 2, 3).sum(0)),
        {"a": (4, 3), "c": (4, 3), "b": (3, 2)},
        [{"a1": [0, 1, 2], "c1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "concatenate of merged axes": (
        merged(lambda y: jnp.concatenate([y, -y], -1)),
        sizes(12),
        [{"a1": [0, 1, 2], "b0": [0, 0, 1, 1, 2, 2] * 2}],
    ),
    "dynamic slice": (
        lambda p, x: (
            lax.dynamic_slice(p["t"], (x[0, 0].astype(int), 0), (2, 3)) @ p["b"]
        ),
        {"t": (5, 3), "b": (3, 2)},
        [{"t1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "dynamic update": (
        pair(lambda y, z: lax.dynamic_update_slice(y, z[:1], (1, 0))),
        {"a": (4, 3), "c": (4, 3), "b": (3, 2)},
        [{"a1": [0, 1, 2], "c1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "dynamic update of some units": (
        pair(lambda y, z: lax.dynamic_update_slice(y, z, (0, 1))),
        {"a": (4, 3), "c": (4, 2), "b": (3, 2)},
        [],
    ),
    "gather": (
        lambda p, x: p["t"][np.array([3, 0])] @ p["b"],
        {"t": (5, 3), "b": (3, 2)},
        [{"t1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "gather of units": (simple(lambda y: y[:, np.array([2, 0, 1])]), THREE, []),
    "gather with a batch": (
        simple(lambda y: jnp.take_along_axis(y, np.zeros((2, 3), int), 1)),
        THREE,
        [],
    ),
    "pad": (
        simple(lambda y: jnp.pad(y, ((0, 0), (1, 2)))),
        {"a": (4, 3), "b": (6, 2)},
        [{"a1": [0, 1, 2], "b0": [-1, 0, 1, 2, -1, -1]}, {"b0": [0, -1, -1, -1, 1, 2]}],
    ),
    "pad between": (
        simple(lambda y: lax.pad(y, 0.0, ((0, 0, 0), (0, 0, 1)))),
        {"a": (4, 3), "b": (5, 2)},
        [],
    ),
    "pad by less than nothing": (
        simple(lambda y: lax.pad(y, 0.0, ((0, 0, 0), (-1, -1, 0)))),
        {"a": (4, 4), "b": (2, 2)},
        [{"a1": [0, -1, -1, 1]}, {"a1": [-1, 0, 1, -1], "b0": [0, 1]}],
    ),
    "pad of merged axes": (
        merged(lambda y: lax.pad(y, 0.0, ((0, 0, 0), (-2, 0, 0)))),
        sizes(4),
        [{"a1": [0, -1, -1]}, {"a1": [-1, 0, 1], "b0": [0, 0, 1, 1]}],
    ),
    "positions": (simple(lambda y: y + lax.iota(float, 3)[None]), THREE, []),
    "reshape": (
        simple(lambda y: jnp.tanh(y.reshape(2, 3, 2)).reshape(2, 6)),
        {"a": (4, 6), "b": (6, 2)},
        [{"a1": [0, 0, 1, 1, 2, 2], "b0": [0, 0, 1, 1, 2, 2]}],
    ),
    "reshape of single units": (
        simple(lambda y: jnp.tanh(y[:, :1].reshape(1, 2)).reshape(2, 1)),
        {"a": (4, 3), "b": (1, 2)},
        [{"a1": [-1, 0, 1]}],
    ),
    "reshape of nothing": (
        lambda p, x: x @ p["a"] @ p["e"].reshape(3, -1) @ jnp.zeros((0, 2)),
        {"a": (4, 3), "e": (0, 3)},
        [],
    ),
    "reshape that does not fit": (
        simple(lambda y: outer(y, y).reshape(3, 6)),
        {"a": (4, 3), "b": (6, 2)},
        [],
    ),
    "reshape with an order": (
        simple(lambda y: lax.reshape(y, (2, 3), (1, 0))),
        THREE,
        [],
    ),
    "reverse": (
        simple(lambda y: y[:, ::-1]),
        THREE,
        [{"a1": [0, 1, 2], "b0": [2, 1, 0]}],
    ),
    "reverse of merged axes": (
        merged(lambda y: y[:, ::-1]),
        sizes(6),
        [{"a1": [0, 1, 2], "b0": [2, 2, 1, 1, 0, 0]}],
    ),
    "slice with strides": (
        simple(lambda y: y[:, ::2]),
        {"a": (4, 3), "b": (2, 2)},
        [{"a1": [0, -1, 1], "b0": [0, 1]}, {"a1": [-1, 0, -1]}],
    ),
    "slice of whole factors": (
        merged(lambda y: y[:, 2:]),
        sizes(4),
        [{"a1": [0, -1, -1]}, {"a1": [-1, 0, 1], "b0": [0, 0, 1, 1]}],
    ),
    "slice of one factor": (
        merged(lambda y: y[:, 2:4]),
        sizes(2),
        [{"a1": [0, -1, 1]}, {"v1": [0, 1], "b0": [0, 1]}],
    ),
    "slice of merged axes": (
        merged(lambda y: y[:, 1:5]),
        sizes(4),
        [
            {"a1": [0, -1, 1], "b0": [0, -1, -1, 1]},
            {"a1": [-1, 0, -1], "b0": [-1, 0, 0, -1]},
        ],
    ),
    "split into equal parts": (
        simple(lambda y: jnp.multiply(*jnp.split(y, 2, -1))),
        {"a": (4, 6), "b": (3, 2)},
        [{"a1": [0, 1, 2, 0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "split into others": (
        lambda p, x: (lambda y, z: y @ p["b"] + z @ p["c"])(
            *jnp.split(x @ p["a"], (2,), -1)
        ),
        {"a": (4, 5), "b": (2, 2), "c": (3, 2)},
        [
            {"a1": [0, 1, -1, -1, -1], "b0": [0, 1]},
            {"a1": [-1, -1, 0, 1, 2], "c0": [0, 1, 2]},
        ],
    ),
    "squeeze": (
        simple(lambda y: y * y[:, 1][:, None]),
        THREE,
        [{"a1": [0, -1, 1], "b0": [0, -1, 1]}],
    ),
    "stack": (
        pair(lambda y, z: jnp.stack([y, z], 1).sum(1)),
        {"a": (4, 3), "c": (4, 3), "b": (3, 2)},
        [{"a1": [0, 1, 2], "c1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "steps of a loop": (
        lambda p, x: (
            lax.scan(lambda h, _: (jnp.sin(h),) * 2, x @ p["a"], None, 2)[1]
            .transpose(1, 0, 2)
            .reshape(2, 6)
            @ p["b"]
        ),
        {"a": (4, 3), "b": (6, 2)},
        [{"a1": [0, 1, 2], "b0": [0, 1, 2, 0, 1, 2]}],
    ),
    "stack and merge": (
        pair(lambda y, z: jnp.stack([y, z], 1).reshape(2, 6)),
        {"a": (4, 3), "c": (4, 3), "b": (6, 2)},
        [{"a1": [0, 1, 2], "c1": [0, 1, 2], "b0": [0, 1, 2, 0, 1, 2]}],
    ),
    "tile": (
        simple(lambda y: jnp.tile(y, (1, 2))),
        {"a": (4, 3), "b": (6, 2)},
        [{"a1": [0, 1, 2], "b0": [0, 1, 2, 0, 1, 2]}],
    ),
    "repeat": (
        simple(lambda y: jnp.repeat(y, 2, 1)),
        {"a": (4, 3), "b": (6, 2)},
        [{"a1": [0, 1, 2], "b0": [0, 0, 1, 1, 2, 2]}],
    ),
    "transpose": (
        simple(lambda y: jnp.sin(y.T).T),
        THREE,
        [{"a1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "unstack": (
        simple(lambda y: jnp.multiply(*jnp.unstack(jnp.stack([y, y * y], 1), axis=1))),
        THREE,
        [{"a1": [0, 1, 2], "b0": [0, 1, 2]}],
    ),
    "unstack units": (
        simple(lambda y: jnp.stack(jnp.unstack(y, axis=1), 1)),
        THREE,
        [],
    ),
}


def shapes(name: str) -> Params:
    return {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in CASES[name][1].items()}


@pytest.mark.parametrize("name", CASES)
def test_groups_are_those_worked_out_by_hand(name: str) -> None:
    apply, _, wanted = CASES[name]
    found = coupling.coupled_axes(apply, shapes(name), X)
    groups = [
        {f"{leaf}{i}": owner.tolist() for (leaf, i), owner in group.axes.items()}
        for group in found.groups
    ]
    assert groups == wanted
    named = {leaf for group in found.groups for leaf in group.axes}
    assert named.isdisjoint(found.whole)


def reversed_units(params: Params, group: coupling.Group) -> Params:
    """Puts the units of a group in reverse order, in all their axes."""
    moved = dict(params)
    for (leaf, axis), owner in group.axes.items():
        places = np.arange(len(owner))
        for unit in range(group.num_units):
            other = group.num_units - 1 - unit
            places[owner == unit] = np.flatnonzero(owner == other)
        moved[leaf] = moved[leaf].take(places, axis)
    return moved


# The slice leaves other features to the first unit than to the last.
UNLIKE = ("slice of merged axes",)
ALIKE = [name for name, case in CASES.items() if case[2] and name not in UNLIKE]


@pytest.mark.parametrize("name", ALIKE)
def test_units_in_another_order_are_the_same_network(name: str) -> None:
    apply = jax.jit(CASES[name][0])
    rng = np.random.default_rng(1)
    params = {
        leaf: rng.normal(size=shape).astype(np.float32)
        for leaf, shape in CASES[name][1].items()
    }
    wanted = apply(params, X)
    for group in coupling.coupled_axes(apply, params, X).groups:
        moved = reversed_units(params, group)
        if group.num_units > 1:
            assert any((moved[leaf] != params[leaf]).any() for leaf in params)
        np.testing.assert_allclose(apply(moved, X), wanted, rtol=1e-4, atol=1e-5)


def test_every_rule_is_proved() -> None:
    proved = {
        eqn.name
        for name, case in CASES.items()
        for eqn in trace(case[0], shapes(name), X).equations
    }
    assert set(layout_rules.RULES) <= proved


@pytest.mark.parametrize(
    ("name", "where", "reason"),
    [
        ("broadcast of one unit", ("a", 0), "an axis of an input"),
        ("dynamic update of some units", ("c", 1), "indices ('dynamic_update_slice')"),
        ("gather", ("t", 0), "indices ('gather')"),
        ("gather of units", ("a", 1), "indices ('gather')"),
        ("gather with a batch", ("a", 1), "indices ('gather')"),
        ("dynamic slice", ("t", 0), "indices ('dynamic_slice')"),
        ("pad between", ("a", 1), "'pad' between indices"),
        ("pad of merged axes", ("v", 1), "'pad' of merged axes"),
        ("positions", ("a", 1), "positions ('iota')"),
        ("reshape with an order", ("a", 1), "a reshape whose axes do not fit together"),
        ("reshape of nothing", ("e", 0), "empty"),
        (
            "reshape that does not fit",
            ("b", 0),
            "a reshape whose axes do not fit together",
        ),
        ("reverse of merged axes", ("v", 1), "'rev' of merged axes"),
        ("slice of merged axes", ("v", 1), "'slice' of merged axes"),
        ("concatenate of merged axes", ("v", 1), "'concatenate' of merged axes"),
        ("unstack units", ("a", 1), "indexing"),
        ("unstack units", ("b", 0), "operands"),
    ],
)
def test_reasons_name_the_operation(name: str, where: tuple, reason: str) -> None:
    found = coupling.coupled_axes(CASES[name][0], shapes(name), X)
    assert found.whole[where] == reason
