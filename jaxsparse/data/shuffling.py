"""Order of the examples in training.

An epoch visits every example once. Its order is a pure function of a key and the epoch,
so a resumed run continues it exactly and there is no iterator state to save. The
training step gathers and augments the examples.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key


def steps_per_epoch(examples: int, *, batch_size: int, drop_last: bool) -> int:
    """Counts the batches of one epoch.

    Args:
      examples: number of training examples, at least 1.
      batch_size: number of examples in a full batch, at least 1.
      drop_last: True drops a smaller last batch (CIFAR-10 in batches of 128: 390
        steps); False keeps it, as open_lth does (391 steps).

    Returns:
      Steps in one epoch, at least 1.

    Raises:
      ValueError: if a number is below 1, or if `drop_last` leaves no batch.
    """
    if examples < 1 or batch_size < 1:
        raise ValueError(
            "batch_size: expected at least 1, for at least 1 example, got "
            f"{batch_size} for {examples} examples"
        )
    if not drop_last:
        return -(-examples // batch_size)
    if batch_size > examples:
        raise ValueError(
            f"batch_size: expected at most {examples}, the number of examples, with "
            f"drop_last=True, got {batch_size}; use a smaller batch or drop_last=False"
        )
    return examples // batch_size


def epoch_order(
    key: Key[Array, ""], *, epoch: int | Int[Array, ""], examples: int
) -> Int32[Array, " n"]:
    """Draws the order in which one epoch visits the examples.

    Args:
      key: key of the data order of a run, the same for all its epochs.
      epoch: epoch, counted from 0; may be traced.
      examples: number of training examples, at least 1.

    Returns:
      A permutation of 0 to `examples` - 1, int32. Equal keys and epochs give equal
      orders.
    """
    rows = jnp.arange(examples, dtype=jnp.int32)
    return jax.random.permutation(jax.random.fold_in(key, epoch), rows)
