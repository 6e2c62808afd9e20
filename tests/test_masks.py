from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxsparse import masks

PARAMS = {
    "conv": {"bias": jnp.ones(4), "kernel": jnp.ones((3, 3, 2, 4))},
    "norm": {"scale": jnp.ones(4)},
    "out": {"bias": jnp.ones(3), "kernel": jnp.ones((4, 3))},
}
KERNELS = ["conv/kernel", "out/kernel"]


def test_dense_takes_kernels_only() -> None:
    mask = masks.ones(PARAMS)
    assert masks.names(mask) == KERNELS
    assert mask["conv"]["bias"] is None and mask["norm"]["scale"] is None
    assert masks.num_active(mask) == masks.size(mask) == 72 + 12
    assert masks.sparsity(mask) == 0.0


def test_dense_needs_shapes_only() -> None:
    mask = jax.eval_shape(masks.ones, PARAMS)
    assert mask["out"]["kernel"] == jax.ShapeDtypeStruct((4, 3), bool)


def test_dense_lets_the_caller_choose() -> None:
    mask = masks.ones(PARAMS, prunable=lambda name, leaf: name.endswith("scale"))
    assert masks.names(mask) == ["norm/scale"]


def test_dense_of_nothing_prunable_lists_the_names() -> None:
    with pytest.raises(ValueError, match=r"\['norm/scale'\]"):
        masks.ones({"norm": PARAMS["norm"]})


def test_integer_and_flat_leaves_are_not_kernels() -> None:
    assert not masks.is_kernel("kernel", jnp.ones((2, 2), jnp.int32))
    assert not masks.is_kernel("kernel", jnp.ones(2))
    assert not masks.is_kernel("a/bias", jnp.ones((2, 2)))
    assert masks.is_kernel("a/embedding", jnp.ones((2, 2), jnp.bfloat16))


def test_names_of_every_container() -> None:
    leaf = jnp.ones((2, 2))
    assert masks.names({"b": [leaf, {"w": leaf}], "a": (leaf,)}) == [
        "a/0",
        "b/0",
        "b/1/w",
    ]
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = nnx.split(model, nnx.Param)[1]
    assert masks.names(state) == ["bias", "kernel"]
    mask = masks.ones(state)
    assert masks.names(mask) == ["kernel"]
    assert masks.size(mask) == 6
    half = jax.tree.map(lambda m: m.at[0].set(False), mask)
    masked = masks.apply(half, state)
    np.testing.assert_array_equal(jax.tree.leaves(masked)[1][0], np.zeros(3))
    nnx.update(model, masked)
    assert not model.kernel[0].any()


def test_matches_and_check_globs() -> None:
    assert masks.matches("a/kernel", ("b/*", "*/kernel"))
    assert not masks.matches("a/kernel", ())
    masks.check_globs(("out/*",), KERNELS, field="ignored")
    with pytest.raises(
        ValueError,
        match=r"ignored: expected patterns .*got 'head/\*', which matches none.*; corr",
    ):
        masks.check_globs(("out/*", "head/*"), KERNELS, field="ignored")


def test_masks_after_parameters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else it refuses
    with pytest.raises(
        ValueError, match="expected a boolean array, got float32; masks.apply tak"
    ):
        masks.apply(PARAMS, masks.ones(PARAMS))


@pytest.mark.parametrize("prunable", ["*/kernel", 3, (3,), None])
def test_prunable_is_a_function_or_patterns(
    prunable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match="^prunable: expected .*got "):
        masks.ones(PARAMS, prunable=prunable)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    hnp.arrays(bool, (4, 3)),
    hnp.arrays(np.float32, (4, 3), elements=st.floats(width=32)),
)
def test_apply_keeps_inside_and_clears_outside(
    mask: np.ndarray, kernel: np.ndarray
) -> None:
    bias = jnp.array([jnp.nan, 1.0])
    result = masks.apply(
        {"kernel": jnp.asarray(mask), "bias": None},
        {"kernel": jnp.asarray(kernel), "bias": bias},
    )
    assert result["bias"] is bias
    got = np.asarray(result["kernel"])
    np.testing.assert_array_equal(got[mask], kernel[mask])
    assert not got[~mask].view(np.uint32).any()  # +0.0: no NaN, no infinity, no sign


def test_apply_keeps_the_dtype() -> None:
    kernel = jnp.full((2, 2), jnp.inf, jnp.bfloat16)
    result = masks.apply({"w": jnp.zeros((2, 2), bool)}, {"w": kernel})["w"]
    assert result.dtype == jnp.bfloat16 and not result.any()


