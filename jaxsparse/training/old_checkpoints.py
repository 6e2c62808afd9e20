"""Reads optimizer states that were saved in an earlier layout.

    layout    state of a sparse optimizer
    1         a typed random key, even for methods that draw no random numbers; no
              `skipped_updates`; otherwise as layout 2
    2         boolean masks in `masks`, those of the last update in `previous`, and for
              dynamic methods those of all weights that were active in `memory.ever`
    3         one code for each weight in `codes`, see `transforms.mask_codes`

Checkpoints of earlier layouts are first read in their original layout, so that the
recorded hash can be verified, and then converted. Latent-dense methods still store
masks, as in layout 2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsparse import multihost
from jaxsparse.training.state import TrainState
from jaxsparse.transforms import mask_codes
from jaxsparse.transforms.grow import EverActive
from jaxsparse.transforms.state import LatentState, SparsifyState

LAYOUT = 3  # version of the states that `checkpoints.save` writes


class _EverActive(NamedTuple):
    """`grow.EverActive` in layouts 1 and 2."""

    ever: Any
    own: Any


class _Sparsify1(NamedTuple):
    """`SparsifyState` in layout 1."""

    step: Any
    key: Any
    masks: Any
    previous: Any
    replaced: Any
    memory: Any
    inner_state: Any


class _Sparsify2(NamedTuple):
    """`SparsifyState` in layout 2."""

    step: Any
    key: Any
    masks: Any
    previous: Any
    replaced: Any
    skipped_updates: Any
    memory: Any
    inner_state: Any


class _Latent1(NamedTuple):
    """`LatentState` in layout 1."""

    step: Any
    key: Any
    masks: Any
    memory: Any
    inner_state: Any


# By layout: the classes in place of `SparsifyState` and of `LatentState`.
_CLASSES = {1: (_Sparsify1, _Latent1), 2: (_Sparsify2, LatentState)}


def _is_node(node: Any) -> bool:
    return isinstance(
        node, SparsifyState | LatentState | _Sparsify1 | _Sparsify2 | _Latent1
    )


def as_saved(like: TrainState, layout: int) -> TrainState:
    """Converts a state to an earlier layout, as the target for loading a checkpoint.

    Args:
      like: a state in the present layout, placed on devices, whose leaves lead with the
        replicate axis.
      layout: the earlier layout.

    Returns:
      A state with the structure, shapes and shardings of that layout. Values are
      irrelevant.
    """
    sparsify, latent = _CLASSES[layout]

    def convert(node: Any) -> Any:
        if not _is_node(node):
            return node
        fields = node._asdict()
        if isinstance(node, SparsifyState):
            # The masks were arrays of their own, as states without shared buffers have.
            fields["masks"] = _masks(node.codes)
            fields["previous"] = _masks(node.codes)
            if isinstance(node.memory, EverActive):
                fields["memory"] = _EverActive(_masks(node.codes), node.memory.own)
        if layout == 1:
            each = node.skipped_updates  # one per replicate, sharded like the keys
            # Any key will do: only shape, dtype and sharding matter for loading.
            keys = jax.random.split(jax.random.key(0), each.shape[0])
            fields["key"] = multihost.device_put(keys, each.sharding)
        old = sparsify if isinstance(node, SparsifyState) else latent
        return old(**{name: fields[name] for name in old._fields})

    return jax.tree.map(convert, like, is_leaf=_is_node)


def _masks(codes: Any) -> Any:
    """Makes masks sharded like codes."""

    def convert(leaf: Any) -> Any:
        masks = jax.tree.leaves(mask_codes.active(leaf))[0]
        if mask_codes.is_packed(leaf):
            return multihost.device_put(masks, leaf.packed.sharding)
        return multihost.device_put(masks, leaf.sharding)

    return jax.tree.map(convert, codes, is_leaf=mask_codes.is_packed)


def renew(saved: TrainState, like: TrainState) -> TrainState:
    """Converts a loaded state from an earlier layout to the present layout.

    Args:
      saved: state that was loaded into `as_saved(like, layout)`.
      like: a state in the present layout. `skipped_updates` is copied from it if the
        earlier layout has none, and codes are packed as there.

    Returns:
      The saved state in the present layout. A typed random key becomes raw key data, or
      None for methods that draw no random numbers.
    """

    def convert(now: Any, old: Any) -> Any:
        if not _is_node(now):
            return old
        fields = {"skipped_updates": now.skipped_updates} | old._asdict()
        fields["skipped_updates"] = jnp.copy(fields["skipped_updates"])
        if isinstance(now, SparsifyState):
            if isinstance(old, _Sparsify1):
                draws = now.key is not None
                fields["key"] = jax.random.key_data(old.key) if draws else None
            fields["codes"] = _codes(old, now.codes)
            if isinstance(old.memory, _EverActive):
                fields["memory"] = EverActive(old.memory.own)
        return type(now)(**{name: fields[name] for name in now._fields})

    return jax.tree.map(convert, like, saved, is_leaf=_is_node)


def _codes(old: _Sparsify1 | _Sparsify2, like: Any) -> Any:
    """Computes codes from the masks of an earlier layout, packed like `like`."""
    records = isinstance(old.memory, _EverActive)
    ever = old.memory.ever if records else jax.tree.map(jnp.zeros_like, old.masks)

    def convert(leaf: Any, mask: Any, previous: Any, was: Any) -> Any:
        inside = jnp.where(previous, mask_codes.KEPT, mask_codes.NEW)
        outside = jnp.where(was, mask_codes.LEFT, 0)
        codes = jnp.where(mask, inside, outside).astype(jnp.uint8)
        if mask_codes.is_packed(leaf):
            return mask_codes.pack_like(codes, leaf)
        return codes

    trees = (old.masks, old.previous, ever)
    return jax.tree.map(convert, like, *trees, is_leaf=mask_codes.is_packed)
