"""Coupled axes: units of a network, and what stays whole."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsparse import coupling, flops
from jaxsparse.types import Params

X = jnp.ones((2, 4))


def shapes(**leaves: tuple[int, ...]) -> Params:
    return {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in leaves.items()}


def units(apply: Callable, params: Params, *inputs: Any) -> list[tuple[int, list]]:
    found = coupling.coupled_axes(apply, params, *inputs)
    return [(group.num_units, sorted(group.axes)) for group in found.groups]


def test_residual_sums_couple_all_writers_and_readers() -> None:
    def apply(p: Params, x: Any) -> Any:
        x = x @ p["stem"]
        return (x + jnp.tanh(x @ p["in"]) @ p["out"]) @ p["head"]

    params = shapes(stem=(4, 6), **{"in": (6, 5), "out": (5, 6)}, head=(6, 3))
    assert units(apply, params, X) == [
        (6, [("head", 0), ("in", 0), ("out", 1), ("stem", 1)]),
        (5, [("in", 1), ("out", 0)]),
    ]


def test_concatenated_layers_are_groups_of_their_own() -> None:
    def apply(p: Params, x: Any) -> Any:
        return jnp.concatenate([x @ p["a"], x, jnp.sin(x @ p["b"])], -1) @ p["c"]

    params = shapes(a=(4, 2), b=(4, 3), c=(9, 2))
    found = coupling.coupled_axes(apply, params, X)
    first, second = found.groups
    np.testing.assert_array_equal(first.axes["c", 0], [0, 1] + [-1] * 7)
    np.testing.assert_array_equal(second.axes["c", 0], [-1] * 6 + [0, 1, 2])
    assert first.axes["a", 1].tolist() == [0, 1]


def test_a_flattened_channel_owns_all_its_pixels() -> None:
    def apply(p: Params, x: Any) -> Any:
        x = x[..., None] * p["a"][None, None]  # [b, 4, 3]
        return x.reshape(x.shape[0], -1) @ p["b"]

    found = coupling.coupled_axes(apply, shapes(a=(3,), b=(12, 2)), X)
    np.testing.assert_array_equal(found.groups[0].axes["b", 0], [0, 1, 2] * 4)


def test_heads_are_units_and_so_are_their_features() -> None:
    def apply(p: Params, x: Any) -> Any:
        x = (x @ p["a"]).reshape(2, 3, 2)  # three heads of two features
        return jnp.tanh(x).reshape(2, 6) @ p["b"]

    (group,) = coupling.coupled_axes(apply, shapes(a=(4, 6), b=(6, 2)), X).groups
    assert group.num_units == 3
    assert (
        group.axes["a", 1].tolist() == group.axes["b", 0].tolist() == [0, 0, 1, 1, 2, 2]
    )


def test_grouped_convolutions_keep_their_groups() -> None:
    def apply(p: Params, x: Any) -> Any:
        order = ("NHC", "HIO", "NHC")
        x = lax.conv_general_dilated(
            x[:, None] @ p["a"][None],
            p["k"],
            (1,),
            "SAME",
            dimension_numbers=order,
            feature_group_count=2,
        )
        return x.sum(1) @ p["b"]

    params = shapes(a=(4, 6), k=(3, 3, 4), b=(4, 2))
    (group,) = coupling.coupled_axes(apply, params, X).groups
    assert group.num_units == 2
    assert group.axes["a", 1].tolist() == [0, 0, 0, 1, 1, 1]
    assert group.axes["k", 2].tolist() == group.axes["b", 0].tolist() == [0, 0, 1, 1]


def test_loops_share_the_axes_of_their_iterations() -> None:
    def apply(p: Params, x: Any) -> Any:
        def block(x: Any, layer: Params) -> tuple[Any, None]:
            return x + jnp.tanh(x @ layer["in"]) @ layer["out"], None

        return lax.scan(block, x, p)[0]

    params = shapes(**{"in": (3, 4, 5), "out": (3, 5, 4)})
    found = coupling.coupled_axes(apply, params, X)
    assert [sorted(g.axes) for g in found.groups] == [[("in", 2), ("out", 1)]]
    assert found.whole["in", 0] == "indexing"


WHILE = "'while', which is not followed"


def batches_in_groups(x: Any) -> Any:
    kernel = jnp.ones((6, 3, 1))  # three kernels for each half of the batch
    order = ("NCH", "OIH", "NCH")
    x = lax.conv_general_dilated(
        x[..., None],
        kernel,
        (1,),
        "VALID",
        dimension_numbers=order,
        batch_group_count=2,
    )
    return x.reshape(2, 3)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda x: jnp.sort(x, -1), "order along an axis ('sort')"),
        (lambda x: jnp.cumsum(x, -1), "order along an axis ('cumsum')"),
        (lambda x: x + jnp.arange(3.0)[None], "positions ('iota')"),
        (lambda x: x * np.ones((2, 3), np.float32), "an array in the program"),
        (lambda x: lax.top_k(x, 3)[0], "order along an axis ('top_k')"),
        (lambda x: jnp.fft.fft(x).real, "'fft', which is not followed"),
        (lambda x: x.at[:, 0].set(0.0), "'scatter', which is not followed"),
        (lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), WHILE),
        (batches_in_groups, "'conv_general_dilated', which is not followed"),
    ],
)
def test_what_cannot_be_followed_is_named(operation: Callable, reason: str) -> None:
    def apply(p: Params, x: Any) -> Any:
        return operation(x @ p["a"]) @ p["b"]

    found = coupling.coupled_axes(apply, shapes(a=(4, 3), b=(3, 2)), X)
    assert not found.groups
    assert found.whole["a", 1].startswith(reason)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: lax.cond(True, jnp.sin, lambda x: x[:, ::-1], x),
        lambda x: lax.scan(lambda x, _: (jnp.sin(x), x), x, None, length=0)[0],
        lambda x: x + lax.scan(lambda x, _: (x, x), x, None, length=0)[1].sum(0),
        lambda x: lax.optimization_barrier((x, x + 1))[1],
        lambda x: jax.device_put(x),
    ],
)
def test_what_does_not_mix_units_passes_them_on(operation: Callable) -> None:
    def apply(p: Params, x: Any) -> Any:
        return operation(x @ p["a"]) @ p["b"]

    (group,) = coupling.coupled_axes(apply, shapes(a=(4, 3), b=(3, 2)), X).groups
    assert group.axes["a", 1].tolist() == group.axes["b", 0].tolist() == [0, 1, 2]


def test_entries_sorted_along_another_axis_keep_their_units() -> None:
    def apply(p: Params, x: Any) -> Any:
        x = jnp.tanh(x[..., None] * p["a"][None, None])  # [2, 4, 3]
        return lax.top_k(x, 2, axis=1)[0].sum(1) @ p["b"]

    (group,) = coupling.coupled_axes(apply, shapes(a=(3,), b=(3, 2)), X).groups
    assert group.axes["a", 0].tolist() == group.axes["b", 0].tolist() == [0, 1, 2]


def test_factors_that_do_not_fit_stay_whole() -> None:
    """An axis of 2 by 3 units is added to one of 3 by 2."""

    def apply(p: Params, x: Any) -> Any:
        two, three = x @ p["two"], x @ p["three"]
        first = (two[:, :, None] * three[:, None]).reshape(2, 6)
        second = (three[:, :, None] * two[:, None]).reshape(2, 6)
        return (first + second) @ p["b"]

    found = coupling.coupled_axes(apply, shapes(two=(4, 2), three=(4, 3), b=(6, 2)), X)
    assert not found.groups
    assert found.whole["two", 1] == "factors of 'add' that do not fit together"


def test_permuting_units_changes_nothing() -> None:
    """The units of a group can be permuted in all their axes."""

    def apply(p: Params, x: Any) -> Any:
        y = (x @ p["a"] + p["c"][None]).reshape(2, 3, 2)
        y = jax.nn.softmax(y, -1).reshape(2, 6)
        return jnp.concatenate([y, -y], -1) @ p["b"]

    rng = np.random.default_rng(0)
    sizes = {"a": (4, 6), "c": (6,), "b": (12, 2)}
    params = {n: rng.normal(size=s).astype(np.float32) for n, s in sizes.items()}
    (group,) = coupling.coupled_axes(apply, params, X).groups
    order = np.array([2, 0, 1])
    moved = dict(params)
    for (leaf, axis), owner in group.axes.items():
        # The k-th index of each unit moves to the k-th index of another.
        places = np.empty(len(owner), int)
        for unit in range(group.num_units):
            places[owner == unit] = np.flatnonzero(owner == order[unit])
        moved[leaf] = moved[leaf].take(places, axis)
    assert not np.array_equal(moved["a"], params["a"])
    np.testing.assert_allclose(apply(moved, X), apply(params, X), rtol=1e-5)


def test_multiply_adds_of_loops_and_convolutions() -> None:
    def apply(p: Params, x: Any) -> Any:
        x = lax.fori_loop(0, 5, lambda _, x: x @ p["a"], x)
        order = ("NHC", "HIO", "NHC")
        return lax.conv_general_dilated(
            x[..., None], p["k"], (1,), "SAME", dimension_numbers=order
        )

    params = shapes(a=(4, 4), k=(3, 1, 7))
    found = flops.macs(apply, params, X)
    assert found == ({"a": 5 * 2 * 16, "k": 2 * 4 * 3 * 7}, 0)
    assert found.total == 5 * 2 * 16 + 2 * 4 * 3 * 7
