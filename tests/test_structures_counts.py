"""Counts that a structure can keep, its rows and units, and what it refuses."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.structures import STRUCTURES, counts_of, each_structure, step
from hypothesis import strategies as st

from jaxsparse import masks, select


def test_grids_multiply_to_the_size() -> None:
    for structure in (None, *STRUCTURES):
        for shape in ((36, 6), (3, 2, 36, 12)):
            assert np.prod(select.unit_view(structure, "a", shape)) == np.prod(shape)
    conv = (3, 3, 64, 128)
    assert select.unit_view(None, "a", conv) == (1, 73728, 1)
    assert select.unit_view(select.n_of_m(4), "a", conv) == (18432, 4, 1)
    assert select.unit_view(select.blocks((4, 8)), "a", conv) == (1, 2304, 32)
    assert select.unit_view(select.channels(), "a", conv) == (1, 128, 576)
    assert select.unit_view(select.fan_in(), "a", conv) == (128, 576, 1)
    assert select.unit_view(select.diagonals(), "a", conv) == (1, 576, 128)


def test_structures_are_values() -> None:
    assert select.n_of_m(4) == select.n_of_m(4) != select.n_of_m(2)
    assert len({select.channels(), select.channels(), select.fan_in()}) == 2
    for structure in STRUCTURES:
        assert eval(f"select.{structure!r}") == structure
        assert jax.tree.leaves(structure) == [structure]  # never traced by mistake


@each_structure
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_fit_is_the_nearest_count_there_is(
    structure: select.Structure, data: st.DataObject
) -> None:
    a, b = structure.block
    inputs, outputs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    shape = (*data.draw(st.sampled_from([(), (3, 2)])), a * inputs, b * outputs)
    each, size = step(structure, shape), int(np.prod(shape))
    count = data.draw(st.integers(-(-each // 2), size) | st.just(0))
    like = {"a": jax.ShapeDtypeStruct(shape, bool), "b": None}
    fitted = select.round_counts(structure, like, {"a": count, "b": None})
    possible = counts_of(structure, shape)
    # Of two at the same distance the larger, hence from the top.
    nearest = min(reversed(possible), key=lambda k: abs(k - count))
    assert fitted == {"a": nearest, "b": None}
    assert select.round_counts(structure, like, fitted) == fitted


def test_fit_without_a_structure_is_the_identity() -> None:
    counts = {"a": 3, "bias": None}
    assert (
        select.round_counts(None, {"a": jnp.ones((2, 2), bool), "bias": None}, counts)
        is counts
    )


SCORE = np.random.default_rng(0).permutation(24).reshape(8, 3).astype(np.float32)


def test_fit_works_on_tracers() -> None:
    @jax.jit
    def select_half(scores: dict) -> dict:
        within = masks.ones(scores)
        counts = select.round_counts(select.n_of_m(4), within, {"kernel": 11})
        return select.top_k_per_layer(scores, counts, structure=select.n_of_m(4))

    assert masks.num_active(select_half({"kernel": SCORE})) == 12


def kernel(**options: object) -> dict:
    scores = {"conv": {"kernel": jnp.asarray(np.ones((3, 3, 8, 6)))}}
    given = {"structure": select.n_of_m(4)} | options
    count = given.pop("count", 216)
    return select.top_k_per_layer(scores, {"conv": {"kernel": count}}, **given)


def rest(structure: select.Structure, count: int, *shapes: tuple[int, ...]) -> dict:
    scores = {
        f"{i}/kernel": jnp.asarray(np.ones(shape)) for i, shape in enumerate(shapes)
    }
    return select.top_k_global(scores, count, structure=structure)


def fit(structure: select.Structure, count: int, name: str = "a") -> dict:
    return select.round_counts(
        structure, {"a": jnp.asarray(np.ones((8, 6), bool))}, {name: count}
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select.n_of_m(1), "size: expected .*got 1"),
        (lambda: select.blocks((4, 0)), "size: expected .*got 0"),
        (
            lambda: kernel(structure=select.n_of_m(3)),
            r"conv/kernel: expected a multiple of 3 inputs, for n_of_m\(3\), got 8.*"
            "dense=.*prunable",
        ),
        (
            lambda: kernel(structure=select.blocks((4, 4))),
            r"conv/kernel: .* multiple of 4 outputs, for blocks\(\(4, 4\)\), got 6",
        ),
        (
            lambda: select.unit_view(select.fan_in(), "c/w", (5,)),
            r"c/w: expected two or more axes, .* got shape \(5,\)",
        ),
        (
            lambda: kernel(count=215),
            "count of conv/kernel: expected a multiple of 108 from 0 to 432.*got 215",
        ),
        (lambda: kernel(count=-108), "count of conv/kernel: expected .*got -108"),
        (lambda: kernel(count=540), "count of conv/kernel: expected .*got 540"),
        (
            lambda: kernel(ties="drop"),
            r"ties: expected 'spread' with n_of_m\(4\).*got 'drop'",
        ),
        (
            lambda: kernel(axis_name="data"),
            "axis_name: expected None with n_of_m.*got 'data'",
        ),
        (
            lambda: rest(select.n_of_m(4), 8, (8, 2), (4, 3)),
            r"structure: expected .*got n_of_m\(4\), which makes every row of 0/kernel",
        ),
        (
            lambda: rest(select.fan_in(), 8, (8, 2)),
            r"structure: expected .*got fan_in\(\), which makes every row of 0/kernel",
        ),
        (
            lambda: rest(select.channels(), 8, (8, 2), (4, 3)),
            r"channels\(\), whose units have 4 weights in 1/kernel and 8 in 0/kernel",
        ),
        (
            lambda: rest(select.blocks((2, 2)), 6, (8, 2), (4, 4)),
            "count of all layers: expected a multiple of 4 from 0 to 32.*got 6",
        ),
        (
            lambda: rest(select.blocks((2, 2)), 4, (8, 2), (4, 3)),
            "1/kernel: expected .*got 3",
        ),
        (
            lambda: fit(select.channels(), 3),
            r"count of a: expected a multiple of 8 .*got 3, which channels\(\) rounds",
        ),
        (lambda: fit(select.fan_in(), 49), "count of a: expected 0 to 48.*got 49"),
        (lambda: fit(select.n_of_m(3), 6), "a: expected .* inputs.*got 8"),
        (lambda: fit(select.fan_in(), 6, "b"), r"counts: expected only .*got \['b'\]"),
    ],
)
def test_errors_say_what_came_and_what_was_wanted(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_too_many_units_of_a_row_are_refused() -> None:
    huge = {"a": jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)}
    counts = {"a": 2**20}
    with pytest.raises(ValueError, match="a: expected .*got 2147483648"):
        jax.eval_shape(
            lambda s: select.top_k_per_layer(
                s, counts, structure=select.blocks((1, 1))
            ),
            huge,
        )
