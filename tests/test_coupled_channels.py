"""Channel pruning over coupled axes: exact counts, and networks that get smaller."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse import compaction, coupling, masks, models, scores, select

X = jnp.zeros((1, 8, 8, 3))


def apply(p: Any, x: Any) -> Any:
    y = jnp.maximum(x @ p["a"], 0)
    return (y + jnp.tanh(y @ p["in"]) @ p["out"]) @ p["b"]


def draw() -> Any:
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 6), "in": (6, 5), "out": (5, 6), "b": (6, 2)}
    return {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()}


def test_a_residual_network_of_half_the_width() -> None:
    network = models.CifarResNet(8, width=4, classes=3)
    init = functools.partial(network.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), X)
    coupled = coupling.coupled_axes(
        functools.partial(network.apply, train=False), variables, X
    )
    active = masks.ones(variables["params"])
    magnitudes = scores.magnitude(variables["params"], active)
    kept = select.coupled_channels({"params": magnitudes}, coupled, 0.5)
    small = compaction.compact_linen(network, variables, kept, X, train=False)
    half = models.CifarResNet(8, width=2, classes=3)
    wanted = jax.eval_shape(
        functools.partial(half.init, train=False), jax.random.key(0), X
    )
    assert jax.tree.map(jnp.shape, small.params) == jax.tree.map(jnp.shape, wanted)
    thin = masks.apply(kept["params"], variables["params"])
    x = jnp.asarray(np.random.default_rng(1).normal(size=X.shape), jnp.float32)
    got, wanted = (
        jax.jit(functools.partial(module.apply, train=False))(leaves, x)
        for module, leaves in (
            (small.module, small.params),
            (network, {**variables, "params": thin}),
        )
    )
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_units_with_the_lowest_sums_go() -> None:
    params = draw()
    coupled = coupling.coupled_axes(apply, params, jnp.ones((1, 4)))
    magnitudes = jax.tree.map(jnp.abs, params)
    kept = select.coupled_channels(magnitudes, coupled, (1 / 3, 0.4))
    m = jax.tree.map(np.asarray, magnitudes)
    stream = m["a"].sum(0) + m["in"].sum(1) + m["out"].sum(0) + m["b"].sum(1)
    inner = m["in"].sum(0) + m["out"].sum(1)
    best = [np.sort(np.argsort(-s)[:n]) for s, n in ((stream, 4), (inner, 3))]
    rows, columns = np.zeros(6, bool), np.zeros(5, bool)
    rows[best[0]], columns[best[1]] = True, True
    np.testing.assert_array_equal(kept["in"], rows[:, None] & columns[None])
    np.testing.assert_array_equal(kept["a"], np.broadcast_to(rows, (4, 6)))
    small = compaction.compact(apply, params, kept, jnp.ones((1, 4)))
    assert small.params["in"].shape == (4, 3)


def test_every_group_keeps_a_unit_and_biases_stay() -> None:
    params = draw()
    coupled = coupling.coupled_axes(apply, params, jnp.ones((1, 4)))
    kept = select.coupled_channels({"in": params["in"], "b": None}, coupled, 0.99)
    assert kept["b"] is None
    assert int(kept["in"].sum()) == 1


def normalized(p: Any, x: Any) -> Any:
    y = x @ p["a"]
    y = y / jnp.sqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-6)
    return jnp.maximum(y @ p["in"], 0) @ p["b"]


def test_units_under_a_statistic_stay_unless_they_are_chosen() -> None:
    params = draw() | {"b": jnp.ones((5, 2))}
    del params["out"]
    coupled = coupling.coupled_axes(normalized, params, jnp.ones((1, 4)))
    assert [group.reductions for group in coupled.groups] == [("reduce_sum",), ()]
    assert set(coupled.groups[0].axes) == {("a", 1), ("in", 0)}
    kept = select.coupled_channels(params, coupled, 0.4)
    assert bool(kept["a"].all())
    assert int(kept["in"].any(0).sum()) == int(kept["b"].any(1).sum()) == 3
    # All that is masked goes.
    small = compaction.compact(normalized, params, kept, jnp.ones((1, 4)))
    assert {n: leaf.shape for n, leaf in small.params.items()} == {
        "a": (4, 6),
        "in": (6, 3),
        "b": (3, 2),
    }
    chosen = select.coupled_channels(params, coupled, (0.5, 0.0))
    assert int(chosen["a"].any(0).sum()) == 3
    assert bool(chosen["b"].all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1.0}, "sparsity: expected"),
        ({"sparsity": (0.5,)}, "sparsity: expected one number, or one for each of 2"),
        ({"scores": {"other": jnp.ones(3)}}, "scores: expected leaves of the coupled"),
        ({"scores": {"b": jnp.ones((5, 2))}}, "scores: b: expected 6 entries along"),
        ({"scores": {"b": jnp.full((6, 2), jnp.nan)}}, "scores: b: expected finite"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    params = draw()
    coupled = coupling.coupled_axes(apply, params, jnp.ones((1, 4)))
    given = {"scores": params, "coupled": coupled, "sparsity": 0.5} | change
    with pytest.raises(ValueError, match=message):
        select.coupled_channels(**given)
