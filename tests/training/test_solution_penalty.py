"""The penalty on angles: slow formulas, exact zeros, and memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.campaigns import case
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import test_util

from jaxsparse import masks as masks_lib
from jaxsparse.training import solution_penalty

SHAPES = {"conv": (3, 2, 4), "head": (6, 5)}


def solution(seed: int, lead: tuple[int, ...] = (), dtype: Any = jnp.float32) -> Any:
    rng = np.random.default_rng(seed)
    return {
        name: {
            "kernel": jnp.asarray(rng.normal(size=lead + shape), dtype),
            "bias": jnp.asarray(rng.normal(size=(*lead, 7)), dtype),
        }
        for name, shape in SHAPES.items()
    }


def some_masks(seed: int) -> Any:
    drawn = solution(seed)
    return {
        name: {"kernel": jnp.asarray(np.asarray(leaves["kernel"]) > -0.3), "bias": None}
        for name, leaves in drawn.items()
    }


def flat(tree: Any, masks: Any, slot: Any = ...) -> np.ndarray:
    parts = [
        np.where(masks[n]["kernel"], np.asarray(tree[n]["kernel"])[slot], 0).reshape(-1)
        for n in SHAPES
    ]
    return np.concatenate(parts).astype(np.float64)


def slowly(
    params: Any, masks: Any, stored: Any, strength: float, count: int
) -> tuple[float, np.ndarray]:
    """The formula and its gradient, written out in float64."""
    theta = flat(params, masks)
    value, gradient = 0.0, np.zeros_like(theta)
    for slot in range(count):
        other = flat(stored, masks, slot)
        squares = (theta @ theta) * (other @ other)
        if not squares:
            continue
        product = theta @ other
        value += product**2 / squares
        gradient += 2 * product * other / squares
        gradient -= 2 * product**2 * theta / squares / (theta @ theta)
    share = strength / max(count, 1)
    return share * value, share * gradient


@jax.jit
def at(params: Any, masks: Any, stored: Any, **options: Any) -> tuple[Any, Any]:
    return jax.value_and_grad(
        lambda p: solution_penalty.penalty(p, masks, stored, **options)
    )(params)


def assert_gradient(gradient: Any, masks: Any, wanted: np.ndarray, **options) -> None:
    """Compares inside the masks, and wants exact zeros elsewhere."""
    for name in SHAPES:
        mask = np.asarray(masks[name]["kernel"])
        assert mask.any() and not mask.all()
        assert not np.any(np.asarray(gradient[name]["kernel"])[~mask])
        assert not np.any(gradient[name]["bias"])
    np.testing.assert_allclose(flat(gradient, masks), wanted, **options)


@pytest.mark.parametrize(
    ("dtype", "strength"),
    [
        (jnp.float32, solution_penalty.REPEL),
        (jnp.bfloat16, solution_penalty.ATTRACT),
        (jnp.float16, 0.5),
    ],
)
def test_value_and_gradient_equal_the_slow_formula(dtype: Any, strength: float) -> None:
    params, masks = solution(1), some_masks(2)
    stored = solution(3, (5,), dtype)
    value, gradient = at(params, masks, stored, strength=strength)
    wanted, slope = slowly(params, masks, stored, strength, 5)
    assert value.dtype == jnp.float32 and abs(wanted) > 0.005
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert_gradient(gradient, masks, slope, rtol=1e-4, atol=1e-6)
    if dtype == jnp.float32:
        outside_jit = solution_penalty.penalty(
            params, masks, stored, strength=strength, count=5
        )
        np.testing.assert_allclose(outside_jit, wanted, rtol=1e-5)


def test_derivatives_of_both_orders_agree_with_finite_differences() -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        weights, step = (jnp.asarray(rng.normal(size=(3, 4))) for _ in range(2))
        masks = {"w": weights > -0.5}
        stored = {"w": jnp.asarray(rng.normal(size=(4, 3, 4)), jnp.bfloat16)}

        @jax.jit
        def of(weights: Any, count: Any = None) -> Any:
            return solution_penalty.penalty(
                {"w": weights}, masks, stored, strength=2.0, count=count
            )

        assert of(weights).dtype == jnp.float64
        test_util.check_grads(of, (weights,), order=1, modes=["fwd"], rtol=1e-5)
        test_util.check_grads(of, (weights,), order=2, modes=["rev"], rtol=1e-4)
        # Forward over reverse, as products with the Hessian are made; with a count.
        slope = jax.jit(jax.grad(of))
        exact = jax.jvp(lambda w: slope(w, 3), (weights,), (step,))[1]
        ahead, behind = (slope(weights + h * step, 3) for h in (1e-5, -1e-5))
        assert np.any(exact)
        np.testing.assert_allclose(exact, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(exact[~masks["w"]], 0.0)


def test_the_formula_holds_to_float64() -> None:
    with jax.enable_x64(True):
        masks, stored = some_masks(2), solution(3, (4,), jnp.bfloat16)
        params = solution(1, dtype=jnp.float64)
        value, gradient = at(params, masks, stored, strength=2.0)
        wanted, slow = slowly(params, masks, stored, 2.0, 4)
        np.testing.assert_allclose(value, wanted, rtol=1e-12)
        assert_gradient(gradient, masks, slow, rtol=1e-10, atol=1e-14)


def test_weights_outside_the_masks_and_slots_beyond_the_count_do_nothing() -> None:
    params, masks, stored = solution(1), some_masks(2), solution(3, (6,))

    def spoil(tree: Any, slots: Any = None) -> Any:
        """Puts NaN outside the masks, into the biases, and into some slots."""
        out = {}
        for name, leaves in tree.items():
            kernel = np.where(
                masks[name]["kernel"], leaves["kernel"], np.float32(np.nan)
            )
            if slots is not None:
                kernel[slots] = np.nan
            out[name] = {"kernel": kernel, "bias": np.full_like(leaves["bias"], np.nan)}
        return jax.tree.map(jnp.asarray, out)

    spoiled = spoil(params), spoil(stored, slice(4, None))
    first = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[:4]), stored)
    clean = at(params, masks, stored, strength=2.0, count=4)
    exact = at(spoiled[0], masks, spoiled[1], strength=2.0, count=4)
    alone = at(params, masks, first, strength=2.0)
    beyond = at(params, masks, first, strength=2.0, count=9)
    leaves = map(jax.tree.leaves, (clean, exact, alone, beyond))
    for a, b, c, d in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(a, d, rtol=1e-5, atol=1e-7)


def test_no_solutions_give_exactly_zero_and_no_gradient() -> None:
    params, masks = solution(1), some_masks(2)
    kernel = np.array(params["head"]["kernel"])
    kernel[0, 0] = np.inf
    params["head"]["kernel"] = jnp.asarray(kernel)
    room = solution_penalty.allocate(masks, 3)
    for value, gradient in (
        at(params, masks, room, strength=2.0, count=0),
        at(params, masks, room, strength=2.0, count=-1),
        at(params, masks, solution_penalty.allocate(masks, 0), strength=2.0),
        at(params, masks, solution(3, (0,)), strength=2.0, count=jnp.int32(0)),
    ):
        assert value == 0 and value.dtype == jnp.float32
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_zero_norms_give_zero_and_no_gradient() -> None:
    params, masks, stored = solution(1), some_masks(2), solution(3, (2,))
    nothing = jax.tree.map(jnp.zeros_like, params)
    value, gradient = at(nothing, masks, stored, strength=2.0)
    assert value == 0 and not any(np.any(g) for g in jax.tree.leaves(gradient))
    empty = jax.tree.map(jnp.zeros_like, masks)
    value, gradient = at(params, empty, stored, strength=2.0)
    assert value == 0 and not any(np.any(g) for g in jax.tree.leaves(gradient))
    # A stored one that is zero counts as one that is orthogonal.
    weights = np.array([1.0, 0.0], np.float32)
    half = jax.tree.map(
        lambda leaf: jnp.asarray(leaf * weights.reshape(2, *[1] * (leaf.ndim - 1))),
        jax.tree.map(np.asarray, stored),
    )
    value, gradient = at(params, masks, half, strength=2.0)
    once, slope = slowly(params, masks, stored, 1.0, 1)
    np.testing.assert_allclose(value, once, rtol=1e-5)
    assert_gradient(gradient, masks, slope, rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(-90, 90), st.integers(-90, 90), st.sampled_from([1.0, -1.0]))
def test_the_scale_of_weights_changes_nothing(a: int, b: int, sign: float) -> None:
    """Squares of 2 ** 90 overflow in float32, and those of 2 ** -90 vanish."""
    params, masks, stored = solution(1), some_masks(2), solution(3, (2,))
    scaled, others = (
        jax.tree.map(lambda leaf: leaf * factor, tree)  # noqa: B023
        for tree, factor in ((params, 2.0**a), (stored, sign * 2.0**b))
    )
    value, gradient = at(params, masks, stored, strength=2.0)
    found, slope = at(scaled, masks, others, strength=2.0)
    assert found == value
    back = jax.tree.map(lambda leaf: leaf * 2.0**a, slope)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_a_copy_costs_the_strength_and_an_orthogonal_one_nothing() -> None:
    masks = {"w": jnp.array([[True, True, True, False]])}
    params = {"w": jnp.array([[3.0, 4.0, 0.0, 9.0]])}
    stored = {"w": jnp.array([[[-6.0, -8.0, 0.0, 1.0]], [[0.0, 0.0, 2.0, 5.0]]])}
    value, gradient = at(params, masks, stored, strength=2.0, count=1)
    np.testing.assert_allclose(value, 2.0, rtol=1e-6)
    np.testing.assert_allclose(gradient["w"], np.zeros((1, 4)), atol=1e-6)
    both, _ = at(params, masks, stored, strength=2.0, count=2)
    assert both == value / 2


@jax.jit
def descend(params: Any, masks: Any, stored: Any, strength: Any) -> Any:
    slope = at(params, masks, stored, strength=strength)[1]
    return jax.tree.map(lambda p, g: p - g, params, slope)


def test_descent_repels_and_attracts() -> None:
    masks, stored = some_masks(2), solution(3, (1,))
    for strength in (solution_penalty.REPEL, solution_penalty.ATTRACT):
        params = solution(1)

        for _ in range(300):
            params = descend(params, masks, stored, strength)
        aligned = solution_penalty.penalty(params, masks, stored, strength=1.0)
        assert aligned < 1e-3 if strength > 0 else aligned > 0.99


@pytest.mark.parametrize("counts", [3, [0, 4, 2]])
def test_vmap_over_replicates_equals_a_loop(counts: Any) -> None:
    params, stored = solution(1, (3,)), solution(3, (3, 4), jnp.bfloat16)
    stack = lambda *each: jnp.asarray(np.stack(each))  # noqa: E731
    masks = jax.tree.map(stack, *(some_masks(i) for i in (2, 5, 6)))
    # What lies beyond the counts may be anything.
    each = np.broadcast_to(counts, 3)
    for name in SHAPES:
        kernel = np.array(stored[name]["kernel"])
        for r, count in enumerate(each):
            kernel[r, count:] = np.nan
        stored[name]["kernel"] = jnp.asarray(kernel)
    axis = None if isinstance(counts, int) else 0
    together = jax.jit(
        jax.vmap(
            lambda p, m, s, c: at(p, m, s, strength=-1.0, count=c),
            in_axes=(0, 0, 0, axis),
        )
    )(params, masks, stored, jnp.asarray(counts, jnp.int32))
    for r, count in enumerate(each.tolist()):
        p, m, s = jax.tree.map(lambda x: np.asarray(x)[r], (params, masks, stored))  # noqa: B023
        wanted, slope = slowly(p, m, s, -1.0, count)
        np.testing.assert_allclose(together[0][r], wanted, rtol=1e-5)
        mine = jax.tree.map(lambda leaf: np.asarray(leaf)[r], together[1])  # noqa: B023
        assert_gradient(mine, m, slope, rtol=1e-4, atol=1e-6)


def test_narrow_weights_have_narrow_gradients_of_a_wide_penalty() -> None:
    params, masks = solution(1, dtype=jnp.bfloat16), some_masks(2)
    stored = solution(3, (2,), jnp.bfloat16)
    value, gradient = at(params, masks, stored, strength=2.0)
    wanted, slope = slowly(params, masks, stored, 2.0, 2)
    assert value.dtype == jnp.float32
    assert {g.dtype for g in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(flat(gradient, masks), slope, rtol=5e-3, atol=1e-6)


def derivatives(params: Any, masks: Any, stored: Any, count: Any) -> Any:
    def of(params: Any) -> Any:
        return solution_penalty.penalty(
            params, masks, stored, strength=2.0, count=count
        )

    return jax.jvp(jax.value_and_grad(of), (params,), (params,))


def gradients(params: Any, masks: Any, stored: Any, count: Any) -> Any:
    return at(params, masks, stored, strength=2.0, count=count)


def descended(params: Any, masks: Any, stored: Any, count: Any) -> Any:
    """Some steps in one program, as training has them."""

    def step(params: Any, _: Any) -> Any:
        slope = gradients(params, masks, stored, count)[1]
        return jax.tree.map(lambda p, g: p - g, params, slope), None

    return jax.lax.scan(step, params, length=3)[0]


def over_replicates(params: Any, masks: Any, stored: Any, count: Any) -> Any:
    lead = jax.tree.map(lambda leaf: leaf[None], (params, masks, stored))
    return jax.vmap(gradients, in_axes=(0, 0, 0, None))(*lead, count)


@pytest.mark.parametrize(
    ("program", "dtype"),
    [
        (gradients, jnp.float32),
        case(gradients, jnp.bfloat16, always=False),
        (derivatives, jnp.bfloat16),
        (descended, jnp.bfloat16),
        (over_replicates, jnp.bfloat16),
    ],
)
def test_memory_does_not_grow_with_the_number_of_solutions(
    program: Any, dtype: Any
) -> None:
    wide = jax.ShapeDtypeStruct((200, 300), jnp.float32)
    kept = jax.ShapeDtypeStruct((200, 300), bool)

    def temporaries(slots: int) -> int:
        stored = jax.ShapeDtypeStruct((slots, 200, 300), dtype)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        lowered = jax.jit(program).lower({"w": wide}, {"w": kept}, {"w": stored}, count)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(3), temporaries(60)
    assert abs(many - few) < 10_000
    assert many < 8 * 4 * 200 * 300  # seven arrays of the leaf's size and scalars


def test_solutions_are_stored_in_one_program_and_keep_their_slots() -> None:
    masks = some_masks(2)
    stored = solution_penalty.allocate(masks, 3)
    assert stored["conv"]["bias"] is None
    assert stored["conv"]["kernel"].shape == (3, *SHAPES["conv"])
    traces = []

    @jax.jit
    def put(stored: Any, params: Any, slot: Any) -> Any:
        traces.append(1)
        return solution_penalty.store(stored, params, slot)

    drawn = [solution(seed) for seed in (1, 2, 3, 4)]
    for slot, params in zip((0, 2, 1, 2), drawn, strict=True):
        stored = put(stored, params, jnp.int32(slot))
    for slot, params in ((0, drawn[0]), (1, drawn[2]), (2, drawn[3])):
        for name in SHAPES:
            kernel = stored[name]["kernel"]
            assert kernel.dtype == jnp.bfloat16
            wanted = params[name]["kernel"].astype(jnp.bfloat16)
            np.testing.assert_array_equal(kernel[slot], wanted)
    for slot in (-1, 3):
        same = put(stored, drawn[0], jnp.int32(slot))
        for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(stored), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(traces) == 1
    again = solution_penalty.store(stored, drawn[1], 0)
    np.testing.assert_array_equal(
        again["head"]["kernel"][0], drawn[1]["head"]["kernel"].astype(jnp.bfloat16)
    )
    none = solution_penalty.allocate(masks, 0)
    assert put(none, drawn[0], jnp.int32(0))["head"]["kernel"].shape == (0, 6, 5)


def test_rounds_of_growing_count_equal_the_solutions_so_far() -> None:
    masks = some_masks(2)
    stored = solution_penalty.allocate(masks, 4, dtype=jnp.float32)
    penalty = jax.jit(
        lambda p, s, c: solution_penalty.penalty(p, masks, s, strength=2.0, count=c)
    )
    store, past = jax.jit(solution_penalty.store), []
    for count in range(4):
        params = solution(count + 10)
        so_far = jax.tree.map(lambda *leaves: np.stack(leaves), *past) if past else {}
        wanted = slowly(params, masks, so_far, 2.0, count)[0]
        np.testing.assert_allclose(penalty(params, stored, count), wanted, rtol=1e-5)
        stored = store(stored, params, count)
        past.append(params)


def test_other_libraries_and_leaves_without_masks() -> None:
    params = [{"w": jnp.array([[1.0, 2.0]])}, (jnp.ones(3), {"w": jnp.ones((2, 2))})]
    masks = masks_lib.ones(params, prunable=("1/1/w",))
    stored = solution_penalty.store(solution_penalty.allocate(masks, 1), params, 0)
    assert [leaf.shape for leaf in jax.tree.leaves(stored)] == [(1, 2, 2)]
    value, gradient = jax.value_and_grad(
        lambda p: solution_penalty.penalty(p, masks, stored, strength=2.0)
    )(params)
    np.testing.assert_allclose(value, 2.0, rtol=1e-6)
    assert not np.any(gradient[0]["w"]) and not np.any(gradient[1][0])


KEPT = {"a": {"w": jnp.ones((2, 3), bool)}}
GOOD = {"a": {"w": jnp.ones((2, 3))}}
ROOM = {"a": {"w": jnp.ones((4, 2, 3))}}


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({"masks": {"a": {"w": None}}}, "masks: expected at least one prunable leaf"),
        (
            {"params": {"b": {"w": jnp.ones((2, 3))}}},
            "params: expected every leaf that has a mask, got no 'a/w'",
        ),
        (
            {"params": {"a": {"w": jnp.ones((3, 2))}}},
            r"params: .* for 'a/w', got float32\[3, 2\]",
        ),
        (
            {"stored": {"a": {"w": None}}},
            "stored: expected every leaf that has a mask, got no 'a/w'",
        ),
        (
            {"stored": GOOD},
            r"expected floats of shape \[2, 2, 3\] for 'a/w', got float32\[2, 3\]",
        ),
        (
            {"stored": {"a": {"w": jnp.ones((4, 2, 3), int)}}},
            r"for 'a/w', got int32\[4, 2, 3\]",
        ),
        ({"count": 5}, "count: expected a number from 0 to 4, got 5"),
        ({"count": -1}, "count: expected a number from 0 to 4, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(given_: Any, word: str) -> None:
    good = {"params": GOOD, "masks": KEPT, "stored": ROOM, "count": 1}
    with pytest.raises(ValueError, match=word):
        solution_penalty.penalty(**(good | given_), strength=1.0)


def test_leaves_must_hold_equally_many_solutions() -> None:
    masks, stored = some_masks(2), solution(3, (4,))
    stored["head"] = solution(3, (5,))["head"]
    with pytest.raises(ValueError, match=r"for 'head/kernel', got float32\[5, 6, 5\]"):
        solution_penalty.penalty(solution(1), masks, stored, strength=1.0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (
            lambda: solution_penalty.store(ROOM, GOOD, 4),
            "slot: expected a number from 0 to 3, got 4",
        ),
        (
            lambda: solution_penalty.store(ROOM, GOOD, -1),
            "slot: expected a number from 0 to 3, got -1",
        ),
        (
            lambda: solution_penalty.store(ROOM, {"a": {}}, 0),
            "params: expected every leaf that has a mask, got no 'a/w'",
        ),
        (
            lambda: solution_penalty.store(ROOM, ROOM, 0),
            r"params: expected .* for 'a/w', got float32\[4, 2, 3\]",
        ),
        (lambda: solution_penalty.allocate(KEPT, -1), "capacity: expected .*got -1"),
        (
            lambda: solution_penalty.allocate(KEPT, 2, dtype=jnp.int8),
            "dtype: expected a .*got int8",
        ),
    ],
)
def test_bad_rooms_and_slots_are_refused(call: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        call()
