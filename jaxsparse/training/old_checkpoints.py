"""Reads optimizer states that were saved in an earlier layout.

Before layout 2 every sparse optimizer state held a typed random key, even for methods
that draw no random numbers, and had no `skipped_updates`. Checkpoints of such runs are
first read in their original layout, so that the recorded hash can be verified, and then
converted.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsparse import multihost
from jaxsparse.training.state import TrainState
from jaxsparse.transforms.state import LatentState, SparsifyState

LAYOUT = 2  # version of the states that `checkpoints.save` writes


class _Sparsify(NamedTuple):
    """`SparsifyState` in layout 1."""

    step: Any
    key: Any
    masks: Any
    previous: Any
    replaced: Any
    memory: Any
    inner_state: Any


class _Latent(NamedTuple):
    """`LatentState` in layout 1."""

    step: Any
    key: Any
    masks: Any
    memory: Any
    inner_state: Any


def _is_node(node: Any) -> bool:
    return isinstance(node, SparsifyState | LatentState | _Sparsify | _Latent)


def as_saved(like: TrainState) -> TrainState:
    """Converts a state to layout 1, as the target for loading an old checkpoint.

    Args:
      like: a state in the present layout, placed on devices, whose leaves lead with the
        replicate axis.

    Returns:
      A state with the structure, shapes and shardings of layout 1. Values are
      irrelevant.
    """

    def convert(node: Any) -> Any:
        if not _is_node(node):
            return node
        each = node.skipped_updates  # one per replicate, with the sharding of the keys
        # Any key will do: only shape, dtype and sharding matter for loading.
        keys = jax.random.split(jax.random.key(0), each.shape[0])
        fields = node._asdict() | {"key": multihost.device_put(keys, each.sharding)}
        old = _Sparsify if isinstance(node, SparsifyState) else _Latent
        return old(**{name: fields[name] for name in old._fields})

    return jax.tree.map(convert, like, is_leaf=_is_node)


def renew(saved: TrainState, like: TrainState) -> TrainState:
    """Converts a loaded state from layout 1 to the present layout.

    Args:
      saved: state that was loaded into `as_saved(like)`.
      like: a state in the present layout; `skipped_updates` is copied from it.

    Returns:
      The saved state in the present layout. The random key becomes raw key data, or
      None for methods that draw no random numbers.
    """

    def convert(now: Any, old: Any) -> Any:
        if not _is_node(now):
            return old
        fields = old._asdict() | {"skipped_updates": jnp.copy(now.skipped_updates)}
        if isinstance(now, SparsifyState):
            draws = now.key is not None
            fields["key"] = jax.random.key_data(old.key) if draws else None
        return type(now)(**{name: fields[name] for name in now._fields})

    return jax.tree.map(convert, like, saved, is_leaf=_is_node)
