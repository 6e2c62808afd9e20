"""Latent-dense training: dense weights are stored, sparse ones are computed with.

The parameters in the training loop are the dense weights. The network computes with
`forward_params(params, opt_state)`, which is exactly zero outside the masks, and the
gradient is taken there:

    weights = transforms.forward_params(params, opt_state)
    grads = jax.grad(loss)(weights)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)

The masks always belong to the current parameters: an update chooses them after its
step, for the next forward pass. The methods:

    method            trained weights                     regularization
    straight_through  all, or only the active ones        none
    top_kast          the active ones and some more       toward 0, stronger outside
    sr_ste            all                                 toward 0 outside the masks

`self_sparse` and `project` also build on it: there the weights themselves are zero
outside the masks.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from jaxsparse import arguments, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms.fitting import fit_grads, is_placeholder
from jaxsparse.transforms.part_states import check_shapes, keep_outside
from jaxsparse.transforms.state import LatentState
from jaxsparse.types import Grads, Masks, Params, Step

# (params, step) -> masks of the forward pass, and masks of the trained weights or None
# if all are trained.
MaskFn = Callable[[Params, Step], tuple[Masks, Masks | None]]
RegularizerGrad = Callable[[Masks, Masks | None, Params], Grads]


@arguments.check(inner=arguments.optimizer)
def latent(
    inner: optax.GradientTransformation,
    mask_fn: MaskFn,
    *,
    refresh_at: Callable[[Step], Bool[Array, ""]],
    regularizer_grad: RegularizerGrad | None = None,
    trains_all: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer of dense weights that are computed with through masks.

    With weights w, masks m of the forward pass, masks b of the weights to train, and
    the gradient g at m * w, one update

    1. gets u from `inner` for the gradient b * (g + r) and the weights w, where r is
       the gradient of the regularizer;
    2. returns b * u;
    3. if `refresh_at(t + 1)`, chooses masks for w + u. If one of these weights is not
       finite, the masks stay as they are, and `skipped_updates` in the state is
       incremented.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation except
        `optax.lookahead`, which must wrap `latent` instead.
      mask_fn: called as `mask_fn(params, step)`; returns the masks m and b, or m and
        None if all weights are trained. It must be traceable.
      refresh_at: decides at which steps the masks of the forward pass are chosen anew;
        called with the number of updates made so far, int32 scalar.
      regularizer_grad: called as `regularizer_grad(m, b, params)`; returns the gradient
        of a regularizer, which is added to the gradient. None for no regularizer.
      trains_all: whether `mask_fn` returns None for b, so that all weights are trained.

    Returns:
      A transformation whose state is a `LatentState`.

    Raises:
      ValueError: from `init`, if the parameters are `optax.LookaheadParams` or
        `mask_fn` contradicts `trains_all`, or not all weights are trained and `inner`
        is reparameterized with trained parts that several weights share; from `update`,
        if `params` is None or the gradient of a prunable leaf is None.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> LatentState:
        if isinstance(params, optax.LookaheadParams):
            raise ValueError(
                "params: expected plain parameters, since latent-dense methods have no "
                "masks for slow ones, got LookaheadParams; wrap this optimizer in "
                "optax.lookahead instead"
            )
        step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        if is_placeholder(params):
            masks, trained = params, None if trains_all else params
        else:
            masks, trained = mask_fn(params, step)
        if trains_all != (trained is None):
            raise ValueError(
                f"trains_all: expected {trained is None}, since `mask_fn` returns "
                f"{'None' if trained is None else 'masks'} for the trained weights, "
                f"got {trains_all}"
            )
        # A copy: `trained` may be the same arrays as `masks`, and two leaves that share
        # a buffer cannot both be donated.
        trained = jax.tree.map(jnp.copy, trained)
        inner_state = inner.init(params)
        check_shapes(trained, inner_state)
        return LatentState(step, masks, skipped, trained, inner_state)

    def update(
        grads: Grads,
        state: LatentState,
        params: Params | None = None,
        *,
        growth_grads: Any = None,
        **extra: Any,
    ) -> tuple[Params, LatentState]:
        # Accepted as in `sparsify`, so that a training loop can pass it to any method.
        # Latent-dense methods choose masks by magnitude alone.
        del growth_grads
        if params is None:
            raise ValueError(
                "params: expected the dense parameters, got None; call "
                "tx.update(grads, opt_state, params)"
            )
        grads = fit_grads(state.masks, grads, params)
        trained = state.memory
        if regularizer_grad is not None:
            grads = _add(grads, regularizer_grad(state.masks, trained, params))
        if trained is not None:
            grads = masks_lib.apply(trained, grads)
        updates, inner_state = inner.update(grads, state.inner_state, params, **extra)
        if trained is not None:
            # Masking the gradient is not enough: momentum and weight decay of `inner`
            # would move weights that are not trained.
            updates = masks_lib.apply(trained, updates)
            inner_state = keep_outside(trained, state.inner_state, inner_state)
        step = optax.safe_increment(state.step)
        # The masks belong to the parameters that the caller has after this update.
        weights = optax.apply_updates(params, updates)
        current = state.masks, trained
        (masks, trained), skipped = jax.lax.cond(
            refresh_at(step),
            lambda: _refresh(mask_fn(weights, step), current, weights),
            lambda: (current, jnp.zeros((), jnp.int32)),
        )
        return updates, LatentState(
            step, masks, state.skipped_updates + skipped, trained, inner_state
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _refresh(new: Any, current: Any, weights: Params) -> tuple[Any, Array]:
    """Returns new masks, or the old ones if a weight is not finite.

    Args:
      new: the new masks of the forward pass and of training.
      current: the old masks of the forward pass and of training.
      weights: the dense weights that `new` was chosen for.

    Returns:
      The masks, and the number of skipped mask updates, 0 or 1.
    """
    # Only prunable weights are looked at: no mask depends on the others.
    finite = select.all_finite(
        masks_lib.tree_map(lambda _, leaf: leaf, current[0], weights)
    )
    selected = jax.tree.map(
        lambda after, before: jnp.where(finite, after, before), new, current
    )
    return selected, jnp.where(finite, jnp.int32(0), jnp.int32(1))


def _add(grads: Grads, regularizer: Any) -> Grads:
    """Adds the gradient of the regularizer, in the dtype of the gradient.

    Args:
      grads: the gradient.
      regularizer: gradient of the regularizer; None for leaves that are not prunable.
    """
    return jax.tree.map(
        lambda term, grad: grad if term is None else grad + term.astype(grad.dtype),
        regularizer,
        grads,
        is_leaf=lambda leaf: leaf is None,
    )
