"""Options and reports of compaction, and what it leaves as it was."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import lax

from jaxsparse import compaction, masks
from jaxsparse.types import Params


def mlp(p: Params, x: Any) -> Any:
    hidden = jnp.maximum(x @ p["in"]["kernel"] + p["in"]["bias"][None], 0)
    return hidden @ p["out"]["kernel"] + p["out"]["bias"][None]


def draw(hidden: int = 16, dtype: Any = jnp.float32) -> Params:
    rng = np.random.default_rng(0)
    shapes = {
        "in": {"kernel": (4, hidden), "bias": (hidden,)},
        "out": {"kernel": (hidden, 3), "bias": (3,)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), dtype),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def without(params: Params, units: list[int], constant: list[int]) -> Any:
    """Masks what reads some units, and what some units read."""
    active = masks.ones(params)
    active["out"]["kernel"] = active["out"]["kernel"].at[jnp.array(units)].set(False)
    if constant:
        kernel = active["in"]["kernel"]
        active["in"]["kernel"] = kernel.at[:, jnp.array(constant)].set(False)
    return active


X = jnp.zeros((1, 4))


def test_the_report_counts() -> None:
    params = draw()
    active = without(params, [0, 3], [5])
    small = compaction.compact(mlp, params, active, X)
    report = small.report
    assert report.parameters == (16 * 8 + 3, 13 * 8 + 3)
    assert report.bytes == (4 * (16 * 8 + 3), 4 * (13 * 8 + 3))
    assert report.multiply_adds == (16 * 7, 13 * 7)
    assert report.removed["in/bias"] == {0: (0, 3, 5)}
    assert report.folded == (
        ("out/bias",) if float(params["in"]["bias"][5]) > 0 else ()
    )
    assert report.kept == {}
    assert report.whole == {
        ("in/kernel", 0): "an axis of an input",
        ("out/kernel", 1): "an axis of an output",
        ("out/bias", 0): "an axis of an output",
    }
    assert report.difference < 1e-5
    assert masks.num_active(small.masks) == masks.num_active(active) - 3 * 7 + 13 - 3


def test_multiply_adds_of_a_loop_of_unknown_length_are_none() -> None:
    def apply(params: Params, x: Any) -> Any:
        return lax.while_loop(lambda y: y.sum() > 9, lambda y: y / 2, mlp(params, x))

    params = draw()
    small = compaction.compact(apply, params, without(params, [0, 3], []), X)
    assert small.report.multiply_adds is None
    assert small.report.parameters == (16 * 8 + 3, 14 * 8 + 3)


@pytest.mark.parametrize(("multiple", "width"), [(1, 5), (4, 8), (8, 8), (16, 16)])
def test_widths_are_rounded_up(multiple: int, width: int) -> None:
    params = draw()
    active = without(params, list(range(11)), [])
    small = compaction.compact(mlp, params, active, X, round_to=multiple)
    assert small.params["in"]["bias"].shape == (width,)
    reason = f"`round_to` keeps a multiple of {multiple} units"
    assert set(small.report.kept.values()) == ({reason} if width > 5 else set())
    expected = list(range(width - 5))
    assert [i for leaf, _, i in small.report.kept if leaf == "in/bias"] == expected
    # A layer that is narrower than the multiple stays.
    narrow = draw(6)
    active = without(narrow, [1], [])
    small = compaction.compact(mlp, narrow, active, X, round_to=8)
    assert small.params["in"]["bias"].shape == (6,)


def test_the_last_unit_of_a_layer_is_named() -> None:
    params = draw(4)
    small = compaction.compact(mlp, params, without(params, [0, 1, 2, 3], []), X)
    assert small.params["in"]["bias"].shape == (1,)
    places = ("in/kernel", 1, 0), ("in/bias", 0, 0), ("out/kernel", 0, 0)
    assert small.report.kept == dict.fromkeys(places, "a layer keeps one unit")


def test_products_are_not_rounded() -> None:
    """Accelerators would round operands, and with them constants that are folded."""
    seen = []

    def apply(p: Params, x: Any) -> Any:
        seen.append(jax.config.jax_default_matmul_precision)
        return mlp(p, x)

    params = draw()
    compaction.compact(apply, params, without(params, [0], [5]), X)
    # What is only counted, and never run, comes last.
    assert set(seen[:-2]) == {"highest"}
    assert len(seen) > 2
    assert jax.config.jax_default_matmul_precision != "highest"


def test_nesting_and_dtypes_stay() -> None:
    params = flax.core.freeze(draw(dtype=jnp.bfloat16))
    active = flax.core.freeze(without(flax.core.unfreeze(params), [2], [4]))
    small = compaction.compact(mlp, params, active, X.astype(jnp.bfloat16))
    assert jax.tree.structure(small.params) == jax.tree.structure(params)
    assert small.params["in"]["kernel"].dtype == jnp.bfloat16
    assert small.params["in"]["bias"].shape == (14,)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.bfloat16)
    wanted = mlp(masks.apply(active, params), x).astype(jnp.float32)
    got = mlp(small.params, x).astype(jnp.float32)
    np.testing.assert_allclose(got, wanted, atol=0.05)


def test_what_is_outside_the_masks_does_not_matter() -> None:
    params = draw()
    active = without(params, [0], [])
    kernel = params["out"]["kernel"].at[0].set(jnp.nan)
    params["out"]["kernel"] = kernel
    small = compaction.compact(mlp, params, active, X)
    assert small.report.removed["in/bias"] == {0: (0,)}
    assert bool(jnp.isfinite(mlp(small.params, X)).all())


def test_a_pruned_bias_that_takes_up_a_constant_becomes_active() -> None:
    """Otherwise masking the smaller network would change its outputs."""
    params = draw()
    params["in"]["bias"] = params["in"]["bias"].at[5].set(0.75)
    active = without(params, [0], [5])
    active["in"]["bias"] = None
    active["out"]["bias"] = jnp.zeros(3, bool)
    small = compaction.compact(mlp, params, active, X)
    assert small.report.folded == ("out/bias",)
    np.testing.assert_allclose(
        small.params["out"]["bias"], 0.75 * params["out"]["kernel"][5], rtol=1e-6
    )
    np.testing.assert_array_equal(small.masks["out"]["bias"], [True] * 3)
    again = masks.apply(small.masks, small.params)
    jax.tree.map(np.testing.assert_array_equal, again, small.params)
    assert not active["out"]["bias"].any()  # the given masks stay as they were


def test_a_silent_unit_is_not_dead() -> None:
    """No unit fires on zeros, if all biases are negative."""
    params = draw()
    params["in"]["bias"] = -jnp.abs(params["in"]["bias"])
    small = compaction.compact(mlp, params, masks.ones(params), X)
    assert small.report.removed == {}
    assert small.params["in"]["kernel"].shape == (4, 16)


def test_several_inputs_of_which_only_shapes_are_known() -> None:
    def apply(p: Params, x: Any, labels: Any) -> Any:
        return mlp(p, x["images"]) * labels[:, None]

    params = draw()
    shapes = (
        {"images": jax.ShapeDtypeStruct((2, 4), jnp.float32)},
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    small = compaction.compact(apply, params, without(params, [1], []), shapes)
    assert small.report.removed["in/bias"] == {0: (1,)}


def test_without_masks_zeros_count() -> None:
    """Weights that are zero need no mask."""
    params = draw()
    params["out"]["kernel"] = params["out"]["kernel"].at[3].set(0.0)
    small = compaction.compact(mlp, params, {}, X)
    assert small.report.removed["in/kernel"] == {1: (3,)}


def test_masks_of_another_network_are_refused() -> None:
    params = draw()
    with pytest.raises(ValueError, match=r"masks: in/kernel: expected .* \(4, 16\)"):
        compaction.compact(mlp, params, masks.ones(draw(5)), X)
    with pytest.raises(ValueError, match="masks: other: expected .*no such leaf"):
        compaction.compact(mlp, params, {"other": jnp.ones(2, bool)}, X)
    with pytest.raises(TypeError, match="params: a: expected a tree of arrays, got"):
        compaction.compact(mlp, {"a": 2.0}, {}, X)
    with pytest.raises(ValueError, match="params: expected a tree of arrays, got no"):
        compaction.compact(mlp, {}, {}, X)
    with pytest.raises(TypeError, match="apply: expected a function"):
        compaction.compact(None, params, masks.ones(params), X)
    with pytest.raises(ValueError, match="round_to: expected"):
        compaction.compact(mlp, params, masks.ones(params), X, round_to=0)


def test_masks_of_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are no masks: a weight with the score 0.2 would stay."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else it refuses
    numbers = {"in": {"kernel": jnp.full((4, 16), 0.2)}}
    wrong = "masks: in/kernel: expected a boolean array, got float32"
    with pytest.raises(ValueError, match=wrong):
        compaction.compact(mlp, draw(), numbers, X)
