"""Latent-dense training: all weights are kept and trained, few are computed with.

The parameters in the training loop are the dense ones. What the network computes with
is `forward_params(params, opt_state)`, exactly zero outside the masks, and the gradient
is taken there:

    weights = transforms.forward_params(params, opt_state)
    grads = jax.grad(loss)(weights)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)

The masks always belong to the present parameters: an update chooses them after its
step, for the next forward pass. The methods:

    method            weights that are trained             besides
    straight_through  all, by the gradient at the few      -
    gradual, below    those computed with; others wait     -
    top_kast          those computed with, and some more   pull to zero, more outside
    sr_ste            all                                  pull to zero outside
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

from jaxsparse import arguments, calendars, fan_axes, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import largest
from jaxsparse.transforms.engine import check_grads, is_placeholder
from jaxsparse.transforms.starting import Distribution, Prunable
from jaxsparse.transforms.state import LatentState
from jaxsparse.types import Grads, Masks, Params, Step

# Weights to masks: those to compute with, and those to train or None for all.
Choose = Callable[[Params, Step], tuple[Masks, Masks | None]]
Pull = Callable[[Masks, Masks | None, Params], Grads]


@arguments.check(inner=arguments.optimizer)
def latent(
    inner: optax.GradientTransformation,
    choose: Choose,
    *,
    refresh_at: Callable[[Step], Bool[Array, ""]],
    pull: Pull | None = None,
    trains_all: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser of dense weights that are computed with through masks.

    With weights w, masks m to compute with and b to train, and g the gradient at
    m . w, one update

    1. gets u from `inner` for the gradient b . (g + pull) and the weights w;
    2. returns b . u;
    3. if `refresh_at(t + 1)`, chooses the masks for w + u, unless one of these weights
       is not finite: then the masks stay, and `skipped_updates` counts it.

    Args:
      inner: any optimiser.
      choose: weights and the step they are for to masks; must work when traced.
      refresh_at: whether the masks used at a step are chosen anew for it.
      pull: what is added to the gradient, of m, b and w; None for nothing.
      trains_all: whether `choose` returns None for the masks to train.

    Returns:
      A transformation whose state is a `LatentState`.

    Raises:
      ValueError: from `init`, around `optax.lookahead`, or if `choose` returns
        something else than `trains_all` says; from `update`, if `params` is None or
        the gradient of a prunable leaf is.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> LatentState:
        if isinstance(params, optax.LookaheadParams):
            raise ValueError(
                "params: came LookaheadParams; wanted plain parameters, as "
                "latent-dense methods have no masks for slow ones; put lookahead "
                "outside"
            )
        step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        if is_placeholder(params):
            masks, trained = params, None if trains_all else params
        else:
            masks, trained = choose(params, step)
        if trains_all != (trained is None):
            raise ValueError(
                f"trains_all: got {trains_all}, where `choose` returns "
                f"{'None' if trained is None else 'masks'} for the weights to train"
            )
        trained = jax.tree.map(jnp.copy, trained)  # may be the masks: see donation
        return LatentState(step, masks, skipped, trained, inner.init(params))

    def update(
        grads: Grads,
        state: LatentState,
        params: Params | None = None,
        *,
        growth_grads: Any = None,
        **extra: Any,
    ) -> tuple[Params, LatentState]:
        del growth_grads
        if params is None:
            raise ValueError(
                "params: came None; wanted the dense parameters; call "
                "tx.update(grads, opt_state, params)"
            )
        check_grads(state.masks, grads)
        trained = state.memory
        if pull is not None:
            grads = _add(grads, pull(state.masks, trained, params))
        if trained is not None:
            grads = masks_lib.apply(trained, grads)
        updates, inner_state = inner.update(grads, state.inner_state, params, **extra)
        if trained is not None:
            updates = masks_lib.apply(trained, updates)
        step = optax.safe_increment(state.step)
        weights = optax.apply_updates(params, updates)
        held = state.masks, trained
        (masks, trained), skipped = jax.lax.cond(
            refresh_at(step),
            lambda: _refresh(choose(weights, step), held, weights),
            lambda: (held, jnp.zeros((), jnp.int32)),
        )
        return updates, LatentState(
            step, masks, state.skipped_updates + skipped, trained, inner_state
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _refresh(new: Any, held: Any, weights: Params) -> tuple[Any, Array]:
    """New masks, or those held if a weight is not finite, and how often it was so."""
    finite = select.all_finite(
        masks_lib.tree_map(lambda _, leaf: leaf, held[0], weights)
    )
    chosen = jax.tree.map(lambda now, before: jnp.where(finite, now, before), new, held)
    return chosen, jnp.where(finite, jnp.int32(0), jnp.int32(1))


def _add(grads: Grads, more: Any) -> Grads:
    return jax.tree.map(
        lambda extra, grad: grad if extra is None else grad + extra.astype(grad.dtype),
        more,
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
    """Computes with the largest weights, and trains all of them straight through.

    Weights out of the masks are trained by the gradient they would have, so masks need
    not nest. With `train_all` False they wait at their values instead, and return if
    others fall below them: gradual magnitude pruning without monotone masks.

    Args:
      inner: any optimiser.
      sparsity: fraction of the prunable weights not computed with, in [0, 1).
      begin_step: the first step of a gradual schedule; masks hold `initial_sparsity`
        before. The default computes with the final sparsity from the first step on.
      end_step: the step from which the sparsity is the final one, exactly.
      update_every: updates between choices of masks, before and after `end_step`.
      initial_sparsity: before `begin_step`, in [0, 1).
      schedule: as in `gradual_magnitude`; sparsities may fall.
      distribution: as in `gradual_magnitude`, and so are the others.
      dense: as above.
      structure: as above.
      min_layer_density: as above.
      train_all: whether all weights are trained or only those computed with.
      prunable: as above.
      axes: as above.

    Returns:
      The optimiser.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    References:
      Bengio, Leonard, Courville. Estimating or Propagating Gradients Through Stochastic
      Neurons for Conditional Computation. 2013. arXiv:1308.3432 (straight-through).
    """
    calendar = calendars.make_calendar(
        begin_step=begin_step, update_every=update_every, end_step=end_step, closes=True
    )
    table = calendars.gradual_sparsities(
        calendar, initial=initial_sparsity, final=sparsity, schedule=schedule
    )
    table = [Fraction(str(initial_sparsity)), *table]
    choice = largest.make_choice(
        distribution=distribution,
        dense=dense,
        structure=structure,
        min_layer_density=min_layer_density,
        axes=axes,
    )

    def choose(params: Params, step: Step) -> tuple[Masks, Masks | None]:
        everything = masks_lib.dense(params, prunable=prunable)
        changes = calendars.change_index(calendar, step + 1)
        changes = jnp.clip(changes, 0, len(table) - 1)
        changes = jnp.where(step >= end_step, len(table) - 1, changes)
        masks = choice(everything, params, table, changes)
        return masks, None if train_all else masks

    def refresh_at(step: Step) -> Bool[Array, ""]:
        goes_on = (step - begin_step) % update_every == 0
        return goes_on | (step == end_step)

    return latent(inner, choose, refresh_at=refresh_at, trains_all=train_all)


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
    """Computes with the largest weights and trains those and some more: Top-KAST.

    Args:
      inner: any optimiser.
      sparsity: fraction of the prunable weights not computed with, in [0, 1).
      backward_sparsity: fraction not trained, at most `sparsity`.
      update_every: updates between choices of masks.
      regularization: coefficient c of the pull to zero: c w for weights that are
        computed with, c w / D for others that are trained, where D is the fraction
        computed with, 1 - sparsity. Apply no other weight decay.
      distribution: as in `gradual_magnitude`, and so are the others.
      dense: as above.
      min_layer_density: as above.
      prunable: as above.
      axes: as above.

    Returns:
      The optimiser.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      D is that of the whole network, also where layers differ. The paper's coefficient
      depends on the task; here it is 0 unless given. What the optimiser remembers of
      weights that leave the trained ones stays, and fades.

    References:
      Jayakumar, Pascanu, Rae, Osindero, Elsen. Top-KAST: Top-K Always Sparse Training.
      2021. arXiv:2106.03517, section 2.
    """
    update_every = calendars.check_steps(update_every, field="update_every", least=1)
    if not 0 <= backward_sparsity <= sparsity:
        raise ValueError(
            f"backward_sparsity: got {backward_sparsity}; wanted one in [0, "
            f"{sparsity}], as every weight computed with is trained"
        )
    if not 0 <= regularization < math.inf:
        raise ValueError(
            f"regularization: got {regularization}; expected a finite number, 0 or more"
        )
    choice = largest.make_choice(
        distribution=distribution,
        dense=dense,
        min_layer_density=min_layer_density,
        axes=axes,
    )
    table = [Fraction(str(sparsity)), Fraction(str(backward_sparsity))]

    def choose(params: Params, step: Step) -> tuple[Masks, Masks]:
        del step
        everything = masks_lib.dense(params, prunable=prunable)
        trained = choice(everything, params, table, jnp.int32(1))
        return choice(trained, params, table, jnp.int32(0)), trained

    def pull(masks: Masks, trained: Masks, params: Params) -> Grads:
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
        choose,
        refresh_at=lambda step: step % update_every == 0,
        pull=pull if regularization else None,
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
    """Computes with the n largest of every m weights, trains all: SR-STE.

    Groups lie along the input axis. The gradient of weights that are not computed with
    gets `decay` times the weight added, which keeps masks from flickering.

    Args:
      inner: any optimiser.
      n: weights computed with in each group, in [1, m].
      m: weights in a group.
      decay: coefficient of the pull to zero outside the masks, at least 0; 0 is plain
        straight-through.
      update_every: updates between choices of masks.
      dense: shell patterns of layers to compute with as a whole.
      prunable: which leaves have masks, see `masks.dense`; the number of inputs of each
        that is not in `dense` must be a multiple of m.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`; None to
        infer them from names and shapes.

    Returns:
      The optimiser.

    Raises:
      ValueError: if an argument is out of range or a layer does not divide.

    References:
      Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun, Li. Learning N:M Fine-grained Structured
      Sparse Neural Networks From Scratch. 2021. arXiv:2102.04010, equation 8.
    """
    update_every = calendars.check_steps(update_every, field="update_every", least=1)
    for field, value in (("n", n), ("m", m)):
        if not isinstance(value, int | np.integer):
            raise TypeError(f"{field}: got {value!r}; expected an integer")
    if not 1 <= n <= m:
        raise ValueError(f"n: got {n} of m={m}; wanted one in [1, {m}]")
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay: got {decay}; expected a finite number, 0 or more")
    choice = largest.make_choice(
        distribution="uniform",
        dense=dense,
        structure=select.in_groups(m),
        axes=axes,
    )

    def choose(params: Params, step: Step) -> tuple[Masks, None]:
        del step
        everything = masks_lib.dense(params, prunable=prunable)
        return choice(everything, params, [1 - Fraction(n, m)], jnp.int32(0)), None

    def pull(masks: Masks, trained: None, params: Params) -> Grads:
        del trained
        return masks_lib.tree_map(
            lambda mask, w: jnp.where(mask, 0, decay * w), masks, params
        )

    return latent(
        inner,
        choose,
        refresh_at=lambda step: step % update_every == 0,
        pull=pull if decay else None,
    )
