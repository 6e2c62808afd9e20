"""Names of leaves by the kind of their keys, and trees that fit each other by name."""

from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze

from jaxsparse import initializers, masks, prune, scores, select, tree

LEAF = jnp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
ABSENT = optax.MaskedNode()


class Pair(NamedTuple):
    query: Any
    value: Any


@flax.struct.dataclass
class Record:
    query: Any
    value: Any


def boxed(leaf: Any) -> nn.Partitioned:
    return nn.Partitioned(leaf, names=("in", "out"))


def logical(leaf: Any) -> nn.LogicallyPartitioned:
    return nn.LogicallyPartitioned(leaf, names=("in", "out"))


@pytest.mark.parametrize("make", [dict, Pair, Record])
def test_a_key_called_value_is_part_of_the_name(make: Any) -> None:
    params = {"attn": make(query=LEAF, value=LEAF)}
    assert tree.names(params) == ["attn/query", "attn/value"]
    mask = masks.ones(params, prunable=("attn/*",))
    assert masks.size(mask) == 12
    layers = prune.LayerOptions(prunable=("attn/*",), distribution="uniform")
    half = jax.eval_shape(lambda p: prune.prune(p, 0.5, layers=layers), params)
    assert tree.names(half) == ["attn/query", "attn/value"]


def test_whatever_asks_for_names_reads_a_field_called_value_alike() -> None:
    fields = {"query": jnp.ones((4, 4)), "value": jnp.ones((4, 4))}
    plain, named = {"w": fields}, {"w": Pair(**fields)}
    key = jax.random.key(0)

    def of(params: Any) -> list[Any]:
        ticket = masks.ones(params, prunable=("*",))
        half = jax.tree.map(lambda leaf: 8, ticket)
        return [
            scores.random(ticket, key=key),
            select.round_counts(select.n_of_m(4), ticket, half),
            initializers.redraw(params, ticket, initializers.masked(), key=key),
            initializers.exact_orthogonal(params, half, key=key),
        ]

    for found, wanted in zip(of(named), of(plain), strict=True):
        leaves = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        assert all(np.array_equal(a, b) for a, b in leaves)


@pytest.mark.parametrize("box", [nnx.Param, boxed, logical, nnx.BatchStat])
def test_a_box_has_no_name_of_its_own(box: Any) -> None:
    params = {"b": box(LEAF), "a": {"value": box(LEAF), "none": box(None)}}
    assert tree.names(params) == ["a/value", "b"]
    assert tree.names(masks.ones(params, prunable=("*",))) == ["a/value", "b"]
    assert tree.names(box({"w": LEAF, "value": [LEAF]})) == ["value/0", "w"]


def test_a_network_has_the_same_names_however_it_is_held() -> None:
    model = nnx.Sequential(
        nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    )
    state = nnx.state(model, nnx.Param)
    wanted = [f"layers/{i}/{leaf}" for i in (0, 1) for leaf in ("bias", "kernel")]
    assert tree.names(state) == wanted
    assert tree.names(model) == wanted
    assert tree.names(nnx.to_pure_dict(state)) == wanted
    optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
    assert tree.names(optimizer.opt_state) == [f"0/trace/{name}" for name in wanted]


def test_two_leaves_of_one_name_are_refused() -> None:
    with pytest.raises(
        ValueError, match="tree: expected a different name .*got 'a/b' twice"
    ):
        tree.names({"a/b": LEAF, "a": {"b": LEAF}})


def test_leaves_are_mapped_with_their_names() -> None:
    params = {"a": boxed(LEAF), "b": [None, LEAF], "c": ABSENT}
    found = tree.map_with_names(lambda name, leaf: name, params)
    assert found == {"a": boxed("a"), "b": [None, "b/1"], "c": ABSENT}
    found = tree.map_with_names(
        lambda *leaves: leaves, {"a": None, "b": 1}, {"a": 0, "b": [2, 3]}
    )
    assert found == {"a": None, "b": ("b", 1, [2, 3])}


LAYERS = {
    str(i): {
        "kernel": jnp.asarray(np.asarray(LEAF) + np.float32(i)),
        "bias": jnp.asarray(np.full(3, i, np.float32)),
    }
    for i in range(12)
}
TICKET = {
    name: {"kernel": jnp.asarray(np.asarray(LEAF) > 2), "bias": None} for name in LAYERS
}
NUMBERED = {int(name): layer for name, layer in LAYERS.items()}  # in another order
HOLDERS = {
    "dict": LAYERS,
    "numbered": NUMBERED,
    "frozen": freeze(LAYERS),
    "list": list(LAYERS.values()),
    "tuple": tuple(LAYERS.values()),
    "nnx": nnx.State(jax.tree.map(nnx.Param, NUMBERED)),
    "boxed": jax.tree.map(boxed, LAYERS),
}


