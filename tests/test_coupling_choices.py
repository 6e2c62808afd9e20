"""Coupled axes where only one of several parts of an axis can have units."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsparse import coupling
from jaxsparse.types import Params

X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


def three(x: Any, kernel: Any) -> Any:
    """Splits outputs into three parts of two heads of two features."""
    return (x @ kernel).reshape(len(x), 3, 2, 2)


def joint(p: Params, x: Any) -> Any:
    y = three(x, p["a"])
    return (y[:, 0] * jnp.tanh(y[:, 1]) + y[:, 2]).reshape(len(x), 4) @ p["b"]


def added(p: Params, x: Any) -> Any:
    """Both kernels need the same heads: neither has some if the other has none."""
    y, z = three(x, p["a"]), three(x, p["c"])
    return (y[:, 0] * z[:, 1] + y[:, 1] + z[:, 2]).reshape(len(x), 4) @ p["b"]


def crossed(p: Params, x: Any) -> Any:
    """Queries have a kernel of their own, keys and values a joint one."""
    query = (x @ p["q"]).reshape(len(x), 2, 3)
    both = (x @ p["kv"]).reshape(len(x), 2, 2, 3)
    scores = jnp.tanh(jnp.einsum("nhk,nhk->nh", query, both[:, 0]))
    return (scores[:, :, None] * both[:, 1]).reshape(len(x), 6) @ p["b"]


def stacked(p: Params, x: Any) -> Any:
    return lax.scan(lambda x, layer: (joint(layer, x), None), x, p)[0]


def decoder(p: Params, x: Any) -> Any:
    """Two rows and two columns of three channels."""
    y = jnp.tanh(x @ p["a"]).reshape(len(x), 2, 2, 3)
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(y, p["k"], (1, 1), "SAME", dimension_numbers=order)


def turned(p: Params, x: Any) -> Any:
    """The products of all pairs of units; the first units are an output too."""
    u, v = x @ p["u"], x @ p["v"]
    y = (u[:, :, None] * v[:, None, :]).reshape(len(x), 6)
    return y[:, ::-1] @ p["b"], u


# Functions, shapes of their leaves, and the unit that owns each index of an axis, such
# as that of "a1", the second axis of "a". Worked out by hand.
HEADS = [0, 0, 1, 1]
CASES: dict[str, tuple[Callable[..., Any], dict, dict[str, list[int]]]] = {
    "joint": (joint, {"a": (4, 12), "b": (4, 2)}, {"a1": HEADS * 3, "b0": HEADS}),
    "added": (
        added,
        {"a": (4, 12), "b": (4, 2), "c": (4, 12)},
        {"a1": HEADS * 3, "b0": HEADS, "c1": HEADS * 3},
    ),
    "crossed": (
        crossed,
        {"b": (6, 2), "kv": (4, 12), "q": (4, 6)},
        {"b0": [0, 0, 0, 1, 1, 1], "kv1": [0, 0, 0, 1, 1, 1] * 2}
        | {"q1": [0, 0, 0, 1, 1, 1]},
    ),
    "stacked": (
        stacked,
        {"a": (2, 4, 12), "b": (2, 4, 4)},
        {"a2": HEADS * 3, "b1": HEADS},
    ),
    "decoder": (
        decoder,
        {"a": (4, 12), "k": (3, 3, 3, 2)},
        {"a1": [0, 1, 2] * 4, "k2": [0, 1, 2]},
    ),
    # The last of the reversed pairs has the first unit of v.
    "turned": (
        turned,
        {"b": (6, 2), "u": (4, 3), "v": (4, 2)},
        {"b0": [0, 1] * 3, "v1": [1, 0]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_units_are_those_worked_out_by_hand(name: str) -> None:
    """The first part ends fixed, by an index, a convolution or an output."""
    apply, shapes, wanted = CASES[name]
    rng = np.random.default_rng(1)
    params = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    found = coupling.coupled_axes(apply, params, X)
    (group,) = found.groups
    owners = {f"{leaf}{i}": owner.tolist() for (leaf, i), owner in group.axes.items()}
    assert owners == wanted
    assert found.whole.keys().isdisjoint(group.axes)
    # In another order, the units are the same network.
    order = np.roll(np.arange(group.num_units), 1)
    moved = coupling.permute(found, params, [order])
    assert any((moved[leaf] != params[leaf]).any() for leaf in params)
    run = jax.jit(apply)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        run(moved, X),
        run(params, X),
    )


@pytest.mark.parametrize(
    ("apply", "reason"),
    [
        (lambda p, x: three(x, p["a"]), "an axis of an output"),
        (lambda p, x: jnp.sort(three(x, p["a"]).reshape(2, 12), 1), "order along"),
    ],
)
def test_the_reason_of_the_first_part_is_named_if_none_has_units(
    apply: Callable, reason: str
) -> None:
    found = coupling.coupled_axes(apply, {"a": np.ones((4, 12), np.float32)}, X)
    assert found.groups == ()
    assert found.whole["a", 1].startswith(reason)
