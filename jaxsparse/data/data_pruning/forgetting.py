"""Forgetting events: how often an example went from right to wrong while training.

An example is looked at when a batch of training brings it, with the logits that the
training step computes anyway: of the augmented image, before the update. The state is
three arrays that a compiled step carries along. For replicates, give every leaf an axis
in front and use `vmap`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32


class State(NamedTuple):
    """What is known of every training example.

    Attributes:
      was_correct: right at its last visit; False before the first.
      forgotten: visits at which it was wrong after having been right at the one before.
      learned: right at some visit so far.
    """

    was_correct: Bool[Array, " n"]
    forgotten: Int32[Array, " n"]
    learned: Bool[Array, " n"]


def init(n: int) -> State:
    """Makes the state before training: nothing visited, learned or forgotten.

    Args:
      n: training examples, 1 or more.

    Returns:
      The state of n examples.

    Raises:
      ValueError: if `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n: got {n}; wanted 1 or more training examples")
    return State(jnp.zeros(n, bool), jnp.zeros(n, jnp.int32), jnp.zeros(n, bool))


def update(
    state: State,
    rows: Int[Array, " b"],
    correct: Bool[Array, " b"] | Int[Array, " b"],
) -> State:
    """Takes in one batch of training. Works under `jit`, `scan` and `vmap`.

    Args:
      state: before the batch.
      rows: which examples the batch has, each at most once. Rows below 0 fill up a
        smaller batch and change nothing, nor do rows of n or more.
      correct: whether each of them was classified correctly, or 1 and 0.

    Returns:
      The state after the batch.

    Examples:
      >>> state = update(init(3), jnp.array([0, 2, -1]), jnp.array([1, 0, 1]))
      >>> state = update(state, jnp.array([0, 2, -1]), jnp.array([0, 0, 1]))
      >>> counts(state)
      Array([ 1., inf, inf], dtype=float32)
    """
    correct = correct.astype(bool)
    n = state.forgotten.shape[0]
    rows = jnp.where(rows < 0, n, rows)  # JAX would count from the end, and drops n
    before = state.was_correct.at[rows].get(mode="fill", fill_value=False)
    lost = (before & ~correct).astype(jnp.int32)
    return State(
        was_correct=state.was_correct.at[rows].set(correct, mode="drop"),
        forgotten=state.forgotten.at[rows].add(lost, mode="drop"),
        learned=state.learned.at[jnp.where(correct, rows, n)].set(True, mode="drop"),
    )


def counts(state: State) -> Float32[Array, " n"]:
    """Scores each example by its forgetting events; more is harder.

    Args:
      state: after some training.

    Returns:
      Whole numbers, and +inf for examples that were never right, visited or not.

    Deviations:
      None from the public code of Paul et al. (2021). Toneva et al. treat examples that
      were never learned on their own; +inf is what both make of them when sorting.

    References:
      Toneva, Sordoni, Tachet des Combes, Trischler, Bengio, Gordon. An Empirical Study
      of Example Forgetting during Deep Neural Network Learning. 2019. arXiv:1812.05159,
      section 3 and algorithm 1.

      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, whose code has the infinity.
    """
    return jnp.where(state.learned, state.forgotten.astype(jnp.float32), jnp.inf)
