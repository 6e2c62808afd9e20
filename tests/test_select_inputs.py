"""What selection refuses, reads exactly or leaves where it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsparse import select
from jaxsparse.select import inputs


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def big(value: str) -> dict:
    shapes = {"a": (8, 3, 12), "b": (16, 4), "c": (4,), "d": (3, 4)}
    rng = np.random.default_rng(0)
    draw = {
        "ties": lambda s: rng.integers(-2, 3, s),
        "none": lambda s: rng.normal(size=s),
    }
    return {
        k: jnp.asarray(draw[value](s).astype(np.float32)) for k, s in shapes.items()
    }


COUNTS = {"a": 100, "b": 1, "c": 4, "d": 5}


def test_sharded_leaves_give_the_same_masks_and_stay() -> None:
    scores = big("ties")
    specs = {"a": P(None, None, "data"), "b": P("data"), "c": P(), "d": P(None, "data")}
    shardings = {name: NamedSharding(mesh(), spec) for name, spec in specs.items()}
    placed = jax.tree.map(jax.device_put, scores, shardings)
    fewer = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) > -1.5), scores)
    within = jax.tree.map(jax.device_put, fewer, shardings)
    for function, count in (
        (select.top_k_global, np.int32(101)),
        (select.top_k_per_layer, jax.tree.map(np.int32, COUNTS)),
    ):
        jitted = jax.jit(lambda s, k, w, f=function: f(s, k, candidates=w))
        program = jitted.lower(placed, count, within).compile()
        text = program.as_text()
        for collective in ("all-gather", "all-to-all", "collective-permute"):
            assert collective not in text
        assert "all-reduce" in text
        result = program(placed, count, within)
        jax.tree.map(
            np.testing.assert_array_equal, result, jitted(scores, count, fewer)
        )
        assert result["a"].sharding.is_equivalent_to(shardings["a"], 3)


@pytest.mark.parametrize(
    ("values", "ties", "limit"), [("ties", "spread", 60), ("none", "drop", None)]
)
def test_shard_map_and_long_counts_give_the_same_masks(
    values: str, ties: str, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Split over devices, with counts in int64 where the limit says so."""
    scores = {name: leaf for name, leaf in big(values).items() if name != "d"}
    counts = {name: COUNTS[name] for name in scores}
    for choose, count in (
        (select.top_k_global, 101),
        (select.top_k_per_layer, counts),
    ):
        program = functools.partial(choose, ties=ties)
        short = jax.jit(lambda s, k=count, f=program: f(s, k))(scores)
        with monkeypatch.context() as patch:
            if limit is not None:
                patch.setattr("jaxsparse.select.inputs.LIMIT", limit)
            split = jax.shard_map(
                lambda s, k=count, f=program: f(s, k, axis_name="data"),
                mesh=mesh(),
                in_specs=P("data"),
                out_specs=P("data"),
            )
            traced = jax.jit(split).trace(scores)
            assert ("i64" in str(traced.jaxpr)) == (limit is not None)
            found = [traced.lower().compile()(scores)]
            if limit is not None and choose is select.top_k_global:
                both = jax.tree.map(lambda leaf: np.stack([leaf, -leaf]), scores)
                mapped = jax.jit(jax.vmap(lambda s, k=count, f=program: f(s, k)))(both)
                found.append(jax.tree.map(lambda leaf: np.asarray(leaf)[0], mapped))
        for each in found:
            jax.tree.map(np.testing.assert_array_equal, each, short)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: select.top_k_global(s, -1), "all layers: expected 0 to 4.*got -1"),
        (lambda s: select.top_k_global(s, 5), "all layers: expected 0 to 4.*got 5"),
        (
            lambda s: select.top_k_per_layer(s, {"a": 3, "b": 0}),
            "count of a: expected .*got 3",
        ),
        (
            lambda s: select.top_k_per_layer(s, {"a": 1, "c": 0}),
            r"counts: expected the leaves of scores.*got \['a', 'c'\]",
        ),
        (lambda s: select.top_k_global(s, 1, ties="first"), "ties"),
        (lambda s: select.top_k_global(s, 1, frozen=("x",)), "'x', which matches none"),
        (
            lambda s: select.top_k_global(s, 1, frozen=("*",)),
            "expected at least one leaf",
        ),
        (
            lambda s: select.top_k_global(s, 1, candidates={"a": jnp.ones(2, bool)}),
            "candidates",
        ),
        (
            lambda s: select.top_k_global(
                s, 1, candidates={"a": jnp.ones(2, bool), "b": jnp.ones(3, bool)}
            ),
            "b: expected shape",
        ),
        (
            lambda s: select.top_k_global(
                s, 3, candidates={"a": jnp.ones(2, bool), "b": jnp.zeros(2, bool)}
            ),
            "expected 0 to 2",
        ),
        (lambda s: select.top_k_global({}, 0), "expected at least one leaf"),
        (
            lambda s: select.top_k_global(s | {"a": s["b"] * jnp.nan}, 1),
            r"finite numbers, got NaN or infinity in \{'a': '2 of 2'\}",
        ),
        (
            lambda s: select.top_k_per_layer(s | {"b": s["a"] / 0}, {"a": 1, "b": 0}),
            "'b'",
        ),
        (
            lambda s: select.top_k_per_layer(
                {"a": jnp.ones((4, 2)) / 0}, {"a": 4}, structure=select.n_of_m(2)
            ),
            "'a': '8 of 8'",
        ),
    ],
)
def test_errors_say_what_was_expected_and_what_was_given(
    call: object, message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call({"a": jnp.ones(2), "b": jnp.ones(2)})


@pytest.mark.parametrize("shapes", [[(2**16, 2**15)], [(2**15, 2**12)] * 16])
def test_two_to_the_31_weights_compete(shapes: list) -> None:
    huge = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    kept = jax.eval_shape(lambda s: select.top_k_global(s, 2**31), huge)
    assert [leaf.shape for leaf in kept] == shapes
    with pytest.raises(ValueError, match="a traced int64 to select from 2147483648"):
        jax.eval_shape(select.top_k_global, huge, jnp.int32(1))
    with pytest.raises(ValueError, match=f"expected 0 to {2**31}.*got {2**31 + 1}"):
        jax.eval_shape(lambda s: select.top_k_global(s, 2**31 + 1), huge)


def test_layers_on_their_own_never_add_up() -> None:
    huge = [jax.ShapeDtypeStruct((2**10, 2**20), jnp.float32)] * 4
    counts = [jax.ShapeDtypeStruct((), jnp.int32)] * 4
    program = jax.make_jaxpr(select.top_k_per_layer)(huge, counts)
    assert "i64" not in str(program) and "u64" not in str(program)


def test_scalars_cannot_be_split() -> None:
    split = jax.shard_map(
        lambda s: select.top_k_global({"a": s, "b": s[0]}, 1, axis_name="data")["a"],
        mesh=mesh(),
        in_specs=P("data"),
        out_specs=P("data"),
    )
    with pytest.raises(ValueError, match="b: expected .*got a scalar"):
        split(jnp.ones(4))


def test_all_finite_reads_only_what_may_be_selected() -> None:
    finite = jax.jit(select.all_finite)
    scores = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array([2.0]), "c": None}
    assert not finite(scores) and not finite({"a": jnp.array(-jnp.inf)})
    within = {"a": jnp.array([True, False]), "b": jnp.array([True]), "c": None}
    assert finite(scores, within)
    assert not finite(scores, jax.tree.map(jnp.ones_like, within))
    assert finite({}) and finite({"a": jnp.zeros((0, 3))})


