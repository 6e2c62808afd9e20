"""Reading optimizer states that were saved in an earlier layout.

Until layout 2 every sparse state held a typed random key, also those of methods that
draw nothing, and no `skipped_updates`. Checkpoints of such runs are read as what they
were, so that their recorded hash can be checked, and then renewed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsparse import multihost
from jaxsparse.training.state import TrainState
from jaxsparse.transforms.state import LatentState, SparsifyState

LAYOUT = 2  # of the states that are saved now


class _Sparsify(NamedTuple):
    """`SparsifyState` of layout 1."""

    step: Any
    key: Any
    masks: Any
    previous: Any
    replaced: Any
    memory: Any
    inner_state: Any


class _Latent(NamedTuple):
    """`LatentState` of layout 1."""

    step: Any
    key: Any
    masks: Any
    memory: Any
    inner_state: Any


def _is_node(node: Any) -> bool:
    return isinstance(node, SparsifyState | LatentState | _Sparsify | _Latent)


def as_saved(like: TrainState) -> TrainState:
    """Returns a state as layout 1 had it, to load a checkpoint into.

    Args:
      like: a state of today's layout, placed; its leaves lead with replicates.
    """

    def convert(node: Any) -> Any:
        if not _is_node(node):
            return node
        each = node.skipped_updates  # one number a replicate
        keys = jax.random.split(jax.random.key(0), each.shape[0])
        fields = node._asdict() | {"key": multihost.device_put(keys, each.sharding)}
        old = _Sparsify if isinstance(node, SparsifyState) else _Latent
        return old(**{name: fields[name] for name in old._fields})

    return jax.tree.map(convert, like, is_leaf=_is_node)


def renew(saved: TrainState, like: TrainState) -> TrainState:
    """Returns a state of layout 1 as one of today's.

    Args:
      saved: what was loaded into `as_saved(like)`.
      like: a state of today's layout.
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
