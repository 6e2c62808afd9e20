"""Performs a mask update if it is due, without branches in the caller's code."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxsparse import masks as masks_lib
from jaxsparse import select
from jaxsparse.transforms import fitting
from jaxsparse.transforms.protocols import (
    MaskUpdate,
    UpdateMasks,
)
from jaxsparse.transforms.state import SparsifyState
from jaxsparse.types import Masks, Params


def update_masks_if_due(
    update_masks: UpdateMasks | None,
    due: Bool[Array, ""],
    grads: Any,
    state: SparsifyState,
    params: Params,
    extra: dict[str, Any],
    impl: Any,
) -> tuple[MaskUpdate, Int[Array, ""]]:
    """Performs the mask update if it is due (step 1 of `sparsify`).

    Args:
      update_masks: the method's mask update, or None.
      due: whether a mask update is due at this step; boolean scalar.
      grads: the dense gradient, or the caller's `growth_grads`.
      state: the current state.
      params: the weights; for lookahead the fast ones.
      extra: further keyword arguments for `update_masks`.
      impl: PRNG implementation of the key in `state`, or None.

    Returns:
      The mask update, or the current masks and memory if no update is due or a score is
      not finite; and the number of skipped mask updates, 0 or 1.
    """
    zero = jnp.zeros((), jnp.int32)
    if update_masks is None:
        return MaskUpdate(state.masks, state.memory), zero
    no_weights = jax.tree.map(jnp.zeros_like, state.masks)
    key_data = state.key

    def run_update(memory: Any) -> tuple[MaskUpdate, Int[Array, ""]]:
        weights = masks_lib.apply(state.masks, params)
        new = update_masks(
            state.masks,
            weights,
            grads(weights) if fitting.is_function(grads) else grads,
            step=state.step,
            key=None
            if key_data is None
            else jax.random.wrap_key_data(key_data, impl=impl),
            memory=memory,
            inner_state=state.inner_state,
            **extra,
        )
        finite = select.all_finite(weights, state.masks)
        if new.finite is not None:
            finite &= new.finite
        old = _unchanged(new, state.masks, memory, no_weights)
        # A select: `finite` may differ between replicates, so a cond would become a
        # select under vmap anyway.
        chosen = jax.tree.map(
            lambda after, before: jnp.where(finite, after, before),
            new._replace(finite=None),
            old,
        )
        return chosen, jnp.where(finite, zero, 1)

    # Both branches of the cond must return the same structure, and only a trace shows
    # whether the method sets `reset` and `zeroed`.
    unused, _ = jax.eval_shape(run_update, state.memory)

    def keep_masks(memory: Any) -> tuple[MaskUpdate, Int[Array, ""]]:
        return _unchanged(unused, state.masks, memory, no_weights), zero

    return jax.lax.cond(due, run_update, keep_masks, state.memory)


def _unchanged(new: Any, masks: Masks, memory: Any, no_weights: Masks) -> MaskUpdate:
    """Returns a mask update that changes nothing, with the same fields set as `new`.

    Args:
      new: a mask update, perhaps abstract; only which fields are None is used.
      masks: the current masks.
      memory: the method's current state.
      no_weights: masks that are False everywhere.
    """
    return MaskUpdate(
        masks,
        memory,
        reset=None if new.reset is None else no_weights,
        zeroed=None if new.zeroed is None else no_weights,
    )