@pytest.mark.parametrize("structure", [None, select.blocks((1, 2))], ids=repr)
def test_scores_of_numpy_compare_in_their_own_precision(structure: object) -> None:
    close = 1 + np.arange(8).reshape(4, 2) * 1e-15
    for scores in (close, (2**40 + np.arange(8)).reshape(4, 2)):
        result = select.top_k_global({"a": scores}, 4, structure=structure)
        assert result["a"].all(axis=1).tolist() == [False, False, True, True]


def test_what_is_not_within_may_be_anything() -> None:
    scores = {"a": jnp.array([jnp.nan, 1.0]), "b": jnp.array([jnp.inf, 2.0])}
    within = jax.tree.map(jnp.isfinite, scores)
    result = select.top_k_global(scores, 1, candidates=within)
    assert result["a"].tolist() == [False, False]
    assert result["b"].tolist() == [False, True]
    ignored = select.top_k_global(scores, 1, frozen=("b",), candidates=within)
    assert ignored["b"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (1.0, "scores: a: expected an array of real numbers, got float"),
        (np.ones(2, complex), "scores: a: expected an array of real numbers, got comp"),
        (np.array(["x"]), "scores: a: expected an array of real numbers, got <U1"),
    ],
)
def test_scores_are_numbers(leaf: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        inputs.check_score("a", leaf)


@pytest.mark.parametrize(
    "count", [1.0, 0.5, np.float32(1), np.nan, True, np.True_, np.ones(2, int), "1"]
)
def test_counts_are_integers(count: object) -> None:
    with pytest.raises(TypeError, match="count of a: expected one integer, got"):
        inputs.read_count(count, [], "a", None)


def test_traced_counts_are_integers() -> None:
    def read(count: jax.Array) -> None:
        inputs.read_count(count, [], "a", None)

    with pytest.raises(TypeError, match="expected one integer, got float32 of shape"):
        jax.eval_shape(read, jnp.float32(1))


def test_masks_to_select_within_are_boolean() -> None:
    with pytest.raises(TypeError, match="candidates: a: expected a boolean array"):
        inputs.check_candidates("a", np.ones(2), (2,))
