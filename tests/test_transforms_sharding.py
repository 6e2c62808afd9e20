"""Which weights are divided over devices, and that all that belongs to them is."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from jaxsparse import transforms


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {
        name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
        for name, shape in shapes.items()
    }


def specs(params: Any, **options: Any) -> dict[str, P]:
    given = {"axis": "data", "parts": 4, "min_size": 1} | options
    found = transforms.weight_specs(params, **given)
    return {name: leaf["kernel"] for name, leaf in found.items()}


def divided(spec: P) -> int | None:
    found = [at for at, name in enumerate(spec) if name is not None]
    assert len(found) < 2
    return found[0] if found else None


@settings(deadline=None, max_examples=50)
@given(
    shape=st.lists(st.integers(0, 24), max_size=4).map(tuple),
    parts=st.integers(1, 8),
    least=st.integers(0, 200),
)
def test_the_longest_axis_that_can_be_is_divided_and_the_last_only_at_need(
    shape: tuple[int, ...], parts: int, least: int
) -> None:
    spec = specs(weights(layer=shape), parts=parts, min_size=least)["layer"]
    at = divided(spec)
    able = [i for i, size in enumerate(shape) if size and size % parts == 0]
    early = [i for i in able if i < len(shape) - 1]
    if parts == 1 or not able or math.prod(shape) < least:
        assert at is None
    elif early:
        assert at in early
        assert shape[at] == max(shape[i] for i in early)
        assert all(shape[i] < shape[at] for i in early if i < at)
    else:
        assert at == len(shape) - 1


def test_rules_come_before_size_and_the_first_that_matches_decides() -> None:
    params = weights(first=(8, 16), second=(8, 16), head=(8, 16))
    rules = (("second/*", 1), ("head/*", None), ("*/kernel", -2))
    found = specs(params, rules=rules, min_size=10**6)
    assert found == {"first": P("data"), "second": P(None, "data"), "head": P()}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (("heads/*", 0), "matches none of"),
        (("head/*", 2), r"head/kernel, which has shape \(8, 15\), got 2"),
        (("head/*", -3), "head/kernel, which .*got -3"),
        (
            ("head/*", 1),
            "head/kernel with a length divisible by 4, .*got axis 1 of length 15",
        ),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        specs(weights(head=(8, 15)), rules=(rule,))


SPARSE = {
    "rigl": lambda inner: transforms.rigl(inner, sparsity=0.5, end_step=1000),
    "snfs": lambda inner: transforms.snfs(inner, sparsity=0.5, end_step=1000),
    "gradual_magnitude": lambda inner: transforms.gradual_magnitude(
        inner, sparsity=0.5, begin_step=0, end_step=10
    ),
    "latent": lambda inner: transforms.top_kast(
        inner, sparsity=0.5, backward_sparsity=0.25
    ),
}
INNER = {
    "adamw": optax.adamw(1e-3),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9)),
    "partition": optax.partition(
        {"a": optax.adam(1e-3), "b": optax.sgd(0.1, momentum=0.9)},
        {
            "first": {"kernel": "a", "bias": "b"},
            "second": {"kernel": "b", "bias": "a"},
            "twin": {"first": {"kernel": "a"}},
        },
    ),
    "adafactor": optax.adafactor(1e-3, min_dim_size_to_factor=8),
}


@pytest.mark.parametrize(
    ("method", "inner"), [*zip(SPARSE, INNER, strict=True), ("rigl", "partition")]
)
def test_what_belongs_to_a_weight_is_divided_as_it_is(method: str, inner: str) -> None:
    params = {
        "first": {"kernel": jnp.ones((8, 16)), "bias": jnp.ones((16,))},
        "second": {"kernel": jnp.ones((16, 8)), "bias": jnp.ones((8,))},
        # Its path ends as that of another, and the longer path owns.
        "twin": {"first": {"kernel": jnp.ones((8, 16))}},
    }
    rules = (("first/kernel", 0), ("twin/*", 1), ("second/kernel", 1), ("*", None))
    own = transforms.weight_specs(params, axis="data", parts=4, rules=rules)
    tx = SPARSE[method](INNER[inner])
    state = jax.eval_shape(tx.init, params)
    found = transforms.state_specs(own, params, state)
    wanted = {
        ("first", "kernel"): P("data"),
        ("twin", "first", "kernel"): P(None, "data"),
        ("second", "kernel"): P(None, "data"),
    }
    seen = 0
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, leaf), spec in zip(leaves, jax.tree.leaves(found), strict=True):
        keys = tuple(getattr(key, "key", None) for key in path)
        ends = [name for name in wanted if keys[len(keys) - len(name) :] == name]
        owner = max(ends, key=len, default=None)
        if owner is not None and leaf.ndim == 2:
            assert spec == wanted[owner], path
            seen += 1
        else:
            assert spec == P(), path
    assert seen >= 3
    again = transforms.state_specs(own, params, state.masks)
    assert again["first"]["kernel"] == P("data")
    assert again["first"]["bias"] is None
