"""How often examples were forgotten."""

from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxsparse.data.data_pruning import forgetting as forgetting_lib

N, BATCH, STEPS = 7, 4, 6


def slowly(n: int, rows: Any, correct: Any) -> np.ndarray:
    """Counts by looking at the whole history of one example after the other."""
    result = np.zeros(n)
    for row in range(n):
        history = [
            bool(right)
            for batch, answers in zip(rows, correct, strict=True)
            for visited, right in zip(batch, answers, strict=True)
            if visited == row
        ]
        for last, now in zip(history[:-1], history[1:], strict=True):
            result[row] += last and not now
        if True not in history:
            result[row] = np.inf
    return result


def follow(
    state: forgetting_lib.State, rows: Any, correct: Any
) -> forgetting_lib.State:
    def step(
        state: forgetting_lib.State, batch: Any
    ) -> tuple[forgetting_lib.State, None]:
        return forgetting_lib.update(state, *batch), None

    return jax.lax.scan(step, state, (jnp.asarray(rows), jnp.asarray(correct)))[0]


scanned = jax.jit(lambda rows, correct: follow(forgetting_lib.init(N), rows, correct))


def test_a_trace_by_hand() -> None:
    visits = [
        # rows, correct, and the counts after them
        ([0, 1, 2], [1, 0, 1], [0, np.inf, 0, np.inf]),
        ([1, 0, 3], [0, 0, 1], [1, np.inf, 0, 0]),
        ([0, 2, -1], [0, 1, 0], [1, np.inf, 0, 0]),  # still wrong is not forgotten anew
        ([3, 0, 1], [0, 1, 1], [1, 0, 0, 1]),
        ([2, 0, -1], [0, 0, 1], [2, 0, 1, 1]),
        ([-1, -1, -1], [1, 1, 0], [2, 0, 1, 1]),
    ]
    state = forgetting_lib.init(4)
    assert forgetting_lib.counts(state).tolist() == [np.inf] * 4
    for rows, correct, wanted in visits:
        state = forgetting_lib.update(state, jnp.array(rows), jnp.array(correct))
        counts = forgetting_lib.counts(state)
        assert counts.dtype == jnp.float32
        assert counts.tolist() == wanted
    assert state.was_correct.tolist() == [False, True, False, False]
    assert state.learned.tolist() == [True] * 4
    assert state.forgotten.tolist() == [2, 0, 1, 1]


@st.composite
def traces(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Batches of rows, each at most once, filled up by rows that are none."""
    batch = st.lists(st.integers(0, N - 1), max_size=BATCH, unique=True)
    nobody = st.sampled_from([-1, -1, -N, N, N + 3])
    rows = np.zeros((STEPS, BATCH), np.int32)
    for i in range(STEPS):
        real = draw(batch)
        fill = draw(
            st.lists(nobody, min_size=BATCH - len(real), max_size=BATCH - len(real))
        )
        rows[i] = draw(st.permutations(real + fill))
    answers = st.lists(st.booleans(), min_size=STEPS * BATCH, max_size=STEPS * BATCH)
    return rows, np.array(draw(answers)).reshape(STEPS, BATCH)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(trace=traces())
def test_counts_are_those_of_a_slow_loop(trace: Any) -> None:
    counts = forgetting_lib.counts(scanned(*trace))
    np.testing.assert_array_equal(counts, slowly(N, *trace))


def test_many_epochs_of_many_replicates() -> None:
    rng = np.random.default_rng(0)
    epochs = [rng.permutation(30).reshape(5, 6) for _ in range(20)]
    rows = np.concatenate(epochs).astype(np.int32)
    correct = rng.random((3, *rows.shape)) < np.array([0.05, 0.5, 0.9])[:, None, None]
    start = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (3, *leaf.shape)), forgetting_lib.init(30)
    )
    states = jax.jit(jax.vmap(follow, in_axes=(0, None, 0)))(start, rows, correct)
    counts = jax.vmap(forgetting_lib.counts)(states)
    for i in range(3):
        wanted = slowly(30, rows, correct[i])
        np.testing.assert_array_equal(counts[i], wanted)
        assert wanted[np.isfinite(wanted)].max() > 0
    assert np.isinf(counts[0]).any() and not np.isinf(counts[1:]).any()


def test_the_state_keeps_its_types() -> None:
    state = forgetting_lib.init(3)
    after = forgetting_lib.update(state, jnp.array([2, 0]), jnp.array([True, False]))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), after
    )
    assert state.learned.tolist() == [False] * 3


@pytest.mark.parametrize("n", [0, -1])
def test_no_examples_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n: expected .*got {n}"):
        forgetting_lib.init(n)
