"""Forgetting events: how often an example became misclassified during training.

A forgetting event is a change from correct to incorrect classification between two
successive visits of an example, where a visit is a training step whose batch contains
it. Correctness is measured on the logits of the training step itself, which are those
of the augmented image before the update. The state consists of three arrays, carried
through compiled steps. For replicates, add a leading axis to every leaf and use
`jax.vmap`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32


class State(NamedTuple):
    """History of every training example.

    Attributes:
      was_correct: whether the example was classified correctly at its last visit; False
        before the first visit.
      forgotten: number of forgetting events so far, int32.
      learned: whether the example was classified correctly at any visit so far.
    """

    was_correct: Bool[Array, " n"]
    forgotten: Int32[Array, " n"]
    learned: Bool[Array, " n"]


def init(n: int) -> State:
    """Makes the state before training, when no example has been visited.

    Args:
      n: number of training examples, at least 1.

    Returns:
      The state of `n` examples.

    Raises:
      ValueError: if `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n: expected 1 or more training examples, got {n}")
    return State(jnp.zeros(n, bool), jnp.zeros(n, jnp.int32), jnp.zeros(n, bool))


def update(
    state: State,
    rows: Int[Array, " b"],
    correct: Bool[Array, " b"] | Int[Array, " b"],
) -> State:
    """Updates the state with one training batch. Works under `jit`, `scan` and `vmap`.

    Args:
      state: state before the batch.
      rows: index of each example of the batch, each example at most once. Negative
        indices mark padding and are ignored, and so are indices of n or more.
      correct: whether each example was classified correctly; boolean, or integers 1
        and 0.

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
    # JAX counts negative indices from the end of the array, but drops index n.
    rows = jnp.where(rows < 0, n, rows)
    before = state.was_correct.at[rows].get(mode="fill", fill_value=False)
    lost = (before & ~correct).astype(jnp.int32)
    return State(
        was_correct=state.was_correct.at[rows].set(correct, mode="drop"),
        forgotten=state.forgotten.at[rows].add(lost, mode="drop"),
        learned=state.learned.at[jnp.where(correct, rows, n)].set(True, mode="drop"),
    )


def counts(state: State) -> Float32[Array, " n"]:
    """Scores each example by its number of forgetting events; higher is harder.

    Args:
      state: state after some training.

    Returns:
      Number of forgetting events of each example; +inf for examples that were never
      classified correctly, including those that were never visited.

    Deviations:
      None from the public code of Paul et al. (2021). Toneva et al. treat examples that
      were never learned separately; when sorting, both rank them as +inf does.

    References:
      Toneva, Sordoni, Tachet des Combes, Trischler, Bengio, Gordon. An Empirical Study
      of Example Forgetting during Deep Neural Network Learning. 2019. arXiv:1812.05159,
      section 3 and algorithm 1.

      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075; its code uses +inf.
    """
    return jnp.where(state.learned, state.forgotten.astype(jnp.float32), jnp.inf)
