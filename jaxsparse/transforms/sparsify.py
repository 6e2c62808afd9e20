"""A wrapper that makes any optax optimizer sparse.

`sparsify` wraps an optax optimizer and stores the masks in its state. The pruning and
dynamic sparse training methods call it with different `update_masks`.

It is a wrapper and not an element of `optax.chain` because three things must happen
around the optimizer, in a fixed order that a chain would let a caller get wrong. The
gradient is masked before clipping and momentum see it. Pruned weights are set to
exactly zero after the learning rate was applied. The optimizer state of newly active
weights is reset.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse import arguments, rng
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import (
    due_updates,
    fitting,
    mask_codes,
    skipped_step,
    state_reset,
)
from jaxsparse.transforms.part_states import keep_frozen
from jaxsparse.transforms.protocols import (
    InitMasks,
    Observe,
    UpdateAt,
    UpdateMasks,
)
from jaxsparse.transforms.scale_by_density import takes_masks
from jaxsparse.transforms.state import SparsifyState
from jaxsparse.types import Grads, Masks, Params, RandomKey


@arguments.check(
    inner=arguments.optimizer,
    key=arguments.optional(arguments.key),
)
def sparsify(
    inner: optax.GradientTransformation,
    init_masks: InitMasks,
    *,
    update_masks: UpdateMasks | None = None,
    update_at: UpdateAt | None = None,
    init_memory: Any = None,
    observe: Observe | None = None,
    skip_update: bool = False,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimizer so that weights outside the masks stay exactly zero.

    With dense gradient :math:`g`, masks :math:`m` and weights :math:`w`, one update

    1. sets :math:`m' = U(m, w, g, t)` if `update_at(t)`, else :math:`m' = m`;
    2. if the masks changed, here or by `replace_masks`, resets the optimizer state of
       every weight outside :math:`m \cap m'` to its value at `inner.init`;
    3. gets :math:`u` from `inner` for the gradient :math:`m' \odot g` and the weights
       :math:`m' \odot w`, or sets :math:`u = 0` if `update_at(t)` and `skip_update`;
    4. returns :math:`u` inside :math:`m'` and :math:`-w` outside.

    The returned transformation's `update` accepts the keyword argument `growth_grads`,
    which `update_masks` receives instead of :math:`g`. It is a tree, or a function of
    the masked weights that is called only if the masks are updated, for example to
    compute the gradient on another batch.

    `optax.apply_updates` then gives :math:`w + u` inside the masks and exactly 0
    outside, for finite weights, in every dtype. For weights that are not finite, and
    for transformations outside this wrapper, use `transforms.apply_updates`. Masks are
    state, not constants: all levels of a lottery ticket run share one compiled step,
    and a checkpoint of the state contains the masks.

    If a weight inside the masks or a score that the masks would be chosen by
    (`MaskUpdate.finite`) is not finite, the mask update is skipped: masks and memory
    stay as they are, and `skipped_updates` in the state is incremented. Everything else
    happens as in any mask update, including `skip_update`.

    Args:
      inner: the optimizer to wrap, for example
        `optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))`. Around
        `optax.lookahead`, parameters are `optax.LookaheadParams`, and the masks apply
        to both fast and slow parameters.
      init_masks: makes the initial masks from the parameters; `masks.ones` to start
        dense.
      update_masks: chooses the new masks at a mask update; None for masks that never
        change.
      update_at: decides at which steps masks are updated. Required if `update_masks` is
        given, and not allowed otherwise.
      init_memory: called as `init_memory(params, masks)` to make the method's initial
        memory, which is its own state between updates; None for methods without memory.
      observe: updates the memory from the dense gradient at every step, before any mask
        update; None if only mask updates change the memory.
      skip_update: whether to skip the step of `inner` at mask updates. Then surviving
        weights and their optimizer state stay as they are.
      key: random key for `update_masks`, typed or raw key data (uint32). None for a
        method that draws nothing; the state then contains no key.

    Returns:
      A transformation whose `update` requires `params` and passes extra keyword
      arguments on to `inner` and to `update_masks`. With `scale_by_density` in it,
      `inner` also gets the masks :math:`m'`.

    Raises:
      ValueError: if only one of `update_masks` and `update_at` is given; from `update`,
        if `params` is None, the gradient of a prunable leaf is None, or gradients do
        not fit `params`.

    Examples:
      >>> tx = transforms.sparsify(optax.sgd(0.1, momentum=0.9), masks.ones)
      >>> ticket = prune.prune(params, 0.9)  # 8 of 80 weights
      >>> opt_state = transforms.replace_masks(tx.init(params), ticket)
      >>> grads = jax.grad(loss)(params, inputs)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = optax.apply_updates(params, updates)
      >>> int((params["params"]["layers_0"]["kernel"] != 0).sum())
      6
      >>> int((params["params"]["layers_2"]["kernel"] != 0).sum())
      2

    References:
      Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets
      Winners. 2020. arXiv:1911.11134, algorithm 1, which this sequence of steps
      generalizes.
    """
    if (update_masks is None) != (update_at is None):
        given = "update_at" if update_masks is None else "update_masks"
        raise ValueError(
            f"{given}: expected both update_masks and update_at or neither, got only "
            f"{given}"
        )
    inner = optax.with_extra_args_support(inner)
    typed = None if key is None else rng.as_typed(key)
    impl = None if typed is None else jax.random.key_impl(typed)

    def init(params: Params) -> SparsifyState:
        # The placeholder must appear in the state wherever masks do, so that
        # `optax.tree.map_params` treats them like parameters.
        if fitting.is_placeholder(params):
            codes = masks = params
        else:
            codes = mask_codes.first(init_masks(_fast(params)))
            masks = mask_codes.active(codes)
        params = masks_lib.apply(_for_params(params, masks), params)
        return SparsifyState(
            step=jnp.zeros((), jnp.int32),
            # Copies, here and below: donating the state must not delete the caller's
            # arrays, and two leaves that share a buffer cannot both be donated.
            key=None if typed is None else jnp.copy(jax.random.key_data(typed)),
            codes=codes,
            replaced=jnp.zeros((), bool),
            skipped_updates=jnp.zeros((), jnp.int32),
            memory=None if init_memory is None else init_memory(_fast(params), masks),
            inner_state=inner.init(params),
        )

    def update(
        grads: Grads,
        state: SparsifyState,
        params: Params | None = None,
        *,
        growth_grads: Any = None,
        **extra: Any,
    ) -> tuple[Params, SparsifyState]:
        if params is None:
            raise ValueError(
                "params: expected the parameters at which the gradient was taken, got "
                "None; call tx.update(grads, opt_state, params)"
            )
        grads = fitting.fit_grads(state.masks, grads, _fast(params))
        # Before the mask update, which thus sees a memory that includes this gradient.
        if observe is not None:
            state = state._replace(memory=observe(state.memory, grads))
        due = jnp.zeros((), bool) if update_at is None else update_at(state.step)
        update_grads = fitting.update_grads(grads, growth_grads, _fast(params))
        changes = due_updates.update_masks_if_due(
            update_masks, due, update_grads, state, _fast(params), extra, impl
        )
        masks = mask_codes.active(changes.codes)
        param_masks = _for_params(params, masks)
        zeroed = None if changes.zeroed is None else _for_params(params, changes.zeroed)
        # Weight decay and other terms of `inner` must see the weights as they will be:
        # zero where pruned and where restarted.
        params_in = masks_lib.apply(param_masks, params)
        if zeroed is not None:
            params_in = masks_lib.apply(
                jax.tree.map(jnp.logical_not, zeroed), params_in
            )
        # A select, which XLA fuses with the step. A conditional would copy the
        # optimizer state at every step.
        unchanged = ~(due | state.replaced)
        inner_state = state_reset.reset_outside(
            jax.tree.map(lambda kept: kept | unchanged, mask_codes.kept(changes.codes)),
            state.inner_state,
            keep_frozen(inner.init(params_in), state.inner_state),
        )
        masked = masks_lib.apply(masks, grads)
        if takes_masks(state.inner_state):
            extra = extra | {"masks": masks}
        if skip_update and update_masks is not None:
            updates, inner_state = skipped_step.step_unless(
                due, inner, masked, inner_state, params_in, extra
            )
        else:
            updates, inner_state = inner.update(masked, inner_state, params_in, **extra)
        return _leave(param_masks, updates, params, zeroed), SparsifyState(
            step=optax.safe_increment(state.step),
            key=state.key,
            codes=changes.codes,
            replaced=jnp.zeros_like(state.replaced),
            skipped_updates=state.skipped_updates + changes.skipped,
            memory=changes.memory,
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _fast(params: Params) -> Params:
    """Returns the weights the gradient is taken at: for lookahead, the fast ones."""
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def _for_params(params: Params, masks: Masks) -> Masks:
    """Returns the masks, for lookahead once for fast and once for slow weights."""
    if isinstance(params, optax.LookaheadParams):
        return optax.LookaheadParams(masks, masks)
    return masks


def _leave(
    masks: Masks, updates: Params, params: Params, zeroed: Masks | None
) -> Params:
    """Computes the final updates (step 4 of `sparsify`).

    Args:
      masks: the new masks; None where a leaf is not prunable.
      updates: the updates from the inner optimizer.
      params: the weights before the update.
      zeroed: masks of active weights that restart from zero, or None.

    Returns:
      The inner update inside the masks and -w outside. For a weight in `zeroed`, the
      inner update minus w, so that the new weight is the inner update.
    """

    def leave(mask: Any, update: Any, param: Any, zero: Any = None) -> Any:
        if mask is None:
            return update
        # An update narrower than its weight is widened: -w rounded to bfloat16 added
        # to a float32 w would not be exactly 0.
        dtype = jnp.promote_types(update.dtype, param.dtype)
        wide, weight = update.astype(dtype), param.astype(dtype)
        if zero is not None:
            wide = jnp.where(zero, wide - weight, wide)
        return jnp.where(mask, wide, -weight)

    trees = (updates, params) if zeroed is None else (updates, params, zeroed)
    return jax.tree.map(leave, masks, *trees, is_leaf=lambda leaf: leaf is None)
