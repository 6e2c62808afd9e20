"""Performs a mask update if it is due, without branches in the caller's code."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxsparse import masks as masks_lib
from jaxsparse import select
from jaxsparse.transforms import fitting, mask_codes
from jaxsparse.transforms.protocols import MaskUpdate, UpdateMasks
from jaxsparse.transforms.state import SparsifyState
from jaxsparse.types import Masks, Params


class Changes(NamedTuple):
    """What a mask update changes.

    Attributes:
      codes: codes of the weights after the update, see `mask_codes`.
      memory: the method's own state after it.
      zeroed: masks of weights whose value restarts from zero although they are active
        before and after, or None if there are none.
      skipped: number of skipped mask updates, 0 or 1; int32.
    """

    codes: Any
    memory: Any
    zeroed: Masks | None
    skipped: Int[Array, ""]


def update_masks_if_due(
    update_masks: UpdateMasks | None,
    due: Bool[Array, ""],
    grads: Any,
    state: SparsifyState,
    params: Params,
    extra: dict[str, Any],
    impl: Any,
) -> Changes:
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
      The changes; none if no update is due, and none of the masks and of the memory if
      a score is not finite.
    """
    zero = jnp.zeros((), jnp.int32)
    if update_masks is None:
        return Changes(state.codes, state.memory, None, zero)
    key_data = state.key

    def run_update(codes: Any, memory: Any) -> Changes:
        masks = mask_codes.active(codes)
        weights = masks_lib.apply(masks, params)
        new = update_masks(
            masks,
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
        finite = select.all_finite(weights, masks)
        if new.finite is not None:
            finite &= new.finite
        no_weights = jax.tree.map(jnp.zeros_like, masks)
        old = MaskUpdate(
            masks,
            memory,
            reset=None if new.reset is None else no_weights,
            zeroed=None if new.zeroed is None else no_weights,
        )
        # A select: `finite` may differ between replicates, so a cond would become a
        # select under vmap anyway.
        chosen = jax.tree.map(
            lambda after, before: jnp.where(finite, after, before),
            new._replace(finite=None),
            old,
        )
        codes = mask_codes.change(
            codes, chosen.masks, replaced=state.replaced, reset=chosen.reset
        )
        skipped = jnp.where(finite, zero, 1)
        return Changes(codes, chosen.memory, chosen.zeroed, skipped)

    # Both branches of the cond must return the same structure, and only a trace shows
    # whether the method sets `zeroed`.
    zeroed = jax.eval_shape(run_update, state.codes, state.memory).zeroed

    def keep_masks(codes: Any, memory: Any) -> Changes:
        none = jax.tree.map(lambda mask: jnp.zeros(mask.shape, bool), zeroed)
        return Changes(codes, memory, none, zero)

    return jax.lax.cond(due, run_update, keep_masks, state.codes, state.memory)
