"""Attention whose reduction is known: heads, their features, and joint kernels."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from helpers import reductions
from helpers.reductions import Network, floats, s_, unit

from jaxsparse.types import Params


def attention(p: Params, x: Any) -> Any:
    query, key, value = (
        jnp.einsum("btc,chd->bthd", x, p[n]) + p[f"{n}_bias"] for n in "qkv"
    )
    scores = jnp.einsum("bqhd,bthd->bhqt", query, key) / query.shape[-1] ** 0.5
    found = jnp.einsum("bhqt,bthd->bqhd", jax.nn.softmax(scores), value)
    return x + jnp.einsum("bthd,hdc->btc", found, p["out"])


def attend(query: Any, key: Any, value: Any, out: Any) -> Any:
    """Attends with heads [b, t, h, d], and merges them."""
    scores = jax.nn.softmax(jnp.einsum("bqhd,bthd->bhqt", query, key))
    found = jnp.einsum("bhqt,bthd->bqhd", scores, value)
    return found.reshape(*found.shape[:2], -1) @ out


def joint_attention(p: Params, x: Any) -> Any:
    """One kernel for queries, keys and values, with heads of 2 channels."""
    parts = jnp.split(x @ p["qkv"], 3, -1)
    return attend(*(y.reshape(*y.shape[:2], -1, 2) for y in parts), p["out"])


def reshaped_attention(p: Params, x: Any) -> Any:
    """The same network, which splits its outputs in one reshape."""
    y = (x @ p["qkv"]).reshape(*x.shape[:2], 3, -1, 2)
    return attend(*(y[:, :, i] for i in range(3)), p["out"])


def grouped_queries(p: Params, x: Any) -> Any:
    """Each head of keys and values has a group of heads of queries."""
    query = jnp.einsum("btc,chgd->bthgd", x, p["q"])
    key, value = (jnp.einsum("btc,chd->bthd", x, p[n]) for n in "kv")
    scores = jax.nn.softmax(jnp.einsum("bqhgd,bthd->bhgqt", query, key))
    found = jnp.einsum("bhgqt,bthd->bqhgd", scores, value)
    return jnp.einsum("bthgd,hgdc->btc", found, p["out"])


def repeated_keys(p: Params, x: Any) -> Any:
    """The same, with the heads of queries along one axis."""
    query = jnp.einsum("btc,chd->bthd", x, p["q"])
    key, value = (
        jnp.repeat(jnp.einsum("btc,chd->bthd", x, p[n]), 2, axis=2) for n in "kv"
    )
    scores = jax.nn.softmax(jnp.einsum("bqhd,bthd->bhqt", query, key))
    found = jnp.einsum("bhqt,bthd->bqhd", scores, value)
    return jnp.einsum("bthd,hdc->btc", found, p["out"])


HEADS = (("q", 1), ("k", 1), ("v", 1), ("q_bias", 0), ("k_bias", 0), ("v_bias", 0))
# Head 1 is unread: features 2 and 3 of 6, in each of three parts.
JOINT = Network(
    joint_attention,
    {"qkv": (4, 18), "out": (6, 4)},
    floats((2, 3, 4)),
    {"out": [s_[2:4]]},
    {"qkv": {1: (2, 3, 8, 9, 14, 15)}, "out": {0: (2, 3)}},
)
NETWORKS = {
    # Head 1 is unread. The values of head 2 are constant, and one feature of head 3.
    "attention heads": Network(
        attention,
        {
            **{n: (6, 4, 3) for n in "qkv"},
            **{f"{n}_bias": (4, 3) for n in "qkv"},
            "out": (4, 3, 6),
        },
        floats((2, 5, 6)),
        {"v": [s_[:, 2], s_[:, 3, 1]], "out": [s_[1]]},
        unit(*HEADS, ("out", 0), of=(1,)),
    ),
    # Without feature 1 of the queries, scores would be divided by another number.
    "a scale computed from a width": Network(
        attention,
        {
            **{n: (6, 4, 3) for n in "qkv"},
            **{f"{n}_bias": (4, 3) for n in "qkv"},
            "out": (4, 3, 6),
        },
        floats((2, 5, 6)),
        {"q": [s_[:, :, 1]], "out": [s_[3]]},
        unit(*HEADS, ("out", 0), of=(3,)),
        named="'div' by 1.73205, a number computed from a width",
        fixed={"q_bias": {(head, 1): 0.0 for head in range(4)}},
    ),
    "a joint kernel": JOINT,
    "a joint kernel, reshaped": JOINT._replace(apply=reshaped_attention),
    # Head 1 of the keys is unread, and the second group of every head.
    "grouped queries": Network(
        grouped_queries,
        {"q": (6, 3, 2, 4), "k": (6, 3, 4), "v": (6, 3, 4), "out": (3, 2, 4, 6)},
        floats((2, 5, 6)),
        {"out": [s_[1], s_[:, 1]], "v": [s_[:, 2, 3]]},
        {
            "q": {1: (1,), 2: (1,)},
            **unit(("k", 1), ("v", 1), of=(1,)),
            "out": {0: (1,), 1: (1,)},
        },
    ),
    # Of the heads of queries 2 and 3 are unread, which share a head of keys, and 0,
    # which shares one with 1.
    "repeated keys": Network(
        repeated_keys,
        {"q": (6, 6, 4), "k": (6, 3, 4), "v": (6, 3, 4), "out": (6, 4, 6)},
        floats((2, 5, 6)),
        {"out": [s_[[0, 2, 3]]]},
        {
            **unit(("q", 1), ("out", 0), of=(2, 3)),
            **unit(("k", 1), ("v", 1), of=(1,)),
        },
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_known_heads_go(name: str) -> None:
    reductions.check(NETWORKS[name])
