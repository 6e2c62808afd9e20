"""The one wrapper that makes any optimiser sparse.

`sparsify` surrounds an optax optimiser and owns the masks. Every method of pruning
and regrowth is a call of it with a different `update_masks`.

It is a wrapper and not a link of `optax.chain` because three things have to happen
around the optimiser, in order, and a chain would let a caller misplace them: the
gradient is masked before clipping and momentum see it; the weights that leave are
sent to exactly zero after the learning rate was applied; what the optimiser
remembers of weights that arrive starts afresh.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from jaxsparse import arguments, keys, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import alignment
from jaxsparse.transforms.protocols import (
    InitMasks,
    MaskUpdate,
    Observe,
    UpdateAt,
    UpdateMasks,
)
from jaxsparse.transforms.state import SparsifyState
from jaxsparse.types import Grads, Masks, Params, RandomKey


@arguments.check(inner=arguments.optimizer)
def sparsify(
    inner: optax.GradientTransformation,
    init_masks: InitMasks,
    *,
    update_masks: UpdateMasks | None = None,
    update_at: UpdateAt | None = None,
    init_memory: Any = None,
    observe: Observe | None = None,
    skip_inner: bool = False,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that weights outside the masks stay exactly zero.

    With dense gradient :math:`g`, masks :math:`m` and weights :math:`w`, one update

    1. sets :math:`m' = U(m, w, g, t)` when `update_at(t)`, else :math:`m' = m`;
    2. when the masks changed, here or by `replace_masks`, sets what `inner`
       remembers of every weight outside :math:`m \cap m'` to its value at `inner.init`;
    3. gets :math:`u` from `inner` for the gradient :math:`m' \odot g` and the weights
       :math:`m' \odot w`, or takes :math:`u = 0` when `update_at(t)` and `skip_inner`;
    4. returns :math:`u` inside :math:`m'` and :math:`-w` outside.

    `update` takes `growth_grads` by name: what `update_masks` is to see instead of
    :math:`g`, a tree or a function of the masked weights that is called only when the
    masks change, such as the gradient on another batch.

    `optax.apply_updates` then gives :math:`w + u` inside and exactly 0 outside, for
    finite weights, in every dtype; see `transforms.apply_updates` for weights that are
    not finite, and for what stands outside. Masks are state, not constants: all levels
    of a lottery run share one compiled step, and a checkpoint of the state holds them.

    A change of masks that would be chosen by a number that is not finite, a weight
    inside the masks or another score (`MaskUpdate.finite`), is left out: masks and
    memory stay, and `skipped_updates` of the state counts it. Everything else is as in
    any update that changes masks, `skip_inner` included.

    Args:
      inner: any optimiser, such as
        `optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))`. Around
        `optax.lookahead`, parameters are `optax.LookaheadParams`, and the masks hold
        for the fast and the slow ones.
      init_masks: makes the first masks; `masks.dense` to begin dense.
      update_masks: how masks change; None for masks that never change.
      update_at: when they change; given if and only if `update_masks` is.
      init_memory: called as `init_memory(params, masks)` for what the method
        remembers at first; None for methods that remember nothing.
      observe: how that changes at every update, before the masks may.
      skip_inner: on updates that change the masks, leave the surviving weights and
        what the optimiser remembers of them as they are.
      key: where `update_masks` draws from, a typed key or raw key data; None for a
        method that draws nothing, whose state then holds no key.

    Returns:
      A transformation whose `update` needs `params` and hands extra keyword
      arguments to `inner` and to `update_masks`.

    Raises:
      ValueError: if one of `update_masks` and `update_at` is given alone; and from
        `update`, if `params` is None or the gradient of a prunable leaf is.

    Examples:
      >>> tx = sparsify(optax.sgd(0.1, momentum=0.9), masks.dense)
      >>> opt_state = replace_masks(tx.init(params), ticket)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = optax.apply_updates(params, updates)

    References:
      Evci et al., Rigging the Lottery: Making All Tickets Winners, 2020,
      arXiv:1911.11134, algorithm 1, whose order of steps this generalises.
    """
    if (update_masks is None) != (update_at is None):
        given = "update_at" if update_masks is None else "update_masks"
        raise ValueError(
            f"{given}: given alone; wanted both update_masks and update_at, or none"
        )
    inner = optax.with_extra_args_support(inner)
    typed = None if key is None else keys.as_typed(key)
    impl = None if typed is None else jax.random.key_impl(typed)

    def init(params: Params) -> SparsifyState:
        masks = params if is_placeholder(params) else init_masks(_fast(params))
        params = masks_lib.apply(_like(params, masks), params)
        return SparsifyState(
            step=jnp.zeros((), jnp.int32),
            # Copies, here and below: a donated state takes nothing of the caller's
            # along, and two leaves in one buffer cannot both be donated.
            key=None if typed is None else jnp.copy(jax.random.key_data(typed)),
            masks=masks,
            previous=jax.tree.map(jnp.copy, masks),
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
                "params: came None; wanted the parameters the gradient was taken at; "
                "call tx.update(grads, opt_state, params)"
            )
        check_grads(state.masks, grads)
        if observe is not None:
            state = state._replace(memory=observe(state.memory, grads))
        now = jnp.zeros((), bool) if update_at is None else update_at(state.step)
        seen = grads if growth_grads is None else growth_grads
        new, skipped = _choose(
            update_masks, now, seen, state, _fast(params), extra, impl
        )
        held = _like(params, new.masks)
        fresh = None if new.zeroed is None else _like(params, new.zeroed)
        params_in = masks_lib.apply(held, params)
        if fresh is not None:
            params_in = masks_lib.apply(jax.tree.map(jnp.logical_not, fresh), params_in)

        def reset(old: optax.OptState) -> tuple[optax.OptState, Masks]:
            first = inner.init(params_in)
            kept = alignment.reset_outside(_survivors(state, new), old, first)
            return kept, new.masks

        inner_state, previous = jax.lax.cond(
            now | state.replaced,
            reset,
            lambda old: (old, state.previous),
            state.inner_state,
        )

        def step_inner(old: optax.OptState) -> tuple[Params, optax.OptState]:
            masked = masks_lib.apply(new.masks, grads)
            return inner.update(masked, old, params_in, **extra)

        if skip_inner and update_masks is not None:
            like, state_like = jax.eval_shape(step_inner, inner_state)
            updates, inner_state = jax.lax.cond(
                now,
                # A step may widen the state, as that of bfloat16 weights does where
                # the gradient is float32; left out, it is widened all the same.
                lambda old: (
                    jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like),
                    jax.tree.map(_as_dtype_of, old, state_like),
                ),
                step_inner,
                inner_state,
            )
        else:
            updates, inner_state = step_inner(inner_state)
        return _leave(held, updates, params, fresh), SparsifyState(
            step=optax.safe_increment(state.step),
            key=state.key,
            masks=new.masks,
            previous=previous,
            replaced=jnp.zeros_like(state.replaced),
            skipped_updates=state.skipped_updates + skipped,
            memory=new.memory,
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _choose(
    update_masks: UpdateMasks | None,
    now: Bool[Array, ""],
    grads: Any,
    state: SparsifyState,
    params: Params,
    extra: dict[str, Any],
    impl: Any,
) -> tuple[MaskUpdate, Int[Array, ""]]:
    """Step 1: what the method decides if it is due, else everything as it was.

    Returns:
      That, and the number of changes left out since a score was not finite, 0 or 1.
    """
    nothing = jnp.zeros((), jnp.int32)
    if update_masks is None:
        return MaskUpdate(state.masks, state.memory), nothing
    none_of = jax.tree.map(jnp.zeros_like, state.masks)
    words = state.key

    def move(memory: Any) -> tuple[MaskUpdate, Int[Array, ""]]:
        weights = masks_lib.apply(state.masks, params)
        new = update_masks(
            state.masks,
            weights,
            grads(weights) if _is_function(grads) else grads,
            step=state.step,
            key=None if words is None else jax.random.wrap_key_data(words, impl=impl),
            memory=memory,
            inner_state=state.inner_state,
            **extra,
        )
        finite = select.all_finite(weights, state.masks)
        if new.finite is not None:
            finite &= new.finite
        old = _unchanged(new, state.masks, memory, none_of)
        # A select, since replicates under vmap may differ in it.
        chosen = jax.tree.map(
            lambda now, before: jnp.where(finite, now, before),
            new._replace(finite=None),
            old,
        )
        return chosen, jnp.where(finite, nothing, 1)

    unused, _ = jax.eval_shape(move, state.memory)

    def stay(memory: Any) -> tuple[MaskUpdate, Int[Array, ""]]:
        return _unchanged(unused, state.masks, memory, none_of), nothing

    return jax.lax.cond(now, move, stay, state.memory)


def _unchanged(new: Any, masks: Masks, memory: Any, none_of: Masks) -> MaskUpdate:
    """An update that changes nothing, with the fields that another one has."""
    return MaskUpdate(
        masks,
        memory,
        reset=None if new.reset is None else none_of,
        zeroed=None if new.zeroed is None else none_of,
    )


def _as_dtype_of(leaf: Any, like: Any) -> Any:
    return leaf if leaf.dtype == like.dtype else leaf.astype(like.dtype)


def is_placeholder(params: Any) -> bool:
    """Says whether `init` is asked by `optax.tree.map_params` what belongs to weights.

    It hands over one node without leaves, of a type of its own, and looks where in the
    state the node comes back.
    """
    alone = jax.tree.structure(params).num_nodes == 1 and not jax.tree.leaves(params)
    return alone and not isinstance(params, Mapping | Sequence | None)


def check_grads(masks: Masks, grads: Grads) -> None:
    """Refuses None where a prunable leaf needs its gradient.

    Raises:
      ValueError: naming the leaf.
    """
    there = tree.named_leaves(grads)
    for name in tree.names(masks):
        if name not in there:
            raise ValueError(
                f"grads: expected the gradient of {name}, which is prunable, got None; "
                "give zeros, or leave the leaf out with `prunable=`"
            )


def _is_function(grads: Any) -> bool:
    """Tells a function from a tree, which may be callable too, as of equinox."""
    return callable(grads) and jax.tree.structure(grads) == jax.tree.structure(0)


def _fast(params: Params) -> Params:
    """The weights the gradient is taken at: lookahead carries slow ones besides."""
    return params.fast if isinstance(params, optax.LookaheadParams) else params


def _like(params: Params, masks: Masks) -> Masks:
    """The masks, once for the fast and once for the slow weights of lookahead."""
    if isinstance(params, optax.LookaheadParams):
        return optax.LookaheadParams(masks, masks)
    return masks


def _survivors(state: SparsifyState, new: MaskUpdate) -> Masks:
    """The weights of which the optimiser goes on remembering what it does."""
    kept = jax.tree.map(jnp.logical_and, state.previous, new.masks)
    if new.reset is None:
        return kept
    return jax.tree.map(lambda mask, reset: mask & ~reset, kept, new.reset)


def _leave(
    masks: Masks, updates: Params, params: Params, zeroed: Masks | None
) -> Params:
    """Step 4. A narrow update is widened to its weight, or w - w would not be 0."""

    def leave(mask: Any, update: Any, param: Any, zero: Any = None) -> Any:
        if mask is None:
            return update
        dtype = jnp.promote_types(update.dtype, param.dtype)
        wide, weight = update.astype(dtype), param.astype(dtype)
        if zero is not None:
            wide = jnp.where(zero, wide - weight, wide)
        return jnp.where(mask, wide, -weight)

    trees = (updates, params) if zeroed is None else (updates, params, zeroed)
    return jax.tree.map(leave, masks, *trees, is_leaf=lambda leaf: leaf is None)
