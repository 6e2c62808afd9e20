"""Latent-dense training: dense weights are stored, and few of them are computed with.

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
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool

from jaxsparse import arguments, fan_axes, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import magnitude, update_schedules
from jaxsparse.transforms.init_masks import Distribution, Prunable
from jaxsparse.transforms.sparsify import fit_grads, is_placeholder
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
        `mask_fn` contradicts `trains_all`; from `update`, if `params` is None or the
        gradient of a prunable leaf is None.
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
        return LatentState(step, masks, skipped, trained, inner.init(params))

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


@arguments.check(
    sparsity=arguments.real,
    initial_sparsity=arguments.real,
    schedule=arguments.name_function_or_table,
    min_layer_density=arguments.real,
)
def straight_through(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    begin_step: int = 0,
    end_step: int = 0,
    update_every: int = 1,
    initial_sparsity: float = 0.0,
    schedule: str | Callable[[float], float] | Sequence[float] = "cubic",
    distribution: Distribution = "uniform",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    min_layer_density: float = 0.0,
    train_all: bool = True,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
) -> optax.GradientTransformationExtraArgs:
    """Computes with the largest weights and trains all: straight-through gradients.

    Weights outside the masks are zero in the forward pass, and the gradient taken there
    trains their stored values. They may become large enough to enter the masks, so
    masks need not be nested. With `train_all=False`, weights outside the masks keep
    their values instead, and become active again when other weights fall below them.
    This is gradual magnitude pruning without monotone masks.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights that the forward pass does not use, in
        [0, 1).
      begin_step: step at which a gradual schedule begins; before it the sparsity is
        `initial_sparsity`. By default the final sparsity holds from the first step on.
      end_step: step from which on the sparsity is exactly the final one.
      update_every: steps between mask updates, before and after `end_step`; at least 1.
      initial_sparsity: sparsity before `begin_step`, in [0, 1).
      schedule: "cubic", "linear" or "exponential"; or a function of the progress in
        [0, 1] that returns which fraction of the way from `initial_sparsity` to
        `sparsity` is done; or a sequence with the sparsity after each mask update up to
        `end_step`. Sparsities may decrease.
      distribution: "global" for one threshold over all layers; or how the weights of
        the forward pass are divided among layers: a name in `distributions.NAMES`
        ("uniform", "balanced", "er" or "erk"), or a function of masks and sparsity that
        returns the number of weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: the forward pass uses all of their weights. Must be empty if
        `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one. With
        distribution "global", it must be `blocks` or `channels`, with units of the same
        size in all layers.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights or structural units; other layers are pruned more to compensate. Only
        for distribution "global". With 0, as in the papers, a layer may lose all of its
        weights.
      train_all: whether all weights are trained, or only those in the masks.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    References:
      Bengio, Leonard, Courville. Estimating or Propagating Gradients Through Stochastic
      Neurons for Conditional Computation. 2013. arXiv:1308.3432 (straight-through).
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    table = update_schedules.gradual_sparsities(
        update_schedule, initial=initial_sparsity, final=sparsity, schedule=schedule
    )
    table = [Fraction(str(initial_sparsity)), *table]
    select_masks = magnitude.make_mask_fn(
        distribution=distribution,
        dense=dense,
        structure=structure,
        min_layer_density=min_layer_density,
        axes=axes,
    )

    def mask_fn(params: Params, step: Step) -> tuple[Masks, Masks | None]:
        everything = masks_lib.ones(params, prunable=prunable)
        # `step + 1` counts an update due at `step` itself, so that row 0 of the table
        # is the initial sparsity and row k the sparsity after k updates.
        index = update_schedules.update_index(update_schedule, step + 1)
        index = jnp.clip(index, 0, len(table) - 1)
        # The index does not count the update at `end_step` unless it lies a multiple of
        # `update_every` after `begin_step`.
        index = jnp.where(step >= end_step, len(table) - 1, index)
        masks = select_masks(everything, params, table, index)
        return masks, None if train_all else masks

    def refresh_at(step: Step) -> Bool[Array, ""]:
        is_due = (step - begin_step) % update_every == 0
        return is_due | (step == end_step)

    return latent(inner, mask_fn, refresh_at=refresh_at, trains_all=train_all)


@arguments.check(
    sparsity=arguments.fraction,
    backward_sparsity=arguments.real,
    regularization=arguments.real,
    min_layer_density=arguments.real,
)
def top_kast(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    backward_sparsity: float,
    update_every: int = 1,
    regularization: float = 0.0,
    distribution: Distribution = "uniform",
    dense: tuple[str, ...] = (),
    min_layer_density: float = 0.0,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
) -> optax.GradientTransformationExtraArgs:
    """Computes with the largest weights and also trains the next largest: Top-KAST.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights that the forward pass does not use, in
        [0, 1).
      backward_sparsity: fraction of the prunable weights that is not trained, in
        [0, sparsity].
      update_every: steps between mask updates, at least 1.
      regularization: coefficient c of the L2 regularizer, finite and at least 0. Its
        gradient is c w for weights in the forward pass, and c w / D for other trained
        weights, where D = 1 - sparsity is the density of the forward pass. Do not use
        other weight decay.
      distribution: "global" for one threshold over all layers; or how the weights of
        the forward pass and the trained weights are divided among layers: a name in
        `distributions.NAMES` ("uniform", "balanced", "er" or "erk"), or a function of
        masks and sparsity that returns the number of weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: the forward pass uses all of their weights. Must be empty if
        `distribution` is a function.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights; other layers are pruned more to compensate. Only for distribution
        "global". With 0, as in the papers, a layer may lose all of its weights.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      D is the density of the whole network, even where layers differ. The paper's
      coefficient depends on the task; here it is 0 unless given. The optimizer state of
      weights that are no longer trained is kept and decays.

    References:
      Jayakumar, Pascanu, Rae, Osindero, Elsen. Top-KAST: Top-K Always Sparse Training.
      2021. arXiv:2106.03517, section 2.
    """
    update_every = update_schedules.check_steps(
        update_every, field="update_every", minimum=1
    )
    if not 0 <= backward_sparsity <= sparsity:
        raise ValueError(
            f"backward_sparsity: expected a fraction in [0, {sparsity}], since every "
            f"weight of the forward pass is trained, got {backward_sparsity}"
        )
    if not 0 <= regularization < math.inf:
        raise ValueError(
            "regularization: expected a finite number of at least 0, got "
            f"{regularization}"
        )
    select_masks = magnitude.make_mask_fn(
        distribution=distribution,
        dense=dense,
        min_layer_density=min_layer_density,
        axes=axes,
    )
    table = [Fraction(str(sparsity)), Fraction(str(backward_sparsity))]

    def mask_fn(params: Params, step: Step) -> tuple[Masks, Masks]:
        del step
        everything = masks_lib.ones(params, prunable=prunable)
        trained = select_masks(everything, params, table, jnp.int32(1))
        # Chosen among the trained weights, so that the two masks are nested in all
        # cases, even if magnitudes tie.
        return select_masks(trained, params, table, jnp.int32(0)), trained

    def regularizer_grad(masks: Masks, trained: Masks, params: Params) -> Grads:
        # 1 - sparsity is D, the density of the forward pass.
        outside = regularization / (1 - sparsity)
        return masks_lib.tree_map(
            lambda mask, train, w: jnp.where(
                mask, regularization * w, jnp.where(train, outside * w, 0)
            ),
            masks,
            trained,
            params,
        )

    return latent(
        inner,
        mask_fn,
        refresh_at=lambda step: step % update_every == 0,
        regularizer_grad=regularizer_grad if regularization else None,
        trains_all=False,
    )


@arguments.check(decay=arguments.real)
def sr_ste(
    inner: optax.GradientTransformation,
    *,
    n: int = 2,
    m: int = 4,
    decay: float = 2e-4,
    update_every: int = 1,
    dense: tuple[str, ...] = (),
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
) -> optax.GradientTransformationExtraArgs:
    """Computes with the n largest of every m weights, and trains all of them: SR-STE.

    Groups of m consecutive weights lie along the input axis. For weights outside the
    masks, `decay` times the weight is added to the gradient, which keeps weights from
    changing between active and inactive all the time.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      n: weights of each group that the forward pass uses, in [1, m].
      m: weights in a group.
      decay: coefficient of the regularizer for weights outside the masks, finite and at
        least 0; 0 gives the plain straight-through estimator.
      update_every: steps between mask updates, at least 1.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: the forward pass uses all of their weights.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes. Every leaf that is not in
        `dense` must have a number of inputs divisible by m.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or a layer's inputs are not divisible
        by m.
      TypeError: if `n` or `m` is not an integer.

    References:
      Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun, Li. Learning N:M Fine-grained Structured
      Sparse Neural Networks From Scratch. 2021. arXiv:2102.04010, equation 8.
    """
    update_every = update_schedules.check_steps(
        update_every, field="update_every", minimum=1
    )
    for field, value in (("n", n), ("m", m)):
        if not isinstance(value, int | np.integer):
            raise TypeError(f"{field}: expected an integer, got {value!r}")
    if not 1 <= n <= m:
        raise ValueError(f"n: expected an integer from 1 to m={m}, got {n}")
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay: expected a finite number of at least 0, got {decay}")
    select_masks = magnitude.make_mask_fn(
        distribution="uniform",
        dense=dense,
        structure=select.n_of_m(m),
        axes=axes,
    )

    def mask_fn(params: Params, step: Step) -> tuple[Masks, None]:
        del step
        everything = masks_lib.ones(params, prunable=prunable)
        # An exact fraction, since most 1 - n / m have no exact float.
        return select_masks(
            everything, params, [1 - Fraction(n, m)], jnp.int32(0)
        ), None

    def regularizer_grad(masks: Masks, trained: None, params: Params) -> Grads:
        del trained
        return masks_lib.tree_map(
            lambda mask, w: jnp.where(mask, 0, decay * w),
            masks,
            params,
        )

    return latent(
        inner,
        mask_fn,
        refresh_at=lambda step: step % update_every == 0,
        regularizer_grad=regularizer_grad if decay else None,
    )