@pytest.mark.parametrize("given", HOLDERS)
@pytest.mark.parametrize("like", HOLDERS)
def test_equal_names_and_shapes_fit_whatever_the_nodes(given: str, like: str) -> None:
    found = tree.match_structure(HOLDERS[given], HOLDERS[like], same_leaves=True)
    assert jax.tree.structure(found) == jax.tree.structure(HOLDERS[like])
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(HOLDERS[like]), strict=True)
    assert all(a is b for a, b in pairs)


@pytest.mark.parametrize("like", HOLDERS)
def test_masks_of_one_holder_apply_to_another(like: str) -> None:
    ticket = TICKET
    wanted = tree.named_leaves(masks.apply(ticket, LAYERS))
    found = masks.apply(ticket, HOLDERS[like])
    assert jax.tree.structure(found) == jax.tree.structure(HOLDERS[like])
    for name, leaf in tree.named_leaves(found).items():
        np.testing.assert_array_equal(leaf, wanted[name])
    assert masks.is_nested(ticket, masks.ones(HOLDERS[like]))
    doubled = masks.tree_map(lambda mask, leaf: 2 * leaf, ticket, HOLDERS[like])
    assert jax.tree.structure(doubled) == jax.tree.structure(ticket)


@pytest.mark.parametrize("absent", [None, ABSENT])
def test_what_is_absent_stands_for_all_below(absent: Any) -> None:
    part = {"body": {"w": LEAF > 2}, "head": absent}
    whole = {"body": {"w": LEAF}, "head": {"w": LEAF, "b": [LEAF]}}
    found = tree.match_structure(part, whole)
    assert tree.names(found) == ["body/w"]
    assert masks.apply(part, whole)["head"] == whole["head"]
    back = tree.match_structure(whole, part, shapes=False)
    assert back == {"body": {"w": LEAF}, "head": absent}


A = {"a": {"kernel": LEAF, "bias": None}, "b": {"kernel": LEAF}}


@pytest.mark.parametrize(
    ("given", "same", "message"),
    [
        (
            {"a": {"kernel": LEAF}},
            False,
            "expected all leaves of template, .*got no leaf b/kernel",
        ),
        (
            {"a": {"kernel": LEAF}, "b": None},
            True,
            "expected all leaves of template, .*got no leaf b/kernel",
        ),
        (
            A | {"b": {"kernel": None}},
            True,
            "expected all leaves of template, .*got no leaf b/kernel",
        ),
        (A | {"c": LEAF}, False, "expected only leaves of template, .*got the leaf c"),
        (
            {"a": {"kernel": LEAF, "bias": LEAF}, "b": {"kernel": LEAF}},
            True,
            "expected only leaves",
        ),
        (
            freeze(A | {"a": {"kernel": LEAF, "bias": LEAF}}),
            True,
            "expected only .*got the leaf a/bias",
        ),
        (
            A | {"b": {"kernel": LEAF.T}},
            False,
            r"b/kernel: expected shape .*got \(3, 2\)",
        ),
        (freeze(A | {"b": {"kernel": LEAF.T}}), False, "b/kernel: expected shape"),
        ({}, False, "expected all leaves of template, .*got no leaf a/kernel"),
        (None, True, "expected all leaves of template, .*got no leaf a/kernel"),
    ],
)
def test_the_first_leaf_that_differs_is_named(
    given: Any, same: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^tree: {message}"):
        tree.match_structure(given, A, same_leaves=same)


def test_other_leaves_than_these_may_be_left_out() -> None:
    found = tree.match_structure(freeze({"a": {"kernel": LEAF}, "b": None}), A)
    assert found == {"a": {"kernel": LEAF, "bias": None}, "b": {"kernel": None}}


@pytest.mark.parametrize("globs", ["head/*", 3, None, ("a", 1), {"head/*"}])
def test_patterns_are_a_sequence_of_strings(globs: Any) -> None:
    with pytest.raises(TypeError):
        tree.check_globs(globs, ["head/kernel"], field="dense")