def test_tree_map_passes_over_none() -> None:
    mask = masks.ones(PARAMS)
    sizes = masks.tree_map(lambda m, leaf: leaf.size, mask, PARAMS)
    assert sizes["conv"] == {"bias": None, "kernel": 72}
    both = masks.tree_map(lambda m, a, b: a + b, mask, sizes, sizes)
    assert jax.tree.leaves(both) == [144, 24]
    with pytest.raises(ValueError):
        masks.tree_map(lambda m, leaf: leaf, mask, {"conv": PARAMS["conv"]})


def test_counts_by_layer() -> None:
    mask = masks.ones(PARAMS)
    mask["out"]["kernel"] = mask["out"]["kernel"].at[:, 1:].set(False)
    assert masks.layer_counts(mask) == {"conv/kernel": (72, 72), "out/kernel": (4, 12)}
    assert masks.num_active(mask) == 76
    assert masks.sparsity(mask) == pytest.approx(8 / 84)


def test_is_nested() -> None:
    outer = {"a": jnp.array([True, True, False]), "b": None, "c": jnp.ones((), bool)}
    inner = outer | {"a": jnp.array([True, False, False])}
    assert bool(masks.is_nested(inner, outer)) and bool(masks.is_nested(outer, outer))
    assert not bool(masks.is_nested(outer, inner))
    assert bool(jax.jit(masks.is_nested)(inner, outer))


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
    hnp.arrays(bool, (3, 5)), hnp.arrays(bool, (8,)), hnp.arrays(bool, (0, 2))
)
def test_pack_and_unpack(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    tree = {"a": jnp.asarray(a), "b": [jnp.asarray(b), None], "c": jnp.asarray(c)}
    packed = masks.pack(tree)
    bits = {name: packed[name] for name in ("a", "b/0", "c")}  # as they were before
    assert [each.nbytes for each in bits.values()] == [2, 1, 0]
    shapes = {name: packed[f"{name}:shape"].tolist() for name in bits}
    assert shapes == {"a": [3, 5], "b/0": [8], "c": [0, 2]} and len(packed) == 6
    for stored in (packed, bits):
        result = masks.unpack(stored, jax.tree.map(jnp.ones_like, tree))
        assert jax.tree.structure(result) == jax.tree.structure(tree)
        jax.tree.map(np.testing.assert_array_equal, result, tree)


def test_unpack_refuses_another_network() -> None:
    mask = masks.ones(PARAMS)
    packed = masks.pack(mask)
    with pytest.raises(
        ValueError, match=r"missing \['out/kernel'\], unexpected \['x'\]"
    ):
        masks.unpack(
            {"conv/kernel": packed["conv/kernel"], "x": packed["out/kernel"]}, mask
        )
    other = mask | {"out": {"bias": None, "kernel": jnp.ones((40, 3), bool)}}
    with pytest.raises(
        ValueError, match=r"out/kernel: expected shape \(40, 3\), got \(4, 3\)"
    ):
        masks.unpack(packed, other)
    bits = {name: packed[name] for name in KERNELS}
    with pytest.raises(ValueError, match="out/kernel: expected 15 bytes .*got 2"):
        masks.unpack(bits, other)
    longer = packed | {"out/kernel": np.zeros(2)}
    with pytest.raises(ValueError, match="out/kernel: expected .*got float64 of shape"):
        masks.unpack(longer, mask)


@pytest.mark.parametrize("shape", [(6, 8), (4, 12), (47,), (48,), (8, 6, 1)])
def test_unpack_refuses_another_shape(shape: tuple[int, ...]) -> None:
    packed = masks.pack({"w": jnp.ones((8, 6), bool)})
    with pytest.raises(ValueError, match=r"w: expected shape .*got \(8, 6\)"):
        masks.unpack(packed, {"w": jnp.ones(shape, bool)})


@pytest.mark.parametrize("shape", [(3, 12, 4), (4, 12), (1, 4), (4,), ()])
def test_apply_and_is_nested_refuse_another_shape(shape: tuple[int, ...]) -> None:
    mask, weights = {"w": jnp.ones(shape, bool)}, {"w": jnp.ones((12, 4))}
    for call in (masks.apply, jax.jit(masks.apply)):
        with pytest.raises(ValueError, match=r"w: expected shape"):
            call(mask, weights)
    with pytest.raises(ValueError, match=r"w: expected shape"):
        masks.is_nested(mask, {"w": jnp.ones((12, 4), bool)})


def test_masks_of_nothing() -> None:
    assert masks.num_active({}) == masks.size({}) == 0 and masks.pack({}) == {}
    assert bool(masks.is_nested({}, {})) and masks.unpack({}, {}) == {}
    with pytest.raises(ValueError, match="expected prunable weights, got none"):
        masks.sparsity({"bias": None})
